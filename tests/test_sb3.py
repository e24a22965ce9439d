"""Stable-Baselines3's documented uses, with only the import of the algorithm changed."""

import json
import subprocess
import sys
from pathlib import Path

import gymnasium
import jax
import numpy as np
import pytest
import stable_baselines3
from gymnasium.spaces import Box, Discrete
from stable_baselines3.common.callbacks import (
    BaseCallback,
    CallbackList,
    CheckpointCallback,
    EvalCallback,
    StopTrainingOnMaxEpisodes,
    StopTrainingOnRewardThreshold,
)
from stable_baselines3.common.env_util import make_vec_env
from stable_baselines3.common.evaluation import evaluate_policy as their_evaluate_policy
from stable_baselines3.common.noise import NormalActionNoise, OrnsteinUhlenbeckActionNoise
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tradax import TradaxError, sb3
from tradax.errors import ConfigError, ModelFileError
from tradax.sb3 import A2C, PPO, SAC, TD3, TRPO, evaluate_policy
from tradax.sb3._arguments import config_of
from tradax.sb3._logger import Logger, table

SMALL = {"n_steps": 32, "batch_size": 32, "n_epochs": 1, "policy_kwargs": {"net_arch": [8]}}
BRIEF = {
    "learning_starts": 8,
    "batch_size": 8,
    "buffer_size": 256,
    "policy_kwargs": {"net_arch": [8]},
}


class Corridor(gymnasium.Env):
    """Ten cells; right is +1 and ends at the tenth, and ten steps are the most."""

    observation_space = Box(0.0, 1.0, (1,), np.float32)
    action_space = Discrete(2)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.cell = self.steps = 0
        return np.zeros(1, np.float32), {}

    def step(self, action):
        self.cell, self.steps = self.cell + int(action), self.steps + 1
        obs = np.full(1, self.cell / 10, np.float32)
        return obs, float(action), self.cell == 5, self.steps == 10, {}


@pytest.fixture(scope="module")
def model():
    return PPO("MlpPolicy", "CartPole-v1", seed=0, **SMALL).learn(64)


def leaves(model):
    return [np.asarray(x) for x in jax.tree.leaves(model.policy)]


def test_the_quickstart_runs():
    env = gymnasium.make("CartPole-v1")
    model = A2C("MlpPolicy", env, verbose=0, seed=0, policy_kwargs={"net_arch": [8]})
    model.learn(total_timesteps=20)
    vec_env = model.get_env()
    obs = vec_env.reset()
    for _ in range(3):
        action, _state = model.predict(obs, deterministic=True)
        obs, reward, _done, info = vec_env.step(action)
    assert (obs.shape, reward.shape, len(info)) == ((1, 4), (1,), 1)


def test_what_a_model_learns_does_not_depend_on_a_callback_that_only_looks(model):
    seen = []

    class Look(BaseCallback):
        def _on_step(self):
            seen.append((self.num_timesteps, self.locals["rewards"][0], self.locals["dones"][0]))
            return True

    told = PPO("MlpPolicy", "CartPole-v1", seed=0, **SMALL).learn(64, callback=Look())
    assert [n for n, _, _ in seen] == list(range(1, 65))
    assert all(reward == 1.0 for _, reward, _ in seen)
    for a, b in zip(leaves(model), leaves(told), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-6)
    assert model.num_timesteps == told.num_timesteps == 64


def test_callbacks_see_episodes_and_true_terminal_observations():
    ended = []

    def look(locals_, globals_):
        for info, done in zip(locals_["infos"], locals_["dones"], strict=True):
            assert done == ("episode" in info)
            if done:
                ended.append((info["episode"]["r"], info["episode"]["l"]))
                cell = info["terminal_observation"][0] * 10
                assert round(cell) == info["episode"]["r"]
                assert info["TimeLimit.truncated"] == (round(cell) < 5)
                assert locals_["new_obs"][0, 0] == 0.0

    model = PPO("MlpPolicy", Corridor(), seed=0, **SMALL)
    model.learn(64, callback=look)
    assert ended
    assert [(e["r"], e["l"]) for e in model.ep_info_buffer] == ended


