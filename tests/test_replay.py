"""The ring against a plain Python deque, and what it promises of sampling and memory."""

from collections import deque

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax import replay
from tradax.errors import ConfigError
from tradax.optimise import draw_distinct, permutation
from tradax.replay import Ring, Stored
from tradax.spaces import ActionSpec, Factored, Spec

BOX = ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0))
FLAT = Spec(market=0, account=3, action=BOX)
FACTORED = Spec(market=7, account=3, action=BOX)
GAMMA = 0.9
CAPACITY, ENVS = 5, 2


def steps(rng, count, spec=FLAT, envs=ENVS):
    """Random steps [T, B]; a third of them end an episode."""

    def observation():
        account = rng.normal(size=(count, envs, 3)).astype(np.float32)
        if not spec.market:
            return account
        # Rows whose bits are those of denormal floats, and of none.
        return Factored(rng.integers(0, 2**30, (count, envs), np.int32), account)

    end = rng.integers(0, 6, (count, envs))
    return Stored(
        observation(),
        rng.normal(size=(count, envs, 2)).astype(np.float32),
        rng.normal(size=(count, envs)).astype(np.float32),
        observation(),
        end == 0,
        end == 1,
    )


@jax.jit
def add(ring, steps):
    return ring.add(steps)


@eqx.filter_jit
def transitions(ring, index, return_steps):
    return ring.transitions(index, gamma=GAMMA, return_steps=return_steps)


@eqx.filter_jit
def sample(ring, key, count, replacement):
    return ring.sample(key, count, gamma=GAMMA, replacement=replacement)


def one(steps, t, env):
    return jax.tree.map(lambda x: x[t, env], steps)


def by_hand(history, start, env, n):
    """The n-step transition that begins at `start` of a list of steps [B], in plain Python."""
    first = last = history[start]
    reward, discount = 0.0, 1.0
    for step in history[start : start + n]:
        last = step
        reward += discount * float(step.reward[env])
        discount *= GAMMA
        if step.terminated[env] or step.truncated[env]:
            break
    if last.terminated[env]:
        discount = 0.0

    def pick(tree):
        return jax.tree.map(lambda x: x[env], tree)

    return pick(first.obs), first.action[env], reward, pick(last.next_obs), discount


@pytest.mark.parametrize("spec", [FLAT, FACTORED], ids=["flat", "factored"])
@given(counts=st.lists(st.sampled_from([1, 3]), min_size=1, max_size=8), seed=st.integers(0, 99))
@settings(max_examples=12, deadline=None)
def test_the_ring_is_a_deque_at_every_fill_and_across_its_seam(spec, counts, seed):
    rng = np.random.default_rng(seed)
    ring, expected = Ring.create(spec, CAPACITY, ENVS), deque(maxlen=CAPACITY)
    added = 0
    for count in counts:
        new = steps(rng, count, spec)
        ring = add(ring, new)
        expected.extend(jax.tree.map(lambda x, t=t: x[t], new) for t in range(count))
        added += count
        assert int(ring.filled) == len(expected)
        assert int(ring.size) == len(expected) * ENVS
        assert int(ring.cursor) == added % CAPACITY
        history = list(expected)
        for n in (1, 3):
            found = transitions(ring, jnp.arange(CAPACITY * ENVS), n)
            found = jax.tree.map(np.asarray, found)
            for age in range(len(history)):
                slot = (added - len(history) + age) % CAPACITY
                for env in range(ENVS):
                    got = jax.tree.map(lambda x, i=slot * ENVS + env: x[i], found)
                    want = by_hand(history, age, env, n)
                    for a, b in zip(*map(jax.tree.leaves, (tuple(got), want)), strict=True):
                        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-6)


def test_an_n_step_return_by_hand():
    """Rewards 1, 2, 4, 8, 16 in a ring of four slots; the third step terminates."""
    ring = Ring.create(FLAT, 4, 1)
    for i in range(5):
        new = steps(np.random.default_rng(i), 1, FLAT, 1)
        new = new._replace(
            reward=np.full((1, 1), 2.0**i, np.float32),
            terminated=np.full((1, 1), i == 2),
            truncated=np.zeros((1, 1), bool),
        )
        ring = add(ring, new)
    # Slots hold steps 4, 1, 2, 3: step 0 is overwritten.
    found = transitions(ring, jnp.arange(4), 2)
    np.testing.assert_allclose(found.reward, [16.0, 2 + 0.9 * 4, 4.0, 8 + 0.9 * 16])
    np.testing.assert_allclose(found.discount, [0.9, 0.0, 0.0, 0.81], rtol=1e-6)


