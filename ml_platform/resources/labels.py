# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer functions than it has.
"""Labels of what the server answered, as far as they have arrived."""

from collections import Counter
from datetime import timedelta
from typing import Any

import pyarrow as pa

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.spec import ModelSpec
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_rows import INPUT
from ml_platform.rollout.observations import LABEL

CANNOT = (pa.ArrowInvalid, pa.ArrowNotImplementedError)
Key = tuple[Any, ...]


def with_labels(spec: ModelSpec, catalog: Catalog, lake: Lake, log: pa.Table) -> pa.Table:
    """The log with a column `label`, null where none is known yet.

    A row finds its label by the key of `entity_rows` that was sent with it. Where none was sent, and the key is one column,
    the request id of a request of one row counts as its key.
    """
    key = list(catalog.sources[spec.entity_rows].key)
    times = log["time"].to_pylist() if log.num_rows else []
    raw = keys.raw(spec.label.source)
    days = (
        [day for day in day_range(times[0].date() - timedelta(days=1), times[-1].date()) if lake.manifest(raw, day)]
        if times
        else []
    )
    if not days:
        return log.append_column(LABEL, pa.nulls(log.num_rows, pa.float64()))
    found = lake.read_table(raw, days, [*key, spec.label.column])
    labels = dict(
        zip(
            zip(*(found[name].to_pylist() for name in key), strict=True),
            found[spec.label.column].cast(pa.float64()).to_pylist(),
            strict=True,
        )
    )
    known = [labels.get(one) for one in _keys(log, {name: found.schema.field(name).type for name in key})]
    return log.append_column(LABEL, pa.array(known, pa.float64()))


def _keys(log: pa.Table, types: dict[str, pa.DataType]) -> list[Key]:
    """Of each row of the log its key, in the types in which labels have it; nulls where it is not known."""
    own = [
        _as(log[INPUT + name], type_) if INPUT + name in log.column_names else _nulls(log)
        for name, type_ in types.items()
    ]
    found = list(zip(*own, strict=True))
    if len(types) > 1:
        return found
    requests = list(zip(*(log[name].to_pylist() for name in ("request_id", "version", "arm")), strict=True))
    rows = Counter(requests)
    (type_,) = types.values()
    ids = _as(pa.chunked_array([pa.array([one[0] for one in requests], pa.string())]), type_)
    return [
        (id_ if sent is None and rows[request] == 1 else sent,)
        for (sent,), id_, request in zip(found, ids, requests, strict=True)
    ]


def _nulls(log: pa.Table) -> list[None]:
    return [None] * log.num_rows


def _as(values: pa.ChunkedArray, type_: pa.DataType) -> list[Any]:
    """Values in a type, null where one has no place in it."""
    if pa.types.is_timestamp(type_) and pa.types.is_timestamp(values.type) and values.type.tz is None:
        values = values.cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
    try:
        return values.cast(type_).to_pylist()
    except CANNOT:
        return [_one(value, type_) for value in values.to_pylist()]


def _one(value: Any, type_: pa.DataType) -> Any:
    try:
        return pa.scalar(value).cast(type_).as_py()
    except CANNOT:
        return None
