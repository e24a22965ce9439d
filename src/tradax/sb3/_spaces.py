"""Gymnasium spaces as Stable-Baselines3 keeps them: a pickle, and beside it plain text.

We write both and read the text.
"""

import base64
import math
import warnings
from typing import Any

import gymnasium
import numpy as np

from tradax.errors import ConfigError, ModelFileError
from tradax.sb3 import _opcodes
from tradax.sb3._opcodes import Call, Global
from tradax.spaces import ActionSpec, Spec, action_spec

Space = gymnasium.spaces.Box | gymnasium.spaces.Discrete
_MOST = 2**24
_TYPES = ("float32", "float64", "int8", "int16", "int32", "int64")


def described(space: Any) -> dict[str, Any]:
    """An entry of `data`.

    Raises:
        ConfigError: a space other than Discrete from 0 and Box of floats or integers.
    """
    if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
        code = Call(Global("gymnasium.spaces.discrete", "Discrete"), (int(space.n),))
        plain = {"dtype": "int64", "n": str(space.n), "start": "0", "_shape": []}
        return _pickled("<class 'gymnasium.spaces.discrete.Discrete'>", code) | plain
    if isinstance(space, gymnasium.spaces.Box) and str(space.dtype) in _TYPES:
        low, high = (_bounds(x) for x in (space.low, space.high))
        kind = Global("numpy", str(space.dtype))
        code = Call(Global("gymnasium.spaces.box", "Box"), (low, high, tuple(space.shape), kind))
        text = {name: _text(getattr(space, name)) for name in ("low", "high")}
        plain = {"dtype": str(space.dtype), "_shape": list(space.shape), **text}
        return _pickled("<class 'gymnasium.spaces.box.Box'>", code) | plain
    raise ConfigError(
        f"{space} cannot be written to a file; Discrete from 0, and Box of {', '.join(_TYPES)}, can"
    )


def check_writable(*spaces: Any) -> None:
    """Warns where a model over these spaces can learn, but not be saved."""
    for space in spaces:
        try:
            described(space)
        except ConfigError as error:
            warnings.warn(f"the model can learn, but not be saved: {error}", stacklevel=5)


def _pickled(kind: str, code: Any) -> dict[str, Any]:
    return {":type:": kind, ":serialized:": base64.b64encode(_opcodes.write(code)).decode()}


def _bounds(values: np.ndarray) -> Any:
    """One number where all are equal, for short files."""
    if values.size and (values == values.flat[0]).all():
        return values.flat[0].item()
    return Call(Global("numpy", "array"), (values.tolist(), str(values.dtype)))


def _text(values: np.ndarray) -> str:
    return np.array2string(
        values, threshold=values.size + 1, max_line_width=2**31, floatmode="unique"
    )


def read(entry: Any, name: str, source: str) -> Space:
    """A space from the plain text of its entry in `data`; its pickle is not looked at.

    Raises:
        ModelFileError: other spaces than Discrete from 0 and Box.
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
            kind = str(entry.get("dtype", "float32"))
            if not (isinstance(shape, list) and shape and kind in _TYPES):
                raise ModelFileError(
                    f"{source}: {name} is a Box of shape {shape}, of type {kind}; those with axes "
                    f"and of {', '.join(_TYPES)} are read"
                )
            shape = tuple(int(n) for n in shape)
            if min(shape) < 1 or math.prod(shape) > _MOST:
                raise ValueError(f"the shape is {shape}")
            low, high = (
                _numbers(entry[key], shape, kind, sign) for key, sign in (("low", -1), ("high", 1))
            )
            return gymnasium.spaces.Box(low, high, dtype=np.dtype(kind).type)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{source}: {name} is damaged ({error})") from None
    raise ModelFileError(
        f"{source}: {name} is of kind {kind or 'unknown'}; only Box and Discrete are read"
    )


def _numbers(text: str, shape: tuple[int, ...], kind: str, sign: int) -> np.ndarray:
    """What numpy printed; where it left some out for length, there are no bounds."""
    dtype, size = np.dtype(kind), math.prod(shape)
    words = text.replace("[", " ").replace("]", " ").split()
    if "..." in words:
        if np.issubdtype(dtype, np.integer):
            limits = np.iinfo(dtype)
            return np.full(shape, limits.min if sign < 0 else limits.max, dtype)
        return np.full(shape, sign * np.inf, dtype)
    number = int if np.issubdtype(dtype, np.integer) else float
    values = np.array([number(word) for word in words], dtype)
    if values.shape != (size,) or np.isnan(values).any():
        raise ValueError(f"{len(values)} bounds for {size} numbers")
    return values.reshape(shape)


def spec_of(observations: Space, actions: Space, source: str) -> Spec:
    """What a policy over these spaces takes and gives.

    Raises:
        ModelFileError: discrete observations, or actions without bounds.
    """
    if not isinstance(observations, gymnasium.spaces.Box):
        raise ModelFileError(f"{source}: discrete observations are not read; only a Box is")
    try:
        return Spec(0, math.prod(observations.shape), action_spec(actions))
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
