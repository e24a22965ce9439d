"""Sweeps beyond one process: on a ray cluster, and with Optuna as the search driver."""

import contextlib
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import optuna
import pytest
import yaml
from scipy.stats import trim_mean

import tradax
from tradax.cli import main
from tradax.errors import ConfigError
from tradax.ledger import of_folder
from tradax.sweeps import experiment, optuna_search, ray_cluster, ray_tasks, wave
from tradax.sweeps.grid import space
from tradax.sweeps.members import lay_out
from tradax.sweeps.ray_cluster import Cluster, Node
from tradax.sweeps.results import read_results, read_sweep

EXAMPLES = Path(__file__).parents[1] / "examples" / "cluster"
TINY = {"num_envs": 2, "n_steps": 16, "minibatches": 1, "epochs": 1, "hidden_sizes": [4]}


def tiny(**more):
    return tradax.sweep(
        **{
            "env": "CartPole-v1",
            "seeds": 2,
            "total_timesteps": 64,
            "evaluations": 1,
            "settings": {"ppo": TINY},
            **more,
        }
    )


def numbers(folder: Path) -> list[int]:
    """Of members that are done; each is one trial."""
    found = [result["number"] for result in read_results(folder)]
    assert len(of_folder(folder)) == len(found)
    return found


@pytest.fixture
def untrained(monkeypatch):
    """Waves whose scores follow from learning rate and seed, and tests of nothing."""

    def train_wave(request, layout, wave, folder, **_):
        found = []
        for member in wave.members:
            rate = request.settings[member.setting]["ppo"]["learning_rate"]
            score = -((np.log10(rate) + 3) ** 2) + 0.01 * member.seed
            found.append(
                member._asdict()
                | {"validation_score": score, "validation_sharpe": None, "failed": None}
            )
        return found, 0

    monkeypatch.setattr(experiment, "train_wave", train_wave)
    monkeypatch.setattr(
        experiment,
        "_finish",
        lambda request, folder, found, _: experiment.SweepResult(
            folder, found, [], request.settings, {}, 0
        ),
    )
    return train_wave


def searched(tmp_path: Path, name: str, **more):
    return tiny(
        ranges={"ppo.learning_rate": "log:1e-5:1e-1"},
        random=5,
        optuna=f"sqlite:///{tmp_path / name}.db",
        optuna_study="s",
        optuna_batch=2,
        out=tmp_path / name,
        **more,
    )


def test_each_trial_is_told_the_interquartile_mean_of_its_validation_scores(untrained, tmp_path):
    done = searched(tmp_path, "one", seeds=5)
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / 'one'}.db", study_name="s")
    assert len(done.members) == 25
    assert len(study.trials) == len(done.settings) == 5
    for setting, trial in enumerate(study.trials):
        scores = [m["validation_score"] for m in done.members if m["setting"] == setting]
        assert trial.value == pytest.approx(trim_mean(scores, 0.25), rel=1e-12)
        assert trial.params["ppo.learning_rate"] == done.settings[setting]["ppo"]["learning_rate"]
    assert numbers(done.run_dir) == list(range(25))


def test_a_search_that_was_stopped_goes_on_to_the_same_settings(untrained, tmp_path, monkeypatch):
    whole = searched(tmp_path, "whole")

    def stopped(request, layout, wave, folder, **more):
        return ([], signal.SIGTERM) if wave.number else untrained(request, layout, wave, folder)

    monkeypatch.setattr(experiment, "train_wave", stopped)
    assert searched(tmp_path, "cut").interrupted == signal.SIGTERM
    monkeypatch.setattr(experiment, "train_wave", untrained)
    # A driver that was killed between asking and writing what it was given.
    owner = yaml.safe_load((tmp_path / "cut" / "sweep.yaml").read_text())["search"]["owner"]
    study = optuna.load_study(storage=f"sqlite:///{tmp_path / 'cut'}.db", study_name="s")
    lost = study.ask()
    lost.set_user_attr("tradax_sweep", owner)
    with pytest.warns(UserWarning, match="1 trial of the study had begun"):
        resumed = tradax.sweep(resume=tmp_path / "cut")
    assert len(resumed.members) == len(whole.members) == 10
    assert resumed.settings[:4] == whole.settings[:4]  # the lost one is known to the last batch
    states = [trial.state.name for trial in study.get_trials()]
    assert sorted(states) == ["COMPLETE"] * 5 + ["FAIL"]


