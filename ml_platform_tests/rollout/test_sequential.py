"""Tests that are looked at again and again keep their error."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.rollout.sequential import Interval, certainly_differ, difference, proportion

ALPHA = 0.1  # large, so that few histories show a test that does not keep it


@given(st.integers(0, 500), st.integers(0, 500), st.floats(0.001, 0.2))
def test_a_proportion_lies_in_its_interval_which_narrows(count: int, more: int, alpha: float) -> None:
    total = count + more
    if total == 0:
        return
    found = proportion(count, total, alpha)
    assert 0 <= found.lower <= found.value <= found.upper <= 1
    ten_times = proportion(10 * count, 10 * total, alpha)
    assert ten_times.upper - ten_times.lower < found.upper - found.lower


def test_without_trials_anything_is_possible() -> None:
    found = proportion(0, 0, 0.01)
    assert (found.lower, found.upper) == (0.0, 1.0)
    assert np.isnan(found.value)


def test_looking_after_every_request_raises_no_more_false_alarms() -> None:
    """400 canaries that fail exactly as often as they may, each looked at 60 times. A fixed interval would alarm 3 times as often."""
    rng, allowed = np.random.default_rng(1), 0.05
    failures = (rng.random((400, 3_000)) < allowed).cumsum(axis=1)
    looks = range(49, 3_000, 50)
    alarms = sum(any(proportion(int(one[n]), n + 1, ALPHA).lower > allowed for n in looks) for one in failures)
    fixed = sum(any(_naive_lower(one[n], n + 1) > allowed for n in looks) for one in failures)
    assert alarms / 400 <= ALPHA
    assert fixed / 400 > 2 * ALPHA


def _naive_lower(count: int, total: int) -> float:
    share = count / total
    return float(share - 1.2816 * np.sqrt(share * (1 - share) / total))  # one-sided, 10 %


def test_a_canary_that_fails_is_found_soon() -> None:
    assert proportion(8, 20, 0.001).lower > 0.01
    assert proportion(60, 2_000, 0.001).lower > 0.01


def test_looking_at_a_metric_often_raises_no_more_false_alarms() -> None:
    """Brier losses of rare positives: as skewed as they come."""
    rng = np.random.default_rng(2)

    def losses() -> np.ndarray:
        return np.where(rng.random((300, 4_000)) < 0.03, rng.random((300, 4_000)), 0.001)

    alarms = 0
    for one, other in zip(losses(), losses(), strict=True):
        found = [difference(one[:n], other[:n], ALPHA) for n in range(200, 4_001, 100)]
        alarms += any(each.lower > 0 or each.upper < 0 for each in found)
    assert alarms / 300 <= ALPHA


def test_a_worse_metric_is_found() -> None:
    rng = np.random.default_rng(3)
    worse, champion = rng.normal(0.3, 1, 5_000), rng.normal(0.0, 1, 50_000)
    assert difference(worse, champion, 0.001).lower > 0.1


def test_few_values_say_nothing() -> None:
    found = difference(np.ones(99), np.zeros(1_000), 0.05)
    assert (found.lower, found.upper) == (-np.inf, np.inf)
    assert difference(np.ones(100), np.zeros(100), 0.05) == Interval(1.0, 1.0, 1.0)


def test_alike_scores_are_told_apart_no_more_often_than_allowed_and_others_soon() -> None:
    rng = np.random.default_rng(4)
    alarms = 0
    for _ in range(300):
        steps = rng.multinomial(100, [0.1] * 10, size=(2, 20)).cumsum(axis=1)
        alarms += any(certainly_differ(steps[0, n].tolist(), steps[1, n].tolist(), ALPHA) for n in range(20))
    assert alarms / 300 <= ALPHA
    assert certainly_differ([100, 0, 0], [20, 40, 40], 0.001)
    assert not certainly_differ([0, 0], [0, 0], 0.001)
