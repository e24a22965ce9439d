"""The runs of a sweep: which there are, and which fit into one program and into memory at once."""

import json
import resource
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from tradax import discovery, training
from tradax.config import checked
from tradax.errors import ConfigError
from tradax.evaluation.backtest import symbol_of
from tradax.preparation import Request, Task, prepare
from tradax.protocols import Algorithm
from tradax.rollout import JaxSource
from tradax.sweeps.grid import Setting


@dataclass(frozen=True, kw_only=True)
class SweepRequest:
    """What was asked for, in plain values: `sweep.yaml` holds just this."""

    run: dict[str, Any]
    """`Request` of all runs, but for what differs."""
    seeds: list[int]
    settings: list[dict[str, dict[str, Any]]]
    """What is tried, beyond `run["settings"]`."""
    devices: int = 1
    """Devices that share the members of a wave."""
    wave_members: int | None = None
    """Members of a wave at most; None: as many as fit into memory."""
    population: dict[str, Any] | None = None
    """How members of one symbol and seed learn from each other (`population.Population`); they
    start from `settings`. None: not at all."""
    memory: int | None = None
    """Bytes that a wave may take; None where nothing told. Waves follow from what stands here
    alone, so that they are the same on every machine and after a stop."""
    batch: int | None = None
    """Settings that are tried at a time, and share no wave with others; None: all."""
    search: dict[str, Any] | None = None
    """What `optuna_search` goes on from, where it adds settings."""

    def request(self, setting: Setting, seed: int = 0) -> Request:
        """The request of the runs with this setting."""
        merged = {name: dict(options) for name, options in self.run["settings"].items()}
        for name, options in setting.items():
            merged[name] = merged.get(name, {}) | options
        values = self.run | {"settings": merged, "seed": seed}
        return checked(Request, values, "sweep.yaml")


class Member(NamedTuple):
    """One run."""

    number: int
    """From 0, in the order of settings, symbols, seeds."""
    symbol: str
    """What it trades, or the environment's name."""
    seed: int
    setting: int
    """Place in `SweepRequest.settings`."""


class Wave(NamedTuple):
    """Members that train side by side, in one program."""

    number: int
    program: int
    """Waves of the same number share a compilation."""
    members: list[Member]
    size: int
    """Members with those that only fill up the shape, and are thrown away."""
    bytes: int
    """Memory that it takes, in all."""


class Layout(NamedTuple):
    """All that is to be done."""

    members: list[Member]
    waves: list[Wave]
    tasks: list[Task]
    """One a setting; settings of the algorithm only share one."""
    algorithms: list[Algorithm]
    """One a setting."""


def lay_out(
    request: SweepRequest,
    *,
    frame: Any = None,
    free: int | None = None,
    prepared: dict[str, Task] | None = None,
) -> Layout:
    """Check everything and plan the waves; compiles nothing.

    Args:
        frame: bars or a data frame, where the request's data is "frame".
        free: bytes that waves may take; None where nothing tells.
        prepared: tasks of earlier layouts of the same data; those of this one are added.

    Raises:
        ConfigError: a value is out of its bounds, the environment is stepped on the host, or not
            even one member a device fits into memory.
    """
    layout = without_waves(request, frame=frame, prepared=prepared)
    return layout._replace(waves=_waves(layout, request, free))


def without_waves(
    request: SweepRequest, *, frame: Any = None, prepared: dict[str, Task] | None = None
) -> Layout:
    """As `lay_out`, but for memory."""
    prepared = {} if prepared is None else prepared
    tasks, algorithms = [], []
    for setting in request.settings:
        one = request.request(setting)
        elsewhere = {k: v for k, v in one.settings.items() if k != one.algorithm}
        name = json.dumps(elsewhere, sort_keys=True)
        if name not in prepared:
            prepared[name] = prepare(one, frame=frame)
            if not prepared[name].source.jittable:
                raise ConfigError(
                    f"{one.env} is stepped on the host, and a sweep trains on the device; use a "
                    "market or a gymnax environment, or one `tradax train` after the other"
                )
        task = prepared[name]
        module = discovery.module("algorithms", one.algorithm)
        config = one.options_of(module)
        tasks.append(task)
        algorithms.append(module.make(config, task.source.spec, jnp.float32(1)))
        training.updates_needed(algorithms[-1], one.total_timesteps)
    members = []
    for index, task in enumerate(tasks):
        for symbol in symbols_of(task, request.run["env"]):
            for seed in request.seeds:
                members.append(Member(len(members), symbol, seed, index))
    return Layout(members, [], tasks, algorithms)


def symbols_of(task: Task, env: str) -> list[str]:
    """What each environment trades, or the environment's name."""
    return [symbol_of(market) for market in task.markets] or [env]


def single(layout: Layout, member: Member) -> tuple[Algorithm, JaxSource]:
    """The member's algorithm and source as if it were alone."""
    task, algorithm = layout.tasks[member.setting], layout.algorithms[member.setting]
    source = task.source
    if task.markets:
        names = [symbol_of(market) for market in task.markets]
        source = task.single_sources[names.index(member.symbol)]
    assert isinstance(source, JaxSource)
    return algorithm, replace(source, num_envs=algorithm.config.num_envs)


