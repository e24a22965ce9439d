"""Model files that Stable-Baselines3 opens, and its own read without running code.

    data, policy.pth, *.optimizer.pth, ...    for Stable-Baselines3 (`_foreign` reads its own)
    policy.json, policy.safetensors           the policy, as `tradax.model_file` writes it
    learner.safetensors                       everything that is learned, but for replayed steps

Of a file that tradax wrote, only the last three are read, unless it is to be a model that scales
nothing and its training did: then what is for Stable-Baselines3, where that is folded in.
"""

import base64
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO

import jax
import jax.numpy as jnp
import numpy as np

from tradax.errors import ConfigError, ModelFileError
from tradax.files import write_atomic
from tradax.model_file import policy_entries, read_policy_entries
from tradax.reading import Archive, archive_of, check_version, opened, read_bytes, tensors
from tradax.sb3 import _foreign, _opcodes, _spaces, _torch_file, _weights
from tradax.sb3._hyperparameters import arguments_of
from tradax.sb3._opcodes import Global
from tradax.spaces import Spec

VERSION = "2.9.2"  # of Stable-Baselines3, whose files these are like
_VERSION = 1  # of our own entries
_ABOUT = "stable_baselines3"  # where the policy's metadata keep what its file needs beside
_POLICIES = {
    "on": Global("stable_baselines3.common.policies", "ActorCriticPolicy"),
    "td3": Global("stable_baselines3.td3.policies", "TD3Policy"),
    "ddpg": Global("stable_baselines3.td3.policies", "TD3Policy"),
    "sac": Global("stable_baselines3.sac.policies", "SACPolicy"),
}


@dataclass(frozen=True)
class ModelFile:
    """What a model file says, in plain values."""

    algorithm: str
    """ppo, a2c, trpo, ddpg, td3 or sac."""
    ours: bool
    """Whether tradax wrote it."""
    spec: Spec
    hidden_sizes: tuple[int, ...]
    """Of the policy and of the critics alike."""
    activation: str
    critics: int
    """Action values side by side; 0 where values are of states."""
    arguments: dict[str, Any]
    """Stable-Baselines3's constructor arguments; `policy_kwargs` are the three above."""
    data: dict[str, Any]
    """Other plain values: num_timesteps, n_envs, ..."""
    observation_space: _spaces.Space
    action_space: _spaces.Space
    left_out: tuple[str, ...] = ()
    """Sentences on what was not taken over."""
    states: dict[str, Any] = field(default_factory=dict, repr=False)
    """State dictionaries, of a file of Stable-Baselines3."""
    tensors: dict[str, np.ndarray] = field(default_factory=dict, repr=False)
    """By their place in the learner, of our own."""
    source: str = "file"

    def restore(self, algorithm: Any, learner: Any) -> Any:
        """`learner` with what was learned: networks, optimisers, statistics; its replay stays.

        Raises:
            ModelFileError: it was built for other networks or options.
        """
        if _weights.name_of(algorithm) != self.algorithm:
            raise ModelFileError(
                f"{self.source}: a model of {self.algorithm}, not {_weights.name_of(algorithm)}"
            )
        if not self.ours:
            return _weights.from_state(algorithm, learner, self.states, self.source)
        return _restored(learner, self.tensors, self.source)


