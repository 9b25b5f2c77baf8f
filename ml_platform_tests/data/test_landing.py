from datetime import UTC, date, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.data.landing import LandedObject, find_arrivals, read_table

FIRST, LAST = date(2024, 1, 1), date(2024, 12, 31)


def landed(key: str, etag: str = "a") -> LandedObject:
    return LandedObject(key, etag, 10, datetime(2024, 1, 1, tzinfo=UTC))


def test_new_days_are_found_once() -> None:
    objects = [landed("clicks/2024-01-01/a.parquet"), landed("clicks/2024-01-02/a.parquet")]
    first = find_arrivals("clicks", objects, {}, FIRST, LAST)
    assert [arrival.day for arrival in first.new] == [date(2024, 1, 1), date(2024, 1, 2)]
    assert find_arrivals("clicks", objects, first.seen, FIRST, LAST).new == ()


def test_changed_content_and_a_second_object_make_a_day_new_again() -> None:
    seen = find_arrivals("clicks", [landed("clicks/2024-01-01/a.parquet")], {}, FIRST, LAST).seen
    overwritten = find_arrivals("clicks", [landed("clicks/2024-01-01/a.parquet", "b")], seen, FIRST, LAST)
    added = find_arrivals(
        "clicks", [landed("clicks/2024-01-01/a.parquet"), landed("clicks/2024-01-01/b.parquet")], seen, FIRST, LAST
    )
    assert len(overwritten.new) == len(added.new) == 1


def test_backlog_is_the_fewest_ranges() -> None:
    days = ["2024-01-01", "2024-01-02", "2024-01-03", "2024-01-10"]
    found = find_arrivals("clicks", [landed(f"clicks/{day}/x.parquet") for day in days], {}, FIRST, LAST)
    assert found.ranges == [(date(2024, 1, 1), date(2024, 1, 3)), (date(2024, 1, 10), date(2024, 1, 10))]


def test_run_key_names_content_and_look() -> None:
    one = find_arrivals("clicks", [landed("clicks/2024-01-01/a.parquet", "a")], {}, FIRST, LAST)
    two = find_arrivals("clicks", [landed("clicks/2024-01-01/a.parquet", "b")], {}, FIRST, LAST)
    day = date(2024, 1, 1)
    assert one.run_key(day, day, 1) == one.run_key(day, day, 1)
    assert len({one.run_key(day, day, 1), two.run_key(day, day, 1), one.run_key(day, day, 2)}) == 3


@pytest.mark.parametrize(
    "key",
    [
        "clicks/readme.txt",
        "clicks/2024-13-01/a.parquet",
        "clicks/2024-01-01/deep/a.parquet",
        "clicks/2024-01-01/_SUCCESS",
        "clicks/2024-01-01/.a.parquet",
        "other/2024-01-01/a.parquet",
        "clicks/2023-12-31/a.parquet",
        "clicks/2025-01-01/a",
    ],
)
def test_objects_outside_pattern_or_calendar_are_ignored_with_a_reason(key: str) -> None:
    found = find_arrivals("clicks", [landed(key)], {}, FIRST, LAST)
    assert found.new == ()
    assert found.ignored[0].startswith(key)


@given(st.permutations([landed(f"clicks/2024-01-0{n}/{name}.parquet", name) for n in (1, 2) for name in "abc"]))
def test_order_of_arrival_does_not_matter(objects: list[LandedObject]) -> None:
    found = find_arrivals("clicks", objects, {}, FIRST, LAST)
    assert found == find_arrivals("clicks", sorted(objects, key=lambda o: o.key), {}, FIRST, LAST)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"PAR1" + b"\0" * 50])
def test_unreadable_content_says_what_it_looks_like(content: bytes) -> None:
    with pytest.raises(ValueError, match="not a readable Parquet file"):
        read_table(content)