def stacked(layout: Layout, wave: Wave) -> tuple[Algorithm, JaxSource, bool, jax.Array]:
    """What the wave's program is given.

    Returns: algorithm with leaves [size, ...], source likewise or one for all, whether it is for
        all, keys [size].
    """
    filled = wave.members + [wave.members[0]] * (wave.size - len(wave.members))
    pairs = [single(layout, member) for member in filled]
    algorithm = _stack([algorithm for algorithm, _ in pairs])
    sources = [source for _, source in pairs]
    keys = jnp.stack([jax.random.key(member.seed) for member in filled])
    if _all_same(sources):
        return algorithm, sources[0], True, keys
    return algorithm, _stack(sources), False, keys


def _stack(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *x: jnp.asarray(np.stack(x)), *trees)


def _all_same(sources: Sequence[JaxSource]) -> bool:
    leaves = [jax.tree.leaves(source) for source in sources]
    return all(a is b for other in leaves[1:] for a, b in zip(leaves[0], other, strict=True))


def _waves(layout: Layout, request: SweepRequest, free: int | None) -> list[Wave]:
    """Members of one shape together, in as few waves of equal size as memory allows.

    A wave validates on one span, and features may move it: settings of the same shape, with other
    spans, share the program and no wave.
    """
    shapes: list[Any] = []
    of_setting: dict[int, int] = {}
    grouped: dict[tuple[int, int, Any], list[Member]] = {}
    for member in layout.members:
        if member.setting not in of_setting:
            shape = _shape(single(layout, member))
            if shape not in shapes:
                shapes.append(shape)
            of_setting[member.setting] = shapes.index(shape)
        batch = member.setting // request.batch if request.batch else 0
        pipeline = layout.tasks[member.setting].pipeline
        splits = None if pipeline is None else pipeline.splits
        grouped.setdefault((batch, of_setting[member.setting], splits), []).append(member)
    together = 1  # members that must be in one wave
    if request.population is not None:
        together = len(request.settings)
        order = list(dict.fromkeys((member.symbol, member.seed) for member in layout.members))
        for members in grouped.values():
            members.sort(key=lambda member: order.index((member.symbol, member.seed)))
    fewest = _multiple(together, request.devices)
    waves: list[Wave] = []
    programs: list[tuple[int, int]] = []
    needed: dict[int, tuple[int, int]] = {}
    for (_, shape, _), members in grouped.items():
        if shape not in needed:
            needed[shape] = needs(*single(layout, members[0]), devices=request.devices)
        each, fixed = needed[shape]
        most = request.wave_members or _multiple(len(members), request.devices)
        if most < fewest:
            raise ConfigError(
                f"wave_members is {most}; on {request.devices} devices {fewest} train at once"
                + (f", for a population of {together} trains in one wave" if together > 1 else "")
            )
        if free is not None:
            most = min(most, (free - fixed) // each)
        most -= most % request.devices
        if most < fewest:
            raise ConfigError(
                f"{fewest} members at once need {size_words(fixed + each * fewest)}, and "
                f"{size_words(free or 0)} are free; lower num_envs, n_steps, replay_size or devices"
            )
        count = -(-len(members) // (most - most % together))
        size = _multiple(_multiple(-(-len(members) // count), together), request.devices)
        if (shape, size) not in programs:
            programs.append((shape, size))
        program = programs.index((shape, size))
        held = size - size % together
        for start in range(0, len(members), held):
            part = members[start : start + held]
            waves.append(Wave(len(waves), program, part, size, fixed + each * size))
    return waves


def _multiple(number: int, of: int) -> int:
    """The least that is not below `number`."""
    return number + -number % of


def _shape(pair: tuple[Algorithm, JaxSource]) -> Any:
    """What decides on the compiled program."""
    leaves, structure = jax.tree.flatten(jax.tree.map(jnp.asarray, pair))
    return structure, [(x.shape, x.dtype) for x in leaves]


def needs(algorithm: Algorithm, source: JaxSource, *, devices: int) -> tuple[int, int]:
    """Memory in bytes: of each member, and of a wave whatever its size."""
    algorithm = training.with_arrays(algorithm, 1, None)
    progress = jax.eval_shape(
        lambda a, s, k: training.start(a, s, k, axes=None), algorithm, source, jax.random.key(0)
    )
    kept = _bytes(progress) + 2 * _bytes(progress.best_policy) + _bytes((algorithm, source))
    kept += kept // 2  # what is copied in passing, as measured

    def experience(algorithm, source, key):
        progress = training.start(algorithm, source, key, axes=None)
        state = progress.state
        return algorithm.collect(state.learner, source, state.carry, key)[1]

    passing = jax.eval_shape(experience, algorithm, source, jax.random.key(0))
    # The table of a market is no copy.
    if getattr(passing, "table", None) is not None:
        passing = passing._replace(table=None)
    worked = _WORKING_COPIES * _bytes(passing)
    return (kept, worked * devices) if algorithm.in_turn else (kept + worked, 0)


def peak(wave_bytes: int) -> int:
    """Memory that the process, or on a GPU the device, will have taken when waves are done."""
    if jax.default_backend() != "cpu":
        return wave_bytes
    largest = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return largest * (1 if sys.platform == "darwin" else 1024) + _COMPILER + wave_bytes


_COMPILER = 600 * 2**20
"""Bytes that compiling and the libraries of the first wave take, as measured (docs/sweeps.md)."""
_WORKING_COPIES = 4
"""Experience, batch, shuffled minibatches, activations."""


def _bytes(tree: Any) -> int:
    return sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(tree) if hasattr(x, "dtype"))


def size_words(size: int) -> str:
    """Bytes as a person reads them."""
    return f"{size / 2**30:.2f} GiB" if size >= 2**28 else f"{size / 2**20:.1f} MiB"
