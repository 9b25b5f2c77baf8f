"""The training set, joined from what the lake holds at present."""

from dataclasses import dataclass
from datetime import date

import pyarrow as pa

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ModelSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Engine
from ml_platform.resources.lake import Lake
from ml_platform.training.training_set import assemble
from ml_platform.training.windows import windows


@dataclass(frozen=True)
class Assembled:
    """The rows with labels and features, and how many rows there were before those without a label were left out."""

    table: pa.Table
    landed: int


def assembled(lake: Lake, engine: Engine, catalog: Catalog, spec: ModelSpec, training_date: date) -> Assembled:
    """Join rows, labels and daily features of the windows as of a date. Writes nothing.

    Raises:
        LakeError: if a day is missing.
    """
    used = windows(spec.training, catalog.label_delay(spec), training_date)
    source, labels = catalog.sources[spec.entity_rows], catalog.sources[spec.label.source]
    views = catalog.daily_views(spec)
    events = lake.dataset(keys.raw(source.name), used.days, arrow_schema(source))
    table = assemble(
        events,
        source,
        lake.dataset(keys.raw(labels.name), used.days, arrow_schema(labels)),
        labels,
        spec.label.column,
        views,
        {view.name: lake.dataset(keys.feature_view(view.name), used.days) for view in views},
        used,
        engine,
    )
    return Assembled(table, events.count_rows())
