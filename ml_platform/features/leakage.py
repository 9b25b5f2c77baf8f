# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Whether a view looks into the future: computed again without it, it must say the same."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import date, datetime
from random import Random
from typing import TYPE_CHECKING

import pyarrow as pa

from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.features.engine import Engine, read
from ml_platform.features.health import Verdict, differing
from ml_platform.features.views import ViewInput, compute, compute_events, of_day

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

EVENTS = 50


def no_future_information(
    view: FeatureViewSpec,
    day: date,
    sources: Mapping[str, SourceSpec],
    inputs: Mapping[str, ViewInput],
    made: "pads.Dataset",
    engine: Engine,
) -> Verdict:
    """Hold `made`, the view's rows of the day, against what comes out without the rows that were not known yet.

    A rolling view is cut at a moment within its day, and its last events before are compared: what is younger, and labels
    that were not known then, are gone. A snapshot's moment is the start of its day.
    """
    if view.kind == "rolling":
        return _of_events(view, day, sources, inputs, made.to_table(), engine)
    young = {name: one.table[one.event_time] >= one.known_until for name, one in inputs.items()}
    count = {name: _count(inputs[name].table.filter(is_young), engine) for name, is_young in young.items()}
    if not any(count.values()):
        return Verdict(True, "no input has a row that was not known yet")
    blind = {name: replace(one, table=one.table.filter(~young[name])) for name, one in inputs.items()}
    again, computed = compute(view, day, sources, blind, engine).read_all(), made.to_table()
    rows, different = differing([str(view.entity)], list(view.features), again, computed)
    lost = computed.num_rows - rows
    seen = ", ".join(f"{n:,} of {name}" for name, n in count.items() if n)
    return _verdict(
        different, f"{lost:,} rows are gone; " if lost else "", f"without rows that were not known yet ({seen})"
    )


def _of_events(
    view: FeatureViewSpec,
    day: date,
    sources: Mapping[str, SourceSpec],
    inputs: Mapping[str, ViewInput],
    computed: pa.Table,
    engine: Engine,
) -> Verdict:
    assert view.rows is not None, "the spec guarantees it"
    if not computed.num_rows:
        return Verdict(True, "there are no events")
    source = sources[view.rows]
    position = Random(day.toordinal()).randrange(computed.num_rows)  # the same whenever the day is computed
    moment: datetime = computed[source.event_time][position].as_py()
    blind = {
        name: replace(one, table=one.table.filter(one.table[one.event_time] <= moment - one.delay))
        for name, one in inputs.items()
    }
    until = of_day(blind[view.rows].table, source.event_time, day)
    last = until.order_by([until[source.event_time].desc(), *source.key]).limit(EVENTS)
    again = compute_events(view, day, sources, blind, last, engine).read_all()
    rows, different = differing(source.key, list(view.features), again, computed)
    return _verdict(different, "", f"of {rows} events when all that was not known at {moment:%H:%M:%S} is taken away")


def _verdict(different: Mapping[str, int], lost: str, when: str) -> Verdict:
    changed = ", ".join(f"{name} of {count:,} rows" for name, count in different.items())
    return Verdict(not different and not lost, f"{lost}{changed or 'nothing'} changes, {when}")


def _count(table: object, engine: Engine) -> int:
    return read(engine, table.aggregate(n=table.count()))["n"][0].as_py()
