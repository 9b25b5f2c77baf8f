"""Tests that may be looked at after every request: their error holds over all looks together, not for one of them.

A confidence sequence is an interval for every moment; with probability 1 - alpha all of them at once contain the truth. So a
rollout that looks every few seconds raises a false alarm no more often than one that looks once at the end.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

BISECTIONS = 60


@dataclass(frozen=True)
class Interval:
    """A value and where it lies for certain, as far as is known now."""

    value: float
    lower: float
    upper: float


def proportion(count: int, total: int, alpha: float) -> Interval:
    """The probability of an event that occurred `count` times in `total` independent trials.

    The mixture sequential probability ratio test with a Jeffreys prior, inverted: Johari, Pekelis, Walsh, "Always valid
    inference" (2017); Howard, Ramdas, McAuliffe, Sekhon, "Time-uniform, nonparametric, nonasymptotic confidence sequences"
    (2021), section 3. Exact at any number of trials.
    """
    if total == 0:
        return Interval(float("nan"), 0.0, 1.0)
    mixture = _log_beta(count + 0.5, total - count + 0.5) - _log_beta(0.5, 0.5)

    def refuted(p: float) -> bool:
        likelihood = _xlogy(count, p) + _xlogy(total - count, 1 - p)
        return mixture - likelihood >= -math.log(alpha)

    value = count / total
    return Interval(value, _edge(refuted, 0.0, value), _edge(refuted, 1.0, value))


def difference(one: np.ndarray, other: np.ndarray, alpha: float, least: int = 100) -> Interval:
    """The difference of two means, `one` minus `other`, from independent samples.

    The mixture test for two streams of Johari et al. (2017), equation 11, with estimated variances: it holds for large
    samples, and says nothing before both have `least` values. The mixture is over differences of about a tenth of the
    standard deviation.
    """
    n, m = len(one), len(other)
    if min(n, m) < max(2, least):
        return Interval(float("nan"), -math.inf, math.inf)
    (mean, variance), (other_mean, other_variance) = _moments(one), _moments(other)
    v = variance / n + other_variance / m
    tau2 = 0.01 * (variance + other_variance) / 2
    value = mean - other_mean
    radius = math.sqrt(v * (v + tau2) / tau2 * (math.log((v + tau2) / v) - 2 * math.log(alpha))) if v > 0 else 0.0
    return Interval(value, value - radius, value + radius)


def certainly_differ(one: Sequence[int], other: Sequence[int], alpha: float) -> bool:
    """Whether two samples, as counts in the same bins, are of different distributions.

    If they are not, a value's sample does not depend on its bin. A mixture over a share of the first sample for each bin
    is held against the best one share for all: universal inference, Wasserman, Ramdas, Balakrishnan (2020), section 7, on the
    two-by-k table of Turner, Ly, Grünwald, "Generic e-variables and safe tests for contingency tables" (2024). Exact for bins
    that were fixed before; conservative.
    """
    n, m = sum(one), sum(other)
    each_bin = sum(_log_beta(a + 0.5, b + 0.5) - _log_beta(0.5, 0.5) for a, b in zip(one, other, strict=True))
    same = _xlogy(n, n / (n + m)) + _xlogy(m, m / (n + m)) if n + m else 0.0
    return each_bin - same >= -math.log(alpha)


def _edge(refuted: Callable[[float], bool], beyond: float, within: float) -> float:
    """Where `refuted` begins between a value that it holds for, or the end of the range, and one that it does not."""
    if not refuted(beyond):
        return beyond
    for _ in range(BISECTIONS):
        middle = (beyond + within) / 2
        beyond, within = (middle, within) if refuted(middle) else (beyond, middle)
    return within


def _log_beta(a: float, b: float) -> float:
    return math.lgamma(a) + math.lgamma(b) - math.lgamma(a + b)


def _xlogy(x: float, y: float) -> float:
    if x == 0:
        return 0.0
    return x * math.log(y) if y > 0 else -math.inf


def _moments(values: np.ndarray) -> tuple[float, float]:
    """Mean and variance."""
    return float(values.mean()), float(values.var(ddof=1))
