"""Is the verdict calibrated? Whole runs on markets whose truth is known.

MARKETS (200) independent markets a scenario, twice as many of noise with drift: daily bars, 12
years to learn from and choose on, 10 years of test (2,520 bars), with costs where there is an edge
and without on noise. PPO on `discrete_trading` sees the last return and a signal; bars go through
features, training, choice on validation, one test, verdict and posterior, as with
`tradax train` and `tradax sweep`, with an index of trials of their own. POSTERIORS (all) of the
markets get a posterior. The markets are those of `benchmarks/_planted.py`.

Claims: on noise the verdict is above "none" in at most 5% of the markets, also where the best of 50
members of a sweep is taken, by validation or by the test itself; an edge is at least "moderate" in
at least 80%; intervals that say 90% hold the true Sharpe ratio of the policy, which is that of the
same policy on 2,000,000 fresh bars, in 85% to 95%, both of the tests of these markets and with
AGAIN (4) further spans of ten years for each policy: of 171 intervals that hold in 89% of cases,
fewer than 85% hold by chance once in twenty.
"""

import multiprocessing
import os
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, NamedTuple

from benchmarks import _calibrated, _planted
from benchmarks._planted import Process

MARKETS = int(os.environ.get("MARKETS", "200"))
POSTERIORS = int(os.environ.get("POSTERIORS", str(MARKETS)))
AGAIN = int(os.environ.get("AGAIN", "4"))
SCENARIOS = os.environ.get("SCENARIOS", "sweep noise drift edge").split()
MOST_TRAINED, MOST_SWEPT = 50, 10
"""Markets of a job: a report is 5 MB, and a sweep has 50 members each."""
ABOVE_NONE = ("weak", "moderate", "strong")
MODERATE = ("moderate", "strong")


class Job(NamedTuple):
    """A part of a scenario's markets."""

    scenario: str
    process: Process
    markets: int
    seed: int
    posterior: bool


class Done(NamedTuple):
    """What it found, and the CPU time that it took."""

    scenario: str
    found: list[dict[str, Any]]
    seconds: float


def main() -> None:
    edge = _planted.edge_for(1.5)
    drift = 0.5 * _planted.SIGMA / _planted.DAYS**0.5
    trained = {
        "noise": ("noise without drift", Process()),
        "drift": ("noise with drift, buy-and-hold's Sharpe ratio 0.5", Process(drift=drift)),
        "edge": ("planted edge", Process(edge=edge)),
    }
    if unknown := set(SCENARIOS) - {"sweep", *trained}:
        raise SystemExit(f"no scenario {', '.join(unknown)}; there are sweep, {', '.join(trained)}")
    print(
        f"Planted edge: {edge / _planted.SIGMA:.3f} standard deviations a bar; the best Sharpe "
        f"ratio after costs is {_planted.best_sharpe(edge):.2f}.\n",
        flush=True,
    )
    jobs = []
    if "sweep" in SCENARIOS:
        jobs += _jobs("best of 50", Process(), MOST_SWEPT, 1_000, MARKETS, 0)
    for number, (scenario, (name, process)) in enumerate(trained.items(), 2):
        if scenario in SCENARIOS:
            # With drift most tests look alike, and coverage is near its bound: more of them.
            times = 2 if scenario == "drift" else 1
            counts = times * MARKETS, times * POSTERIORS
            jobs += _jobs(name, process, MOST_TRAINED, 1_000 * number, *counts)
    begun = time.perf_counter()
    done = _parallel(jobs)
    found: dict[str, list[dict[str, Any]]] = {}
    seconds: dict[str, float] = {}
    for name, markets, taken in done:
        found.setdefault(name, []).extend(markets)
        seconds[name] = seconds.get(name, 0.0) + taken
    wrong = [words for words in _table(found, seconds) if words]
    print(f"\n{time.perf_counter() - begun:,.0f} s in all, {_workers()} processes.", flush=True)
    if wrong:
        raise SystemExit(f"not as claimed: {'; '.join(wrong)}")


def _jobs(
    name: str, process: Process, most: int, seed: int, markets: int, posteriors: int
) -> list[Job]:
    """As few parts as `most` allows; those with posterior stand apart from those without."""
    parts = []
    for count, posterior in ((min(posteriors, markets), True), (markets - posteriors, False)):
        while count > 0:
            parts.append(Job(name, process, min(most, count), seed + len(parts), posterior))
            count -= most
    return parts


