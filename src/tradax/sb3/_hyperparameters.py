"""Our options by the names of Stable-Baselines3's constructor arguments."""

import re
from typing import Any

from tradax.sb3._weights import ON_POLICY, plain, reward_scale

_ON_POLICY = ("n_steps", "gae_lambda", "normalize_advantage")
_GRADIENT = ("ent_coef", "vf_coef", "max_grad_norm")
_OFF_POLICY = (
    "buffer_size",
    "learning_starts",
    "batch_size",
    "tau",
    "train_freq",
    "gradient_steps",
    "n_steps",
    "optimize_memory_usage",
)
_TD3 = ("policy_delay", "target_policy_noise", "target_noise_clip")
_COMMON = ("learning_rate", "gamma", "seed", "verbose", "tensorboard_log")
ARGUMENTS = {
    "ppo": (
        *(*_COMMON, *_ON_POLICY, *_GRADIENT),
        *("batch_size", "n_epochs", "clip_range", "clip_range_vf", "target_kl"),
    ),
    "a2c": (*_COMMON, *_ON_POLICY, *_GRADIENT),
    "trpo": (
        *(*_COMMON, *_ON_POLICY, "batch_size", "cg_max_steps", "cg_damping", "target_kl"),
        *("line_search_shrinking_factor", "line_search_max_iter"),
        *("n_critic_updates", "sub_sampling_factor"),
    ),
    "ddpg": (*_COMMON, *_OFF_POLICY),
    "td3": (*_COMMON, *_OFF_POLICY, *_TD3),
    "sac": (*_COMMON, *_OFF_POLICY, "ent_coef", "target_update_interval", "target_entropy"),
}
"""The constructor arguments that a file keeps as attributes of the same names."""


def arguments_of(name: str, algorithm: Any, learner: Any) -> dict[str, Any]:
    """Constructor arguments with which Stable-Baselines3 goes on as ours would.

    Rates that anneal stand as they begin. What it has no word for is left out.
    """
    c, scale = algorithm.config, reward_scale(algorithm, learner)
    if name in ON_POLICY:
        found = {
            "learning_rate": plain(c.learning_rate),
            "n_steps": c.n_steps,
            "gamma": plain(c.gamma),
            "gae_lambda": plain(c.gae_lambda),
            "normalize_advantage": c.normalize_advantages,
        }
        rows = c.num_envs * c.n_steps
        if name == "trpo":
            return found | {
                "batch_size": rows // c.critic_minibatches,
                "cg_max_steps": c.cg_iterations,
                "cg_damping": plain(c.damping),
                "line_search_shrinking_factor": plain(c.line_search_shrink),
                "line_search_max_iter": c.line_search_steps,
                "n_critic_updates": c.critic_epochs,
                "target_kl": plain(c.target_kl),
                "sub_sampling_factor": c.fisher_samples,
            }
        advantage = 1.0 if c.normalize_advantages else 1.0 / scale
        found |= {
            "ent_coef": plain(c.entropy_coefficient) * advantage,
            # Ours halves the squared error, and of raw rewards it is scale^2 times smaller.
            "vf_coef": plain(c.value_coefficient) / 2.0,
            "max_grad_norm": plain(c.max_grad_norm),
        }
        if name == "ppo":
            limit = c.value_clip_range
            found |= {
                "batch_size": rows // c.minibatches,
                "n_epochs": c.epochs,
                "clip_range": plain(c.clip_range),
                "clip_range_vf": None if limit is None else plain(limit) / scale,
                "target_kl": None if c.target_kl is None else plain(c.target_kl),
            }
        return found
    found = {
        "learning_rate": plain(c.actor_learning_rate),
        "buffer_size": c.replay_size,
        "learning_starts": c.learning_starts,
        "batch_size": c.batch_size,
        "tau": plain(c.tau),
        "gamma": plain(c.gamma),
        "train_freq": c.n_steps,
        "gradient_steps": c.gradient_steps,
        "n_steps": c.return_steps,
        "optimize_memory_usage": False,
    }
    if name == "td3":
        found |= {
            "policy_delay": c.policy_delay,
            "target_policy_noise": plain(c.target_noise),
            "target_noise_clip": plain(c.target_noise_clip),
        }
    if name == "sac":
        wanted = c.target_entropy
        temperature = plain(c.temperature) / scale
        found |= {
            "ent_coef": "auto" if c.learn_temperature else temperature,
            "target_update_interval": c.target_update_every,
            "target_entropy": -float(algorithm.spec.action.size) if wanted is None else wanted,
        }
    return found


def split(name: str, data: dict[str, Any]) -> tuple[dict, dict, tuple[str, ...]]:
    """`data` of a file as constructor arguments, other plain values, and what is in neither.

    Objects that were pickled are left out, except constant schedules, whose text says all.
    """
    arguments, rest, left_out = {}, {}, []
    for key, value in data.items():
        pickled = isinstance(value, dict) and ":serialized:" in value
        if pickled:
            constant = re.fullmatch(
                r"ConstantSchedule\(val=([-+.\deE]+)\)", str(value.get("value_schedule", ""))
            )
            if constant is None:
                if key in ARGUMENTS[name] or key == "action_noise":
                    left_out.append(f"{key} is kept as code, which is not read; set it anew")
                continue
            value = float(constant[1])
        (arguments if key in ARGUMENTS[name] else rest)[key] = value
    return arguments, rest, tuple(left_out)
