"""Prices of which the truth is known: `--data synthetic:heston,drift=0.1,bars=5000,seed=1`.

Every process is one class: its parameters, a year where they have a unit, and one `step` written
for numpy (bars, here) and JAX (`tradax.envs._paths`) alike. X is the log price over the first
one; `hidden` is what drives it unseen.
"""

import difflib
from typing import Any, ClassVar, NamedTuple

import numpy as np

from tradax.config import config, from_dict, setting
from tradax.data.bars import Bars
from tradax.errors import DataError

PREFIX = "synthetic:"
_POINTS = 8  # of a bar: the first is overnight, highs and lows are the extremes of the others
_FIRST_PRICE = 100.0


class Process:
    """A log price that moves step by step, and perhaps a hidden state."""

    independent: ClassVar[bool] = True
    """Whether the steps of X do not depend on X or the hidden state."""

    def start(self, normal: Any, uniform: Any, xp: Any) -> tuple[Any, Any]:
        """X and hidden state at the beginning; the arguments are noise, as in `step`."""
        return 0.0 * normal, 0.0 * normal

    def step(self, x: Any, hidden: Any, noise: "Noises", dt: Any, xp: Any) -> tuple[Any, Any]:
        """X and hidden state `dt` years later; `xp` is numpy or jax.numpy."""
        raise NotImplementedError


class Noises(NamedTuple):
    """What a step draws, for every asset."""

    normal: Any
    """Drives the price; this one is correlated between assets."""
    second: Any
    """A standard normal of its own."""
    uniform: Any


@config(traced=False)
class GeometricBrownianMotion(Process):
    """dX = (drift - volatility^2 / 2) dt + volatility dW, so that E S_t = S_0 exp(drift t).

    With logarithmic utility, no cost and interest r the best weight is (drift - r) / volatility^2.
    """

    drift: float = 0.0
    """A year."""
    volatility: float = setting(default=0.2, least=0, most=100)
    """A year."""

    def step(self, x, hidden, noise, dt, xp):
        move = self.volatility * dt**0.5 * noise.normal
        return x + (self.drift - self.volatility**2 / 2) * dt + move, hidden


@config(traced=False)
class Noise(Process):
    """A martingale with independent returns, E S_t = S_0: nothing can be learned from it."""

    volatility: float = setting(default=0.2, least=0, most=100)
    """A year."""

    def step(self, x, hidden, noise, dt, xp):
        return x - self.volatility**2 / 2 * dt + self.volatility * dt**0.5 * noise.normal, hidden


@config(traced=False)
class OrnsteinUhlenbeck(Process):
    """dX = -speed X dt + volatility dW, stationary and stepped exactly.

    X has mean 0, variance volatility^2 / (2 speed), autocorrelation exp(-speed t).
    """

    independent: ClassVar[bool] = False
    speed: float = setting(default=10.0, above=0, most=10_000)
    """Rate at which the log price returns to its mean, a year."""
    volatility: float = setting(default=0.2, least=0, most=100)
    """A year, over short times."""

    def start(self, normal, uniform, xp):
        return self.volatility / (2.0 * self.speed) ** 0.5 * normal, 0.0 * normal

    def step(self, x, hidden, noise, dt, xp):
        kept = xp.exp(-self.speed * dt)
        deviation = self.volatility * ((1.0 - kept**2) / (2.0 * self.speed)) ** 0.5
        return kept * x + deviation * noise.normal, hidden