def test_returning_false_stops_before_the_update():
    model = PPO("MlpPolicy", Corridor(), seed=0, **SMALL)
    before = leaves(model)
    model.learn(640, callback=StopTrainingOnMaxEpisodes(max_episodes=2))
    assert model.num_timesteps <= 32
    for a, b in zip(before, leaves(model), strict=True):
        np.testing.assert_array_equal(a, b)


def test_checkpoints_evaluations_and_lists_of_callbacks(tmp_path):
    check = CheckpointCallback(save_freq=32, save_path=str(tmp_path), name_prefix="rl")
    judge = EvalCallback(
        make_vec_env(Corridor),
        best_model_save_path=str(tmp_path / "best"),
        log_path=str(tmp_path / "logs"),
        eval_freq=32,
        n_eval_episodes=2,
        verbose=0,
    )
    env = make_vec_env(Corridor, n_envs=1)
    model = PPO("MlpPolicy", env, seed=0, **SMALL)
    model.learn(64, callback=CallbackList([check, judge]))
    model.learn(32, callback=[judge, lambda locals_, globals_: True], reset_num_timesteps=False)
    assert model.num_timesteps == 96
    assert (tmp_path / "rl_64_steps.zip").exists()
    assert (tmp_path / "best" / "best_model.zip").exists()
    with np.load(tmp_path / "logs" / "evaluations.npz") as found:
        assert found["timesteps"].tolist() == [32, 64, 96]
    enough = StopTrainingOnRewardThreshold(reward_threshold=-1.0, verbose=0)
    judge = EvalCallback(
        make_vec_env(Corridor), callback_on_new_best=enough, eval_freq=16, verbose=0
    )
    model.learn(640, callback=judge)
    assert model.num_timesteps == 16


def test_save_load_and_go_on(model, tmp_path):
    model.save(tmp_path / "ppo_cartpole")
    obs = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
    again = PPO.load(tmp_path / "ppo_cartpole", env=gymnasium.make("CartPole-v1"))
    theirs = stable_baselines3.PPO.load(tmp_path / "ppo_cartpole")
    expected, _ = model.predict(obs, deterministic=True)
    for other in (again, theirs):
        np.testing.assert_array_equal(other.predict(obs, deterministic=True)[0], expected)
    assert (again.num_timesteps, again.arguments["n_steps"]) == (64, 32)
    again.learn(32, reset_num_timesteps=False)
    assert again.num_timesteps == 96
    for name, state in model.get_parameters()["policy"].items():
        theirs_too = theirs.get_parameters()["policy"][name].numpy()
        np.testing.assert_allclose(state, theirs_too, atol=1e-7)
    with pytest.raises(ModelFileError, match="a model of ppo, not of a2c"):
        A2C.load(tmp_path / "ppo_cartpole")


def test_their_file_is_opened_with_their_settings(tmp_path):
    theirs = stable_baselines3.SAC(
        "MlpPolicy", "Pendulum-v1", seed=0, policy_kwargs={"net_arch": [8, 8]}, tau=0.02
    )
    theirs.save(tmp_path / "sac")
    ours = SAC.load(tmp_path / "sac", buffer_size=100, learning_starts=1)
    obs = np.random.default_rng(0).normal(size=(20, 3)).astype(np.float32)
    expected = theirs.predict(obs, deterministic=True)[0]
    np.testing.assert_allclose(ours.predict(obs, deterministic=True)[0], expected, atol=1e-5)
    assert (ours.arguments["tau"], ours.arguments["buffer_size"]) == (0.02, 100)
    with pytest.raises(ConfigError, match=r"no environment; call set_env\(env\)"):
        ours.learn(10)


def test_parameters_pass_between_models(model):
    other = PPO("MlpPolicy", "CartPole-v1", seed=5, **SMALL)
    other.set_parameters(model.get_parameters())
    for a, b in zip(leaves(model), leaves(other), strict=True):
        np.testing.assert_array_equal(a, b)


def test_both_evaluations_agree(model):
    ours = evaluate_policy(model, Corridor4(), n_eval_episodes=3, return_episode_rewards=True)
    theirs = their_evaluate_policy(model, Corridor4(), 3, return_episode_rewards=True, warn=False)
    assert ours == theirs
    with pytest.raises(AssertionError, match="is not above"):
        evaluate_policy(model, Corridor4(), n_eval_episodes=1, reward_threshold=1e9)


