# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
from datetime import date

import ibis
import ibis.expr.types as ir
import pyarrow as pa
import pytest

from ml_platform.core.errors import FeatureError, SpecError
from ml_platform.core.spec import ColumnSpec, FeatureSpec, FeatureViewSpec, SourceSpec, ViewInputSpec
from ml_platform.features.views import ViewInput, compute_snapshot, input_days

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
    return compute_snapshot(spec, date(2024, 1, 10), {"clicks": SOURCE}, {"clicks": ROWS})


def test_input_days_end_where_the_delay_begins_and_start_with_the_source() -> None:
    assert [d.day for d in input_days(view("per_user"), SOURCE, date(2024, 1, 10))] == [5, 6, 7]
    assert [d.day for d in input_days(view("per_user"), SOURCE, date(2024, 1, 4))] == [1]
    assert input_days(view("per_user"), SOURCE, date(2024, 1, 3)) == []


def test_users_own_view_by_import_path() -> None:
    assert compute(view("per_user")).drop_columns(["as_of"]).to_pylist() == [{"user": 7, "n": 2}]


def test_view_that_does_not_return_what_it_declares_is_refused() -> None:
    with pytest.raises(FeatureError, match=r"features/activity \[2024-01-10\]: .*per_user does not return m"):
        compute(view("per_user", "m"))


def test_view_with_two_rows_for_an_entity_is_refused() -> None:
    with pytest.raises(FeatureError, match="more than one row for a user"):
        compute(view("per_row"))


def test_function_that_cannot_be_imported_names_the_field() -> None:
    with pytest.raises(SpecError, match="mend `function`"):
        compute(view("nothing"))
