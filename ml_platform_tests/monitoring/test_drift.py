"""Drift against a reference: laws, known answers, and how often there is an alarm where there is nothing."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import false_discovery_control

from ml_platform.monitoring.drift import (
    Profile,
    discoveries,
    drifts,
    overdispersion,
    psi,
    share_changes,
    traffic,
    worst,
)

RATE, LIMIT, MIN_ROWS = 0.05, 0.1, 50
COLUMNS = 8


def world(random: np.random.Generator, rows: int, shift: float = 0.0) -> dict[str, np.ndarray]:
    """Columns of which the first is shifted by so many standard deviations."""
    return {f"f{n}": random.normal(size=rows) + (shift if n == 0 else 0.0) for n in range(COLUMNS)}


def reference(random: np.random.Generator, days: int = 7, rows: int = 400) -> list[Profile]:
    day = np.repeat(np.arange(days), rows)
    return [Profile.of(name, values, day) for name, values in world(random, days * rows).items()]


def alarms(found: list) -> list[str]:
    return [one.column for one in found if one.outcome == "alarm"]


@given(st.lists(st.integers(0, 500), min_size=3, max_size=3), st.integers(1, 20))
def test_index_is_zero_between_the_same_shares_and_never_negative(counts: list[int], times: int) -> None:
    cells = np.array(counts)
    assert psi(cells, np.zeros(3, dtype=int)) == pytest.approx(0), "no rows say nothing"
    assert psi(cells, cells * times) >= 0
    assert psi(cells + 1_000, (cells + 1_000) * times) == pytest.approx(0, abs=1e-3)


def test_index_has_the_value_of_the_text_books() -> None:
    p, q = np.array([0.5, 0.3, 0.2]), np.array([0.2, 0.3, 0.5])
    expected = 0.3 * np.log(2.5) * 2
    assert psi((p * 1e6).astype(int), (q * 1e6).astype(int)) == pytest.approx(expected, abs=1e-4)


@given(st.lists(st.floats(1e-6, 1), min_size=1, max_size=30), st.floats(0.01, 0.3))
def test_discoveries_are_those_of_benjamini_and_hochberg(p_values: list[float], rate: float) -> None:
    adjusted = false_discovery_control(p_values)
    clear = np.abs(adjusted - rate) > 1e-9
    np.testing.assert_array_equal(discoveries(p_values, rate)[clear], (adjusted <= rate)[clear])


def test_nothing_to_test_discovers_nothing() -> None:
    assert not discoveries([], RATE).any()
    assert drifts([], {}, RATE, LIMIT, MIN_ROWS, seed=1) == []


@settings(max_examples=8, deadline=None)
@given(st.integers(0, 2**31), st.permutations(range(400)))
def test_order_of_rows_does_not_matter(seed: int, order: list[int]) -> None:
    random = np.random.default_rng(seed)
    known, day = reference(random, days=3), world(random, 400, shift=0.2)
    shuffled = {name: values[order] for name, values in day.items()}
    assert drifts(known, day, RATE, LIMIT, MIN_ROWS, 1) == drifts(known, shuffled, RATE, LIMIT, MIN_ROWS, 1)


def test_days_like_the_reference_alarm_as_seldom_as_promised() -> None:
    random = np.random.default_rng(3)
    days = 100
    false = sum(
        bool(alarms(drifts(reference(random), world(random, 100), RATE, 0.0, MIN_ROWS, seed=day)))
        for day in range(days)
    )
    # At 5 % there are 5 of 100 to expect; 14 or more would come once in two thousand times.
    assert false < 14


def test_limit_of_the_index_alone_would_alarm_on_small_days_all_the_time() -> None:
    random = np.random.default_rng(4)
    same = random.multinomial(100, np.full(10, 0.1), size=(2, 1_000))
    assert (psi(same[0], same[1]) > 0.2).mean() > 0.2, "the folklore"
    found = [drifts(reference(random), world(random, 100), 0.01, 0.2, MIN_ROWS, seed=day) for day in range(30)]
    assert not [one for one in found if alarms(one)]


def test_shift_is_found_and_named() -> None:
    random = np.random.default_rng(5)
    found = drifts(reference(random), world(random, 400, shift=0.8), RATE, LIMIT, MIN_ROWS, seed=1)
    assert alarms(found) == ["f0"]
    assert found[0].column == "f0", "the largest first"


def test_difference_that_is_certain_but_small_is_no_alarm() -> None:
    random = np.random.default_rng(6)
    found = drifts(reference(random, rows=50_000), world(random, 50_000, shift=0.1), RATE, LIMIT, MIN_ROWS, seed=1)
    first = next(one for one in found if one.column == "f0")
    assert first.p_value is not None
    assert first.p_value < 0.001
    assert first.outcome == "ok"


def test_rows_that_come_in_groups_count_as_fewer() -> None:
    """Each card's rows have one value: 20 cards with 20 rows are worth 20 rows, not 400."""
    random = np.random.default_rng(7)

    def grouped(days: int) -> np.ndarray:
        return np.repeat(random.normal(size=20 * days), 20)

    counts = Profile.of("f", grouped(30), np.repeat(np.arange(30), 400)).counts
    assert 14 < overdispersion(counts) < 27
    false = 0
    for day in range(60):
        known = Profile.of("f", grouped(14), np.repeat(np.arange(14), 400))
        false += bool(alarms(drifts([known], {"f": grouped(1)}, RATE, 0.0, MIN_ROWS, seed=day)))
    assert false < 11


