import dataclasses
import warnings

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

import tradax
from compiled import as_deployed
from probes import Delayed, Endless
from tradax import cli, offline, preparation, protocols, recording, run_directory, training
from tradax.algorithms import a2c, npg, ppo, reinforce, trpo
from tradax.envs.probes import Memoryless, Target
from tradax.errors import ConfigError, DataError, TradaxError
from tradax.log_file import read_log, write_log
from tradax.logged import logged_source
from tradax.networks import mlp
from tradax.policies import NetworkPolicy, head_of
from tradax.protocols import Logged
from tradax.recording import record
from tradax.rollout import jax_source
from tradax.spaces import Factored, Spec

T, B = 24, 4


def policy_for(spec: Spec, seed=0):
    network = mlp(jax.random.key(seed), spec, (8,), spec.action.size, "tanh")
    log_std = None if spec.action.discrete else jnp.zeros(spec.action.size)
    return NetworkPolicy(network, log_std, None, spec, head_of(spec))


@pytest.fixture(scope="module")
def market_task():
    request = preparation.Request(
        algorithm="ppo",
        env="trading",
        data="sp500",
        total_timesteps=100,
        settings={"ppo": {"num_envs": B, "n_steps": T, "minibatches": 2, "hidden_sizes": [8]}},
    )
    return preparation.prepare(request)


def source_of(name, market_task):
    if name == "market":
        return dataclasses.replace(market_task.source, num_envs=B)
    env = {"cartpole": "CartPole-v1", "endless": Endless(), "continuous": Target()}[name]
    return jax_source(env, num_envs=B)


@pytest.mark.parametrize("name", ["cartpole", "endless", "continuous", "market"])
def test_what_is_read_back_is_exactly_the_experience_that_was_logged(
    tmp_path, market_task, name, monkeypatch
):
    # A log keeps no next observations but those of the next steps: rounded alike where deployed.
    monkeypatch.setattr(recording, "_collect", as_deployed(recording._collect))
    source = source_of(name, market_task)
    policy = policy_for(source.spec)
    log = record(policy, source, n_steps=T * B, seed=3)
    path = tmp_path / "log.parquet"
    write_log(log, path)
    again = read_log(path)
    for a, b in zip(*(jax.tree.leaves(vars(x)) for x in (log, again)), strict=True):
        if isinstance(a, np.ndarray):
            assert a.dtype == b.dtype
            np.testing.assert_array_equal(a, b)

    # The same rollout once more, by hand.
    actor = policy.actor(sample=True)
    reset_key, key = jax.random.split(jax.random.key(3))
    carry = recording._reset(source, reset_key, actor)
    expected = recording._collect(source, carry, actor, jax.random.fold_in(key, 0), T)[1]
    windows = logged_source(again, like=source, num_envs=B).window(T * jnp.arange(B), T)
    # Recording stopped there, and learning takes it for a truncation.
    stopped = expected.truncated.at[-1].set(~expected.terminated[-1])
    expected = expected._replace(truncated=stopped)
    assert isinstance(windows.extras, Logged)
    for a, b in zip(jax.tree.leaves(expected), jax.tree.leaves(windows), strict=True):
        np.testing.assert_array_equal(a, b)
    if name == "endless":
        assert expected.truncated[4].all()
        assert not expected.terminated.any()


def test_windows_begin_anywhere_and_cross_ends_with_the_true_next_observation():
    source = jax_source("CartPole-v1", num_envs=B)
    log = record(policy_for(source.spec), source, n_steps=200, seed=0)
    windows = logged_source(log, num_envs=2_000)
    assert windows.spec == source.spec
    _, e, finished = eqx.filter_jit(windows.collect)((), None, jax.random.key(0), 5)
    assert finished.episodes == 0
    seen = {tuple(x) for x in np.asarray(e.obs[0])}
    assert len(seen) == len({tuple(x) for x in log.obs})  # every step began a window
    following = {tuple(o): n for o, n in zip(log.obs[:-1], log.obs[1:], strict=True)}
    last = {tuple(log.obs[i]): log.last_obs[k] for k, i in enumerate(log.ends)}
    for obs, after, done in zip(
        *(np.asarray(x).reshape(-1, *x.shape[2:]) for x in (e.obs, e.next_obs, e.done)), strict=True
    ):
        assert done == (tuple(obs) in last)
        np.testing.assert_array_equal(after, last.get(tuple(obs), following.get(tuple(obs))))


