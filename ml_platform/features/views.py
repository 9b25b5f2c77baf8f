# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Snapshot views: from the raw rows that are known at the start of a day to one row per entity."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core import keys
from ml_platform.core.days import day_range, start_of
from ml_platform.core.errors import FeatureError
from ml_platform.core.imports import load_object
from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.data.contract import arrow_schema

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow.dataset as pads  # it imports pandas

AS_OF = "as_of"


@dataclass(frozen=True)
class ViewInput:
    """One input of a view: the raw rows within its window, and the moment until which they are known."""

    table: "ir.Table"
    event_time: str
    known_until: datetime

    def since(self, days: int, table: "ir.Table | None" = None) -> "ir.BooleanValue":
        """Whether a row lies within the last `days` known days; of `table`, if that was derived from the input."""
        rows = self.table if table is None else table
        return rows[self.event_time] >= self.known_until - timedelta(days=days)


def known_until(source: SourceSpec, day: date) -> datetime:
    """The moment before which the source's rows are known at the start of `day`."""
    return start_of(day - timedelta(days=source.delay_days))


def input_days(view: FeatureViewSpec, source: SourceSpec, day: date) -> list[date]:
    """The raw days that the view reads for its snapshot as of the start of `day`; none before the source's first day."""
    last = day - timedelta(days=source.delay_days + 1)
    first = last - timedelta(days=view.inputs[source.name].window_days - 1)
    return list(day_range(max(first, source.start_date), last))


def connect() -> Any:
    """An embedded engine: DuckDB in memory, in UTC."""
    import ibis

    connection = ibis.duckdb.connect()
    connection.raw_sql("SET TimeZone = 'UTC'")
    # DuckDB cannot estimate the rows of an Arrow dataset, takes it for tiny, and joins as-of by nested loops: 200 s
    # instead of 3 s for a month of real transactions.
    connection.raw_sql("SET asof_loop_join_threshold = 0")
    return connection


def as_table(rows: "pads.Dataset | pa.Table") -> "ir.Table":
    """Arrow rows as an Ibis table; datasets are read with push-down."""
    import ibis

    return ibis.memtable(rows)


def compute_snapshot(
    view: FeatureViewSpec, day: date, sources: Mapping[str, SourceSpec], tables: "Mapping[str, pads.Dataset | pa.Table]"
) -> pa.Table:
    """The view's rows as of the start of `day`.

    Args:
        tables: by source name, the raw rows of exactly `input_days`. A source left out has no known day yet; the view's
            function gets it without rows.

    Returns:
        Columns entity, `as_of` (timestamp[us, UTC]), and the declared features without nulls; sorted by entity.

    Raises:
        FeatureError: if the view's function does not return what the view declares.
    """
    function: Callable[..., ir.Table] = load_object(view.function or "", "function")
    inputs = {
        name: ViewInput(
            as_table(tables[name] if name in tables else arrow_schema(sources[name]).empty_table()),
            sources[name].event_time,
            known_until(sources[name], day),
        )
        for name in view.inputs
    }
    expression = function(**inputs)
    subject = keys.partition(keys.feature_view(view.name), day)
    assert view.entity is not None, "the spec guarantees it"
    if missing := [name for name in (view.entity, *view.features) if name not in expression.columns]:
        raise FeatureError(
            subject, f"{view.function} does not return {', '.join(missing)}", "mend the function or `features:`"
        )
    columns = {
        name: expression[name].fill_null(feature.default).cast(feature.type) for name, feature in view.features.items()
    }
    rows: pa.Table = connect().to_pyarrow(expression.select(expression[view.entity], **columns).order_by(view.entity))
    if pc.count_distinct(rows[view.entity]).as_py() != rows.num_rows:
        raise FeatureError(
            subject, f"{view.function} returns more than one row for a {view.entity}", "group by the entity"
        )
    stamp = pa.array([start_of(day)] * rows.num_rows, pa.timestamp("us", tz="UTC"))
    return rows.add_column(1, AS_OF, stamp)
