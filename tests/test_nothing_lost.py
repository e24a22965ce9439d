"""Kills, signals, full disks and damaged files: what a run loses is nothing."""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp
import pytest
import yaml

import tradax
from probes import Bandit
from tradax import checkpoint, experiment, files, run_directory, training
from tradax.cli import main
from tradax.errors import ConfigError, ModelFileError, TradaxError
from tradax.hooks import read_rows

PPO = {"num_envs": 4, "n_steps": 8, "minibatches": 2, "hidden_sizes": [4]}
RUN = {"total_timesteps": 128, "evaluations": 2, "log_rows": 4, "settings": {"ppo": PPO}}
BANDIT = Bandit()  # one object, so that it is compiled once


class State(NamedTuple):
    weights: np.ndarray = np.arange(6, dtype=np.float32).reshape(2, 3)
    odd: Any = np.array(True)
    none: Any = np.zeros((0, 3))
    half: Any = jnp.full(3, 1.5, jnp.bfloat16)
    step: Any = np.int32(7)


STATE = State()


def train(out=None, resume=None, **more):
    arguments = {"out": out, **RUN} if resume is None else {"resume": resume}
    return tradax.train(env=BANDIT, checkpoint_seconds=0, **{**arguments, **more})


def result(folder):
    """What must not depend on how a run came to its end."""
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    rows = [{k: v for k, v in row.items() if "second" not in k} for row in rows]
    zips = {p.name: p.read_bytes() for p in folder.glob("*.zip")}
    saved = checkpoint.read_newest(folder / "checkpoints")
    return rows, zips, {name: np.asarray(x).tobytes() for name, x in saved.items()}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    return train(tmp_path_factory.mktemp("whole") / "run").run_dir


@pytest.fixture
def one_by_one(monkeypatch):
    """A chunk an update."""
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)


def stopping(number, at):
    """A hook that sends the signal after so many time steps."""

    class Stop(experiment.TensorBoard):
        def on_tick(self, timesteps, steps_per_second):
            if timesteps == at:
                signal.raise_signal(number)

    return Stop


def steps(folder):
    return sorted(int(p.name) for p in folder.iterdir() if p.name.isdigit())


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def test_the_newest_two_checkpoints_and_the_best_are_kept(tmp_path):
    for update in range(5):
        arrays = checkpoint.to_host(STATE)
        checkpoint.write_checkpoint(tmp_path, arrays, update=update, best=update in (0, 1))
    assert steps(tmp_path) == [1, 3, 4]
    found = checkpoint.read_newest(tmp_path)
    np.testing.assert_array_equal(found["weights"], STATE.weights)


def test_one_changed_bit_in_any_file_of_a_checkpoint_is_noticed_and_the_one_before_serves(tmp_path):
    checkpoint.save_checkpoint(tmp_path, STATE)
    checkpoint.save_checkpoint(tmp_path, STATE._replace(weights=STATE.weights + 1))
    backup = tmp_path.with_name("backup")
    shutil.copytree(tmp_path, backup)
    for path in [p for p in (backup / "1").rglob("*") if p.is_file()]:
        shutil.rmtree(tmp_path / "1")
        shutil.copytree(backup / "1", tmp_path / "1")
        flip(tmp_path / path.relative_to(backup))
        with pytest.warns(match=r"1: damaged \(.*\); going on from 0, the one before"):
            found = checkpoint.read_newest(tmp_path)
        np.testing.assert_array_equal(found["weights"], STATE.weights)
    flip(next((tmp_path / "0" / "arrays").rglob(".zarray")))
    with pytest.raises(ModelFileError, match="no checkpoint is whole"):
        checkpoint.read_newest(tmp_path)


def test_what_a_killed_process_left_is_removed_and_so_are_damaged_checkpoints(tmp_path):
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    checkpoint.save_checkpoint(folder, STATE)
    checkpoint.save_checkpoint(folder, STATE)
    flip(folder / "1" / "checkpoint.json")
    (folder / ".2" / "arrays").mkdir(parents=True)
    (tmp_path / ".policy.zip.ab12_xyz").write_text("half")
    (tmp_path / ".gitignore").write_text("mine")
    files.remove_leftovers(tmp_path)
    checkpoint.clean_up(folder)
    assert {p.name for p in folder.iterdir()} == {"0", "format.json"}
    assert {p.name for p in tmp_path.iterdir()} == {"checkpoints", ".gitignore"}


