"""Optuna as the search driver: it proposes settings in batches, and is told what each was worth.

The study is in a storage of the user's, where its dashboards see it. A trial is a setting; its
value is the interquartile mean of the validation scores of all symbols and seeds, to be made
large. Which trial is which setting stands in sweep.yaml.
"""

import contextlib
import importlib
import json
import secrets
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from tradax.errors import ConfigError, TradaxError
from tradax.sweeps.grid import Setting, Space, space
from tradax.sweeps.members import SweepRequest
from tradax.sweeps.table import interquartile_mean
from tradax.sweeps.wave import Result

_SEED = 0
_REFUSED_AT_MOST = 100
"""Settings in a row that do not fit together; then the ranges are wrong."""
_HIDDEN = "***"
_OWNER = "tradax_sweep"


def check_installed() -> None:
    """Raises ConfigError where optuna is not there."""
    try:
        importlib.import_module("optuna")
    except ImportError as error:
        raise ConfigError(
            f"optuna is not installed ({error}); pip install 'tradax[optuna]', or leave out "
            "--optuna"
        ) from None


def corners(tried: Space) -> list[Setting]:
    """Settings with every value of each list and both ends of each range, to check them all."""
    if not tried.choices and not tried.ranges:
        raise ConfigError("nothing to search; give ranges or lists (--range, --grid)")
    count = max([len(values) for values in tried.choices.values()] + [2 * bool(tried.ranges)])
    found: list[Setting] = []
    for index in range(count):
        setting: Setting = {}
        for (section, option), one in tried.ranges.items():
            end = one.high if index % 2 else one.low
            setting.setdefault(section, {})[option] = int(end) if one.kind == "int" else end
        for (section, option), values in tried.choices.items():
            setting.setdefault(section, {})[option] = _plain(values[index % len(values)])
        found.append(setting)
    return found


def token() -> str:
    """To tell sweeps apart."""
    return secrets.token_hex(4)


def without_password(text: str) -> str:
    """A storage's address, or a command with one, as it may be written into files."""
    words = []
    for word in text.split(" "):
        scheme, found, rest = word.partition("://")
        user, at, host = rest.rpartition("@")
        name, colon, _ = user.partition(":")
        words.append(f"{scheme}://{name}:{_HIDDEN}@{host}" if found and at and colon else word)
    return " ".join(words)


