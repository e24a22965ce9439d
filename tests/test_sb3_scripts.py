"""What scripts written for Stable-Baselines3 do beside its documented calls."""

import os
import signal

import gymnasium
import numpy as np
import pytest
import stable_baselines3
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy as their_evaluate_policy
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.noise import NormalActionNoise
from stable_baselines3.common.vec_env import VecNormalize

from test_sb3 import BRIEF, SMALL
from tradax import cli
from tradax.errors import ConfigError, ModelFileError
from tradax.sb3 import PPO, SAC, TD3, evaluate_policy


class Clock(gymnasium.Env):
    """Ten steps of reward 1; says which step it is."""

    action_space: gymnasium.Space = Discrete(2)

    def __init__(self, shape=(3,), dtype=np.float32, fails_at=None):
        self.observation_space = Box(0 if dtype == np.uint8 else -1, 1, shape, dtype)
        self.fails_at, self.taken = fails_at, 0

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(self.observation_space.shape, self.observation_space.dtype), {}

    def step(self, action):
        self.steps, self.taken = self.steps + 1, self.taken + 1
        if self.taken == self.fails_at:
            raise RuntimeError("the exchange is closed")
        obs = np.full(self.observation_space.shape, 0.1, self.observation_space.dtype)
        return obs, 1.0, False, self.steps == 10, {"step": self.steps}


def test_a_sac_of_defaults_opens_in_stable_baselines3(tmp_path):
    SAC("MlpPolicy", "Pendulum-v1", **BRIEF).save(tmp_path / "s")
    assert stable_baselines3.SAC.load(tmp_path / "s").target_entropy == -1.0


def test_what_was_learned_before_an_exception_stays(tmp_path):
    model = PPO("MlpPolicy", Clock(fails_at=100), seed=0, **SMALL)
    with pytest.raises(RuntimeError, match="the exchange is closed"):
        model.learn(1_000)
    learned = PPO("MlpPolicy", Clock(), seed=0, **SMALL).learn(96)
    for ours, whole in zip(
        model.get_parameters()["policy"].values(),
        learned.get_parameters()["policy"].values(),
        strict=True,
    ):
        np.testing.assert_allclose(ours, whole, rtol=1e-5, atol=1e-6)
    model.save(tmp_path / "m")


def test_ctrl_c_during_a_compiled_chunk_keeps_the_model(monkeypatch):
    from tradax import updates

    run = updates.run

    def interrupted(*given):
        found = run(*given)
        os.kill(os.getpid(), signal.SIGINT)
        return found

    model = PPO("MlpPolicy", "CartPole-v1", seed=0, **SMALL)
    with monkeypatch.context() as patch:
        patch.setattr(updates, "run", interrupted)
        with pytest.raises(KeyboardInterrupt):
            model.learn(1_000_000)
    assert model.predict(np.zeros(4, np.float32))[0] in (0, 1)
    model.learn(64, reset_num_timesteps=False)


def test_returns_are_those_of_monitor_below_a_normaliser():
    normalised = VecNormalize(make_vec_env(Clock))
    model = PPO("MlpPolicy", normalised, seed=0, **SMALL)
    rows = []
    model.learn(64, callback=lambda names, _: rows.extend(names["infos"]) or True)
    assert {row["episode"]["r"] for row in rows if "episode" in row} == {10.0}
    ours = evaluate_policy(model, normalised, 3, return_episode_rewards=True)
    theirs = their_evaluate_policy(model, normalised, 3, return_episode_rewards=True)
    assert ours == theirs == ([10.0] * 3, [10] * 3)


@pytest.mark.parametrize("wrap", [Clock, lambda: Monitor(Clock()), lambda: make_vec_env(Clock)])
def test_callbacks_see_what_the_environment_says(wrap):
    seen = []
    model = PPO("MlpPolicy", wrap(), seed=0, **SMALL)
    model.learn(32, callback=lambda names, _: seen.append(names["infos"][0]) or True)
    assert [int(info["step"]) for info in seen] == [*range(1, 11)] * 3 + [1, 2]
    ended = [i for i, info in enumerate(seen) if "episode" in info]
    assert ended == [9, 19, 29]
    assert all(seen[i]["TimeLimit.truncated"] for i in ended)


