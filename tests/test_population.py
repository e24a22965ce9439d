"""Population-based training: who copies whom, and that interruptions change nothing."""

import json
import signal
from dataclasses import replace
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tradax
from tradax import updates
from tradax.errors import ConfigError
from tradax.protocols import TrainState
from tradax.rows import Sums
from tradax.sweeps import members, table
from tradax.sweeps.members import SweepRequest, lay_out
from tradax.sweeps.population import Population, exploited, parents, perturbed
from tradax.sweeps.wave import train_wave
from tradax.training import Hook, Progress

PLAN = {
    "every": 64,
    "truncation": 0.25,
    "perturbation": 2.0,
    "ranges": {"learning_rate": [1e-5, 1e-1], "clip_range": [0.1, 0.4]},
}
TINY = {"num_envs": 4, "n_steps": 8, "minibatches": 2, "epochs": 1, "hidden_sizes": [8]}
SIZE, SEEDS = 4, 2


def generator(seed: int = 0) -> np.random.Generator:
    return np.random.default_rng(seed)


def test_the_worst_goes_on_from_the_best():
    scores = np.array([3.0, 1.0, np.nan, 5.0, 2.0])
    assert parents(scores, 0.2, generator()).tolist() == [0, 1, 3, 3, 4]
    scores[2] = -np.inf
    assert parents(scores, 0.2, generator()).tolist() == [0, 1, 3, 3, 4]


@given(
    st.lists(st.floats(-1e6, 1e6), min_size=4, max_size=20, unique=True),
    st.floats(0.01, 0.5),
    st.integers(0, 99),
)
def test_the_worst_share_copies_the_best_share_and_the_rest_stays(scores, truncation, seed):
    scores = np.array(scores)
    count = max(1, int(truncation * len(scores)))
    chosen = parents(scores, truncation, generator(seed))
    ranked = np.argsort(scores)
    assert np.isin(chosen[ranked[:count]], ranked[-count:]).all()
    assert np.array_equal(chosen[ranked[count:]], ranked[count:])


def test_a_perturbed_setting_is_multiplied_or_divided_and_stays_in_its_range():
    new = perturbed(np.full(1000, 0.01), (1e-5, 1e-1), 1.25, generator())
    assert sorted(set(new.round(6))) == [0.008, 0.0125]
    assert 400 < (new > 0.01).sum() < 600
    assert set(perturbed(np.full(50, 0.01), (0.009, 0.011), 1.25, generator())) == {0.009, 0.011}


class Learner(NamedTuple):
    weights: jax.Array
    key: jax.Array


def test_who_copies_takes_learner_environments_and_settings_and_keeps_draws_and_best_policy():
    def four(start):
        return jnp.arange(start, start + 4.0)

    keys = jax.random.split(jax.random.key(0), 8)
    progress = Progress(
        TrainState(Learner(four(0), keys[:4]), four(10), keys[4:], jnp.full(4, 7)),
        Sums(four(20), four(30)),
        four(40),
        four(50),
        four(60),
        {"learning_rate": four(70)},
    )
    new = exploited(progress, np.array([0, 3, 2, 3]))
    assert new.state.learner.weights.tolist() == [0, 3, 2, 3]
    assert bool((new.state.learner.key[1] == keys[3]).all())
    assert new.state.carry.tolist() == [10, 13, 12, 13]
    assert new.sums.metrics.tolist() == [20, 23, 22, 23]
    assert new.last_score.tolist() == [60, 63, 62, 63]
    assert new.config["learning_rate"].tolist() == [70, 73, 72, 73]
    assert bool((new.state.key == keys[4:]).all())
    assert new.best_policy.tolist() == [40, 41, 42, 43]
    assert new.best_score.tolist() == [50, 51, 52, 53]


class StopAt(Hook):
    """Ctrl-C once so many updates are done; keeps the last progress."""

    def __init__(self, update: int = 10**9):
        self._update = update

    def on_chunk(self, progress):
        if int(progress.state.update.max()) >= self._update:
            self._update = 10**9
            signal.raise_signal(signal.SIGINT)

    def on_save(self, progress, final):
        self.last = progress


def request(rates=(1e-4, 1e-3, 3e-3, 1e-2)) -> SweepRequest:
    """Two populations: four rounds in ten updates of 32 steps."""
    run = {
        "algorithm": "ppo",
        "env": "Pendulum-v1",
        "data": None,
        "total_timesteps": 320,
        "settings": {"ppo": TINY},
        "evaluations": 3,
        "log_rows": 10,
    }
    settings = [{"ppo": {"learning_rate": rate, "clip_range": 0.2}} for rate in rates]
    return SweepRequest(run=run, seeds=list(range(SEEDS)), settings=settings, population=PLAN)


def trained(folder, stops=(), **changes):
    """Results of the wave and the last progress; after every stop it goes on."""
    asked = request(**changes)
    layout = lay_out(asked)
    (folder / "waves").mkdir(parents=True, exist_ok=True)
    for stop in stops:
        found, heard = train_wave(asked, layout, layout.waves[0], folder, hooks=[StopAt(stop)])
        assert heard == signal.SIGINT
    end = StopAt()
    found, heard = train_wave(asked, layout, layout.waves[0], folder, hooks=[end])
    assert heard == 0
    return found, end.last


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    updates._run_chunk._cached.clear_cache()  # its programs are counted below
    return folder, *trained(folder)


def history(folder, number: int) -> list[dict]:
    text = (folder / "members" / f"{number:05d}" / "settings.jsonl").read_text()
    return [json.loads(line) for line in text.splitlines()]


