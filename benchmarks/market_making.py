"""Mean-variance utility of PPO's quotes against Avellaneda and Stoikov's, and the optimum.

The paper's example: gamma 0.1, 200 steps. Utility is profit - gamma / 2 x variance; the objective
is the expected sum of rewards, of which dynamic programming knows the optimum. All policies are
judged on the same 20,000 paths, which training did not see. The claim: the utility of every seed
is at least that of the closed form minus 2%.
"""

from benchmarks._training import one_by_one, train_seeds
from tradax.algorithms import ppo
from tradax.envs import market_making, market_making_baselines
from tradax.evaluation.market_making import assess

SEEDS, STEPS, PATHS = 10, 3_000_000, 20_000


def main() -> None:
    env, params = market_making.make(market_making.Config(reward="expected"))
    config = ppo.Config(
        num_envs=128, n_steps=100, minibatches=8, gamma=1.0, gae_lambda=0.95, initial_log_std=-1.0
    )
    result = train_seeds(ppo, config, env, params, seeds=SEEDS, steps=STEPS)
    policies = dict(market_making_baselines.baselines(env, params))
    for seed, policy in enumerate(one_by_one(result.policy, SEEDS)):
        policies[f"PPO, seed {seed}"] = policy
    print("| quotes | spread | profit | sd | inventory sd | utility | objective |")
    print("|---|---|---|---|---|---|---|")
    utility = {}
    for name, policy in policies.items():
        r = assess(policy, env, params, paths=PATHS, seed=1)
        utility[name] = r.utility
        print(
            f"| {name} | {r.spread:.2f} | {r.profit:.2f} | {r.sd:.2f} | {r.inventory_sd:.2f} | "
            f"{r.utility:.2f} | {r.objective:.2f} |"
        )
    best = market_making_baselines.optimal_objective(env, params)
    closed = utility["avellaneda_stoikov"]
    worst = min(utility[name] for name in utility if name.startswith("PPO"))
    held = "holds" if worst >= 0.98 * closed else "DOES NOT HOLD"
    print(
        f"\noptimal objective {best:.2f}; utility of the worst of {SEEDS} seeds over that of the "
        f"closed form: {worst / closed:.3f} (claim: at least 0.98; {held}); {STEPS:,} steps a "
        f"seed, {result.steps_per_second:,.0f} steps/s"
    )


if __name__ == "__main__":
    main()