def test_arrays_come_back_as_they_were_also_in_several_pieces(tmp_path, monkeypatch):
    for size in (2**26, 8):
        monkeypatch.setattr(checkpoint, "_CHUNK_BYTES", size)
        checkpoint.save_checkpoint(tmp_path, STATE)
        jax.tree.map(
            np.testing.assert_array_equal, checkpoint.load_checkpoint(tmp_path, STATE), STATE
        )
    pieces = [p.name for p in (tmp_path / "1" / "arrays" / "all").iterdir()]
    assert sorted(pieces) == [".zarray", *map(str, range(len(pieces) - 1))]
    assert len(pieces) == 6


def test_what_other_settings_need_is_refused_before_it_is_read(tmp_path, monkeypatch):
    checkpoint.save_checkpoint(tmp_path, STATE)
    monkeypatch.delattr(checkpoint, "_checkpointer")
    for name, value, need in (
        ("weights", np.zeros((2, 4), np.float32), r"float32\[2, 3\], .* need float32\[2, 4\]"),
        ("step", np.float32(7), r"int32\[\], .* need float32\[\]"),
    ):
        with pytest.raises(ModelFileError, match=f"{name} is {need}"):
            checkpoint.load_checkpoint(tmp_path, STATE._replace(**{name: value}))


def test_a_checkpoint_that_announces_more_than_it_describes_is_passed_over(tmp_path):
    checkpoint.save_checkpoint(tmp_path, STATE)
    path = tmp_path / "0" / "arrays" / "all" / ".zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"shape": [10**12]}))
    described = tmp_path / "0" / "checkpoint.json"
    facts = json.loads(described.read_text())
    facts["sha256"]["arrays/all/.zarray"] = checkpoint._sha256(path)
    described.write_text(json.dumps(facts))
    with pytest.raises(
        ModelFileError, match=r"0: damaged \(1,000,000,000,000 bytes, and 35 are described"
    ):
        checkpoint.read_newest(tmp_path)


def test_a_newer_format_is_refused_by_name_and_older_ones_are_read(tmp_path):
    folder = tmp_path / "0"
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save(folder / "arrays", {"weights": STATE.weights, "step": STATE.step})
    # The second format had a tree of arrays, the first orbax's files and no description of them.
    names = [str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()]
    sums = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}
    (folder / "checkpoint.json").write_text(json.dumps({"best": False, "sha256": sums}))
    for version in (2, 1):
        text = f'{{"format": "tradax-checkpoint", "version": {version}}}'
        (tmp_path / "format.json").write_text(text)
        assert int(checkpoint.read_newest(tmp_path)["step"]) == 7
        if version == 2:
            (folder / "arrays").rename(tmp_path / "1")
            shutil.rmtree(folder)
    for damaged in ("", "{", "[]", '{"version": NaN}'):  # the sums tell that the rest is whole
        (tmp_path / "format.json").write_text(damaged)
        assert int(checkpoint.read_newest(tmp_path)["step"]) == 7
    (tmp_path / "format.json").write_text('{"format": "tradax-checkpoint", "version": 4}')
    with pytest.raises(ModelFileError, match="format version 4 is newer than this tradax reads"):
        checkpoint.read_newest(tmp_path)
    (tmp_path / "manifest.json").write_text('{"format": 9}')
    with pytest.raises(ModelFileError, match=r"manifest.json: format version 9 is newer"):
        run_directory.read_manifest(tmp_path)


