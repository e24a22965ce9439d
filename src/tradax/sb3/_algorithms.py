"""The classes, with Stable-Baselines3's arguments in its order and with its defaults."""

from collections.abc import Callable
from typing import Any

from tradax.sb3._model import Model

Rate = float | Callable[[float], float]
"""A number, or a function of what remains of training, from 1 to 0."""
Freq = int | tuple[int, str]


def given(local_variables: dict[str, Any]) -> dict[str, Any]:
    """A constructor's arguments, but for policy and environment."""
    apart = ("self", "policy", "env", "__class__")
    return {name: value for name, value in local_variables.items() if name not in apart}


class PPO(Model):
    """Proximal policy optimisation, clipped (`tradax.algorithms.ppo`).

    The arguments are Stable-Baselines3's; see docs/sb3.md for those that are not supported.

    Raises:
        ConfigError: an argument has no counterpart, or is out of bounds.
        TradaxError: the environment's spaces are not supported.
    """

    name = "ppo"

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: Rate = 3e-4,
        n_steps: int = 2048,
        batch_size: int = 64,
        n_epochs: int = 10,
        gamma: float = 0.99,
        gae_lambda: float = 0.95,
        clip_range: Rate = 0.2,
        clip_range_vf: Rate | None = None,
        normalize_advantage: bool = True,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: Any = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        target_kl: float | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: Any = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(policy, env, given(locals()))


class A2C(Model):
    """Advantage actor-critic (`tradax.algorithms.a2c`).

    The arguments are Stable-Baselines3's; see docs/sb3.md for those that are not supported.

    Raises:
        ConfigError: an argument has no counterpart, or is out of bounds.
        TradaxError: the environment's spaces are not supported.
    """

    name = "a2c"
    log_interval = 100

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: Rate = 7e-4,
        n_steps: int = 5,
        gamma: float = 0.99,
        gae_lambda: float = 1.0,
        ent_coef: float = 0.0,
        vf_coef: float = 0.5,
        max_grad_norm: float = 0.5,
        rms_prop_eps: float = 1e-5,
        use_rms_prop: bool = True,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: Any = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: Any = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(policy, env, given(locals()))


class TRPO(Model):
    """Trust region policy optimisation, as sb3-contrib has it (`tradax.algorithms.trpo`).

    The arguments are Stable-Baselines3's; see docs/sb3.md for those that are not supported.

    Raises:
        ConfigError: an argument has no counterpart, or is out of bounds.
        TradaxError: the environment's spaces are not supported.
    """

    name = "trpo"

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: Rate = 1e-3,
        n_steps: int = 2048,
        batch_size: int = 128,
        gamma: float = 0.99,
        cg_max_steps: int = 15,
        cg_damping: float = 0.1,
        line_search_shrinking_factor: float = 0.8,
        line_search_max_iter: int = 10,
        n_critic_updates: int = 10,
        gae_lambda: float = 0.95,
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        rollout_buffer_class: Any = None,
        rollout_buffer_kwargs: dict[str, Any] | None = None,
        normalize_advantage: bool = True,
        target_kl: float = 0.01,
        sub_sampling_factor: int = 1,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: Any = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(policy, env, given(locals()))


class DDPG(Model):
    """Deep deterministic policy gradient (`tradax.algorithms.ddpg`).

    The arguments are Stable-Baselines3's; see docs/sb3.md for those that are not supported.

    Raises:
        ConfigError: an argument has no counterpart, or is out of bounds.
        TradaxError: the environment's spaces are not supported.
    """

    name = "ddpg"
    log_interval = 4
    counts_episodes = True

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: Rate = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: Freq = 1,
        gradient_steps: int = 1,
        action_noise: Any = None,
        replay_buffer_class: Any = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: Any = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(policy, env, given(locals()))


class TD3(Model):
    """Twin delayed DDPG (`tradax.algorithms.td3`).

    The arguments are Stable-Baselines3's; see docs/sb3.md for those that are not supported.

    Raises:
        ConfigError: an argument has no counterpart, or is out of bounds.
        TradaxError: the environment's spaces are not supported.
    """

    name = "td3"
    log_interval = 4
    counts_episodes = True

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: Rate = 1e-3,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: Freq = 1,
        gradient_steps: int = 1,
        action_noise: Any = None,
        replay_buffer_class: Any = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        policy_delay: int = 2,
        target_policy_noise: float = 0.2,
        target_noise_clip: float = 0.5,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: Any = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(policy, env, given(locals()))


class SAC(Model):
    """Soft actor-critic (`tradax.algorithms.sac`).

    The arguments are Stable-Baselines3's; see docs/sb3.md for those that are not supported.

    Raises:
        ConfigError: an argument has no counterpart, or is out of bounds.
        TradaxError: the environment's spaces are not supported.
    """

    name = "sac"
    log_interval = 4
    counts_episodes = True

    def __init__(
        self,
        policy: Any,
        env: Any,
        learning_rate: Rate = 3e-4,
        buffer_size: int = 1_000_000,
        learning_starts: int = 100,
        batch_size: int = 256,
        tau: float = 0.005,
        gamma: float = 0.99,
        train_freq: Freq = 1,
        gradient_steps: int = 1,
        action_noise: Any = None,
        replay_buffer_class: Any = None,
        replay_buffer_kwargs: dict[str, Any] | None = None,
        optimize_memory_usage: bool = False,
        n_steps: int = 1,
        ent_coef: str | float = "auto",
        target_update_interval: int = 1,
        target_entropy: str | float = "auto",
        use_sde: bool = False,
        sde_sample_freq: int = -1,
        use_sde_at_warmup: bool = False,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        policy_kwargs: dict[str, Any] | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: Any = "auto",
        _init_setup_model: bool = True,
    ):
        super().__init__(policy, env, given(locals()))