def test_truncation_bootstraps_and_termination_does_not():
    new = steps(np.random.default_rng(0), 3, FLAT, 1)
    ends = np.array([[True], [False], [False]])
    new = new._replace(terminated=ends, truncated=np.roll(ends, 1, 0))
    found = transitions(add(Ring.create(FLAT, 5, 1), new), jnp.arange(3), 1)
    np.testing.assert_allclose(found.discount, [0.0, GAMMA, GAMMA])
    np.testing.assert_array_equal(found.next_obs, new.next_obs[:, 0])


def test_rows_are_stored_and_never_the_features_to_which_they_point():
    wide = Spec(market=10_000, account=3, action=BOX)
    ring = Ring.create(wide, 100, 4)
    assert ring.words.nbytes == replay.memory(wide, 100, 4) == 100 * 4 * 4 * (2 * 4 + 2 + 2)
    row = np.array([[0, 1, 2**31 - 1, 8_388_608]], np.int32)
    new = steps(np.random.default_rng(0), 1, wide, 4)
    new = new._replace(obs=Factored(row, new.obs.account))
    np.testing.assert_array_equal(transitions(add(ring, new), jnp.arange(4), 1).obs.row, row[0])


def filled(count, capacity=64):
    """A ring whose rewards number the steps."""
    new = steps(np.random.default_rng(0), count, FLAT, 1)
    reward = np.arange(count, dtype=np.float32)[:, None]
    return add(Ring.create(FLAT, capacity, 1), new._replace(reward=reward))


def test_draws_are_uniform_over_what_is_stored_and_nothing_else():
    for replacement in (True, False):
        counts = np.zeros(64)
        ring = filled(37)
        for seed in range(200):
            drawn = sample(ring, jax.random.key(seed), 16, replacement).reward.astype(int)
            counts += np.bincount(drawn, minlength=64)
            if not replacement:
                assert len(set(drawn.tolist())) == 16
        assert not counts[37:].any()
        mean = 200 * 16 / 37
        chi_square = ((counts[:37] - mean) ** 2 / mean).sum()
        assert chi_square < 70  # 36 degrees of freedom; chance of more 0.06%


@pytest.mark.parametrize("n", [1, 3, 64])
def test_different_numbers_of_any_range(n):
    draw = jax.jit(draw_distinct, static_argnums=1)
    for count in {n // 2 + 1, n}:
        numbers = draw(jax.random.key(1), count, jnp.int32(n)).tolist()
        assert len(set(numbers)) == count
        assert set(numbers) <= set(range(n))
    # As many as there are: a permutation, the same whether n is known when compiling.
    np.testing.assert_array_equal(
        draw(jax.random.key(1), n, jnp.int32(n)), permutation(jax.random.key(1), n)
    )


def test_rings_side_by_side_are_rings_of_their_own():
    rng = np.random.default_rng(3)
    rings = [Ring.create(FLAT, CAPACITY, ENVS) for _ in range(3)]
    for i, count in enumerate((2, 4, 7)):  # each at another place
        for _ in range(count):
            rings[i] = add(rings[i], steps(rng, 1))
    together = jax.tree.map(lambda *x: jnp.stack(x), *rings)
    news = [steps(rng, 3) for _ in rings]
    together = jax.jit(jax.vmap(Ring.add))(together, jax.tree.map(lambda *x: np.stack(x), *news))
    keys = jax.random.split(jax.random.key(0), 3)
    drawn = jax.jit(jax.vmap(lambda r, k: r.sample(k, 8, gamma=GAMMA, return_steps=2)))(
        together, keys
    )
    alone = jax.jit(lambda r, k: r.sample(k, 8, gamma=GAMMA, return_steps=2))
    for i, (ring, new) in enumerate(zip(rings, news, strict=True)):
        ring = add(ring, new)
        for a, b in zip(*map(jax.tree.leaves, (together, ring)), strict=True):
            np.testing.assert_array_equal(a[i], b)
        for a, b in zip(*map(jax.tree.leaves, (drawn, alone(ring, keys[i]))), strict=True):
            np.testing.assert_array_equal(a[i], b)


def test_memory_is_stated_and_what_does_not_fit_is_refused():
    assert replay.check_memory(3_000_000, free=10**9) == (
        "the replay buffer takes 3.00 MB of 1.00 GB that are free"
    )
    with pytest.raises(ConfigError, match=r"takes 8.00 GB.*lower replay_size"):
        replay.check_memory(8 * 10**9, free=10**9)
    assert replay.check_memory(1000, free=None)
    assert replay.free_memory() > 10**6


def test_more_steps_than_slots_are_refused():
    with pytest.raises(ConfigError, match="6 steps do not fit into a buffer of 5"):
        Ring.create(FLAT, CAPACITY, ENVS).add(steps(np.random.default_rng(0), 6))
