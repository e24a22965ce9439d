"""Errors that a user can cause and mend. The command line prints them without a traceback."""

from typing import Any


class TradaxError(ValueError):
    """A mistake in what the user gave: the message says where, what was wrong and what to do."""

    exit_code = 2


class DataError(TradaxError):
    """One or several problems in market data.

    Args:
        problems: one line each, naming file, row and column, what was wrong and what to do.
    """

    def __init__(self, *problems: str):
        self.problems = problems
        super().__init__("\n".join(problems))


class ConfigError(TradaxError):
    """An option outside what is allowed."""


class ModelFileError(TradaxError):
    """A policy file that cannot be read."""


class LostProcessError(TradaxError):
    """Another process of a job on several machines has gone."""


class TrainingError(TradaxError):
    """Training met a number that is not finite."""

    policy: Any = None
    """The last good one."""
