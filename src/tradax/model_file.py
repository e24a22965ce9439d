"""Policies as files: a zip with JSON (what it is) and safetensors (its numbers). No pickle.

    policy.json          format, spec, head, widths, activation, norm, caller's metadata
    policy.safetensors   one tensor a parameter, named by its path in the policy

Every entry's size, every tensor's shape and type are checked against what `policy.json` announces
before anything is built.
"""

import io
import itertools
import json
import zipfile
from pathlib import Path
from typing import Any, NamedTuple, get_args

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ModelFileError
from tradax.files import write_atomic
from tradax.networks import ACTIVATIONS, MLP, RunningMoments, mlp
from tradax.policies import Head, NetworkPolicy
from tradax.spaces import ActionSpec, Spec

FORMAT = "tradax-policy"
VERSION = 1
_MAX_BYTES = 2**31
_EPOCH = (1980, 1, 1, 0, 0, 0)  # a fixed date, so that equal policies give equal files


class PolicyFile(NamedTuple):
    policy: NetworkPolicy
    metadata: dict[str, Any]


def save_policy(
    policy: NetworkPolicy, path: Path | str, metadata: dict[str, Any] | None = None
) -> None:
    """Write `policy.zip`. Equal policies give equal bytes.

    Args:
        metadata: JSON values kept beside the policy, for instance the environment's name.
    """
    write_atomic(path, archive_of(policy_entries(policy, metadata)))


