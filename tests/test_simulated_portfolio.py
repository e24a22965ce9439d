import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tradax.envs import simulated_portfolio, simulated_portfolio_baselines
from tradax.envs.portfolio_baselines import constant
from tradax.envs.simulated_portfolio import Config, growth, make
from tradax.errors import ConfigError, DataError
from tradax.evaluation.simulated_portfolio import assess
from tradax.rollout import jax_source


def walked(env, params, policy, seeds=200, n_steps=50):
    source = jax_source(env, params)
    walk = jax.jit(jax.vmap(lambda key: source.walk(policy.actor(), key, n_steps)[1]))
    return walk(jax.random.split(jax.random.key(0), seeds))


def test_every_episode_has_a_path_of_its_own_and_keys_decide_it():
    env, params = make(Config(assets=2))
    half = constant(env, params, np.array([0.5, 0.2]))
    first, second = walked(env, params, half), walked(env, params, half)
    np.testing.assert_array_equal(first["net_worth"], second["net_worth"])
    assert len(np.unique(np.asarray(first["net_worth"][:, -1]))) == 200


def test_accounting_by_hand():
    env, params = make(Config(assets=2, commission_bps=10.0, cash_rate=0.05, correlation=0.5))
    state = env.reset_state(jax.random.key(0), params)
    action = env.actions(jnp.array([0.6, 0.3]), params)
    new, reward, _, info = env.step_state(jax.random.key(1), state, action, params)
    moved = np.exp(np.asarray(new.path.log_price, float)) - 1
    spent = 1e-3 * 0.9 / (1 + 1e-3 * 0.9)  # s = c (1 - s) 0.9
    gain = 0.6 * moved[0] + 0.3 * moved[1] + 0.1 * 0.05 / 252
    expected = 100_000 * (1 - spent) * (1 + gain)
    assert float(new.net_worth) == pytest.approx(expected, rel=1e-6)
    assert float(reward) == pytest.approx(np.log(expected / 100_000), abs=1e-6)
    assert float(info["cost"]) == pytest.approx(spent * 100_000, rel=1e-5)
    held = np.array([0.6, 0.3]) * (1 + moved) / (1 + gain)
    np.testing.assert_allclose(new.weights, held, rtol=1e-5)
    # What is seen: weights and cash, log prices, and returns in units of a year's.
    seen = np.asarray(env.account(new, params))
    np.testing.assert_allclose(seen[:3], [*held, 1 - held.sum()], atol=1e-5)
    np.testing.assert_allclose(seen[3:5], np.log1p(moved), atol=1e-6)
    np.testing.assert_allclose(seen[5:], np.log1p(moved) * 252**0.5, atol=1e-5)


def test_expected_growth_is_the_mean_of_log_growth():
    settings = {"assets": 2, "correlation": 0.3, "cash_rate": 0.02, "commission_bps": 20.0}
    process = "gbm,drift=0.3,volatility=0.5"
    sums = {}
    for reward in ("log_growth", "expected_growth"):
        env, params = make(Config(process=process, reward=reward, **settings))
        policy = constant(env, params, np.array([0.5, 0.3]))
        found = walked(env, params, policy, seeds=4_000, n_steps=20)["reward"].sum(axis=1)
        sums[reward] = np.asarray(found, float)
    noisy, exact = sums["log_growth"], sums["expected_growth"]
    assert abs(noisy.mean() - exact.mean()) < 4 * noisy.std() / 4_000**0.5
    assert exact.std() < noisy.std() / 20


def test_mertons_weights_grow_fastest():
    env, params = make(
        Config(process="gbm,drift=0.08,volatility=0.4", assets=3, correlation=0.2, cash_rate=0.02)
    )
    known = simulated_portfolio_baselines.merton(env, params)
    best = env.weights(known.action, params)
    # With equal correlations all weights are (mu - r) / (sigma^2 (1 + (n - 1) rho)).
    np.testing.assert_allclose(best, 0.06 / (0.16 * 1.4), rtol=1e-4)
    rng = np.random.default_rng(0)
    others = jnp.asarray(best + 0.1 * rng.normal(size=(100, 3)), jnp.float32)
    assert float(growth(others, params).max()) < float(growth(best, params))


def test_the_assessment_knows_a_constant_policys_growth():
    env, params = make(Config(process="gbm,drift=0.2,volatility=0.2", cash_rate=0.01))
    policy = constant(env, params, np.array([0.7]))
    result = assess(policy, env, params, paths=2_000)
    np.testing.assert_allclose(result.weights, [0.7], atol=1e-4)
    expected = float(growth(jnp.array([0.7]), params))
    assert abs(result.growth - expected) < 4 * result.growth_error
    assert result.volatility == pytest.approx(0.7 * 0.2, rel=0.1)
    assert result.ruined == 0.0
    rules = simulated_portfolio_baselines.baselines(env, params)
    assert set(rules) == {"cash", "equal_weight", "buy_and_hold", "merton"}
    cash = assess(rules["cash"], env, params, paths=10)
    assert cash.growth == pytest.approx(0.01, rel=1e-3)


@pytest.mark.parametrize(
    "process", ["ou", "heston", "jumps", "regimes", "noise", "gbm,drift=0.5,volatility=0.01"]
)
def test_every_process_can_be_traded(process):
    env, params = make(Config(process=process, assets=2, lags=3, substeps=2))
    result = assess(constant(env, params, np.array([0.4, 0.4])), env, params, paths=20)
    assert np.isfinite(result.growth)
    names = set(simulated_portfolio_baselines.baselines(env, params))
    assert ("merton" in names) == process.startswith("gbm")


def test_bad_options_are_refused():
    with pytest.raises(ConfigError, match="expected_growth needs the process gbm"):
        Config(process="heston", reward="expected_growth")
    with pytest.raises(DataError, match="no process 'gmb'; did you mean gbm"):
        Config(process="gmb")
    with pytest.raises(DataError, match="bars describes a sample"):
        Config(process="gbm,bars=100")
    with pytest.raises(ConfigError, match=r"correlation is -0.9; 3 assets can have one above -0.5"):
        make(Config(assets=3, correlation=-0.9))
    with pytest.raises(ConfigError, match=r"simulated_portfolio.logit_limit is 1"):
        make(Config(logit_limit=1.0))
    assert simulated_portfolio.SimulatedPortfolio(1) == simulated_portfolio.SimulatedPortfolio(1)


def test_more_jumps_a_step_than_can_be_drawn_are_refused():
    with pytest.raises(ConfigError, match="10 jumps a step on average"):
        Config(process="jumps", bars_per_year=1)
    Config(process="jumps", bars_per_year=1, substeps=10)
