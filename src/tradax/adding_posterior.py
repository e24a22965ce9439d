"""The command `tradax posterior`: the posterior of a run that was finished without one."""

import dataclasses
from pathlib import Path
from typing import Any

import tyro

from tradax.errors import TradaxError


@dataclasses.dataclass(kw_only=True)
class PosteriorOptions:
    """Sample the posterior of a finished run's test: Sharpe ratio, alpha and beta against
    buy-and-hold, and a cone of the next year. Writes report.html and summary.json again."""

    run: tyro.conf.Positional[str]
    """A run directory that `tradax train` wrote, also one with --skip-posterior."""
    draws: int = 1000
    """Kept from each of two chains."""
    seed: int | None = None
    """Of the sampler; the run's own by default."""
    debug: bool = False
    """Show tracebacks."""


LEAST_DRAWS = 100


def posterior(options: PosteriorOptions) -> int:
    """Print what was found. Returns: the exit code."""
    if options.draws < LEAST_DRAWS:
        raise TradaxError(f"--draws {options.draws} is too few; give {LEAST_DRAWS} or more")
    if options.seed is not None and options.seed < 0:
        raise TradaxError(f"--seed {options.seed} is negative; give 0 or more")
    from tradax import device

    device.keep_compiled_programs()
    from tradax import run_directory
    from tradax.evaluation.posterior import Sampling
    from tradax.held_out import retest
    from tradax.preparation import needs_bars

    folder = Path(options.run)
    config = run_directory.read_config(folder)
    if not needs_bars(config["env"]):
        raise TradaxError(
            f"{folder}: {config['env']} is not tested on prices: there are no returns to model"
        )
    run_directory.check_finished(folder)
    seed = config["seed"] if options.seed is None else options.seed
    outcome = retest(folder, sampling=Sampling(seed, options.draws))
    tested = outcome.get("symbols", {outcome.get("symbol"): outcome})
    for symbol, figures in tested.items():
        print(f"{symbol}: {_words(figures['posterior'])}")
    print(*(f"report: {path}" for path in sorted(folder.glob("**/report.html"))), sep="\n")
    return 0


def _words(figures: dict[str, Any]) -> str:
    said = []
    if (ends := figures["sharpe_interval"]) is not None:
        said.append(
            f"Sharpe ratio {figures['sharpe_mean']:.2f} ({ends[0]:.2f} to {ends[1]:.2f}), above 0 "
            f"with probability {figures['p_positive']:.1%}"
        )
    if (ends := figures["alpha_interval"]) is not None:
        said.append(
            f"alpha {figures['alpha_mean']:.1%} a year ({ends[0]:.1%} to {ends[1]:.1%}), beta "
            f"{figures['beta_mean']:.2f}"
        )
        said.append(f"beats buy-and-hold with probability {figures['p_beats_benchmark']:.1%}")
    return "; ".join([*said, *([figures["note"]] if figures["note"] else [])])
