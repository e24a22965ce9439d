"""What a run has learned, opened by other programs."""

import warnings

import equinox as eqx
import gymnasium
import jax
import jax.numpy as jnp
import numpy as np
import onnx
import onnxruntime
import pytest
import stable_baselines3
from sklearn.preprocessing import QuantileTransformer, RobustScaler, StandardScaler

import tradax
from tradax import cli, discovery
from tradax.data.scaling import from_sklearn
from tradax.errors import ConfigError, TradaxError
from tradax.exporting import export, with_policy
from tradax.model_file import load_policy
from tradax.onnx_features import normalized
from tradax.onnx_file import Features, Graph, build
from tradax.policies import NetworkPolicy
from tradax.sb3 import _zip
from tradax.spaces import ActionSpec, Spec

GIVEN = [
    QuantileTransformer(n_quantiles=100, output_distribution="normal"),
    QuantileTransformer(n_quantiles=100, output_distribution="uniform"),
    RobustScaler(),
]
BOX = ActionSpec(low=(-2.0, 0.0), high=(2.0, 1.0))
act = eqx.filter_jit(lambda policy, obs: policy.act(obs))


def policy_of(name, action, *, seed=0, market=0, **options) -> NetworkPolicy:
    """A policy of random numbers; nothing is computed for it."""
    module = discovery.module("algorithms", name)
    config = module.Config(hidden_sizes=(8, 6), **options)
    algorithm = module.make(config, Spec(market, 5 - market, action), jnp.float32(1))
    shapes = eqx.filter_eval_shape(lambda: algorithm.policy(algorithm.init(jax.random.key(0))))
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: jnp.asarray(rng.uniform(0.1, 0.9, x.shape), x.dtype), shapes)


def onnx_actions(model: bytes, obs):
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(["action"], {"observation": obs})[0]


@pytest.mark.parametrize(
    ("name", "action", "options"),
    [
        ("ppo", ActionSpec(n=3), {}),
        ("ppo", BOX, {"activation": "gelu", "market": 3}),
        ("a2c", BOX, {"activation": "elu", "shared_network": True}),
        ("td3", BOX, {"activation": "silu", "normalization": "layer"}),
        ("ddpg", BOX, {"normalization": "batch"}),
        ("sac", BOX, {"normalize_observations": False}),
    ],
)
def test_onnxruntime_acts_like_the_policy(name, action, options):
    policy = policy_of(name, action, **options)
    obs = np.random.default_rng(1).normal(0, 3, (1000, 5)).astype(np.float32)  # beyond the clip too
    ours, theirs = (
        np.asarray(act(policy, obs)),
        onnx_actions(build(policy).SerializeToString(), obs),
    )
    assert theirs.shape == ours.shape
    assert np.abs(ours - theirs).max() < 1e-5
    assert theirs.dtype == (np.int64 if action.discrete else np.float32)


@pytest.mark.parametrize("given", [None, *GIVEN], ids=str)
def test_the_graph_normalises_features_as_scikit_learn_does(given):
    rng = np.random.default_rng(0)
    train = rng.standard_t(3, size=(400, 3)) * [1.0, 100.0, 0.01]
    train[:, 2] = np.round(train[:, 2], 2)  # repeated quantiles
    names = ("a", "b", "c")
    normalizer = None if given is None else from_sklearn(given, train, names)
    raw = np.concatenate([3 * train, train, [train.min(0), train.max(0), [np.nan, 1e9, 0.0]]])
    wide = np.concatenate([raw, raw[::-1]], axis=1)  # two lags
    graph = Graph()
    graph.add("Identity", normalized(graph, "x", normalizer, 2), output="y")
    info = [
        onnx.helper.make_tensor_value_info(name, kind, ["batch", 6])
        for name, kind in (("x", onnx.TensorProto.DOUBLE), ("y", onnx.TensorProto.FLOAT))
    ]
    model = onnx.helper.make_model(
        onnx.helper.make_graph(graph.nodes, "g", info[:1], info[1:], graph.constants),
        opset_imports=[onnx.helper.make_opsetid("", 20)],
        ir_version=9,
    )
    session = onnxruntime.InferenceSession(model.SerializeToString())
    (found,) = session.run(["y"], {"x": wide})
    wanted = raw if normalizer is None else normalizer.transform(raw)
    wanted = np.concatenate([wanted, wanted[::-1]], axis=1).astype(np.float32)
    np.testing.assert_allclose(found, wanted, rtol=1e-6, atol=1e-6)