@config(traced=False)
class Heston(Process):
    """Stochastic variance V, the hidden state (Heston 1993), in the full-truncation Euler scheme
    (Lord, Koekkoek and van Dijk 2010).

    dX = (drift - V / 2) dt + sqrt(V) dW
    dV = speed (volatility^2 - V) dt + volatility_of_variance sqrt(V) dB,   dW dB = leverage dt

    V starts at its mean, volatility^2; its stationary variance is volatility_of_variance^2
    volatility^2 / (2 speed).
    """

    independent: ClassVar[bool] = False
    drift: float = 0.0
    """A year."""
    volatility: float = setting(default=0.2, above=0, most=100)
    """Square root of the mean variance, a year."""
    speed: float = setting(default=4.0, above=0, most=1_000)
    """Rate at which the variance returns to its mean, a year."""
    volatility_of_variance: float = setting(default=0.4, least=0, most=100)
    """A year."""
    leverage: float = setting(default=-0.7, least=-1, most=1)
    """Correlation of price and variance."""

    def start(self, normal, uniform, xp):
        return 0.0 * normal, self.volatility**2 + 0.0 * normal

    def step(self, x, hidden, noise, dt, xp):
        variance = xp.maximum(hidden, 0.0)
        root = (variance * dt) ** 0.5
        other = self.leverage * noise.normal + (1.0 - self.leverage**2) ** 0.5 * noise.second
        pull = self.speed * (self.volatility**2 - variance) * dt
        return (
            x + (self.drift - variance / 2) * dt + root * noise.normal,
            hidden + pull + self.volatility_of_variance * root * other,
        )


@config(traced=False)
class Jumps(Process):
    """Merton's jump diffusion (1976): normal jumps of X at Poisson times.

    X has variance (volatility^2 + rate (jump_mean^2 + jump_sd^2)) t, and E S_t = S_0 exp(drift t).
    """

    drift: float = 0.0
    """A year, jumps included."""
    volatility: float = setting(default=0.15, least=0, most=100)
    """A year, without the jumps."""
    rate: float = setting(default=10.0, least=0, most=1_000)
    """Jumps a year."""
    jump_mean: float = setting(default=-0.02, above=-1, below=1)
    """Mean jump of the log price."""
    jump_sd: float = setting(default=0.04, least=0, below=1)
    """Standard deviation of a jump of the log price."""

    def step(self, x, hidden, noise, dt, xp):
        # A Poisson number from one uniform; more than 6 jumps in a step do not happen.
        expected = self.rate * dt
        term = xp.exp(-expected)
        below, jumps = term, 0.0
        for n in range(1, 7):
            jumps = jumps + (noise.uniform > below)
            term = term * expected / n
            below = below + term
        compensator = self.rate * (xp.exp(self.jump_mean + self.jump_sd**2 / 2) - 1.0)
        drift = (self.drift - self.volatility**2 / 2 - compensator) * dt
        jump = jumps * self.jump_mean + jumps**0.5 * self.jump_sd * noise.second
        return x + drift + self.volatility * dt**0.5 * noise.normal + jump, hidden


@config(traced=False)
class Regimes(Process):
    """Two geometric Brownian motions that take turns: calm (hidden state 0) and stressed (1).

    Regimes last exponential times; the stressed share is stressed_years / (calm_years +
    stressed_years).
    """

    independent: ClassVar[bool] = False
    calm_drift: float = 0.12
    """A year."""
    calm_volatility: float = setting(default=0.12, least=0, most=100)
    """A year."""
    calm_years: float = setting(default=1.0, above=0)
    """Mean length of a calm regime."""
    stressed_drift: float = -0.15
    """A year."""
    stressed_volatility: float = setting(default=0.35, least=0, most=100)
    """A year."""
    stressed_years: float = setting(default=0.25, above=0)
    """Mean length of a stressed regime."""

    def start(self, normal, uniform, xp):
        return 0.0 * normal, 1.0 * (uniform < self._stressed_share())

    def step(self, x, hidden, noise, dt, xp):
        drift = self.calm_drift + hidden * (self.stressed_drift - self.calm_drift)
        volatility = self.calm_volatility + hidden * (
            self.stressed_volatility - self.calm_volatility
        )
        x = x + (drift - volatility**2 / 2) * dt + volatility * dt**0.5 * noise.normal
        # Chance of being in the other regime after dt, back and forth included.
        share = self._stressed_share()
        moved = 1.0 - xp.exp(-(1.0 / self.calm_years + 1.0 / self.stressed_years) * dt)
        switches = noise.uniform < moved * (share + hidden * (1.0 - 2.0 * share))
        return x, xp.where(switches, 1.0 - hidden, hidden)

    def _stressed_share(self):
        return self.stressed_years / (self.calm_years + self.stressed_years)


