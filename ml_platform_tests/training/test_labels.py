"""Which label is that of which row, where keys come again, labels are corrected, or some are missing."""

from collections.abc import Mapping
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import SourceSpec
from ml_platform.features.engine import Embedded
from ml_platform.training.labels import LABEL
from ml_platform.training.training_set import Assembled, assemble
from ml_platform.training.windows import Windows
from ml_platform_tests.selection import examples

FIRST = date(2024, 1, 1)
DAYS = 6
WINDOWS = Windows(
    (FIRST, FIRST + timedelta(days=3)), (FIRST + timedelta(days=5), FIRST + timedelta(days=5))
)  # a day between
STAMP = pa.timestamp("us", tz="UTC")
Row = tuple[int, int]  # day, from 0, and number


def source(name: str, column: str, **more: Any) -> SourceSpec:
    columns = {"number": {"type": "int64"}, "at": {"type": "timestamp"}, column: {"type": "int64", "nullable": True}}
    whole = {"name": name, "start_date": FIRST, "key": ["number"], "event_time": "at", "columns": columns, **more}
    return SourceSpec.model_validate(whole)


def table(rows: Mapping[Row, int | None] | list[tuple[int, int, int | None]], column: str) -> pa.Table:
    listed = rows if isinstance(rows, list) else [(*row, value) for row, value in rows.items()]
    at = [datetime(2024, 1, 1 + day, 12, tzinfo=UTC) + timedelta(seconds=number) for day, number, _ in listed]
    return pa.table(
        {
            "number": pa.array([number for _, number, _ in listed], pa.int64()),
            "at": pa.array(at, STAMP),
            column: pa.array([value for _, _, value in listed], pa.int64()),
        }
    )


def joined(
    events: list[Row], labels: Any, rows_within: int = 1, labels_within: int = 1, corrections: str = "none"
) -> Assembled:
    return assemble(
        table([(*event, 100 * event[0] + event[1]) for event in events], "amount"),
        source("orders", "amount", unique_within_days=rows_within),
        table(labels, "returned"),
        source("returns", "returned", unique_within_days=labels_within, corrections=corrections),
        "returned",
        [],
        {},
        WINDOWS,
        Embedded(),
    )


def found(made: Assembled) -> dict[Row, int]:
    rows = made.table.to_pylist()
    assert made.has_each_row_once
    assert len({(row["at"], row["number"]) for row in rows}) == len(rows)
    return {((row["at"].date() - FIRST).days, row["number"]): row[LABEL] for row in rows}


def test_numbers_that_start_anew_every_day_keep_their_own_labels() -> None:
    events = [(day, number) for day in (0, 1, 2) for number in range(6)]
    labels = {event: sum(event) % 2 for event in events}
    assert found(joined(events, labels)) == labels


def test_row_without_a_label_of_its_day_gets_none_of_another() -> None:
    made = joined([(0, 1), (1, 1), (2, 1)], {(0, 1): 0, (2, 1): 1})
    assert found(made) == {(0, 1): 0, (2, 1): 1}
    assert (made.counted.labelled, made.counted.unlabelled) == (2, 1)


def test_label_that_is_null_is_none() -> None:
    made = joined([(0, 1), (0, 2)], {(0, 1): None, (0, 2): 1})
    assert found(made) == {(0, 2): 1}
    assert made.counted.unlabelled == 1


def test_keys_that_are_unique_over_the_windows_find_a_label_of_another_day() -> None:
    made = joined([(0, 1), (1, 2)], [(2, 1, 1), (3, 2, 0)], DAYS, DAYS)
    assert found(made) == {(0, 1): 1, (1, 2): 0}
    assert made.match.words == "number"
    assert found(joined([(0, 1)], [(2, 1, 1)], DAYS, DAYS - 1)) == {}


def test_later_label_takes_the_place_of_an_earlier_one_where_the_source_says_so() -> None:
    labels = [(0, 1, 0), (1, 1, 1), (4, 1, 0), (0, 2, 1), (2, 2, None), (0, 3, 1)]
    made = joined([(0, 1), (0, 2), (0, 3)], labels, DAYS, 1, "latest")
    assert found(made) == {(0, 1): 0, (0, 3): 1}, "the one of day 4, which is between the parts; and 2 is unknown again"


@examples(60)
@given(st.data())
def test_each_row_with_a_label_is_there_once_with_its_own(data: st.DataObject) -> None:
    number = st.tuples(st.sampled_from([0, 1, 2, 3, 5]), st.integers(0, 4))
    events = data.draw(st.lists(number, unique=True, min_size=1))
    labels = data.draw(st.dictionaries(number, st.sampled_from([0, 1, None])))
    known = {row: value for row, value in labels.items() if value is not None and row in events}
    made = joined(events, labels)
    assert found(made) == known
    assert made.counted.labelled + made.counted.unlabelled == len(events)


def test_labels_that_come_twice_are_found_out_and_not_subtracted() -> None:
    made = joined([(0, 1), (0, 2)], [(0, 1, 1), (0, 1, 0)])
    assert not made.has_each_row_once
    assert (made.counted.labelled, made.counted.unlabelled) == (1, 1)


@pytest.mark.parametrize("within", [(1, 1), (DAYS, 1), (1, DAYS)])
def test_how_labels_are_told_is_said(within: tuple[int, int]) -> None:
    assert (
        joined([(0, 1)], {(0, 1): 1}, *within).match.words == "number and day, since keys are unique within 1 day only"
    )
