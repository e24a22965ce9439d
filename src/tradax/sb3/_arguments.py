"""Stable-Baselines3's constructor arguments in terms of our options.

What has no counterpart is an error that says so; nothing is ignored in silence.
"""

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np

from tradax.algorithms import a2c, ddpg, ppo, sac, td3, trpo
from tradax.errors import ConfigError
from tradax.networks import ACTIVATIONS

Arguments = dict[str, Any]
Schedule = Callable[[float], float]

_POLICIES = ("MlpPolicy", "ActorCriticPolicy", "TD3Policy", "SACPolicy")
_SCHEDULES = {
    "ppo": {
        "learning_rate": "learning_rate",
        "clip_range": "clip_range",
        "clip_range_vf": "value_clip_range",
    },
    "a2c": {"learning_rate": "learning_rate"},
    "trpo": {"learning_rate": "learning_rate"},
}
_UNSUPPORTED = {
    "use_sde": False,
    "sde_sample_freq": -1,
    "use_sde_at_warmup": False,
    "rollout_buffer_class": None,
    "rollout_buffer_kwargs": None,
    "replay_buffer_class": None,
    "replay_buffer_kwargs": None,
    "optimize_memory_usage": False,
    "use_rms_prop": True,
    "rms_prop_eps": 1e-5,
    "_init_setup_model": True,
}
"""Arguments that are taken at these values only."""


class Networks(NamedTuple):
    """What `policy_kwargs` say."""

    hidden_sizes: tuple[int, ...]
    activation: str
    initial_log_std: float
    critics: int


def check(name: str, policy: Any, arguments: Arguments) -> None:
    """Raises ConfigError for a policy, or arguments, that are not supported."""
    called = policy if isinstance(policy, str) else getattr(policy, "__name__", str(policy))
    if called not in _POLICIES:
        raise ConfigError(f"policy {called} is not supported; use MlpPolicy")
    for argument, accepted in _UNSUPPORTED.items():
        if arguments.get(argument, accepted) not in (accepted, {}):
            raise ConfigError(
                f"{name.upper()}: {argument}={arguments[argument]!r} is not supported; leave it at "
                f"{accepted!r}"
            )


def device_of(name: Any) -> str:
    """Raises ConfigError for a device on which JAX does not run here."""
    kind = str(name).partition(":")[0]
    if kind not in ("auto", jax.default_backend(), {"gpu": "cuda"}.get(jax.default_backend())):
        raise ConfigError(
            f"device={name!r} is not where JAX runs here, which is {jax.default_backend()}; leave "
            "it at auto, and choose by JAX_PLATFORMS"
        )
    return jax.default_backend()


def config_of(name: str, arguments: Arguments, num_envs: int) -> Any:
    """The options of algorithm `name` that mean what the arguments mean.

    Raises:
        ConfigError: a value that is not supported, or is out of bounds.
    """
    networks = _networks(name, arguments.get("policy_kwargs") or {})
    make = {"ppo": _ppo, "a2c": _a2c, "trpo": _trpo, "ddpg": _ddpg, "td3": _td3, "sac": _sac}
    return make[name](arguments, num_envs, networks)


def schedules(name: str, arguments: Arguments) -> dict[str, Schedule]:
    """Option -> how it follows what remains of training, from 1 to 0; of those that change."""
    learning_rates = {
        "learning_rate": ("actor_learning_rate", "critic_learning_rate")
        + (("temperature_learning_rate",) if name == "sac" else ())
    }
    found = {}
    options = _SCHEDULES.get(name) or learning_rates
    for argument, names in options.items():
        if callable(given := arguments.get(argument)):
            for option in (names,) if isinstance(names, str) else names:
                found[option] = given
    return found


def _now(value: Any) -> Any:
    """A number, or a schedule at the start of training."""
    schedule: Any = value
    return float(schedule(1.0)) if callable(value) else value


def _on_policy(a: Arguments, num_envs: int, networks: Networks) -> dict[str, Any]:
    return {
        "num_envs": num_envs,
        "n_steps": a["n_steps"],
        "learning_rate": _now(a["learning_rate"]),
        "final_learning_rate_fraction": 1.0,
        "gamma": a["gamma"],
        "gae_lambda": a["gae_lambda"],
        "normalize_advantages": a["normalize_advantage"],
        "normalize_observations": False,
        "normalize_rewards": False,
        "hidden_sizes": networks.hidden_sizes,
        "activation": networks.activation,
        "initial_log_std": networks.initial_log_std,
    }


