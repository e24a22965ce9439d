"""PPO from logs alone: 200,000 steps of a mediocre CartPole-v1 policy, never stepping it.

The logged policy is PPO (16 environments, default options otherwise) stopped after 4,096 steps;
its actions are sampled. PPO then draws 409,600 steps from the log, with gae_lambda 0.98, and its
last policy is played greedily for 100 episodes: nothing is selected by returns. Second table: how
many of 100 nominal 95% intervals hold the true value, on logs of 150 episodes of three steps.
"""

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import training
from tradax.algorithms import ppo
from tradax.envs.probes import ThreeSteps
from tradax.evaluation.off_policy import (
    METHODS,
    effective_sample_size,
    log_ratios,
    off_policy_value,
)
from tradax.evaluation.scoring import evaluate
from tradax.logged import Log, logged_source
from tradax.networks import mlp
from tradax.policies import NetworkPolicy, head_of
from tradax.recording import record
from tradax.rollout import jax_source

SEEDS, MEDIOCRE_STEPS, LOGGED_STEPS, DRAWN_STEPS = 10, 4_096, 200_000, 409_600
LOGS, EPISODES = 100, 150


def main() -> None:
    learning()
    print()
    coverage()


def learning() -> None:
    source = jax_source("CartPole-v1", num_envs=16)
    recorder = jax_source("CartPole-v1", num_envs=64)
    few, config = ppo.Config(num_envs=16), ppo.Config(num_envs=64, gae_lambda=0.98)
    print(
        "| seed | mean return logged | the same policy, greedy | learned from the log, greedy | "
        "effective sample |"
    )
    print("|---|---|---|---|---|")
    learned = []
    for seed in range(SEEDS):
        mediocre = training.train(
            ppo.make(few, source.spec, jnp.float32(1)),
            source,
            jax.random.key(seed),
            total_timesteps=MEDIOCRE_STEPS,
        ).policy
        log = record(mediocre, recorder, n_steps=LOGGED_STEPS, seed=seed)
        policy = training.train(
            ppo.make(config, source.spec, jnp.float32(1)),
            logged_source(log, num_envs=config.num_envs),
            jax.random.key(seed),
            total_timesteps=DRAWN_STEPS,
        ).policy
        before, after = (
            evaluate(p, "CartPole-v1", episodes=100, seed=1_000).mean for p in (mediocre, policy)
        )
        learned.append(after)
        fraction = effective_sample_size(np.exp(log_ratios(policy, log))) / len(log)
        print(
            f"| {seed} | {log.returns.mean():.0f} | {before:.0f} | {after:.0f} | {fraction:.0%} |",
            flush=True,
        )
    enough = sum(score >= 300 for score in learned)
    print(
        f"\nat least 300: {enough} of {SEEDS} seeds; median {np.median(learned):.0f}, "
        f"least {min(learned):.0f}"
    )


def coverage() -> None:
    source = jax_source(ThreeSteps(), num_envs=1)
    print("| method | target moves with | held the truth | mean width | mean error |")
    print("|---|---|---|---|---|")
    log = record(_moving(source, 0.4), source, episodes=LOGS * EPISODES, seed=1)
    for method in METHODS:
        for theta in (0.5, 0.7, 0.9):
            true = 3 * (0.25 + theta / 2)
            policy = _moving(source, theta)
            found = [off_policy_value(policy, part, method=method) for part in _parts(log)]
            held = sum(f.low <= true <= f.high for f in found)
            width = np.mean([f.high - f.low for f in found])
            error = np.mean([f.value for f in found]) - true
            print(f"| {method} | {theta} | {held} of {LOGS} | {width:.2f} | {error:+.3f} |")


def _parts(log: Log):
    """Logs of EPISODES episodes of three steps each."""
    names = ("obs", "action", "log_prob", "reward", "terminated", "truncated", "episode")
    steps = 3 * EPISODES
    for i in range(LOGS):
        part = {name: getattr(log, name)[i * steps : (i + 1) * steps] for name in names}
        yield Log(**part, last_obs=log.last_obs[i * EPISODES : (i + 1) * EPISODES])


def _moving(source, theta: float) -> NetworkPolicy:
    """The policy that takes action 1 with chance theta everywhere."""
    network = mlp(jax.random.key(0), source.spec, (4,), 2, "tanh")
    network = jax.tree.map(jnp.zeros_like, network)
    bias = jnp.log(jnp.array([1.0 - theta, theta]))
    network = eqx.tree_at(lambda n: n.rest[-1].bias, network, bias)
    return NetworkPolicy(network, None, None, source.spec, head_of(source.spec))


if __name__ == "__main__":
    main()
