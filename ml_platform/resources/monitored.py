# pyright: reportAttributeAccessIssue=false, reportArgumentType=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The rows behind a day of monitoring, from what the lake holds: the day's, those before it, and those whose labels are known."""

from collections.abc import Sequence
from datetime import date, timedelta
from functools import cache

import numpy as np
import pyarrow as pa

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.errors import LakeError
from ml_platform.core.spec import ModelSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Engine, read
from ml_platform.features.point_in_time import as_of_column, join_features
from ml_platform.monitoring.report import Scored, Watched
from ml_platform.registry import bundle
from ml_platform.registry.scoring import SCORE, SCORES
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import current_inputs, scoring_needs
from ml_platform.resources.manifest import Input
from ml_platform.resources.registry import Registry
from ml_platform.training.labels import Match, labelled
from ml_platform.training.training_set import columns_of, part_of

REPORT, PLOT = "report.json", "drift.png"


class Monitored:
    """Rows of a model's days; what versions were judged on is read once."""

    def __init__(self, spec: ModelSpec, catalog: Catalog, lake: Lake, engine: Engine, registry: Registry) -> None:
        self.spec, self.catalog, self.lake, self.engine, self.registry = spec, catalog, lake, engine, registry
        self.source, self.labels = catalog.sources[spec.entity_rows], catalog.sources[spec.label.source]
        self.judged_on = cache(self._judged_on)

    def version(self, day: date) -> Version:
        """The version that scored the day.

        Raises:
            LakeError: if the day is not scored, or the version is no longer registered.
        """
        key = keys.predictions(self.spec.name)
        number = self.lake.require(key, day).tags["version"]
        version = self.registry.find(self.spec.name, number)
        if version is None:
            problem = f"version {number}, which scored it, is not registered any more"
            raise LakeError(keys.partition(key, day), problem, "score the day again")
        return version

    def _judged_on(self, version: Version) -> tuple[Scored, Watched]:
        """The rows that the version was judged on, with its scores, and what is watched of them."""
        model = bundle.unpack(self.registry.download(version), version.label, self.catalog.plugins)
        table = self.lake.read_table(keys.training_set(self.spec.name), [date.fromisoformat(version.training_date)])
        rows = part_of(table, "validation")
        request = [name for name, kind in model.schema.request.items() if kind != "timestamp"]
        columns = [name for name in dict.fromkeys([*request, *model.schema.features]) if name in rows]
        coverage = {view.name: as_of_column(view.name) for view in self.catalog.daily_views(self.spec)}
        watched = Watched(
            columns,
            [name for name in model.schema.nullable if name in columns],
            {view: column for view, column in coverage.items() if column in rows},
        )
        return Scored(rows, model.score(rows), _ordinals(rows[self.source.event_time])), watched

    def recent(self, day: date) -> Scored:
        """Rows of the day and of those before it, as they were scored."""
        return self._scored(self._window(day), [])

    def mature(self, day: date) -> Scored:
        """Rows, with their labels, of as many days up to the newest whose labels are known by the end of the day."""
        days = self._window(day - timedelta(days=self.labels.delay_days))
        key = keys.raw(self.labels.name)
        of_days = [one for one in days if self.lake.manifest(key, one)]
        known = of_days
        if of_days and self.labels.corrections == "latest":
            known = sorted(self.lake.manifests(key, day_range(of_days[0], day)))
        return self._scored(of_days, known)

    def inputs(self, day: date, version: Version) -> list[Input]:
        """What the day's report is made from, as far as it is about the day itself and its version."""
        key, table = keys.predictions(self.spec.name), keys.training_set(self.spec.name)
        judged_on = date.fromisoformat(version.training_date)
        found = current_inputs(self.lake.manifest, iter([(key, day), (table, judged_on)]))
        return [*(found or []), Input(version.label, version.digest)]

    def _window(self, last: date) -> list[date]:
        """Those of the newest days that are scored, and whose rows and features are there."""
        first = last - timedelta(days=self.spec.monitoring.performance_days - 1)
        scored = self.lake.manifests(keys.predictions(self.spec.name), day_range(first, last))
        return [d for d in scored if current_inputs(self.lake.manifest, scoring_needs(self.catalog, self.spec, d))]

    def _scored(self, days: Sequence[date], label_days: Sequence[date]) -> Scored:
        """Rows of days with features, scores and, with days of labels, those that have a label. Nothing without days."""
        if not days:
            return Scored({}, np.empty(0), np.empty(0, dtype=np.int64))
        views, engine, lake, source = self.catalog.daily_views(self.spec), self.engine, self.lake, self.source
        rows = engine.table(lake.dataset(keys.raw(source.name), days, arrow_schema(source)))
        if label_days:
            known = engine.table(lake.dataset(keys.raw(self.labels.name), label_days, arrow_schema(self.labels)))
            rows = labelled(rows, known, self.spec.label.column, Match(source, self.labels, len(days)))
        computed = {v.name: engine.table(lake.dataset(keys.feature_view(v.name), days)) for v in views}
        joined = join_features(rows, source, views, computed, engine)
        scores = engine.table(lake.dataset(keys.predictions(self.spec.name), days))
        name = SCORE if SCORE in scores.columns else SCORES
        identity = [*source.key, source.event_time]
        joined = joined.join(scores.select(*identity, name), identity)
        table = read(engine, joined.order_by([source.event_time, *source.key]))
        columns = columns_of(table.drop_columns([name]))
        return Scored(columns, _scores(table[name]), _ordinals(columns[source.event_time]))


def _scores(column: pa.ChunkedArray) -> np.ndarray:
    if pa.types.is_list(column.type):
        return np.array(column.to_pylist())
    return column.to_numpy()


def _ordinals(times: np.ndarray) -> np.ndarray:
    """The date of each time, as Python's ordinal: int [rows]."""
    return times.astype("datetime64[D]").astype(np.int64) + date(1970, 1, 1).toordinal()