def _gradient(a: Arguments, num_envs: int, networks: Networks) -> dict[str, Any]:
    return _on_policy(a, num_envs, networks) | {
        "entropy_coefficient": a["ent_coef"],
        # Our value loss is half the mean squared error.
        "value_coefficient": 2.0 * a["vf_coef"],
        "max_grad_norm": a["max_grad_norm"],
    }


def _ppo(a: Arguments, num_envs: int, networks: Networks) -> ppo.Config:
    return ppo.Config(
        **_gradient(a, num_envs, networks),
        epochs=a["n_epochs"],
        minibatches=_minibatches(a, num_envs),
        clip_range=_now(a["clip_range"]),
        value_clip_range=_now(a["clip_range_vf"]),
        target_kl=a["target_kl"],
    )


def _a2c(a: Arguments, num_envs: int, networks: Networks) -> a2c.Config:
    return a2c.Config(**_gradient(a, num_envs, networks))


def _trpo(a: Arguments, num_envs: int, networks: Networks) -> trpo.Config:
    return trpo.Config(
        **_on_policy(a, num_envs, networks),
        max_grad_norm=1e9,  # its critic's gradients are not clipped
        target_kl=a["target_kl"],
        damping=a["cg_damping"],
        cg_iterations=a["cg_max_steps"],
        fisher_samples=a["sub_sampling_factor"],
        line_search_steps=a["line_search_max_iter"],
        line_search_shrink=a["line_search_shrinking_factor"],
        critic_epochs=a["n_critic_updates"],
        critic_minibatches=_minibatches(a, num_envs),
    )


def _minibatches(a: Arguments, num_envs: int) -> int:
    rows, size = a["n_steps"] * num_envs, a["batch_size"]
    if size >= rows:
        return 1
    if size < 1 or rows % size:
        near = [n for n in range(1, rows + 1) if rows % n == 0]
        near.sort(key=lambda n: abs(n - size))
        raise ConfigError(
            f"batch_size {size} does not divide a rollout of {a['n_steps']} x {num_envs} steps; "
            f"use {near[0]} or {near[1]}"
        )
    return rows // size


def _off_policy(a: Arguments, num_envs: int, networks: Networks, delay: int = 1) -> dict[str, Any]:
    freq = a["train_freq"]
    if not isinstance(freq, int):
        count, unit = freq
        if unit != "step":
            raise ConfigError(f"train_freq={freq!r} is not supported; count in steps: {count}")
        freq = count
    steps = a["gradient_steps"]
    if steps == -1:
        steps = freq * num_envs
    if steps < 1:
        raise ConfigError(f"gradient_steps is {steps}; it must be at least 1, or -1")
    # Updates come less often where the policy would move only in some of them.
    rounds = delay // math.gcd(delay, steps)
    rate = _now(a["learning_rate"])
    return {
        "num_envs": num_envs,
        "n_steps": freq * rounds,
        "update_to_data": steps / (freq * num_envs),
        "learning_starts": max(1, a["learning_starts"]),
        "batch_size": a["batch_size"],
        "replay_size": a["buffer_size"],
        "return_steps": a["n_steps"],
        "gamma": a["gamma"],
        "tau": a["tau"],
        "actor_learning_rate": rate,
        "critic_learning_rate": rate,
        "normalize_observations": False,
        "normalize_rewards": False,
        "reward_scale": 1.0,
        "hidden_sizes": networks.hidden_sizes,
        "activation": networks.activation,
        **_noise(a.get("action_noise")),
    }


def _ddpg(a: Arguments, num_envs: int, networks: Networks) -> ddpg.Config:
    return ddpg.Config(**_off_policy(a, num_envs, networks))


def _td3(a: Arguments, num_envs: int, networks: Networks) -> td3.Config:
    return td3.Config(
        **_off_policy(a, num_envs, networks, a["policy_delay"]),
        policy_delay=a["policy_delay"],
        target_noise=a["target_policy_noise"],
        target_noise_clip=a["target_noise_clip"],
        critics=networks.critics,
    )


