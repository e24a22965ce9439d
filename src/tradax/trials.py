"""The command `tradax trials`: what the ledger knows, as a table."""

import dataclasses
import math
from pathlib import Path

from tradax import ledger
from tradax.errors import TradaxError


@dataclasses.dataclass(kw_only=True)
class TrialsOptions:
    """Every policy that was trained on some data, and what its test said; all data by default.

    The deflated Sharpe ratio of a report counts these. They stay when a run's folder is deleted.
    The excess is the Sharpe ratio, a bar, of the log-return differences to buy-and-hold.
    TRADAX_TRIALS names another index than the user's own, or turns it off (off)."""

    data: tuple[str, ...] = ()
    """Sample name or file(s), as they were trained on."""
    run: str | None = None
    """A run directory: those on its data."""
    symbol: str | None = None
    """Only those on this symbol."""
    debug: bool = False
    """Show tracebacks."""


def trials(options: TrialsOptions) -> int:
    """Print a line a trial. Returns: the exit code."""
    path = ledger.index_path()
    if path is None:
        raise TradaxError(f"the index of trials is turned off ({ledger.VARIABLE}=off)")
    data = _data(options)
    found = [e for d in data or [None] for e in ledger.entries(d, options.symbol)]
    if not found:
        print(f"no trials on these data in {path}" if data else f"no trials in {path}")
        return 0
    rows = [_HEAD, *(_row(entry) for entry in found)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        print("  ".join(f"{cell:<{w}}" for cell, w in zip(row, widths, strict=True)).rstrip())
    tested = sum(entry.trial.tested for entry in found)
    gone = sum(entry.missing for entry in found)
    print(
        f"\n{len(found):,} trials, {tested:,} of them tested; the folders of {gone:,} are gone. "
        f"Index: {path}"
    )
    return 0


def _data(options: TrialsOptions) -> list[str]:
    """Hashes of the data that are meant; none: whatever they are."""
    if options.data and options.run is not None:
        raise TradaxError("give --data or --run, not both")
    if options.run is not None:
        found = {t.data_sha256 for t in ledger.of_folder(Path(options.run)) if t.data_sha256}
        if not found:
            raise TradaxError(f"{options.run}: no run directory with trials on data")
        return sorted(found)
    if options.data:
        from tradax.data import samples

        return [samples.load(list(options.data)).sha256]
    return []


_HEAD = (
    *("written", "algorithm", "market", "symbol", "seed", "steps", "settings", "data"),
    *("validation", "Sharpe", "excess a bar", "folder"),
)


def _row(entry: ledger.Entry) -> tuple[str, ...]:
    t = entry.trial
    return (
        entry.time[:16].replace("T", " "),
        t.algorithm,
        t.env,
        t.symbol,
        str(t.seed),
        f"{t.timesteps:,}",
        t.settings[:6],
        (t.data_sha256 or "")[:8],
        _figure(t.validation_score, ".4f"),
        _figure(t.sharpe, ".2f") if t.tested else "untested",
        _figure(t.excess_per_bar, ".4f"),
        entry.folder + (" (gone)" if entry.missing else ""),
    )


def _figure(value: float | None, form: str) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:{form}}"
