import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tradax.errors import ConfigError
from tradax.optimise import (
    all_finite,
    check_minibatches,
    linear_anneal,
    minibatch_epochs,
    permutation,
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
