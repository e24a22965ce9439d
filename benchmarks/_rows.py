"""The rows of `benchmarks.speed`: what is compared with whom, and what is aimed at.

To add one, add it to `ROWS`; to add a peer, see docs/performance.md.
"""

import os
from typing import Any, Literal, NamedTuple

Case = dict[str, Any]


class Rival(NamedTuple):
    """Another side of a row."""

    plug: str
    label: str
    goal: float | None = None
    """Least ratio of tradax to it."""
    change: Case = {}  # noqa: RUF012 never written to
    """What its case has otherwise."""


class Row(NamedTuple):
    what: str
    case: Case
    rivals: tuple[Rival, ...]
    compared: Literal["steps/s", "FLOP/s", "MiB", "s"] = "steps/s"
    """Speed; memory that training adds; or seconds. Of the last two the ratio is theirs to ours."""
    repeats: int = 5
    seconds: float = 2.0
    """Of a side in each repetition, at least."""
    ours: tuple[Case, ...] = ({},)
    """What the case has otherwise on our side; several are sides of which the fastest counts."""


THREADS: tuple[Case, ...] = tuple({"threads": n} for n in sorted({1, os.cpu_count() or 1}))
"""One and all: which is faster depends on how small the products are."""


def either(plug: str, label: str, goal: float | None = None, **change: Any) -> tuple[Rival, ...]:
    """A peer with one thread and with all; a label's fastest side is what counts."""
    return tuple(Rival(plug, label, goal, {**change, **threads}) for threads in THREADS)


def sb3(goal: float | None = None, label: str = "Stable-Baselines3", **change: Any):
    return either("sb3", label, goal, **change)


PPO: Case = {
    "kind": "ppo",
    "n_steps": 128,
    "epochs": 4,
    "minibatches": 4,
    "hidden_sizes": [64, 64],
    "learning_rate": 1e-3,
    "gamma": 0.99,
    "gae_lambda": 0.95,
    "clip_range": 0.2,
    "max_grad_norm": 0.5,
}
CARTPOLE: Case = {**PPO, "env": "CartPole-v1"}
PORTFOLIO: Case = {
    **PPO,
    "env": "portfolio",
    "features": 400,
    "num_envs": 1_024,
    "updates": 2,
}
SB3_PORTFOLIO: Case = {"num_envs": 8, "n_steps": 64, "numpy": True, "peer_steps": 4_096}
SB3_DEFAULTS: Case = {
    **PPO,
    "env": "trading",
    "num_envs": 1,
    "n_steps": 2_048,
    "epochs": 10,
    "minibatches": 32,
    "learning_rate": 3e-4,
    "updates": 20,
    "peer_steps": 2_048,
}
GENETIC: Case = {
    "kind": "generation",
    "algorithm": "genetic",
    "env": "CartPole-v1",
    "upright": True,
    "population_size": 1_024,
    "episode_limit": 500,
    "hidden_sizes": [64, 64],
    "mutation_scale": 0.02,
}
ES: Case = {
    **GENETIC,
    "algorithm": "evolution_strategies",
    "sigma": 0.05,
    "learning_rate": 0.03,
}
YEAR: Case = {"env": "trading_400", "population_size": 256, "episode_limit": 252}
UPDATE: Case = {**CARTPOLE, "kind": "update", "num_envs": 128}
PEAK: Case = {"kind": "product", "size": 2_048}


