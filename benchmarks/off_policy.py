"""What DDPG, TD3 and SAC learn: 10 seeds, deterministic evaluation over 100 fresh episodes.

One environment, one gradient step a step, 64x64 networks, batches of 256. All seeds of a row train
in one program; interquartile means, intervals and execution as in the benchmark `learning`.
"""

import time

import jax
import numpy as np

from benchmarks.learning import SEEDS, evaluated, iqm, report, trained
from tradax.envs import execution, execution_baselines
from tradax.evaluation.execution import assess

ALGORITHMS = ("ddpg", "td3", "sac")
# Independent noise never reaches the goal of the mountain car; noise that lasts 100 steps does.
CAR = {"noise": "ou", "noise_scale": 0.8, "ou_theta": 0.01}
# Environment, steps, least scores that are claimed, options.
ROWS = (
    ("Pendulum-v1", 20_000, {"ddpg": -160.0, "td3": -160.0, "sac": -165.0}, {}),
    ("MountainCarContinuous-v0", 100_000, dict.fromkeys(ALGORITHMS, 90.0), CAR),
)
SALE = {"gamma": 1.0, "final_learning_rate_fraction": 0.0}
SALE_STEPS, MOST_EXCESS = 30_000, 0.03


def main() -> None:
    print("| algorithm | environment | steps | IQM | 95% interval | worst, best seed | seconds |")
    print("|---|---|---|---|---|---|---|")
    env, params = execution.make(execution.Config())
    best = assess(execution_baselines.baselines(env, params)["almgren_chriss"], env, params)
    for name in ALGORITHMS:
        start = time.perf_counter()
        policies = trained(name, env, params, SALE_STEPS, SALE)
        costs = [
            assess(jax.tree.map(lambda x, i=i: x[i], policies), env, params) for i in range(SEEDS)
        ]
        scores = np.array([cost.objective for cost in costs]) / best.objective - 1.0
        held = bool(scores.max() <= MOST_EXCESS)
        seconds = time.perf_counter() - start
        report(name, "execution (excess)", SALE_STEPS, scores, held, seconds, "{:.2%}")
    for env, steps, least, options in ROWS:
        for name in ALGORITHMS:
            start = time.perf_counter()
            scores = evaluated(trained(name, env, None, steps, options), env)
            held = iqm(scores) >= least[name]
            report(name, env, steps, scores, held, time.perf_counter() - start)


if __name__ == "__main__":
    main()
