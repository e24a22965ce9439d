"""Cheap random numbers: hashes of a key, or of a key and a position (Salmon et al. 2011).

Searches draw every parameter of every individual anew in each generation. Threefry, JAX's
generator, would take longer for it than the individuals' episodes; two rounds of integer mixing
cost a hundredth, and like it depend on nothing but key and position.
"""

import jax
import jax.numpy as jnp

from tradax.errors import ConfigError

MOST_SEED = 2**32 - 1


def check_seed(seed: int) -> None:
    """Raises ConfigError unless every generator here takes it: JAX's, NumPy's, Gymnasium's."""
    if not isinstance(seed, int) or isinstance(seed, bool) or not 0 <= seed <= MOST_SEED:
        raise ConfigError(f"seed is {seed}; it must be a whole number, 0 to {MOST_SEED}")


def random_words(key: jax.Array, size: int) -> jax.Array:
    """Uniform uint32 [size]. Use a key once: `normals` and `uniforms` are made of these."""
    first, second = _words(key)
    # Each round is a bijection of words, so that no position of one key repeats another's.
    return _mixed(_mixed(jax.lax.iota(jnp.uint32, size) ^ first) + second)


def uniforms(key: jax.Array, size: int) -> jax.Array:
    """Uniform in (0, 1), float32 [size]; neither end is ever drawn."""
    high_bits = (random_words(key, size) >> 8).astype(jnp.int32)
    return jnp.minimum((high_bits.astype(jnp.float32) + 0.5) * 2.0**-24, 1.0 - 2.0**-24)


def normals(key: jax.Array, size: int) -> jax.Array:
    """Standard normal, float32 [size]."""
    return normal_quantile(uniforms(key, size))


def near_normals(key: jax.Array, size: int) -> jax.Array:
    """Nearly standard normal, float32 [size], for a fifth of the work: heads of 64 coins, blurred.

    Mean 0 and deviation 1; the distribution function is within 0.1% of the normal one. The heads
    are a quarter of a deviation apart, and the sum of two uniform numbers is spread between them.
    """
    words = random_words(key, size)
    other = _mixed(words ^ jnp.uint32(0x9E3779B9))
    blur = _mixed(other + jnp.uint32(0x85EBCA6B))
    heads = jax.lax.population_count(words) + jax.lax.population_count(other)
    halves = (blur >> 16) + (blur & 0xFFFF)
    sum_ = heads.astype(jnp.int32).astype(jnp.float32) + (
        halves.astype(jnp.int32).astype(jnp.float32) * 2.0**-16
    )
    # Variance 1/4 of a coin, 1/12 of a uniform number.
    return (sum_ - (33.0 - 2.0**-16)) * (64 / 4 + 2 / 12) ** -0.5


def normal_quantile(probability: jax.Array) -> jax.Array:
    """The number below which a standard normal variable lies with this probability."""
    inside = 1.0 - 2.0**-24
    return jnp.float32(2.0**0.5) * jax.lax.erf_inv(
        jnp.clip(2.0 * probability - 1.0, -inside, inside)
    )


def is_key(x: jax.Array) -> bool:
    """Whether it is one of JAX's typed keys."""
    return jnp.issubdtype(x.dtype, jax.dtypes.prng_key)


def another_key(key: jax.Array) -> jax.Array:
    """A key of its own for the reset that may follow a step.

    A threefry split costs more than a step of a market; this is a few integer operations that XLA
    fuses with it.
    """
    words = _words(key)
    mixed = jnp.stack([_mixed(words[0] ^ _mixed(words[1])), _mixed(words[0] + words[1])])
    if not is_key(key):
        return jnp.resize(mixed, key.shape)
    data = jnp.resize(mixed, jax.random.key_data(key).shape)
    return jax.random.wrap_key_data(data, impl=jax.random.key_impl(key))


def random_integer(key: jax.Array, n: jax.Array, stream: int = 0) -> jax.Array:
    """A number in 0..n-1, int32; other streams of one key are independent of it.

    Its bias is n / 2^32. For starts of episodes, which are drawn at every step.
    """
    words = _words(key) ^ _mixed(jnp.uint32(0x9E3779B9 + stream))
    drawn = _mixed(words[1] ^ _mixed(words[0] + jnp.uint32(0x85EBCA6B)))
    return (drawn % jnp.asarray(n).astype(jnp.uint32)).astype(jnp.int32)


def _words(key: jax.Array) -> jax.Array:
    """The first two 32-bit words of a key."""
    return (jax.random.key_data(key) if is_key(key) else key)[:2]


def _mixed(x: jax.Array) -> jax.Array:
    """A bijection of 32-bit words in which every bit depends on all (MurmurHash3's last step)."""
    x = (x ^ (x >> 16)) * jnp.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * jnp.uint32(0xC2B2AE35)
    return x ^ (x >> 16)