def _cartpole(num_envs: int, goal: float) -> Row:
    """A run is about a million steps: whole updates, as many as fit."""
    case = {**CARTPOLE, "num_envs": num_envs, "updates": 1_000_000 // (128 * num_envs)}
    what = f"PPO, CartPole-v1, {num_envs:,} x 128 steps"
    return Row(what, case, either("rejax", "rejax", goal), ours=THREADS)


def _off_policy(algorithm: str, width: int, sb3_goal: float | None, sbx_goal: float) -> Row:
    case = {
        "kind": "off_policy",
        "algorithm": algorithm,
        "env": "Pendulum-v1",
        "hidden_sizes": [width, width],
        "batch_size": 256,
        "learning_starts": 300,
        "steps": 6_000 if width == 64 else 3_000,
        "peer_steps": 300 if width == 64 else 150,
    }
    rivals = (*sb3(sb3_goal), *either("sbx", "SBX", sbx_goal))
    what = f"{algorithm.upper()}, Pendulum-v1, {width}x{width}"
    return Row(what, case, rivals, repeats=3, ours=THREADS)


def _seeds(algorithm: str, width: int) -> Row:
    one = _off_policy(algorithm, width, None, 0.0).case
    case = {**one, "members": 8, "devices": os.cpu_count() or 1, "steps": one["steps"] // 2}
    rival = Rival("tradax", "one seed", 1.0, {"members": None, "devices": 1})
    what = f"{algorithm.upper()}, Pendulum-v1, {width}x{width}, 8 seeds in all"
    return Row(what, case, (rival,), repeats=3)


def _evolution(what: str, case: Case, goal: float | None) -> Row:
    label = "evosax SimpleGA" if case["algorithm"] == "genetic" else "evosax Open_ES"
    shape = f"{case['population_size']:,} x {case['episode_limit']}"
    return Row(f"{what}, {shape}", case, (Rival("evosax", label, goal),))


ROWS: dict[str, Row] = {
    "ppo_cartpole_4": _cartpole(4, 1.3),
    "ppo_cartpole_64": _cartpole(64, 2.0),
    "ppo_cartpole_1024": _cartpole(1_024, 2.0),
    "ppo_cartpole_gymnasium": Row(
        "PPO, CartPole-v1, 8 x 32 steps",
        {
            **CARTPOLE,
            "num_envs": 8,
            "n_steps": 32,
            "minibatches": 1,
            "updates": 1_000,
            "peer_steps": 8_192,
        },
        (*sb3(), *either("sbx", "SBX")),
        repeats=3,
        ours=THREADS,
    ),
    "ppo_portfolio": Row(
        "PPO, portfolio, 20 assets, F = 400, 1,024 x 128 steps",
        PORTFOLIO,
        (
            Rival("rejax", "rejax", 5.0, {"updates": 1}),
            *sb3(30.0, "Stable-Baselines3, numpy, 8 x 64 steps", **SB3_PORTFOLIO),
            Rival("tradax", "tradax, F = 40", 1 / 1.3, {"features": 40}),
        ),
    ),
    "memory_portfolio": Row(
        "Memory that this training adds",
        PORTFOLIO,
        (Rival("tradax", "tradax, flat observations", 5.0, {"flat": True, "updates": 1}),),
        compared="MiB",
        repeats=3,
    ),
    "ppo_trading": Row(
        "PPO, trading, 1 x 2,048 steps, batches of 64, 10 epochs",
        SB3_DEFAULTS,
        (
            *sb3(20.0, "Stable-Baselines3, tradax/Trading-v0"),
            *sb3(20.0, "Stable-Baselines3, numpy", numpy=True),
        ),
        repeats=3,
        ours=THREADS,
    ),
    "time_to_return": Row(
        "Defaults of each, trading with a signal: to half of the best rule's return",
        {
            "kind": "to_return",
            "share": 0.5,
            "most_steps": 400_000,
            "evaluations": 97,
            "peer_most_steps": 204_800,
        },
        sb3(100.0, "Stable-Baselines3, numpy"),
        compared="s",
        repeats=9,
        seconds=0.0,
        ours=THREADS,
    ),
    "stepping_trading": Row(
        "trading, stepped without a policy, 1,024 x 200",
        {
            "kind": "stepping",
            "env": "trading",
            "num_envs": 1_024,
            "n_steps": 200,
            "peer_steps": 4_000,
        },
        (Rival("gym_trading_env", "gym-trading-env, one asset"),),
        repeats=3,
    ),
    "genetic_cartpole": _evolution("Genetic, CartPole-v1, nobody falls", GENETIC, 1.5),
    "genetic_falling": _evolution(
        "Genetic, CartPole-v1, falling", {**GENETIC, "upright": False}, None
    ),
    "genetic_trading": _evolution("Genetic, trading, F = 400", {**GENETIC, **YEAR}, 5.0),
    "genetic_torch": Row(
        "Genetic, CartPole-v1, nobody falls, 1,024 x 500",
        GENETIC,
        (Rival("torch_ga", "torch, Python environment", 50.0),),
        repeats=3,
    ),
    "es_cartpole": _evolution("Evolution strategies, CartPole-v1, nobody falls", ES, 1.5),
    "es_trading": _evolution("Evolution strategies, trading, F = 400", {**ES, **YEAR}, 5.0),
    "sac_64": _off_policy("sac", 64, 4.0, 5.0),
    "td3_64": _off_policy("td3", 64, 4.0, 5.0),
    "sac_256": _off_policy("sac", 256, 4.0, 1.5),
    "td3_256": _off_policy("td3", 256, 4.0, 1.5),
    "sac_64_seeds": _seeds("sac", 64),
    "td3_64_seeds": _seeds("td3", 64),
    "sac_256_seeds": _seeds("sac", 256),
    "td3_256_seeds": _seeds("td3", 256),
    "roofline_64": Row(
        "PPO's update, 64x64, minibatches of 4,096",
        UPDATE,
        (Rival("tradax", "matrix product, 2,048", 0.25, PEAK),),
        compared="FLOP/s",
    ),
    "roofline_512": Row(
        "PPO's update, 512, 256, 128, minibatches of 4,096",
        {**UPDATE, "hidden_sizes": [512, 256, 128]},
        (Rival("tradax", "matrix product, 2,048", 0.35, PEAK),),
        compared="FLOP/s",
    ),
}