def test_values_that_all_rows_had_are_told_from_those_just_beside_them() -> None:
    constant = Profile.of("f", np.zeros(1_000), np.repeat(np.arange(5), 200))
    for value in (-1.0, 1.0, np.nan):
        found = drifts([constant], {"f": np.full(200, value)}, RATE, LIMIT, MIN_ROWS, seed=1)
        assert alarms(found) == ["f"], value
    assert not alarms(drifts([constant], {"f": np.zeros(200)}, RATE, LIMIT, MIN_ROWS, seed=1))


def test_text_drifts_by_its_values_new_ones_and_nulls() -> None:
    random = np.random.default_rng(8)
    values = random.choice(np.array(["card", "cash"], dtype=object), 1_000)
    known = Profile.of("f", values, np.repeat(np.arange(5), 200))
    assert not alarms(drifts([known], {"f": random.choice(values, 200)}, RATE, LIMIT, MIN_ROWS, seed=1))
    for value in ("cheque", None):
        day = random.choice(values, 200)
        day[:100] = value
        assert alarms(drifts([known], {"f": day}, RATE, LIMIT, MIN_ROWS, seed=1)) == ["f"]


def test_too_few_rows_are_neither_good_nor_bad() -> None:
    random = np.random.default_rng(9)
    found = drifts(reference(random), world(random, MIN_ROWS - 1, shift=9), RATE, LIMIT, MIN_ROWS, seed=1)
    assert {one.outcome for one in found} == {"not_enough_data"}
    assert "monitoring.min_rows" in found[0].words
    empty = drifts(reference(random), world(random, 0), RATE, LIMIT, MIN_ROWS, seed=1)
    assert {one.outcome for one in empty} == {"not_enough_data"}


def test_share_of_rows_is_judged_by_chance_and_by_its_size() -> None:
    days = np.column_stack([np.array([198, 196, 197, 199, 198]), np.full(5, 200)])
    found = share_changes({"known": days}, {"known": (150, 200)}, RATE, 0.05, MIN_ROWS)
    assert found[0].outcome == "alarm"
    assert share_changes({"known": days}, {"known": (194, 200)}, RATE, 0.05, MIN_ROWS)[0].outcome == "ok"
    assert share_changes({"known": days}, {"known": (0, 10)}, RATE, 0.05, MIN_ROWS)[0].outcome == "not_enough_data"


def test_traffic_is_judged_against_the_usual_day() -> None:
    assert traffic([90, 100, 110], 120, 2.0)[0] == "ok"
    assert traffic([90, 100, 110], 49, 2.0)[0] == "alarm"
    assert traffic([90, 100, 110], 0, 2.0)[0] == "alarm"
    assert traffic([90, 100, 110], 201, 2.0)[0] == "alarm"
    assert traffic([100, 100], 100, 2.0)[0] == "not_enough_data"


def test_worst_outcome_is_never_better_than_what_is_known() -> None:
    assert worst(["ok", "alarm", "not_enough_data"]) == "alarm"
    assert worst(["ok", "not_enough_data"]) == "not_enough_data"
    assert worst([]) == "not_enough_data"
    assert worst(["ok", "ok"]) == "ok"