class Corridor4(Corridor):
    """The same, seen four times."""

    observation_space = Box(0.0, 1.0, (4,), np.float32)

    def reset(self, *, seed=None, options=None):
        obs, info = super().reset(seed=seed)
        return obs.repeat(4), info

    def step(self, action):
        obs, *rest = super().step(action)
        return obs.repeat(4), *rest


def test_vec_normalize_is_stepped_as_it_is(tmp_path):
    env = VecNormalize(DummyVecEnv([Corridor4, Corridor4]), clip_obs=10.0)
    model = PPO("MlpPolicy", env, seed=0, **SMALL)
    model.learn(64)
    assert env.obs_rms.count > 60
    assert model.get_vec_normalize_env() is env
    env.save(str(tmp_path / "vec_normalize.pkl"))
    model.save(tmp_path / "model.zip")
    env.training = env.norm_reward = False
    assert np.isfinite(their_evaluate_policy(model, env, 2, warn=False)[0])


def test_an_off_policy_model_learns_online_and_with_callbacks():
    noise = NormalActionNoise(np.zeros(1), 0.1 * np.ones(1))
    model = TD3("MlpPolicy", "Pendulum-v1", seed=0, action_noise=noise, **BRIEF)
    before = leaves(model)
    model.learn(16)
    assert any(np.any(a != b) for a, b in zip(before, leaves(model), strict=True))
    steps = []
    model.learn(4, callback=lambda now, _: steps.append(now["actions"]), reset_num_timesteps=False)
    assert len(steps) == 4
    assert model.num_timesteps == 20
    action, state = model.predict(np.zeros(3, np.float32))
    assert (action.shape, state) == ((1,), None)


def test_a_market_of_gymnasium_is_stepped_on_the_device():
    env = gymnasium.make("tradax/Portfolio-v0", data="us20", symbols=["AAPL", "JPM"])
    venv = make_vec_env(
        "tradax/Portfolio-v0", env_kwargs={"data": "us20", "symbols": ["AAPL", "JPM"]}
    )
    model = TRPO("MlpPolicy", venv, seed=0, n_steps=16, policy_kwargs={"net_arch": [8]})
    source = model._environment.source
    assert source.jittable
    # Actions are those of Gymnasium there too, whatever the market's own bounds.
    np.testing.assert_array_equal(source.spec.action.high, env.action_space.high)
    assert source.bounds.high != source.spec.action.high
    model.learn(16)
    obs, _ = env.reset(seed=0)
    action, _ = model.predict(obs, deterministic=True)
    assert env.action_space.contains(action)
    clipped = gymnasium.wrappers.TransformReward(env, lambda reward: 0.0)
    assert not PPO("MlpPolicy", clipped, **SMALL)._environment.source.jittable


def test_schedules_move_learning_rate_and_clip_range():
    asked = []

    def schedule(remaining):
        asked.append(remaining)
        return 1e-3 * remaining

    model = PPO(
        "MlpPolicy", Corridor(), seed=0, learning_rate=schedule, clip_range=schedule, **SMALL
    )
    model.learn(64)
    # As made, then with what remains after the steps of each update.
    assert sorted(set(asked), reverse=True) == [1.0, 0.5, 0.0]
    assert float(model.algorithm.config.learning_rate) == 0.0
    assert float(model.algorithm.config.clip_range) == 0.0


