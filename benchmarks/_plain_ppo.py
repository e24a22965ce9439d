"""PPO as one writes it in JAX in an hour, the yardstick of `benchmarks.quick`; on CartPole-v1.

Two tanh networks, generalised advantages, shuffled minibatches, Adam: nothing is done for speed.
"""

from collections.abc import Callable
from typing import Any

import gymnax
import jax
import jax.numpy as jnp
import optax


def make(case: dict[str, Any]) -> tuple[int, Callable[[], None]]:
    """As of a plug: a run is a training of `updates` updates."""
    env, params = gymnax.make("CartPole-v1")
    envs, steps, rows = case["num_envs"], case["n_steps"], case["num_envs"] * case["n_steps"]
    optimiser = optax.chain(
        optax.clip_by_global_norm(case["max_grad_norm"]), optax.adam(case["learning_rate"])
    )

    def network(key, outputs):
        sizes = [4, *case["hidden_sizes"], outputs]
        keys = jax.random.split(key, len(sizes))
        return [
            (jax.random.normal(k, (n, m)) / n**0.5, jnp.zeros(m))
            for k, n, m in zip(keys, sizes[:-1], sizes[1:], strict=False)
        ]

    def apply(network, x):
        for weight, bias in network[:-1]:
            x = jnp.tanh(x @ weight + bias)
        return x @ network[-1][0] + network[-1][1]

    def collect(carry, key):
        networks, obs, state = carry
        act_key, env_key = jax.random.split(key)
        logits = jax.nn.log_softmax(apply(networks[0], obs))
        action = jax.random.categorical(act_key, logits)
        keys = jax.random.split(env_key, envs)
        next_obs, state, reward, terminated, truncated, _ = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(keys, state, action, params)
        log_prob = jnp.take_along_axis(logits, action[:, None], 1)[:, 0]
        value = apply(networks[1], obs)[:, 0]
        kept = (obs, action, log_prob, value, reward, terminated | truncated)
        return (networks, next_obs, state), kept

    def credit(carry, step):
        advantage, next_value = carry
        value, reward, done = step
        delta = reward + case["gamma"] * next_value * (1 - done) - value
        advantage = delta + case["gamma"] * case["gae_lambda"] * (1 - done) * advantage
        return (advantage, value), advantage

    def loss(networks, batch):
        obs, action, log_prob, advantage, target = batch
        logits = jax.nn.log_softmax(apply(networks[0], obs))
        ratio = jnp.exp(jnp.take_along_axis(logits, action[:, None], 1)[:, 0] - log_prob)
        advantage = (advantage - advantage.mean()) / (advantage.std() + 1e-8)
        clipped = jnp.clip(ratio, 1 - case["clip_range"], 1 + case["clip_range"])
        surrogate = jnp.minimum(ratio * advantage, clipped * advantage).mean()
        return 0.25 * jnp.mean((apply(networks[1], obs)[:, 0] - target) ** 2) - surrogate

    def minibatch(carry, batch):
        networks, state = carry
        step, state = optimiser.update(jax.grad(loss)(networks, batch), state)
        return (optax.apply_updates(networks, step), state), None

    def update(carry, key):
        networks, state, obs, env_state = carry
        collect_key, learn_key = jax.random.split(key)
        (_, obs, env_state), (seen, action, log_prob, value, reward, done) = jax.lax.scan(
            collect, (networks, obs, env_state), jax.random.split(collect_key, steps)
        )
        last = apply(networks[1], obs)[:, 0]
        start = (jnp.zeros(envs), last)
        _, advantage = jax.lax.scan(credit, start, (value, reward, done), reverse=True)
        batch = (seen, action, log_prob, advantage, advantage + value)
        batch = jax.tree.map(lambda x: x.reshape(rows, *x.shape[2:]), batch)

        def epoch(carry, key):
            order = jax.random.permutation(key, rows).reshape(case["minibatches"], -1)
            return jax.lax.scan(minibatch, carry, jax.tree.map(lambda x: x[order], batch))

        keys = jax.random.split(learn_key, case["epochs"])
        (networks, state), _ = jax.lax.scan(epoch, (networks, state), keys)
        return (networks, state, obs, env_state), None

    @jax.jit
    def train(key):
        actor_key, critic_key, reset_key, key = jax.random.split(key, 4)
        networks = network(actor_key, 2), network(critic_key, 1)
        keys = jax.random.split(reset_key, envs)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(keys, params)
        fixed = jax.eval_shape(env.step, keys[0], jax.tree.map(lambda x: x[0], state), 0, params)
        state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, fixed[1])
        carry = networks, optimiser.init(networks), obs, state
        return jax.lax.scan(update, carry, jax.random.split(key, case["updates"]))[0][0]

    return rows * case["updates"], lambda: jax.block_until_ready(train(jax.random.key(0))) and None
