import subprocess
import sys
import time
from pathlib import Path

import pytest

from tradax import cli, discovery

HEADER = "date,open,high,low,close,volume\n"
GOOD = "2024-01-01,10,11,9,10,100\n2024-01-02,10,11,9,10,100\n"

# Name of the case -> what the file holds, and what the message must say.
BAD_FILES = {
    "empty file": ("", ["the file is empty"]),
    "header only": (HEADER, ["no rows"]),
    "missing column": ("date,open,high,low,close\n2024-01-01,1,1,1,1\n", ["no column volume"]),
    "unparsable number": (
        HEADER + GOOD + "2024-01-03,ten,11,9,10,100\n",
        ["line 4", "open", "ten"],
    ),
    "unparsable date": (HEADER + GOOD + "soon,10,11,9,10,100\n", ["line 4", "date", "soon"]),
    "nan": (HEADER + GOOD + "2024-01-03,10,11,9,nan,100\n", ["line 4", "close", "nan"]),
    "inf": (HEADER + GOOD + "2024-01-03,10,inf,9,10,100\n", ["line 4", "high", "inf"]),
    "gap": (HEADER + GOOD + "2024-01-03,10,11,,10,100\n", ["line 4", "low", "missing"]),
    "price of zero": (HEADER + GOOD + "2024-01-03,10,11,0,10,100\n", ["line 4", "low", "above 0"]),
    "high below low": (HEADER + GOOD + "2024-01-03,10,8,9,10,100\n", ["line 4", "high 8", "low 9"]),
    "open outside": (
        HEADER + GOOD + "2024-01-03,12,11,9,10,100\n",
        ["line 4", "open 12", "outside"],
    ),
    "close outside": (
        HEADER + GOOD + "2024-01-03,10,11,9,8,100\n",
        ["line 4", "close 8", "outside"],
    ),
    "negative volume": (HEADER + GOOD + "2024-01-03,10,11,9,10,-1\n", ["line 4", "volume", "-1"]),
    "duplicate": (HEADER + GOOD + "2024-01-02,10,11,9,10,100\n", ["line 4", "stands twice"]),
    "unsorted": (HEADER + GOOD + "2023-01-02,10,11,9,10,100\n", ["line 4", "sort the rows"]),
    "too few rows": (HEADER + GOOD, ["2 rows are too few"]),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_data_gives_a_message_and_exit_code_2_and_writes_nothing(tmp_path, capsys, case):
    content, words = BAD_FILES[case]
    path, out = tmp_path / "prices.csv", tmp_path / "run"
    path.write_text(content)
    assert cli.main(["train", "--data", str(path), "--out", str(out)]) == 2
    printed = capsys.readouterr()
    assert "prices.csv" in printed.err
    for word in words:
        assert word in printed.err
    assert "Traceback" not in printed.err
    assert not out.exists()


def test_symbols_of_different_calendars_are_refused_and_the_intersection_is_offered(
    tmp_path, capsys
):
    (tmp_path / "A.csv").write_text(HEADER + GOOD)
    (tmp_path / "B.csv").write_text(HEADER + GOOD.replace("01-02", "01-03"))
    files = [str(tmp_path / name) for name in ("A.csv", "B.csv")]
    assert cli.main(["train", "--data", *files]) == 2
    assert "--intersection" in capsys.readouterr().err


def test_data_check_prints_all_problems_of_a_file_at_once(tmp_path, capsys):
    path = tmp_path / "prices.csv"
    path.write_text(HEADER + GOOD + "2024-01-03,x,11,9,10,-5\n2024-01-04,10,8,9,10,1\n")
    assert cli.main(["data", "check", str(path)]) == 2
    printed = capsys.readouterr().out
    assert all(word in printed for word in ("'x' is not a number", "-5", "high 8"))
    path.write_text(HEADER + GOOD)
    assert cli.main(["data", "check", str(path)]) == 0
    assert "no problem found" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["train", "--algorithm", "ppoo"], "unknown algorithm ppoo; did you mean ppo"),
        (["train", "--data", "sp50"], "did you mean sp500"),
        (["train", "--data", "synthetic:gbn"], "no process 'gbn'; did you mean gbm"),
        (["train", "--env", "execution", "--data", "sp500"], "takes no data"),
        (["train", "--env", "execution", "--symbols", "A"], "takes no data; leave out symbols"),
        (["train", "--env", "CartPole-v1", "--closes-only"], "is no market and takes no data"),
        (["train", "--env", "CartPole-v1", "--out", f"{__file__}/run"], "no folder can be made"),
        (["train", "--env", "portfolio", "--shared-policy"], "leave out shared_policy"),
        (["train", "--ppo.gamma", "1.5", "--out", "x"], "ppo.gamma is 1.5; it must be at most 1"),
        (["train", "--ppo.minibatches", "3"], "do not divide into 3 minibatches"),
        (["train", "--trading.leverage", "0"], "trading.leverage is 0.0; it must be above 0"),
        (["train", "--env", "CartPole-v7"], "did you mean CartPole-v1"),
        (["evaluate", "/nowhere"], "not a run directory"),
        (["report", "/nowhere"], "not a run directory"),
        (["tran"], "did you mean tradax train?"),
    ],
)
def test_bad_options_give_a_message_and_exit_code_2(arguments, message, capsys):
    assert cli.main(arguments) == 2
    said = capsys.readouterr().err
    assert message in said
    assert "Traceback" not in said