def test_a_policy_takes_features_and_account_apart():
    policy = policy_of("ppo", BOX, market=3)
    rng = np.random.default_rng(0)
    scaler = StandardScaler().fit(rng.normal(5, 3, (50, 3)))
    normalizer = from_sklearn(scaler, np.zeros((0, 3)), ("a", "b", "c"))
    raw, account = rng.normal(5, 3, (100, 3)), rng.normal(size=(100, 2)).astype(np.float32)
    model = build(policy, Features(normalizer, 1)).SerializeToString()
    session = onnxruntime.InferenceSession(model)
    (theirs,) = session.run(["action"], {"features": raw, "account": account})
    obs = np.concatenate([scaler.transform(raw).astype(np.float32), account], axis=1)
    assert np.abs(np.asarray(act(policy, obs)) - theirs).max() < 1e-5


def test_the_best_policy_takes_the_place_of_the_last_in_a_learner():
    for name in ("ppo", "sac"):
        module = discovery.module("algorithms", name)
        algorithm = module.make(module.Config(hidden_sizes=(8, 6)), Spec(0, 5, BOX), jnp.float32(1))
        shapes = eqx.filter_eval_shape(algorithm.init, jax.random.key(0))
        rng = np.random.default_rng(5)
        learner = jax.tree.map(
            lambda x, rng=rng: jnp.asarray(rng.uniform(0.2, 0.8, x.shape).astype(x.dtype)), shapes
        )
        best = policy_of(name, BOX, seed=2)
        joined = with_policy(algorithm, learner, best)
        obs = np.random.default_rng(1).normal(size=(100, 5)).astype(np.float32)
        assert np.allclose(act(best, obs), act(algorithm.policy(joined), obs), atol=1e-5)
        assert joined.moments is learner.moments


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    tradax.train(
        "ppo",
        "CartPole-v1",
        total_timesteps=1024,
        evaluations=2,
        settings={"ppo": {"num_envs": 8, "n_steps": 32, "hidden_sizes": [8, 8]}},
        out=folder,
    )
    return folder


def test_a_run_is_opened_by_stable_baselines3_and_onnxruntime(run, capsys):
    assert cli.main(["export", str(run), "--format", "sb3"]) == 0
    file = run / "policy-sb3.zip"
    assert capsys.readouterr().out.strip() == str(file)
    env = gymnasium.make("CartPole-v1")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model = stable_baselines3.PPO.load(file, env=env, device="cpu")
    obs = np.random.default_rng(1).normal(0, 0.3, (1000, 4)).astype(np.float32)
    ours = np.asarray(act(load_policy(run), obs))
    assert np.array_equal(ours, model.predict(obs, deterministic=True)[0])
    assert np.array_equal(ours, np.asarray(act(load_policy(file), obs)))
    assert model.num_timesteps == 1024
    assert model.policy.optimizer.state_dict()["state"][0]["step"] == 4 * 4 * 8
    assert _zip.open_model(file).arguments["n_steps"] == 32

    (file,) = export(run, "onnx", out=run / "other.onnx")
    assert np.array_equal(ours, onnx_actions(file.read_bytes(), obs))


def test_what_cannot_be_exported_is_said(run, tmp_path):
    with pytest.raises(TradaxError, match="no normaliser of features"):
        export(run, "joblib")
    with pytest.raises(ConfigError, match="leave out with_features"):
        export(run, "onnx", with_features=True)
    with pytest.raises(ConfigError, match="must be one of sb3, onnx, joblib"):
        export(run, "pickle")
    with pytest.raises(TradaxError, match="not a run directory"):
        export(tmp_path, "sb3")
    module = discovery.module("algorithms", "a2c")
    config = module.Config(hidden_sizes=(8, 6), shared_network=True)
    algorithm = module.make(config, Spec(0, 5, BOX), jnp.float32(1))
    shapes = eqx.filter_eval_shape(algorithm.init, jax.random.key(0))
    learner = jax.tree.map(lambda x: jnp.ones(x.shape, x.dtype), shapes)
    with pytest.raises(ConfigError, match="--policy last"):
        with_policy(algorithm, learner, policy_of("a2c", BOX, shared_network=True))
