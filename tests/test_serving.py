"""A run's policy gives orders bar by bar, as the backtest of the same bars has it trade."""

import dataclasses
import io
import json
import subprocess
import sys

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import polars as pl
import pytest

from tradax import cli, discovery, preparation, run_directory
from tradax.data import features
from tradax.data.pipeline import Pipeline
from tradax.data.samples import load
from tradax.errors import ConfigError, DataError, ModelFileError
from tradax.evaluation.backtest import walked
from tradax.model_file import load_policy, save_policy
from tradax.networks import mlp
from tradax.policies import NetworkPolicy, head_of
from tradax.rollout import JaxSource
from tradax.serving import history
from tradax.serving.orders import order_json
from tradax.serving.stream import Stream, latest_orders, open_traders
from tradax.serving.trader import Trader

START = np.datetime64("2020-01-01", "us")
FLAT = {"initial_cash": 1000.0, "commission_bps": 0.0, "half_spread_bps": 0.0}


def frame(rows=80, symbols=("A",), seed=0, close=None):
    """Long frame with a signal."""
    frames = []
    for number, symbol in enumerate(symbols):
        rng = np.random.default_rng(seed + number)
        prices = 10 * np.exp(np.cumsum(0.02 * rng.normal(size=rows))) if close is None else close
        open_ = prices * np.exp(0.01 * rng.normal(size=rows)) if close is None else prices
        columns = {
            "timestamp": START + np.arange(rows) * np.timedelta64(1, "D"),
            "symbol": [symbol] * rows,
            "open": open_,
            "high": np.maximum(open_, prices) * 1.01,
            "low": np.minimum(open_, prices) * 0.99,
            "close": prices,
            "volume": rng.integers(1_000, 9_000, rows).astype(float),
            "alpha": rng.normal(size=rows),
        }
        frames.append(pl.DataFrame(columns))
    return pl.concat(frames)


def a_run(folder, data="frame", env="trading", frame=None, always=None, settings=None, **asked):
    """A run directory whose policy was never trained: what serving reads of it.

    Args:
        always: the action whatever is observed; else actions vary widely from bar to bar.
    """
    request = preparation.Request(
        algorithm="ppo", env=env, data=data, total_timesteps=1, settings=settings or {}, **asked
    )
    task = preparation.prepare(request, frame=frame)
    run_directory.write_config(folder, vars(request))
    if frame is not None:
        task.bars.write_parquet(folder / "bars.parquet")
    task.pipeline.save(folder)
    for number, path in enumerate(task.folders):
        spec = task.source.spec
        scale = 10.0 if always is None else 0.0
        network = mlp(
            jax.random.key(number), spec, [8], spec.action.size, "tanh", output_scale=scale
        )
        if always is not None:
            network = eqx.tree_at(lambda n: n.rest[-1].bias, network, jnp.array(always))
        log_std = None if spec.action.discrete else jnp.zeros(spec.action.size)
        policy = NetworkPolicy(network, log_std, None, spec, head_of(spec))
        save_policy(policy, folder / path / "policy.zip")
    return folder


@pytest.fixture(scope="module")
def buyer(tmp_path_factory):
    """Buys with all its cash at every bar, at no cost; 79 bars at 10, and one more."""
    data = frame(close=np.full(80, 10.0))
    return a_run(
        tmp_path_factory.mktemp("buyer"),
        frame=data,
        always=[1.0, 1.0],
        settings={"trading": FLAT, "features": {"indicators": False}},
    )


def bar(day, open_, close, **changes):
    stamp = str((START + np.timedelta64(80 + day, "D")).astype("datetime64[D]"))
    low, high = min(open_, close), max(open_, close)
    found = {"timestamp": stamp, "open": open_, "high": high, "low": low, "close": close}
    return {**found, "volume": 10.0, "alpha": 0.5, **changes}