def test_whole_episodes_are_one_of_each_environment():
    source = jax_source("CartPole-v1", num_envs=1)
    log = record(policy_for(source.spec), source, episodes=30, seed=0)
    assert log.finished.all()
    assert len(log.ends) == 30
    assert log.terminated[log.ends].all()
    assert log.returns.sum() == len(log)
    log = record(policy_for(source.spec), source, episodes=5, max_steps=3)
    assert not log.finished.any()
    assert len(log) == 15


def test_equal_seeds_give_equal_files(tmp_path):
    paths = [tmp_path / f"{i}.parquet" for i in range(3)]
    policy = policy_for(jax_source(Delayed()).spec)
    for path, seed in zip(paths, (1, 1, 2), strict=True):
        log = tradax.collect(policy, Delayed(), path=path, n_steps=30, num_envs=2, seed=seed)
    assert paths[0].read_bytes() == paths[1].read_bytes() != paths[2].read_bytes()
    assert [p.name for p in tmp_path.iterdir() if p.name.startswith(".")] == []
    metadata = read_log(paths[2]).metadata
    assert metadata == log.metadata
    assert metadata["env"] == "Delayed"
    assert metadata["policy"]["kind"] == "NetworkPolicy"


def good_frame():
    """Two episodes, of three steps and two."""
    return {
        "episode": [0, 0, 0, 7, 7],
        "observation": [[0.0, 1.0], [1.0, 1.0], [2.0, 1.0], [0.0, 0.0], [1.0, 0.0]],
        "action": [0, 1, 1, 0, 1],
        "log_prob": [-0.5, -0.6, -0.7, -0.8, -0.9],
        "reward": [0.0, 0.0, 1.0, 0.0, 2.0],
        "terminated": [False, False, True, False, False],
        "truncated": [False, False, False, False, True],
        "next_observation": [None, None, None, None, [2.0, 0.0]],
    }


def written(tmp_path, changes=None, without=()):
    frame = {k: v for k, v in {**good_frame(), **(changes or {})}.items() if k not in without}
    path = tmp_path / "log.parquet"
    pl.DataFrame(frame, strict=False).write_parquet(path)
    return path


def test_a_file_of_another_program_is_read(tmp_path):
    log = read_log(written(tmp_path))
    np.testing.assert_array_equal(log.returns, [1.0, 2.0])
    np.testing.assert_array_equal(log.last_obs, [[2.0, 1.0], [2.0, 0.0]])
    assert log.metadata == {}
    with pytest.raises(DataError, match="give the environment"):
        logged_source(log)
    assert len(logged_source(log, like=jax_source(Delayed())).reward) == 5


