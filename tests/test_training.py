import dataclasses
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from probes import Bandit, BlindedFor1Step, Explodes
from tradax import checkpoint, training
from tradax.algorithms import ppo
from tradax.errors import ConfigError, ModelFileError, TrainingError
from tradax.rollout import jax_source

CONFIG = ppo.Config(num_envs=8, n_steps=8, minibatches=2, hidden_sizes=(16,))


def run(env="CartPole-v1", timesteps=64 * 30, config=CONFIG, **arguments):
    source = jax_source(env, num_envs=config.num_envs)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    key = jax.random.key(arguments.pop("seed", 0))
    return training.train(algorithm, source, key, total_timesteps=timesteps, **arguments)


def untimed(rows):
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in rows
    ]


def same(a, b):
    def equal(x, y):
        if jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
            x, y = jax.random.key_data(x), jax.random.key_data(y)
        return np.array_equal(x, y)

    return all(jax.tree.leaves(jax.tree.map(equal, a, b)))


def test_equal_seeds_give_identical_metrics_and_parameters():
    first, second, other = run(), run(), run(seed=1)
    assert untimed(first.rows[0]) == untimed(second.rows[0])
    assert same(first.policy, second.policy)
    assert not same(first.policy, other.policy)


@pytest.mark.parametrize("log_rows", [3, 4, 100])
def test_the_length_of_chunks_changes_nothing(monkeypatch, log_rows):
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 60.0)
    usual = run(log_rows=log_rows)
    assert len(usual.rows[0]) == {3: 3, 4: 5, 100: 30}[log_rows]
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    one_by_one = run(log_rows=log_rows)
    assert untimed(usual.rows[0]) == untimed(one_by_one.rows[0])
    assert same(usual.progress.state, one_by_one.progress.state)


def test_rows_are_logged_at_fixed_counts_and_hold_what_was_promised():
    rows = run(log_rows=10).rows[0]
    assert [row["update"] for row in rows] == list(range(3, 31, 3))
    assert rows[0]["timesteps"] == 3 * 64
    for name in (
        "return",
        "length",
        "policy_loss",
        "value_loss",
        "entropy",
        "kl",
        "clip_fraction",
        "explained_variance",
        "gradient_norm",
        "steps_per_second",
    ):
        assert name in rows[-1]


def test_steps_are_rounded_up_to_whole_updates():
    assert run(timesteps=65).rows[0][-1]["timesteps"] == 128
    with pytest.raises(ConfigError, match="timesteps is 0"):
        run(timesteps=0)


def test_the_best_policy_on_validation_is_kept():
    scores = iter([1.0, 5.0, 2.0])
    result = run(evaluate=lambda policy: jnp.float32(next(scores)), evaluations=3, log_rows=3)
    assert float(result.best_score) == 5.0
    at_best = run(timesteps=64 * 20, evaluate=lambda policy: jnp.float32(0), evaluations=2)
    del at_best  # annealing differs with the horizon, so only the score can be compared
    assert not same(result.policy, result.best_policy)
    assert [row["validation_score"] for row in result.rows[0]] == [1.0, 5.0, 2.0]


def test_nan_stops_training_names_the_update_and_keeps_a_good_policy():
    config = ppo.Config(
        num_envs=8, n_steps=4, minibatches=2, hidden_sizes=(16,), normalize_rewards=False
    )
    with pytest.raises(TrainingError, match=r"update 3: rewards of the environment") as error:
        run(Explodes(), config=config)
    assert all(bool(jnp.isfinite(x).all()) for x in jax.tree.leaves(error.value.policy))


def test_what_was_done_before_a_nan_is_logged(monkeypatch):
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 60.0)  # the rows before it are of its chunk
    config = ppo.Config(num_envs=8, n_steps=4, minibatches=2, hidden_sizes=(16,))
    seen = []

    class Rows(training.Hook):
        def on_row(self, row, member):
            seen.append((row["update"], member))

    with pytest.raises(TrainingError, match=r"update 3"):
        run(Explodes(), config=config, hooks=[Rows()])
    assert seen == [(1, 0), (2, 0)]
    keys = jax.random.split(jax.random.key(0), 2)
    source = jax_source(Explodes(), num_envs=config.num_envs)
    result = training.train(
        ppo.make(config, source.spec, jnp.float32(1)),
        source,
        keys,
        total_timesteps=32 * 30,
        members=2,
        shared_source=True,
        strict=False,
    )
    assert [[row["update"] for row in rows] for rows in result.rows] == [[1, 2], [1, 2]]
    assert all("rewards of the environment" in why for why in result.failed.values())


def test_what_is_not_finite_is_named_at_the_update_in_which_it_arises():
    small = ppo.Config(num_envs=8, n_steps=4, minibatches=2, hidden_sizes=(4,))
    with pytest.raises(TrainingError, match=r"update 3: observations of the env"):
        run(BlindedFor1Step(), config=small)
    wild = dataclasses.replace(small, learning_rate=1e38, max_grad_norm=1e38)
    with pytest.raises(TrainingError, match=r"update \d: .* from finite.*learning rate"):
        run(Bandit(), config=wild)


def test_ctrl_c_ends_the_chunk_and_resuming_gives_the_uninterrupted_result(tmp_path, monkeypatch):
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)

    class Interrupt(training.Hook):
        def on_tick(self, timesteps, steps_per_second):
            if timesteps == 64 * 7:
                signal.raise_signal(signal.SIGINT)

    whole = run(log_rows=3)
    stopped = run(log_rows=3, hooks=[Interrupt()])
    assert stopped.interrupted
    assert int(stopped.progress.state.update) == 7
    checkpoint.save_checkpoint(tmp_path, stopped.progress)
    restored = checkpoint.load_checkpoint(tmp_path, run(timesteps=64).progress)
    assert same(restored, stopped.progress)
    resumed = run(log_rows=3, resume=restored)
    assert same(resumed.progress.state, whole.progress.state)
    assert untimed(resumed.rows[0]) == untimed(whole.rows[0])


def test_a_checkpoint_of_other_settings_is_refused_by_name(tmp_path):
    checkpoint.save_checkpoint(tmp_path, run(timesteps=64).progress)
    wider = ppo.Config(num_envs=8, n_steps=8, minibatches=2, hidden_sizes=(32,))
    like = run(timesteps=64, config=wider).progress
    with pytest.raises(
        ModelFileError, match=r"account is float32\[4, 16\].* need float32\[4, 32\]"
    ):
        checkpoint.load_checkpoint(tmp_path, like)
    with pytest.raises(ModelFileError, match="no checkpoint"):
        checkpoint.load_checkpoint(tmp_path / "nothing", like)


def test_training_works_outside_the_main_thread():
    results = []
    thread = threading.Thread(target=lambda: results.append(run(Bandit(), timesteps=64)))
    thread.start()
    thread.join()
    assert len(results) == 1
