"""The posterior on the page."""

from dataclasses import asdict
from html import escape
from typing import Any

from tradax.evaluation.posterior import Posterior
from tradax.reporting.frame import Part, Section, facts_table


def posterior_part(posterior: Posterior | None, *, skipped: bool) -> Part:
    """Its figures; without one, why there is none."""
    body = _body(posterior, skipped)
    return Part(
        Section("posterior", "Posterior", body, heading="Posterior of the Sharpe ratio"),
        [],
        {"posterior": None if posterior is None else asdict(posterior)},
    )


def _body(posterior: Posterior | None, skipped: bool) -> str:
    if posterior is None:
        why = "It was skipped on request." if skipped else "It was not computed."
        return f"<p>{why}</p>"
    parts = []
    if posterior.note:
        parts.append(f"<p>{escape(posterior.note)}</p>")
    facts: dict[str, Any] = {}
    if posterior.sharpe_mean is not None and posterior.sharpe_interval is not None:
        low, high = posterior.sharpe_interval
        facts["Sharpe ratio, mean"] = f"{posterior.sharpe_mean:.2f}"
        facts["Sharpe ratio, 90% interval"] = f"{low:.2f} to {high:.2f}"
        facts["Probability that the Sharpe ratio is above 0"] = f"{posterior.p_positive:.1%}"
    if posterior.excess_mean is not None and posterior.excess_interval is not None:
        low, high = posterior.excess_interval
        facts["Excess over the benchmark, mean a year"] = f"{posterior.excess_mean:.1%}"
        facts["Excess over the benchmark, 90% interval"] = f"{low:.1%} to {high:.1%}"
        facts["Probability that the excess is above 0"] = f"{posterior.p_beats_benchmark:.1%}"
    if facts:
        parts.append(facts_table("True values, given the test returns", facts))
    if posterior.r_hat is not None:
        parts.append(
            f"<p>Sampling: {posterior.draws:,} draws, R-hat {posterior.r_hat:.3f}, "
            f"{posterior.divergences} divergences.</p>"
            "<p>The model: returns are independent with Student-t tails; mean ~ Normal(0, 0.01) a "
            "bar, scale ~ HalfCauchy(1), degrees of freedom above 2 ~ Exponential(mean 10). Bars "
            "on which next to nothing was held are counted apart. Rare large losses count as "
            "outliers, so this can be kinder than the bootstrap intervals of the verdict, which "
            "count them in full. Neither knows how many settings were tried.</p>"
        )
    return "\n".join(parts)
