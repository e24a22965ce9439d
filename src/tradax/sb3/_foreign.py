"""Files that Stable-Baselines3 wrote itself: plain text and numbers, never what was pickled."""

import re
from typing import Any

from tradax.errors import ModelFileError
from tradax.reading import Archive, json_value
from tradax.sb3 import _spaces, _torch_file
from tradax.sb3._hyperparameters import split
from tradax.sb3._opcodes import Call, Global

_TORCH = "torch.nn.modules.activation"
_ACTIVATIONS = {"tanh": "Tanh", "relu": "ReLU", "elu": "ELU", "silu": "SiLU"}
_GELU = f"functools.partial(<class '{_TORCH}.GELU'>, 'tanh')"
_POLICY_MODULES = (
    "stable_baselines3.common.policies",
    "stable_baselines3.td3.policies",
    "stable_baselines3.sac.policies",
)
_POLICY_KWARGS = frozenset(
    {"net_arch", "activation_fn", "log_std_init", "ortho_init", "optimizer_class", "full_std"}
    | {"optimizer_kwargs", "n_critics", "use_sde", "share_features_extractor", "normalize_images"}
)
_FILES = ("policy", "policy.optimizer", "actor.optimizer", "critic.optimizer")
_MOST_DATA = 2**26  # bytes of JSON; some hold the last observations
_SAC_FILES = ("ent_coef_optimizer", "pytorch_variables")


def activation_code(activation: str) -> Any:
    """What names it in a pickle."""
    if activation == "gelu":  # ours is the approximation by tanh
        return Call(Global("functools", "partial"), (Global(_TORCH, "GELU"), "tanh"))
    return Global(_TORCH, _ACTIVATIONS[activation])


def shown(code: Any) -> str:
    """The text that stands beside."""
    return _GELU if isinstance(code, Call) else f"<class '{code.module}.{code.name}'>"


def read(archive: Archive) -> dict[str, Any]:
    """The fields of a `ModelFile`.

    Raises:
        ModelFileError: damaged, or of an algorithm, policy or space that is not read.
    """
    source, data = archive.source, _data(archive)
    module = data.get("policy_class", {})
    module = module.get("__module__") if isinstance(module, dict) else None
    if module not in _POLICY_MODULES:
        raise ModelFileError(
            f"{source}: its policy is of {module}; only Stable-Baselines3's MlpPolicy is read"
        )
    spaces = {
        key: _spaces.read(data.get(key), key, source)
        for key in ("observation_space", "action_space")
    }
    if data.get("use_sde"):
        raise ModelFileError(f"{source}: state-dependent exploration (use_sde) is not read")
    states = _states(archive)
    policy = states["policy"]
    if not isinstance(policy, dict):
        raise ModelFileError(f"{source}: policy.pth holds no networks")
    critics = len({key.split(".")[1] for key in policy if str(key).startswith("critic.qf")})
    name = _algorithm(data, critics, source)
    kwargs = data.get("policy_kwargs")
    kwargs = kwargs if isinstance(kwargs, dict) else {}
    plain = {key: value for key, value in kwargs.items() if not key.startswith(":")}
    if odd := sorted(set(plain) - _POLICY_KWARGS):
        raise ModelFileError(f"{source}: policy_kwargs {', '.join(odd)} are not supported")
    default = "relu" if critics else "tanh"
    arguments, rest, left_out = split(name, data)
    optimiser = str(plain.get("optimizer_class", ""))
    if optimiser and not (name == "a2c" and "RMSprop" in optimiser):
        left_out = (*left_out, f"the optimiser {optimiser} is not taken over; ours begins anew")
    for key in (*spaces, "policy_class", "policy_kwargs"):
        rest.pop(key, None)
    return {
        "algorithm": name,
        "spec": _spaces.spec_of(spaces["observation_space"], spaces["action_space"], source),
        "hidden_sizes": _hidden_sizes(policy, name, source),
        "activation": _activation(plain.get("activation_fn"), default, source),
        "critics": critics,
        "arguments": arguments,
        "data": rest,
        **spaces,
        "left_out": left_out,
        "states": states,
    }


def _data(archive: Archive) -> dict[str, Any]:
    source = archive.source
    if "data" not in archive:
        raise ModelFileError(f"{source}: has no data; it is no model file of Stable-Baselines3")
    # Python writes infinity and NaN into JSON, and Stable-Baselines3 lets it.
    data = json_value(archive.entry("data", _MOST_DATA), f"{source}: data", infinite=True)
    if not isinstance(data, dict):
        raise ModelFileError(f"{source}: data is damaged (it is no object)")
    return data


def _states(archive: Archive) -> dict[str, Any]:
    states = {}
    for name in (*_FILES, *_SAC_FILES):
        file = f"{name}.pth"
        if file in archive or name == "policy":
            states[name] = _torch_file.read(archive.entry(file), f"{archive.source}, {file}")
    return states


def _algorithm(data: dict[str, Any], critics: int, source: str) -> str:
    """By the attributes that only one of them has."""
    if "cg_max_steps" in data:
        return "trpo"
    if "clip_range" in data and "n_epochs" in data:
        return "ppo"
    if "gae_lambda" in data and "ent_coef" in data:
        return "a2c"
    if "target_entropy" in data and "top_quantiles_to_drop_per_net" not in data:
        return "sac"
    if "policy_delay" in data:
        plain = data["policy_delay"] == 1 and data.get("target_noise_clip") == 0 and critics == 1
        return "ddpg" if plain else "td3"
    raise ModelFileError(
        f"{source}: not a model of PPO, A2C, TRPO, DDPG, TD3 or SAC, which are those that are read"
    )


def _activation(text: Any, default: str, source: str) -> str:
    if text is None:
        return default
    if str(text).replace("approximate=", "") == _GELU:
        return "gelu"
    found = re.fullmatch(rf"<class '{re.escape(_TORCH)}\.(\w+)'>", str(text))
    names = {theirs: ours for ours, theirs in _ACTIVATIONS.items()}
    if found is None or found[1] not in names:
        raise ModelFileError(
            f"{source}: activation_fn {text} is not supported; {', '.join(names)} are"
        )
    return names[found[1]]


def _hidden_sizes(policy: dict[str, Any], name: str, source: str) -> tuple[int, ...]:
    """Widths of the hidden layers, the same in policy and critics."""
    if name in ("ppo", "a2c", "trpo"):
        starts = ("mlp_extractor.policy_net", "mlp_extractor.value_net")
        actor, critic = (_widths(policy, start) for start in starts)
    else:
        actor = _widths(policy, "actor.latent_pi" if name == "sac" else "actor.mu")
        critic = _widths(policy, "critic.qf0")[:-1]
        actor = actor if name == "sac" else actor[:-1]
    if actor != critic:
        raise ModelFileError(
            f"{source}: hidden layers {list(actor)} of the policy and {list(critic)} of the "
            "critic; only equal ones are read"
        )
    return actor


def _widths(policy: dict[str, Any], start: str) -> tuple[int, ...]:
    widths = []
    while (weight := policy.get(f"{start}.{2 * len(widths)}.weight")) is not None:
        widths.append(int(weight.shape[0]) if getattr(weight, "ndim", 0) == 2 else 0)
    return tuple(widths)
