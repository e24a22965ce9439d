"""Whether choosing the best of several trials chose anything but luck."""

import itertools
from typing import NamedTuple

import numpy as np

from tradax.errors import TradaxError
from tradax.evaluation.metrics import ROUNDING, finite_returns

_AT_ONCE = 1024  # splits, so that memory stays small with many trials


class Overfitting(NamedTuple):
    """One entry a split; Sharpe ratios are a bar's."""

    probability: float
    """PBO: share of splits whose winner was not above the trials' median on the other half."""
    probability_of_loss: float
    """Share of splits whose winner had a Sharpe ratio below 0 on the other half."""
    logits: np.ndarray
    """[splits], ln(w / (1 - w)) of the winner's relative rank w on the other half."""
    in_sample: np.ndarray
    """[splits], the winner's Sharpe ratio where it won."""
    out_of_sample: np.ndarray
    """[splits], its Sharpe ratio on the other half."""


def overfitting(returns: np.ndarray, blocks: int = 16) -> Overfitting:
    """Probability of backtest overfitting by combinatorially symmetric cross-validation.

    The bars are cut into S consecutive blocks. For each of the (S choose S/2) halves the trial with
    the highest Sharpe ratio there is ranked among the N trials on the other half: r = 1 is the
    worst, w = r / (N + 1), and PBO is the share of splits with ln(w / (1 - w)) <= 0 (Bailey,
    Borwein, Lopez de Prado and Zhu 2017, "The probability of backtest overfitting", section 3).
    On noise it is near 1/2, and (N + 1) / 2N where N is odd, as the median counts. Trials that are
    equal share their mean rank; one that never traded has a Sharpe ratio of 0.

    Args:
        returns: [n, N], simple returns of N trials on the same bars, at least two.
        blocks: S, even; each takes at least two bars.

    Raises:
        TradaxError: too few trials or bars, or values that are not finite.
    """
    returns = finite_returns(returns, ndim=2)
    n, trials = returns.shape
    if blocks < 2 or blocks % 2 or blocks > 20:
        raise TradaxError(f"{blocks} blocks: give an even number from 2 to 20")
    if trials < 2 or n < 2 * blocks:
        raise TradaxError(
            f"{n} returns of {trials} trials are too few for {blocks} blocks: at least 2 trials "
            f"and {2 * blocks} returns are needed"
        )
    sums = _Sums.of(returns, blocks)
    halves = list(itertools.combinations(range(blocks), blocks // 2))
    chosen = np.zeros((len(halves), blocks))
    chosen[np.arange(len(halves))[:, None], np.array(halves)] = 1.0
    parts = [
        _ranked(sums.sharpe(half), sums.sharpe(1.0 - half))
        for half in np.array_split(chosen, -(-len(chosen) // _AT_ONCE))
    ]
    rank, inside, outside = (np.concatenate(values) for values in zip(*parts, strict=True))
    relative = rank / (trials + 1)
    logits = np.log(relative / (1.0 - relative))
    return Overfitting(
        # Not logits <= 0: the logarithm of a median's quotient may be rounded away from 0.
        probability=float((2.0 * rank <= trials + 1).mean()),
        probability_of_loss=float((outside < 0.0).mean()),
        logits=logits,
        in_sample=inside,
        out_of_sample=outside,
    )


class _Sums(NamedTuple):
    """What Sharpe ratios of any choice of blocks follow from."""

    mean: np.ndarray
    """[N], of all bars; sums are of what is left without it, which loses no digits."""
    bars: np.ndarray
    """[S], in each block."""
    first: np.ndarray
    """[S, N]"""
    second: np.ndarray
    """[S, N], of squares."""

    @classmethod
    def of(cls, returns: np.ndarray, blocks: int) -> "_Sums":
        mean = returns.mean(axis=0)
        cut = np.array_split(returns - mean, blocks)
        return cls(
            mean=mean,
            bars=np.array([len(block) for block in cut], np.float64),
            first=np.stack([block.sum(axis=0) for block in cut]),
            second=np.stack([(block**2).sum(axis=0) for block in cut]),
        )

    def sharpe(self, chosen: np.ndarray) -> np.ndarray:
        """Args: chosen: [splits, S], 1 or 0. Returns: [splits, N]."""
        n = (chosen @ self.bars)[:, None]
        mean = chosen @ self.first / n
        variance = (chosen @ self.second - n * mean**2) / (n - 1.0)
        deviation = np.sqrt(np.maximum(variance, 0.0))
        varies = deviation > ROUNDING
        sharpe = np.where(varies, (mean + self.mean) / np.where(varies, deviation, 1.0), 0.0)
        return sharpe.round(12)  # a product of matrices may round equal columns differently


def _ranked(inside: np.ndarray, outside: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Args: [splits, N]. Returns: the winners' rank on the other half, and both Sharpe ratios."""
    winner = inside.argmax(axis=1)[:, None]
    there = np.take_along_axis(outside, winner, axis=1)
    rank = (outside < there).sum(axis=1) + ((outside == there).sum(axis=1) + 1) / 2.0
    return rank, np.take_along_axis(inside, winner, axis=1)[:, 0], there[:, 0]
