"""Random numbers hashed from key and position: distribution, and independence of each other."""

import jax
import jax.numpy as jnp
import numpy as np
from scipy import stats

from tradax.draws import near_normals, normal_quantile, normals, random_words, uniforms

SIZE = 200_000


def test_words_against_a_plain_reference():
    def mixed(x):
        x = ((x ^ (x >> 16)) * 0x85EBCA6B) & 0xFFFFFFFF
        x = ((x ^ (x >> 13)) * 0xC2B2AE35) & 0xFFFFFFFF
        return x ^ (x >> 16)

    key = jax.random.key(7)
    first, second = (int(word) for word in jax.random.key_data(key))
    expected = [mixed((mixed(i ^ first) + second) & 0xFFFFFFFF) for i in range(50)]
    np.testing.assert_array_equal(random_words(key, 50), np.array(expected, np.uint32))
    np.testing.assert_array_equal(random_words(jax.random.key_data(key), 50), expected)


def test_uniforms_and_normals_have_their_distribution():
    for seed in range(3):
        key = jax.random.fold_in(jax.random.key(1), seed)
        drawn = np.asarray(uniforms(key, SIZE))
        assert 0 < drawn.min() < drawn.max() < 1
        assert stats.kstest(drawn, "uniform").pvalue > 1e-3
        assert stats.kstest(np.asarray(normals(key, SIZE)), "norm").pvalue > 1e-3


def test_near_normals_are_near_normal():
    drawn = np.asarray(
        jax.vmap(lambda i: near_normals(jax.random.fold_in(jax.random.key(2), i), SIZE))(
            jnp.arange(5)
        ),
        np.float64,
    ).ravel()
    assert stats.kstest(drawn, "norm").statistic < 1e-3 + 1.5 / np.sqrt(drawn.size)
    error = 5 / np.sqrt(drawn.size)
    assert abs(drawn.mean()) < error
    assert abs(drawn.std() - 1) < error
    assert abs(stats.skew(drawn)) < 3 * error
    assert abs(stats.kurtosis(drawn)) < 0.04 + 5 * error
    assert abs(np.corrcoef(drawn[:-1], drawn[1:])[0, 1]) < error


def test_bits_are_fair_and_neighbours_independent():
    words = np.asarray(random_words(jax.random.key(3), SIZE))
    bits = (words[:, None] >> np.arange(32, dtype=np.uint32)) & 1
    error = 5 / np.sqrt(SIZE)
    assert np.abs(2 * bits.mean(axis=0) - 1).max() < error
    between = np.corrcoef(bits.T.astype(float)) - np.eye(32)
    assert np.abs(between).max() < error
    drawn = np.asarray(normals(jax.random.key(3), SIZE))
    for lag in (1, 2, 64, 4096):
        assert abs(np.corrcoef(drawn[:-lag], drawn[lag:])[0, 1]) < error


def test_individuals_are_independent():
    keys = jax.vmap(lambda i: jax.random.fold_in(jax.random.key(5), i))(jnp.arange(64))
    drawn = np.asarray(jax.vmap(lambda key: normals(key, 4_096))(keys))
    between = np.corrcoef(drawn) - np.eye(64)
    assert np.abs(between).max() < 5 / np.sqrt(4_096)
    assert stats.kstest(drawn.mean(axis=0) * 8, "norm").pvalue > 1e-3


def test_quantiles_equal_the_exact_ones():
    probability = np.linspace(0.001, 0.999, 999)
    found = normal_quantile(jnp.float32(probability))
    np.testing.assert_allclose(found, stats.norm.ppf(probability), rtol=1e-4, atol=1e-5)
    assert np.isfinite(np.asarray(normal_quantile(jnp.array([0.0, 1.0])))).all()
