"""The bootstrap: how a figure varies if the rows had been drawn again from the same world.

Rows are drawn with replacement, as often as there are rows; a draw is the multinomial count of each row, and the figure of the
draw is the figure of the weighted rows. Figures of two models on the same draws are paired, so that their difference has an
interval of its own. Intervals are percentile intervals.

B. Efron and R. J. Tibshirani, An Introduction to the Bootstrap (1993), chapters 6, 8 and 13.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

RESAMPLES, FEW_RESAMPLES = 1_000, 200
MOST_DRAWS = 200_000_000  # of rows; more rows are drawn fewer times, and vary less
SURE = 0.95  # either end of an interval, where no confidence is asked for


@dataclass(frozen=True)
class Measure:
    """A figure as a function of how often each unit was drawn (int [units]); units are rows, or cards with all their rows.

    `resamples`: how often it is worth to draw.
    """

    value: Callable[[np.ndarray], float]
    units: int
    resamples: int = RESAMPLES

    @property
    def whole(self) -> float:
        """The figure of what there is."""
        return self.value(np.ones(self.units, dtype=np.int64))


def draws(units: int, resamples: int, seed: int) -> Iterator[np.ndarray]:
    """How often each unit was drawn, draw by draw."""
    random = np.random.default_rng(seed)
    for _ in range(max(min(resamples, MOST_DRAWS // max(units, 1)), min(resamples, FEW_RESAMPLES))):
        yield np.bincount(random.integers(0, units, units, dtype=np.int32), minlength=units)


def resampled(measures: Sequence[Measure], seed: int) -> np.ndarray:
    """The figures on the same draws: [resamples, measures]. The measures have the same units. No value is NaN."""
    units, resamples = measures[0].units, min(measure.resamples for measure in measures)
    return np.array([[measure.value(drawn) for measure in measures] for drawn in draws(units, resamples, seed)])


def interval(values: Sequence[float], confidence: float = SURE) -> tuple[float, float] | None:
    """Within these the figure lies at 2 `confidence` - 1; either end alone holds at `confidence`. None without values."""
    found = np.array([value for value in values if math.isfinite(value)])
    if not len(found):
        return None
    low, high = np.quantile(found, [1 - confidence, confidence])
    return float(low), float(high)
