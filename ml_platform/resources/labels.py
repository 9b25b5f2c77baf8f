"""Labels of what the server answered, as far as they have arrived."""

from datetime import timedelta

import pyarrow as pa

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.spec import ModelSpec
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_rows import INPUT
from ml_platform.rollout.observations import LABEL


def with_labels(spec: ModelSpec, catalog: Catalog, lake: Lake, log: pa.Table) -> pa.Table:
    """The log with a column `label`, null where none is known yet.

    A request is told by the key of the rows that are scored: from its inputs, or else, for a key of one column, as its
    request id.
    """
    key = list(catalog.sources[spec.entity_rows].key)
    own = [INPUT + name for name in key]
    if not {*own} <= {*log.column_names}:
        own = ["request_id"]
    times = log["time"].to_pylist() if log.num_rows else []
    raw = keys.raw(spec.label.source)
    days = (
        [day for day in day_range(times[0].date() - timedelta(days=1), times[-1].date()) if lake.manifest(raw, day)]
        if times
        else []
    )
    if not days or len(own) != len(key):
        return log.append_column(LABEL, pa.nulls(log.num_rows, pa.float64()))
    found = lake.read_table(raw, days, [*key, spec.label.column])
    labels = dict(
        zip(_as_text(found.select(key)), found[spec.label.column].cast(pa.float64()).to_pylist(), strict=True)
    )
    return log.append_column(LABEL, pa.array([labels.get(one) for one in _as_text(log.select(own))], pa.float64()))


def _as_text(rows: pa.Table) -> list[tuple[str, ...]]:
    return list(zip(*(map(str, rows[name].to_pylist()) for name in rows.column_names), strict=True))
