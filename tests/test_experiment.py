import json
import signal

import numpy as np
import polars as pl
import pytest

import tradax
from probes import Bandit
from tradax import experiment, held_out, preparation, training
from tradax.algorithms import ppo
from tradax.data import samples
from tradax.errors import ConfigError, ModelFileError, TradaxError

FAST = {
    "total_timesteps": 2_048,
    "evaluations": 2,
    "skip_posterior": True,
    "settings": {"ppo": {"num_envs": 8, "n_steps": 32, "minibatches": 2, "hidden_sizes": [16]}},
}
FILES = {"config.yaml", "manifest.json", "metrics.jsonl", "policy.zip", "policy-last.zip"}
MARKET_FILES = {"pipeline.json", "normalizer.safetensors", "normalizer.joblib", "report.html"}


def untimed(path):
    rows = [json.loads(line) for line in path.read_text().splitlines()]
    return [
        {k: v for k, v in row.items() if k not in ("seconds", "steps_per_second")} for row in rows
    ]


def test_two_runs_with_one_seed_are_identical_and_leave_what_was_promised(tmp_path):
    runs = [tradax.train(data="sp500", out=tmp_path / name, **FAST) for name in "ab"]
    a, b = (run.run_dir for run in runs)
    names = {path.name for path in a.iterdir()}
    assert names >= FILES | MARKET_FILES | {"summary.json", "trials.jsonl", "tensorboard"} | {
        "performance.jsonl"
    }
    assert untimed(a / "metrics.jsonl") == untimed(b / "metrics.jsonl")
    assert (a / "policy.zip").read_bytes() == (b / "policy.zip").read_bytes()
    assert (a / "policy-last.zip").read_bytes() == (b / "policy-last.zip").read_bytes()

    result = runs[0]
    assert result.summary == json.loads((a / "summary.json").read_text())
    assert set(result.summary["strategies"]) >= {
        "policy",
        "gross",
        "buy_and_hold",
        "cash",
        "random",
    }
    assert result.metrics["sp500"][-1]["timesteps"] == 2048
    obs = np.zeros((3, result.policy.spec.size), np.float32)
    np.testing.assert_array_equal(result.policy.act(obs), tradax.load_policy(a).act(obs))
    manifest = json.loads((a / "manifest.json").read_text())
    assert manifest["data"]["sha256"] == samples.load("sp500").sha256
    # The test span begins after everything that was learned or chosen on.
    assert manifest["data"]["train"][1] < manifest["data"]["validation"][0]
    assert manifest["data"]["validation"][1] < manifest["data"]["test"][0]

    # Testing again gives the same figures, and a report can be written again.
    again = held_out.retest(a, skip_posterior=True, write=False)
    assert again["strategies"] == result.summary["strategies"]
    (a / "report.html").unlink()
    held_out.retest(a, skip_posterior=True)
    assert (a / "report.html").stat().st_size > 1_000_000
    written = json.loads((a / "summary.json").read_text())
    assert written["steps_per_second"] == result.summary["steps_per_second"]


def test_several_symbols_train_together_and_each_equals_its_own_run(tmp_path):
    both = tradax.train(data=["AAPL", "MSFT"], out=tmp_path / "both", **FAST)
    alone = tradax.train(data="MSFT", out=tmp_path / "alone", **FAST)
    assert set(both.summary["symbols"]) == {"AAPL", "MSFT"}
    assert (both.run_dir / "MSFT" / "report.html").exists()
    one, other = (
        untimed(path / "metrics.jsonl")[-1] for path in (both.run_dir / "MSFT", alone.run_dir)
    )
    assert one["value_loss"] == pytest.approx(other["value_loss"], rel=1e-3)
    assert one["validation_score"] == pytest.approx(other["validation_score"], rel=1e-2, abs=1e-3)
    assert len((both.run_dir / "trials.jsonl").read_text().splitlines()) == 2


