"""What retention takes away, and above all what it does not."""

from datetime import date, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core import keys
from ml_platform.core.days import consecutive_ranges, day_range
from ml_platform.registry.retention import Span, Table, Use, doomed, plan_retention

FIRST = date(2018, 4, 1)
LAST = FIRST + timedelta(days=9)
TEN_DAYS = dict.fromkeys(day_range(FIRST, LAST), 100)


def day(number: int) -> date:
    return FIRST + timedelta(days=number)


def use(*numbers: int, reason: str = "version 3 was trained on it") -> Use:
    return Use(reason, frozenset(keys.partition("x/raw", day(number)) for number in numbers))


def test_days_beyond_the_newest_ones_are_removed() -> None:
    assert plan_retention([Table("x/raw", 4, TEN_DAYS)], []) == [
        Span("x/raw", FIRST, day(5), 600, True, "older than keep_days, 4"),
        Span("x/raw", day(6), LAST, 400, False, "within keep_days, 4"),
    ]


def test_table_without_keep_days_is_kept() -> None:
    assert plan_retention([Table("x/raw", None, TEN_DAYS)], []) == [
        Span("x/raw", FIRST, LAST, 1_000, False, "keep_days is not set")
    ]


def test_used_days_are_kept_and_the_first_reason_is_named() -> None:
    spans = plan_retention([Table("x/raw", 4, TEN_DAYS)], [use(1, 2), use(2, 3, reason="the next training needs it")])
    assert [(span.first, span.last, span.remove, span.why) for span in spans[:4]] == [
        (day(0), day(0), True, "older than keep_days, 4"),
        (day(1), day(2), False, "version 3 was trained on it"),
        (day(3), day(3), False, "the next training needs it"),
        (day(4), day(5), True, "older than keep_days, 4"),
    ]


def test_use_of_another_tables_day_keeps_nothing() -> None:
    assert doomed(plan_retention([Table("y/raw", 4, TEN_DAYS)], [use(1)])) >= {("y/raw", day(1))}


def test_newest_days_are_counted_on_the_calendar_and_spans_have_no_gaps() -> None:
    gappy = {day(number): 1 for number in (0, 1, 3, 8, 9)}
    spans = plan_retention([Table("x/raw", 3, gappy)], [])
    assert [(span.first, span.last, span.remove) for span in spans] == [
        (day(0), day(1), True),
        (day(3), day(3), True),
        (day(8), day(9), False),
    ]


@pytest.mark.parametrize("sizes", [{}, {FIRST: 1}])
def test_table_with_at_most_one_day_loses_nothing(sizes: dict[date, int]) -> None:
    assert doomed(plan_retention([Table("x/raw", 1, sizes)], [])) == set()


offsets = st.integers(0, 60)
tables = st.builds(
    lambda key, keep, days: Table(key, keep, {day(number): number + 1 for number in days}),
    st.sampled_from(["x/raw", "y/raw", "features/v", "m/candidate"]),
    st.none() | st.integers(1, 70),
    st.sets(offsets),
)
uses = st.builds(
    lambda reason, key, days: Use(reason, frozenset(keys.partition(key, day(number)) for number in days)),
    st.sampled_from(["version 1", "version 2", "the next training"]),
    st.sampled_from(["x/raw", "y/raw", "features/v", "m/candidate"]),
    st.sets(offsets),
)


@given(st.lists(tables, unique_by=lambda table: table.key), st.lists(uses))
def test_nothing_that_is_needed_is_ever_removed(tables: list[Table], uses: list[Use]) -> None:
    gone = doomed(plan_retention(tables, uses))
    assert not {keys.partition(*one) for one in gone} & {name for one in uses for name in one.partitions}


@given(st.lists(tables, unique_by=lambda table: table.key), st.lists(uses))
def test_every_partition_has_one_fate_and_its_bytes_are_counted_once(tables: list[Table], uses: list[Use]) -> None:
    spans = plan_retention(tables, uses)
    assert sorted((span.key, on) for span in spans for on in span.days) == sorted(
        (table.key, on) for table in tables for on in table.sizes
    )
    assert sum(span.bytes for span in spans) == sum(sum(table.sizes.values()) for table in tables)


@given(tables, st.lists(uses))
def test_only_what_is_old_and_unneeded_is_removed_and_all_of_it(table: Table, uses: list[Use]) -> None:
    needed = {name for one in uses for name in one.partitions}
    newest = max(table.sizes, default=FIRST)
    old = {
        ("x", on)
        for on in table.sizes
        if table.keep_days is not None
        and (newest - on).days >= table.keep_days
        and keys.partition(table.key, on) not in needed
    }
    spans = plan_retention([table], uses)
    assert {("x", on) for _, on in doomed(spans)} == old
    assert len([span for span in spans if span.remove]) == len(consecutive_ranges(on for _, on in old))