def _sac(a: Arguments, num_envs: int, networks: Networks) -> sac.Config:
    wanted, coefficient = a["target_entropy"], a["ent_coef"]
    learned = isinstance(coefficient, str)
    if learned:
        word, _, start = coefficient.partition("_")
        if word != "auto":
            raise ConfigError(f"ent_coef={coefficient!r} is neither a number nor auto")
        coefficient = float(start or 1.0)
    return sac.Config(
        **_off_policy(a, num_envs, networks),
        target_update_every=a["target_update_interval"],
        learn_temperature=learned,
        temperature=coefficient,
        temperature_learning_rate=_now(a["learning_rate"]),
        target_entropy=None if wanted == "auto" else float(wanted),
        critics=networks.critics,
    )


def _networks(name: str, given: dict[str, Any]) -> Networks:
    on_policy = name in ("ppo", "a2c", "trpo")
    rest = dict(given)
    default = [64, 64] if on_policy else [256, 256] if name == "sac" else [400, 300]
    sizes = rest.pop("net_arch", None)
    sizes = default if sizes is None else sizes
    if isinstance(sizes, dict):
        both = ("pi", "vf") if on_policy else ("pi", "qf")
        if set(sizes) != set(both) or list(sizes[both[0]]) != list(sizes[both[1]]):
            raise ConfigError(
                f"net_arch={sizes!r} is not supported; {both[0]} and {both[1]} must be given, and "
                "be the same"
            )
        sizes = sizes[both[0]]
    activation = rest.pop("activation_fn", "tanh" if on_policy else "relu")
    activation = getattr(activation, "__name__", str(activation)).lower()
    if activation not in ACTIVATIONS:
        raise ConfigError(
            f"activation_fn {activation} is not supported; use one of {', '.join(ACTIVATIONS)}"
        )
    log_std = rest.pop("log_std_init", 0.0) if on_policy else 0.0
    critics = 1 if on_policy or name == "ddpg" else rest.pop("n_critics", 2)
    if name == "ddpg" and rest.pop("n_critics", 1) != 1:
        raise ConfigError("DDPG has one critic; n_critics other than 1 is not supported")
    if rest.pop("ortho_init", True) is not True:
        raise ConfigError("ortho_init=False is not supported; weights start orthogonal")
    if rest:
        raise ConfigError(
            f"policy_kwargs {', '.join(rest)} are not supported; net_arch, activation_fn"
            f"{', log_std_init' if on_policy else ', n_critics'} are"
        )
    return Networks(tuple(int(n) for n in sizes), activation, float(log_std), int(critics))


def _noise(noise: Any) -> dict[str, Any]:
    """Stable-Baselines3's noise objects, which act on actions between -1 and 1, as ours do."""
    if noise is None:
        return {"noise": "none"}
    kind = type(noise).__name__
    if kind == "VectorizedActionNoise":
        noise = noise.base_noise
        kind = type(noise).__name__
    if kind not in ("NormalActionNoise", "OrnsteinUhlenbeckActionNoise"):
        raise ConfigError(
            f"action_noise {kind} is not supported; use NormalActionNoise or "
            "OrnsteinUhlenbeckActionNoise"
        )
    mean, sigma = np.unique(noise._mu), np.unique(noise._sigma)
    if len(sigma) != 1 or np.any(mean != 0):
        raise ConfigError(
            "action_noise must have mean 0 and the same sigma in all dimensions; it has mean "
            f"{noise._mu} and sigma {noise._sigma}"
        )
    if kind == "NormalActionNoise":
        return {"noise": "gaussian", "noise_scale": float(sigma[0])}
    if noise.initial_noise is not None and np.any(noise.initial_noise):
        raise ConfigError("action_noise must begin at 0; leave out initial_noise")
    # x <- x - theta x dt + sigma sqrt(dt) N(0, 1), by its forgetting and long-run deviation.
    theta = float(noise._theta * noise._dt)
    spread = float(sigma[0]) * math.sqrt(noise._dt / (1.0 - (1.0 - theta) ** 2))
    return {"noise": "ou", "ou_theta": theta, "noise_scale": spread}
