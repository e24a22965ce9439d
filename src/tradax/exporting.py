"""A run's results as files of other programs: Stable-Baselines3, ONNX, scikit-learn."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax import training
from tradax.checkpoint import load_checkpoint
from tradax.data.pipeline import Pipeline
from tradax.errors import ConfigError, TradaxError
from tradax.files import write_atomic
from tradax.host_source import HostSource
from tradax.model_file import load_policy
from tradax.offline import from_log
from tradax.onnx_file import Features, write_onnx
from tradax.policies import NetworkPolicy
from tradax.preparation import Request, Task, reopen
from tradax.rollout import JaxSource
from tradax.sb3 import _layers, _spaces, _zip

Format = Literal["sb3", "onnx", "joblib"]
_ENDINGS = {"sb3": "-sb3.zip", "onnx": ".onnx", "joblib": ".joblib"}
_STEMS = {"sb3": "policy", "onnx": "policy", "joblib": "normalizer"}


def export(
    run: Path | str,
    format: Format,
    *,
    out: Path | str | None = None,
    policy: Literal["best", "last"] = "best",
    with_features: bool = False,
) -> list[Path]:
    """Write what a run has learned for another program.

    Args:
        run: a run directory.
        format: `sb3`: a model that Stable-Baselines3 loads and goes on training, with critic and
            optimiser as training left them. `onnx`: the deterministic policy with its observation
            normaliser. `joblib`: the normaliser of features, for scikit-learn.
        out: the file; inside the run directory by default. A run of several symbols with a policy
            each writes one file a symbol, in its folder, and takes no `out`.
        policy: the best on validation, or the last.
        with_features: an ONNX graph from features as they are computed, before the normaliser, and
            the account.

    Returns: the files.

    Raises:
        TradaxError: not a run directory, or nothing of this kind in it.
    """
    folder = Path(run)
    if format not in _ENDINGS:
        raise ConfigError(f"format is {format!r}; it must be one of {', '.join(_ENDINGS)}")
    if with_features and format != "onnx":
        raise ConfigError("with_features (--with-features) is for ONNX; leave it out")
    if format == "joblib":
        found = sorted(folder.glob("normalizer*.joblib"))
        if not found and (folder / "pipeline.json").exists():  # a run that did not come to its end
            Pipeline.load(folder).write_joblib(folder)
            found = sorted(folder.glob("normalizer*.joblib"))
        if not found:
            raise TradaxError(
                f"{folder}: has no normaliser of features; only a market on given bars has one, "
                "and only with preprocessing"
            )
        return _copied(found, out)
    request, task = reopen(folder)
    targets = _targets(task, format, out)
    name = "policy.zip" if policy == "best" else "policy-last.zip"
    policies = [load_policy(place / name) for place in task.deployed]
    if format == "onnx":
        features = _features(task, len(policies)) if with_features else [None] * len(policies)
        for target, one, how in zip(targets, policies, features, strict=True):
            write_onnx(one, target, how)
        return targets
    metadata = {"algorithm": request.algorithm, "env": request.env}
    learners = _learners(request, task, folder)
    for target, one, learner in zip(targets, policies, learners, strict=True):
        updates = int(np.max(np.asarray(learner.updates)))
        _zip.save_model(
            target,
            task.algorithm,
            with_policy(task.algorithm, learner, one),
            data={
                "num_timesteps": updates * task.algorithm.steps_per_update,
                "_n_updates": updates,
                "seed": request.seed,
            },
            observation_space=_observation_space(task),
            metadata=metadata,
        )
    return targets


def with_policy(algorithm: Any, learner: Any, policy: NetworkPolicy) -> Any:
    """A learner that acts like `policy`, which may have seen other observation statistics.

    Raises:
        ConfigError: policy and value share one network.
    """
    old = algorithm.policy(learner)
    if all(map(np.array_equal, jax.tree.leaves(old), jax.tree.leaves(policy))):
        return learner
    units = _layers.Units.of(policy.normalizer)
    layers = _layers.outside(_layers.of_mlp(policy.network), units)
    layers = _layers.inside(layers, _layers.Units.of(old.normalizer))
    if hasattr(learner, "networks"):
        actor = _layers.to_net(learner.networks.actor, layers)
        return learner._replace(networks=learner.networks._replace(actor=actor))
    network = learner.network
    if network.critic is None:
        raise ConfigError(
            "policy and value share one network, so that the best policy cannot be put beside the "
            "last value; export the last policy (--policy last)"
        )
    network = eqx.tree_at(
        lambda n: (n.actor, n.log_std),
        network,
        (_layers.to_mlp(network.actor, layers), policy.log_std),
        is_leaf=lambda x: x is None,
    )
    return learner._replace(network=network)


def _features(task: Task, policies: int) -> list[Features]:
    pipeline = task.pipeline
    if pipeline is None or len(pipeline.normalizers) != policies:
        raise ConfigError(
            "features are a part of the graph where a policy trades one symbol on given bars; "
            "leave out with_features (--with-features)"
        )
    return [Features(normalizer, pipeline.config.window) for normalizer in pipeline.normalizers]


def _copied(found: list[Path], out: Path | str | None) -> list[Path]:
    if out is None:
        return found
    if len(found) > 1:
        raise ConfigError(f"{len(found)} normalisers do not fit into one file; leave out --out")
    write_atomic(out, found[0].read_bytes())
    return [Path(out)]


def _targets(task: Task, format: str, out: Path | str | None) -> list[Path]:
    if out is None:
        return [folder / f"{_STEMS[format]}{_ENDINGS[format]}" for folder in task.deployed]
    if len(task.deployed) > 1:
        raise ConfigError(
            f"{len(task.deployed)} policies do not fit into one file; leave out --out"
        )
    return [Path(out)]


def _learners(request: Request, task: Task, folder: Path) -> Iterator[Any]:
    """As training left them, one a policy that is deployed."""
    if request.offline is not None:
        task = from_log(request.offline, request.algorithm, task)
    key = jax.random.key(request.seed)
    if task.members is not None:
        key = jnp.stack([key] * task.members)
    like = training.blank(task.algorithm, task.source, key, request.total_timesteps, task.members)
    learner = load_checkpoint(folder / "checkpoints", like).state.learner
    if task.members is None:
        yield learner
        return
    for member in range(task.members - len(task.deployed), task.members):
        yield jax.tree.map(lambda x, i=member: x[i], learner)


def _observation_space(task: Task) -> Any:
    """The environment's own bounds, where it has some, as Gymnasium has them."""
    source = task.source
    if isinstance(source, HostSource):
        space = source.envs.observation_space
        return space if type(space).__name__ == "Box" else None
    if not isinstance(source, JaxSource) or task.algorithm.spec.market:
        return None
    space = source.env.observation_space(source.params)
    size = task.algorithm.spec.size
    unbounded = _spaces.observation_space(size)
    if not hasattr(space, "low"):
        return unbounded
    most = np.finfo(np.float32).max
    low, high = (
        np.broadcast_to(np.asarray(x, np.float32).reshape(-1), size)
        for x in (space.low, space.high)
    )
    return type(unbounded)(
        np.where(low <= -most, -np.inf, low), np.where(high >= most, np.inf, high), dtype=np.float32
    )
