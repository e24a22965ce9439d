"""Policies as files: a zip with JSON (what it is) and safetensors (its numbers). No pickle.

    policy.json          format, spec, head, widths, activation, norm, caller's metadata
    policy.safetensors   one tensor a parameter, named by its path in the policy

Every entry's size, every tensor's shape and type are checked against what `policy.json` announces
before anything is built.
"""

import itertools
import json
import math
from pathlib import Path
from typing import Any, NamedTuple, get_args

import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ModelFileError
from tradax.files import write_atomic
from tradax.networks import ACTIVATIONS, MLP, Dense, FirstLayer, RunningMoments
from tradax.policies import Head, NetworkPolicy
from tradax.reading import (
    MOST_BYTES,
    Archive,
    archive_of,
    check_version,
    json_value,
    opened,
    tensors,
)
from tradax.spaces import ActionSpec, Spec

FORMAT = "tradax-policy"
VERSION = 1
_MOST_JSON = 2**20


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
        "policy.json": json.dumps(description, indent=2, sort_keys=True, allow_nan=False).encode(),
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
    with opened(path, path) as archive:
        return read_policy_entries(archive)


def read_policy_entries(archive: Archive) -> PolicyFile:
    """What `policy_entries` put into a zip."""
    path = archive.source
    description = json_value(archive.entry("policy.json", _MOST_JSON), f"{path}, policy.json")
    policy = _blank(description, path)
    leaves = _named_leaves(policy)
    size = sum(leaf.size * 4 for _, leaf in leaves) + 2**16
    found, _ = tensors(archive.entry("policy.safetensors", size), f"{path}, policy.safetensors")
    for name, leaf in leaves:
        tensor = found.get(name)
        if tensor is None or tensor.shape != leaf.shape or tensor.dtype != np.float32:
            got = "missing" if tensor is None else f"{tensor.dtype} {list(tensor.shape)}"
            raise ModelFileError(f"{path}: {name} is {got}; expected float32 {list(leaf.shape)}")
        # No variance and no count of the normaliser's is below 0.
        least = 0.0 if name in ("normalizer.var", "normalizer.count") else -np.inf
        if not (np.isfinite(tensor).all() and (tensor >= least).all()):
            raise ModelFileError(
                f"{path}: {name} holds numbers that are not finite, or a negative variance; the "
                "file is damaged, or was written by a training that failed"
            )
    values = [jnp.asarray(found[name]) for name, _ in leaves]
    policy = jax.tree.unflatten(jax.tree.structure(policy), values)
    return PolicyFile(policy, description["metadata"])


def _blank(description: Any, path: Path | str) -> NetworkPolicy:
    """A policy of the described structure whose leaves are shapes."""
    try:
        if description["format"] != FORMAT:
            raise KeyError("format")
        check_version(description["version"], VERSION, path)
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
        if not all(a <= b and math.isfinite(b - a) for a, b in zip(low, high, strict=True)):
            raise ValueError("bounds of actions that are no intervals")
        layer_norm = bool(description.get("layer_norm", False))
        bounds = tuple(float(x) for x in description.get("log_std_bounds", ()))
        if len(bounds) != (2 if head == "tanh_gaussian" else 0):
            raise KeyError("log_std_bounds")
        has_log_std, has_normalizer = bool(description["log_std"]), bool(description["normalizer"])
        description["metadata"].items()
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{path}: policy.json is not a policy ({error})") from None

    outputs = spec.action.size * (2 if head == "tanh_gaussian" else 1)
    sizes = (spec.size, *hidden, outputs)
    if sum(a * b for a, b in itertools.pairwise(sizes)) * 4 > MOST_BYTES:
        raise ModelFileError(f"{path}: announces a network of more than {MOST_BYTES} bytes")

    def leaf(*shape: int) -> Any:
        return jax.ShapeDtypeStruct(shape, jnp.float32)

    layers = [(leaf(a, b), leaf(b)) for a, b in itertools.pairwise(sizes)]
    first = FirstLayer(
        leaf(spec.market, sizes[1]) if spec.market else None,
        leaf(spec.account, sizes[1]),
        leaf(sizes[1]),
    )
    rest = tuple(Dense(*layer) for layer in layers[1:])
    moments = RunningMoments(leaf(), leaf(spec.account), leaf(spec.account))
    return NetworkPolicy(
        network=MLP(first, rest, activation, layer_norm),
        log_std=leaf(spec.action.size) if has_log_std else None,
        normalizer=moments if has_normalizer else None,
        spec=spec,
        head=head,
        log_std_bounds=bounds,
    )


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