def test_an_order_is_what_the_account_can_buy_at_the_close_and_fills_at_the_next_open(buyer):
    trader = Trader(buyer)
    assert trader.account is None
    first = trader.bar(bar(0, 10.0, 10.0))
    assert (first.side, first.quantity, first.filled) == ("buy", 100.0, None)
    assert first.account.cash == 1000.0
    second = trader.bar(bar(1, 20.0, 25.0))
    assert second.filled.change == {"A": 50.0}
    assert (second.filled.price, second.filled.assumed) == (20.0, True)
    assert second.account.net_worth == 1250.0
    assert (second.side, second.quantity) == ("hold", 0.0)
    assert json.loads(order_json(second)) == {
        "symbol": "A",
        "side": "hold",
        "quantity": 0.0,
        "price": 25.0,
        "price_basis": "close",
        "timestamp": "2020-03-22",
        "fill": "next_open",
        "action": [1.0, 1.0],
        "stop_loss": None,
        "take_profit": None,
        "account": {"cash": 0.0, "shares": 50.0, "entry_price": 20.0, "net_worth": 1250.0},
        "filled": {"change": 50.0, "price": 20.0, "cost": 0.0, "assumed": True},
        "terminated": False,
    }


def test_reported_fills_take_the_place_of_the_assumed_one(buyer):
    trader = Trader(buyer)
    with pytest.raises(DataError, match="no order has been given yet"):
        trader.fill("buy", 1, 10)
    trader.bar(bar(0, 10.0, 10.0))
    trader.fill("buy", 30, 11.0, commission=2.0)
    account = trader.fill("buy", 10, 13.0, commission=1.0)
    assert account.cash == 1000 - 330 - 130 - 3
    assert (account.shares, account.entry_price) == ({"A": 40.0}, 11.5)
    assert account.net_worth == account.cash + 400
    for wrong in (("hold", 1, 1), ("buy", -1, 1), ("buy", 1, 0), ("sell", float("nan"), 1)):
        with pytest.raises(DataError, match="fill: "):
            trader.fill(*wrong)
    with pytest.raises(DataError, match="not finite"):
        trader.fill("buy", 1e38, 1e38)
    assert trader.account == account
    order = trader.bar(bar(1, 20.0, 25.0))
    assert (order.filled.change, order.filled.cost) == ({"A": 40.0}, 3.0)
    assert not order.filled.assumed
    assert order.account.net_worth == account.cash + 40 * 25
    # Nothing was filled, although the policy buys.
    trader.fill("buy", 0)
    assert trader.bar(bar(2, 20.0, 25.0)).account.shares == {"A": 40.0}


def test_the_account_at_the_start_may_be_given(buyer):
    with pytest.raises(ConfigError, match="the account at the start is worth -60"):
        Trader(buyer, cash=100.0, position=-20.0).bar(bar(0, 10.0, 8.0))
    with pytest.raises(ConfigError, match="no symbol B; there are A"):
        Trader(buyer, position={"B": 1})
    order = Trader(buyer, cash=100.0, position=20.0, entry_price=12.0).bar(bar(0, 10.0, 8.0))
    assert dataclasses.asdict(order.account) == {
        "cash": 100.0,
        "shares": {"A": 20.0},
        "entry_price": 12.0,
        "net_worth": 260.0,
    }


MARKETS = {
    "trading": ("sp500", {"trading": {}}, {}),
    "discrete_trading": (
        "AAPL",
        {
            "discrete_trading": {
                "targets": [-1.0, 0.0, 1.0],
                "allow_short": True,
                "fill": "close",
                "lot_size": 1.0,
                "stop_loss": 0.02,
                "impact": 0.1,
                "commission_min": 1.0,
            },
            "features": {"window": 2},
        },
        {},
    ),
    "portfolio": (
        "us20",
        {"portfolio": {"turbulence": True, "long_short": True, "fill": "next_close"}},
        {"symbols": ["AAPL", "JPM"]},
    ),
}