def test_settings_that_fit_nothing_fail_and_others_are_asked_for(untrained, tmp_path):
    done = tiny(
        ranges={"ppo.n_steps": "int:16:18", "ppo.learning_rate": "log:1e-4:1e-2"},
        grid={"ppo.minibatches": [1, 4], "ppo.hidden_sizes": [(4,), (4, 4)]},
        settings={"ppo": {"num_envs": 1, "epochs": 1}},
        random=4,
        optuna=f"sqlite:///{tmp_path / 'o'}.db",
        optuna_study="s",
        out=tmp_path / "o",
    )
    assert len(done.settings) == 4
    for setting in done.settings:
        assert setting["ppo"]["n_steps"] % setting["ppo"]["minibatches"] == 0
        assert setting["ppo"]["hidden_sizes"] in ([4], [4, 4])


def test_corners_hold_every_value_and_both_ends():
    tried = space(
        "ppo",
        "CartPole-v1",
        {"ppo.gamma": [0.9, 0.95, 0.99]},
        {"ppo.n_steps": "int:16:32", "ppo.learning_rate": "log:1e-4:1e-2"},
    )
    found = [setting["ppo"] for setting in optuna_search.corners(tried)]
    assert {s["gamma"] for s in found} == {0.9, 0.95, 0.99}
    assert {s["n_steps"] for s in found} == {16, 32}
    assert {s["learning_rate"] for s in found} == {1e-4, 1e-2}


def test_passwords_are_not_written():
    hidden = optuna_search.without_password("tradax sweep --optuna postgresql://me:pw@host/db --x")
    assert hidden == "tradax sweep --optuna postgresql://me:***@host/db --x"
    assert optuna_search.without_password("sqlite:////a/b.db") == "sqlite:////a/b.db"


def test_waves_keep_their_numbers_as_settings_are_added():
    run = {"algorithm": "ppo", "env": "CartPole-v1", "data": None, "total_timesteps": 64}
    rates = [{"ppo": {"learning_rate": 1e-4 * (i + 1)}} for i in range(4)]
    request = experiment.SweepRequest(
        run=run | {"settings": {"ppo": TINY}},
        seeds=[0, 1],
        settings=rates[:2],
        batch=2,
        wave_members=3,
        memory=2**30,
    )
    before = lay_out(request, free=request.memory)
    after = lay_out(replace(request, settings=rates), free=request.memory)
    assert after.waves[: len(before.waves)] == before.waves
    assert [len(wave.members) for wave in after.waves] == [2, 2, 2, 2]
    assert {wave.program for wave in after.waves} == {0}


def test_members_that_all_fail_do_not_stop_the_sweep(tmp_path):
    done = tiny(
        seeds=1,
        grid={"ppo.learning_rate": [1e-3, 1e38]},
        settings={"ppo": TINY | {"max_grad_norm": 1e38}},
        total_timesteps=96,
        wave_members=1,
        out=tmp_path / "s",
    )
    failed = [result["failed"] for result in read_results(tmp_path / "s")]
    assert failed[0] is None
    assert "NaN or infinite" in failed[1]
    assert done.tested["CartPole-v1"]["mean_return"] > 0


class LostError(Exception):
    """For ray's."""


class InProcess:
    """Ray's place taken by calls, of which the first so many for a wave are lost at their end.

    benchmarks/ray_sweep.py does the same on a cluster, and kills a node.
    """

    def __init__(self, lost: dict[int, int]):
        self.left, self.sent = dict(lost), []
        self.util = SimpleNamespace(get_node_ip_address=lambda: "host")

    def remote(self, function):
        self.function = function
        return self

    def options(self, *, max_retries, **_):
        assert max_retries == 0  # else ray would send it again by itself, and not say so
        return SimpleNamespace(remote=lambda order: order)

    def wait(self, references, timeout):
        return references[:1], references[1:]

    def get(self, order):
        self.sent.append(order.wave)
        outcome = self.function(order)
        if self.left.get(order.wave, 0):
            self.left[order.wave] -= 1
            raise LostError("the node is dead")
        return outcome

    def cancel(self, reference, force):
        raise AssertionError("nothing is left")


def on_cluster(monkeypatch, ray, folder: Path, **more):
    cluster = Cluster([Node("1", "host", 2)], {"num_cpus": 1}, "cpu", 1)
    monkeypatch.setitem(sys.modules, "ray", ray)
    errors = SimpleNamespace(RayError=LostError)
    monkeypatch.setitem(sys.modules, "ray.exceptions", errors)
    monkeypatch.setattr(ray_cluster, "joined", lambda *_: contextlib.nullcontext(cluster))
    monkeypatch.setattr(ray_cluster, "memory", lambda _: 2**30)
    monkeypatch.setattr(ray_cluster, "check_folder", lambda *_: None)
    monkeypatch.chdir(folder.parent)
    return tiny(seeds=1, total_timesteps=96, ray="auto", out=folder, **more)


