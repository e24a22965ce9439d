"""What holds for every environment, those that will be added included: they are discovered.

An environment gets one synthetic market unless `DATA` says otherwise.
"""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tradax import discovery, training
from tradax.algorithms import ppo
from tradax.config import to_dict
from tradax.data import synthetic
from tradax.data.features import Config as FeatureConfig
from tradax.data.pipeline import Pipeline
from tradax.data.splits import Span
from tradax.envs._market import MarketEnvironment
from tradax.protocols import Actor
from tradax.rollout import jax_source
from tradax.spaces import Factored, action_spec

ROWS = 400
DATA = {
    "market_making": ("simulated",),
    "execution": ("simulated", "one market"),
    "portfolio": ("several markets",),
    "trading": ("one market", "several markets"),
}
# Where every episode starts alike because the task says so.
FIXED_START = {("market_making", "simulated"), ("execution", "simulated")}

CASES = [
    (name, data) for name in discovery.environments() for data in DATA.get(name, ("one market",))
]
every = pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[0]}, {case[1]}")


@functools.cache
def markets():
    bars = synthetic.load("gbm", bars=ROWS, assets=3, correlation=0.3, volatility=0.4, seed=1)
    return Pipeline.fit(bars, FeatureConfig(indicators=False)).transform(bars)


def span():
    return Span(markets()[0].first_row, ROWS - 1)


def make(case):
    name, data = case
    module = discovery.module("envs", name)
    if data == "simulated":
        return module.make(module.Config())
    data = markets()[0] if data == "one market" else markets()
    return module.make(module.Config(), data, span())


made = functools.cache(make)


def actions_of(case):
    env, params = made(case)
    return action_spec(env.action_space(params))


def random_actions(spec, key, shape):
    if spec.discrete:
        return jax.random.randint(key, shape, 0, spec.n)
    low, high = jnp.array(spec.low), jnp.array(spec.high)
    return jax.random.uniform(key, (*shape, spec.size), minval=low, maxval=high)


class Repeat(Actor):
    """The same action in every step."""

    action: jax.Array
    """[B, ...]"""

    def __call__(self, obs, memory, key):
        return self.action, memory, ()


@functools.partial(jax.jit, static_argnums=0)
def reset_many(env, params, keys):
    return jax.vmap(env.reset, in_axes=(0, None))(keys, params)


@functools.partial(jax.jit, static_argnums=(0, 1, 4, 5))
def play(env, spec, params, key, batch, n_steps):
    """Random actions through the gymnax interface. Returns what every step gave, [T, B, ...]."""
    reset_key, action_key, step_key = jax.random.split(key, 3)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, batch), params)
    actions = random_actions(spec, action_key, (n_steps, batch))

    def one_step(state, step):
        keys, action = step
        obs, state, reward, terminated, truncated, info = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(keys, state, action, params)
        return state, (obs, reward, terminated, truncated, info["final_observation"])

    keys = jax.random.split(step_key, (n_steps, batch))
    _, record = jax.lax.scan(one_step, state, (keys, actions))
    return obs, record


@functools.cache
def played(case):
    env, params = made(case)
    first, record = play(env, actions_of(case), params, jax.random.key(0), 250, ROWS)
    return np.asarray(first), *map(np.asarray, record)


@every
def test_shapes_and_types_are_as_declared(case):
    env, params = made(case)
    assert isinstance(env, MarketEnvironment)
    space, table = env.observation_space(params), env.market_table(params)
    assert table.dtype == jnp.float32
    assert space.shape == (table.shape[1] + env.account_size(params),)
    key = jax.random.key(0)
    obs, state = env.reset(key, params)
    action = random_actions(actions_of(case), key, ())
    assert action.shape == tuple(env.action_space(params).shape)
    stepped = env.step(key, state, action, params)
    next_obs, next_state, reward, terminated, truncated, info = stepped
    for seen in (obs, next_obs, info["final_observation"]):
        assert seen.shape == space.shape
        assert seen.dtype == jnp.float32
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    assert (terminated.shape, terminated.dtype) == ((), jnp.bool_)
    assert (truncated.shape, truncated.dtype) == ((), jnp.bool_)
    row, account = env.row(state), env.account(state, params)
    assert (row.shape, row.dtype) == ((), jnp.int32)
    assert (account.shape, account.dtype) == ((env.account_size(params),), jnp.float32)
    # A scan needs one type of state: after a reset, after a step, and without a reset between.
    kinds = [
        [(jnp.shape(x), jnp.asarray(x).dtype, jax.typeof(x).weak_type) for x in jax.tree.leaves(s)]
        for s in (state, next_state, env.step_env(key, state, action, params)[1])
    ]
    assert kinds[0] == kinds[1] == kinds[2]
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(params))
    assert env.name == case[0]