@pytest.mark.parametrize("env", MARKETS)
def test_streaming_a_held_out_span_gives_the_orders_and_the_equity_of_its_backtest(tmp_path, env):
    data, settings, asked = MARKETS[env]
    run = a_run(tmp_path, data, env, settings=settings, **asked)
    _, task = preparation.reopen(run)
    span = task.pipeline.splits.test
    if env != "trading":
        span = span._replace(last=span.first + 150)
    source, policy = task.single_sources[0], load_policy(run)
    on_span = JaxSource(
        source.env, discovery.module("envs", env).over_span(source.params, span), policy.spec, 1
    )
    n_steps = span.last - span.first
    actions, info = walked(on_span, policy.actor(sample=False), jax.random.key(0), n_steps)
    info = {name: np.asarray(value, np.float64) for name, value in info.items()}
    assert not info["over"].any()

    trader = Trader(run)
    orders = []
    for number in range(span.first, span.last + 1):
        given = [trader.bar(b) for b in history.row(task.bars, number)]
        assert given[:-1] == [None] * (len(given) - 1)
        orders.append(given[-1])
    np.testing.assert_allclose(
        [order.action for order in orders[:-1]], np.asarray(actions), atol=1e-4
    )
    worth = np.array([order.account.net_worth for order in orders])
    assert worth[0] == float(source.params.initial_cash)
    np.testing.assert_allclose(worth[1:], info["net_worth"], rtol=1e-5)
    assert np.abs(worth[1:] / worth[:-1] - 1).max() > 0.01
    filled = [order.filled for order in orders[1:]]
    np.testing.assert_allclose([f.cost for f in filled], info["cost"], rtol=1e-3, atol=0.01)
    shares = np.array([list(order.account.shares.values()) for order in orders[1:]])
    if env == "portfolio":
        prices = np.array([[leg.price for leg in order.legs] for order in orders[1:]])
        weights = shares * prices / worth[1:, None]
        np.testing.assert_allclose(weights, info["weights"], atol=1e-5)
        return
    np.testing.assert_allclose(shares[:, 0], info["shares"], rtol=1e-4, atol=1e-3)
    assert (info["traded"] > 0).sum() > 10
    fill_price = [f.price or 0.0 for f in filled]
    np.testing.assert_allclose(fill_price, info["fill_price"], rtol=1e-5)
    if env == "discrete_trading":  # filled at the close for which the order was written
        for order, next_order, stopped in zip(
            orders[:-1],
            orders[1:],
            info["traded"] > abs(np.diff(shares[:, 0], prepend=0)),
            strict=True,
        ):
            sign = {"buy": 1, "sell": -1, "hold": 0}[order.side]
            if not stopped and next_order.account.entry_price is not None:
                assert next_order.filled.change["AAPL"] == sign * order.quantity
        assert {order.stop_loss is None for order in orders} == {True, False}


@pytest.mark.parametrize("env", ["trading", "portfolio"])
def test_reporting_the_assumed_fill_changes_nothing(tmp_path, env):
    data = frame(300, ("A",) if env == "trading" else ("A", "B"))
    run = a_run(tmp_path, env=env, frame=data, settings={env: {"commission_bps": 10.0}})
    assumed, reported = Trader(run), Trader(run)
    bars = assumed.bars
    for number in range(280, 290):
        rows = history.row(bars, number)
        one = [assumed.bar(b) for b in rows][-1]
        if number > 280:
            for index, (name, change) in enumerate(one.filled.change.items()):
                price = float(bars.open[index, number])
                # All costs as one commission, on the first symbol.
                cost = one.filled.cost if index == 0 else 0.0
                side = "buy" if change > 0 else "sell"
                reported.fill(side, abs(change), price, commission=cost, symbol=name)
        two = [reported.bar(b) for b in rows][-1]
        assert two.account.net_worth == pytest.approx(one.account.net_worth, rel=1e-5)
        assert two.account.shares == pytest.approx(one.account.shares, rel=1e-3, abs=0.05)


