"""Many runs in one program: each is the run that it would be alone."""

import numpy as np
import pytest

import tradax
from jobs import job
from tradax import updates
from tradax.cli import main
from tradax.errors import ConfigError, ModelFileError, TradaxError
from tradax.evaluation.scoring import evaluate
from tradax.ledger import of_folder
from tradax.sweeps import experiment, grid, members, results, table
from tradax.sweeps.extract import extract

DATA = "synthetic:gbm,assets=2,bars=260,seed=3"
SMALL = {"ppo": {"num_envs": 2, "n_steps": 8, "minibatches": 2, "epochs": 1, "hidden_sizes": [4]}}
GRID = {"ppo.learning_rate": [1e-3, 1e-2]}
CLOSE = {"rtol": 1e-4, "atol": 1e-5}
FEW = {"total_timesteps": 48, "evaluations": 2, "log_rows": 2, "settings": SMALL}


def sweep(out, **more):
    options = {"data": DATA, "seeds": 2, "grid": GRID, "skip_posterior": True, **FEW}
    return tradax.sweep(out=out, **(options | more))


@pytest.fixture(scope="module")
def done(tmp_path_factory):
    """2 symbols x 2 seeds x 2 learning rates."""
    updates._run_chunk._cached.clear_cache()
    swept = sweep(tmp_path_factory.mktemp("sweep") / "s")
    return swept, updates._run_chunk._cached._cache_size()


def weights(folder):
    policies = [tradax.load_policy(folder / name) for name in ("policy.zip", "policy-last.zip")]
    return np.concatenate([tradax.flatten_policy(policy) for policy in policies])


def member_weights(swept, number):
    return weights(swept.run_dir / "members" / f"{number:05d}")


def test_all_members_train_in_one_program(done):
    swept, programs = done
    assert len(swept.members) == 8
    assert programs == 1
    assert [(m["symbol"], m["seed"], m["setting"]) for m in swept.members[:3]] == [
        ("GBM1", 0, 0),
        ("GBM1", 1, 0),
        ("GBM2", 0, 0),
    ]


def test_a_member_is_the_run_that_it_would_be_alone(done, tmp_path):
    swept, _ = done
    number = 7  # GBM2, seed 1, learning rate 0.01
    settings = {"ppo": SMALL["ppo"] | {"learning_rate": 1e-2}}
    alone = tradax.train(
        data=DATA,
        symbols=["GBM2"],
        seed=1,
        skip_posterior=True,
        out=tmp_path / "alone",
        **(FEW | {"settings": settings}),
    )
    np.testing.assert_allclose(member_weights(swept, number), weights(alone.run_dir), **CLOSE)
    score = max(row["validation_score"] for row in alone.metrics["GBM2"])
    assert swept.members[number]["validation_score"] == pytest.approx(score, rel=1e-5)


def test_every_member_is_a_trial_once(done):
    swept, _ = done
    trials = of_folder(swept.run_dir)
    assert len(trials) == len({trial.id for trial in trials}) == 8
    scores = [member["validation_score"] for member in swept.members]
    assert [trial.validation_score for trial in trials] == scores
    # The winner's test is no trial of its own.
    for symbol, line in table.winners(swept.table).items():
        (tested,) = of_folder(swept.run_dir / "best" / symbol)
        assert tested.tested
        assert tested.id == trials[line.best].id
        assert tested.validation_score == scores[line.best]
    lines = (swept.run_dir / "members.csv").read_text().splitlines()
    assert len(lines) == 9
    assert lines[8].startswith("7,GBM2,1,learning_rate 0.01,")


def test_the_best_on_validation_is_tested(done):
    swept, _ = done
    for symbol, line in table.winners(swept.table).items():
        rivals = [other for other in swept.table if other.symbol == symbol]
        assert line.score == max(other.score for other in rivals)
        assert swept.tested[symbol]["strategies"].keys() >= {"policy", "buy_and_hold"}
        assert (swept.run_dir / "best" / symbol / "report.html").is_file()
        assert np.array_equal(
            weights(swept.run_dir / "best" / symbol), member_weights(swept, line.best)
        )
    assert swept.tested.keys() == {"GBM1", "GBM2"}


def test_a_member_becomes_an_ordinary_run(done, tmp_path, capsys):
    swept, _ = done
    out = str(tmp_path / "run")
    assert main(["extract", str(swept.run_dir), "5", "--out", out, "--skip-posterior"]) == 0
    assert main(["evaluate", out, "--skip-posterior"]) == 0
    assert "buy and hold" in capsys.readouterr().out
    with pytest.raises(TradaxError, match="no finished member 8"):
        extract(swept.run_dir, 8)
    with pytest.raises(ModelFileError, match="no sweep here"):
        extract(tmp_path, 0)


