"""A program on four devices: what several of them find is what one finds.

Prints {check: what went wrong, "" for nothing}; `test_parallel` starts it once and reads that.
"""

import importlib
import json
import sys
import tempfile
import traceback
import warnings

import jax
import jax.numpy as jnp
import numpy as np

import tradax
from tradax import parallel, training
from tradax.envs.trading import Trading
from tradax.rollout import jax_source
from tradax.sweeps import experiment

CLOSE = {"rtol": 1e-4, "atol": 1e-5}
SMALL = {"num_envs": 2, "n_steps": 8, "minibatches": 2, "epochs": 1, "hidden_sizes": [4]}
SEARCHES = {
    "genetic": {"same_episodes": True},
    "evolution_strategies": {"same_episodes": False, "actions": "sampled"},
}
GRADIENTS = {
    "ppo": ("CartPole-v1", (2, 4), {"minibatches": 2}),
    "ppo of the KL objective, shared network": (
        Trading(),
        (4,),
        {"minibatches": 2, "objective": "kl", "shared_network": True},
    ),
    "a2c": ("CartPole-v1", (4,), {"update_every": "episodes", "normalize_advantages": True}),
    "a3c": ("CartPole-v1", (2,), {"workers": 4}),
    "trpo": ("Pendulum-v1", (2,), {"critic_minibatches": 2, "fisher_samples": 2}),
}
CHECKS = [*SEARCHES, *GRADIENTS, "sweep"]


def trained(algorithm, source, updates, count, **options):
    """Learner and last row of metrics."""
    mesh = None if count is None else parallel.device_mesh(count)
    steps = updates * algorithm.steps_per_update
    key = jax.random.key(0)
    result = training.train(algorithm, source, key, total_timesteps=steps, mesh=mesh, **options)
    return result.progress.state.learner, result.rows[0][-1]


def assert_close(learner, other, **tolerance):
    for a, b in zip(jax.tree.leaves(learner), jax.tree.leaves(other), strict=True):
        np.testing.assert_allclose(a, b, **tolerance)


def search(name):
    module = importlib.import_module(f"tradax.algorithms.{name}")
    config = module.Config(
        population_size=10, episodes=2, episode_limit=60, hidden_sizes=(8,), **SEARCHES[name]
    )
    source = jax_source("CartPole-v1", num_envs=config.num_envs)
    algorithm = module.make(config, source.spec, jnp.float32(1))
    alone, row = trained(algorithm, source, 4, None)
    for count in (1, 2, 4):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            learner, other = trained(algorithm, source, 4, count)
        told = [str(w.message) for w in caught]
        assert any("padded to 12" in text for text in told) == (count == 4), told
        assert float(learner.best_fitness) == float(alone.best_fitness)
        assert_close(learner, alone, **CLOSE)
        assert other["steps_played"] == row["steps_played"]
        assert other["episodes"] == row["episodes"]


def gradients(name):
    env, counts, options = GRADIENTS[name]
    module = importlib.import_module(f"tradax.algorithms.{name.split()[0]}")
    config = module.Config(num_envs=8, n_steps=16, hidden_sizes=(8,), **options)
    source = jax_source(env, num_envs=8)
    algorithm = module.make(config, source.spec, jnp.float32(1))
    alone, row = trained(algorithm, source, 3, None, log_rows=1)
    for count in counts:
        learner, other = trained(algorithm, source, 3, count, log_rows=1)
        assert_close(learner, alone, **CLOSE, err_msg=f"{count} devices")
        assert row.keys() == other.keys()
        for key, value in row.items():
            if value is not None and "second" not in key:
                np.testing.assert_allclose(other[key], value, rtol=1e-3, atol=1e-5, err_msg=key)


def sweeps(folder):
    from test_sweep import member_weights

    experiment.extract = lambda *_, **__: (None, {})  # tested elsewhere
    few = {"total_timesteps": 48, "evaluations": 2, "log_rows": 2, "settings": {"ppo": SMALL}}
    one, *more = [
        tradax.sweep(env="CartPole-v1", seeds=4, devices=count, out=f"{folder}/{count}", **few)
        for count in (1, 2, 4)
    ]
    for other in more:
        for number in range(4):
            np.testing.assert_allclose(
                member_weights(other, number), member_weights(one, number), **CLOSE
            )
            ours, theirs = other.members[number], one.members[number]
            assert abs(ours["validation_score"] - theirs["validation_score"]) < 1e-3


def failure(check) -> str:
    try:
        if check in SEARCHES:
            search(check)
        elif check in GRADIENTS:
            gradients(check)
        else:
            with tempfile.TemporaryDirectory() as folder:
                sweeps(folder)
    except Exception:
        return traceback.format_exc()
    return ""


if __name__ == "__main__":
    found = {check: failure(check) for check in CHECKS}
    json.dump(found, sys.stdout)
