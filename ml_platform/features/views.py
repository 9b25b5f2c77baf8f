# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""From raw rows to features: one row per entity as of the start of a day, or one per event of a day."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date, datetime, timedelta
from functools import reduce
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core import digest, keys
from ml_platform.core.days import ONE_DAY, day_range, start_of
from ml_platform.core.errors import FeatureError
from ml_platform.core.imports import load_object
from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Engine, read

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow.dataset as pads  # it imports pandas
    from ibis.expr.builders import LegacyWindowBuilder

Raw = Mapping[str, "pads.Dataset | pa.Table"]  # by source: the rows of exactly `input_days`; none known, left out
AS_OF = "as_of"
_STAMP = pa.timestamp("us", tz="UTC")
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

    def days_since(self, times: "ir.Value") -> "ir.Value":
        """Days from these times to the end of what a view of this input may read."""
        import ibis

        return (ibis.literal(self.known_until).epoch_seconds() - times.epoch_seconds()) / 86_400

    def window(self, days: int, by: str, strictly_before: bool = False) -> "LegacyWindowBuilder":
        """What of the same `by` was in the last `days` that were known at a row's event time t: (t - delay - days, t - delay].

        It goes by time alone: without a delay, a row sees itself and all others of the same microsecond, or
        `strictly_before` none of them. Use it with `over` on the input's table, or on one that was derived from it and has
        its column `event_time_us`.
        """
        import ibis

        newest = self.delay // _MICROSECOND
        oldest = (self.delay + timedelta(days=days)) // _MICROSECOND - 1
        return ibis.range_window(
            group_by=by, order_by=MOMENT, preceding=(oldest, newest + 1 if strictly_before else newest)
        )


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


class FeatureRows:
    """A view's rows of one day while they come from the engine: features completed by their defaults, identity checked.

    Iterate once; after that, `rows` says how many there were, and `nulls` where defaults stand in, by feature.

    Raises:
        FeatureError: on iteration, if two rows are about the same, if a value does not fit its declared type, or if there
            are not as many rows as `expected`.
    """

    def __init__(
        self,
        view: FeatureViewSpec,
        day: date,
        identity: Mapping[str, pa.DataType],
        batches: Iterator[pa.RecordBatch],
        expected: int | None = None,
    ) -> None:
        features = {name: feature.type for name, feature in view.features.items()}
        self.schema = pa.schema(
            {**identity, **{name: pa.type_for_alias(of_type) for name, of_type in features.items()}}
        )
        self.rows = 0
        self.nulls = dict.fromkeys(features, 0)
        self._view, self._day = view, day
        self._identity = [name for name in identity if name != AS_OF]
        self._batches, self._expected = batches, expected

    def __iter__(self) -> Iterator[pa.Table]:
        last: pa.Table | None = None
        twice = 0
        for batch in self._batches:
            table = pa.table([self._column(batch, name) for name in self.schema.names], schema=self.schema)
            ordered = pa.concat_tables([*([last] if last else []), table.select(self._identity)])
            twice += _repeats(ordered)
            last = ordered.slice(ordered.num_rows - 1)
            self.rows += table.num_rows
            yield table
        if twice or self._expected not in (None, self.rows):
            repeated = f", {twice:,} of them repeated" if twice else ""
            events = "" if self._expected is None else f", for {self._expected:,} events"
            problem = f"{self._view.function} returns {self.rows:,} rows{repeated}{events}"
            raise self._error(problem, f"return each {' and '.join(self._identity)} once")

    def read_all(self) -> pa.Table:
        return pa.concat_tables([self.schema.empty_table(), *self])

    def _column(self, batch: pa.RecordBatch, name: str) -> pa.Array:
        if name == AS_OF:
            return pa.repeat(pa.scalar(start_of(self._day), _STAMP), batch.num_rows)
        wanted = self.schema.field(name).type
        try:
            column = batch.column(name).cast(wanted)
        except pa.ArrowInvalid as error:
            raise self._error(f"{name} is not {wanted}: {error}", f"declare another type in features.{name}") from error
        if (feature := self._view.features.get(name)) is None:
            return column
        if pa.types.is_floating(
            wanted
        ):  # what no number came of: to Arrow and to DuckDB that is another thing than a null
            column = pc.if_else(pc.is_nan(column), pa.scalar(None, wanted), column)
        self.nulls[name] += column.null_count
        return pc.fill_null(column, pa.scalar(feature.default).cast(wanted))

    def _error(self, problem: str, next_step: str) -> FeatureError:
        return FeatureError(keys.partition(keys.feature_view(self._view.name), self._day), problem, next_step)


def compute(
    view: FeatureViewSpec,
    day: date,
    sources: Mapping[str, SourceSpec],
    inputs: Mapping[str, ViewInput],
    engine: Engine,
) -> FeatureRows:
    """The view's rows of a day, from its `view_inputs`.

    Returns:
        Of a snapshot view entity, `as_of` (timestamp[us, UTC]: the start of `day`) and features, sorted by entity; of a
        rolling view key and event time of the source `rows`, and features, sorted by event time and key. No nulls.

    Raises:
        FeatureError: if the view's function does not return what the view declares.
    """
    return (_rolling if view.kind == "rolling" else _snapshot)(view, day, sources, inputs, engine)