def save_model(
    path: Path | str | BinaryIO,
    algorithm: Any,
    learner: Any,
    *,
    arguments: dict[str, Any] | None = None,
    data: dict[str, Any] | None = None,
    observation_space: Any = None,
    action_space: Any = None,
    metadata: dict[str, Any] | None = None,
) -> None:
    """Write a zip that Stable-Baselines3's (or sb3-contrib's) class of this algorithm loads.

    Args:
        path: `.zip` is added where it has no suffix; or a binary file.
        arguments: its constructor arguments, of plain values, in place of what follows from the
            algorithm's options.
        data: other plain values that it keeps: `num_timesteps`, `_n_updates`, `n_envs`, ...
        observation_space, action_space: with their true bounds, which it compares with those of
            an environment on which it goes on learning. None: without bounds; of the policy.
        metadata: JSON values kept beside the policy.

    Raises:
        ConfigError: Stable-Baselines3 has no such algorithm or no such options, or a value is not
            plain.
    """
    name = _weights.name_of(algorithm)
    states = _weights.to_state(algorithm, learner)
    policy, spec = algorithm.policy(learner), algorithm.spec
    spaces = {
        "observation_space": observation_space or _spaces.observation_space(spec.size),
        "action_space": action_space or _spaces.action_space(spec.action),
    }
    described = {key: _spaces.described(space) for key, space in spaces.items()}
    arguments = arguments_of(name, algorithm, learner) | (arguments or {})
    data = {"num_timesteps": 0, "n_envs": 1, "_n_updates": 0} | (data or {})
    about = {
        "version": _VERSION,
        "algorithm": name,
        "arguments": arguments,
        "data": data,
        "critics": getattr(algorithm.config, "critics", 1) if "actor.optimizer" in states else 0,
        "plain": _weights.is_plain(algorithm, learner),
        **{key: _without_pickle(entry) for key, entry in described.items()},
    }
    attributes = {
        "policy_class": _policy_class(name),
        "policy_kwargs": _policy_kwargs(name, algorithm.config),
        **_ATTRIBUTES,
        **data,
        **arguments,
        **described,
    }
    try:
        entries = {"data": json.dumps(attributes, indent=4, allow_nan=False).encode()}
    except (TypeError, ValueError) as error:
        raise ConfigError(
            f"arguments and data of a model file are plain, finite values ({error}); leave out "
            "what is not"
        ) from None
    states = {"pytorch_variables": {}} | states
    entries |= {f"{key}.pth": _torch_file.write(state) for key, state in states.items()}
    entries["_stable_baselines3_version"] = VERSION.encode()
    entries["system_info.txt"] = b"- written by tradax\n"
    entries |= policy_entries(policy, {**(metadata or {}), _ABOUT: about})
    entries["learner.safetensors"] = _learner_entry(learner)
    content = archive_of(entries)
    if isinstance(path, str | Path):
        path = Path(path)
        write_atomic(path if path.suffix else path.with_suffix(".zip"), content)
    else:
        path.write(content)


def open_model(path: Path | str | BinaryIO, *, plain: bool = False) -> ModelFile:
    """Read a model file that tradax or Stable-Baselines3 wrote. Executes no code.

    Args:
        plain: for a model that scales neither observations nor rewards and has two networks, as
            Stable-Baselines3's: where our own training was otherwise, read what it would.

    Raises:
        ModelFileError: neither, damaged, or of an algorithm, policy or space that is not read.
    """
    source = str(path) if isinstance(path, str | Path) else "file"
    with opened(_content(path), source) as archive:
        if "policy.json" in archive:
            return _open_ours(archive, plain)
        return _open_theirs(archive)


def _content(path: Path | str | BinaryIO) -> bytes:
    if not isinstance(path, str | Path):
        return path.read()
    path = Path(path)
    if not path.is_file() and path.with_name(path.name + ".zip").is_file():
        path = path.with_name(path.name + ".zip")
    return read_bytes(path)


_ATTRIBUTES: dict[str, Any] = {
    "verbose": 0,
    "_total_timesteps": 0,
    "_num_timesteps_at_start": 0,
    "seed": None,
    "action_noise": None,
    "tensorboard_log": None,
    "_last_obs": None,
    "_last_episode_starts": None,
    "_last_original_obs": None,
    "_episode_num": 0,
    "use_sde": False,
    "sde_sample_freq": -1,
    "_current_progress_remaining": 1.0,
    "_stats_window_size": 100,
    "ep_info_buffer": None,
    "ep_success_buffer": None,
    "rollout_buffer_class": None,
    "rollout_buffer_kwargs": {},
    "replay_buffer_class": None,
    "replay_buffer_kwargs": {},
    "use_sde_at_warmup": False,
}
"""What its loader or its next `learn` looks up, as it is before the first step."""


def _policy_class(name: str) -> dict[str, Any]:
    which = _POLICIES.get(name, _POLICIES["on"])
    return {
        ":type:": "<class 'abc.ABCMeta'>",
        ":serialized:": _base64(which),
        "__module__": which.module,
    }


