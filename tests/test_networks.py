from dataclasses import replace

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradax.networks import RunningMoments, matmul, mlp
from tradax.policies import ActorCritic
from tradax.spaces import ActionSpec, Factored, Spec

SPEC = Spec(market=7, account=3, action=ActionSpec(low=(-1.0, -1.0), high=(1.0, 1.0)))


def factored(key, batch, rows, spec=SPEC):
    table_key, row_key, account_key = jax.random.split(key, 3)
    table = jax.random.normal(table_key, (rows, spec.market))
    row = jax.random.randint(row_key, batch, 0, rows)
    account = jax.random.normal(account_key, (*batch, spec.account))
    return Factored(row, account), table


@pytest.mark.parametrize("hidden", [(), (16,), (16, 8)])
@pytest.mark.parametrize(("batch", "rows"), [((64,), 10), ((4,), 50), ((5, 6), 20)])
@pytest.mark.parametrize("market", [7, 40])
def test_factored_equals_flat_in_outputs_and_gradients(hidden, batch, rows, market):
    spec = replace(SPEC, market=market)
    network = mlp(jax.random.key(0), spec, hidden, 4, "tanh")
    obs, table = factored(jax.random.key(1), batch, rows, spec)

    def loss(network, table, obs, flat):
        out = network(obs.flat(table)) if flat else network(obs, table)
        return jnp.sum(jnp.sin(out)), out

    (_, out_flat), gradient_flat = eqx.filter_value_and_grad(loss, has_aux=True)(
        network, table, obs, True
    )
    (_, out), gradient = eqx.filter_value_and_grad(loss, has_aux=True)(network, table, obs, False)
    np.testing.assert_allclose(out, out_flat, atol=2e-6)
    for a, b in zip(jax.tree.leaves(gradient), jax.tree.leaves(gradient_flat), strict=True):
        np.testing.assert_allclose(a, b, atol=2e-5)


def test_a_tabulated_network_is_the_same_function():
    network = mlp(jax.random.key(0), SPEC, (16, 16), 4, "relu")
    obs, table = factored(jax.random.key(1), (9,), 20)
    np.testing.assert_allclose(network.tabulate(table)(obs), network(obs, table), atol=2e-6)


@pytest.mark.parametrize("shared", [False, True])
def test_the_deployed_policy_is_the_actor_of_the_actor_critic(shared):
    size = SPEC.action.size
    actor = mlp(jax.random.key(0), SPEC, (8,), size + shared, "tanh")
    critic = None if shared else mlp(jax.random.key(1), SPEC, (8,), 1, "tanh")
    network = ActorCritic(actor, critic, jnp.zeros(size))
    obs = jax.random.normal(jax.random.key(2), (5, SPEC.size))
    policy = network.policy(SPEC, None)
    np.testing.assert_allclose(policy.distribution(obs).mode(), network(obs)[0], atol=1e-6)
    assert network.value(obs).shape == (5,)


@settings(max_examples=20, deadline=None)
@given(
    st.sampled_from([3, 128, 512, 640, 1024, 2080]),
    st.sampled_from([1, 2, 5]),
    st.integers(0, 1000),
)
def test_our_weight_gradient_equals_the_plain_one(rows, outputs, seed):
    # Small integers: sums of their products are exact in float32, in whatever order they are taken.
    def draw(key, *shape):
        return jax.random.randint(key, shape, -8, 9).astype(jnp.float32)

    x_key, w_key, dy_key = jax.random.split(jax.random.key(seed), 3)
    x, w, dy = draw(x_key, rows, 6), draw(w_key, 6, outputs), draw(dy_key, rows, outputs)
    ours = jax.vjp(matmul, x, w)[1](dy)
    plain = jax.vjp(lambda x, w: x @ w, x, w)[1](dy)
    for a, b in zip(ours, plain, strict=True):
        np.testing.assert_array_equal(a, b)


def test_orthogonal_initialisation_and_output_scale():
    network = mlp(jax.random.key(0), SPEC, (32, 32), 2, "tanh", output_scale=(0.01, 1.0))
    w = network.rest[0].weight
    np.testing.assert_allclose(w.T @ w, 2 * jnp.eye(32), atol=1e-5)
    np.testing.assert_allclose(
        jnp.linalg.norm(network.rest[1].weight, axis=0), [0.01, 1.0], rtol=1e-5
    )


def test_many_networks_are_initialised_side_by_side_as_one_by_one():
    # Two batched decompositions at a time have deadlocked jaxlib's CPU runtime.
    def init(key):
        first, second = jax.random.split(key)
        return tuple(mlp(k, SPEC, (64, 64), 2, "tanh") for k in (first, second))

    keys = jax.random.split(jax.random.key(0), 16)
    together = jax.jit(jax.vmap(init))(keys)
    alone = jax.jit(init)(keys[5])
    for a, b in zip(jax.tree.leaves(together), jax.tree.leaves(alone), strict=True):
        np.testing.assert_array_equal(a[5], b)


def test_running_moments_of_pieces_equal_those_of_the_whole():
    x = np.random.default_rng(0).normal(3.0, 2.0, (1000, 4)).astype(np.float32)
    moments = RunningMoments.create((4,))
    for piece in np.split(x, [10, 300, 301]):
        moments = moments.update(jnp.asarray(piece))
    np.testing.assert_allclose(moments.mean, x.mean(0), rtol=1e-4)
    np.testing.assert_allclose(moments.var, x.var(0), rtol=1e-3)