PROCESSES: dict[str, type[Any]] = {
    "gbm": GeometricBrownianMotion,
    "ou": OrnsteinUhlenbeck,
    "heston": Heston,
    "jumps": Jumps,
    "regimes": Regimes,
    "noise": Noise,
}


@config(traced=False)
class Sample:
    """How much is drawn of a process."""

    bars: int = setting(default=2_520, least=2, most=10_000_000)
    """Daily bars."""
    assets: int = setting(default=1, least=1, most=10_000)
    """Symbols."""
    correlation: float = setting(default=0.0, above=-1, below=1)
    """Of the price moves of every two assets."""
    seed: int = setting(default=0, least=0)
    """Equal seeds give equal bars."""

    def validate(self):
        if self.assets > 1 and self.correlation <= -1.0 / (self.assets - 1):
            raise DataError(
                f"correlation {self.correlation} is not possible between all of {self.assets} "
                f"assets; it must be above {-1.0 / (self.assets - 1):.4g}"
            )


def load(name: str, **parameters: Any) -> Bars:
    """Daily bars of a process.

    Args:
        name: gbm, ou, heston, jumps, regimes or noise.
        parameters: of the process, and bars, assets, correlation and seed.

    Raises:
        DataError: unknown name or parameter; the message lists what is allowed.
        ConfigError: a value outside what is allowed.
    """
    return simulate(*_described(name, parameters)).bars


def from_text(text: str) -> Bars:
    """As `load`, from `synthetic:gbm,drift=0.1,bars=5000`.

    Raises:
        DataError, ConfigError: as `load`, or text of another form.
    """
    name, parameters = _parameters(text)
    return load(name, **parameters)


def process_from_text(text: str) -> Process:
    """A process from `gbm,drift=0.1`, without anything of a sample.

    Raises:
        DataError, ConfigError: as `from_text`.
    """
    name, parameters = _parameters(text)
    for key in parameters.keys() & Sample.__dataclass_fields__.keys():
        raise DataError(f"{text}: {key} describes a sample, not the process; leave it out")
    return _described(name, parameters)[0]


def _parameters(text: str) -> tuple[str, dict[str, Any]]:
    """Name and parameters in `synthetic:gbm,drift=0.1`."""
    name, *settings = text.removeprefix(PREFIX).split(",")
    parameters: dict[str, Any] = {}
    for item in settings:
        key, equals, value = (part.strip() for part in item.partition("="))
        if not (key and equals and value):
            raise DataError(
                f"{text}: {item!r} is no parameter; write it like {PREFIX}gbm,drift=0.1,seed=1"
            )
        if key in parameters:
            raise DataError(f"{text}: {key} is given twice; keep one of them")
        parameters[key] = _number(value)
    return name.strip(), parameters


class Simulated(NamedTuple):
    bars: Bars
    hidden: np.ndarray
    """[S, T]: variance or regime at the end of every bar; zeros where the process has none."""