def _snapshot(
    view: FeatureViewSpec, day: date, sources: Mapping[str, SourceSpec], inputs: Mapping[str, ViewInput], engine: Engine
) -> FeatureRows:
    assert view.entity is not None, "the spec guarantees it"
    expression = _computed(view, day, inputs, [view.entity])
    entity = next(
        arrow_schema(sources[s]).field(view.entity).type for s in view.inputs if view.entity in sources[s].columns
    )
    known = expression.filter(expression[view.entity].notnull())  # null is nobody, and has no past
    rows = known.select(view.entity, *view.features).order_by(view.entity)
    return FeatureRows(view, day, {view.entity: entity, AS_OF: _STAMP}, engine.batches(rows))


def _rolling(
    view: FeatureViewSpec, day: date, sources: Mapping[str, SourceSpec], inputs: Mapping[str, ViewInput], engine: Engine
) -> FeatureRows:
    assert view.rows is not None, "the spec guarantees it"
    events = of_day(inputs[view.rows].table, sources[view.rows].event_time, day)
    (count,) = read(engine, events.aggregate(n=events.count()))["n"].to_pylist()
    return compute_events(view, day, sources, inputs, events, engine, count)


def compute_events(
    view: FeatureViewSpec,
    day: date,
    sources: Mapping[str, SourceSpec],
    inputs: Mapping[str, ViewInput],
    events: "ir.Table",
    engine: Engine,
    expected: int | None = None,
) -> FeatureRows:
    """A rolling view's rows of the day; where it has an entity, of the entities that `events` have."""
    source = sources[view.rows or ""]
    identity, schema = [source.event_time, *source.key], arrow_schema(source)
    if view.entity:
        inputs = {name: _past_of(events, view.entity, one) for name, one in inputs.items()}
    expression = of_day(_computed(view, day, inputs, identity), source.event_time, day)
    rows = expression.select(*identity, *view.features).order_by(identity)
    columns = {name: schema.field(name).type for name in (*source.key, source.event_time)}
    return FeatureRows(view, day, columns, engine.batches(rows), expected)


def definition(view: FeatureViewSpec) -> str:
    """Digest of what decides the values of a view with a partition a day, as far as its file says it."""
    features = {name: [feature.type, feature.default] for name, feature in view.features.items()}
    windows = {name: given.window_days for name, given in view.inputs.items()}
    return digest.of_json([view.kind, view.entity, view.rows, view.function, windows, features])[:16]


def view_inputs(
    view: FeatureViewSpec, day: date, sources: Mapping[str, SourceSpec], raw: Raw, engine: Engine
) -> dict[str, ViewInput]:
    """What the view's function gets for its day: rows as they are known at its start, or at its end if it is rolling."""
    known = day + ONE_DAY if view.kind == "rolling" else day
    return {
        name: view_input(sources[name], raw.get(name, arrow_schema(sources[name]).empty_table()), known, engine)
        for name in view.inputs
    }


def view_input(source: SourceSpec, rows: "pads.Dataset | pa.Table", known: date, engine: Engine) -> ViewInput:
    """Raw rows of a source as a view's function gets them, as they are known at the start of the day `known`."""
    table = engine.table(rows)
    # Windows go by RANGE over whole numbers: not every engine takes intervals there.
    table = table.mutate(**{MOMENT: engine.microseconds(table[source.event_time])})
    return ViewInput(table, source.event_time, known_until(source, known), timedelta(days=source.delay_days))


def _past_of(events: "ir.Table", entity: str, rows: ViewInput) -> ViewInput:
    """The input without entities that have no event; as it is, if it does not know the entity."""
    if entity not in rows.table.columns:
        return rows
    return replace(rows, table=rows.table.semi_join(events.select(entity).distinct(), entity))


def _computed(view: FeatureViewSpec, day: date, inputs: Mapping[str, ViewInput], identity: Sequence[str]) -> "ir.Table":
    """What the view's function returns, with at least these columns and the declared features."""
    function: Callable[..., ir.Table] = load_object(view.function or "", "function")
    expression = function(**inputs)
    if view.known_feature:
        expression = expression.mutate(**{view.known_feature: 1.0})  # of who has no row the default says 0
    if missing := [name for name in (*identity, *view.features) if name not in expression.columns]:
        raise FeatureError(
            keys.partition(keys.feature_view(view.name), day),
            f"{view.function} does not return {', '.join(missing)}",
            "mend the function or `features:`",
        )
    return expression


def of_day(table: "ir.Table", time: str, day: date) -> "ir.Table":
    return table.filter(table[time] >= start_of(day), table[time] < start_of(day + ONE_DAY))


def _repeats(rows: pa.Table) -> int:
    """How many rows are equal to the one before them."""
    if rows.num_rows < 2:
        return 0
    before, after = rows.slice(0, rows.num_rows - 1), rows.slice(1)
    same = [pc.fill_null(pc.equal(before[name], after[name]), False) for name in rows.column_names]
    return pc.sum(reduce(pc.and_, same)).as_py() or 0
