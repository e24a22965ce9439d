"""What holds for every environment, those that will be added included: they are discovered.

An environment gets one synthetic market unless `DATA` says otherwise.
"""

import functools
import inspect

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tradax import discovery, protocols
from tradax.algorithms import ppo
from tradax.config import to_dict
from tradax.data import synthetic
from tradax.data.features import Config as FeatureConfig
from tradax.data.pipeline import Pipeline
from tradax.data.splits import Span
from tradax.envs._market import MarketEnvironment
from tradax.optimise import all_finite
from tradax.protocols import Actor
from tradax.rollout import jax_source
from tradax.spaces import ActionSpec, Factored, action_spec

ROWS = 400  # of a market
ENVS, STEPS = 250, 400
DATA = {
    "market_making": ("simulated",),
    "execution": ("simulated", "one market"),
    "portfolio_execution": ("simulated",),
    "simulated_portfolio": ("simulated",),
    "portfolio": ("several markets",),
    "trading": ("one market", "several markets"),
}
# Where every episode starts alike because the task says so.
FIXED_START = {
    ("market_making", "simulated"),
    ("execution", "simulated"),
    ("portfolio_execution", "simulated"),
    ("simulated_portfolio", "simulated"),
}

CASES = [
    (name, data) for name in discovery.environments() for data in DATA.get(name, ("one market",))
]


# Of the module's scope, so that one case follows the other and shares what was compiled for it.
@pytest.fixture(scope="module", params=CASES, ids=lambda case: f"{case[0]}, {case[1]}")
def case(request):
    return request.param


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


class Random(Actor):
    """Random actions that depend on nothing but the key."""

    spec: ActionSpec = eqx.field(static=True)

    def __call__(self, obs, memory, key):
        return random_actions(self.spec, key, (jax.tree.leaves(obs)[0].shape[0],)), memory, ()


@functools.partial(jax.jit, static_argnums=(0, 1))
def play(env, spec, params, key):
    """Random actions through the gymnax interface.

    Returns: first observations [B, D]; observation, reward, terminated, truncated and true next
    observation of every step [T, B, ...].
    """
    reset_key, step_key = jax.random.split(key)
    obs, state = jax.vmap(env.reset, in_axes=(0, None))(jax.random.split(reset_key, ENVS), params)

    def one_step(state, keys):
        obs, state, reward, terminated, truncated, info = jax.vmap(
            env.step, in_axes=(0, 0, 0, None)
        )(keys[1:], state, random_actions(spec, keys[0], (ENVS,)), params)
        return state, (obs, reward, terminated, truncated, info["final_observation"])

    _, record = jax.lax.scan(one_step, state, jax.random.split(step_key, (STEPS, 1 + ENVS)))
    return obs, *record


@eqx.filter_jit
def collect(source, actor, key):
    """The same through our own rollouts."""
    reset_key, step_key = jax.random.split(key)
    return source.collect(source.reset(reset_key, actor), actor, step_key, STEPS)[1]


@functools.cache
def played(case, seed=0):
    env, params = made(case)
    return tuple(map(np.asarray, play(env, actions_of(case), params, jax.random.key(seed))))


def collected(case, params):
    source = jax_source(made(case)[0], params, num_envs=ENVS)
    return collect(source, Random(actions_of(case)), jax.random.key(0))


def test_shapes_and_types_are_as_declared(case):
    env, params = made(case)
    assert isinstance(env, MarketEnvironment)
    space, table = env.observation_space(params), env.market_table(params)
    assert table.dtype == jnp.float32
    assert space.shape == (table.shape[1] + env.account_size(params),)
    key = jax.random.key(0)
    action = random_actions(actions_of(case), key, ())
    assert action.shape == tuple(env.action_space(params).shape)

    def first_step(params):
        obs, state = env.reset(key, params)
        inner = env.step_env(key, state, action, params)[1]
        account = env.row(state), env.account(state, params)
        return obs, (state, inner), account, env.step(key, state, action, params)

    obs, states, (row, account), step = jax.eval_shape(first_step, params)
    next_obs, next_state, reward, terminated, truncated, info = step
    for seen in (obs, next_obs, info["final_observation"]):
        assert (seen.shape, seen.dtype) == (space.shape, jnp.float32)
    assert (reward.shape, reward.dtype) == ((), jnp.float32)
    assert (terminated.shape, terminated.dtype) == ((), jnp.bool_)
    assert (truncated.shape, truncated.dtype) == ((), jnp.bool_)
    assert (row.shape, row.dtype) == ((), jnp.int32)
    assert (account.shape, account.dtype) == ((env.account_size(params),), jnp.float32)
    # A scan needs one type of state: after a reset, after a step, and without a reset between.
    kinds = [
        [(x.shape, x.dtype, x.weak_type) for x in jax.tree.leaves(state)]
        for state in (*states, next_state)
    ]
    assert kinds[0] == kinds[1] == kinds[2]
    assert all(isinstance(x, jax.Array) for x in jax.tree.leaves(params))
    assert env.name == case[0]


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


def test_observations_and_rewards_stay_finite_under_random_actions(case):
    first, obs, reward, terminated, truncated, final = played(case)
    assert reward.size == 100_000
    for values in (first, obs, reward, final):
        assert np.isfinite(values).all()
    assert (terminated | truncated).sum() >= 100  # episodes end
    assert reward.std() > 0


