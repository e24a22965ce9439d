"""Statistics of VecNormalize, against Stable-Baselines3's."""

import json

import gymnasium
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv, VecNormalize

from tradax.algorithms._policy_gradient import Moments
from tradax.errors import ConfigError, ModelFileError
from tradax.networks import RunningMoments
from tradax.sb3._vec_normalize import load_vec_normalize, save_vec_normalize


def wrapped(**options) -> VecNormalize:
    return VecNormalize(DummyVecEnv([lambda: gymnasium.make("Pendulum-v1")]), **options)


@pytest.fixture
def seen():
    """One that has seen 300 steps."""
    venv = wrapped(gamma=0.9)
    venv.seed(0)
    venv.reset()
    for step in range(300):
        venv.step(np.array([[np.sin(step)]], np.float32))
    return venv


def test_ours_normalises_like_theirs(seen, tmp_path):
    save_vec_normalize(tmp_path / "s.json", seen)
    normalizer = load_vec_normalize(tmp_path / "s.json").normalizer()
    assert normalizer is not None
    obs = np.random.default_rng(0).normal(0, 4, (1000, 3)).astype(np.float32)
    obs[0] = [0, 1e3, -1e3]  # clipped
    obs[1, 1] = np.nan
    np.testing.assert_allclose(normalizer(obs), seen.normalize_obs(obs), atol=1e-6, rtol=1e-6)


def test_theirs_takes_the_numbers_back_exactly(seen, tmp_path):
    save_vec_normalize(tmp_path / "s.json", seen)
    fresh = wrapped()
    load_vec_normalize(tmp_path / "s.json").install(fresh)
    obs, reward = np.random.default_rng(0).normal(size=(2, 50, 3))
    np.testing.assert_array_equal(fresh.normalize_obs(obs), seen.normalize_obs(obs))
    np.testing.assert_array_equal(fresh.normalize_reward(reward), seen.normalize_reward(reward))
    assert fresh.gamma == 0.9
    assert fresh.obs_rms.count == seen.obs_rms.count


def test_a_learner_s_statistics_go_to_theirs(tmp_path):
    rng = np.random.default_rng(3)
    batch = rng.normal(2, 3, (500, 3)).astype(np.float32)
    observations = RunningMoments.create((3,)).update(batch)
    returns = RunningMoments.create(()).update(batch[:, 0])
    save_vec_normalize(
        tmp_path / "s.json", Moments(observations, returns, returns.mean), gamma=0.95
    )
    fresh = wrapped()
    load_vec_normalize(tmp_path / "s.json").install(fresh)
    np.testing.assert_allclose(observations(batch), fresh.normalize_obs(batch), atol=1e-6)
    assert fresh.gamma == 0.95
    assert fresh.ret_rms.var == pytest.approx(float(returns.var))


def test_another_epsilon_is_kept_and_another_clip_refused(tmp_path, seen):
    seen.epsilon = 0.5
    save_vec_normalize(tmp_path / "s.json", seen)
    normalizer = load_vec_normalize(tmp_path / "s.json").normalizer()
    assert normalizer is not None
    obs = np.random.default_rng(0).normal(size=(50, 3)).astype(np.float32)
    np.testing.assert_allclose(normalizer(obs), seen.normalize_obs(obs), atol=1e-6)
    seen.clip_obs = 5.0
    save_vec_normalize(tmp_path / "s.json", seen)
    with pytest.raises(ConfigError, match="clip_obs is 5"):
        load_vec_normalize(tmp_path / "s.json").normalizer()


def test_a_damaged_or_foreign_file_is_refused(tmp_path, seen):
    path = tmp_path / "s.json"
    save_vec_normalize(path, seen)
    good = json.loads(path.read_text())
    for change in (
        {"format": "other"}, {"version": 2}, {"returns": None}, {"clip_obs": "x"},
        {"observations": {"mean": [0.0], "var": [1.0, 1.0], "count": 1}},
        {"observations": {"mean": [0.0], "var": [-1.0], "count": 1}},
        {"observations": {"mean": [0.0], "var": [float("nan")], "count": 1}},
    ):  # fmt: skip
        path.write_text(json.dumps(good | change))
        with pytest.raises(ModelFileError, match=r"not statistics|is newer|no JSON"):
            load_vec_normalize(path)
    for content in (b"", b"\x80\x04", b"[" * 100_000):
        path.write_bytes(content)
        with pytest.raises(ModelFileError, match=r"s\.json"):
            load_vec_normalize(path)
    with pytest.raises(ModelFileError, match="none"):
        load_vec_normalize(tmp_path / "none.json")
