"""The program that compares speed: its markets in numpy, its rows, and its guard."""

import json

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from benchmarks import _cases, _peers, quick
from benchmarks._numpy_markets import NumpyPortfolio, NumpyTrading
from benchmarks._rows import ROWS

from tradax.envs._baselines import Plan
from tradax.envs.portfolio import Portfolio
from tradax.envs.trading import Trading
from tradax.rollout import jax_source

STEPS = 60


@pytest.mark.parametrize(
    ("market", "in_numpy"), [(Trading(), NumpyTrading), (Portfolio(n_assets=4), NumpyPortfolio)]
)
def test_numpy_markets_are_ours_step_by_step(market, in_numpy):
    params = market.default_params.replace(random_start=jnp.bool_(False))
    space = market.action_space(params)
    rng = np.random.default_rng(0)
    actions = rng.uniform(space.low, space.high, (STEPS, *space.shape)).astype(np.float32)
    actor = Plan(jnp.asarray(actions))
    source = jax_source(market, params)

    @eqx.filter_jit
    def walk(source, actor, key):
        carry = source.reset(key, actor)
        return source.collect(carry, actor, key, STEPS)[1]

    seen = walk(source, actor, jax.random.key(0))
    ours = seen.next_obs.flat(params.table)[:, 0]
    env = in_numpy(params)
    env.reset()
    for step, action in enumerate(actions):
        obs, reward, *_ = env.step(action)
        np.testing.assert_allclose(obs, ours[step], atol=2e-4)
        np.testing.assert_allclose(reward, seen.reward[step, 0], atol=2e-6)


def test_a_flat_market_gives_what_the_factored_one_gives():
    market = Trading()
    params = market.default_params.replace(random_start=jnp.bool_(False))
    actor = Plan(jnp.array([[1.0, 1.0], [0.0, 0.0], [-1.0, 0.0]]))

    @eqx.filter_jit
    def walk(source):
        carry = source.reset(jax.random.key(0), actor)
        return source.collect(carry, actor, jax.random.key(0), 3)[1]

    whole = walk(jax_source(_cases.flat(market), params))
    parts = walk(jax_source(market, params))
    np.testing.assert_allclose(whole.obs, parts.obs.flat(params.table), rtol=1e-6)
    np.testing.assert_allclose(whole.reward, parts.reward, rtol=1e-6)


def test_every_side_of_a_row_has_a_plug_with_pinned_packages_and_a_case_that_is_json():
    for row in ROWS.values():
        assert json.loads(json.dumps(row.case)) == row.case
        for rival in row.rivals:
            plugs = _peers.ROOT / "benchmarks" / "peers"
            assert (plugs / f"{rival.plug}.py").is_file()
            if rival.plug != _peers.OURS:
                pins = (plugs / f"{rival.plug}.txt").read_text().splitlines()
                own = [x for x in pins if x and not x.startswith(("#", "-"))]
                assert all("==" in x for x in own)


def loop(rounds: int, products: int):
    """A program of so many rounds."""

    def body(x, _):
        for _ in range(products):
            x = jnp.sin(x @ x)
        return x, None

    def run(x):
        return jax.lax.scan(body, x, None, length=rounds)[0]

    return jax.jit(run).lower(jnp.ones((8, 8))).compile()


def test_launches_are_counted_with_all_rounds_of_a_loop():
    few, many = (quick.launches(loop(rounds, 1).as_text()) for rounds in (10, 20))
    each = (many - few) / 10
    assert each == int(each) >= 2  # product and sine at least
    assert 10 * each < few < 11 * each + 20


@pytest.fixture
def guard(monkeypatch, tmp_path):
    """Runs the guard on a program of so many products a round."""
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("XLA_FLAGS", "")
    monkeypatch.setattr(quick, "PROGRAMS", {"small": {}})

    def run(products: int, *arguments: str) -> None:
        monkeypatch.setattr(quick, "compiled", lambda case: loop(10, products))
        quick.main(["--counts", "--file", str(tmp_path / "recorded.json"), *arguments])

    return run


def test_the_guard_fails_on_a_program_that_does_more_and_passes_once_that_is_recorded(guard):
    guard(2, "--record")
    guard(2)
    guard(1)
    with pytest.raises(SystemExit, match=r"small, launches: .* recorded .*--record"):
        guard(3)
    guard(3, "--record")
    guard(3)


def test_the_guard_fails_on_what_is_not_recorded(guard):
    with pytest.raises(SystemExit, match="small, flops: not recorded"):
        guard(1)


def test_a_loss_is_over_a_fifth():
    known = {"ppo": {"flops": 100.0, "launches": 10.0}}
    assert quick.losses({"ppo": {"flops": 120.0, "launches": 2.0}}, known) == []
    (said,) = quick.losses({"ppo": {"flops": 121.0, "launches": 10.0}}, known)
    assert said.startswith("ppo, flops: 121, recorded 100, +21%")


def test_all_that_the_guard_counts_is_recorded():
    recorded = json.loads(quick.RECORD.read_text())
    assert recorded.keys() - {"ratios"} == quick.PROGRAMS.keys()
