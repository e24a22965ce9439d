"""Gymnasium spaces as Stable-Baselines3 keeps them: a pickle, and beside it plain text.

We write both and read the text.
"""

import base64
from typing import Any

import gymnasium
import numpy as np

from tradax.errors import ConfigError, ModelFileError
from tradax.sb3 import _opcodes
from tradax.sb3._opcodes import Call, Global
from tradax.spaces import ActionSpec, Spec, action_spec

Space = gymnasium.spaces.Box | gymnasium.spaces.Discrete
_MOST = 2**24


def described(space: Any) -> dict[str, Any]:
    """An entry of `data`.

    Raises:
        ConfigError: a space other than Discrete from 0 and Box.
    """
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        code = Call(Global("gymnasium.spaces.discrete", "Discrete"), (int(space.n),))
        plain = {"dtype": "int64", "n": str(space.n), "start": "0", "_shape": []}
        return _pickled("<class 'gymnasium.spaces.discrete.Discrete'>", code) | plain
    if isinstance(space, gymnasium.spaces.Box) and space.dtype == np.float32:
        low, high = (_bounds(x) for x in (space.low, space.high))
        kind = Global("numpy", "float32")
        code = Call(Global("gymnasium.spaces.box", "Box"), (low, high, tuple(space.shape), kind))
        text = {name: _text(getattr(space, name)) for name in ("low", "high")}
        plain = {"dtype": "float32", "_shape": list(space.shape), **text}
        return _pickled("<class 'gymnasium.spaces.box.Box'>", code) | plain
    raise ConfigError(f"{space} cannot be written; Discrete from 0 and Box of float32 can")


def _pickled(kind: str, code: Any) -> dict[str, Any]:
    return {":type:": kind, ":serialized:": base64.b64encode(_opcodes.write(code)).decode()}


def _bounds(values: np.ndarray) -> Any:
    """One number where all are equal, for short files."""
    if values.size and (values == values.flat[0]).all():
        return float(values.flat[0])
    return Call(Global("numpy", "array"), (values.tolist(), "float32"))


def _text(values: np.ndarray) -> str:
    return np.array2string(
        values, threshold=values.size + 1, max_line_width=2**31, floatmode="unique"
    )


def read(entry: Any, name: str, source: str) -> Space:
    """A space from the plain text of its entry in `data`; its pickle is not looked at.

    Raises:
        ModelFileError: other spaces than Discrete from 0 and Box of one axis.
    """
    if not isinstance(entry, dict):
        raise ModelFileError(f"{source}: {name} is missing")
    kind = str(entry.get(":type:", "")).removesuffix("'>").rsplit(".", 1)[-1]
    try:
        if kind == "Discrete":
            if int(entry.get("start", 0)) != 0:
                raise ModelFileError(f"{source}: {name} does not begin at 0, which is not read")
            n = int(entry["n"])
            if not 1 <= n <= _MOST:
                raise ValueError(f"n is {n}")
            return gymnasium.spaces.Discrete(n)
        if kind == "Box":
            shape = entry["_shape"] if "_shape" in entry else entry["shape"]
            if not (isinstance(shape, list) and len(shape) == 1 and 1 <= int(shape[0]) <= _MOST):
                raise ModelFileError(
                    f"{source}: {name} is a Box of shape {shape}; only those of one axis are read"
                )
            size = int(shape[0])
            low, high = (
                _numbers(entry[key], size, sign) for key, sign in (("low", -1), ("high", 1))
            )
            return gymnasium.spaces.Box(low, high, dtype=np.float32)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{source}: {name} is damaged ({error})") from None
    raise ModelFileError(
        f"{source}: {name} is of kind {kind or 'unknown'}; only Box and Discrete are read"
    )


def _numbers(text: str, size: int, sign: int) -> np.ndarray:
    """What numpy printed; where it left some out for length, there are no bounds."""
    words = text.replace("[", " ").replace("]", " ").split()
    if "..." in words:
        return np.full(size, sign * np.inf, np.float32)
    values = np.array([float(word) for word in words], np.float32)
    if values.shape != (size,) or np.isnan(values).any():
        raise ValueError(f"{len(values)} bounds for {size} numbers")
    return values


def spec_of(observations: Space, actions: Space, source: str) -> Spec:
    """What a policy over these spaces takes and gives.

    Raises:
        ModelFileError: discrete observations, or actions without bounds.
    """
    if not isinstance(observations, gymnasium.spaces.Box):
        raise ModelFileError(f"{source}: discrete observations are not read; only a Box is")
    try:
        return Spec(0, observations.shape[0], action_spec(actions))
    except ValueError as error:
        raise ModelFileError(f"{source}: {error}") from None


def observation_space(size: int) -> gymnasium.spaces.Box:
    """Of flat observations without bounds."""
    return gymnasium.spaces.Box(-np.inf, np.inf, (size,), np.float32)


def action_space(action: ActionSpec) -> Space:
    if action.n is not None:
        return gymnasium.spaces.Discrete(action.n)
    low, high = (np.array(x, np.float32) for x in (action.low, action.high))
    return gymnasium.spaces.Box(low, high, dtype=np.float32)