def archive_of(entries: dict[str, bytes]) -> bytes:
    """A zip of these entries, uncompressed and without dates."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content)
    return buffer.getvalue()


def policy_entries(
    policy: NetworkPolicy, metadata: dict[str, Any] | None = None
) -> dict[str, bytes]:
    """The two entries that make a zip a policy file, whatever else it holds."""
    from safetensors.numpy import save

    network = policy.network
    hidden = [int(network.first.bias.shape[0])]  # type: ignore[union-attr]
    hidden += [int(layer.weight.shape[1]) for layer in network.rest]
    description = {
        "format": FORMAT,
        "version": VERSION,
        "head": policy.head,
        "spec": {
            "market": policy.spec.market,
            "account": policy.spec.account,
            "n": policy.spec.action.n,
            "low": list(policy.spec.action.low),
            "high": list(policy.spec.action.high),
        },
        "hidden_sizes": hidden[:-1],
        "activation": network.activation,
        "layer_norm": network.layer_norm,
        "log_std_bounds": list(policy.log_std_bounds),
        "log_std": policy.log_std is not None,
        "normalizer": policy.normalizer is not None,
        "metadata": metadata or {},
    }
    # safetensors writes the buffer as it lies, so transposed views must be copied first.
    tensors = {name: np.array(leaf, np.float32, order="C") for name, leaf in _named_leaves(policy)}
    return {
        "policy.json": json.dumps(description, indent=2, sort_keys=True).encode(),
        "policy.safetensors": save(tensors),
    }


def load_policy(path: Path | str) -> NetworkPolicy:
    """Open `policy.zip`, or that of a run directory. Executes no code.

    Raises:
        ModelFileError: not such a file, damaged, or of a newer version.
    """
    return read_policy_file(path).policy


def read_policy_file(path: Path | str) -> PolicyFile:
    """As `load_policy`, with the metadata that was saved."""
    path = Path(path)
    if path.is_dir():
        path = path / "policy.zip"
    if not path.is_file():
        raise ModelFileError(f"{path}: no such file; give a policy.zip or a run directory")
    try:
        with zipfile.ZipFile(path) as archive:
            return read_policy_entries(archive, path)
    except zipfile.BadZipFile as error:
        raise ModelFileError(f"{path}: not a policy file, or damaged ({error})") from None


def read_policy_entries(archive: zipfile.ZipFile, path: Path | str) -> PolicyFile:
    """What `policy_entries` put into a zip.

    Args:
        path: what the file is called in errors.
    """
    from safetensors import SafetensorError
    from safetensors.numpy import load

    try:
        description = json.loads(_entry(archive, "policy.json", 2**20, path))
        policy = _blank(description, path)
        leaves = _named_leaves(policy)
        size = sum(leaf.size * 4 for _, leaf in leaves) + 2**16
        tensors = load(_entry(archive, "policy.safetensors", size, path))
    except (zipfile.BadZipFile, SafetensorError, json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ModelFileError(f"{path}: not a policy file, or damaged ({error})") from None
    for name, leaf in leaves:
        tensor = tensors.get(name)
        if tensor is None or tensor.shape != leaf.shape or tensor.dtype != np.float32:
            got = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise ModelFileError(f"{path}: {name} is {got}; expected float32 {list(leaf.shape)}")
    values = [jnp.asarray(tensors[name]) for name, _ in leaves]
    policy = jax.tree.unflatten(jax.tree.structure(policy), values)
    return PolicyFile(policy, description["metadata"])


def _entry(archive: zipfile.ZipFile, name: str, limit: int, path: Path | str) -> bytes:
    try:
        info = archive.getinfo(name)
    except KeyError:
        raise ModelFileError(f"{path}: has no {name}; it was not written by tradax") from None
    if info.file_size > min(limit, _MAX_BYTES) or info.compress_type != zipfile.ZIP_STORED:
        raise ModelFileError(f"{path}: {name} is larger than what it announces, or compressed")
    return archive.read(info)


def _blank(description: Any, path: Path | str) -> NetworkPolicy:
    """A policy of the described structure whose leaves are shapes."""
    try:
        if description["format"] != FORMAT:
            raise KeyError("format")
        if description["version"] > VERSION:
            raise ModelFileError(
                f"{path}: format version {description['version']} is newer than this tradax reads "
                f"({VERSION}); upgrade tradax"
            )
        raw = description["spec"]
        n = None if raw["n"] is None else _positive(raw["n"])
        low, high = (tuple(float(x) for x in raw[k]) for k in ("low", "high"))
        spec = Spec(
            _positive(raw["market"], 0), _positive(raw["account"], 0), ActionSpec(n, low, high)
        )
        hidden = tuple(_positive(h) for h in description["hidden_sizes"])
        head, activation = description["head"], description["activation"]
        if activation not in ACTIVATIONS or head not in get_args(Head):
            raise KeyError("activation")
        if len(low) != len(high) or spec.action.size < 1 or len(hidden) > 64:
            raise KeyError("spec")
        layer_norm = bool(description.get("layer_norm", False))
        bounds = tuple(float(x) for x in description.get("log_std_bounds", ()))
        if len(bounds) != (2 if head == "tanh_gaussian" else 0):
            raise KeyError("log_std_bounds")
        has_log_std, has_normalizer = bool(description["log_std"]), bool(description["normalizer"])
        description["metadata"].items()
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: policy.json is not a policy ({error})") from None

    outputs = spec.action.size * (2 if head == "tanh_gaussian" else 1)
    sizes = (spec.size, *hidden, outputs)
    if sum(a * b for a, b in itertools.pairwise(sizes)) * 4 > _MAX_BYTES:
        raise ModelFileError(f"{path}: announces a network of more than {_MAX_BYTES} bytes")

    def build():
        network = mlp(jax.random.key(0), spec, hidden, outputs, activation)
        network = MLP(network.first, network.rest, activation, layer_norm)
        log_std = jnp.zeros(spec.action.size) if has_log_std else None
        normalizer = RunningMoments.create((spec.account,)) if has_normalizer else None
        return NetworkPolicy(
            network=network,
            log_std=log_std,
            normalizer=normalizer,
            spec=spec,
            head=head,
            log_std_bounds=bounds,
        )

    return eqx.filter_eval_shape(build)


def _positive(value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= 2**24:
        raise ValueError(f"{value!r} is not a size")
    return value


def _named_leaves(policy: NetworkPolicy) -> list[tuple[str, Any]]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(policy)
    return [
        (jax.tree_util.keystr(path).replace("[", ".").replace("]", "").lstrip("."), leaf)
        for path, leaf in leaves
    ]