def _policy_kwargs(name: str, c: Any) -> dict[str, Any]:
    """Plain JSON unless classes have to be named."""
    plain: dict[str, Any] = {"net_arch": list(c.hidden_sizes)}
    if name in ("td3", "sac", "ddpg"):
        plain["n_critics"] = getattr(c, "critics", 1)
    classes: dict[str, Any] = {}
    if c.activation != ("tanh" if name in _weights.ON_POLICY else "relu"):
        classes["activation_fn"] = _foreign.activation_code(c.activation)
    if name == "a2c":
        plain["optimizer_kwargs"] = {"alpha": 0.99, "eps": 1e-5, "weight_decay": 0}
        classes["optimizer_class"] = Global(
            "stable_baselines3.common.sb2_compat.rmsprop_tf_like", "RMSpropTFLike"
        )
    if not classes:
        return plain
    texts = {key: _foreign.shown(code) for key, code in classes.items()}
    return {
        ":type:": "<class 'dict'>",
        ":serialized:": _base64(plain | classes),
        **plain,
        **texts,
    }


def _base64(value: Any) -> str:
    return base64.b64encode(_opcodes.write(value)).decode()


def _without_pickle(entry: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in entry.items() if key != ":serialized:"}


def _open_theirs(archive: Archive) -> ModelFile:
    return ModelFile(ours=False, source=archive.source, **_foreign.read(archive))


def _open_ours(archive: Archive, plain: bool) -> ModelFile:
    source = archive.source
    policy, metadata = read_policy_entries(archive)
    about = metadata.get(_ABOUT)
    if not isinstance(about, dict) or "learner.safetensors" not in archive:
        raise ModelFileError(
            f"{source}: a policy file, not a model; open it with tradax.load_policy, or write the "
            "run it belongs to with `tradax export --format sb3`"
        )
    check_version(about.get("version", 1), _VERSION, source)
    if plain and about.get("plain") is False:
        return _open_theirs(archive)
    learned = tensors(archive.entry("learner.safetensors"), f"{source}, learner.safetensors")
    try:
        network = policy.network
        return ModelFile(
            algorithm=str(about["algorithm"]),
            ours=True,
            spec=policy.spec,
            hidden_sizes=tuple(int(layer.weight.shape[0]) for layer in network.rest),
            activation=network.activation,
            critics=int(about["critics"]),
            arguments=dict(about["arguments"]),
            data=dict(about["data"]),
            observation_space=_spaces.read(about["observation_space"], "observation_space", source),
            action_space=_spaces.read(about["action_space"], "action_space", source),
            tensors=learned.arrays,
            source=source,
        )
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        if isinstance(error, ModelFileError):
            raise
        raise ModelFileError(f"{source}: damaged ({error})") from None


def _learner_entry(learner: Any) -> bytes:
    from safetensors.numpy import save

    leaves = _named_leaves(learner)
    # safetensors writes the buffer as it lies, so transposed views must be copied first.
    return save({name: np.array(leaf, order="C") for name, leaf in leaves.items()})


def _named_leaves(learner: Any) -> dict[str, Any]:
    leaves, _ = jax.tree_util.tree_flatten_with_path(_lasting(learner))
    return {jax.tree_util.keystr(path): leaf for path, leaf in leaves}


def _lasting(learner: Any) -> Any:
    """A learner without what belongs to the environments that it was collecting from."""
    learner = learner._replace(moments=learner.moments._replace(discounted_return=None))
    return learner._replace(replay=None) if hasattr(learner, "replay") else learner


def _restored(learner: Any, tensors: dict[str, np.ndarray], source: str) -> Any:
    leaves = _named_leaves(learner)
    if odd := sorted(set(leaves) ^ set(tensors)):
        raise ModelFileError(
            f"{source}: the model was built with other options; {odd[0].lstrip('.')} is only in "
            f"{'the file' if odd[0] in tensors else 'the model that it is opened for'}"
        )
    for name, leaf in leaves.items():
        found = tensors[name]
        if found.shape != leaf.shape or found.dtype != leaf.dtype:
            raise ModelFileError(
                f"{source}: {name.lstrip('.')} is {found.dtype}{list(found.shape)}; expected "
                f"{leaf.dtype}{list(leaf.shape)}"
            )
        if found.dtype.kind == "f" and not np.isfinite(found).all():
            raise ModelFileError(f"{source}: {name.lstrip('.')} holds numbers that are not finite")
    structure = jax.tree.structure(_lasting(learner))
    new = jax.tree.unflatten(structure, [jnp.asarray(tensors[name]) for name in leaves])
    last = learner.moments.discounted_return
    new = new._replace(moments=new.moments._replace(discounted_return=last))
    return new._replace(replay=learner.replay) if hasattr(learner, "replay") else new
