"""Learners as Stable-Baselines3's state dictionaries, and back.

Weights there are [outputs, inputs]. Where ours standardise observations or scale rewards, what is
written does so in its first and last layers (`_layers`); the clip at 10 deviations is lost.
Optimiser states go along: Adam's and RMSprop's means, in the units of what is written.
"""

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.flatten_util import ravel_pytree

from tradax.config import section
from tradax.errors import ConfigError, ModelFileError
from tradax.policies import ActorCritic
from tradax.sb3 import _optimizers
from tradax.sb3._layers import (
    Kind,
    Layer,
    Layers,
    Units,
    of_mlp,
    of_net,
    of_nets,
    outside,
    to_mlp,
    to_net,
    to_nets,
)

ON_POLICY = ("ppo", "a2c", "trpo")
OFF_POLICY = ("ddpg", "td3", "sac")
# Squared errors of values are halved here, and not there but in SAC. In PPO and A2C their weight
# in the whole loss makes up for it.
_VALUE_LOSS = {"ppo": 1.0, "a2c": 1.0, "trpo": 2.0, "ddpg": 2.0, "td3": 2.0, "sac": 1.0}
_LOG_STD_BOUNDS = (-20.0, 2.0)  # of Stable-Baselines3's SAC

Named = dict[str, np.ndarray]
States = dict[str, dict]
"""By file: `policy`, its optimisers (`policy.optimizer`, or `actor.optimizer` and
`critic.optimizer`, `ent_coef_optimizer`) and, of SAC, `pytorch_variables`."""


def name_of(algorithm: Any) -> str:
    """Raises ConfigError where Stable-Baselines3 has no such algorithm with such options."""
    c = algorithm.config
    name = section(type(c))
    if name not in ON_POLICY + OFF_POLICY:
        raise ConfigError(
            f"{name} is not among Stable-Baselines3's algorithms; "
            f"{', '.join(ON_POLICY + OFF_POLICY)} are"
        )
    if getattr(c, "normalization", "none") != "none" or getattr(c, "action_layer", "") == "second":
        raise ConfigError(
            f"{name} with normalization or with action_layer second is no MlpPolicy of "
            "Stable-Baselines3"
        )
    if name == "sac" and algorithm.log_std_bounds != _LOG_STD_BOUNDS:
        raise ConfigError("log standard deviations of Stable-Baselines3's SAC are in -20 to 2")
    return name


def reward_scale(algorithm: Any, learner: Any) -> float:
    """Our values are so many times those of raw rewards."""
    scale = float(getattr(algorithm.config, "reward_scale", 1.0))
    returns = learner.moments.returns
    return scale if returns is None else scale / float(np.sqrt(np.asarray(returns.var) + 1e-8))


def is_plain(algorithm: Any, learner: Any) -> bool:
    """Whether it scales nothing and has two networks, as Stable-Baselines3."""
    # Statistics of returns scale nothing before the first update, but are a part of the learner.
    moments = learner.moments
    unscaled = moments.observations is None and moments.returns is None
    unscaled = unscaled and reward_scale(algorithm, learner) == 1.0
    return unscaled and not getattr(algorithm, "shared_network", False)


def to_state(algorithm: Any, learner: Any) -> States:
    """What Stable-Baselines3 keeps of such a model.

    Raises:
        ConfigError: it has no such algorithm, or none with these options.
    """
    name = name_of(algorithm)
    if name in ON_POLICY:
        return _on_policy_state(name, algorithm, learner)
    return _off_policy_state(name, algorithm, learner)


def given(algorithm: Any, learner: Any, states: States) -> States:
    """The same with NumPy arrays, where torch's tensors were given.

    Raises:
        ModelFileError: these are not all state dictionaries of such a model.
    """
    names = set(to_state(algorithm, learner))
    if names != set(states):
        raise ModelFileError(
            f"parameters of {', '.join(sorted(states)) or 'nothing'} were given; this model has "
            f"{', '.join(sorted(names))}"
        )
    return jax.tree.map(lambda x: x.detach().cpu().numpy() if hasattr(x, "detach") else x, states)


def from_state(algorithm: Any, learner: Any, states: States, source: str = "state") -> Any:
    """`learner` with the numbers of a state; optimisers that it lacks begin anew.

    Raises:
        ModelFileError: networks of other shapes or kinds, or a learner that scales what it sees.
    """
    name = name_of(algorithm)
    if not is_plain(algorithm, learner):
        raise ModelFileError(
            f"{source}: Stable-Baselines3 scales neither observations nor rewards, and has two "
            "networks; build the algorithm with normalize_observations=False, "
            "normalize_rewards=False, reward_scale=1, shared_network=False"
        )
    if name in ON_POLICY:
        return _from_on_policy(name, learner, states, source)
    return _from_off_policy(name, learner, states, source)


