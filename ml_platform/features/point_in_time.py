# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The point-in-time joins: each row gets the feature values that were known when it happened."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING

from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.features.engine import Engine
from ml_platform.features.views import AS_OF

if TYPE_CHECKING:
    import ibis.expr.types as ir

# A snapshot holds for the day at whose start it was taken; the next one replaces it. An entity that has dropped out of the
# next one has no row in the online store either.
_AT = "__at"
SNAPSHOT_LIFE = timedelta(days=1)


def as_of_column(view: str) -> str:
    """The column that says as of when a row's features are; null where defaults stand in."""
    return f"{view}__{AS_OF}"


def join_features(
    rows: "ir.Table",
    source: SourceSpec,
    views: Sequence[FeatureViewSpec],
    computed: Mapping[str, "ir.Table"],
    engine: Engine,
) -> "ir.Table":
    """Join to each row of the source the features of every view, each in its kind's way."""
    rows = join_snapshots(rows, source.event_time, [v for v in views if v.kind == "snapshot"], computed, engine)
    return join_events(rows, source, [v for v in views if v.kind == "rolling"], computed)


def join_snapshots(
    rows: "ir.Table",
    event_time: str,
    views: Sequence[FeatureViewSpec],
    snapshots: Mapping[str, "ir.Table"],
    engine: Engine,
    life: timedelta = SNAPSHOT_LIFE,
) -> "ir.Table":
    """Join to each row, per view, the newest snapshot row of its entity with as_of <= event time < as_of + life.

    Every row of `rows` comes back once, with each view's declared features (the default where no snapshot row matches)
    and `<view>__as_of`.
    """
    import ibis

    for view in views:
        assert view.entity is not None, "the spec guarantees it"
        as_of = as_of_column(view.name)
        right = snapshots[view.name].select(view.entity, *view.features, **{as_of: snapshots[view.name][AS_OF]})
        join = _join_newest if engine.joins_as_of else _join_newest_by_window
        joined = join(rows, event_time, right, view.entity, as_of)
        # Ibis' own `tolerance` would bound both sides of the event; a snapshot only ages in one direction.
        alive = joined[event_time] < joined[as_of] + ibis.interval(life)
        values = {
            name: ibis.ifelse(alive, joined[name], None).fill_null(feature.default).cast(feature.type)
            for name, feature in view.features.items()
        }
        rows = joined.select(*rows.columns, **values, **{as_of: ibis.ifelse(alive, joined[as_of], None)})
    return rows


def join_events(
    rows: "ir.Table", source: SourceSpec, views: Sequence[FeatureViewSpec], computed: Mapping[str, "ir.Table"]
) -> "ir.Table":
    """Join to each row of the source, per rolling view, the features that were computed for that very event.

    Every row comes back once, with each view's declared features (the default where the view has no row) and
    `<view>__as_of`, the event time that the view has for it.
    """
    for view in views:
        as_of = as_of_column(view.name)
        table = computed[view.name]
        right = table.select(
            *source.key, *view.features, **{as_of: table[source.event_time], _AT: table[source.event_time]}
        )
        # A key may come again on another day: the very event has its time too.
        joined = rows.left_join(right, [*source.key, rows[source.event_time] == right[_AT]])
        values = {name: joined[name].fill_null(f.default).cast(f.type) for name, f in view.features.items()}
        rows = joined.select(*rows.columns, **values, **{as_of: joined[as_of]})
    return rows


def _join_newest(rows: "ir.Table", event_time: str, right: "ir.Table", entity: str, as_of: str) -> "ir.Table":
    """Rows with the columns of the newest row of `right` that is no newer than they are."""
    return rows.asof_join(right, on=rows[event_time] >= right[as_of], predicates=entity)


def _join_newest_by_window(rows: "ir.Table", event_time: str, right: "ir.Table", entity: str, as_of: str) -> "ir.Table":
    """The same for engines that have no as-of join: all times of an entity in one line, each with the newest `as_of` so far."""
    import ibis

    moments = rows.select(entity, _at=rows[event_time], _is_event=ibis.literal(1)).union(
        right.select(entity, _at=right[as_of], _is_event=ibis.literal(0))
    )
    newest = ibis.ifelse(moments["_is_event"] == 0, moments["_at"], None).max()
    so_far = ibis.cumulative_window(group_by=entity, order_by=["_at", "_is_event"])  # of one moment, the snapshot first
    known = moments.mutate(**{as_of: newest.over(so_far)}).filter(ibis._["_is_event"] == 1)
    known = known.select(entity, "_at", as_of).distinct()
    dated = rows.left_join(known, [rows[entity] == known[entity], rows[event_time] == known["_at"]])
    dated = dated.select(*rows.columns, as_of)
    joined = dated.left_join(right, [entity, as_of])
    return joined.select(*dated.columns, *(name for name in right.columns if name not in (entity, as_of)))
