"""Which rows to learn from, to choose on, and to test on: always in the order of time."""

from typing import NamedTuple

from tradax.errors import ConfigError, DataError

MINIMUM = {"train": 30, "validation": 10, "test": 10}


class Span(NamedTuple):
    """Rows `first` to `last`, both included."""

    first: int
    last: int

    @property
    def rows(self) -> int:
        return self.last - self.first + 1


class Splits(NamedTuple):
    train: Span
    validation: Span
    test: Span


class WalkForward(NamedTuple):
    """How the test span is cut into folds, each with a training of its own before it."""

    folds: int
    rolling: bool = False
    """Train on as many rows as the first fold has, the latest; otherwise on all from the start."""
    purge: int = 5
    """Rows left out between training and validation."""
    embargo: int = 5
    """Rows left out between validation and test."""


def chronological(
    n_rows: int, warm_up: int, *, train: float = 0.7, validation: float = 0.15, source: str = "data"
) -> Splits:
    """The earliest rows to train, the next to validate, the last to test; no row twice.

    Args:
        warm_up: rows at the start that have no features.
        train, validation: fractions of the remaining rows.

    Raises:
        ConfigError: fractions that leave nothing to test on.
        DataError: fewer rows than are needed.
    """
    for name, fraction in (("train", train), ("validation", validation)):
        if not 0 < fraction < 1:
            raise ConfigError(f"{name}_fraction is {fraction}; it must lie between 0 and 1")
    if train + validation >= 1:
        raise ConfigError(
            f"train_fraction {train} and validation_fraction {validation} leave no rows to test "
            "on; their sum must be below 1"
        )
    usable = n_rows - warm_up
    end_train = warm_up + int(usable * train)
    end_validation = end_train + int(usable * validation)
    splits = Splits(
        Span(warm_up, end_train - 1),
        Span(end_train, end_validation - 1),
        Span(end_validation, n_rows - 1),
    )
    for name, span in splits._asdict().items():
        if span.rows < MINIMUM[name]:
            raise DataError(
                f"{source}: {n_rows} rows are too few: after {warm_up} rows of warm-up, {name} has "
                f"{max(span.rows, 0)} and needs {MINIMUM[name]}; give more rows, a shorter "
                "--features.window, or other fractions"
            )
    return splits


def walk_forward(
    n_rows: int,
    warm_up: int,
    how: WalkForward,
    *,
    train: float = 0.7,
    validation: float = 0.15,
    source: str = "data",
) -> tuple[Splits, ...]:
    """The test span of `chronological` in pieces, each trained for on what came before it.

    A fold validates on as many rows as there would be without folds, and trains on those before.
    Nothing that a fold learns from or chooses on reaches its test: spans are in the order of time,
    `purge` and `embargo` rows apart. Test pieces follow each other without a gap.

    Returns: one a fold, the earliest first; the last piece takes the rows that do not divide.

    Raises:
        ConfigError, DataError: as `chronological`; gaps that are negative; too few rows a fold.
    """
    if how.folds < 2:
        raise ConfigError(f"folds is {how.folds}; it must be at least 2")
    for name in ("purge", "embargo"):
        if getattr(how, name) < 0:
            raise ConfigError(f"{name}_bars is {getattr(how, name)}; it must be at least 0")
    whole = chronological(n_rows, warm_up, train=train, validation=validation, source=source)
    piece = whole.test.rows // how.folds
    first_train = whole.train.rows - how.purge - how.embargo
    for name, rows in (("test", piece), ("train", first_train)):
        if rows < MINIMUM[name]:
            raise DataError(
                f"{source}: {how.folds} folds leave {max(rows, 0)} rows to {name}, which needs "
                f"{MINIMUM[name]}; give more rows, fewer folds, smaller gaps or other fractions"
            )
    found = []
    for fold in range(how.folds):
        begin = whole.test.first + fold * piece
        end = whole.test.last if fold == how.folds - 1 else begin + piece - 1
        chosen = Span(begin - how.embargo - whole.validation.rows, begin - how.embargo - 1)
        learned = Span(warm_up, chosen.first - how.purge - 1)
        if how.rolling:
            learned = Span(learned.last - first_train + 1, learned.last)
        found.append(Splits(learned, chosen, Span(begin, end)))
    return tuple(found)