@pytest.mark.parametrize(("shape", "dtype"), [((3,), np.float64), ((4, 3), np.float32)])
def test_boxes_of_other_types_and_shapes_go_both_ways(tmp_path, shape, dtype):
    env = Clock(shape, dtype)
    ours = PPO("MlpPolicy", env, **SMALL).learn(32)
    ours.save(tmp_path / "ours")
    obs = np.random.default_rng(0).uniform(-1, 1, (5, *shape)).astype(dtype)
    theirs = stable_baselines3.PPO.load(tmp_path / "ours", env=env)
    theirs.save(tmp_path / "theirs")
    for other in (theirs, PPO.load(tmp_path / "ours", env=env), PPO.load(tmp_path / "theirs", env)):
        assert other.observation_space == env.observation_space
        np.testing.assert_array_equal(
            other.predict(obs, deterministic=True)[0], ours.predict(obs, deterministic=True)[0]
        )


def test_what_cannot_be_saved_is_said_before_it_learns():
    with pytest.warns(UserWarning, match="can learn, but not be saved"):
        PPO("MlpPolicy", Clock(dtype=np.uint8), **SMALL)


def test_arguments_are_attributes_to_read():
    model = PPO("MlpPolicy", Clock(), seed=np.int64(3), ent_coef=0.5, **SMALL)
    assert (model.seed, model.ent_coef, model.n_steps, model.learning_rate) == (3, 0.5, 32, 3e-4)
    assert not hasattr(model, "no_such_thing")
    with pytest.raises(
        ConfigError, match=r"ent_coef is settled.*PPO.load\(path, env, ent_coef=1\)"
    ):
        model.ent_coef = 1
    with pytest.raises(ConfigError, match="replay_buffer is not supported"):
        _ = model.replay_buffer


def test_numpy_numbers_are_written_as_plain_ones(tmp_path):
    arguments = SMALL | {"n_steps": np.int32(32), "batch_size": np.int64(32)}
    PPO("MlpPolicy", Clock(), seed=np.int64(3), gamma=np.float32(0.5), **arguments).save(
        tmp_path / "m"
    )
    again = PPO.load(tmp_path / "m", custom_objects={"lr_schedule": None, "clip_range": 0.1})
    assert (again.gamma, again.clip_range) == (0.5, 0.1)


def test_numpy_numbers_reach_tensorboard(tmp_path, monkeypatch):
    from tradax.sb3._logger import Logger

    logger, written = Logger(0, str(tmp_path), "m", go_on=False), {}
    monkeypatch.setattr(
        logger._writer, "add_scalar", lambda key, value, step: written.update({key: value})
    )
    for value in (np.float32(1.5), np.int64(2), np.float64(2.5), 3):
        logger.record(type(value).__name__, value)
    logger.record("text", "none")
    logger.dump(1)
    assert written == {"float32": 1.5, "int64": 2, "float64": 2.5, "int": 3}


def test_a_file_without_the_action_noise_says_so(tmp_path, capsys):
    noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    TD3("MlpPolicy", "Pendulum-v1", action_noise=noise, **BRIEF).save(tmp_path / "m")
    assert "action_noise is not kept" in capsys.readouterr().err


def test_parameters_of_stable_baselines3_are_taken_and_others_refused(tmp_path):
    model = PPO("MlpPolicy", Clock(), **SMALL)
    model.save(tmp_path / "m")
    theirs = stable_baselines3.PPO.load(tmp_path / "m")
    model.set_parameters(theirs.get_parameters())
    for wrong in ({}, {"policy": {}}, theirs.get_parameters() | {"x": {}}):
        with pytest.raises(ModelFileError, match=r"this model has policy, policy\.optimizer"):
            model.set_parameters(wrong)


def test_wrong_use_is_named():
    model = PPO("MlpPolicy", Clock(), **SMALL)
    with pytest.raises(ValueError, match="the observation is a tuple"):
        model.predict(Clock().reset())
    with pytest.raises(ConfigError, match="the model takes observations of 3 numbers"):
        evaluate_policy(model, "Pendulum-v1")
    with pytest.raises(ConfigError, match=r"those of tradax\.sb3"):
        evaluate_policy(stable_baselines3.PPO("MlpPolicy", Clock()), Clock())


def test_an_exported_run_of_a_gymnasium_environment_goes_on_there(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sizes = ["--ppo.num-envs", "2", "--ppo.n-steps", "32", "--ppo.minibatches", "2"]
    command = ["train", "--env", "gymnasium:CartPole-v1", "--timesteps", "64", "--out", "run"]
    assert cli.main([*command, *sizes]) == 0
    assert cli.main(["export", "run", "--format", "sb3", "--out", "m.zip"]) == 0
    env = gymnasium.make("CartPole-v1")
    stable_baselines3.PPO.load("m.zip", env=env)
    PPO.load("m.zip", env=env)
