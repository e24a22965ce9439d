"""Every market of tradax under a name of Gymnasium's: `trading` is "tradax/Trading-v0".

Names come from the files of this folder; what a name stands for is imported when it is made.
"""

from tradax import discovery

_MAKERS = "tradax.envs._gymnasium:make", "tradax.envs._gymnasium_vector:make"


def register() -> list[str]:
    """Register all markets that are not registered yet. Returns: all ids."""
    from gymnasium.envs import registration

    ids = {environment_id(name): name for name in discovery.environments()}
    for one, name in ids.items():
        if one not in registration.registry:
            registration.register(
                one, _MAKERS[0], vector_entry_point=_MAKERS[1], kwargs={"market": name}
            )
    return list(ids)


def environment_id(name: str) -> str:
    """`discrete_trading` -> "tradax/DiscreteTrading-v0"."""
    return f"tradax/{name.title().replace('_', '')}-v0"
