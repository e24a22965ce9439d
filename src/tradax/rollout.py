"""Sources of experience: the only place where environments are stepped.

`JaxSource` steps a gymnax environment inside the compiled program. Market environments give
factored observations (`tradax.envs._market`); other gymnax environments give flat ones.
"""

import functools
from dataclasses import replace
from typing import Any, NamedTuple

import equinox as eqx
import jax
import jax.numpy as jnp

from tradax.draws import another_key
from tradax.envs._market import MarketEnvironment
from tradax.errors import TradaxError
from tradax.gymnax_parts import Environment
from tradax.packing import apart, side_by_side
from tradax.protocols import Actor, Experience, Finished, Source
from tradax.sharing import Share
from tradax.spaces import ActionSpec, Factored, Observation, Spec, action_spec

_CHECK_EVERY = 32  # steps between looks at whether all episodes have ended
_FEW = 8  # environments up to which a loop for every array costs more than its elements
_SMALL = 512  # bytes of a first state that may be kept for every step of a rollout


class Carry(NamedTuple):
    """Where collecting goes on; every field is [B, ...]."""

    env_state: Any
    obs: Observation
    memory: Any
    episode_return: jax.Array
    episode_length: jax.Array


class JaxSource(Source):
    """`num_envs` copies of a gymnax environment, stepped on the device."""

    env: Any = eqx.field(static=True)
    params: Any
    spec: Spec = eqx.field(static=True)
    num_envs: int = eqx.field(static=True)
    axis: str | None = eqx.field(static=True, default=None)
    bounds: ActionSpec | None = eqx.field(static=True, default=None)
    """Of the environment's own actions, where `spec` has them in [-1, 1]; see `in_unit_actions`."""

    def in_unit_actions(self) -> "JaxSource":
        """The same with actions in [-1, 1], as Gymnasium's users see those of markets."""
        action = self.spec.action
        if action.discrete or self.bounds is not None:
            return self
        return replace(self, spec=replace(self.spec, action=action.unit), bounds=action)

    def table(self) -> jax.Array | None:
        """The market table [T, F] to which factored observations point."""
        if isinstance(self.env, MarketEnvironment):
            return self.env.market_table(self.params)
        return None

    def reset(self, key: jax.Array, actor: Actor) -> Carry:
        return self._reset(self._keys(key), actor)

    def _keys(self, key: jax.Array, copies: int = 1, first: Any = 0) -> jax.Array:
        """[num_envs / copies]: the keys of environments `first` and on."""
        number = first + jnp.arange(self.num_envs // copies)
        return jax.vmap(lambda i: jax.random.fold_in(key, i))(number)

    def _reset(self, keys: jax.Array, actor: Actor, copies: int = 1) -> Carry:
        env_state, obs = jax.vmap(self._reset_one)(keys)
        if copies > 1:
            env_state, obs = jax.tree.map(
                lambda x: jnp.tile(x, (copies,) + (1,) * (x.ndim - 1)), (env_state, obs)
            )
        zeros = jnp.zeros(self.num_envs)
        return Carry(env_state, obs, actor.initial_memory(self.num_envs), zeros, zeros)

    def collect(
        self, carry: Carry, actor: Actor, key: jax.Array, n_steps: int
    ) -> tuple[Carry, Experience, Finished]:
        table, share = self.table(), Share(self.axis)
        here = replace(self, num_envs=self.num_envs // share.devices)
        see, actor = here._prepare(actor.shared(share), table, n_steps)

        unpack: Any = None
        pack = side_by_side if here.num_envs <= _FEW else apart
        packed, unpack_carry = pack(share.of(carry))

        def one_step(packed, drawn):
            nonlocal unpack
            carry = unpack_carry(packed)
            for_actor, for_env = drawn
            action, memory, extras = actor(see(carry.obs), carry.memory, for_actor)
            step = jax.vmap(self._step_one)(for_env, carry.env_state, self.spec.action.clip(action))
            done = step.terminated | step.truncated
            episode_return = carry.episode_return + step.reward
            episode_length = carry.episode_length + 1.0
            next_carry = Carry(
                step.state,
                step.obs,
                _where(done, actor.initial_memory(here.num_envs), memory),
                jnp.where(done, 0.0, episode_return),
                jnp.where(done, 0.0, episode_length),
            )
            transition = (
                carry.obs,
                action,
                step.reward,
                step.next_obs,
                step.terminated,
                step.truncated,
                extras,
            )
            record, unpack = pack((transition, episode_return, episode_length))
            return pack(next_carry)[0], record

        # All draws at once: threefry inside the scan costs as much as all else of a small step.
        keys = jax.random.split(key, (n_steps, 1 + self.num_envs))
        env_keys = share.of(keys[:, 1:], axis=1)
        drawn = (actor.ahead(keys[:, 0], here.num_envs), self._ahead(env_keys))
        # Devices meet after the last step only: a word at every step costs more than the step.
        packed, record = jax.lax.scan(one_step, packed, drawn)
        carry, record = share.gathered(unpack_carry(packed)), share.gathered(record, axis=1)
        transition, episode_return, episode_length = unpack(record)
        experience = Experience(*transition, table=table, share=share)
        done = experience.done
        finished = Finished(
            jnp.sum(done, dtype=jnp.float32),
            jnp.sum(jnp.where(done, episode_return, 0.0)),
            jnp.sum(jnp.where(done, episode_length, 0.0)),
        )
        return carry, experience, finished

    def episodes(
        self, actor: Actor, key: jax.Array, limit: int, *, copies: int = 1, first: Any = 0
    ) -> tuple[jax.Array, jax.Array]:
        reset_key, key = jax.random.split(key)
        carry = self._reset(self._keys(reset_key, copies, first), actor, copies)
        see, actor = self._prepare_episodes(actor, carry.obs, limit, copies)

        def one_step(state, now):
            (carry, alive), (number, act_key, env_keys) = state, now
            action, memory, _ = actor(see(carry.obs), carry.memory, act_key)
            step = self._advance(env_keys, carry.env_state, self.spec.action.clip(action), copies)
            carry = Carry(
                step.state,
                step.obs,
                memory,
                carry.episode_return + jnp.where(alive, step.reward, 0.0),
                carry.episode_length + alive,
            )
            return (carry, alive & ~step.done & (number + 1 < limit)), None

        def keys_of(number):
            act_key, env_key = jax.random.split(jax.random.fold_in(key, number))
            return number, act_key, self._keys(env_key, copies, first)

        def block(state):
            steps, *rest = state
            ahead = jax.vmap(keys_of)(steps + jnp.arange(_CHECK_EVERY))
            rest, _ = jax.lax.scan(one_step, tuple(rest), ahead)
            return (steps + _CHECK_EVERY, *rest)

        alive = jnp.ones(self.num_envs, bool)
        _, carry, _ = jax.lax.while_loop(lambda state: jnp.any(state[2]), block, (0, carry, alive))
        return carry.episode_return, carry.episode_length

    def walk(self, actor: Actor, key: jax.Array, n_steps: int) -> tuple[jax.Array, dict]:
        """Follow one episode and keep what the environment says at every step.

        Returns: actions [n_steps, ...] as the environment was given them, and its `info`
        [n_steps, ...] with `done` added; steps after the end of the episode repeat its last.
        """
        see, actor = self._prepare(actor, self.table(), n_steps)
        reset_key, key = jax.random.split(key)
        env_state, obs = self._reset_one(reset_key)
        memory = actor.initial_memory(1)

        def one_step(state, key):
            env_state, obs, memory, over = state
            act_key, env_key = jax.random.split(key)
            batched = jax.tree.map(lambda x: x[None], obs)
            action, memory, _ = actor(see(batched), memory, act_key)
            action = self.spec.action.clip(action[0])
            step = self._step_one(Drawn(env_key, None), env_state, action)
            over_now = over | step.terminated | step.truncated
            env_state, obs = jax.tree.map(
                lambda new, old: jnp.where(over_now, old, new),
                (step.state, step.obs),
                (env_state, obs),
            )
            info = {**step.info, "reward": step.reward, "over": over, "done": over_now}
            return (env_state, obs, memory, over_now), (action, info)

        state = (env_state, obs, memory, jnp.bool_(False))
        _, (actions, info) = jax.lax.scan(one_step, state, jax.random.split(key, n_steps))
        return actions, info

    def _prepare(self, actor: Actor, table: jax.Array | None, n_steps: int):
        """How the actor is shown observations: by row if tabulating is less work, else flat."""
        if table is None:
            return (lambda obs: obs), actor
        if table.shape[0] * actor.tabulations <= n_steps * self.num_envs:
            return (lambda obs: obs), actor.tabulate(table)
        return (lambda obs: obs.flat(table)), actor

    def _prepare_episodes(self, actor: Actor, start: Observation, limit: int, copies: int):
        """The same, for episodes of which `copies` at a time begin at the same rows.

        Of a long table only the rows that can be visited are tabulated: with many networks this
        is one large product instead of a small one for each of them at every step.
        """
        table = self.table()
        different, rows = self.num_envs // copies, limit + 1
        if table is None or not self.env.rows_advance or different * rows >= table.shape[0]:
            return self._prepare(actor, table, limit)
        assert isinstance(start, Factored)
        first = start.row[:different]
        visited = jnp.minimum(first[:, None] + jnp.arange(rows), table.shape[0] - 1)
        place = jnp.tile(jnp.arange(different) * rows - first, copies)

        def see(obs: Factored) -> Factored:
            # After its end an episode goes on beyond them, and no longer counts.
            return obs._replace(row=jnp.clip(obs.row + place, 0, different * rows - 1))

        return see, actor.tabulate(table[visited.ravel()])

    def _reset_one(self, key: jax.Array) -> tuple[Any, Observation]:
        if isinstance(self.env, MarketEnvironment):
            state = self.env.reset_state(key, self.params)
            return state, self._factored(state)
        obs, state = self.env.reset(key, self.params)
        # gymnax's states hold Python numbers at reset, and a scan needs arrays of one type.
        _, fixed, *_ = jax.eval_shape(self.env.step, key, state, self._any_action(), self.params)
        state = jax.tree.map(lambda x, like: jnp.asarray(x, like.dtype), state, fixed)
        return state, jnp.ravel(obs).astype(jnp.float32)

    def _ahead(self, keys: jax.Array) -> "Drawn":
        """What steps draw whatever state they find, from their keys [T, B]."""
        if self._steps_plainly:
            fresh = jax.eval_shape(self._reset_one, keys[0, 0])
            if sum(x.size * x.dtype.itemsize for x in jax.tree.leaves(fresh)) <= _SMALL:
                # As gymnax's own step splits its key.
                keys = jax.vmap(jax.vmap(jax.random.split))(keys)
                return Drawn(keys[..., 0], jax.vmap(jax.vmap(self._reset_one))(keys[..., 1]))
        return Drawn(keys, None)

    @property
    def _steps_plainly(self) -> bool:
        """Whether it is gymnax's own `step` that would put together a step and a reset."""
        return type(self.env).step is Environment.step

    def _step_one(self, drawn: "Drawn", state: Any, action: jax.Array) -> "Step":
        action, key = self._own(action), drawn.key
        if isinstance(self.env, MarketEnvironment):
            # Our own: no wrapper to go through, and an observation by row.
            stepped, reward, terminated, info = self.env.step_state(key, state, action, self.params)
            truncated = self.env.is_truncated(stepped, self.params) & ~terminated
            next_obs = self._factored(stepped)
            fresh = self.env.reset_state(another_key(key), self.params)
            state = _where(terminated | truncated, fresh, stepped)
            return Step(state, self._factored(state), next_obs, reward, terminated, truncated, info)
        action = action.reshape(self.env.action_space(self.params).shape)
        if drawn.fresh is not None:
            obs, stepped, reward, terminated, _ = self.env.step_env(key, state, action, self.params)
            next_obs = jnp.ravel(obs).astype(jnp.float32)
            reward = jnp.asarray(reward, jnp.float32).reshape(())
            truncated = self.env.is_truncated(stepped, self.params) & ~terminated
            state, obs = _where(terminated | truncated, drawn.fresh, (stepped, next_obs))
            return Step(state, obs, next_obs, reward, terminated, truncated, {})
        obs, state, reward, terminated, truncated, info = self.env.step(
            key, state, action, self.params
        )
        next_obs = jnp.ravel(info["final_observation"]).astype(jnp.float32)
        obs = jnp.ravel(obs).astype(jnp.float32)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        truncated = truncated & ~terminated
        return Step(state, obs, next_obs, reward, terminated, truncated, {})

    def _advance(self, keys: jax.Array, state: Any, action: jax.Array, copies: int) -> "Advance":
        """Step all environments; `keys` [num_envs / copies] serve every copy, drawn from once."""
        if copies == 1:
            return jax.vmap(self._advance_one)(keys, state, action)
        state, action = jax.tree.map(lambda x: x.reshape(copies, -1, *x.shape[1:]), (state, action))
        step = jax.vmap(jax.vmap(self._advance_one), in_axes=(None, 0, 0))(keys, state, action)
        return jax.tree.map(lambda x: x.reshape(-1, *x.shape[2:]), step)

    def _advance_one(self, key: jax.Array, state: Any, action: jax.Array) -> "Advance":
        """A step after which nothing begins anew, where an episode that has ended is left alone."""
        if isinstance(self.env, MarketEnvironment):
            state, reward, terminated, _ = self.env.step_state(
                key, state, self._own(action), self.params
            )
            done = terminated | self.env.is_truncated(state, self.params)
            return Advance(state, self._factored(state), reward, done)
        if not self._steps_plainly:
            step = self._step_one(Drawn(key, None), state, action)
            return Advance(step.state, step.obs, step.reward, step.terminated | step.truncated)
        action = self._own(action)
        shape = self.env.action_space(self.params).shape
        obs, state, reward, terminated, _ = self.env.step_env(
            key, state, action.reshape(shape), self.params
        )
        obs = jnp.ravel(obs).astype(jnp.float32)
        reward = jnp.asarray(reward, jnp.float32).reshape(())
        return Advance(state, obs, reward, terminated | self.env.is_truncated(state, self.params))

    def _own(self, action: jax.Array) -> jax.Array:
        """A policy's action in the environment's units."""
        return action if self.bounds is None else self.bounds.from_unit(action)

    def _factored(self, state: Any) -> Factored:
        return Factored(self.env.row(state), self.env.account(state, self.params))

    def _any_action(self) -> jax.Array:
        spec = self.spec.action
        if spec.discrete:
            return jnp.int32(0)
        shape = self.env.action_space(self.params).shape
        return jnp.zeros(shape, jnp.float32)


class Drawn(NamedTuple):
    """What a step of an environment draws."""

    key: jax.Array
    fresh: Any
    """State and observation after a reset, should the episode end; None: drawn in the step."""


class Advance(NamedTuple):
    """A step of an episode, whatever comes after its end."""

    state: Any
    obs: Observation
    reward: jax.Array
    done: jax.Array


class Step(NamedTuple):
    state: Any
    """After a reset, where the episode has ended."""
    obs: Observation
    """Of `state`."""
    next_obs: Observation
    """The true next observation."""
    reward: jax.Array
    terminated: jax.Array
    truncated: jax.Array
    info: dict


def jax_source(env: Any, params: Any = None, *, num_envs: int = 1) -> JaxSource:
    """A source from a gymnax environment: one of ours, a gymnax name, or a user's object.

    Raises:
        TradaxError: unknown name, unsupported spaces, or fewer than one environment.
    """
    if num_envs < 1:
        raise TradaxError(f"num_envs is {num_envs}; it must be at least 1")
    if isinstance(env, str):
        env, default_params = gymnax_environment(env)
        params = default_params if params is None else params
    if params is None:
        params = env.default_params
    action = action_spec(env.action_space(params))
    if isinstance(env, MarketEnvironment):
        spec = Spec(env.market_table(params).shape[-1], env.account_size(params), action)
    else:
        size = 1
        for length in env.observation_space(params).shape:
            size *= length
        spec = Spec(0, size, action)
    params = jax.tree.map(jnp.asarray, params)
    return JaxSource(env=env, params=params, spec=spec, num_envs=num_envs)


@functools.cache  # gymnax environments hash by identity: a second copy would compile again
def gymnax_environment(name: str) -> tuple[Any, Any]:
    """A gymnax environment by its name, and its default parameters.

    Raises:
        TradaxError: the name is unknown; the message lists near ones.
    """
    import difflib

    from tradax.gymnax_parts import gymnax

    names = [str(n) for n in gymnax.registered_envs]
    if name.endswith("-object"):
        raise TradaxError(
            f"{name} was an environment object, which a run does not keep; give it again (env=)"
        )
    if name not in names:
        close = difflib.get_close_matches(name, names, n=3) or names
        raise TradaxError(f"unknown environment {name}; did you mean {', '.join(close)}?")
    env, params = gymnax.make(name)
    return env, params


def _where(condition: jax.Array, x: Any, y: Any) -> Any:
    """Choose between two pytrees; `condition` [...] broadcasts over trailing axes."""

    def choose(x, y):
        x, y = jnp.asarray(x), jnp.asarray(y)
        return jnp.where(
            condition.reshape(condition.shape + (1,) * (x.ndim - condition.ndim)), x, y
        )

    return jax.tree.map(choose, x, y)