# PPO, A2C, TRPO


def _on_policy_state(name: str, algorithm: Any, learner: Any) -> States:
    c, network = algorithm.config, learner.network
    scale = reward_scale(algorithm, learner)
    observations = learner.moments.observations
    policy = Units.of(observations, loss=1.0 if c.normalize_advantages else 1.0 / scale)
    value = Units.of(observations, output=1.0 / scale, loss=_VALUE_LOSS[name] / scale**2)

    def named(network: ActorCritic | None, critic: Any, kind: Kind) -> Named:
        actor = of_mlp(network.actor) if network is not None else []
        if critic is None:
            (weight, bias), hidden = actor[-1], actor[:-1]
            actor = [*hidden, Layer(weight[:, :-1], bias[:-1])]
            critic_layers = [*hidden, Layer(weight[:, -1:], bias[-1:])]
        else:
            critic_layers = of_mlp(critic)
        parts: Named = {}
        if network is not None and network.log_std is not None:
            factor = {"value": 1.0, "gradient": policy.loss, "square": policy.loss**2}[kind]
            parts["log_std"] = np.asarray(factor * network.log_std, np.float32)
        if actor:
            parts |= _spelled(outside(actor, policy, kind), _policy_names(len(actor)))
        parts |= _spelled(outside(critic_layers, value, kind), _value_names(len(critic_layers)))
        return {key: parts[key] for key in sorted(parts, key=_on_policy_order)}

    parameters = named(network, network.critic, "value")
    means: dict[str, Named] = {}
    if network.critic is not None:  # one network for both has one mean for both: begin anew
        kinds: tuple[tuple[str, Kind], ...] = (("nu", "square"),)
        kinds = kinds if name == "a2c" else (("mu", "gradient"), *kinds)
        for mean, kind in kinds:
            tree: Any = optax.tree_utils.tree_get(learner.opt_state, mean)
            critic_alone = not isinstance(tree, ActorCritic)
            means[mean] = named(
                None if critic_alone else tree, tree if critic_alone else tree.critic, kind
            )
    rate = plain(c.learning_rate)
    if name == "a2c":
        optimiser = _optimizers.rmsprop(list(parameters), means, int(learner.updates), rate)
    else:
        steps = int(optax.tree_utils.tree_get(learner.opt_state, "count"))
        optimiser = _optimizers.adam(list(parameters), means, steps, rate, eps=1e-5)
    return {"policy": parameters, "policy.optimizer": optimiser}


def _from_on_policy(name: str, learner: Any, states: States, source: str) -> Any:
    old = learner.network
    actor_names = _policy_names(len(old.actor.rest) + 1)
    critic_names = _value_names(len(old.critic.rest) + 1)

    def built(state: Named, *, critic_alone: bool = False) -> Any:
        critic = to_mlp(old.critic, _layers(state, critic_names))
        if critic_alone:
            return critic
        log_std = None if old.log_std is None else jnp.asarray(state["log_std"])
        return ActorCritic(to_mlp(old.actor, _layers(state, actor_names)), critic, log_std)

    expected = {**_spelled(of_mlp(old.actor), actor_names)}
    expected |= _spelled(of_mlp(old.critic), critic_names)
    if old.log_std is not None:
        expected["log_std"] = np.asarray(old.log_std)
    network = built(_checked(states["policy"], expected, source))
    order = sorted(expected, key=_on_policy_order)
    shapes = {key: expected[key].shape for key in order}
    trpo = name == "trpo"
    needed = [key for key in order if not trpo or key in _spelled(of_mlp(old.critic), critic_names)]
    found = _optimizers.read(states.get("policy.optimizer"), shapes, needed, source)
    opt_state = learner.opt_state
    if found is not None and found.kind == ("rmsprop" if name == "a2c" else "adam"):
        found_means = found.of_loss(1.0 / _VALUE_LOSS[name])
        means = {key: built(mean, critic_alone=trpo) for key, mean in found_means.items()}
        if name != "a2c":
            means["count"] = jnp.int32(found.steps)
        opt_state = optax.tree_utils.tree_set(opt_state, **means)
    return learner._replace(network=network, opt_state=opt_state)


