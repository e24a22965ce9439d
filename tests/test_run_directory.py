"""What a folder may hold before a run begins there, and when a run may be tested again."""

import gymnax
import numpy as np
import polars as pl
import pytest

import tradax
from tradax import cli, run_directory
from tradax.draws import MOST_SEED
from tradax.errors import ConfigError, TradaxError
from tradax.held_out import retest
from tradax.sources import object_name

TINY = {"ppo": {"num_envs": 4, "n_steps": 16, "minibatches": 1, "hidden_sizes": (8,)}}


def bars(symbols, seed=0, rows=400):
    rng = np.random.default_rng(seed)
    days = np.busday_offset("2020-01-01", np.arange(rows), roll="forward")
    return pl.concat(
        [
            pl.DataFrame(
                {
                    "date": days.astype("datetime64[us]"),
                    "symbol": symbol,
                    "close": 100.0 * np.exp(np.cumsum(rng.normal(0.0, 0.01, rows))),
                }
            )
            for symbol in symbols
        ]
    )


def train(data, out):
    return tradax.train(
        data=str(data), closes_only=True, total_timesteps=64, settings=TINY, skip_posterior=True,
        out=out,
    )  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    bars(["A"]).write_csv(folder / "bars.csv")
    train(folder / "bars.csv", folder / "out")
    return folder


def test_a_folder_that_holds_a_sweep_is_not_written_to(tmp_path):
    (tmp_path / "run.lock").touch()
    run_directory.create(tmp_path, "killed before it was described")
    (tmp_path / "sweep.yaml").write_text("format: 1\n")
    with pytest.raises(TradaxError, match=r"exists and is not empty.*tradax sweep --resume"):
        run_directory.create(tmp_path, "another")


@pytest.mark.parametrize("others", [("A_B", "A B"), ("a/b",)])
def test_symbols_that_would_share_a_folder_are_refused(tmp_path, others):
    bars(["A/B", *others]).write_csv(tmp_path / "bars.csv")
    with pytest.raises(TradaxError, match="would share the folder"):
        train(tmp_path / "bars.csv", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_symbol_too_long_for_a_folder_is_refused(tmp_path):
    with pytest.raises(TradaxError, match="too many for the name of its folder"):
        run_directory.symbol_folders(["A", "B" * 300])
    assert [str(f) for f in run_directory.symbol_folders(["A/B", ".C"])] == ["A_B", "C"]


def test_changed_data_are_not_tested_again(run):
    file, out = run / "bars.csv", run / "out"
    kept = file.read_bytes()
    report = (out / "report.html").read_bytes()
    bars(["A"], seed=1).write_csv(file)
    try:
        for command in ("evaluate", "report"):
            assert cli.main([command, str(out), "--skip-posterior"]) == 2
        with pytest.raises(ConfigError, match="changed since it was trained"):
            retest(out, skip_posterior=True)
    finally:
        file.write_bytes(kept)
    assert (out / "report.html").read_bytes() == report
    assert cli.main(["report", str(out), "--skip-posterior"]) == 0


@pytest.mark.parametrize("command", [["report"], ["robustness", "--controls", "1"], ["posterior"]])
def test_an_unfinished_run_stays_one(run, command, capsys):
    summary = run / "out" / "summary.json"
    kept = summary.read_bytes()
    summary.unlink()
    try:
        assert cli.main([command[0], str(run / "out"), *command[1:]]) == 2
        assert "the run is not finished; go on with" in capsys.readouterr().err
        assert not summary.exists()
    finally:
        summary.write_bytes(kept)


@pytest.mark.parametrize("seed", [-1, MOST_SEED + 1])
def test_seeds_that_no_generator_takes_are_refused(tmp_path, seed):
    with pytest.raises(
        ConfigError, match=f"seed is {seed}; it must be a whole number, 0 to {MOST_SEED}"
    ):
        tradax.train(env="CartPole-v1", data=None, seed=seed, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ({"total_timesteps": 10**20}, "timesteps is 1[0,]+; it must be at most"),
        ({"checkpoint_seconds": float("nan")}, "checkpoint_seconds is nan"),
    ],
)
def test_numbers_that_lead_nowhere_are_refused_before_a_folder_is_made(tmp_path, option, message):
    with pytest.raises(ConfigError, match=message):
        tradax.train(env="CartPole-v1", out=tmp_path / "out", settings=TINY, **option)
    assert not (tmp_path / "out").exists()


def test_a_resumed_run_has_its_folder_already(run, capsys):
    assert cli.main(["train", "--resume", str(run / "out"), "--out", "other"]) == 2
    assert "leave out --out" in capsys.readouterr().err


def test_an_environment_with_other_parameters_is_not_that_of_its_name(tmp_path):
    env, params = gymnax.make("CartPole-v1")
    assert object_name((env, params)) == "CartPole-v1"
    shorter = params.replace(max_steps_in_episode=20)
    assert object_name((env, shorter)) == "CartPole-v1-object"
    given = {"total_timesteps": 64, "evaluations": 1, "settings": TINY}
    tradax.train(env=(env, shorter), out=tmp_path / "out", **given)
    with pytest.raises(TradaxError, match="was an environment object"):
        retest(tmp_path / "out")


def test_numpy_numbers_are_numbers(tmp_path):
    ppo = TINY["ppo"] | {"num_envs": np.int64(4), "learning_rate": np.float32(1e-3)}
    ppo |= {"hidden_sizes": np.array([8])}
    given = {"total_timesteps": np.int64(64), "seed": np.int64(3), "evaluations": 1}
    tradax.train(env="CartPole-v1", out=tmp_path / "out", settings={"ppo": ppo}, **given)
    assert run_directory.read_config(tmp_path / "out")["seed"] == 3


def test_data_check_needs_files(capsys):
    assert cli.main(["data", "check"]) == 2
    assert "give the files to check" in capsys.readouterr().err
