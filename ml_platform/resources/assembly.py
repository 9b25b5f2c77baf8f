"""The training set, joined from what the lake holds at present."""

from datetime import date

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ModelSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Engine
from ml_platform.resources.lake import Lake
from ml_platform.training.training_set import Assembled, assemble
from ml_platform.training.windows import label_days, windows


def assembled(lake: Lake, engine: Engine, catalog: Catalog, spec: ModelSpec, training_date: date) -> Assembled:
    """Join rows, labels and daily features of the windows as of a date. Writes nothing.

    Raises:
        LakeError: if a day is missing.
    """
    used = windows(spec.training, catalog.label_delay(spec), training_date)
    source, labels = catalog.sources[spec.entity_rows], catalog.sources[spec.label.source]
    views = catalog.daily_views(spec)
    return assemble(
        lake.dataset(keys.raw(source.name), used.days, arrow_schema(source)),
        source,
        lake.dataset(keys.raw(labels.name), label_days(labels, used), arrow_schema(labels)),
        labels,
        spec.label.column,
        views,
        {view.name: lake.dataset(keys.feature_view(view.name), used.days) for view in views},
        used,
        engine,
    )