def test_waves_and_interruptions_change_nothing(done, tmp_path, monkeypatch):
    swept, _ = done
    real, calls = experiment.train_wave, []

    def killed(*arguments, **options):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return real(*arguments, **options)

    monkeypatch.setattr(experiment, "train_wave", killed)
    monkeypatch.setattr(experiment, "extract", lambda *_, **__: (None, {}))  # tested elsewhere
    out = tmp_path / "s"
    with pytest.raises(KeyboardInterrupt):
        sweep(out, wave_members=3)
    assert len(results.read_results(out)) == 3
    resumed = tradax.sweep(resume=out, skip_posterior=True)
    assert len(calls) == 4  # the wave that was done is not trained again
    assert len(resumed.members) == 8
    for number in range(8):
        np.testing.assert_allclose(
            member_weights(resumed, number), member_weights(swept, number), **CLOSE
        )


def test_a_member_whose_numbers_explode_stops_alone(tmp_path):
    swept = sweep(tmp_path / "s", symbols=["GBM1"], grid={"ppo.learning_rate": [1e-3, 1e30]})
    failed = [member["failed"] is not None for member in swept.members]
    assert failed == [False, False, True, True]
    assert "learning rate" in swept.members[2]["failed"]
    best = table.winners(swept.table)["GBM1"]
    assert best.setting == 0
    assert swept.table[-1].failed == 2


def test_two_processes_find_what_one_finds(tmp_path):
    arguments = ["sweep", "--env", "CartPole-v1", "--seeds", "4", "--timesteps", "32"]
    arguments += ["--evaluations", "1"]
    small = {"num-envs": 2, "n-steps": 8, "minibatches": 2, "epochs": 1, "hidden-sizes": 4}
    for option, value in small.items():
        arguments[1:1] = [f"--ppo.{option}", str(value)]
    assert main([*arguments, "--devices", "1", "--out", str(tmp_path / "one")]) == 0
    processes = job([*arguments, "--out", "two"], tmp_path)
    said = [process.communicate(timeout=240) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], said
    assert "validation" in said[0][0]
    assert "validation" not in said[1][0]  # the first one speaks, and writes
    one, two = (results.read_results(tmp_path / name) for name in ("one", "two"))
    scores = [[member["validation_score"] for member in found] for found in (one, two)]
    np.testing.assert_allclose(*scores, rtol=1e-4)
    for number in range(4):
        found = [weights(tmp_path / name / "members" / f"{number:05d}") for name in ("one", "two")]
        np.testing.assert_allclose(*found, **CLOSE)


def test_environments_without_prices_are_swept_too(tmp_path):
    swept = tradax.sweep(env="CartPole-v1", seeds=3, out=tmp_path / "s", **FEW)
    assert [m["symbol"] for m in swept.members] == ["CartPole-v1"] * 3
    for member in swept.members:
        policy = tradax.load_policy(swept.run_dir / "members" / f"{member['number']:05d}")
        score = evaluate(policy, "CartPole-v1", episodes=20, seed=member["seed"])
        assert member["validation_score"] == pytest.approx(score.mean)
    assert "mean_return" in swept.tested["CartPole-v1"]


def test_settings_of_other_shapes_are_other_programs(tmp_path):
    request = request_of(grid={"ppo.hidden_sizes": [(4,), (8,)], "ppo.gamma": [0.9, 0.99]})
    layout = members.lay_out(request)
    assert [wave.program for wave in layout.waves] == [0, 1]
    assert [len(wave.members) for wave in layout.waves] == [8, 8]


def test_settings_that_move_the_validation_span_share_a_program_and_no_wave():
    request = request_of(grid={"features.volatility_window": [20, 60]})
    layout = members.lay_out(request)
    spans = [layout.tasks[setting].pipeline.splits.validation for setting in (0, 1)]
    assert spans[0] != spans[1]
    assert [wave.program for wave in layout.waves] == [0, 0]
    assert [{m.setting for m in wave.members} for wave in layout.waves] == [{0}, {1}]


def request_of(grid=None, **more):
    from tradax.preparation import Request

    run = vars(Request(algorithm="ppo", env="trading", data=DATA, total_timesteps=48))
    run = {k: v for k, v in run.items() if k != "seed"} | {"settings": SMALL}
    tried = experiment.grids.space("ppo", "trading", grid)
    settings = experiment.grids.grid(tried)
    return members.SweepRequest(run=run, seeds=[0, 1], settings=settings, **more)