def _policy_names(count: int) -> list[tuple[str, ...]]:
    hidden = [(f"mlp_extractor.policy_net.{2 * i}",) for i in range(count - 1)]
    return [*hidden, ("action_net",)]


def _value_names(count: int) -> list[tuple[str, ...]]:
    return [*((f"mlp_extractor.value_net.{2 * i}",) for i in range(count - 1)), ("value_net",)]


def _on_policy_order(name: str) -> tuple:
    """The order of PyTorch's `policy.parameters()`."""
    groups = ("log_std", "mlp_extractor.policy_net", "mlp_extractor.value_net", "action_net")
    group = next((i for i, start in enumerate(groups) if name.startswith(start)), len(groups))
    number = [int(part) for part in name.split(".") if part.isdecimal()]
    return group, number, name.endswith("bias")


# DDPG, TD3, SAC


def _off_policy_state(name: str, algorithm: Any, learner: Any) -> States:
    c, n = algorithm.config, learner.networks
    scale = reward_scale(algorithm, learner)
    observations, size = learner.moments.observations, algorithm.spec.action.size
    actor_units = Units.of(observations, loss=1.0 / scale)
    loss = _VALUE_LOSS[name] / scale**2
    critic_units = Units.of(observations, output=1.0 / scale, loss=loss).beside(size)

    def actor(network: Any, kind: Kind = "value", owner: str = "actor") -> Named:
        layers = outside(of_net(network), actor_units, kind)
        return _spelled(layers, _actor_names(name, owner, len(layers)))

    def critic(networks: Any, kind: Kind = "value", owner: str = "critic") -> Named:
        named: Named = {}
        for k, layers in enumerate(of_nets(networks)):
            names = _critic_names(owner, k, len(layers))
            named |= _spelled(outside(layers, critic_units, kind), names)
        return named

    targets: Named = {} if name == "sac" else actor(n.target_actor, owner="actor_target")
    policy = {
        **actor(n.actor),
        **targets,
        **critic(n.critic),
        **critic(n.target_critic, owner="critic_target"),
    }
    rate = plain(c.actor_learning_rate)

    def optimiser(state: Any, like: Any, named: Any) -> dict:
        means = {
            key: named(_arranged(like, optax.tree_utils.tree_get(state, key)), kind)
            for key, kind in (("mu", "gradient"), ("nu", "square"))
        }
        steps = int(optax.tree_utils.tree_get(state, "count"))
        return _optimizers.adam(list(means["mu"]), means, steps, rate, eps=1e-8)

    states: States = {
        "policy": policy,
        "actor.optimizer": optimiser(n.actor_opt, n.actor, actor),
        "critic.optimizer": optimiser(n.critic_opt, n.critic, critic),
    }
    if name == "sac":
        log_temperature = np.float32(n.log_temperature) - np.float32(np.log(scale))
        if c.learn_temperature:
            states["ent_coef_optimizer"] = optimiser(
                n.temperature_opt, n.log_temperature, lambda x, _: {"": np.asarray(x).reshape(1)}
            )
            states["pytorch_variables"] = {"log_ent_coef": np.reshape(log_temperature, 1)}
        else:
            states["pytorch_variables"] = {"ent_coef_tensor": np.exp(log_temperature)}
    return states


def _arranged(like: Any, tree: Any) -> Any:
    """The numbers of `tree` in the shapes of `like`: Adam keeps small networks as one vector."""
    return ravel_pytree(like)[1](ravel_pytree(tree)[0])


