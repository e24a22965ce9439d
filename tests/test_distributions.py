import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from tradax.distributions import Categorical, DiagGaussian

LOGITS = jnp.array([0.3, -1.0, 2.0])
MEAN, LOG_STD = jnp.array([0.5, -2.0]), jnp.array([0.1, -0.7])


def test_categorical_equals_its_definition():
    p = np.exp(LOGITS) / np.exp(LOGITS).sum()
    d = Categorical.from_logits(LOGITS)
    assert float(d.log_prob(jnp.int32(2))) == pytest.approx(np.log(p[2]), abs=1e-6)
    assert float(d.entropy()) == pytest.approx(stats.entropy(p), abs=1e-6)
    assert int(d.mode()) == 2
    other = Categorical.from_logits(jnp.zeros(3))
    assert float(d.kl(other)) == pytest.approx(stats.entropy(p, np.full(3, 1 / 3)), abs=1e-6)


def test_gaussian_equals_scipy():
    d = DiagGaussian(MEAN, LOG_STD)
    x = jnp.array([0.2, -1.5])
    reference = stats.norm(np.asarray(MEAN), np.exp(np.asarray(LOG_STD)))
    assert float(d.log_prob(x)) == pytest.approx(reference.logpdf(x).sum(), abs=1e-5)
    assert float(d.entropy()) == pytest.approx(reference.entropy().sum(), abs=1e-5)


@pytest.mark.parametrize(
    ("p", "q"),
    [
        (Categorical.from_logits(LOGITS), Categorical.from_logits(-LOGITS)),
        (DiagGaussian(MEAN, LOG_STD), DiagGaussian(MEAN + 0.3, LOG_STD - 0.2)),
    ],
)
def test_kl_is_the_mean_log_ratio_of_samples_and_zero_to_itself(p, q):
    samples = jax.vmap(p.sample)(jax.random.split(jax.random.key(0), 100_000))
    ratio = jax.vmap(lambda x: p.log_prob(x) - q.log_prob(x))(samples)
    error = float(ratio.std()) / np.sqrt(len(ratio))
    assert float(p.kl(q)) == pytest.approx(float(ratio.mean()), abs=4 * error)
    assert float(p.kl(p)) == pytest.approx(0.0, abs=1e-6)
    np.testing.assert_allclose(
        float(p.entropy()), -float(jax.vmap(p.log_prob)(samples).mean()), atol=0.02
    )


@pytest.mark.parametrize("actions", [2, 3, 12])
def test_gradients_of_a_categorical_equal_those_of_log_softmax(actions):
    rng = np.random.default_rng(0)
    logits = jnp.asarray(rng.normal(size=(5, actions)), jnp.float32)
    taken = jnp.asarray(rng.integers(0, actions, 5))

    def ours(logits):
        d = Categorical.from_logits(logits)
        return (jnp.arange(5.0) * d.log_prob(taken) + d.entropy()).sum()

    def plain(logits):
        log_probs = jax.nn.log_softmax(logits)
        chosen = jnp.take_along_axis(log_probs, taken[:, None], axis=1)[:, 0]
        return (jnp.arange(5.0) * chosen - (jnp.exp(log_probs) * log_probs).sum(-1)).sum()

    assert float(ours(logits)) == pytest.approx(float(plain(logits)), rel=1e-5)
    assert np.allclose(jax.grad(ours)(logits), jax.grad(plain)(logits), atol=1e-5)