BAD = {
    "late": ({"timestamp": "2020-03-21"}, "the last one known is of 2020-03-22; it comes late"),
    "twice": ({"timestamp": "2020-03-22"}, "late or twice"),
    "no date": ({"timestamp": "soon"}, "'soon' is not a date"),
    "negative": ({"low": -1.0}, "column low: -1: a price must be above 0"),
    "crossed": ({"high": 1.0}, "high 1 is below low"),
    "gap": ({"close": None}, "column close: the value is missing"),
    "nan": ({"close": float("nan")}, "the value is nan"),
    "text": ({"open": "ten"}, "'ten' is not a number"),
    "nested": ({"open": [1, 2]}, "bar"),
    "huge": ({"volume": 1e300}, "beyond the range of float32"),
    "long": ({"volume": 10**400}, "bar"),
    "signal": ({"alpha": None}, "column alpha: the value is missing"),
    "stranger": ({"symbol": "B"}, "no symbol B; this run has A"),
}


def test_bad_and_late_bars_are_refused_and_the_account_is_kept(buyer):
    trader = Trader(buyer)
    trader.bar(bar(0, 10.0, 10.0))
    trader.bar(bar(1, 10.0, 10.0))
    account = trader.account
    for changes, message in BAD.values():
        with pytest.raises(DataError) as caught:
            trader.bar({**bar(2, 10.0, 11.0), **changes})
        assert message in str(caught.value)
    missing = bar(2, 10.0, 11.0)
    del missing["alpha"]
    with pytest.raises(DataError, match="no signal column alpha; columns are timestamp, open"):
        trader.bar(missing)
    assert trader.account == account
    assert trader.bar(bar(2, 10.0, 11.0)).account.net_worth == 1100.0


def test_after_ruin_nothing_is_ordered(buyer):
    trader = Trader(buyer)
    trader.bar(bar(0, 10.0, 10.0))
    ruined = trader.bar(bar(1, 10.0, 0.5))
    assert ruined.terminated
    assert ruined.side == "hold"
    later = trader.bar(bar(2, 0.5, 20.0))
    assert later.terminated
    assert (later.side, later.account.net_worth) == ("hold", 2000.0)


def test_the_newest_features_do_not_depend_on_what_lies_behind_their_memory():
    bars = load("sp500")
    config = features.Config(momentum_window=30, window=2)
    pipeline = Pipeline.fit(bars, config)
    (full,) = pipeline.transform(bars)
    rows = features.memory(config)
    for end in (2_000, 3_500, 5_031):
        recent = history.cut(bars, slice(end - rows, end))
        (newest,) = pipeline.transform(recent, newest=2)
        np.testing.assert_allclose(newest.table[-2:], full.table[end - 2 : end], atol=1e-6)
        np.testing.assert_allclose(newest.volatility[-1], full.volatility[end - 1], rtol=1e-9)


def test_arrays_that_are_full_go_on_with_the_newest_rows():
    bars = load(frame(50))
    kept = history.History(history.cut(bars, slice(0, 8)), rows=5)
    for number in range(8, 50):
        (given,) = history.row(bars, number)
        seen = kept.with_bars([history.read_bar(given, bars)])
        kept.keep()
        expected = history.cut(bars, slice(number - 4, number + 1))
        np.testing.assert_array_equal(seen.timestamps, expected.timestamps)
        np.testing.assert_array_equal(seen.close, expected.close)
        np.testing.assert_array_equal(seen.signals["alpha"], expected.signals["alpha"])


