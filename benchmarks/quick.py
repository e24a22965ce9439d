"""The guard of speed: what compiled programs do, and ratios of times in one run, against a record.

    python -m benchmarks quick             both; exit 1 where something is over 20% worse
    python -m benchmarks quick --counts    counts alone, as CI does: they do not depend on load
    python -m benchmarks quick --record    record anew, after a change that is meant

Counts are of one update, compiled for the CPU and never run: floating-point operations and bytes as
XLA's cost analysis has them (of a loop, one round), bytes of scratch memory, and launches, the
instructions that are executed with all rounds of all loops. Ratios are of seconds, the best of
several turns, to a matrix product, to a plain PPO (`_plain_ppo`), or to the same with less data.
"""

import argparse
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks._rows import CARTPOLE, GENETIC, PEAK, PORTFOLIO, UPDATE, Case

RECORD = Path(__file__).parent / "recorded.json"
WORST = 1.2
TURNS, SECONDS = 5, 1.0
Counts = dict[str, dict[str, float]]
# Instructions that hand something on, and take no time.
_FREE = {"parameter", "constant", "tuple", "get-tuple-element", "bitcast", "after-all"}

PROGRAMS: dict[str, Case] = {
    "ppo_cartpole": {**CARTPOLE, "num_envs": 64},
    "ppo_portfolio": PORTFOLIO,
    "genetic_cartpole": {**GENETIC, "population_size": 256},
    "sac": {"kind": "off_policy", "algorithm": "sac", "env": "Pendulum-v1", "num_envs": 1},
}


def main(arguments: list[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks quick")
    parser.add_argument("--counts", action="store_true", help="nothing that is timed")
    parser.add_argument("--record", action="store_true", help="write instead of compare")
    parser.add_argument("--file", type=Path, default=RECORD)
    given = parser.parse_args(arguments)
    os.environ["JAX_PLATFORMS"] = "cpu"
    os.environ.pop("XLA_FLAGS", None)
    known: Counts = json.loads(given.file.read_text()) if given.file.exists() else {}
    found = {name: counts(compiled(case)) for name, case in PROGRAMS.items()}
    if not given.counts:
        found["ratios"] = {name: ratio(*sides) for name, sides in RATIOS.items()}
    if given.record:
        given.file.write_text(json.dumps(known | found, indent=1, sort_keys=True) + "\n")
        return
    print("| program | what | recorded | now | now / recorded |\n|---|---|---|---|---|")
    for name, figures in found.items():
        for what, now in figures.items():
            was = known.get(name, {}).get(what)
            times = f"{now / was:.2f}" if was else "-"
            print(f"| {name} | {what} | {was or 0:,.4g} | {now:,.4g} | {times} |")
    if worse := losses(found, known):
        raise SystemExit("\n".join(["", *worse]))


def losses(found: Counts, known: Counts) -> list[str]:
    """What is over 20% worse than recorded, or was not recorded, in words."""
    said = []
    for name, figures in found.items():
        for what, now in figures.items():
            was = known.get(name, {}).get(what)
            if was is None:
                said.append(
                    f"{name}, {what}: not recorded; run python -m benchmarks quick --record"
                )
            elif now > WORST * was:
                said.append(
                    f"{name}, {what}: {now:,.4g}, recorded {was:,.4g}, {now / was - 1:+.0%}. Where "
                    "that is meant: python -m benchmarks quick --record"
                )
    return said


def compiled(case: Case) -> Any:
    """One update of a case: collecting and learning, as one program."""
    import equinox as eqx
    import jax
    import jax.numpy as jnp

    from benchmarks.peers import tradax as plug
    from tradax import compiling, discovery, protocols, training
    from tradax.rollout import jax_source

    if case["kind"] == "ppo":
        algorithm, source = plug.ppo_of(case)
    else:
        module = discovery.module("algorithms", case["algorithm"])
        config = module.Config(**plug.options(module, case))
        source = jax_source(case["env"], num_envs=config.num_envs)
        algorithm = module.make(config, source.spec, jnp.float32(1))
    algorithm = training.with_arrays(algorithm, 100, None)
    arrays, static = eqx.partition((algorithm, source), eqx.is_array)

    def init(arrays, key):
        return protocols.init(*eqx.combine(arrays, static), key)

    def step(arrays, state):
        return protocols.step(*eqx.combine(arrays, static), state)

    state = jax.eval_shape(init, arrays, jax.random.key(0))
    return jax.jit(step, compiler_options=compiling.OPTIONS).lower(arrays, state).compile()


def counts(program: Any) -> dict[str, float]:
    """Of a compiled program."""
    cost = program.cost_analysis()
    return {
        "flops": float(cost["flops"]),
        "bytes": float(cost["bytes accessed"]),
        "scratch_bytes": float(program.memory_analysis().temp_size_in_bytes),
        "launches": float(launches(program.as_text())),
    }


def launches(text: str) -> int:
    """Instructions that a program of XLA executes, by its text.

    A loop counts as often as it goes round, where that is known when it is compiled, else once.
    """
    bodies: dict[str, list[str]] = {}
    entry, name = "", ""
    for line in text.splitlines():
        if line.endswith("{") and (head := re.match(r"(ENTRY )?%?([\w.-]+) \(", line)):
            name = head[2]
            bodies[name] = []
            entry = name if head[1] else entry
        elif name and " = " in line:
            bodies[name].append(line)

    def executed(name: str) -> int:
        total = 0
        for line in bodies[name]:
            opcode = re.search(r" ([a-z][\w-]*)\(", line.split(" = ", 1)[1])
            if opcode is None or opcode[1] in _FREE:
                continue
            total += 1
            if opcode[1] == "while":
                rounds = re.search(r'known_trip_count":\{"n":"(\d+)"', line)
                body = re.search(r"body=%?([\w.-]+)", line)
                assert body is not None
                total += int(rounds[1] if rounds else 1) * executed(body[1])
        return total

    return executed(entry)


def ratio(one: Callable, other: Callable) -> float:
    """Seconds a step of the first over those of the second, the least of turns of each."""
    sides = one(), other()
    for _, run in sides:
        run()  # compiles
    taken: tuple[list[float], list[float]] = [], []
    while len(taken[0]) < TURNS or min(map(sum, taken)) < SECONDS:
        for (_, run), found in zip(sides, taken, strict=True):
            began = time.perf_counter()
            run()
            found.append(time.perf_counter() - began)
    seconds = [min(found) / steps for (steps, _), found in zip(sides, taken, strict=True)]
    return seconds[0] / seconds[1]


def _ours(case: Case) -> Callable:
    def made():
        from benchmarks.peers import tradax as plug

        return plug.make(case)

    return made


def _plain() -> tuple[int, Callable]:
    from benchmarks import _plain_ppo

    return _plain_ppo.make(_CARTPOLE)


_CARTPOLE: Case = {**CARTPOLE, "num_envs": 64, "updates": 20}
RATIOS: dict[str, tuple[Callable, Callable]] = {
    "update_over_product": (_ours(UPDATE), _ours(PEAK)),
    "ppo_over_plain_ppo": (_ours(_CARTPOLE), _plain),
    "portfolio_400_over_40": (
        _ours({**PORTFOLIO, "updates": 2}),
        _ours({**PORTFOLIO, "updates": 2, "features": 40}),
    ),
}
