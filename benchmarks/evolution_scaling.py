"""A genetic algorithm on many devices: what travels, what it costs, and what limits it.

First, measured: two processes of one job on this machine, for a small and a large network: bytes
that pass between them in a generation (the loopback interface's own count), and whether both find
what one process finds. Then the constants of the cost model of docs/scaling.md, and the model's
time of a generation on up to 1,000 hosts, the slowest host drawn from measured lengths of episodes.
"""

import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from tradax import parallel

GENERATIONS = 40
NETWORKS = {"16x16": (16, 16), "512x512": (512, 512)}
POPULATION, EPISODE = 102_400, 500
HOSTS = (1, 2, 10, 100, 1_000)
# Assumed, not measured here: a message between two hosts of one data centre.
LATENCY, BANDWIDTH = 100e-6, 1e9


def search(hidden: tuple[int, ...], population: int = 64, limit: int = 50):
    # Imported here, for a process joins its job before anything is computed.
    from tradax.algorithms import genetic
    from tradax.rollout import jax_source

    config = genetic.Config(
        population_size=population, episodes=1, episode_limit=limit, hidden_sizes=hidden
    )
    source = jax_source("CartPole-v1", num_envs=config.num_envs)
    return genetic.make(config, source.spec, jnp.float32(1)), source


def generations(hidden: tuple[int, ...], mesh=None):
    """A function that lets some generations pass in one program, and gives what was found: best
    fitness, sum of the best parameters.
    """
    from tradax import protocols

    algorithm, source = search(hidden)
    state = protocols.init(algorithm, source, jax.random.key(0))

    def pass_by(state):
        return jax.lax.fori_loop(
            0, GENERATIONS, lambda _, state: protocols.step(algorithm, shared, state)[0], state
        )

    shared = source
    if mesh is not None:
        shared = replace(source, axis=parallel.AXIS)
        state, pass_by = parallel.spread(state, mesh), parallel.everywhere(pass_by, mesh)
    pass_by = jax.jit(pass_by)

    def run() -> tuple[float, float]:
        learner = parallel.here(pass_by(state)).learner
        return float(learner.best_fitness), float(jnp.sum(learner.best))

    return run


def worker(port: str, number: str, network: str) -> None:
    parallel.join(f"127.0.0.1:{port}", int(number), 2)
    run = generations(NETWORKS[network], parallel.device_mesh())
    run()  # compiles, and connects
    parallel.agree(0, False)
    before = loopback_bytes()
    found = run()
    parallel.agree(0, False)
    if parallel.is_first():
        print(*found, (loopback_bytes() - before) / GENERATIONS)
    parallel.leave()


def loopback_bytes() -> int:
    """Received by the loopback interface since the machine started (Linux)."""
    for line in Path("/proc/net/dev").read_text().splitlines():
        if line.strip().startswith("lo:"):
            return int(line.split(":")[1].split()[0])
    raise SystemExit("no loopback interface in /proc/net/dev")


def pair(network: str) -> tuple[float, float, float]:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = str(free.getsockname()[1])
    command = [sys.executable, "-m", "benchmarks.evolution_scaling", "worker", port]
    jobs = [
        subprocess.Popen([*command, str(i), network], stdout=subprocess.PIPE, text=True)
        for i in range(2)
    ]
    said = [job.communicate()[0] for job in jobs]
    fitness, total, traffic = map(float, said[0].splitlines()[-1].split())
    return fitness, total, traffic


def seconds_of(function, *arguments) -> float:
    """Median of five calls, compiled before."""
    jax.block_until_ready(function(*arguments))
    taken = []
    for _ in range(5):
        began = time.perf_counter()
        jax.block_until_ready(function(*arguments))
        taken.append(time.perf_counter() - began)
    return float(np.median(taken))


def main() -> None:
    print("| network | parameters | best fitness, 1 and 2 processes | bytes a generation |")
    print("|---|---|---|---|")
    for name, hidden in NETWORKS.items():
        alone = generations(hidden)()
        fitness, total, traffic = pair(name)
        assert abs(total - alone[1]) <= 1e-3 * max(1.0, abs(total)), (alone, total)
        size = search(hidden)[0].init(jax.random.key(0)).parameters.size
        print(f"| {name} | {size:,} | {alone[0]:g}, {fitness:g} | {traffic:,.0f} |", flush=True)

    # Constants of one host, for 64x64 networks.
    algorithm, source = search((64, 64), population=1_024, limit=EPISODE)
    learner = algorithm.init(jax.random.key(0))._replace(updates=jnp.int32(1))
    draw = jax.jit(lambda key: algorithm.individuals(learner, key, jnp.arange(1_024)))
    drawing = seconds_of(draw, jax.random.key(1)) / 1_024
    # Whole episodes: the pole may fall, but nothing ends before the last one does.
    play = jax.jit(
        lambda key: algorithm.collect(learner, source, None, key)[1:]  # generation, finished
    )
    generation, _ = play(jax.random.key(2))
    began = seconds_of(play, jax.random.key(2))
    slowest = float(generation.fitness.max())  # of CartPole an episode's return is its length
    per_step = (began - 1_024 * drawing) / (1_024 * 32 * np.ceil(slowest / 32))
    scores = jax.random.normal(jax.random.key(0), (POPULATION,))
    rank = seconds_of(jax.jit(lambda x: jax.lax.top_k(x, POPULATION // 5)), scores)
    print(
        f"\nper individual: drawn in {1e6 * drawing:.1f} us; a step of it {1e9 * per_step:.0f} ns"
    )
    print(f"ranking {POPULATION:,} individuals: {1e3 * rank:.1f} ms")

    print(f"\nGeneration of {POPULATION:,} individuals, one episode of at most {EPISODE} steps:\n")
    print(
        "| hosts | drawing and playing, s | drawing parents again, s | ranking, s | gathering, s |"
        " generation, s | of the ideal |"
    )
    print("|---|---|---|---|---|---|---|")
    rng = np.random.default_rng(0)
    lengths = rng.choice(np.asarray(generation.fitness), POPULATION)
    parents = POPULATION // 5
    first = None
    for hosts in HOSTS:
        share = -(-POPULATION // hosts)
        longest = max(part.max() for part in np.array_split(lengths, hosts))
        work = share * (drawing + per_step * 32 * np.ceil(longest / 32))
        again = parents * drawing if hosts > 1 else 0.0
        ring = (hosts - 1) * LATENCY + (4 * POPULATION / BANDWIDTH if hosts > 1 else 0.0)
        total = work + again + rank + ring
        first = total if first is None else first
        print(
            f"| {hosts:,} | {work:.3f} | {again:.3f} | {rank:.3f} | {ring:.3f} | {total:.3f} | "
            f"{first / hosts / total:.0%} |"
        )


if __name__ == "__main__":
    worker(*sys.argv[2:]) if sys.argv[1:2] == ["worker"] else main()
