"""Files that a stranger made: nothing in them runs, and whatever is wrong is one clear error."""

import ast
import contextlib
import dataclasses
import gzip
import io
import json
import pickle
import random
import zipfile
import zlib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import yaml
from benchmarks import _fuzz_files
from benchmarks._mutations import Mutator

from tradax.data.bars import check_file, read_bars
from tradax.data.pipeline import Pipeline
from tradax.data.scaling import load_normalizer
from tradax.errors import ConfigError, DataError, ModelFileError, TradaxError
from tradax.model_file import load_policy
from tradax.preparation import Request, read_request
from tradax.reading import archive_of, json_value, opened, read_bytes, tensors, yaml_value
from tradax.run_directory import write_config
from tradax.sb3 import load_vec_normalize
from tradax.sb3._zip import open_model
from tradax.sources import source_of

SOURCE = Path(__file__).parents[1] / "src" / "tradax"


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    folder = tmp_path_factory.mktemp("good")
    return {kind: _fuzz_files.seeds(kind, folder) for kind in _fuzz_files.READERS}


@pytest.mark.parametrize("kind", _fuzz_files.READERS)
def test_mutated_files_load_or_are_refused_by_our_own_error(kind, good, tmp_path):
    suffix, read = _fuzz_files.READERS[kind]
    path = tmp_path / ("config.yaml" if kind == "config" else f"case{suffix}")
    for content in good[kind]:
        path.write_bytes(content)
        read(path)
    for case in range(150):
        path.write_bytes(Mutator(random.Random(f"0 {case}"), good[kind]).file(suffix))
        with contextlib.suppress(TradaxError):
            read(path)


