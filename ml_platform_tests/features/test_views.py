# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
from datetime import date, timedelta

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest

from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.errors import FeatureError, SpecError
from ml_platform.core.spec import ColumnSpec, FeatureSpec, FeatureViewSpec, SourceSpec, ViewInputSpec
from ml_platform.features.views import ViewInput, definition, input_days
from ml_platform_tests.features.computing import from_tables

SOURCE = SourceSpec(
    name="clicks",
    start_date=date(2024, 1, 1),
    delay_days=2,
    key=("id",),
    event_time="at",
    columns={"id": ColumnSpec(type="int64"), "at": ColumnSpec(type="timestamp"), "user": ColumnSpec(type="int64")},
)
ROWS = pa.table({"id": [1, 2], "user": [7, 7], "at": pa.array([0, 1], pa.timestamp("us", tz="UTC"))})


def per_user(clicks: ViewInput) -> ir.Table:
    return clicks.table.group_by("user").agg(n=ibis._.count())


def per_row(clicks: ViewInput) -> ir.Table:
    return clicks.table.mutate(n=1)


def view(function: str, feature: str = "n") -> FeatureViewSpec:
    return FeatureViewSpec(
        name="activity",
        entity="user",
        function=f"{__name__}.{function}",
        inputs={"clicks": ViewInputSpec(window_days=3)},
        features={feature: FeatureSpec(type="int64")},
    )


def compute(spec: FeatureViewSpec) -> pa.Table:
    return from_tables(spec, date(2024, 1, 10), {"clicks": SOURCE}, {"clicks": ROWS})


def test_input_days_end_where_the_delay_begins_and_start_with_the_source() -> None:
    assert [d.day for d in input_days(view("per_user"), SOURCE, date(2024, 1, 10))] == [5, 6, 7]
    assert [d.day for d in input_days(view("per_user"), SOURCE, date(2024, 1, 4))] == [1]
    assert input_days(view("per_user"), SOURCE, date(2024, 1, 3)) == []


def test_users_own_view_by_import_path() -> None:
    assert compute(view("per_user")).drop_columns(["as_of"]).to_pylist() == [{"user": 7, "n": 2}]


def test_view_that_says_is_known_has_it_for_every_entity_that_it_knows() -> None:
    spec = FeatureViewSpec.model_validate({**view("per_user").model_dump(), "is_known": True})
    assert (spec.features["activity_is_known"].type, spec.features["activity_is_known"].default) == ("float64", 0.0)
    made = compute(spec)
    assert made.schema.field("activity_is_known").type == pa.float64()
    assert made.drop_columns(["as_of"]).to_pylist() == [{"user": 7, "n": 2, "activity_is_known": 1.0}]
    assert definition(spec) != definition(view("per_user"))  # days without it are to be computed again


def test_view_that_does_not_return_what_it_declares_is_refused() -> None:
    with pytest.raises(FeatureError, match=r"features/activity \[2024-01-10\]: .*per_user does not return m"):
        compute(view("per_user", "m"))


def test_view_with_two_rows_for_an_entity_is_refused() -> None:
    with pytest.raises(FeatureError, match=r"per_row returns 2 rows, 1 of them repeated.* return each user once"):
        compute(view("per_row"))


def test_function_that_cannot_be_imported_names_the_field() -> None:
    with pytest.raises(SpecError, match="mend `function`"):
        compute(view("nothing"))


# --- rolling ----------------------------------------------------------------------------------------------------------

ON_TIME = SOURCE.model_copy(update={"delay_days": 0})
DAY = date(2024, 1, 10)
AT = [start_of(day) for day in (DAY - ONE_DAY, DAY, DAY + ONE_DAY)]
LATER = AT[1] + timedelta(hours=1)
EVENTS = pa.table(
    {"id": [1, 2, 5, 3, 4], "user": [7] * 5, "at": pa.array([AT[0], LATER, AT[1], AT[1], AT[2]], ROWS["at"].type)}
)


def per_event(clicks: ViewInput) -> ir.Table:
    rows = clicks.table
    return rows.mutate(n=(rows.id == 3).ifelse(5, None))


def lossy(clicks: ViewInput) -> ir.Table:
    return per_event(clicks).filter(ibis._.id != 3)


def doubling(clicks: ViewInput) -> ir.Table:
    return per_event(clicks).union(per_event(clicks))


def without_key(clicks: ViewInput) -> ir.Table:
    return per_event(clicks).drop("id")


def rolling_view(function: str) -> FeatureViewSpec:
    return FeatureViewSpec.model_validate(
        view(function).model_dump() | {"kind": "rolling", "entity": None, "rows": "clicks"}
    )


def rolling(function: str) -> pa.Table:
    return from_tables(rolling_view(function), DAY, {"clicks": ON_TIME}, {"clicks": EVENTS})


def test_rolling_day_has_its_own_events_sorted_by_time_and_key_with_defaults_for_nulls() -> None:
    expected = [(3, AT[1], 5), (5, AT[1], 0), (2, LATER, 0)]
    assert rolling("per_event").to_pylist() == [{"id": id_, "at": at, "n": n} for id_, at, n in expected]


def test_rolling_view_without_known_rows_is_empty() -> None:
    assert from_tables(rolling_view("per_event"), DAY, {"clicks": ON_TIME}, {}).num_rows == 0


@pytest.mark.parametrize(
    ("function", "problem"),
    [
        ("without_key", "without_key does not return id"),
        ("lossy", "lossy returns 2 rows, for 3 events"),
        ("doubling", "doubling returns 6 rows, 3 of them repeated, for 3 events"),
    ],
)
def test_rolling_view_that_does_not_return_each_event_once_is_refused(function: str, problem: str) -> None:
    with pytest.raises(FeatureError, match=rf"features/activity \[2024-01-10\]: .*{problem}"):
        rolling(function)


def test_rolling_day_reads_up_to_itself_less_the_delay() -> None:
    spec = rolling_view("per_event")
    assert [d.day for d in input_days(spec, ON_TIME, DAY)] == [8, 9, 10]
    assert [d.day for d in input_days(spec, SOURCE, DAY)] == [6, 7, 8]