def test_waves_fit_into_memory_and_devices():
    request = request_of(devices=2)
    layout = members.lay_out(request)
    first = members.single(layout, layout.members[0])
    each, fixed = members.needs(*first, devices=request.devices)
    fit = members.lay_out(request, free=fixed + 3 * each)
    assert [wave.size for wave in fit.waves] == [2, 2]
    assert all(wave.bytes <= fixed + 3 * each for wave in fit.waves)
    with pytest.raises(ConfigError, match="wave_members is 1; on 2 devices 2 train at once"):
        members.lay_out(request_of(devices=2, wave_members=1))
    with pytest.raises(ConfigError, match="2 members at once need"):
        members.lay_out(request, free=fixed + each)


class TestSettings:
    def test_a_grid_is_every_combination_in_order(self):
        tried = grid.space(
            "ppo", "trading", {"ppo.gamma": ["0.9", "0.99"], "trading.commission-bps": [1, 5]}
        )
        assert grid.grid(tried) == [
            {"ppo": {"gamma": 0.9}, "trading": {"commission_bps": 1}},
            {"ppo": {"gamma": 0.9}, "trading": {"commission_bps": 5}},
            {"ppo": {"gamma": 0.99}, "trading": {"commission_bps": 1}},
            {"ppo": {"gamma": 0.99}, "trading": {"commission_bps": 5}},
        ]

    def test_values_are_read_as_the_option_declares_them(self):
        tried = grid.space(
            "ppo",
            "trading",
            {
                "ppo.hidden-sizes": ["64x64", "32"],
                "ppo.shared-network": ["true", "false"],
                "ppo.target-kl": ["none", "0.02"],
                "ppo.objective": ["clip", "kl"],
            },
        )
        assert list(tried.choices.values()) == [
            [(64, 64), (32,)],
            [True, False],
            [None, 0.02],
            ["clip", "kl"],
        ]

    def test_draws_fill_their_range_evenly(self):
        tried = grid.space(
            "ppo", "trading", {"ppo.epochs": [1, 2]}, {"ppo.learning_rate": "log:1e-5:1e-1"}
        )
        drawn = grid.draws(tried, 4000, seed=0)
        rates = np.log10([setting["ppo"]["learning_rate"] for setting in drawn])
        assert np.allclose(np.histogram(rates, 4, (-5, -1))[0], 1000, atol=120)
        assert {setting["ppo"]["epochs"] for setting in drawn} == {1, 2}
        assert grid.draws(tried, 3, seed=0) == drawn[:3]
        whole = grid.space("ppo", "trading", None, {"ppo.n_steps": "int:2:4"})
        assert {s["ppo"]["n_steps"] for s in grid.draws(whole, 100, 0)} == {2, 3, 4}


def test_the_interquartile_mean_is_rliables():
    scores = [0.0, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 100.0]
    found = table.lines(
        [
            {"number": i, "symbol": "A", "setting": 0, "seed": i, "validation_score": score}
            for i, score in enumerate(scores)
        ]
    )
    assert found[0].score == np.mean([2.0, 3.0, 4.0, 5.0])
    assert found[0].low < found[0].score < found[0].high
    assert found[0].best == 7


REFUSED = {
    "--symbols GBM9": "no symbol GBM9; did you mean",
    "--grid ppo.learning-rate=": "no values to try",
    "--grid ppo.learning-rte=1": "did you mean ppo.learning_rate",
    "--grid ppo.learning-rate=1,1": "twice",
    "--grid ppo.learning-rate": "is no list of values",
    "--grid ppo.learning-rate=-1": "ppo.learning_rate is -1.0; it must be above 0",
    "--grid ppo.epochs=1.5": "must be a whole number",
    "--random 4": "need at least one range",
    "--range ppo.learning-rate=log:1e-5:1e-2": "say how many settings to draw",
    "--random 4 --range ppo.learning-rate=log:1e-2:1e-5": "the first must be below the last",
    "--random 4 --range ppo.learning-rate=log:0:1": "needs numbers above 0",
    "--random 4 --range ppo.objective=0:1": "is no number",
    "--random 4 --range ppo.epochs=1:3": "takes int ranges",
    "--random 0 --range ppo.gamma=0.9:1": "random is 0",
    "--seeds 0": "give at least one",
    "--wave-members 0": "wave_members is 0",
    "--timesteps 0": "timesteps is 0",
    "--env gymnasium:CartPole-v1": "stepped on the host",
    "--resume nowhere": "no sweep here",
}


@pytest.mark.parametrize("given", REFUSED)
def test_bad_input_is_refused_before_anything_is_written(given, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = [] if "gymnasium" in given else ["--data", DATA]
    monkeypatch.setattr(experiment, "train_wave", None)
    assert main(["sweep", *data, "--devices", "1", *given.split()]) == 2
    assert REFUSED[given] in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
