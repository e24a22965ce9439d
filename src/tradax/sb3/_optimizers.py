"""States of PyTorch's Adam and of Stable-Baselines3's RMSprop, by the names of parameters."""

from typing import Any, Literal, NamedTuple

import numpy as np

from tradax.errors import ModelFileError

Named = dict[str, np.ndarray]
_ENTRIES = {"mu": "exp_avg", "nu": "exp_avg_sq"}
_RMSPROP_ENTRIES = {"nu": "square_avg"}


class Found(NamedTuple):
    """What an optimiser's state holds."""

    kind: Literal["adam", "rmsprop"]
    means: dict[str, Named]
    """`mu` and `nu`, or `nu` alone, by parameter."""
    steps: int

    def of_loss(self, factor: float) -> dict[str, Named]:
        """The means, of a loss that is so many times the one that was minimised."""
        factors = {"mu": np.float32(factor), "nu": np.float32(factor**2)}
        return {
            mean: {name: factors[mean] * array for name, array in named.items()}
            for mean, named in self.means.items()
        }


def adam(
    order: list[str], means: dict[str, Named], steps: int, learning_rate: float, *, eps: float
) -> dict[str, Any]:
    """Args:
    order: all parameters.
    means: `mu` and `nu` of those that are trained; empty: none.
    """
    group = {
        "lr": learning_rate,
        "betas": (0.9, 0.999),
        "eps": eps,
        "weight_decay": 0,
        "amsgrad": False,
        "maximize": False,
        "foreach": None,
        "capturable": False,
        "differentiable": False,
        "fused": None,
        "decoupled_weight_decay": False,
    }
    return _state(order, means, _ENTRIES, steps, group)


def rmsprop(
    order: list[str], means: dict[str, Named], steps: int, learning_rate: float
) -> dict[str, Any]:
    """Of `RMSpropTFLike`, which as ours has epsilon under the root."""
    group = {"momentum": 0, "alpha": 0.99, "eps": 1e-5, "centered": False, "weight_decay": 0}
    return _state(order, means, _RMSPROP_ENTRIES, steps, {"lr": learning_rate, **group})


def _state(
    order: list[str], means: dict[str, Named], entries: dict[str, str], steps: int, group: dict
) -> dict[str, Any]:
    state = {}
    if means and steps:
        for number, name in enumerate(order):
            if name in means["nu"]:
                state[number] = {"step": np.float32(steps)}
                state[number] |= {entry: means[mean][name] for mean, entry in entries.items()}
    return {"state": state, "param_groups": [{**group, "params": list(range(len(order)))}]}


def read(
    saved: Any, shapes: dict[str, tuple[int, ...]], needed: list[str], source: str
) -> Found | None:
    """The inverse, or None where nothing was optimised yet, or by another optimiser.

    Args:
        shapes: of all parameters, in PyTorch's order.
        needed: those whose means are wanted.

    Raises:
        ModelFileError: means of other shapes than the parameters.
    """
    state = saved.get("state") if isinstance(saved, dict) else None
    if not isinstance(state, dict) or not state:
        return None
    number = {name: i for i, name in enumerate(shapes)}
    first = state.get(number[needed[0]])
    known: tuple[tuple[Literal["adam", "rmsprop"], dict], ...]
    known = (("adam", _ENTRIES), ("rmsprop", _RMSPROP_ENTRIES))
    for kind, entries in known:
        if isinstance(first, dict) and set(first) == {"step", *entries.values()}:
            means: dict[str, Named] = {mean: {} for mean in entries}
            for name in needed:
                for mean, entry in entries.items():
                    means[mean][name] = _mean(state, number[name], entry, shapes[name], source)
            return Found(kind, means, _steps(first["step"], source))
    return None


def _steps(step: Any, source: str) -> int:
    number = np.asarray(step)
    if number.size != 1 or number.dtype.kind not in "if" or not 0 <= number < 2**31:
        raise ModelFileError(f"{source}: the optimiser's step is no count of steps")
    return int(number.reshape(()))


def _mean(state: dict, number: int, entry: str, shape: tuple[int, ...], source: str) -> np.ndarray:
    found = state.get(number)
    array = found.get(entry) if isinstance(found, dict) else None
    fits = isinstance(array, np.ndarray) and (array.dtype, array.shape) == (np.float32, shape)
    if isinstance(array, np.ndarray) and fits and np.isfinite(array).all():
        return array
    raise ModelFileError(
        f"{source}: the optimiser's {entry} of parameter {number} is not of finite float32 "
        f"numbers of shape {list(shape)}"
    )
