from datetime import date, timedelta
from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.days import consecutive_ranges, day_range

DAYS = st.sets(st.integers(0, 60).map(lambda n: date(2024, 1, 1) + timedelta(days=n)))


@given(DAYS)
def test_ranges_cover_exactly_the_days_with_gaps_between_them(days: set[date]) -> None:
    """Whatever the days, the ranges hold them all, nothing else, and no two could be one."""
    ranges = consecutive_ranges(days)
    assert [day for first, last in ranges for day in day_range(first, last)] == sorted(days)
    assert all(later[0] - earlier[1] > timedelta(days=1) for earlier, later in pairwise(ranges))


def test_no_days_between_an_end_and_an_earlier_start() -> None:
    assert list(day_range(date(2024, 1, 2), date(2024, 1, 1))) == []