def test_an_episode_never_terminates_and_is_truncated_at_once(case):
    *_, terminated, truncated, _ = played(case)
    assert not (terminated & truncated).any()


def test_equal_keys_give_equal_episodes_and_others_do_not(case):
    a = played(case)
    b = play(made(case)[0], actions_of(case), made(case)[1], jax.random.key(0))
    for x, y in zip(a, b, strict=True):
        assert np.array_equal(x, y)
    assert not np.array_equal(a[2], played(case, seed=1)[2])


def test_episodes_start_at_different_rows_unless_the_task_fixes_the_start(case):
    _, params = made(case)
    experience = collected(case, params)
    first_row, first, obs = experience.obs.row[0], *played(case)[:2]
    after_reset = obs[np.asarray(experience.done)]
    if case in FIXED_START:
        assert len(np.unique(first_row)) == 1
        assert len(np.unique(np.concatenate([first, after_reset]), axis=0)) == 1
    else:
        assert len(np.unique(first_row)) > 20
        # Also where a reset follows the end of an episode, all inside one program.
        assert len(np.unique(after_reset, axis=0)) > 20


def test_one_program_plays_many_parameters_and_other_numbers_do_not_compile_again(case):
    (env, params), spec = made(case), actions_of(case)
    traces = []

    @functools.partial(jax.jit, static_argnums=0)
    def first_reward(env, params, key):
        traces.append(1)

        def one(params):
            state = env.reset_state(key, params)
            return env.step_state(key, state, random_actions(spec, key, ()), params)[1]

        return jax.vmap(one)(params)

    other = jax.tree.map(lambda x: x * 1.01 if x.dtype == jnp.float32 else x, params)
    several = jax.tree.map(lambda *x: jnp.stack(x), params, params, other)
    rewards = first_reward(env, several, jax.random.key(0))
    assert rewards.shape == (3,)
    assert rewards[0] == rewards[1]
    others = jax.tree.map(lambda x: x[::-1], several)
    assert first_reward(env, others, jax.random.key(0)).tolist() == rewards[::-1].tolist()
    # Nor does a second environment of the same options.
    first_reward(make(case)[0], several, jax.random.key(1))
    assert len(traces) == 1


def test_equal_options_make_equal_environments(case):
    a, b = made(case)[0], make(case)[0]
    assert a is not b
    assert a == b
    assert hash(a) == hash(b)
    assert a != object()
    for other in CASES:
        if other[0] != case[0]:
            assert a != made(other)[0]


def test_factored_observations_are_the_flat_ones(case):
    """Our own rollouts and the gymnax interface see the same episodes."""
    _, params = made(case)
    e = collected(case, params)
    first, obs, reward, terminated, truncated, final = played(case)
    assert isinstance(e.obs, Factored)
    assert isinstance(e.next_obs, Factored)
    assert e.table is not None
    early = slice(0, 50)  # rounding differs between programs, and adds up
    close = functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-4)
    close(e.obs.flat(e.table)[early], np.concatenate([first[None], obs])[early])
    close(e.next_obs.flat(e.table)[early], final[early])
    close(e.reward[early], reward[early])
    assert np.array_equal(e.terminated[early], terminated[early])
    assert np.array_equal(e.truncated[early], (truncated & ~terminated)[early])
    assert not (e.terminated & e.truncated).any()
    rows = np.asarray(e.next_obs.row)
    assert rows.min() >= 0
    assert rows.max() < e.table.shape[0]


def test_a_held_out_span_is_kept_to(case):
    _, params = made(case)
    module = discovery.module("envs", case[0])
    if case[1] == "simulated":
        pytest.skip("there is no data to hold out")
    assert hasattr(module, "over_span"), f"{case[0]} takes data and needs over_span"
    held_out = Span(300, 360)
    e = collected(case, module.over_span(params, held_out))
    for rows in (np.asarray(e.obs.row) % ROWS, np.asarray(e.next_obs.row) % ROWS):
        assert rows.min() >= held_out.first
        assert rows.max() <= held_out.last
    assert e.done.any()


def test_ppo_trains_two_updates(case):
    env, params = made(case)
    if any(made(other)[0] == env for other in CASES[: CASES.index(case)]):
        pytest.skip("an equal environment was trained on already, with other data")
    config = ppo.Config(num_envs=8, n_steps=32, minibatches=2, epochs=2, hidden_sizes=(16,))
    source = jax_source(env, params, num_envs=8)
    algorithm = ppo.make(config, source.spec, jnp.float32(2))
    state = eqx.filter_jit(protocols.init)(algorithm, source, jax.random.key(0))
    before, step = state, eqx.filter_jit(protocols.step)
    for _ in range(2):
        state, metrics, _ = step(algorithm, source, state)
        assert bool(all_finite((metrics, algorithm.policy(state.learner))))
    weights = [algorithm.policy(s.learner).network.rest[-1].weight for s in (before, state)]
    assert not np.array_equal(*weights)
    action = algorithm.policy(state.learner).act(jnp.zeros(source.spec.size))
    assert action.shape == tuple(env.action_space(params).shape)


def test_the_environment_works_without_data(case):
    env = type(made(case)[0])()
    params = env.default_params
    assert jax.tree.leaves(params)
    table = env.market_table(params)
    assert bool(jnp.isfinite(table).all())
    obs, _ = jax.eval_shape(env.reset, jax.random.key(0), params)
    assert obs.shape == (table.shape[1] + env.account_size(params),)


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