@every
def test_action_bounds_are_finite_and_extreme_actions_are_survived(case):
    (env, params), spec = made(case), actions_of(case)
    if spec.discrete:
        assert spec.n >= 2
        extremes = jnp.arange(spec.n)
    else:
        low, high = np.array(spec.low), np.array(spec.high)
        assert (np.isfinite(low) & np.isfinite(high) & (low < high)).all()
        extremes = jnp.array([low, high, (low + high) / 2, np.where(low < 0, 0, low)], jnp.float32)

    @jax.jit
    @jax.vmap
    def repeat(action):
        state = env.reset_state(jax.random.key(1), params)

        def one_step(state, key):
            state, reward, _, _ = env.step_state(key, state, action, params)
            return state, (reward, env.get_obs(state, params))

        return jax.lax.scan(one_step, state, jax.random.split(jax.random.key(2), 4))[1]

    assert all(bool(jnp.isfinite(x).all()) for x in repeat(extremes))


@every
def test_observations_and_rewards_stay_finite_under_random_actions(case):
    first, obs, reward, terminated, truncated, final = played(case)
    assert reward.size == 100_000
    for values in (first, obs, reward, final):
        assert np.isfinite(values).all()
    assert (terminated | truncated).sum() >= 100  # episodes end
    assert reward.std() > 0


@every
def test_an_episode_never_terminates_and_is_truncated_at_once(case):
    *_, terminated, truncated, _ = played(case)
    assert not (terminated & truncated).any()


@every
def test_equal_keys_give_equal_episodes_and_others_do_not(case):
    (env, params), spec = made(case), actions_of(case)
    a, b, c = (play(env, spec, params, jax.random.key(seed), 8, 20) for seed in (5, 5, 6))
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert np.array_equal(x, y)
    assert not np.array_equal(a[1][1], c[1][1])


@every
def test_episodes_start_at_different_rows_unless_the_task_fixes_the_start(case):
    env, params = made(case)
    keys = jax.random.split(jax.random.key(0), 64)
    obs, state = reset_many(env, params, keys)
    starts = np.unique(np.asarray(jax.vmap(env.row)(state)))
    if case in FIXED_START:
        assert len(starts) == 1
        assert len(np.unique(obs, axis=0)) == 1
    else:
        assert len(starts) > 20
        # Also where a reset follows the end of an episode, all inside one program.
        _, obs, _, terminated, truncated, _ = played(case)
        assert len(np.unique(obs[terminated | truncated], axis=0)) > 20


@every
def test_other_numbers_do_not_compile_again(case):
    (env, params), spec = made(case), actions_of(case)
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def run(env, params, key):
        traces.append(1)
        state = env.reset_state(key, params)
        return env.step_state(key, state, random_actions(spec, key, ()), params)[1]

    run(env, params, jax.random.key(0))
    others = jax.tree.map(lambda x: x * 1.01 if x.dtype == jnp.float32 else x, params)
    run(env, others, jax.random.key(1))
    # Nor does a second environment of the same options.
    run(make(case)[0], make(case)[1], jax.random.key(2))
    assert len(traces) == 1


@every
def test_one_program_plays_many_parameters_at_once(case):
    (env, params), spec = made(case), actions_of(case)
    several = jax.tree.map(lambda x: jnp.stack([x, x]), params)

    @jax.jit
    @functools.partial(jax.vmap, in_axes=(0, None))
    def first_reward(params, key):
        state = env.reset_state(key, params)
        return env.step_state(key, state, random_actions(spec, key, ()), params)[1]

    rewards = first_reward(several, jax.random.key(0))
    assert rewards.shape == (2,)
    assert rewards[0] == rewards[1]


@every
def test_equal_options_make_equal_environments(case):
    a, b = made(case)[0], make(case)[0]
    assert a is not b
    assert a == b
    assert hash(a) == hash(b)
    assert a != object()
    for other in CASES:
        if other[0] != case[0]:
            assert a != made(other)[0]


