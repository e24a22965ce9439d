"""Genetic algorithms, steps a second: tradax, evosax and torch, in alternation in one run.

A generation is asking for individuals, playing their episodes and telling their fitness; it counts
as population x length of an episode. Networks 64x64 tanh, greedy actions, one episode each, the
same start for all of a generation. Steady speed: compilation and the first generation are not
counted; medians over alternating repetitions.

* CartPole-v1, nobody falls: the limits of position and angle are out of reach, so that every
  library plays all 500 steps of all 1,024 individuals. This is the like-for-like comparison.
* CartPole-v1, falling: as the environment is. tradax stops when all have fallen, evosax plays on;
  the steps are counted as if all had been played.
* trading: F = 400 features of real daily prices, 256 individuals, a year of 252 bars. evosax steps
  the same environment through its gymnax interface, and its network sees the flat observation.
* torch: network after network in a Python CartPole (Gymnasium), one process, nobody falls.

The others run in an environment of their own, .venv-peers, which the first run makes.
"""

import time
from collections.abc import Callable

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from benchmarks._evolution_cases import CASES, HIDDEN, SPREAD
from benchmarks._peers import Peer
from tradax.algorithms import genetic
from tradax.rollout import jax_source

REPEATS, SECONDS = 9, 0.5
ROWS = (
    ("CartPole-v1, nobody falls", "cartpole", "evosax SimpleGA", "cartpole", 1.5),
    ("CartPole-v1, falling", "cartpole_falling", "evosax SimpleGA", "cartpole_falling", None),
    ("trading, F = 400", "trading", "evosax SimpleGA", "trading", 5.0),
    ("CartPole-v1, nobody falls", "cartpole", "torch, Python environment", "torch", 50.0),
)


def main() -> None:
    print(
        "| environment | population x steps | other | tradax | other's | ratio (lowest, highest) | "
        "goal |"
    )
    print("|---|---|---|---|---|---|---|")
    for name, case, other, peer, goal in ROWS:
        _, _, population, length = CASES[case]()
        steps, run = ours(case)
        ours_speed, their_speed = [], []
        with Peer("_evolution_peers", peer) as rival:
            for _ in range(REPEATS):
                ours_speed.append(speed(steps, lambda run=run: seconds(run)))
                their_speed.append(speed(rival.steps, rival.seconds))
        a, b = np.median(ours_speed), np.median(their_speed)
        each = np.array(ours_speed) / np.array(their_speed)
        held = "-" if goal is None else f"{goal:g}x{'' if a / b >= goal else ' MISSED'}"
        print(
            f"| {name} | {population:,} x {length} | {other} | {a:,.0f} | {b:,.0f} | "
            f"{a / b:.1f}x ({each.min():.1f}x, {each.max():.1f}x) | {held} |",
            flush=True,
        )


def ours(case: str) -> tuple[int, Callable[[], None]]:
    """Returns: steps of a generation, a function that runs one."""
    env, params, population, length = CASES[case]()
    config = genetic.Config(
        population_size=population,
        episodes=1,
        episode_limit=length,
        hidden_sizes=HIDDEN,
        mutation_scale=SPREAD,
    )
    source = jax_source(env, params, num_envs=config.num_envs)
    algorithm = genetic.make(config, source.spec, jnp.float32(1))

    @eqx.filter_jit
    def generation(algorithm, source, learner, key):
        play_key, learn_key = jax.random.split(key)
        _, experience, _ = algorithm.collect(learner, source, (), play_key)
        return algorithm.learn(learner, experience, learn_key)[0]

    learner, key = algorithm.init(jax.random.key(0)), jax.random.key(1)

    def run():
        nonlocal learner, key
        key, own = jax.random.split(key)
        learner = jax.block_until_ready(generation(algorithm, source, learner, own))

    run()  # compiles
    return population * length, run


def seconds(run: Callable[[], None]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def speed(steps: int, measure: Callable[[], float]) -> float:
    """Steps a second, over generations of half a second in all."""
    count, total = 0, 0.0
    while total < SECONDS:
        count, total = count + 1, total + measure()
    return count * steps / total


if __name__ == "__main__":
    main()
