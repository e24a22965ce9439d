"""rejax's PPO (gymnax 0.0.9). A run is one call of its compiled `train`.

Markets are gymnax 1 environments, which it cannot take: their own pure functions, read from src/,
are put into an environment of the old interface, which does not tell truncated from terminated.
"""

from collections.abc import Callable
from typing import Any

import jax
import rejax
from gymnax.environments.environment import Environment

from benchmarks import _cases


class OldMarket(Environment):
    def __init__(self, market: Any, params: Any):
        super().__init__()
        self.market, self.params = market, params

    @property
    def default_params(self):
        return self.params

    def reset_env(self, key, params):
        return self.market.reset_env(key, params)

    def step_env(self, key, state, action, params):
        state, reward, terminated, _ = self.market.step_state(key, state, action, params)
        over = terminated | self.market.is_truncated(state, params)
        return self.market.get_obs(state, params), state, reward, over, {}

    def action_space(self, params=None):
        return self.market.action_space(params)

    def observation_space(self, params):
        return self.market.observation_space(params)


def make(case: dict[str, Any]) -> tuple[int, Callable[[], None]]:
    env = case["env"]
    if env in _cases.MARKETS:
        env = OldMarket(*_cases.environment(case))
    steps = case["updates"] * case["num_envs"] * case["n_steps"]
    algorithm = rejax.get_algo("ppo").create(
        env=env,
        num_envs=case["num_envs"],
        num_steps=case["n_steps"],
        num_epochs=case["epochs"],
        num_minibatches=case["minibatches"],
        learning_rate=case["learning_rate"],
        gamma=case["gamma"],
        gae_lambda=case["gae_lambda"],
        clip_eps=case["clip_range"],
        max_grad_norm=case["max_grad_norm"],
        ent_coef=0.0,
        total_timesteps=steps,
        eval_freq=steps,
        skip_initial_evaluation=True,
        agent_kwargs={"activation": "tanh", "hidden_layer_sizes": tuple(case["hidden_sizes"])},
    )
    algorithm = algorithm.replace(eval_callback=lambda algorithm, state, key: ())
    train = jax.jit(lambda key: algorithm.train(key))
    return steps, lambda: jax.block_until_ready(train(jax.random.key(0))) and None