def test_what_a_lost_task_had_finished_is_not_trained_again(tmp_path, monkeypatch, capsys):
    trained = []

    def counted(*args, **more):
        trained.append(args[2].number)
        return wave.train_wave(*args, **more)

    monkeypatch.setattr(ray_tasks, "train_wave", counted)
    ray = InProcess({1: 1})
    rates = {"ppo.learning_rate": [1e-4, 1e-3]}
    done = on_cluster(monkeypatch, ray, tmp_path / "s", grid=rates, progress=True)
    assert sorted(ray.sent) == [0, 1, 1]
    assert sorted(trained) == [0, 1]
    assert "wave 2 of 2: lost (LostError: the node is dead)" in capsys.readouterr().err
    assert numbers(tmp_path / "s") == [0, 1]
    assert all(member["failed"] is None for member in done.members)
    # As many waves as are trained at once, and planned from the file just so.
    request = read_sweep(tmp_path / "s")
    assert [len(w.members) for w in lay_out(request, free=request.memory).waves] == [1, 1]


def test_a_wave_that_is_lost_again_and_again_is_given_up(tmp_path, monkeypatch):
    def untrained(request, layout, wave, folder, **_):
        scores = {"validation_score": 1.0, "validation_sharpe": None, "failed": None}
        return [member._asdict() | scores for member in wave.members], 0

    monkeypatch.setattr(ray_tasks, "train_wave", untrained)
    ray = InProcess({1: 99})
    rates = {"ppo.learning_rate": [1e-4, 1e-3, 1e-2]}
    with pytest.raises(tradax.TradaxError, match=r"(?s)1 of 3 waves .*wave 2: lost 4 times"):
        on_cluster(monkeypatch, ray, tmp_path / "s", grid=rates, wave_members=1)
    assert sorted(ray.sent) == [0, 1, 1, 1, 1, 2]
    assert numbers(tmp_path / "s") == [0, 2]


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"ray": "127.0.0.1:1"}, "no ray cluster at 127.0.0.1:1 .*refused"),
        ({"ray": "locale"}, "must be auto, local, HOST:PORT"),
        ({"optuna": "sqlite://", "ranges": {"ppo.gamma": "0.9:0.99"}}, "--random"),
        ({"optuna": "sqlite://", "random": 2}, "nothing to search"),
        ({"optuna": "no address", "random": 2, "ranges": {"ppo.gamma": "0.9:1"}}, "sqlite:///"),
        ({"optuna": "sqlite://", "random": 2, "ranges": {"ppo.gamma": "0.9:7"}}, "ppo.gamma is 7"),
        ({"optuna_study": "s"}, "--optuna"),
    ],
)
def test_mistakes_are_named_before_anything_is_written(given, said, tmp_path):
    with pytest.raises(ConfigError, match=said):
        tiny(**given, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


@pytest.mark.parametrize("name", ["ray", "optuna"])
def test_what_is_not_installed_is_named(name, monkeypatch, tmp_path):
    monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(ConfigError, match=rf"pip install 'tradax\[{name}\]'"):
        tiny(**{name: "local"}, random=2, ranges={"ppo.gamma": "0.9:0.99"}, out=tmp_path / "s")
    assert not (tmp_path / "s").exists()


def test_examples_for_clusters_use_options_that_exist(capsys):
    scripts, manifests = sorted(EXAMPLES.glob("*.sh")), sorted(EXAMPLES.glob("*.yaml"))
    assert len(scripts) == 2
    assert len(manifests) == 1
    for script in scripts:
        subprocess.run(["bash", "-n", str(script)], check=True)
    for path in manifests:
        assert {"apiVersion", "kind", "metadata", "spec"} <= yaml.safe_load(path.read_text()).keys()
    commands = [
        re.sub(r".*\btradax (?=train|sweep)", "", line).rstrip(")").split()
        for path in [*scripts, *manifests]
        for line in path.read_text().replace("\\\n", " ").splitlines()
        if re.search(r"\btradax (train|sweep) ", line) and not line.lstrip().startswith("#")
    ]
    assert len(commands) == 6
    for name, *words in commands:
        algorithm = words[words.index("--algorithm") + 1] if "--algorithm" in words else "ppo"
        with pytest.raises(SystemExit):
            main([name, "--algorithm", algorithm, "--help"])
        known = capsys.readouterr().out
        for word in words:
            if word.startswith("--"):
                assert f"{word} " in known, f"{name} {word}"