def simulate(process: Process, sample: Sample, *, periods_per_year: float = 252.0) -> Simulated:
    """Bars of a process, with the hidden state that no agent may see.

    Eight points are drawn a bar. The first is overnight, the second is the open, the last the
    close, so that low <= open, close <= high.
    """
    rng = np.random.default_rng(sample.seed)
    n_assets, n_steps = sample.assets, sample.bars * _POINTS
    normal = rng.standard_normal((n_assets, n_steps))
    volume = np.round(1e6 * np.exp(0.3 * rng.standard_normal((n_assets, sample.bars))))
    if n_assets > 1:
        matrix = np.full((n_assets, n_assets), sample.correlation)
        np.fill_diagonal(matrix, 1.0)
        normal = np.linalg.cholesky(matrix) @ normal
    second = rng.standard_normal((n_assets, n_steps))
    uniform = rng.random((n_assets, n_steps))
    x, hidden = process.start(rng.standard_normal(n_assets), rng.random(n_assets), np)

    dt = 1.0 / periods_per_year / _POINTS
    if process.independent:
        steps, _ = process.step(0.0, 0.0, Noises(normal, second, uniform), dt, np)
        path, state = np.cumsum(steps, axis=1), np.zeros((n_assets, n_steps))
    else:
        path, state = np.empty((n_assets, n_steps)), np.empty((n_assets, n_steps))
        for i in range(n_steps):
            noise = Noises(normal[:, i], second[:, i], uniform[:, i])
            x, hidden = process.step(x, hidden, noise, dt, np)
            path[:, i], state[:, i] = x, hidden
    name = next(name for name, kind in PROCESSES.items() if type(process) is kind)
    symbols = (name.upper(),)
    if n_assets > 1:
        symbols = tuple(f"{name.upper()}{i + 1}" for i in range(n_assets))
    with np.errstate(over="ignore", invalid="ignore"):  # said below, in words
        prices = _FIRST_PRICE * np.exp(path).reshape(n_assets, sample.bars, _POINTS)[:, :, 1:]
    start = np.datetime64("2000-01-03")
    bars = Bars(
        symbols,
        np.busday_offset(start, np.arange(sample.bars)).astype("datetime64[us]"),
        prices[:, :, 0],
        prices.max(axis=2),
        prices.min(axis=2),
        prices[:, :, -1],
        volume,
        signals={},
        has_range=True,
        has_volume=True,
        source=f"{PREFIX}{name}",
    )
    if not all(np.isfinite(p).all() and (p > 0).all() for p in (bars.high, bars.low)):
        raise DataError(
            f"{bars.source}: prices left the range of numbers; take a smaller drift, volatility "
            "or number of bars"
        )
    return Simulated(bars, state[:, _POINTS - 1 :: _POINTS])


def geometric_brownian_motion(
    n_bars: int = 2_520,
    *,
    drift: float = 0.0,
    volatility: float = 0.2,
    periods_per_year: int = 252,
    seed: int = 0,
) -> Bars:
    """Daily bars of dS = drift S dt + volatility S dW, from a price of 100.

    Args:
        drift, volatility: a year.
    """
    process = GeometricBrownianMotion(drift=drift, volatility=volatility)
    sample = Sample(bars=n_bars, seed=seed)
    return simulate(process, sample, periods_per_year=periods_per_year).bars


def _described(name: str, parameters: dict[str, Any]) -> tuple[Process, Sample]:
    if name not in PROCESSES:
        near = difflib.get_close_matches(name, PROCESSES, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        raise DataError(f"no process {name!r}; {hint}there are {', '.join(PROCESSES)}")
    process = PROCESSES[name]
    own = list(process.__dataclass_fields__)
    common = list(Sample.__dataclass_fields__)
    for key in parameters:
        if key not in (*own, *common):
            near = difflib.get_close_matches(key, [*own, *common], n=1)
            hint = f"did you mean {near[0]}? " if near else ""
            raise DataError(
                f"{PREFIX}{name} has no parameter {key}; {hint}allowed: "
                f"{', '.join([*own, *common])}"
            )
    of_process = {key: value for key, value in parameters.items() if key in own}
    of_sample = {key: value for key, value in parameters.items() if key in common}
    return from_dict(process, of_process), from_dict(Sample, of_sample)


def _number(text: str) -> Any:
    """A whole number, else a number, else the text, of which the parameter's check complains."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text