class Search:
    """A sweep's part of a study.

    Args:
        url: of the storage, as SQLAlchemy takes it: sqlite:///study.db.
        study: its name; one that exists goes on.
        count: settings to try, in all.
        choices, ranges: as for `tradax.sweeps.grid.space`.

    Raises:
        ConfigError: optuna is not installed, no storage there, or a study of another direction.
    """

    def __init__(
        self,
        url: str,
        study: str,
        count: int,
        *,
        choices: Mapping[str, Sequence[Any]],
        ranges: Mapping[str, Any],
    ):
        if count < 1:
            raise ConfigError(f"random is {count}; it must be at least 1")
        self._begin(
            url,
            {
                "storage": without_password(url),
                "study": study,
                "owner": token(),
                "count": count,
                "choices": {name: [_plain(v) for v in values] for name, values in choices.items()},
                "ranges": {
                    name: given if isinstance(given, str) else list(given)
                    for name, given in ranges.items()
                },
                "trials": [],
            },
            new=True,
        )

    @classmethod
    def of(cls, request: SweepRequest, url: str | None) -> "Search | None":
        """That of a sweep that goes on; None where it has none.

        Args:
            url: of the storage, where sweep.yaml cannot hold it (a password is in it).
        """
        if request.search is None:
            if url is not None:
                raise ConfigError("optuna does not search in this sweep; leave out --optuna")
            return None
        state = dict(request.search)
        if url is None and _HIDDEN in state["storage"]:
            raise ConfigError(
                f"the study is in {state['storage']}, and passwords are not kept; give --optuna "
                "with the whole address"
            )
        self = cls.__new__(cls)
        self._begin(url or state["storage"], state, new=False)
        return self

    def _begin(self, url: str, state: dict[str, Any], *, new: bool) -> None:
        check_installed()
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self.state = state
        with _clear(f"{without_password(url)}, study {state['study']}"):
            if new:
                self._study = optuna.create_study(
                    storage=url,
                    study_name=state["study"],
                    direction="maximize",
                    load_if_exists=True,
                )
            else:
                self._study = optuna.load_study(storage=url, study_name=state["study"])
            if self._study.directions != [optuna.study.StudyDirection.MAXIMIZE]:
                raise ConfigError("it is not one that maximises one value; give --optuna-study")

    def abandon(self) -> int:
        """Fail trials that were begun for this sweep, and whose settings were not kept.

        Returns: how many there were.
        """
        from optuna.trial import TrialState

        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        lost = [
            trial.number
            for trial in running
            if trial.user_attrs.get(_OWNER) == self.state["owner"]
            and trial.number not in self.state["trials"]
        ]
        for number in lost:
            self._study.tell(number, state=TrialState.FAIL)
        return len(lost)

    def ask(self, request: SweepRequest, fits: Callable[[Setting], None]) -> SweepRequest | None:
        """The request with another batch of settings; None where enough were tried.

        Args:
            fits: raises ConfigError for a setting that cannot be trained; its trial fails.
        """
        from optuna.trial import TrialState

        tried = len(request.settings)
        wanted = min(request.batch or self.state["count"], self.state["count"] - tried)
        if wanted < 1:
            return None
        one = request.request({})
        listed = space(one.algorithm, one.env, self.state["choices"], self.state["ranges"])
        distributions, values = _distributions(listed)
        # Anew for each batch, so that it proposes the same whether it was stopped before or not.
        self._study.sampler = _sampler(_SEED + tried)
        settings, numbers, refused = [], [], 0
        with _clear(f"study {self.state['study']}"):
            while len(settings) < wanted:
                trial = self._study.ask(distributions)
                trial.set_user_attr(_OWNER, self.state["owner"])
                setting: Setting = {}
                for name, value in trial.params.items():
                    section, option = name.split(".")
                    value = values[name][value] if name in values else value
                    setting.setdefault(section, {})[option] = value
                try:
                    fits(setting)
                except ConfigError as error:
                    self._study.tell(trial, state=TrialState.FAIL)
                    refused += 1
                    if refused == _REFUSED_AT_MOST:
                        for number in numbers:
                            self._study.tell(number, state=TrialState.FAIL)
                        raise ConfigError(
                            f"{refused} settings in a row cannot be trained, the last one: {error}"
                        ) from None
                    continue
                settings.append(setting)
                numbers.append(trial.number)
                refused = 0
        self.state = self.state | {"trials": self.state["trials"] + numbers}
        return replace(request, settings=request.settings + settings, search=self.state)

    def tell(self, results: Sequence[Result]) -> None:
        """What the settings were worth of which there are results, unless it was told before."""
        from optuna.trial import TrialState

        scores: dict[int, list[float | None]] = {}
        for result in results:
            scores.setdefault(result["setting"], []).append(result["validation_score"])
        running = self._study.get_trials(deepcopy=False, states=(TrialState.RUNNING,))
        open_numbers = {trial.number for trial in running}
        for setting, number in enumerate(self.state["trials"]):
            if setting not in scores or number not in open_numbers:
                continue
            value = interquartile_mean(scores[setting])
            if np.isfinite(value):
                self._study.tell(number, value)
            else:
                self._study.tell(number, state=TrialState.FAIL)

    def words(self, request: SweepRequest) -> str:
        """Where it is, in a line."""
        last, count = len(request.settings), self.state["count"]
        first = (last - 1) // (request.batch or count) * (request.batch or count) + 1
        from optuna.trial import TrialState

        done = self._study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        best = max((trial.value for trial in done if trial.value is not None), default=None)
        so_far = "" if best is None else f"; best so far {best:.4g}"
        return f"study {self.state['study']}: settings {first} to {last} of {count}{so_far}"


def _sampler(seed: int) -> Any:
    import optuna

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        # The liar keeps the trials of a batch apart: none knows what the others will be worth.
        return optuna.samplers.TPESampler(seed=seed, constant_liar=True)


def _distributions(tried: Space) -> tuple[dict[str, Any], dict[str, dict[Any, Any]]]:
    """Name -> distribution; name -> what its choices stand for, where these are lists."""
    from optuna import distributions

    found: dict[str, Any] = {}
    values: dict[str, dict[Any, Any]] = {}
    for (section, option), one in tried.ranges.items():
        name = f"{section}.{option}"
        if one.kind == "int":
            found[name] = distributions.IntDistribution(int(one.low), int(one.high))
        else:
            found[name] = distributions.FloatDistribution(one.low, one.high, log=one.kind == "log")
    for (section, option), some in tried.choices.items():
        name = f"{section}.{option}"
        plain = [_plain(value) for value in some]
        if any(isinstance(value, list) for value in plain):
            values[name] = {json.dumps(value): value for value in plain}
            plain = list(values[name])
        found[name] = distributions.CategoricalDistribution(plain)
    return found, values


def _plain(value: Any) -> Any:
    return list(value) if isinstance(value, tuple) else value


@contextlib.contextmanager
def _clear(what: str) -> Iterator[None]:
    """Errors of optuna and of databases, of which there are many kinds, as one of a user's."""
    try:
        yield
    except TradaxError as error:
        raise type(error)(f"{what}: {error}") from None
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        raise ConfigError(
            f"{what}: {type(error).__name__}: {lines[0][:300]}. A storage is an address such as "
            "sqlite:///study.db; a study keeps its ranges and lists, so give others another "
            "--optuna-study"
        ) from None