def test_one_policy_for_all_symbols(tmp_path):
    result = tradax.train(data=["AAPL", "MSFT"], shared_policy=True, out=tmp_path / "run", **FAST)
    assert set(result.summary["symbols"]) == {"AAPL", "MSFT"}
    assert list(result.policies) == ["trading"]
    assert (result.run_dir / "AAPL" / "report.html").exists()
    assert (result.run_dir / "policy.zip").exists()


def test_a_portfolio_holds_all_symbols_with_one_policy_and_one_report(tmp_path):
    data = "synthetic:gbm,bars=400,assets=2,seed=3"
    result = tradax.train(env="portfolio", data=data, out=tmp_path / "run", **FAST)
    assert list(result.policies) == ["GBM1+GBM2"]
    assert result.policy.spec.action.size == 3
    assert set(result.summary["strategies"]) >= {"policy", "buy_and_hold", "cash", "equal_weight"}
    assert [p.parent for p in result.run_dir.glob("**/report.html")] == [result.run_dir]
    assert "<h3>Weights</h3>" in (result.run_dir / "report.html").read_text()
    again = held_out.retest(result.run_dir, skip_posterior=True, write=False)
    assert again["strategies"] == result.summary["strategies"]
    with pytest.raises(ConfigError, match="portfolio holds all symbols at once, with one policy"):
        tradax.train(env="portfolio", data=data, shared_policy=True, out=tmp_path / "b", **FAST)
    assert not (tmp_path / "b").exists()


def test_a_portfolio_may_be_of_one_symbol():
    data = "synthetic:gbm,bars=400"
    request = preparation.Request(algorithm="ppo", env="portfolio", data=data, total_timesteps=1)
    task = preparation.prepare(request)
    assert task.members is None
    assert [[market.symbol for market in held] for held in task.markets] == [["GBM"]]
    assert task.source.spec.action.size == 2


def frame(rows=300, seed=0):
    rng = np.random.default_rng(seed)
    close = 50 * np.exp(np.cumsum(0.01 * rng.normal(size=rows)))
    return pl.DataFrame(
        {
            "timestamp": np.datetime64("2020-01-01", "us")
            + np.arange(rows) * np.timedelta64(1, "D"),
            "open": close,
            "high": close * 1.01,
            "low": close * 0.99,
            "close": close,
            "volume": rng.integers(1_000, 9_000, rows).astype(float),
            "alpha": rng.normal(size=rows),
        }
    )


@pytest.mark.parametrize("kind", ["polars", "pandas", "closes"])
def test_a_frame_with_signals_trains_and_can_be_tested_again(tmp_path, kind):
    data = {
        "polars": frame(),
        "pandas": frame().to_pandas().set_index("timestamp"),
        "closes": frame().select("timestamp", "close", "alpha"),
    }[kind]
    result = tradax.train(
        data=data, signals=["alpha"], closes_only=kind == "closes", out=tmp_path / "run", **FAST
    )
    names = json.loads((result.run_dir / "manifest.json").read_text())["data"]["features"]
    assert "alpha" in names
    again = held_out.retest(result.run_dir, skip_posterior=True, write=False)
    assert again["strategies"] == result.summary["strategies"]


def test_without_preprocessing_the_agent_sees_returns_and_signals_as_they_are(tmp_path):
    result = tradax.train(data=frame(), preprocessing=False, out=tmp_path / "run", **FAST)
    facts = json.loads((result.run_dir / "manifest.json").read_text())["data"]
    assert facts["features"] == ["log_return_1", "alpha"]
    assert not (result.run_dir / "normalizer.joblib").exists()


@pytest.mark.parametrize("env", ["CartPole-v1", "object", "pair"])
def test_environments_that_are_not_markets(tmp_path, env):
    bandit = Bandit()
    given = {"object": bandit, "pair": (bandit, bandit.default_params)}.get(env, env)
    result = tradax.train(env=given, out=tmp_path / "run", **FAST)
    assert result.summary["mean_return"] > 0
    score = tradax.evaluate(result.policy, given, episodes=10, seed=3)
    assert score.returns.shape == (10,)