def test_a_run_folder_is_for_one_process_and_the_dead_hold_none(tmp_path):
    hold = (
        "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX);"
        "f.write('process 1 on x'); f.flush(); print('held', flush=True); time.sleep(60)"
    )
    command = [sys.executable, "-c", hold, str(tmp_path / "run.lock")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout is not None
        other.stdout.readline()
        with pytest.raises(TradaxError, match="in use by process 1 on x"):
            train(tmp_path)
        other.kill()
    with run_directory.locked(tmp_path):
        assert f"process {os.getpid()} on" in (tmp_path / "run.lock").read_text()


def test_of_processes_that_are_given_one_new_folder_at_once_one_gets_it(tmp_path):
    start = threading.Barrier(8)

    def run():
        folder = run_directory.create(tmp_path / "run", "x")
        start.wait(20)  # all have found it empty
        with run_directory.locked(folder, unused=True):
            run_directory.write_config(folder, {})

    with ThreadPoolExecutor(8) as pool:
        said = [str(future.exception()) for future in [pool.submit(run) for _ in range(8)]]
    assert said.count("None") == 1
    assert all(re.search("None|in use by|is not empty; .* --resume", text) for text in said)


def test_a_row_that_was_cut_off_is_left_out_and_a_damaged_one_is_named(tmp_path):
    path = tmp_path / "metrics.jsonl"
    rows = ['{"update": 1, "x": 2}', '{"update": 2, "x": null}']
    for end in ("", "\n", '\n{"upd', "\n\0\0", '\n{"update": 3, "x": NaN'):
        path.write_text("\n".join(rows) + end)
        assert read_rows(path) == [{"update": 1, "x": 2}, {"update": 2, "x": None}]
    for wrong, said in (
        ("{", "no JSON"),
        ("[1]", "no row"),
        ('{"update": "1"}', "no row"),
    ):
        path.write_text("\n".join([rows[0], wrong, rows[1], ""]))
        with pytest.raises(ModelFileError, match=f"metrics.jsonl, line 2: is {said}"):
            read_rows(path)


def test_killed_in_mid_checkpoint_a_run_resumes_to_the_same_bits(tmp_path, whole):
    program = f"""
import os, signal, sys
sys.path[:0] = {sys.path!r}
import test_nothing_lost as here
from tradax import checkpoint, training
training._CHUNK_SECONDS = 0.0
write, count = checkpoint._write_array, []
def kill_in_the_second(path, content):
    write(path, content)
    count.append(path)
    if len(count) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
checkpoint._write_array = kill_in_the_second
here.train({str(tmp_path / "run")!r})
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert (tmp_path / "run" / "checkpoints" / ".1").exists()
    assert not (tmp_path / "run" / "summary.json").exists()
    train(resume=tmp_path / "run")
    assert result(tmp_path / "run") == result(whole)
    assert not (tmp_path / "run" / "checkpoints" / ".1").exists()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_first_signal_ends_the_chunk_and_the_run_resumes_to_the_same_bits(
    number, tmp_path, whole, monkeypatch, one_by_one
):
    monkeypatch.setattr(experiment, "TensorBoard", stopping(number, at=64))
    run = tmp_path / "run"
    assert train(run).interrupted == number
    monkeypatch.undo()
    assert [row["update"] for row in result(run)[0]] == [1, 2]
    train(resume=run)
    assert result(run) == result(whole)


def test_the_second_signal_ends_the_process_though_the_main_thread_computes():
    program = (
        "import hashlib; from tradax import signals\n"
        "with signals.second_ends_the_process(), signals.heard():\n"
        "    print('ready', flush=True)\n"
        "    hashlib.pbkdf2_hmac('sha256', b'', b'', 10**9)"
    )
    command = [sys.executable, "-c", program]
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(0.5)  # else Python may still hear the first itself
        process.send_signal(signal.SIGTERM)
        time.sleep(0.2)
        assert process.poll() is None
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) in (128 + signal.SIGTERM, -signal.SIGTERM)


def fsynced_names(monkeypatch, failing=None):
    """Names of all that is flushed to the disk, which is full when `failing` comes."""
    names, fsync = [], os.fsync

    def name_of(descriptor):
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        parts = path.split("/")
        name = "arrays" if "arrays" in parts else parts[-1].split(".out.")[0]
        return "." + name.split(".")[1] if name.startswith(".") else name

    def watched(descriptor):
        names.append(name_of(descriptor))
        if names[-1] == failing:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watched)
    return names


def test_a_disk_that_is_full_at_any_file_leaves_a_run_that_resumes(tmp_path, whole, monkeypatch):
    with monkeypatch.context() as patch:
        seen = fsynced_names(patch)
        train(tmp_path / "run")
        names = sorted(set(seen))
    assert {".manifest", ".config", ".metrics", "events", "arrays", ".policy"} <= set(names)
    for number, name in enumerate(names):
        run = tmp_path / str(number) / "run"
        with monkeypatch.context() as patch:
            fsynced_names(patch, failing=name)
            with pytest.raises(TradaxError, match=r"cannot be written \(No space left on device\)"):
                train(run)
        goes_on(run, whole)


def goes_on(run, whole):
    """By resuming, or by the same command where nothing was described yet."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that there is no checkpoint yet
        if (run / "config.yaml").exists():
            train(resume=run)
        else:
            train(run)
    assert result(run) == result(whole)
    assert not [p for p in run.rglob(".*") if p.is_file() and "arrays" not in p.parts]


def test_files_that_the_system_lets_grow_no_further_are_a_clear_error(tmp_path, whole):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    for number, size in enumerate((0, 60, 300, 900)):
        run = tmp_path / str(number)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
        try:
            with pytest.raises(TradaxError, match=r"cannot be written \(File too large\)"):
                train(run)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
        goes_on(run, whole)


@contextlib.contextmanager
def permissions_count():
    """Also for root, who lays down the right to pass over them, for this thread."""
    libc = ctypes.CDLL(None, use_errno=True)
    head, before = (ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)()
    assert libc.capget(head, before) == 0
    without = (ctypes.c_uint32 * 6)(*before)
    without[0] &= ~0b110  # CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH
    assert libc.capset(head, without) == 0
    try:
        yield
    finally:
        assert libc.capset(head, before) == 0


def test_a_folder_that_is_read_only_is_a_clear_error(tmp_path, whole, monkeypatch, one_by_one):
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    begun = tmp_path / "begun"
    shutil.copytree(whole, begun)
    begun.chmod(0o555)

    class Close(experiment.TensorBoard):
        def on_tick(self, timesteps, steps_per_second):
            if timesteps == 64:
                (tmp_path / "run" / "checkpoints").chmod(0o555)

    with permissions_count():
        with pytest.raises(TradaxError, match=r"no folder can be made there .Permission"):
            train(closed / "run")
        with pytest.raises(TradaxError, match=r"run.lock: cannot be written .Permission denied"):
            train(closed)
        with pytest.raises(TradaxError, match=r"cannot be written .Permission denied"):
            train(resume=begun, total_timesteps=256)
        with monkeypatch.context() as patch:
            patch.setattr(experiment, "TensorBoard", Close)
            with pytest.raises(TradaxError, match=r"checkpoints: cannot be written .Permission"):
                train(tmp_path / "run")
    for folder in (closed, begun, tmp_path / "run" / "checkpoints"):
        folder.chmod(0o755)
    assert steps(tmp_path / "run" / "checkpoints")
    goes_on(tmp_path / "run", whole)


def test_a_checkpoint_folder_that_was_removed_is_made_again(
    tmp_path, whole, monkeypatch, one_by_one
):
    run = tmp_path / "run"

    class Remove(experiment.TensorBoard):
        what = run / "checkpoints"

        def on_tick(self, timesteps, steps_per_second):
            if timesteps == 64:
                self.what.rename(tmp_path / f"was-{self.what.name}")

    monkeypatch.setattr(experiment, "TensorBoard", Remove)
    with contextlib.suppress(TradaxError):  # where it was being written to
        train(run)
    monkeypatch.undo()
    goes_on(run, whole)
    assert steps(run / "checkpoints")
    monkeypatch.setattr(training, "_CHUNK_SECONDS", 0.0)
    monkeypatch.setattr(experiment, "TensorBoard", Remove)
    monkeypatch.setattr(Remove, "what", tmp_path / "other")
    with pytest.raises(TradaxError, match="cannot be written"):
        train(tmp_path / "other")
    assert not (tmp_path / "other" / "policy.zip").exists()


def test_a_run_that_is_moved_while_a_checkpoint_is_written_is_an_error(tmp_path, monkeypatch):
    real, run = checkpoint._write_array, tmp_path / "run"
    run.mkdir()

    def moved(path, content):
        run.rename(tmp_path / "elsewhere")
        real(path, content)  # makes the folders that have gone

    monkeypatch.setattr(checkpoint, "_write_array", moved)
    with pytest.raises(TradaxError, match=r"cannot be written .*moved or removed"):
        checkpoint.save_checkpoint(run / "checkpoints", {"x": np.zeros(3)})


def test_other_options_data_or_libraries_are_refused_by_name(tmp_path, whole):
    run = tmp_path / "run"
    shutil.copytree(whole, run)
    with pytest.raises(ConfigError, match=r"ppo.hidden_sizes is \[8\], the run has \[4\]"):
        train(resume=run, settings={"ppo": {"hidden_sizes": [8]}})
    with pytest.raises(ConfigError, match="seed is 5, the run has 0"):
        train(resume=run, seed=5)
    with pytest.raises(ConfigError, match="they may grow, and 100 are fewer"):
        train(resume=run, total_timesteps=100)
    manifest = json.loads((run / "manifest.json").read_text())
    for name, version in (("jax", "0.9.0"), ("numpy", "1.26.4"), ("orbax-checkpoint", "1.0.0")):
        changed = manifest | {"versions": manifest["versions"] | {name: version}}
        (run / "manifest.json").write_text(json.dumps(changed))
        with pytest.raises(TradaxError, match=f"it began with {name} {version}, and this is"):
            train(resume=run)
    (run / "manifest.json").write_text(json.dumps(manifest))
    config = yaml.safe_load((run / "config.yaml").read_text())
    config["settings"]["ppo"]["hidden_sizes"] = [5]
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(ModelFileError, match=r"is float32\[.*4\], these settings need"):
        train(resume=run)


def test_changed_prices_are_refused(tmp_path):
    prices = tmp_path / "prices.csv"
    rows = [f"2020-{m:02}-{d:02},{10 + d}" for m in range(1, 13) for d in range(1, 29)]
    prices.write_text("\n".join(["timestamp,close", *rows]))
    options = {**RUN, "skip_posterior": True, "closes_only": True}
    run = tradax.train(data=prices, out=tmp_path / "run", **options).run_dir
    prices.write_text(prices.read_text().replace("2020-01-01,11", "2020-01-01,12"))
    with pytest.raises(TradaxError, match="the data are not those that it began with"):
        tradax.train(resume=run)


def test_the_same_command_on_an_unfinished_run_asks_or_needs_resume(tmp_path, capsys, monkeypatch):
    command = f"train --env CartPole-v1 --timesteps 256 --evaluations 1 --out {tmp_path / 'run'}"
    command += " --ppo.num-envs 8 --ppo.n-steps 16 --ppo.minibatches 2 --ppo.hidden-sizes 4"
    words = command.split()
    with monkeypatch.context() as patch:
        patch.setattr(experiment, "TensorBoard", stopping(signal.SIGTERM, at=128))
        assert main(words) == 143
    assert f"go on with: tradax train --resume {tmp_path / 'run'}" in capsys.readouterr().err
    assert main(words) == 2
    assert "Go on with it by --resume" in capsys.readouterr().err
    monkeypatch.setattr("sys.stdin.isatty", lambda: True, raising=False)
    monkeypatch.setattr("builtins.input", lambda: "n")
    assert main(words) == 2
    assert "was left as it is" in capsys.readouterr().err
    assert main([*words, "--seed", "3"]) == 2
    assert "holds an unfinished run of: tradax train" in capsys.readouterr().err
    monkeypatch.setattr("builtins.input", lambda: "")
    assert main(words) == 0
    assert (tmp_path / "run" / "summary.json").exists()