class Canary:
    """Unpickling it writes a file."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (Path.write_text, (self.path, "executed"))


def test_a_pickle_in_any_file_that_is_read_is_never_executed(tmp_path, good):
    fired = tmp_path / "fired"
    canary = pickle.dumps(Canary(fired), protocol=2)
    pickle.loads(canary)  # noqa: S301
    assert fired.exists(), "the canary is alive"
    fired.unlink()
    kinds = {kind: (suffix, read) for kind, (suffix, read) in _fuzz_files.READERS.items()}
    kinds["pipeline"] = (".json", lambda path: Pipeline.load(path.parent))
    kinds["statistics"] = (".json", load_vec_normalize)
    names = {"config": "config.yaml", "pipeline": "pipeline.json"}
    for kind, (suffix, read) in kinds.items():
        path = tmp_path / names.get(kind, f"case{suffix}")
        contents = [canary]
        for content in good.get(kind, []) if suffix == ".zip" else []:
            with zipfile.ZipFile(io.BytesIO(content)) as archive:
                entries = {name: archive.read(name) for name in archive.namelist()}
            contents += [archive_of({**entries, name: canary}) for name in entries]
        for content in contents:
            path.write_bytes(content)
            with contextlib.suppress(TradaxError):
                read(path)
    joblib = tmp_path / "normalizer.joblib"  # beside every run's own, and never looked at
    joblib.write_bytes(canary)
    with pytest.raises(DataError):
        load_normalizer(joblib)
    assert not fired.exists()


def test_no_module_unpickles_imports_or_evaluates_what_it_reads():
    modules = {"pickle", "_pickle", "cloudpickle", "dill", "jsonpickle", "marshal", "shelve"}
    calls = {"eval", "exec", "compile", "__import__", "torch.load", "joblib.load"}
    calls |= {"yaml.load", "yaml.unsafe_load", "yaml.full_load", "np.load", "numpy.load"}
    methods = {"read_pickle", "read_hdf", "extractall"}
    partly = {"joblib", "yaml", "torch"}  # always by their full names, or `load` would hide
    wrong = []
    for path in sorted(SOURCE.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                for alias in node.names:
                    whole = alias.name.split(".")[0]
                    if whole in modules or (whole in partly and alias.asname):
                        wrong.append(f"{path}: import {alias.name}")
            if isinstance(node, ast.ImportFrom) and (
                (node.module or "").split(".")[0] in modules | partly
            ):
                wrong.append(f"{path}: from {node.module}")
            if isinstance(node, ast.Call):
                called = ast.unparse(node.func)
                if called in calls or called.split(".")[-1] in methods:
                    wrong.append(f"{path}: {called}")
                wrong += [f"{path}: allow_pickle" for k in node.keywords if k.arg == "allow_pickle"]
    assert not wrong, "\n".join(wrong)


def test_an_archive_that_leads_elsewhere_unpacks_or_repeats_itself_is_refused(tmp_path):
    cases = {
        "leads out of the archive": archive_of({"../policy.json": b"{}"}),
        "leads out of the archive ": archive_of({"/etc/policy.json": b"{}"}),
        "has no policy.json": archive_of({"other": b"{}"}),
        "is no zip archive": b"PK\x03\x04",
    }
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("policy.json", bytes(2**22))
    cases["is compressed"] = bomb.getvalue()
    twice = io.BytesIO()
    with zipfile.ZipFile(twice, "w") as archive:
        archive.writestr("policy.json", b"{}")
        with pytest.warns(UserWarning, match="Duplicate"):
            archive.writestr("policy.json", b"{}")
    cases["one name twice"] = twice.getvalue()
    for message, content in cases.items():
        (tmp_path / "policy.zip").write_bytes(content)
        with pytest.raises(ModelFileError, match=message.strip()):
            load_policy(tmp_path)


def test_weights_that_are_not_finite_are_refused(tmp_path, good):
    for content, name, odd in (
        (good["policy"][0], "network.first.bias", np.nan),
        (good["policy"][1], "normalizer.var", -1.0),
    ):
        with opened(content, "x") as archive:
            arrays = tensors(archive.entry("policy.safetensors"), "x").arrays
            description = archive.entry("policy.json")
        from safetensors.numpy import save

        arrays = {key: np.array(value) for key, value in arrays.items()}
        arrays[name].flat[0] = odd
        entries = {"policy.json": description, "policy.safetensors": save(arrays)}
        (tmp_path / "policy.zip").write_bytes(archive_of(entries))
        with pytest.raises(ModelFileError, match=rf"{name} holds numbers that are not finite"):
            load_policy(tmp_path)


def test_a_newer_format_is_refused_by_name_and_one_without_a_version_is_read(tmp_path, good):
    def versioned(content, entry, change):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            entries = {name: archive.read(name) for name in archive.namelist()}
        description = json.loads(entries[entry])
        change(description)
        return archive_of({**entries, entry: json.dumps(description).encode()})

    for content, read in ((good["policy"][0], load_policy), (good["model"][0], open_model)):
        path = tmp_path / "policy.zip"
        path.write_bytes(versioned(content, "policy.json", lambda d: d.update(version=2)))
        with pytest.raises(ModelFileError, match=r"version 2 is newer than .* reads \(1\)"):
            read(path)
    path.write_bytes(
        versioned(
            good["model"][0],
            "policy.json",
            lambda d: d["metadata"]["stable_baselines3"].pop("version"),
        )
    )
    open_model(path)
    for content in good["normalizer"]:
        for version, newer in ((b'"version":"2"', True), (b'"Version":"1"', False)):
            path = tmp_path / "n.safetensors"
            path.write_bytes(content.replace(b'"version":"1"', version))
            if newer:
                with pytest.raises(DataError, match="version 2 is newer"):
                    load_normalizer(path)
            else:
                load_normalizer(path)
    (tmp_path / "config.yaml").write_text("format: 2\n")
    with pytest.raises(ModelFileError, match="version 2 is newer"):
        read_request(tmp_path)


REQUEST = dataclasses.asdict(
    Request(algorithm="ppo", env="trading", data="sp500", total_timesteps=1)
)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("total_timesteps", "many", "total_timesteps is 'many'; it must be a whole number"),
        ("total_timesteps", 1e6, "it must be a whole number"),
        ("train_fraction", "0.5x", "train_fraction is '0.5x'; it must be a finite number"),
        ("shared_policy", "yes please", "shared_policy is 'yes please'; it must be true or false"),
        ("symbols", "A", "symbols is 'A'; it must be a list, each element text or none"),
        ("settings", {"ppo": 3}, "settings is {'ppo': 3}; it must be names"),
        ("data", [1], "data is"),
        ("algoritm", "ppo", "no option algoritm; did you mean algorithm"),
    ],
)
def test_a_wrong_value_in_a_hand_edited_configuration_is_named(tmp_path, key, value, message):
    write_config(tmp_path, {**REQUEST, key: value})
    with pytest.raises(ConfigError) as error:
        read_request(tmp_path)
    assert message in str(error.value)
    assert "config.yaml" in str(error.value)


def test_a_missing_value_in_a_configuration_is_named(tmp_path):
    write_config(tmp_path, {k: v for k, v in REQUEST.items() if k != "env"})
    with pytest.raises(ConfigError, match="env is missing"):
        read_request(tmp_path)


@pytest.mark.parametrize(
    "text",
    [
        "!!python/object/apply:os.system ['true']",
        "a: &a [1, 2]\nb: [*a, *a]",  # a few lines of these stand for billions of values
        "a: 2024-13-45",
        "[" * 5_000,
        "a: b: c",
        "\x00",
    ],
)
def test_yaml_that_makes_objects_or_multiplies_itself_is_refused(tmp_path, text):
    (tmp_path / "config.yaml").write_text(text)
    with pytest.raises(ModelFileError, match=r"config\.yaml"):
        yaml_value(tmp_path / "config.yaml")


def test_json_of_no_numbers_or_without_end_is_refused(tmp_path):
    for content in (b"NaN", b'{"a": 1, "a": 2}', b"[" * 100_000, b"9" * 5_000, b"\xff"):
        with pytest.raises(ModelFileError, match=r"x\.json: is no JSON, or damaged"):
            json_value(content, "x.json")
    (tmp_path / "large").write_bytes(bytes(100))
    with pytest.raises(ModelFileError, match="larger than 99 bytes"):
        read_bytes(tmp_path / "large", most=99)


def test_no_option_names_something_to_import():
    with pytest.raises(TradaxError, match="import the package yourself"):
        source_of("gymnasium:os:CartPole-v1")


def test_columns_of_lists_and_compressed_tables_are_named(tmp_path):
    frame = pl.DataFrame({"date": ["2024-01-02", "2024-01-03"], "close": [1.0, 2.0]})
    path = tmp_path / "x.parquet"
    for odd in ("date", "close"):
        frame.with_columns(pl.concat_list(pl.col(odd)).alias(odd)).write_parquet(path)
        assert f"column {odd}: holds List" in check_file(path, closes_only=True)[0]
    text = frame.write_csv().encode()
    for content in (gzip.compress(text), zlib.compress(text, 0), b"date,close\r\n1\r2,3\n"):
        (tmp_path / "x.csv").write_bytes(content)
        with pytest.raises(DataError):
            read_bars([tmp_path / "x.csv"], closes_only=True)


@pytest.mark.parametrize("unit", ["days", "ms", "us", "ns"])
def test_times_beyond_the_years_that_polars_writes_are_named(unit, tmp_path):
    kind, number = (pl.Date, pl.Int32) if unit == "days" else (pl.Datetime(unit), pl.Int64)
    most = 2**31 - 1 if unit == "days" else 2**63 - 1
    times = pl.Series("date", [0, most, -most], dtype=number).cast(kind)
    path = tmp_path / "x.parquet"
    pl.DataFrame({"date": times, "close": [1.0, 2.0, 3.0]}).write_parquet(path)
    found = check_file(path, closes_only=True)
    if unit != "ns":  # these reach from 1677 to 2262
        assert f"row 2, column date: '{most}' is not a date" in found[0]
        assert f"row 3, column date: '-{most}' is not a date" in found[1]
    pl.DataFrame({"date": [1, 2, 3], "close": [1.0] * 3, "symbol": times}).write_parquet(path)
    assert "column symbol: holds Date" in "".join(check_file(path, closes_only=True))


def test_a_small_parquet_file_that_announces_gigabytes_is_refused_before_it_is_read(tmp_path):
    rows = 34_000_000
    column = pl.zeros(rows, dtype=pl.Int8, eager=True)
    pl.DataFrame({"date": column, "close": column}).write_parquet(tmp_path / "x.parquet")
    with pytest.raises(DataError, match="bytes announce 544,000,000"):
        read_bars([tmp_path / "x.parquet"], closes_only=True)


def test_a_configuration_written_by_us_is_plain_yaml(tmp_path):
    write_config(tmp_path, REQUEST)
    assert yaml.safe_load((tmp_path / "config.yaml").read_text())["algorithm"] == "ppo"
    assert read_request(tmp_path) == Request(**REQUEST)