def _from_off_policy(name: str, learner: Any, states: States, source: str) -> Any:
    n = learner.networks
    count, critics = len(n.actor.layers), n.critic.layers[0].bias.shape[0]

    def actor(state: Named, owner: str = "actor") -> Any:
        return to_net(n.actor, _layers(state, _actor_names(name, owner, count)))

    def critic(state: Named, owner: str = "critic") -> Any:
        names = [_critic_names(owner, k, len(n.critic.layers)) for k in range(critics)]
        return to_nets(n.critic, [_layers(state, one) for one in names])

    of_actor = _spelled(of_net(n.actor), _actor_names(name, "actor", count))
    of_critic: Named = {}
    for k, layers in enumerate(of_nets(n.critic)):
        of_critic |= _spelled(layers, _critic_names("critic", k, len(layers)))
    expected = of_actor | of_critic
    expected |= {key.replace("critic.", "critic_target.", 1): x for key, x in of_critic.items()}
    if name != "sac":
        expected |= {key.replace("actor.", "actor_target.", 1): x for key, x in of_actor.items()}
    state = _checked(states["policy"], expected, source)

    def optimiser(file: str, old: Any, like: Named, built: Any, loss: float = 1.0) -> Any:
        shapes = {key: x.shape for key, x in like.items()}
        found = _optimizers.read(states.get(file), shapes, list(shapes), source)
        if found is None or found.kind != "adam":
            return old
        means = {
            key: _arranged(optax.tree_utils.tree_get(old, key), built(mean))
            for key, mean in found.of_loss(loss).items()
        }
        return optax.tree_utils.tree_set(old, count=jnp.int32(found.steps), **means)

    new = n._replace(
        actor=actor(state),
        critic=critic(state),
        target_critic=critic(state, "critic_target"),
        actor_opt=optimiser("actor.optimizer", n.actor_opt, of_actor, actor),
        critic_opt=optimiser(
            "critic.optimizer", n.critic_opt, of_critic, critic, 1.0 / _VALUE_LOSS[name]
        ),
    )
    if name != "sac":
        return learner._replace(networks=new._replace(target_actor=actor(state, "actor_target")))
    log_temperature = _log_temperature(states.get("pytorch_variables"), source)
    if log_temperature is not None:
        new = new._replace(log_temperature=log_temperature)
    one = {"": np.zeros(1, np.float32)}
    opt_state = optimiser("ent_coef_optimizer", n.temperature_opt, one, lambda x: x[""])
    return learner._replace(networks=new._replace(temperature_opt=opt_state))


def _log_temperature(variables: Any, source: str) -> jax.Array | None:
    if not isinstance(variables, dict):
        return None
    for key, change in (("log_ent_coef", lambda x: x), ("ent_coef_tensor", np.log)):
        if key in variables:
            value = np.asarray(variables[key], np.float32)
            if value.size != 1 or not np.isfinite(change(value)).all():
                raise ModelFileError(f"{source}: {key} is not one number")
            return jnp.float32(change(value).reshape(()))
    return None


def _actor_names(name: str, owner: str, count: int) -> list[tuple[str, ...]]:
    if name != "sac":
        return [(f"{owner}.mu.{2 * i}",) for i in range(count)]
    hidden = [(f"{owner}.latent_pi.{2 * i}",) for i in range(count - 1)]
    return [*hidden, (f"{owner}.mu", f"{owner}.log_std")]


def _critic_names(owner: str, k: int, count: int) -> list[tuple[str, ...]]:
    return [(f"{owner}.qf{k}.{2 * i}",) for i in range(count)]


# Names


def _spelled(layers: Layers, names: Sequence[tuple[str, ...]]) -> Named:
    """Layers by their names there; outputs that have several names are shared out evenly."""
    named: Named = {}
    for (weight, bias), parts in zip(layers, names, strict=True):
        weights = np.split(weight.T, len(parts))
        for part, w, b in zip(parts, weights, np.split(bias, len(parts)), strict=True):
            named[f"{part}.weight"] = np.ascontiguousarray(w, np.float32)
            named[f"{part}.bias"] = np.ascontiguousarray(b, np.float32)
    return named


def _layers(state: Named, names: Sequence[tuple[str, ...]]) -> Layers:
    """The inverse of `_spelled`."""
    return [
        Layer(
            np.concatenate([state[f"{part}.weight"] for part in parts]).T,
            np.concatenate([state[f"{part}.bias"] for part in parts]),
        )
        for parts in names
    ]


def _checked(state: Any, expected: Named, source: str) -> Named:
    """Raises ModelFileError unless these are finite numbers of just these names and shapes."""
    if not isinstance(state, dict) or set(state) != set(expected):
        given = set(state) if isinstance(state, dict) else set()
        odd = sorted(map(str, given ^ set(expected)))
        raise ModelFileError(
            f"{source}: its networks are not those of an MlpPolicy of these sizes: "
            f"{', '.join(odd[:4])} {'is' if len(odd) == 1 else 'are'} missing or unknown"
        )
    for key, like in expected.items():
        found = state[key]
        if not isinstance(found, np.ndarray) or found.shape != like.shape:
            got = list(np.shape(found)) if isinstance(found, np.ndarray) else "no tensor"
            raise ModelFileError(f"{source}: {key} is {got}; expected {list(like.shape)}")
        if found.dtype != np.float32 or not np.isfinite(found).all():
            raise ModelFileError(f"{source}: {key} is not of finite float32 numbers")
    return state


def plain(number: Any) -> float:
    """A setting as it was typed: 0.001, not the nearest float32."""
    return float(str(np.float32(number)))
