# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""From raw rows to features: one row per entity as of the start of a day, or one per event of a day."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core import keys
from ml_platform.core.days import ONE_DAY, day_range, start_of
from ml_platform.core.errors import FeatureError
from ml_platform.core.imports import load_object
from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.data.contract import arrow_schema

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow.dataset as pads  # it imports pandas
    from ibis.expr.builders import LegacyWindowBuilder

AS_OF = "as_of"
MOMENT = "event_time_us"
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True)
class ViewInput:
    """One input of a view: the raw rows of its days, and the moment until which they are known.

    That moment is as of the start of a snapshot's day, or of the end of a rolling view's. Within the day a row is known
    `delay` after its event, which is for a rolling view's function to heed; `window` does.
    """

    table: "ir.Table"
    event_time: str
    known_until: datetime
    delay: timedelta = timedelta()

    def since(self, days: int, table: "ir.Table | None" = None) -> "ir.BooleanValue":
        """Whether a row lies within the last `days` known days; of `table`, if that was derived from the input."""
        rows = self.table if table is None else table
        return rows[self.event_time] >= self.known_until - timedelta(days=days)

    def window(self, days: int, by: str) -> "LegacyWindowBuilder":
        """What of the same `by` was in the last `days` that were known at a row's event time t: (t - delay - days, t - delay].

        It goes by time alone: without a delay, a row sees itself and all others of the same microsecond. Use it with
        `over` on the input's table, or on one that was derived from it and has its column `event_time_us`.
        """
        import ibis

        newest = self.delay // _MICROSECOND
        oldest = (self.delay + timedelta(days=days)) // _MICROSECOND - 1
        return ibis.range_window(group_by=by, order_by=MOMENT, preceding=(oldest, newest))


def known_until(source: SourceSpec, day: date) -> datetime:
    """The moment before which the source's rows are known at the start of `day`."""
    return start_of(day - timedelta(days=source.delay_days))


def days_behind(view: FeatureViewSpec, source: SourceSpec) -> int:
    """How many days the newest raw day that a view reads lies before the view's own day."""
    return source.delay_days + (0 if view.kind == "rolling" else 1)


def input_days(view: FeatureViewSpec, source: SourceSpec, day: date) -> list[date]:
    """The raw days that the view reads for its day `day`; none before the source's first day."""
    last = day - timedelta(days=days_behind(view, source))
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
    assert view.entity is not None, "the spec guarantees it"
    inputs = _inputs(view, day, sources, tables)
    expression = _computed(view, day, inputs, [view.entity])
    features = _declared(view, expression)
    rows: pa.Table = connect().to_pyarrow(expression.select(expression[view.entity], **features).order_by(view.entity))
    if pc.count_distinct(rows[view.entity]).as_py() != rows.num_rows:
        raise FeatureError(
            keys.partition(keys.feature_view(view.name), day),
            f"{view.function} returns more than one row for a {view.entity}",
            "group by the entity",
        )
    stamp = pa.array([start_of(day)] * rows.num_rows, pa.timestamp("us", tz="UTC"))
    return rows.add_column(1, AS_OF, stamp)


def compute_rolling(
    view: FeatureViewSpec, day: date, sources: Mapping[str, SourceSpec], tables: "Mapping[str, pads.Dataset | pa.Table]"
) -> pa.Table:
    """The view's rows for the events of `day`.

    Args:
        tables: by source name, the raw rows of exactly `input_days`; like those of `compute_snapshot`.

    Returns:
        Key and event time of the source `rows`, and the declared features without nulls; sorted by event time and key.

    Raises:
        FeatureError: if the view's function does not return what the view declares, or not each event once.
    """
    assert view.rows is not None, "the spec guarantees it"
    source = sources[view.rows]
    key, time = list(source.key), source.event_time
    inputs = _inputs(view, day + ONE_DAY, sources, tables)
    events = _of_day(inputs[view.rows].table, time, day)
    if view.entity:
        inputs = {name: _past_of(events, view.entity, one) for name, one in inputs.items()}
    expression = _of_day(_computed(view, day, inputs, [*key, time]), time, day)
    connection = connect()
    rows: pa.Table = connection.to_pyarrow(
        expression.select(*key, time, **_declared(view, expression)).order_by([time, *key])
    )
    wanted, different = connection.execute(events.count()), rows.select(key).group_by(key).aggregate([]).num_rows
    if not wanted == different == rows.num_rows:
        raise FeatureError(
            keys.partition(keys.feature_view(view.name), day),
            f"{view.function} returns {rows.num_rows:,} rows, {different:,} by {', '.join(key)}, for {wanted:,} events",
            "return each event once",
        )
    return rows


def _inputs(
    view: FeatureViewSpec,
    known: date,
    sources: Mapping[str, SourceSpec],
    tables: "Mapping[str, pads.Dataset | pa.Table]",
) -> dict[str, ViewInput]:
    """What the view's function gets, as it is known at the start of the day `known`."""
    return {
        name: view_input(
            sources[name], tables[name] if name in tables else arrow_schema(sources[name]).empty_table(), known
        )
        for name in view.inputs
    }


def view_input(source: SourceSpec, rows: "pads.Dataset | pa.Table", known: date) -> ViewInput:
    """Raw rows of a source as a view's function gets them, as they are known at the start of the day `known`."""
    import ibis

    # Windows go by RANGE over whole numbers: not every engine takes intervals there, and no expression of Ibis for the
    # microseconds of a time runs on all of them.
    epoch_us = ibis.udf.scalar.builtin(_epoch_us, name="epoch_us", signature=(("timestamp('UTC')",), "int64"))
    table = as_table(rows)
    table = table.mutate(**{MOMENT: epoch_us(table[source.event_time])})
    return ViewInput(table, source.event_time, known_until(source, known), timedelta(days=source.delay_days))


def _epoch_us(time: datetime) -> int: ...  # type: ignore[empty-body]  # DuckDB's own


def _computed(view: FeatureViewSpec, day: date, inputs: Mapping[str, ViewInput], identity: list[str]) -> "ir.Table":
    """What the view's function returns, with at least these columns and the declared features."""
    function: Callable[..., ir.Table] = load_object(view.function or "", "function")
    expression = function(**inputs)
    if missing := [name for name in (*identity, *view.features) if name not in expression.columns]:
        raise FeatureError(
            keys.partition(keys.feature_view(view.name), day),
            f"{view.function} does not return {', '.join(missing)}",
            "mend the function or `features:`",
        )
    return expression


def _declared(view: FeatureViewSpec, expression: "ir.Table") -> dict[str, "ir.Value"]:
    return {
        name: expression[name].fill_null(feature.default).cast(feature.type) for name, feature in view.features.items()
    }


def _past_of(events: "ir.Table", entity: str, rows: ViewInput) -> ViewInput:
    """The input without entities that have no event; as it is, if it does not know the entity."""
    if entity not in rows.table.columns:
        return rows
    return replace(rows, table=rows.table.semi_join(events.select(entity).distinct(), entity))


def _of_day(table: "ir.Table", time: str, day: date) -> "ir.Table":
    return table.filter(table[time] >= start_of(day), table[time] < start_of(day + ONE_DAY))