def test_arguments_mean_what_they_mean_there():
    ou = OrnsteinUhlenbeckActionNoise(np.zeros(2), 0.3 * np.ones(2), theta=0.5, dt=0.1)
    td3 = TD3("MlpPolicy", None, action_noise=ou).arguments
    c = config_of("td3", td3, 1)
    # theta dt, and the stationary deviation of x <- x - theta dt x + sigma sqrt(dt) N.
    assert c.ou_theta == pytest.approx(0.05)
    assert c.noise_scale == pytest.approx(0.3 * (0.1 / (1 - 0.95**2)) ** 0.5)
    assert (c.n_steps, c.gradient_steps, c.policy_delay, c.hidden_sizes) == (2, 2, 2, (400, 300))
    assert (c.reward_scale, c.normalize_rewards, c.normalize_observations) == (1.0, False, False)
    ppo = config_of("ppo", PPO("MlpPolicy", None, vf_coef=0.25).arguments, 4)
    assert (ppo.value_coefficient, ppo.minibatches, ppo.epochs) == (0.5, 128, 10)
    assert ppo.final_learning_rate_fraction == 1.0
    arguments = SAC(
        "MlpPolicy", None, ent_coef="auto_0.5", train_freq=(4, "step"), gradient_steps=-1
    )
    sac = config_of("sac", arguments.arguments, 2)
    assert (sac.temperature, sac.learn_temperature, sac.gradient_steps) == (0.5, True, 8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPO("CnnPolicy", None), "CnnPolicy is not supported; use MlpPolicy"),
        (lambda: PPO("MlpPolicy", None, use_sde=True), "use_sde=True is not supported"),
        (lambda: A2C("MlpPolicy", None, use_rms_prop=False), "use_rms_prop=False is not supported"),
        (
            lambda: PPO("MlpPolicy", "CartPole-v1", batch_size=48),
            "does not divide a rollout of 2048",
        ),
        (lambda: SAC("MlpPolicy", "CartPole-v1"), "needs continuous actions"),
        (lambda: PPO("MlpPolicy", "Nowhere-v0"), "known neither to Gymnasium nor to gymnax"),
        (lambda: SAC("MlpPolicy", "Pendulum-v1", ent_coef="much"), "neither a number nor auto"),
        (lambda: TD3("MlpPolicy", "Pendulum-v1", train_freq=(1, "episode")), "count in steps"),
        (lambda: PPO("MlpPolicy", None, device="cuda"), "not where JAX runs"),
        (
            lambda: PPO(
                "MlpPolicy", "CartPole-v1", policy_kwargs={"net_arch": {"pi": [8], "vf": [4]}}
            ),
            "be the same",
        ),
        (
            lambda: PPO(
                "MlpPolicy", "CartPole-v1", policy_kwargs={"share_features_extractor": False}
            ),
            "share_features_extractor are not supported",
        ),
    ],
)
def test_what_is_not_supported_says_so(make, message):
    with pytest.raises(TradaxError, match=message):
        make()


def test_a_wrong_observation_and_other_spaces_are_refused(model):
    with pytest.raises(ValueError, match=r"shape \(3,\); the model takes \(4,\)"):
        model.predict(np.zeros(3))
    with pytest.raises(ConfigError, match="the model's observation_space is"):
        model.set_env(Corridor())


def test_an_unchanged_program_runs_on_tradax(tmp_path):
    program = """
import json, sys
import stable_baselines3 as before
from stable_baselines3 import PPO as early
theirs = early
from tradax import sb3
with sb3.install():
    from stable_baselines3 import PPO, SAC
    import stable_baselines3
    found = [PPO.__module__, SAC.__module__, stable_baselines3.ppo.PPO.__module__, early.__module__]
print(json.dumps([*found, stable_baselines3.PPO.__module__, early is stable_baselines3.PPO]))
"""
    script = tmp_path / "program.py"
    script.write_text(program)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    *ours, home, back = json.loads(done.stdout)
    assert ours == ["tradax.sb3._algorithms"] * 4
    assert (home, back) == ("stable_baselines3.ppo.ppo", True)


def test_logs_are_tables_and_tensorboard_files(tmp_path, capsys):
    model = PPO(
        "MlpPolicy", "CartPole-v1", seed=0, verbose=1, tensorboard_log=str(tmp_path), **SMALL
    )
    model.learn(32, tb_log_name="run")
    model.learn(32, tb_log_name="run", reset_num_timesteps=False)
    printed = capsys.readouterr().out
    assert "|    total_timesteps" in printed
    assert "|    approx_kl" in printed
    assert len({len(line) for line in table({"a/b": 1, "a/long name": 2.5}).splitlines()}) == 1
    assert [path.name for path in Path(tmp_path).iterdir()] == ["run_1"]
    logger = Logger(0, None, "", go_on=False)
    logger.record_mean("x", 1.0)
    logger.record_mean("x", 3.0)
    assert logger.name_to_value["x"] == 2.0
    assert sb3.PPO is PPO
