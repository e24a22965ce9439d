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