def _parallel(jobs: Sequence[Job]) -> list[Done]:
    """One thread a process: most of the time goes to programs that cannot use two."""
    os.environ["XLA_FLAGS"] = (
        f"{os.environ.get('XLA_FLAGS', '')} --xla_cpu_multi_thread_eigen=false"
    )
    os.environ |= {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(_workers(), mp_context=context) as pool:
        waiting = [pool.submit(_do, job) for job in jobs]
        done = []
        for job, future in zip(jobs, waiting, strict=True):
            done.append(future.result())
            words = f"{job.scenario}: {job.markets} markets, {done[-1].seconds:.0f} s"
            print(words, file=sys.stderr, flush=True)
        return done


def _workers() -> int:
    return min(os.cpu_count() or 1, 8)


def _do(job: Job) -> Done:
    from tradax import device

    device.keep_compiled_programs()
    begun = time.process_time()
    if job.scenario == "best of 50":
        found = _calibrated.swept(job.process, job.markets, job.seed)
    else:
        found = _calibrated.trained(job.process, job.markets, job.seed, job.posterior, AGAIN)
    return Done(job.scenario, found, time.process_time() - begun)


def _table(found: dict[str, list[dict[str, Any]]], seconds: dict[str, float]) -> list[str]:
    """Print it. Returns: what is not as claimed."""
    print(
        "| markets | number | above none (95% interval) | at least moderate (95% interval) "
        "| Sharpe ratio of policies | bootstrap's 90% intervals hold | posterior's "
        "| bootstrap's of all tests | posterior's | CPU time |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    wrong = []
    for name, markets in found.items():
        if name == "best of 50":
            for key, words in (
                ("by_validation", "driftless noise, best of 50 on validation, tested once"),
                ("by_test", "the same, best of 50 by the test"),
                ("undeflated", "the same, were the search not counted"),
            ):
                grades = [market[key] for market in markets]
                print(
                    f"| {words} | {len(grades)} | {_share(grades, ABOVE_NONE)} "
                    f"| {_share(grades, MODERATE)} | | | | | | {seconds[name]:,.0f} s |"
                )
                if key != "undeflated":
                    wrong.append(_too_many(grades, words))
            continue
        grades = [market["grade"] for market in markets]
        true = [market["true"] for market in markets if market["true"] is not None]
        own = {key: _covers(markets, key) for key in ("bootstrap", "posterior")}
        tests = [test | {"true": m["true"]} for m in markets for test in (m, *m["again"])]
        covers = {key: _covers(tests, key) for key in own}
        mean = f"{sum(true) / len(true):.2f}" if true else "-"
        print(
            f"| {name} | {len(grades)} | {_share(grades, ABOVE_NONE)} | {_share(grades, MODERATE)} "
            f"| {mean} | {_rate(*own['bootstrap'])} | {_rate(*own['posterior'])} "
            f"| {_rate(*covers['bootstrap'])} | {_rate(*covers['posterior'])} "
            f"| {seconds[name]:,.0f} s |"
        )
        if name != "planted edge":
            wrong.append(_too_many(grades, name))
        elif sum(grade in MODERATE for grade in grades) < 0.8 * len(grades):
            wrong.append(f"{name}: at least moderate in fewer than 80%")
        for which, rates in (("own tests", own), ("all tests", covers)):
            for key, (hold, count) in rates.items():
                if count and not 0.85 * count <= hold <= 0.95 * count:
                    wrong.append(f"{name}: {key} intervals hold {hold} of {count}, {which}")
    return wrong


def _too_many(grades: list[str], words: str) -> str:
    above = sum(grade in ABOVE_NONE for grade in grades)
    return f"{words}: {above} of {len(grades)} above none" if above > 0.05 * len(grades) else ""


def _covers(tests: list[dict[str, Any]], key: str) -> tuple[int, int]:
    """Intervals that hold the truth, and intervals, of policies that traded at all."""
    stated = [m for m in tests if m[key] is not None and m["true"] is not None]
    return sum(m[key][0] <= m["true"] <= m[key][1] for m in stated), len(stated)


def _share(grades: list[str], wanted: Sequence[str]) -> str:
    return _rate(sum(grade in wanted for grade in grades), len(grades))


def _rate(count: int, of: int) -> str:
    """With Wilson's 95% interval."""
    from scipy.stats import binomtest

    if not of:
        return "-"
    interval = binomtest(count, of).proportion_ci(0.95, method="wilson")
    return f"{count / of:.1%} of {of} ({interval.low:.1%} to {interval.high:.1%})"


if __name__ == "__main__":
    main()