@pytest.mark.parametrize(
    ("env", "rivals"),
    [
        ("execution", {"twap": "TWAP", "almgren_chriss": "Almgren–Chriss"}),
        ("portfolio_execution", {"twap": "TWAP", "almgren_chriss": "Almgren–Chriss"}),
        ("market_making", {"avellaneda_stoikov": "Avellaneda–Stoikov", "symmetric": "Symmetric"}),
    ],
)
def test_markets_that_simulate_their_prices_are_compared_with_known_rules(tmp_path, env, rivals):
    result = tradax.train(env=env, out=tmp_path / "run", **FAST)
    assert set(result.summary["strategies"]) >= {"policy", *rivals}
    page = (result.run_dir / "report.html").read_text()
    assert all(name in page for name in rivals.values())
    assert ("Shares left" in page) == ("execution" in env)
    again = held_out.retest(result.run_dir, write=False)
    assert again["strategies"] == result.summary["strategies"]
    with pytest.raises(ConfigError, match="simulates its prices and takes no data"):
        tradax.train(env=env, data="sp500", out=tmp_path / "other", **FAST)


def test_an_interrupted_run_resumes_to_the_same_end(tmp_path, monkeypatch):
    whole = tradax.train(data="sp500", out=tmp_path / "whole", **FAST)
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    ticks = []

    class Interrupt(experiment.TensorBoard):
        def on_tick(self, timesteps, steps_per_second):
            ticks.append(timesteps)
            if len(ticks) == 3:
                signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(experiment, "TensorBoard", Interrupt)
    stopped = tradax.train(data="sp500", out=tmp_path / "stopped", **FAST)
    assert stopped.interrupted
    assert not (tmp_path / "stopped" / "report.html").exists()
    resumed = tradax.train(resume=tmp_path / "stopped")
    assert not resumed.interrupted
    assert untimed(resumed.run_dir / "metrics.jsonl") == untimed(whole.run_dir / "metrics.jsonl")
    for name in ("policy.zip", "policy-last.zip"):
        assert (resumed.run_dir / name).read_bytes() == (whole.run_dir / name).read_bytes()


def test_settings_may_be_config_objects(tmp_path):
    config = ppo.Config(num_envs=8, n_steps=32, minibatches=2, hidden_sizes=(8,))
    options = {k: v for k, v in FAST.items() if k != "settings"}
    result = tradax.train(algorithm=config, env="CartPole-v1", out=tmp_path / "run", **options)
    assert result.policy.network.first.bias.shape == (8,)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"algorithm": "ppoo"}, ConfigError, "unknown algorithm ppoo; did you mean ppo"),
        ({"env": "CartPole-v9"}, TradaxError, "did you mean CartPole-v1"),
        ({"data": "sp50"}, TradaxError, "did you mean sp500"),
        ({"symbols": ["X"]}, TradaxError, "no symbol X"),
        ({"settings": {"ppo": {"gama": 1}}}, ConfigError, "did you mean gamma"),
        ({"settings": {"sac": {}}}, ConfigError, "settings for sac, which this run does not use"),
        ({"train_fraction": 0.9, "validation_fraction": 0.2}, ConfigError, "below 1"),
        ({"total_timesteps": 0}, ConfigError, "timesteps is 0; it must be at least 1"),
        ({"resume": "/nowhere"}, TradaxError, "not a run directory"),
    ],
)
def test_bad_requests_fail_before_anything_is_written(tmp_path, arguments, error, message):
    out = tmp_path / "run"
    with pytest.raises(error, match=message):
        tradax.train(out=out, **{**FAST, **arguments})
    assert not out.exists()


def test_a_damaged_configuration_is_named(tmp_path):
    for text in ("format: soon", "format: 99", "ppo", "{"):
        (tmp_path / "config.yaml").write_text(text)
        with pytest.raises(ModelFileError, match=r"config\.yaml"):
            held_out.retest(tmp_path)


def test_a_folder_with_something_in_it_is_not_touched(tmp_path):
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(TradaxError, match="exists and is not empty"):
        tradax.train(data=frame(), out=tmp_path, **FAST)
    assert [p.name for p in tmp_path.iterdir()] == ["mine.txt"]