def test_members_follow_their_parents_settings_within_the_ranges(run):
    folder, found, progress = run
    assert len(found) == SIZE * SEEDS
    at_end = {}
    for seed in range(SEEDS):
        own = {r["number"]: history(folder, r["number"]) for r in found if r["seed"] == seed}
        assert [row["update"] for row in next(iter(own.values()))] == [0, 2, 4, 6, 8]
        for place in range(1, 5):
            copied = [n for n, rows in own.items() if rows[place]["copied"] is not None]
            assert len(copied) == 1  # a quarter of four
            for rows in own.values():
                row, before = rows[place], rows[place - 1]
                source = row["copied"]
                if source is None:
                    assert row["learning_rate"] == before["learning_rate"]
                    continue
                assert source in own
                for name, (low, high) in PLAN["ranges"].items():
                    parent = own[source][place - 1][name]
                    allowed = np.clip([parent / 2, parent * 2], low, high)
                    assert np.isclose(row[name], allowed, rtol=1e-6).any()
        at_end |= {number: rows[-1]["learning_rate"] for number, rows in own.items()}
    assert np.array_equal(
        sorted(np.float32(list(at_end.values()))), np.sort(progress.config.learning_rate)
    )


def test_an_interrupted_population_ends_as_one_that_was_not(run, tmp_path):
    folder, found, progress = run
    programs = updates._run_chunk._cached._cache_size()
    # Right after a round, and between two.
    again, other = trained(tmp_path, stops=(2, 5))
    assert updates._run_chunk._cached._cache_size() == programs
    for one, two in zip(found, again, strict=True):
        assert one["validation_score"] == two["validation_score"]
        assert history(folder, one["number"]) == history(tmp_path, two["number"])
    numbers = jax.tree.map(jax.random.key_data, (progress.state.key, other.state.key))
    assert np.array_equal(*numbers)
    for a, b in zip(
        jax.tree.leaves((progress.state.learner, progress.config)),
        jax.tree.leaves((other.state.learner, other.config)),
        strict=True,
    ):
        assert np.array_equal(a, b)


def test_rounds_compile_nothing_again(run):
    assert updates._run_chunk._cached._cache_size() == 1


def test_a_member_whose_numbers_broke_goes_on_from_a_sound_one(run, tmp_path):
    found, progress = trained(tmp_path, rates=(1e-4, 1e30, 3e-3, 1e-2))
    assert updates._run_chunk._cached._cache_size() == 1
    assert all(result["failed"] is None for result in found)
    assert np.isfinite(np.asarray(progress.last_score)).all()
    for result in found:
        if result["setting"] == 1:
            assert history(tmp_path, result["number"])[1]["copied"] is not None


def test_the_table_has_the_best_of_each_population():
    scores = {0: [-5.0, None, -1.0], 1: [None, None, -3.0]}
    found = [
        {"symbol": "A", "seed": seed, "setting": i, "number": 3 * seed + i, "validation_score": x}
        for seed, of_seed in scores.items()
        for i, x in enumerate(of_seed)
    ]
    (line,) = table.lines(table.best_of_populations(found))
    assert (line.setting, line.seeds, line.failed, line.best) == (0, 2, 0, 2)
    assert line.score == -2.0


def test_a_population_is_in_one_wave_whatever_the_waves_and_devices(monkeypatch):
    monkeypatch.setattr(members, "needs", lambda *_, devices: (1, 0))
    asked = request()
    for wave_members, devices, sizes in ((7, 1, [4, 4]), (None, 3, [9]), (6, 3, [6, 6])):
        waves = lay_out(replace(asked, wave_members=wave_members, devices=devices)).waves
        assert [wave.size for wave in waves] == sizes
        for wave in waves:
            seeds = [member.seed for member in wave.members]
            assert sorted(seeds) == seeds
            assert {seeds.count(seed) for seed in seeds} == {SIZE}
    with pytest.raises(ConfigError, match="wave_members is 3; on 1 devices 4 train at once"):
        lay_out(replace(asked, wave_members=3))


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"population": 3}, "population is 3; it must be at least 4"),
        ({"ranges": None}, "needs at least one range"),
        ({"ranges": {"ppo.n_steps": "int:8:64"}}, "ppo.n_steps has a range, and .* float only"),
        ({"grid": {"ppo.gamma": [0.9, 0.99]}}, "give ranges .* no lists"),
        ({"random": 8}, "leave out random"),
        ({"ranges": {"ppo.gamma": "0.9:1.1"}}, "gamma is 1.1; it must be at most 1"),
        ({"population_every": 4096}, "population_every is 4096, .* before the first round"),
        ({"population_every": 0}, "population_every is 0"),
        ({"truncation": 0.6}, "truncation is 0.6"),
        ({"perturbation": 0.8}, "perturbation is 0.8; it must be above 1"),
        ({"population": None, "ranges": None, "population_every": 9}, "needs a population"),
        (
            {"algorithm": "sac", "ranges": {"sac.log_std_max": "1:2"}},
            "log_std_max decides on the program, .* use --random",
        ),
    ],
)
def test_what_a_population_cannot_do_is_refused(changed, told, tmp_path):
    asked = {"population": 4, "ranges": {"ppo.learning_rate": "log:1e-5:1e-2"}}
    with pytest.raises(ConfigError, match=told):
        tradax.sweep(
            **{"algorithm": "ppo", "env": "Pendulum-v1", "total_timesteps": 4096} | asked | changed,
            seeds=1,
            out=tmp_path / "out",
        )
    assert not (tmp_path / "out").exists()


def test_what_is_searched_is_told():
    told = Population(**PLAN).searched
    assert told == {"population": {"learning_rate": "1e-05 to 0.1", "clip_range": "0.1 to 0.4"}}
