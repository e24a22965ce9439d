"""What PPO learns with other sizes of an update than its defaults; all else as it is by default.

    python -m benchmarks ppo_defaults              every task, and the time to a return
    python -m benchmarks ppo_defaults Pendulum-v1  some of them

Interquartile mean of greedy policies (30 seeds of Pendulum-v1, CartPole-v1, else 10), in
brackets the worst seed. `quotes` is market making, `sale` execution, of which the excess over the
optimum is shown, `signal` the market of `time_to_return`, scored by its return on validation;
`seconds` is how long it takes there to half of the best rule's return, the median of 24 seeds (on
one thread with NPROC=1).
"""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks import _cases, _rows
from benchmarks._training import one_by_one, train_seeds
from benchmarks.learning import SALE, SALE_STEPS, evaluated, iqm
from benchmarks.peers import tradax as plug
from tradax.algorithms import ppo
from tradax.envs import execution, execution_baselines, market_making
from tradax.evaluation.execution import assess

SIZES: dict[str, dict[str, int]] = {
    "64 x 64, 8": {"num_envs": 64},
    "32 x 64, 4": {"minibatches": 4},
    "32 x 64, 8 (the default)": {},
    "16 x 128, 4": {"num_envs": 16, "n_steps": 128, "minibatches": 4},
}
# Environment, steps, seeds, options that are set for every size.
TASKS: tuple[tuple[str, int, int, dict[str, Any]], ...] = (
    ("Pendulum-v1", 500_000, 30, {"gamma": 0.9}),
    ("Pendulum-v1", 300_000, 30, {"gamma": 0.9, "epochs": 10}),
    ("CartPole-v1", 200_000, 30, {}),
    ("Acrobot-v1", 500_000, 10, {}),
    ("MountainCarContinuous-v0", 300_000, 10, {"gamma": 0.999, "initial_log_std": 1.0}),
    ("quotes", 300_000, 10, {}),
    ("sale", SALE_STEPS, 10, {key: SALE[key] for key in ("gamma", "gae_lambda", "n_steps")}),
    ("signal", 300_000, 10, {}),
    ("signal", 1_000_000, 10, {}),
)
TIMED = _rows.ROWS["time_to_return"].case


def main(arguments: list[str]) -> None:
    print(f"| environment, steps | {' | '.join(SIZES)} |")
    print("|---" * (1 + len(SIZES)) + "|")
    for env, steps, seeds, options in TASKS:
        if arguments and env not in arguments:
            continue
        form = "{:.3%} ({:.3%})" if env == "sale" else "{:.2f} ({:.2f})"
        shown = []
        for size in SIZES.values():
            scores = learned(env, steps, seeds, size | options)
            worst = scores.max() if env == "sale" else scores.min()
            shown.append(form.format(iqm(scores), worst))
        print(f"| {env}, {steps:,} | {' | '.join(shown)} |", flush=True)
    if not arguments or "seconds" in arguments:
        times = [f"{seconds(size):.3f}" for size in SIZES.values()]
        print(f"| seconds | {' | '.join(times)} |")


def learned(name: str, steps: int, seeds: int, options: dict[str, Any]) -> np.ndarray:
    """The score of every seed; of a sale its excess over the optimum."""
    env, params, score = task(name)
    config = ppo.Config(**options)
    policies = train_seeds(ppo, config, env, params, seeds=seeds, steps=steps).policy
    if score is None:
        return evaluated(policies, env, params)
    return np.array([score(policy) for policy in one_by_one(policies, seeds)])


def task(name: str) -> tuple[Any, Any, Callable[[Any], float] | None]:
    """Environment, parameters, and the score of a policy where it is not the mean return."""
    if name == "sale":
        env, params = execution.make(execution.Config())
        best = assess(execution_baselines.baselines(env, params)["almgren_chriss"], env, params)
        return env, params, lambda p: assess(p, env, params).objective / best.objective - 1.0
    if name == "quotes":
        return *market_making.make(market_making.Config()), None
    if name == "signal":
        env, params, validation = _cases.planted(TIMED)
        score = plug.on_validation(env, validation)
        return env, params, lambda p: float(score(p))
    return name, None, None


def seconds(options: dict[str, Any], seeds: int = 24) -> float:
    """Until a greedy policy has half of the best rule's return, looked at after every update."""
    _, run = plug.to_return({**TIMED, **options, "evaluations": TIMED["most_steps"]})
    run()  # compiles
    return float(np.median([run() for _ in range(seeds)]))


if __name__ == "__main__":
    import sys

    main(sys.argv[1:])
