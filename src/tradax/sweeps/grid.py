"""Settings to try: every combination of a grid, or random draws from ranges.

Options are named `section.option`, as on the command line: `ppo.learning-rate`.
"""

import difflib
import itertools
import json
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, get_args, get_origin

import numpy as np

from tradax import discovery
from tradax.config import Field
from tradax.errors import ConfigError

Setting = dict[str, dict[str, Any]]
"""Section -> option -> value."""


class Range(NamedTuple):
    """Numbers from `low` to `high`, both possible."""

    kind: Literal["uniform", "log", "int"]
    """Equal chances for equal differences, for equal ratios, or for each whole number."""
    low: float
    high: float

    def draw(self, chance: float) -> float | int:
        """The number below which a share `chance` of the draws lies."""
        if self.kind == "log":
            return float(math.exp(math.log(self.low) + chance * math.log(self.high / self.low)))
        if self.kind == "int":
            low, high = int(self.low), int(self.high)
            return min(low + int(chance * (high - low + 1)), high)
        return float(self.low + chance * (self.high - self.low))


class Space(NamedTuple):
    """What is tried; option names are (section, option)."""

    choices: dict[tuple[str, str], list[Any]]
    ranges: dict[tuple[str, str], Range]


def space(
    algorithm: str,
    env: str,
    choices: Mapping[str, Sequence[Any]] | None = None,
    ranges: Mapping[str, Any] | None = None,
) -> Space:
    """Check names and values, which may be text as on the command line.

    Args:
        choices: "ppo.learning_rate" -> values; text is read as the option's type.
        ranges: "ppo.learning_rate" -> "log:1e-5:1e-2", "int:16:128" or "0:1", or (kind, low, high).

    Raises:
        ConfigError: no such option, no values, or a range that has no numbers.
    """
    known = _options(algorithm, env)
    listed = {_named(n, known): _values(n, v, known) for n, v in (choices or {}).items()}
    ranged = {_named(n, known): _range(n, r, known) for n, r in (ranges or {}).items()}
    if twice := listed.keys() & ranged.keys():
        section, option = min(twice)
        raise ConfigError(f"{section}.{option} has both a list of values and a range; give one")
    return Space(listed, ranged)


def grid(tried: Space) -> list[Setting]:
    """Every combination; the last option changes fastest. Without options, the one of defaults.

    Raises:
        ConfigError: there are ranges, which only `draws` can use.
    """
    if tried.ranges:
        section, option = next(iter(tried.ranges))
        raise ConfigError(
            f"{section}.{option} has a range; say how many settings to draw (random, --random)"
        )
    names = list(tried.choices)
    combinations = itertools.product(*tried.choices.values())
    return [_setting(zip(names, values, strict=True)) for values in combinations]


def draws(tried: Space, count: int, seed: int) -> list[Setting]:
    """So many random settings; lists of values are drawn from with equal chances.

    The first n of them are the same for every count.

    Raises:
        ConfigError: nothing to draw from, or a count below 1.
    """
    if count < 1:
        raise ConfigError(f"random is {count}; it must be at least 1")
    if not tried.ranges:
        raise ConfigError("random settings need at least one range (ranges, --range)")
    generator = np.random.default_rng(seed)
    drawn = []
    for _ in range(count):
        values = [
            (name, one.draw(generator.random())) for name, one in sorted(tried.ranges.items())
        ]
        values += [
            (name, some[int(generator.integers(len(some)))])
            for name, some in sorted(tried.choices.items())
        ]
        drawn.append(_setting(values))
    return drawn


def words(setting: Setting) -> str:
    """The setting in a few words, for tables: `learning_rate 0.0003, n_steps 64`."""
    told = [
        f"{option} {value:.4g}" if isinstance(value, float) else f"{option} {value}"
        for options in setting.values()
        for option, value in options.items()
    ]
    return ", ".join(told) or "defaults"


def read_choice(text: str) -> tuple[str, list[str]]:
    """`NAME=A,B,C` of the command line."""
    name, found, values = text.partition("=")
    if not found or not name:
        raise ConfigError(f"{text!r} is no list of values; write section.option=A,B,C")
    return name, [value for value in values.split(",") if value]


def read_range(text: str) -> tuple[str, str]:
    """`NAME=[KIND:]LOW:HIGH` of the command line."""
    name, found, given = text.partition("=")
    if not found or not name:
        raise ConfigError(f"{text!r} is no range; write section.option=log:LOW:HIGH")
    return name, given


