"""Model files, against Stable-Baselines3 and sb3-contrib themselves."""

import base64
import io
import json
import pickle
import warnings
import zipfile

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import sb3_contrib
import stable_baselines3
import torch

import tradax.sb3
from tradax import discovery
from tradax.errors import ConfigError, ModelFileError
from tradax.model_file import read_policy_file, save_policy
from tradax.reading import archive_of
from tradax.sb3 import _layers, _opcodes, _weights, _zip
from tradax.sb3._layers import Layer, Units
from tradax.spaces import ActionSpec, Spec

THEIRS = {
    "ppo": stable_baselines3.PPO,
    "a2c": stable_baselines3.A2C,
    "trpo": sb3_contrib.TRPO,
    "ddpg": stable_baselines3.DDPG,
    "td3": stable_baselines3.TD3,
    "sac": stable_baselines3.SAC,
}
CASES = [
    *((name, "CartPole-v1") for name in _weights.ON_POLICY),
    *((name, "Pendulum-v1") for name in THEIRS),
]
LARGE = (128, 128)  # Adam keeps them by layer, small ones as one vector
PLAIN = {"normalize_observations": False, "normalize_rewards": False}
act = eqx.filter_jit(lambda policy, obs: policy.act(obs))


def built(name, env="Pendulum-v1", **options):
    """An algorithm, and a learner of random numbers that looks as if it had trained."""
    module = discovery.module("algorithms", name)
    small = {"hidden_sizes": (8, 4), "n_steps": 16, "num_envs": 2}
    if name in _weights.OFF_POLICY:
        small |= {"replay_size": 64, "batch_size": 16, "learning_starts": 8}
        small |= {"update_to_data": 1 / 16 if name == "td3" else 1 / 32}
        if not options.get("normalize_rewards", True):
            small["reward_scale"] = 1.0
    elif name == "ppo":
        small |= {"minibatches": 2}
    action = ActionSpec(n=2) if env == "CartPole-v1" else ActionSpec(low=(-2.0,), high=(2.0,))
    size = gymnasium.make(env).observation_space.shape[0]
    algorithm = module.make(
        module.Config(**small | options), Spec(0, size, action), jnp.float32(10)
    )
    return algorithm, filled(algorithm, seed=0)


def filled(algorithm, seed):
    """Nothing is computed for it, so nothing is compiled."""
    shapes = eqx.filter_eval_shape(algorithm.init, jax.random.key(0))
    rng = np.random.default_rng(seed)

    def fill(leaf):
        if jnp.issubdtype(leaf.dtype, jnp.floating):
            # Positive, as variances and means of squares are.
            return jnp.asarray(rng.uniform(0.05, 0.6, leaf.shape), leaf.dtype)
        return jnp.full(leaf.shape, 3, leaf.dtype)

    return jax.tree.map(fill, shapes)


def observations(size):
    return np.random.default_rng(1).normal(size=(1000, size)).astype(np.float32)


def agree(ours, theirs):
    if ours.ndim == 1:
        return np.array_equal(ours, theirs)
    return np.abs(ours - theirs).max() < 1e-5


def load(name, file, env=None):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return THEIRS[name].load(file, env=env, device="cpu")