NAN, INF = float("nan"), float("inf")
BAD = {
    "no log_prob": ({}, ["log_prob"], ["no column log_prob", "while recording"]),
    "no reward": ({}, ["reward"], ["no column reward"]),
    "nan reward": ({"reward": [0, 0, NAN, 0, 1]}, (), ["row 3, column reward", "nan"]),
    "missing reward": ({"reward": [0.0, None, 1, 0, 1]}, (), ["row 2, column reward", "missing"]),
    "huge": ({"reward": [0.0, 1e300, 1, 0, 1]}, (), ["row 2, column reward", "1e+300"]),
    "text": ({"reward": list("abcde")}, (), ["column reward", "must hold numbers"]),
    "inf log_prob": ({"log_prob": [0, -INF, 0, 0, 0]}, (), ["row 2, column log_prob", "inf"]),
    "a probability": (
        {"log_prob": [0.5, 0.4, 0.3, 0.2, 0.1]},
        (),
        ["row 1, column log_prob", "above 0"],
    ),
    "flags": ({"terminated": [0, 0, 1, 0, 0]}, (), ["column terminated", "true or false"]),
    "a gap": (
        {"terminated": [False, None, True, False, False]},
        (),
        ["row 2, column terminated", "missing"],
    ),
    "both": (
        {"truncated": [False, False, True, False, True]},
        (),
        ["row 3, column truncated", "not cut off"],
    ),
    "ends in the middle": (
        {"terminated": [False, True, True, False, False]},
        (),
        ["row 2, column terminated", "goes on"],
    ),
    "comes again": ({"episode": [0, 7, 0, 7, 7]}, (), ["row 3, column episode", "comes again"]),
    "lengths": (
        {"observation": [[0.0, 1.0], [1.0], [2.0, 1.0], [0.0, 0.0], [1.0, 0.0]]},
        (),
        ["row 2, column observation", "1 numbers where most have 2"],
    ),
    "nan observed": (
        {"observation": [[0.0, 1.0], [1.0, NAN], [2.0, 1.0], [0.0, 0.0], [1.0, 0.0]]},
        (),
        ["row 2, column observation", "place 2"],
    ),
    "no next": ({"next_observation": [None] * 4 + [[NAN, 1.0]]}, (), ["row 5", "place 1"]),
    "truncated without next": (
        {"next_observation": [None, None, [1.0, 1.0], None, None]},
        (),
        ["row 5, column next_observation", "needed"],
    ),
    "next of another length": (
        {"next_observation": [None] * 4 + [[1.0, 2.0, 3.0]]},
        (),
        ["column next_observation", "3 numbers where observation has 2"],
    ),
    "action of text": ({"action": list("abcde")}, (), ["column action", "integers, or lists"]),
    "no rows": ({name: [] for name in good_frame()}, (), ["no rows"]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_files_are_refused_by_file_row_and_column(tmp_path, case):
    changes, without, words = BAD[case]
    path = written(tmp_path, changes, without)
    with pytest.raises(DataError) as error:
        read_log(path)
    for word in ("log.parquet", *words):
        assert word in str(error.value)


def test_files_that_are_no_logs_are_refused(tmp_path):
    with pytest.raises(DataError, match="no such file"):
        read_log(tmp_path / "no.parquet")
    with pytest.raises(DataError, match=r"name the file \.parquet"):
        read_log(tmp_path / "log.csv")
    (tmp_path / "junk.parquet").write_bytes(b"PAR1 nothing PAR1")
    with pytest.raises(DataError, match="cannot be read as Parquet"):
        read_log(tmp_path / "junk.parquet")
    path = written(tmp_path)
    for metadata, words in (('{"version": 99}', "newer"), ("{", "is no JSON"), ("3", "cannot")):
        pl.read_parquet(path).write_parquet(path, metadata={"tradax": metadata})
        with pytest.raises(DataError, match=words):
            read_log(path)


def test_a_log_must_fit_the_environment(tmp_path, market_task):
    source = market_task.source
    log = record(policy_for(source.spec), source, n_steps=B * 8)
    with pytest.raises(DataError, match="give the environment"):
        logged_source(log)
    with pytest.raises(DataError, match="no market"):
        logged_source(log, like=jax_source("CartPole-v1"))
    other = eqx.tree_at(lambda s: s.params.table, source, replace_fn=lambda x: x + 1.0)
    with pytest.raises(DataError, match="other market data"):
        logged_source(log, like=other)
    rows = Factored(log.obs.row + 1_000_000, log.obs.account)
    with pytest.raises(DataError, match=r"row 1, column row: 10.* is not a row"):
        logged_source(dataclasses.replace(log, obs=rows), like=source)
    # Flat observations serve too.
    table = np.asarray(source.table())
    flat = dataclasses.replace(
        log, obs=np.asarray(log.obs.flat(table)), last_obs=np.asarray(log.last_obs.flat(table))
    )
    e = logged_source(flat, like=source, num_envs=2).window(jnp.zeros(2, int), 3)
    assert e.table is None
    assert e.obs.shape == (3, 2, source.spec.size)
    log = read_log(written(tmp_path, {"action": [0, 1, 2, 0, 1]}))
    with pytest.raises(DataError, match="row 3, column action: 2 is not an action"):
        logged_source(log, like=jax_source(Delayed()))


def test_recording_is_refused_where_it_makes_no_sense(tmp_path):
    source = jax_source(Delayed())
    policy = policy_for(source.spec)
    for options in ({}, {"n_steps": 3, "episodes": 2}):
        with pytest.raises(TradaxError, match="n_steps or episodes"):
            record(policy, source, **options)
    with pytest.raises(TradaxError, match="must be at least 1"):
        record(policy, source, n_steps=0)
    with pytest.raises(TradaxError, match="was made for"):
        record(policy, jax_source("CartPole-v1"), n_steps=5)
    with pytest.raises(ConfigError, match="give the environment"):
        tradax.collect(policy, n_steps=5)
    with pytest.raises(ConfigError, match="trades given prices"):
        tradax.collect(policy, "trading", n_steps=5)
    with pytest.raises(DataError, match=r"\.parquet"):
        tradax.collect(policy, Delayed(), n_steps=5, path=tmp_path / "log.csv")
    (tmp_path / "file").write_text("")
    with pytest.raises(TradaxError, match=r"file/log\.parquet: cannot be written"):
        tradax.collect(policy, Delayed(), n_steps=5, path=tmp_path / "file" / "log.parquet")
    windows = logged_source(record(policy, source, n_steps=5))
    with pytest.raises(TradaxError, match="cannot be played"):
        windows.episodes(policy.actor(sample=False), jax.random.key(0), 5)


OPTIONS = {
    reinforce: {"num_envs": 64, "n_steps": 16, "learning_rate": 1e-2},
    a2c: {"num_envs": 64, "n_steps": 8, "learning_rate": 1e-2},
    npg: {"num_envs": 64, "n_steps": 16, "critic_minibatches": 4},
    trpo: {"num_envs": 64, "n_steps": 16, "critic_minibatches": 4},
    ppo: {"num_envs": 64, "n_steps": 16, "minibatches": 4},
}


@pytest.fixture(scope="module")
def coin_flips():
    source = jax_source(Memoryless(), num_envs=64)
    policy = policy_for(source.spec)
    zeros = jax.tree.map(jnp.zeros_like, policy.network)
    uniform = eqx.tree_at(lambda p: p.network, policy, zeros)
    return source, record(uniform, source, n_steps=5_000)


@pytest.mark.parametrize("module", OPTIONS, ids=lambda m: m.__name__.split(".")[-1])
def test_the_best_policy_is_learned_from_coin_flips(coin_flips, module):
    source, log = coin_flips
    assert log.returns.mean() == pytest.approx(2.5, abs=0.2)
    config = module.Config(hidden_sizes=(8,), gamma=0.9, **OPTIONS[module])
    windows = logged_source(log, like=source, num_envs=config.num_envs)
    algorithm = module.make(config, source.spec, jnp.float32(1))
    steps = 60 * algorithm.steps_per_update
    result = training.train(algorithm, windows, jax.random.key(0), total_timesteps=steps)
    returns, _ = source.episodes(result.policy.actor(sample=False), jax.random.key(1), 10)
    assert returns.mean() == 5.0
    assert result.rows[0][-1]["return"] is None
    assert "behaviour_kl" in result.rows[0][-1]


def test_at_the_bound_the_policy_steps_less_and_its_values_do_not(coin_flips):
    source, log = coin_flips
    windows = logged_source(log, num_envs=64)
    stepped = []
    for bound in (1e-12, 1e3):
        config = a2c.Config(num_envs=64, n_steps=8, hidden_sizes=(8,), behaviour_kl=bound)
        algorithm = a2c.make(config, source.spec, jnp.float32(10))
        algorithm = eqx.tree_at(lambda a: a.config.behaviour_kl, algorithm, jnp.float32(bound))
        state = protocols.init(algorithm, windows, jax.random.key(0))
        stepped.append(eqx.filter_jit(protocols.step)(algorithm, windows, state))
    (near, near_metrics, _), (far, far_metrics, _) = stepped
    assert near_metrics["behaviour_step"] < far_metrics["behaviour_step"] == 1
    near, far = near.learner.network, far.learner.network
    for a, b in zip(jax.tree.leaves(near.critic), jax.tree.leaves(far.critic), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-7)
    assert float(jnp.abs(near.actor.first.bias - far.actor.first.bias).max()) > 0


def test_logs_are_drawn_inside_a_mapped_program(coin_flips):
    source, log = coin_flips
    windows = logged_source(log, like=source, num_envs=8)
    config = reinforce.Config(num_envs=8, n_steps=4, hidden_sizes=(4,))
    algorithm = reinforce.make(config, source.spec, jnp.float32(1))
    keys = jax.random.split(jax.random.key(0), 2)
    both = jax.tree.map(lambda x: jnp.stack([x, x]), windows)
    together = training.train(algorithm, both, keys, total_timesteps=64, members=2)
    alone = training.train(algorithm, windows, keys[1], total_timesteps=64)
    for a, b in zip(jax.tree.leaves(together.policy), jax.tree.leaves(alone.policy), strict=True):
        np.testing.assert_allclose(a[1], b, atol=1e-4)


def test_collecting_and_learning_from_the_command_line(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    small = ["--ppo.num-envs", "8", "--ppo.n-steps", "32", "--ppo.hidden-sizes", "8"]
    env = ["train", "--env", "CartPole-v1", *small]
    assert cli.main([*env, "--timesteps", "512", "--evaluations", "1", "--out", "a"]) == 0
    assert cli.main(["collect", "a", "log.parquet", "--steps", "1000"]) == 0
    printed = capsys.readouterr().out
    assert "1,024 steps in" in printed
    assert "of them finished with a mean return of" in printed
    stepped = protocols.Source.collect
    monkeypatch.setattr("tradax.rollout.JaxSource.collect", stepped)  # abstract: must not be called
    from_file = [*env, "--offline", "log.parquet", "--timesteps", "1024", "--evaluations", "1"]
    assert cli.main([*from_file, "--out", "b"]) == 0
    summary = run_directory.read_json(tmp_path / "b" / "summary.json")
    assert summary["episodes"] == 100
    assert summary["offline"]["steps"] == 1024
    assert 0.05 < summary["offline"]["effective_sample_fraction"] <= 1
    # A run can be tested again without its log, and resumed with it.
    assert cli.main(["train", "--resume", "b", "--timesteps", "2048"]) == 0
    (tmp_path / "log.parquet").rename("moved.parquet")
    assert preparation.prepare(preparation.read_request(tmp_path / "b")).log is None
    capsys.readouterr()

    for arguments, message in (
        ([*from_file, "--out", "c"], "log.parquet: no such file"),
        (
            ["train", "--algorithm", "a3c", *env[1:3], "--offline", "log.parquet"],
            "these can: a2c",
        ),
        (["train", "--env", "Acrobot-v1", "--offline", "moved.parquet"], "the environment has 6"),
        (
            ["train", "--env", "Acrobot-v1", "--offline", "moved.parquet"],
            "recorded with 2 discrete actions; the environment has 3 discrete actions",
        ),
        (["train", "--data", "AAPL", "MSFT", "--offline", "moved.parquet"], "--shared-policy"),
        (["collect", "nowhere", "x.parquet"], "not a run directory"),
        (["collect", "b", "x.csv"], "name the file .parquet"),
    ):
        assert cli.main(arguments) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_one_is_warned_where_the_log_knows_little_of_the_policy(coin_flips, capsys):
    source, log = coin_flips
    task = preparation.Task(
        None, logged_source(log, like=source), None, None, [], (), None, None, [source], log
    )
    far = policy_for(source.spec)
    log_prob = np.where(np.arange(len(log)) % 50 == 0, -9.0, -0.1).astype(np.float32)
    rare = dataclasses.replace(log, log_prob=log_prob)
    with pytest.warns(UserWarning, match=r"effective sample size .* under 5%"):
        offline.log_facts(task._replace(log=rare), far)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        offline.log_facts(task, far)