def test_several_symbols_have_a_policy_and_an_account_each(tmp_path):
    data = frame(100, ("A", "B"))
    run = a_run(tmp_path, frame=data)
    stream = Stream(open_traders(run))
    alone = Trader(run, symbol="B")
    for number in (90, 91):
        for given in history.row(alone_bars(run), number):
            given["timestamp"] = given["timestamp"].isoformat()
            answer = json.loads(stream.answer(json.dumps(given)))
            assert answer["symbol"] == given["symbol"]
            if given["symbol"] == "B":
                assert answer == json.loads(order_json(alone.bar(given)))
    del given["symbol"]
    assert "several symbols, name one" in stream.answer(json.dumps(given))
    with pytest.raises(ConfigError, match="several symbols, name one; there are A, B"):
        Trader(run)
    with pytest.raises(ConfigError, match="say of which of A, B"):
        open_traders(run, position=3.0)


def alone_bars(run):
    return preparation.load_bars(preparation.read_request(run), [str(run / "bars.parquet")])


def test_a_portfolio_waits_for_all_bars_of_a_time_and_gives_up_at_a_later_one(tmp_path):
    run = a_run(tmp_path, env="portfolio", frame=frame(100, ("A", "B")))
    trader = Trader(run, cash=100.0, position={"B": 10})
    bars = trader.bars
    (a, b), (later_a, later_b) = history.row(bars, 90), history.row(bars, 91)
    assert trader.bar(b) is None
    assert trader.waiting == ("A",)
    with pytest.raises(DataError, match="late or twice"):
        trader.bar(b)
    assert [leg.symbol for leg in trader.bar(a).legs] == ["A", "B"]
    assert trader.account.shares == pytest.approx({"A": 0, "B": 10})
    assert trader.account.cash == pytest.approx(100, rel=1e-4)
    assert trader.bar(later_a) is None
    latest = history.row(bars, 92)
    with pytest.warns(UserWarning, match=r"B had no bar of .*left out"):
        assert trader.bar(latest[0]) is None
    assert trader.bar(latest[1]) is not None
    with pytest.raises(DataError, match="late"):
        trader.bar(later_b)