def _options(algorithm: str, env: str) -> dict[str, dict[str, Field]]:
    """Section -> option -> how it is declared."""
    discovery.module("algorithms", algorithm)  # raises, naming near ones
    found = {algorithm: discovery.options("algorithms", algorithm)}
    if env in discovery.environments():
        found[env] = discovery.options("envs", env)
        if "rivals" in discovery.functions("envs", env):
            found["features"] = discovery.options("data", "features")
    return {name: {field.name: field for field in fields} for name, fields in found.items()}


def _named(name: str, known: dict[str, dict[str, Field]]) -> tuple[str, str]:
    section, _, option = name.replace("-", "_").partition(".")
    if option in known.get(section, {}):
        return section, option
    everything = [f"{s}.{o}" for s, options in known.items() for o in options]
    close = difflib.get_close_matches(name.replace("-", "_"), everything, n=3, cutoff=0.5)
    raise ConfigError(
        f"{name} is no option of this sweep; "
        + (f"did you mean {', '.join(close)}?" if close else f"sections: {', '.join(known)}")
    )


def _values(name: str, given: Sequence[Any], known: dict[str, dict[str, Field]]) -> list[Any]:
    section, option = _named(name, known)
    kind = known[section][option].kind
    if isinstance(given, str) or not isinstance(given, Sequence):
        raise ConfigError(f"{name} is {given!r}; give a list of values")
    values = [_value(name, v, kind) if isinstance(v, str) else v for v in given]
    if not values:
        raise ConfigError(f"{name} has no values to try; give at least one")
    told = [json.dumps(value, default=str) for value in values]
    if len(set(told)) < len(told):
        again = next(text for text in told if told.count(text) > 1)
        raise ConfigError(f"{name} has {again} twice; give each value once")
    return values


def _value(name: str, text: str, kind: Any) -> Any:
    """The text as a value of that type."""
    if isinstance(kind, types.UnionType) or get_origin(kind) is typing.Union:
        if text.lower() == "none" and type(None) in get_args(kind):
            return None
        kind = next(option for option in get_args(kind) if option is not type(None))
    if get_origin(kind) is tuple:
        return tuple(_value(name, part, get_args(kind)[0]) for part in text.split("x"))
    if get_origin(kind) is Literal or kind is str:
        return text
    if kind is bool:
        if text.lower() in ("true", "false"):
            return text.lower() == "true"
        raise ConfigError(f"{name} is {text}; it must be true or false")
    try:
        return kind(text)
    except ValueError:
        what = "a whole number" if kind is int else "a number"
        raise ConfigError(f"{name} is {text}; it must be {what}") from None


def _range(name: str, given: Any, known: dict[str, dict[str, Field]]) -> Range:
    section, option = _named(name, known)
    parts = given.split(":") if isinstance(given, str) else list(given)
    if len(parts) == 2:
        parts = ["uniform", *parts]
    form = "[log|int|uniform]:LOW:HIGH, for instance log:1e-5:1e-2"
    if len(parts) != 3 or parts[0] not in ("uniform", "log", "int"):
        raise ConfigError(f"{name} is {given}; a range is {form}")
    kind = parts[0]
    try:
        low, high = (int(x) if kind == "int" else float(x) for x in parts[1:])
    except (TypeError, ValueError):
        raise ConfigError(f"{name} is {given}; a range is {form}") from None
    if not (math.isfinite(low) and math.isfinite(high)) or low >= high:
        raise ConfigError(f"{name} goes from {low:g} to {high:g}; the first must be below the last")
    if kind == "log" and low <= 0:
        raise ConfigError(f"{name} begins at {low:g}; a log range needs numbers above 0")
    declared = known[section][option].kind
    takes = set(get_args(declared)) or {declared}
    if (int if kind == "int" else float) not in takes:
        fitting = "int" if int in takes else "uniform or log"
        if not takes & {int, float}:
            raise ConfigError(f"{name} is no number; give a list of values (--grid)")
        raise ConfigError(f"{name} takes {fitting} ranges, not {kind}")
    return Range(kind, low, high)


def _setting(values: Any) -> Setting:
    setting: Setting = {}
    for (section, option), value in values:
        setting.setdefault(section, {})[option] = list(value) if isinstance(value, tuple) else value
    return setting
