import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tradax.errors import ConfigError
from tradax.optimise import (
    all_finite,
    backtrack,
    check_minibatches,
    conjugate_gradient,
    descend,
    linear_anneal,
    minibatch_epochs,
    permutation,
    rmsprop,
    where_needed,
)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100, 1000, 4096, 5000])
def test_a_permutation_holds_every_number_once(n):
    for seed in range(5):
        order = np.asarray(permutation(jax.random.key(seed), n))
        assert sorted(order) == list(range(n))


def test_permutations_differ_by_key_and_spread_uniformly():
    n, draws = 64, 4000
    orders = np.asarray(
        jax.vmap(lambda key: permutation(key, n))(jax.random.split(jax.random.key(1), draws))
    )
    assert len(np.unique(orders, axis=0)) == draws
    # Every element lands in every quarter (a minibatch) equally often.
    quarters = orders.reshape(draws, 4, n // 4)
    counts = np.stack([(quarters == element).any(2).sum(0) for element in range(n)])
    p = stats.chisquare(counts.ravel(), np.full(4 * n, draws / 4)).pvalue
    assert p > 1e-4
    # Neighbours in time do not stay together in a minibatch.
    quarter_of = np.argsort(orders, axis=1) // (n // 4)
    together = (quarter_of[:, 1:] == quarter_of[:, :-1]).mean()
    assert together == pytest.approx((n / 4 - 1) / (n - 1), abs=0.03)


def test_every_epoch_visits_every_row_once_in_a_fresh_order():
    def update(seen, rows):
        return seen.at[rows].add(1), rows

    seen, order = minibatch_epochs(
        update,
        jnp.zeros(24, jnp.int32),
        jnp.arange(24),
        jax.random.key(0),
        epochs=3,
        minibatches=4,
    )
    assert seen.tolist() == [3] * 24
    assert order.shape == (3, 4, 6)
    assert order[0].ravel().tolist() != order[1].ravel().tolist()


def test_a_batch_that_does_not_divide_is_refused_with_what_would():
    with pytest.raises(ConfigError, match=r"4096 steps .* do not divide into 3 .* use one of 1, 2"):
        check_minibatches(64, 64, 3)


def test_annealing_reaches_its_ends():
    horizon = jnp.float32(10)
    assert float(linear_anneal(2.0, 0.0, jnp.int32(0), horizon)) == 2.0
    assert float(linear_anneal(2.0, 0.5, jnp.int32(10), horizon)) == 1.0
    assert float(linear_anneal(2.0, 0.0, jnp.int32(20), horizon)) == 0.0


def test_all_finite_sees_one_nan_in_a_tree():
    tree = {"a": jnp.ones(3), "n": jnp.arange(3)}
    assert bool(all_finite(tree))
    assert not bool(all_finite({**tree, "b": jnp.array([0.0, jnp.nan])}))


def test_conjugate_gradients_solve_a_linear_system():
    rng = np.random.default_rng(0)
    root = rng.normal(size=(8, 8))
    matrix, b = jnp.asarray(root @ root.T + np.eye(8)), jnp.asarray(rng.normal(size=8))
    x, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=50)
    np.testing.assert_allclose(x, np.linalg.solve(matrix, b), atol=1e-4)
    assert float(residual) < 1e-10
    _, residual = conjugate_gradient(lambda v: matrix @ v, b, iterations=2)
    assert float(residual) > 1e-3
    x, _ = conjugate_gradient(lambda v: matrix @ v, jnp.zeros(8), iterations=5)
    assert not x.any()  # and no division by 0


def test_backtracking_takes_the_first_size_that_is_accepted():
    size, tried = backtrack(lambda s: s < 0.5, shrink=0.8, steps=10)
    assert float(size) == pytest.approx(0.8**4)
    assert int(tried) == 5
    size, tried = backtrack(lambda s: s < 0.0, shrink=0.8, steps=10)
    assert float(size) == 0.0
    assert int(tried) == 10
    assert float(backtrack(lambda s: s > 0, shrink=0.8, steps=10)[0]) == 1.0


def test_rmsprop_by_hand():
    optimiser = rmsprop(0.1, max_grad_norm=100.0)
    x = jnp.array([1.0])
    x, state = descend(optimiser, jnp.array([2.0]), optimiser.init(x), x)
    assert float(x[0]) == pytest.approx(1 - 0.1 * 2 / np.sqrt(0.01 * 4 + 1e-5), abs=1e-6)
    square = 0.99 * 0.04 + 0.01 * 9
    moved, _ = descend(optimiser, jnp.array([3.0]), state, x)
    assert float(moved[0] - x[0]) == pytest.approx(-0.3 / np.sqrt(square + 1e-5), rel=1e-5)


@pytest.mark.parametrize("needed", [[], [9], [0, 3, 4, 9], range(10)])
@pytest.mark.parametrize("block", [1, 4, 10])
def test_rows_are_computed_where_they_are_needed_and_only_there(needed, block):
    mask = jnp.zeros(10, bool).at[jnp.array(list(needed), int)].set(True)
    batch = {"x": jnp.arange(10.0), "y": jnp.arange(20.0).reshape(10, 2)}

    def compute(part):
        return part["x"] + part["y"].sum(1)

    found = where_needed(mask, compute, batch, jnp.full(10, -1.0), block=block)
    np.testing.assert_array_equal(found, jnp.where(mask, compute(batch), -1.0))
    seeds = jnp.stack([mask, ~mask])
    beside = jax.vmap(lambda m: where_needed(m, compute, batch, jnp.full(10, -1.0), block=block))
    np.testing.assert_array_equal(beside(seeds)[0], found)
