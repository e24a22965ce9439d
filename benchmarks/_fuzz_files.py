"""Good files of every kind that tradax reads, and what reads them: the start of `fuzz`."""

import io
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.data.bars import Bars, read_bars
from tradax.data.normalize import QuantileNormalizer
from tradax.data.scaling import AffineNormalizer, load_normalizer
from tradax.data.synthetic import geometric_brownian_motion
from tradax.log_file import read_log, write_log
from tradax.logged import Log
from tradax.model_file import load_policy, save_policy
from tradax.networks import RunningMoments, mlp
from tradax.policies import ActorCritic
from tradax.preparation import Request, read_request
from tradax.run_directory import write_config
from tradax.spaces import ActionSpec, Factored, Spec

READERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "csv": (".csv", lambda path: read_bars([path])),
    "parquet": (".parquet", lambda path: read_bars([path])),
    "log": (".parquet", read_log),
    "policy": (".zip", load_policy),
    "model": (".zip", lambda path: _open_model(path)),
    "normalizer": (".safetensors", load_normalizer),
    "config": (".yaml", lambda path: read_request(path.parent)),
}


def seeds(kind: str, folder: Path) -> list[bytes]:
    """Good files of this kind, as bytes."""
    return {
        "csv": _csv,
        "parquet": _parquet,
        "log": _log,
        "policy": _policy,
        "model": _model,
        "normalizer": _normalizer,
        "config": _config,
    }[kind](folder / "seed")


def _bars() -> list[Bars]:
    one = geometric_brownian_motion(40, seed=1)
    series = {n: np.tile(getattr(one, n), (2, 1)) for n in ("open", "high", "low", "close")}
    volume, signal = np.full((2, 40), 1000.0), np.random.default_rng(0).normal(size=(2, 40))
    two = replace(
        one, symbols=("A", "B"), **series, volume=volume, has_volume=True, signals={"x": signal}
    )
    volume = np.full((1, 40), 1000.0)
    return [replace(one, volume=volume, has_volume=True), two]


def _csv(path: Path) -> list[bytes]:
    import polars as pl

    found = []
    for bars in _bars():
        bars.write_parquet(path)
        found.append(pl.read_parquet(path).write_csv().encode())
    return found


def _parquet(path: Path) -> list[bytes]:
    import polars as pl

    found = []
    for bars in _bars():
        bars.write_parquet(path)
        found.append(path.read_bytes())
        for compression in ("uncompressed", "snappy", "gzip"):
            buffer = io.BytesIO()
            pl.read_parquet(path).write_parquet(buffer, compression=compression)
            found.append(buffer.getvalue())
        buffer = io.BytesIO()
        pl.read_parquet(path).write_parquet(buffer, use_pyarrow=True)  # dictionaries, run lengths
        found.append(buffer.getvalue())
    return found


def _log(path: Path) -> list[bytes]:
    rng = np.random.default_rng(0)
    episode = np.repeat([0, 1, 2], 8)
    ends = np.append(np.diff(episode) != 0, True)
    flags = (ends & (episode == 0), ends & (episode == 1))
    numbers = [rng.normal(size=24).astype(np.float32) for _ in range(2)]
    flat = rng.normal(size=(24, 3)).astype(np.float32)
    row = np.arange(24, dtype=np.int32)
    cases = [
        (flat, np.zeros(24, np.int32), flat[ends]),
        (Factored(row, flat), flat[:, :2], Factored(row[ends], flat[ends])),
    ]
    metadata = {
        "version": 1,
        "spec": {"market": 0, "account": 3, "n": 2, "low": [], "high": []},
        "table": None,
    }
    found = []
    for obs, action, last in cases:
        log_prob = -np.abs(numbers[0])
        log = Log(obs, action, log_prob, numbers[1], *flags, episode, last, metadata, "seed")
        write_log(log, path.with_suffix(".parquet"))
        found.append(path.with_suffix(".parquet").read_bytes())
    return found


def _policy(path: Path) -> list[bytes]:
    box = Spec(5, 3, ActionSpec(low=(-1.0, -2.0), high=(1.0, 2.0)))
    discrete = Spec(0, 4, ActionSpec(n=3))
    found = []
    for spec, hidden, normalised in ((box, (8, 6), False), (discrete, (8,), True), (box, (), True)):
        actor = mlp(jax.random.key(0), spec, hidden, spec.action.size, "tanh")
        log_std = None if spec.action.discrete else jnp.zeros(spec.action.size)
        moments = RunningMoments.create((spec.account,)) if normalised else None
        save_policy(ActorCritic(actor, actor, log_std).policy(spec, moments), path, {"env": "x"})
        found.append(path.read_bytes())
    return found


def _model(path: Path) -> list[bytes]:
    """Stable-Baselines3's zips as tradax writes them, and without what only tradax reads."""
    import zipfile

    from tradax import discovery
    from tradax.reading import archive_of
    from tradax.sb3._zip import save_model

    spec = Spec(0, 3, ActionSpec(low=(-2.0,), high=(2.0,)))
    found = []
    for name in ("ppo", "sac"):
        module = discovery.module("algorithms", name)
        plain = {"normalize_observations": False, "normalize_rewards": False}
        plain |= {"hidden_sizes": (4, 4), "n_steps": 16, "num_envs": 2}
        if name == "ppo":
            plain |= {"minibatches": 2}
        else:
            plain |= {"replay_size": 64, "batch_size": 16, "learning_starts": 8}
            plain |= {"update_to_data": 1 / 32, "reward_scale": 1.0}
        algorithm = module.make(module.Config(**plain), spec, jnp.float32(1))
        buffer = io.BytesIO()
        shapes = eqx.filter_eval_shape(algorithm.init, jax.random.key(0))  # compiles nothing
        learner = jax.tree.map(lambda x: jnp.full(x.shape, 0.5, x.dtype), shapes)
        save_model(buffer, algorithm, learner)
        found.append(buffer.getvalue())
        with zipfile.ZipFile(buffer) as archive:
            theirs = [n for n in archive.namelist() if not n.endswith((".json", ".safetensors"))]
            found.append(archive_of({n: archive.read(n) for n in theirs}))
    return found


def _open_model(path: Path) -> object:
    from tradax.sb3._zip import open_model

    return open_model(path)


def _normalizer(path: Path) -> list[bytes]:
    values = np.random.default_rng(0).normal(size=(50, 3))
    quantile = QuantileNormalizer.fit(values, ("a", "b", "c"), 10)
    affine = AffineNormalizer(np.zeros(3), np.ones(3), ("a", "b", "c"))
    found = []
    for one in (quantile, affine):
        one.save(path)
        found.append(path.read_bytes())
    return found


def _config(path: Path) -> list[bytes]:
    request = Request(
        algorithm="ppo",
        env="trading",
        data=["a.csv", "b.csv"],
        symbols=["A"],
        total_timesteps=1000,
        settings={"ppo": {"learning_rate": 1e-3, "hidden_sizes": [8, 8]}, "trading": {}},
    )
    write_config(path.parent, asdict(request))
    return [(path.parent / "config.yaml").read_bytes()]