def test_a_bad_option_ends_the_process_with_exit_code_2():
    # A process of its own: --device is settled once for a whole program.
    arguments, message = ["train", "--device", "gpu"], "sees no GPU"
    command = [sys.executable, "-c", "import sys; from tradax.cli import main; sys.exit(main())"]
    done = subprocess.run([*command, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 2
    assert message in done.stderr
    assert "Traceback" not in done.stderr


def test_debug_shows_the_traceback():
    with pytest.raises(ValueError, match="did you mean sp500"):
        cli.main(["train", "--data", "sp50", "--debug"])


def test_help_comes_within_half_a_second_and_lists_every_option(capsys):
    command = [str(Path(sys.executable).with_name("tradax")), "--help"]
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5
    with pytest.raises(SystemExit) as stop:
        cli.main(["train", "--help"])
    assert stop.value.code == 0
    printed = capsys.readouterr().out
    for option in (
        "--ppo.learning-rate",
        "--trading.commission-bps",
        "--features.window",
        "--seed",
    ):
        assert option in printed


def test_list_names_algorithms_markets_and_samples(capsys):
    assert cli.main(["list"]) == 0
    printed = capsys.readouterr().out
    assert all(name in printed for name in ("ppo", "trading", "sp500", "us20"))
    lines = [line for line in printed.splitlines() if line.strip()]
    columns = {
        line.index(text)
        for text in discovery.algorithms().values()
        for line in lines
        if text in line
    }
    assert len(columns) == 1


def test_train_evaluate_and_report_from_the_command_line(tmp_path, capsys):
    out = tmp_path / "run"
    options = ["--ppo.hidden-sizes", "8", "--trading.commission-bps", "2", "--features.window", "2"]
    arguments = ["train", "--test-run", "--skip-posterior", "--out", str(out), *options]
    assert cli.main(arguments) == 0
    printed = capsys.readouterr().out
    assert f"report: {out / 'report.html'}" in printed
    assert "buy and hold" in printed
    assert cli.main(["evaluate", str(out), "--skip-posterior"]) == 0
    assert "buy and hold" in capsys.readouterr().out
    assert cli.main(["report", str(out), "--skip-posterior"]) == 0
    assert cli.main(arguments) == 2
    assert "exists and is not empty" in capsys.readouterr().err