def test_the_command_answers_every_line_by_a_line(buyer, tmp_path):
    lines = [
        json.dumps(bar(0, 10.0, 10.0)),
        "",
        "nonsense",
        json.dumps(bar(0, 10.0, 10.0)),
        json.dumps({"fill": {"side": "buy", "quantity": 40, "price": 10}}),
        json.dumps({"fill": {"quantity": 40}}),
        json.dumps({"fill": {"symbol": "B", "side": "buy", "quantity": 1, "price": 10}}),
        "[1]",
        json.dumps(bar(1, 10.0, 12.0)),
    ]
    command = [sys.executable, "-c", "import sys; from tradax.cli import main; sys.exit(main())"]
    done = subprocess.run(
        [*command, "act", str(buyer), "--stream", "--cash", "500"],
        input="\n".join(lines),
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert done.stderr == ""
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [sorted(answer)[:2] == ["error", "line"] for answer in answers] == [
        False, True, True, False, True, True, True, False,
    ]  # fmt: skip
    trader = Trader(buyer, cash=500.0)
    assert answers[0] == json.loads(order_json(trader.bar(bar(0, 10.0, 10.0))))
    assert answers[3]["account"]["shares"] == 40.0
    trader.fill("buy", 40, 10.0)
    assert answers[-1] == json.loads(order_json(trader.bar(bar(1, 10.0, 12.0))))
    assert answers[-1]["account"]["net_worth"] == 580.0


def test_the_order_after_the_last_bar_of_a_file(buyer, tmp_path, capsys):
    file = tmp_path / "latest.csv"
    later = pl.DataFrame([bar(day, 10.0, 10.0) for day in range(3)])
    later.write_csv(file)
    assert cli.main(["act", str(buyer), "--data", str(file), "--position", "10"]) == 0
    order = json.loads(capsys.readouterr().out)
    assert (order["timestamp"], order["side"], order["quantity"]) == ("2020-03-23", "buy", 100.0)
    assert order["account"] == {
        "cash": 1000.0,
        "shares": 10.0,
        "entry_price": 10.0,
        "net_worth": 1100.0,
    }
    # A gap is told, not filled.
    later.with_columns(pl.col("timestamp").str.replace("2020", "2021")).write_csv(file)
    with pytest.warns(UserWarning, match="the history ends at 2020-03-20"):
        (order,) = latest_orders(buyer, [str(file)])
    assert order.timestamp == "2021-03-23"


def test_a_file_is_read_with_the_columns_of_the_runs_own_data(tmp_path):
    data = frame(100).select("timestamp", "close", "alpha")
    run = a_run(tmp_path, frame=data, closes_only=True)
    file = tmp_path / "grown.csv"  # since the training, with columns that it did not have
    grown = frame(110).with_columns(news=pl.lit(1.0)).drop("symbol")
    grown.write_csv(file)
    (order,) = latest_orders(run, [str(file)])
    assert order.timestamp == "2020-04-19"
    same = Trader(run, history=grown).bar(dict(zip(grown.columns, grown.row(-1), strict=True)))
    assert same == order
    grown.drop("alpha").write_csv(file)
    with pytest.raises(DataError, match="no signal column alpha; columns are"):
        latest_orders(run, [str(file)])
    # The run's own data are gone.
    (run / "bars.parquet").unlink()
    with pytest.raises(DataError, match="needed as a history"):
        Trader(run)
    grown.select("timestamp", "close", "alpha").write_csv(file)
    assert latest_orders(run, [str(file)]) == [order]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "give --data FILE for one order, or --stream"),
        (["--stream", "--data", "x.csv"], "give --data FILE for one order, or --stream"),
        (["--data", "nowhere.csv"], "nowhere.csv: no such file"),
        (["--stream", "--symbol", "B"], "no symbol B; there are A"),
        (["--stream", "--position", "many"], "give shares, or SYMBOL=SHARES"),
        (["--stream", "--history", "nowhere.csv"], "nowhere.csv: no such file"),
    ],
)
def test_what_cannot_be_served_gives_a_message_and_exit_code_2(
    buyer, capsys, monkeypatch, arguments, message
):
    monkeypatch.setattr("sys.stdin", io.StringIO())
    assert cli.main(["act", str(buyer), *arguments]) == 2
    assert message in capsys.readouterr().err


def test_only_runs_on_given_bars_can_be_served(tmp_path):
    with pytest.raises(ModelFileError, match="not a run directory"):
        Trader(tmp_path)
    request = preparation.Request(algorithm="ppo", env="execution", data=None, total_timesteps=1)
    run_directory.write_config(tmp_path, vars(request))
    with pytest.raises(
        ConfigError, match="runs of discrete_trading, portfolio, trading can be served"
    ):
        Trader(tmp_path)


@pytest.mark.parametrize("kind", ["polars", "pandas"])
def test_a_frame_with_named_signals_trains_and_is_served_with_them_in_its_bars(tmp_path, kind):
    data = frame(120).drop("symbol").with_columns(beta=pl.col("alpha") * 2)
    given = data if kind == "polars" else data.to_pandas().set_index("timestamp")
    run = a_run(tmp_path, frame=given, signals=["beta"])
    trader = Trader(run)
    assert list(trader.bars.signals) == ["beta"]
    (last,) = history.row(trader.bars, -1)
    del last["symbol"]
    order = trader.bar({**last, "alpha": 9.0})  # a column that is no signal counts for nothing
    other = Trader(run).bar({**last, "beta": last["beta"] + 3.0})
    assert order.action != other.action
    with pytest.raises(DataError, match=r"no signal column gamma; columns are timestamp, .*beta"):
        preparation.prepare(
            preparation.Request(
                algorithm="ppo", env="trading", data="frame", signals=["gamma"], total_timesteps=1
            ),
            frame=given,
        )
