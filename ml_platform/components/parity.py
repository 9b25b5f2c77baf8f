# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""`serving_matches_training`: what the model server answers over HTTP is what batch scoring of the same rows gives."""

from collections.abc import Sequence
from datetime import date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.components.reporting import CheckOutcome
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import FeatureViewSpec, ModelSpec
from ml_platform.features.engine import Engine, read
from ml_platform.features.point_in_time import join_snapshots
from ml_platform.registry import bundle
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.training.training_set import SPLIT, columns_of

MATCHES = "serving_matches_training"
SAMPLE = 200
STRANGERS = 5  # rows of the sample whose ids are null or unknown
TOLERANCE = 1e-6


def serving_matches_training(
    spec: ModelSpec, day: date, catalog: Catalog, lake: Lake, engine: Engine, server: ModelServer, version: str
) -> CheckOutcome:
    """Score a sample through the server and with the candidate's bundle, and compare.

    By entity id the sample are rows of the newest raw day, a few of them with ids that nobody has, and the features those
    that the server says it took. A model with features of single events is asked with full rows of its training set.
    """
    key = keys.candidate(spec.name)
    candidate = bundle.unpack(lake.read_files(key, day), keys.partition(key, day), catalog.plugins)
    if candidate.schema.rolling:
        table = lake.read_table(keys.training_set(spec.name), [day])
        sample = table.filter(pc.equal(table[SPLIT], "validation")).slice(0, SAMPLE)
        wanted = [*candidate.schema.request, *candidate.schema.features]
        answer = server.predict(spec.name, {"rows": as_json(sample.select(wanted))}, arm="champion")
        columns = columns_of(sample)
    else:
        sample = rows_of_newest_day(spec, candidate.schema, lake)
        answer = server.predict(spec.name, {"entities": as_json(sample)}, arm="champion")
        as_of = {view: datetime.fromisoformat(moment) for view, moment in answer["as_of"].items()}
        columns = with_features(sample, catalog.snapshot_views(spec), as_of, lake, engine)
    if answer["version"] != version:
        return CheckOutcome(MATCHES, False, f"version {answer['version']} answered, not {version}")
    online, batch = np.asarray(answer["scores"]), candidate.score(columns)
    # One number a row, also of several classes; relative for values beyond one.
    apart = (np.abs(online - batch) / np.maximum(1.0, np.abs(batch))).reshape(len(batch), -1).max(axis=1)
    words = f"{(apart > TOLERANCE).sum()} of {len(apart)} rows differ, by {apart.max():.2g} at most"
    metadata = {"rows": len(apart), "largest_difference": float(apart.max()), "as_of": answer["as_of"] or "full rows"}
    return CheckOutcome(MATCHES, bool((apart <= TOLERANCE).all()), words, metadata)


def rows_of_newest_day(spec: ModelSpec, schema: bundle.InputSchema, lake: Lake) -> pa.Table:
    """What a client would send: ids and request columns."""
    newest = lake.days(keys.raw(spec.entity_rows))[-1]
    rows = lake.read_table(keys.raw(spec.entity_rows), [newest], [*schema.entities, *schema.request])
    picked = np.random.default_rng(newest.toordinal()).permutation(rows.num_rows)[:SAMPLE]
    rows = rows.take(picked)
    for position, name in enumerate(rows.column_names):
        if name in schema.entities:
            values = rows[name].to_pylist()
            strangers = [-1 if pa.types.is_integer(rows[name].type) else "nobody"] * len(values[:STRANGERS])
            values[:STRANGERS] = [None, *strangers[1:]] if name not in schema.request else strangers
            rows = rows.set_column(position, name, pa.array(values, rows[name].type))
    return rows


def with_features(
    rows: pa.Table, views: Sequence[FeatureViewSpec], as_of: dict[str, datetime], lake: Lake, engine: Engine
) -> dict[str, np.ndarray]:
    """The rows with their features as of these moments, joined like those of a training set."""
    joined = engine.table(rows.append_column("row", pa.array(np.arange(rows.num_rows))))
    for view in views:
        moment = as_of[view.name]
        snapshot = engine.table(lake.dataset(keys.feature_view(view.name), [moment.date()]))
        dated = joined.mutate(moment=engine.table(pa.table({"moment": pa.array([moment])})).moment.as_scalar())
        joined = join_snapshots(dated, "moment", [view], {view.name: snapshot}, engine).drop("moment")
    return columns_of(read(engine, joined.order_by("row")))


def as_json(rows: pa.Table) -> list[dict[str, Any]]:
    """Rows as a client writes them, times in ISO format."""
    return [
        {name: value.isoformat() if isinstance(value, datetime) else value for name, value in row.items()}
        for row in rows.to_pylist()
    ]