@every
def test_factored_observations_are_the_flat_ones(case):
    """Our own rollouts and the gymnax interface see the same episodes."""
    env, params = made(case)
    batch, n_steps = 4, 60
    source = jax_source(env, params, num_envs=batch)
    reset_key, key = jax.random.split(jax.random.key(3))
    action = random_actions(actions_of(case), jax.random.key(4), (batch,))
    actor = Repeat(action)

    @jax.jit
    def ours():
        carry = source.reset(reset_key, actor)
        return source.collect(carry, actor, key, n_steps)[1]

    @jax.jit
    def theirs():
        keys = jax.random.split(key, (n_steps, 1 + batch))[:, 1:]
        reset_keys = jax.random.split(reset_key, batch)
        obs, state = jax.vmap(env.reset, in_axes=(0, None))(reset_keys, params)

        def one_step(carry, keys):
            obs, state = carry
            new_obs, state, reward, terminated, truncated, info = jax.vmap(
                env.step, in_axes=(0, 0, 0, None)
            )(keys, state, action, params)
            step = (obs, reward, info["final_observation"], terminated, truncated)
            return (new_obs, state), step

        return jax.lax.scan(one_step, (obs, state), keys)[1]

    e = ours()
    obs, reward, final, terminated, truncated = theirs()
    assert isinstance(e.obs, Factored)
    assert isinstance(e.next_obs, Factored)
    assert e.table is not None
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
    close(e.obs.flat(e.table), obs)
    close(e.next_obs.flat(e.table), final)
    close(e.reward, reward)
    assert np.array_equal(e.terminated, terminated)
    assert np.array_equal(e.truncated, truncated & ~terminated)
    rows = np.asarray(e.next_obs.row)
    assert (rows >= 0).all()
    assert (rows < e.table.shape[0]).all()


@every
def test_a_held_out_span_is_kept_to(case):
    env, params = made(case)
    module = discovery.module("envs", case[0])
    if case[1] == "simulated":
        pytest.skip("there is no data to hold out")
    assert hasattr(module, "over_span"), f"{case[0]} takes data and needs over_span"
    held_out = Span(300, 360)
    inner = module.over_span(params, held_out)
    keys = jax.random.split(jax.random.key(0), 64)
    source = jax_source(env, inner, num_envs=64)
    action = random_actions(actions_of(case), jax.random.key(1), (64,))
    actor = Repeat(action)

    @jax.jit
    def visited():
        e = source.collect(source.reset(keys[0], actor), actor, keys[1], 150)[1]
        return e.obs.row, e.next_obs.row, e.done

    row, next_row, done = map(np.asarray, visited())
    per_symbol = env.market_table(inner).shape[0] // ROWS
    assert per_symbol >= 1
    for rows in (row % ROWS, next_row % ROWS):
        assert rows.min() >= held_out.first
        assert rows.max() <= held_out.last
    assert done.any()


@every
def test_ppo_trains_two_updates(case):
    env, params = made(case)
    config = ppo.Config(num_envs=8, n_steps=32, minibatches=2, epochs=2, hidden_sizes=(16,))
    source = jax_source(env, params, num_envs=8)
    algorithm = ppo.make(config, source.spec, jnp.float32(1))
    # Raises TrainingError where a metric or a parameter is not finite.
    result = training.train(algorithm, source, jax.random.key(0), total_timesteps=512)
    assert result.rows[0][-1]["update"] == 2
    action = result.policy.act(jnp.zeros(source.spec.size))
    assert action.shape == tuple(env.action_space(params).shape)


@every
def test_the_environment_works_without_data(case):
    env, _ = made(case)
    params = env.default_params
    obs, _ = type(env)().reset(jax.random.key(0), type(env)().default_params)
    assert bool(jnp.isfinite(obs).all())
    assert jax.tree.leaves(params)


@pytest.mark.parametrize("name", discovery.environments())
def test_options_read_from_source_text_are_those_of_the_program(name):
    module = discovery.module("envs", name)
    described = {option.name: option.default for option in discovery.options("envs", name)}
    plain = to_dict(module.Config())
    assert {k: list(v) if isinstance(v, tuple) else v for k, v in described.items()} == plain
    assert all(option.doc for option in discovery.options("envs", name))
    assert next(iter(inspect.signature(module.make).parameters)) == "config"


def test_every_case_belongs_to_an_environment():
    assert {name for name, _ in FIXED_START} <= {name for name, _ in CASES}
