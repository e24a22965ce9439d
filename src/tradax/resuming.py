"""Going on with a run: what must be as it was, and what is said where it is not."""

import dataclasses
import hashlib
import sys
from pathlib import Path
from typing import Any

from tradax import discovery, run_directory
from tradax.config import section
from tradax.data import features
from tradax.errors import ConfigError, TradaxError
from tradax.preparation import Request, Task, data_facts

_DECIDING = ("tradax", "jax", "orbax-checkpoint", "numpy")
_MAY_DIFFER = ("total_timesteps", "settings", "skip_posterior")


def continued(asked: Request, run: Request, folder: Path, timesteps: int | None) -> Request:
    """The request of a run that goes on: its own options, and perhaps more time steps.

    Args:
        asked: with defaults for what was not given.

    Raises:
        ConfigError: other options were given; the message names them and both values.
    """
    _check_options(asked, run, folder)
    if timesteps is not None and timesteps < run.total_timesteps:
        raise ConfigError(
            f"{folder} is to have {run.total_timesteps} time steps; they may grow, and {timesteps} "
            "are fewer"
        )
    return dataclasses.replace(
        run,
        total_timesteps=timesteps or run.total_timesteps,
        skip_posterior=run.skip_posterior or asked.skip_posterior,
    )


def _check_options(asked: Request, run: Request, folder: Path) -> None:
    usual = Request(algorithm="ppo", env="trading", data=None, total_timesteps=1)
    pairs = [
        (field.name, getattr(asked, field.name), getattr(run, field.name))
        for field in dataclasses.fields(Request)
        if field.name not in _MAY_DIFFER
        and getattr(asked, field.name) != getattr(usual, field.name)
    ]
    for name, options in asked.settings.items():
        own = _options(run, name)
        pairs += [(f"{name}.{option}", new, own.get(option)) for option, new in options.items()]
    differing = [
        f"{name} is {_plain(new)}, the run has {_plain(old)}"
        for name, new, old in pairs
        if _plain(new) != _plain(old)
    ]
    if differing:
        raise ConfigError(
            f"{folder} cannot be resumed with other options: {'; '.join(differing)}. Leave them "
            "out, or start a new run"
        )


def facts(request: Request, task: Task) -> dict[str, Any] | None:
    """What a run learns from, for its manifest; None where nothing is read from files."""
    found = {} if task.bars is None else data_facts(task)
    if request.offline is not None:
        with Path(request.offline).open("rb") as file:
            found["log_sha256"] = hashlib.file_digest(file, "sha256").hexdigest()
    return found or None


def check_data(folder: Path, task: Task) -> None:
    """Raises ConfigError where the data are not those of the training."""
    known = (run_directory.read_manifest(folder).get("data") or {}).get("sha256")
    if known is not None and task.bars is not None and known != task.bars.sha256:
        raise ConfigError(
            f"its data ({task.bars.source}) changed since it was trained, so its test span is "
            "another; bring the data back, or train again"
        )


def check_world(request: Request, task: Task, folder: Path) -> None:
    """Data and libraries must be those that the run began with.

    Raises:
        TradaxError: naming each difference.
    """
    manifest = run_directory.read_manifest(folder)
    then, now = manifest.get("data") or {}, facts(request, task) or {}
    differing = [
        f"the {what} are not those that it began with ({name} {str(now.get(name))[:12]}..., then "
        f"{then[name][:12]}...); restore {request.offline if name[0] == 'l' else request.data}"
        for name, what in (("sha256", "data"), ("log_sha256", "logged trajectories"))
        if then.get(name, now.get(name)) != now.get(name)
    ]
    versions = run_directory.versions()
    for name in _DECIDING:
        before = manifest.get("versions", {}).get(name)
        if before is not None and _breaking(before) != _breaking(versions[name]):
            differing.append(
                f"it began with {name} {before}, and this is {versions[name]}; install "
                f"{name}=={before}"
            )
    if differing:
        raise TradaxError(f"{folder} cannot be resumed: " + "; ".join(differing))


def from_out(out: str | None, command: list[str]) -> str | None:
    """The folder to resume where the same command is given again for an unfinished run.

    Asks on a terminal.

    Args:
        command: the arguments after `tradax`.

    Raises:
        TradaxError: `out` holds an unfinished run of another command, or there is nobody to ask.
    """
    if out is None or not run_directory.is_unfinished(Path(out)):
        return None
    began = str(run_directory.read_manifest(Path(out)).get("command"))
    if _same(began, " ".join(["tradax", *command])) and sys.stdin.isatty():
        print(f"{out} holds an unfinished run of this command. Go on with it? [Y/n] ", end="")
        if input().strip().lower() in ("", "y", "yes"):
            return out
        raise TradaxError(f"{out} was left as it is; give another --out")
    raise TradaxError(
        f"{out} holds an unfinished run of: {began}\nGo on with it by --resume {out}, or give "
        "another --out"
    )


def _same(one: str, other: str) -> bool:
    return _without_timesteps(one) == _without_timesteps(other)


def _without_timesteps(command: str) -> list[str]:
    """They may grow."""
    words = command.replace("--timesteps=", "--timesteps ").split()
    if "--timesteps" in words:
        at = words.index("--timesteps")
        del words[at : at + 2]
    return words


def _options(run: Request, name: str) -> dict[str, Any]:
    """All that the run's section has, defaults too."""
    own = dict(run.settings.get(name, {}))
    if name == "features":
        module = features
    elif name in (run.algorithm, run.env) and name in discovery.environments():
        module = discovery.module("envs", name)
    elif name == run.algorithm:
        module = discovery.module("algorithms", name)
    else:
        return own
    return vars(run.options_of(module)) if section(module.Config) == name else own


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


def _breaking(version: str) -> tuple[str, ...]:
    """The part whose change announces that things differ: the major one, before 1.0 the minor."""
    parts = version.split(".")
    return tuple(parts[:1] if parts[0] != "0" else parts[:2])