def theirs_only(content: bytes, **replaced: bytes) -> io.BytesIO:
    """A file without what tradax reads of its own, some entries replaced."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        entries = {n: archive.read(n) for n in archive.namelist()}
    for name in ("policy.json", "policy.safetensors", "learner.safetensors"):
        entries.pop(name, None)
    return io.BytesIO(archive_of(entries | replaced))


def written(algorithm, learner, **options) -> bytes:
    buffer = io.BytesIO()
    _zip.save_model(buffer, algorithm, learner, **options)
    return buffer.getvalue()


@pytest.mark.parametrize(("name", "env"), CASES)
def test_their_class_acts_like_ours_goes_on_learning_and_is_read_again(name, env, tmp_path):
    environment = gymnasium.make(env)
    algorithm, learner = built(name, env)
    path = tmp_path / "model"
    _zip.save_model(
        path, algorithm, learner, observation_space=environment.observation_space,
        data={"num_timesteps": 500},
    )  # fmt: skip
    path = tmp_path / "model.zip"
    model = load(name, path, environment)
    obs = observations(algorithm.spec.size)
    ours = np.asarray(act(read_policy_file(path).policy, obs))
    assert agree(ours, model.predict(obs, deterministic=True)[0])
    assert model.num_timesteps == 500

    model.learn(32, reset_num_timesteps=False)
    assert model.num_timesteps == 532
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    opened = _zip.open_model(file)
    assert not opened.ours
    assert opened.algorithm == name
    assert opened.hidden_sizes == (8, 4)
    assert opened.data["num_timesteps"] == 532
    assert opened.observation_space == environment.observation_space
    assert opened.action_space == environment.action_space
    algorithm, like = built(name, env, activation=opened.activation, **PLAIN)
    restored = opened.restore(algorithm, like)
    ours = np.asarray(act(algorithm.policy(restored), obs))
    assert agree(ours, model.predict(obs, deterministic=True)[0])


def test_a_file_that_they_wrote_from_scratch_is_read():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        kwargs = {"net_arch": {"pi": [8, 4], "vf": [8, 4]}, "activation_fn": torch.nn.ReLU}
        model = stable_baselines3.PPO(
            "MlpPolicy", "Pendulum-v1", policy_kwargs=kwargs, n_steps=32, batch_size=16,
            learning_rate=lambda left: 1e-3 * left, clip_range=0.3, device="cpu", seed=4,
        )  # fmt: skip
    file = io.BytesIO()
    model.save(file)
    file.seek(0)
    opened = _zip.open_model(file)
    assert opened.activation == "relu"
    assert opened.arguments["clip_range"] == 0.3
    assert opened.arguments["n_steps"] == 32
    assert opened.arguments["seed"] == 4
    assert "learning_rate" not in opened.arguments
    assert opened.left_out == ("learning_rate is kept as code, which is not read; set it anew",)
    algorithm, like = built("ppo", activation="relu", **PLAIN)
    obs = observations(3)
    ours = np.asarray(act(algorithm.policy(opened.restore(algorithm, like)), obs))
    assert agree(ours, model.predict(obs, deterministic=True)[0])


@pytest.mark.parametrize(
    ("name", "sizes"), [*((name, (8, 4)) for name in THEIRS), ("td3", LARGE), ("sac", LARGE)]
)
def test_a_learner_survives_its_own_file_and_a_state_dictionary(name, sizes):
    algorithm, learner = built(name, hidden_sizes=sizes)
    opened = _zip.open_model(io.BytesIO(written(algorithm, learner, arguments={"seed": 7})))
    assert opened.ours
    assert opened.arguments["seed"] == 7
    assert opened.critics == {"ddpg": 1, "td3": 2, "sac": 2}.get(name, 0)
    restored = opened.restore(algorithm, filled(algorithm, seed=9))
    for a, b in zip(*(jax.tree.leaves(_zip._lasting(x)) for x in (learner, restored)), strict=True):
        assert np.array_equal(a, b)

    algorithm, learner = built(name, hidden_sizes=sizes, **PLAIN)
    states = _weights.to_state(algorithm, learner)
    back = _weights.from_state(algorithm, filled(algorithm, seed=9), states)
    for part in ("networks", "network", "opt_state"):
        a, b = (jax.tree.leaves(getattr(x, part, None)) for x in (learner, back))
        assert all(map(np.array_equal, a, b))


@pytest.mark.parametrize(("name", "activation"), [("ppo", "gelu"), ("sac", "silu"), ("td3", "elu")])
def test_values_are_in_raw_rewards_and_activations_are_named(name, activation):
    algorithm, learner = built(name, activation=activation)
    file = written(algorithm, learner)
    model = load(name, io.BytesIO(file))
    assert _zip.open_model(theirs_only(file)).activation == activation
    obs = 0.3 * observations(3)  # within the 10 deviations where ours clips
    scale = _weights.reward_scale(algorithm, learner)
    seen = learner.moments.observations(obs)
    with torch.no_grad():
        raw = torch.as_tensor(obs)
        if name == "ppo":
            theirs = model.policy.predict_values(raw)[:, 0].numpy()
            ours = learner.network.value(seen)
        else:
            action = np.linspace(-1, 1, len(obs), dtype=np.float32)[:, None]
            theirs = torch.stack(model.critic_target(raw, torch.as_tensor(action)))[..., 0].numpy()
            ours = learner.networks.target_critic(seen, jnp.asarray(action))[..., 0]
    assert np.allclose(np.asarray(ours) / scale, theirs, atol=1e-5)
    if name == "sac":
        log_temperature = float(learner.networks.log_temperature) - np.log(scale)
        assert np.isclose(model.log_ent_coef.item(), log_temperature)


@pytest.mark.parametrize(
    ("name", "options"), [("ppo", {}), ("ppo", {"shared_network": True, **PLAIN}), ("sac", {})]
)
def test_our_class_opens_what_a_scaling_run_exported(name, options, tmp_path):
    algorithm, learner = built(name, **options)
    _zip.save_model(tmp_path / "policy-sb3.zip", algorithm, learner, data={"num_timesteps": 500})
    ours = getattr(tradax.sb3, name.upper()).load(tmp_path / "policy-sb3.zip")
    theirs = load(name, tmp_path / "policy-sb3.zip", None)
    obs = observations(3)
    assert ours.num_timesteps == 500
    for found in (ours.predict(obs, deterministic=True)[0], act(algorithm.policy(learner), obs)):
        assert agree(np.asarray(found), theirs.predict(obs, deterministic=True)[0])
    found, known = ours.get_parameters(), theirs.get_parameters()
    for key, value in known["policy"].items():
        assert np.allclose(found["policy"][key], value.numpy(), rtol=1e-5, atol=1e-6), key


def test_statistics_of_returns_that_scale_nothing_yet_are_no_part_of_theirs():
    algorithm, learner = built("ppo", normalize_observations=False)
    fresh = eqx.tree_at(
        lambda x: x.moments.returns.var, learner, jnp.ones_like(learner.moments.returns.var)
    )
    assert _weights.reward_scale(algorithm, fresh) == 1.0
    assert not _weights.is_plain(algorithm, fresh)
    assert not _zip.open_model(io.BytesIO(written(algorithm, fresh)), plain=True).ours


def test_a_shared_network_becomes_two():
    algorithm, learner = built("ppo", shared_network=True)
    file = io.BytesIO(written(algorithm, learner))
    model, obs = load("ppo", file), observations(3)
    ours = np.asarray(act(algorithm.policy(learner), obs))
    assert agree(ours, model.predict(obs, deterministic=True)[0])
    assert not model.policy.optimizer.state


def test_gradients_change_with_the_units():
    rng = np.random.default_rng(0)
    layers = [Layer(rng.normal(size=(3, 2)), rng.normal(size=2)),
              Layer(rng.normal(size=(2, 1)), rng.normal(size=1))]  # fmt: skip
    units = Units(rng.normal(size=3), np.array([0.5, 2.0, 3.0]), output=0.25, loss=2 * 0.25**2)
    x, target = rng.normal(size=(16, 3)), rng.normal(size=16)

    def value(layers, x):
        (w0, b0), (w1, b1) = layers
        return (jnp.tanh(x @ w0 + b0) @ w1 + b1)[:, 0]

    with jax.enable_x64(True):
        assert units.mean is not None
        z = (x - units.mean) / units.deviation
        theirs = _layers.outside(layers, units)
        assert np.allclose(value(theirs, x), units.output * value(layers, z), atol=1e-6)
        ours = jax.grad(lambda n: 0.5 * jnp.mean((value(n, z) - target) ** 2))(layers)
        wanted = jax.grad(lambda n: jnp.mean((value(n, x) - 0.25 * target) ** 2))(theirs)
    for found, gradient in zip(_layers.outside(ours, units, "gradient"), wanted, strict=True):
        assert np.allclose(found.weight, gradient.weight, atol=1e-5)
        assert np.allclose(found.bias, gradient.bias, atol=1e-5)


class Canary:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (str(self.path), "w"))


@pytest.mark.parametrize("name", ["ppo", "sac"])
def test_no_pickle_in_any_field_of_a_file_runs(name, tmp_path):
    canary = tmp_path / "canary"
    poison = pickle.dumps({"w": Canary(canary)}, 2)
    text = base64.b64encode(poison).decode()
    algorithm, learner = built(name, **PLAIN)
    file = written(algorithm, learner)
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        data = json.loads(archive.read("data"))
        weights = [n for n in archive.namelist() if n.endswith(".pth")]
    data["policy_kwargs"] = {":type:": "<class 'dict'>"} | data["policy_kwargs"]
    for key in ("policy_class", "observation_space", "action_space", "policy_kwargs"):
        data[key][":serialized:"] = text
    for key in ("lr_schedule", "clip_range", "train_freq", "_last_obs", "ep_info_buffer"):
        data[key] = {":type:": "<class 'function'>", ":serialized:": text}
    poisoned = json.dumps(data).encode()
    opened = _zip.open_model(theirs_only(file, data=poisoned))
    opened.restore(algorithm, filled(algorithm, seed=9))
    _zip.open_model(io.BytesIO(file)).restore(algorithm, filled(algorithm, seed=9))
    assert len(weights) >= 3
    for entry in weights:
        bad = archive_of({"archive/data.pkl": poison, "archive/byteorder": b"little"})
        with pytest.raises(ModelFileError, match="nothing of it has run"):
            _zip.open_model(theirs_only(file, **{entry: bad}))
    assert not canary.exists()
    pickle.loads(poison)  # noqa: S301
    assert canary.exists()


def changed(file, **fields):
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        data = json.loads(archive.read("data"))
    for key, value in fields.items():
        if isinstance(value, dict) and isinstance(data.get(key), dict):
            data[key] |= value
        else:
            data[key] = value
    return theirs_only(file, data=json.dumps(data).encode())


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"policy_class": {"__module__": "mine"}}, "its policy is of mine"),
        ({"policy_class": None}, "its policy is of None"),
        ({"observation_space": {":type:": "<class 'gymnasium.spaces.dict.Dict'>"}}, "kind Dict"),
        ({"observation_space": {"_shape": []}}, "those with axes"),
        ({"observation_space": {"_shape": [3, 3]}}, "3 bounds for 9 numbers"),
        ({"observation_space": {"dtype": "object"}}, "of type object"),
        ({"observation_space": {"_shape": [4]}}, "3 bounds for 4 numbers"),
        ({"observation_space": None}, "observation_space is missing"),
        ({"action_space": {"low": "[-2. ..."}}, "unbounded action spaces"),
        ({"action_space": {"low": "[x]"}}, "action_space is damaged"),
        ({"policy_kwargs": {"features_extractor_class": "x"}}, "features_extractor_class"),
        ({"policy_kwargs": {"activation_fn": "<class 'Mine'>"}}, "activation_fn <class 'Mine'>"),
        ({"use_sde": True}, "use_sde"),
    ],
)
def test_what_is_not_read_is_named(fields, message):
    algorithm, learner = built("ppo")
    file = changed(written(algorithm, learner), **fields)
    with pytest.raises(ModelFileError, match=message):
        _zip.open_model(file)


def test_damaged_and_unfitting_files_give_one_clear_error(tmp_path):
    algorithm, learner = built("ppo", **PLAIN)
    file = written(algorithm, learner)
    for bad in (b"", b"PK", file[: len(file) // 2]):
        with pytest.raises(ModelFileError, match=r"damaged|no model file"):
            _zip.open_model(io.BytesIO(bad))
    with pytest.raises(ModelFileError, match="no such file"):
        _zip.open_model(tmp_path / "none")
    with pytest.raises(ModelFileError, match="data: is no JSON, or damaged"):
        _zip.open_model(theirs_only(file, data=b"{"))
    with pytest.raises(ModelFileError, match="not a model of"):
        _zip.open_model(io.BytesIO(changed_without(file, "n_epochs", "gae_lambda")))
    save_policy(algorithm.policy(learner), tmp_path / "policy.zip")
    with pytest.raises(ModelFileError, match="a policy file, not a model"):
        _zip.open_model(tmp_path / "policy.zip")

    opened = _zip.open_model(theirs_only(file))
    for options, message in (
        ({"hidden_sizes": (8, 5), **PLAIN}, r"expected \[5, 8\]"),
        ({"hidden_sizes": (8,), **PLAIN}, "missing or unknown"),
        ({}, "normalize_observations=False"),
    ):
        with pytest.raises(ModelFileError, match=message):
            opened.restore(*built("ppo", **options))
    with pytest.raises(ModelFileError, match="a model of ppo, not a2c"):
        opened.restore(*built("a2c", **PLAIN))
    with pytest.raises(ModelFileError, match="other options"):
        _zip.open_model(io.BytesIO(file)).restore(*built("ppo"))
    with pytest.raises(ConfigError, match="plain, finite values"):
        written(algorithm, learner, arguments={"learning_rate": lambda left: left})
    states = _weights.to_state(algorithm, learner)
    for step in (np.nan, -1.0, 1e30, "3"):
        states["policy.optimizer"]["state"][0]["step"] = step
        with pytest.raises(ModelFileError, match="no count of steps"):
            _weights.from_state(algorithm, learner, states)
    states["policy"]["log_std"] = np.array([np.nan], np.float32)
    with pytest.raises(ModelFileError, match="finite"):
        _weights.from_state(algorithm, learner, states)


def changed_without(file, *keys):
    with zipfile.ZipFile(io.BytesIO(file)) as archive:
        data = json.loads(archive.read("data"))
    for key in keys:
        del data[key]
    return theirs_only(file, data=json.dumps(data).encode()).getvalue()


def test_what_they_have_no_word_for_is_not_written():
    with pytest.raises(ConfigError, match="reinforce is not among"):
        _weights.name_of(built("reinforce")[0])
    with pytest.raises(ConfigError, match="normalization"):
        _weights.name_of(built("td3", normalization="layer")[0])
    with pytest.raises(ConfigError, match="-20 to 2"):
        _weights.name_of(built("sac", log_std_min=-5.0)[0])


def test_only_classes_and_spaces_are_pickled():
    algorithm, learner = built("ppo")
    with zipfile.ZipFile(io.BytesIO(written(algorithm, learner))) as archive:
        data = json.loads(archive.read("data"))
    pickled = {
        key: value[":serialized:"]
        for key, value in data.items()
        if isinstance(value, dict) and ":serialized:" in value
    }
    assert set(pickled) == {"policy_class", "observation_space", "action_space"}
    code = base64.b64decode(pickled["policy_class"])
    assert code == _opcodes.write(
        _opcodes.Global("stable_baselines3.common.policies", "ActorCriticPolicy")
    )
    assert len(code) < 70
