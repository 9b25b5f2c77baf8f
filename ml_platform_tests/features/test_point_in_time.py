"""The point-in-time join never sees the future."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import FeatureSpec, FeatureViewSpec, ViewInputSpec
from ml_platform.features.engine import Embedded, Engine, read
from ml_platform.features.point_in_time import as_of_column, join_snapshots
from ml_platform_tests.selection import examples

START = datetime(2024, 1, 1, tzinfo=UTC)
VIEW = FeatureViewSpec(
    name="activity",
    entity="user",
    function="some.module.function",
    inputs={"clicks": ViewInputSpec(window_days=1)},
    features={"clicks": FeatureSpec(default=-1.0)},
)
STAMP = pa.timestamp("us", tz="UTC")


def joined(
    events: list[tuple[int, float]], snapshots: list[tuple[int, int, float]], engine: Engine | None = None
) -> list[dict[str, Any]]:
    """Events (user, hours) joined with snapshots (user, day, value), in the order of the events."""
    engine = engine or Embedded()
    left = pa.table(
        {
            "row": pa.array(range(len(events)), pa.int64()),
            "user": pa.array([user for user, _ in events], pa.int64()),
            "at": pa.array([START + timedelta(hours=hours) for _, hours in events], STAMP),
        }
    )
    right = pa.table(
        {
            "user": pa.array([user for user, _, _ in snapshots], pa.int64()),
            "as_of": pa.array([START + timedelta(days=day) for _, day, _ in snapshots], STAMP),
            "clicks": pa.array([value for _, _, value in snapshots], pa.float64()),
        }
    )
    result = join_snapshots(engine.table(left), "at", [VIEW], {"activity": engine.table(right)}, engine)
    return read(engine, result.order_by("row")).to_pylist()


def test_event_gets_the_snapshot_of_its_own_day() -> None:
    rows = joined([(1, 5.0), (1, 29.0)], [(1, 0, 10.0), (1, 1, 20.0)])
    assert [row["clicks"] for row in rows] == [10.0, 20.0]
    assert rows[1][as_of_column("activity")] == START + timedelta(days=1)


def test_event_at_the_very_start_of_a_day_gets_that_days_snapshot() -> None:
    assert joined([(1, 24.0)], [(1, 0, 10.0), (1, 1, 20.0)])[0]["clicks"] == 20.0


def test_snapshot_lives_up_to_the_end_of_its_day_and_not_at_it() -> None:
    last, over = joined([(1, 24.0 - 1e-6), (1, 24.0)], [(1, 0, 10.0)])
    assert (last["clicks"], over["clicks"]) == (10.0, -1.0)


def test_entity_without_snapshot_that_day_gets_the_default_like_online() -> None:
    rows = joined([(2, 5.0), (1, 29.0)], [(1, 0, 10.0)])
    assert [row["clicks"] for row in rows] == [-1.0, -1.0]
    assert rows[1][as_of_column("activity")] is None


@pytest.mark.parametrize("joins_as_of", [True, False])
def test_is_known_is_1_where_a_snapshot_row_is_joined_and_0_where_defaults_stand_in(joins_as_of: bool) -> None:
    view = FeatureViewSpec.model_validate({**VIEW.model_dump(), "is_known": True})
    engine = Embedded() if joins_as_of else WithoutAsOfJoin()
    events = pa.table(
        {
            "row": [0, 1, 2, 3],
            "user": pa.array([1, 1, 2, None], pa.int64()),
            "at": pa.array([START + timedelta(hours=hours) for hours in (5, 29, 5, 5)], STAMP),
        }
    )
    snapshot = pa.table(
        {"user": [1], "as_of": pa.array([START], STAMP), "clicks": [10.0], "activity_is_known": [1.0]},
    )
    result = join_snapshots(engine.table(events), "at", [view], {"activity": engine.table(snapshot)}, engine)
    assert read(engine, result.order_by("row"))["activity_is_known"].to_pylist() == [1.0, 0.0, 0.0, 0.0]


EVENTS = st.lists(st.tuples(st.integers(1, 3), st.floats(0, 96)), min_size=1, max_size=8)
SNAPSHOTS = st.dictionaries(st.tuples(st.integers(1, 3), st.integers(0, 4)), st.floats(0, 100), max_size=12)


@examples(40)
@given(EVENTS, SNAPSHOTS, st.floats(0, 96))
def test_changing_every_snapshot_after_a_moment_changes_no_row_before_it(
    events: list[tuple[int, float]], snapshots: dict[tuple[int, int], float], moment: float
) -> None:
    """The law of the join: what is taken after an event cannot reach it."""
    before = joined(events, [(user, day, value) for (user, day), value in snapshots.items()])
    changed = joined(
        events, [(user, day, value + 1000 * (day * 24 > moment)) for (user, day), value in snapshots.items()]
    )
    for (_, hours), old, new in zip(events, before, changed, strict=True):
        assert hours > moment or old == new


@examples(40)
@given(EVENTS, SNAPSHOTS)
def test_every_event_comes_back_once_with_the_value_of_a_plain_lookup(
    events: list[tuple[int, float]], snapshots: dict[tuple[int, int], float]
) -> None:
    rows = joined(events, [(user, day, value) for (user, day), value in snapshots.items()])
    # Times are stored to the microsecond, so the oracle must round as they are.
    days = [(START + timedelta(hours=hours)).toordinal() - START.toordinal() for _, hours in events]
    assert [row["clicks"] for row in rows] == [
        snapshots.get((user, day), -1.0) for (user, _), day in zip(events, days, strict=True)
    ]


class WithoutAsOfJoin(Embedded):
    """DuckDB as an engine that has none."""

    joins_as_of = False


@examples(40)
@given(EVENTS, SNAPSHOTS)
def test_join_by_window_is_the_as_of_join(
    events: list[tuple[int, float]], snapshots: dict[tuple[int, int], float]
) -> None:
    taken = [(user, day, value) for (user, day), value in snapshots.items()]
    assert joined(events, taken) == joined(events, taken, WithoutAsOfJoin())


def test_snapshot_of_the_very_moment_counts_without_an_as_of_join_as_well() -> None:
    assert joined([(1, 24.0), (1, 24.0)], [(1, 0, 10.0), (1, 1, 20.0)], WithoutAsOfJoin())[0]["clicks"] == 20.0
