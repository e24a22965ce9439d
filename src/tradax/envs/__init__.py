"""Markets as pure functions. Each module has a `Config` and `make(config, market, train)`.

Importing this package registers them with Gymnasium: `gymnasium.make("tradax/Trading-v0")`.
`from_gymnasium` goes the other way.
"""

from typing import TYPE_CHECKING, Any

from tradax.envs._registration import register as register

if TYPE_CHECKING:
    from tradax.sources import from_gymnasium as from_gymnasium

register()


def __getattr__(name: str) -> Any:
    if name == "from_gymnasium":  # late, for it stands below in the layout
        from tradax.sources import from_gymnasium

        return from_gymnasium
    raise AttributeError(f"module 'tradax.envs' has no attribute {name!r}")
