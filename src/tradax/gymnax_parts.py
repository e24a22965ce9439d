"""What is used of gymnax, without what it draws with."""

from tradax.deferred import deferred

with deferred("matplotlib", "matplotlib.colors", "matplotlib.pyplot", "seaborn"):
    import gymnax as gymnax
    from gymnax.environments import spaces as spaces
    from gymnax.environments.environment import Environment as Environment
