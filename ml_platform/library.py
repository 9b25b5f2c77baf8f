"""The platform as a library: what a project has made, as pandas frames, a line each. It only reads."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.errors import BundleError, FeatureError, LakeError
from ml_platform.core.mistakes import nearest
from ml_platform.core.settings import Settings, load_settings
from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.engine import Embedded
from ml_platform.features.views import compute, input_days, view_inputs
from ml_platform.registry import bundle
from ml_platform.registry.bundle import Bundle
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.registry import Registry
from ml_platform.training.training_set import columns_of

if TYPE_CHECKING:
    import pandas as pd

Day = date | str


@dataclass(frozen=True)
class Reader:
    """A project and what it has made: tables of its lake, versions of its models."""

    settings: Settings

    @classmethod
    def of(cls, name: str = "") -> "Reader":
        settings = load_settings()
        return cls(settings.model_copy(update={"project": name}) if name else settings)

    @cached_property
    def catalog(self) -> Catalog:
        """All that it declares."""
        return catalog_at(self.settings)

    @cached_property
    def lake(self) -> Lake:
        return Lake.at(self.settings)

    def days(self, table: str) -> list[date]:
        """The days that a table has, in time order."""
        return self.lake.days(table)

    def table(self, table: str, days: Day | slice | Iterable[Day] | None = None) -> "pd.DataFrame":
        """Rows of a table such as `transactions/raw`: of a day, of some days, of `slice(first, last)`, or of all there are.

        Raises:
            LakeError: if one of the days is not there.
        """
        return self.lake.read_table(table, _chosen(days, self._there(table))).to_pandas()

    def features(self, view: str, day: Day | None = None) -> "pd.DataFrame":
        """A view's rows of a day; default: the newest."""
        return self._partition(keys.feature_view(view), day)

    def training_set(self, model: str, day: Day | None = None) -> "pd.DataFrame":
        """What a model was trained on and judged by, as of a training date; default: the newest. `split` says which."""
        return self._partition(keys.training_set(model), day)

    def model(self, name: str) -> "LoadedModel":
        """A registered version: `fraud_detection@champion`, `fraud_detection@3`, or without @ the champion.

        Raises:
            RegistryError: if there is no such model, alias or version.
        """
        model, _, wanted = name.partition("@")
        registry = Registry.at(self.settings)
        version = registry.named(model, wanted)
        return LoadedModel(version, bundle.unpack(registry.download(version), version.label, self.catalog.plugins))

    def compute(self, view: str, day: Day, tables: "Mapping[str, pd.DataFrame | pa.Table]") -> "pd.DataFrame":
        """A declared view's rows of a day, from rows of its inputs that are given: how a test looks at a view.

        Raises:
            FeatureError: if there is no such view.
        """
        if view not in self.catalog.views:
            raise FeatureError(
                keys.feature_view(view), f"is not declared{nearest(view, self.catalog.views)}", "mend its name"
            )
        return _compute(self.catalog.views[view], self.catalog.sources, _day(day), tables)

    def _partition(self, key: str, day: Day | None) -> "pd.DataFrame":
        newest = self._there(key)[-1]
        return self.lake.read_table(key, [_day(day) if day else newest]).to_pandas()

    def _there(self, table: str) -> list[date]:
        there = self.days(table)
        if not there:
            problem = f"has no partition in {self.settings.lake_url}"
            raise LakeError(table, problem, "ml-platform status shows what there is")
        return there


@dataclass(frozen=True)
class LoadedModel:
    """A version of a model, loaded into this process."""

    version: Version
    bundle: Bundle

    @property
    def columns(self) -> list[str]:
        """What a row has to have: the request's columns, and features by name."""
        return list(dict.fromkeys([*self.bundle.schema.request, *self.bundle.schema.features]))

    def score(self, frame: "pd.DataFrame") -> np.ndarray:
        """Scores [rows], of several classes [rows, classes], as the server would answer full rows.

        Raises:
            BundleError: if columns are missing.
        """
        if missing := [name for name in self.columns if name not in frame.columns]:
            raise BundleError(
                self.version.label, f"the frame lacks {', '.join(missing)}", "`.columns` is what it takes"
            )
        return self.bundle.score(columns_of(pa.Table.from_pandas(frame[self.columns], preserve_index=False)))


def compute_view(
    view: Mapping[str, Any],
    sources: Sequence[Mapping[str, Any]],
    day: Day,
    tables: "Mapping[str, pd.DataFrame | pa.Table]",
) -> "pd.DataFrame":
    """A view's rows of a day, from the attributes of its file and of its sources', and from rows that are given."""
    declared = [SourceSpec.model_validate(source) for source in sources]
    return _compute(FeatureViewSpec.model_validate(view), {one.name: one for one in declared}, _day(day), tables)


def _compute(
    view: FeatureViewSpec,
    sources: Mapping[str, SourceSpec],
    day: date,
    tables: "Mapping[str, pd.DataFrame | pa.Table]",
) -> "pd.DataFrame":
    engine = Embedded()
    typed = {name: _within(view, sources[name], day, rows) for name, rows in tables.items() if name in view.inputs}
    return compute(view, day, sources, view_inputs(view, day, sources, typed, engine), engine).read_all().to_pandas()


def _within(view: FeatureViewSpec, source: SourceSpec, day: date, rows: "pd.DataFrame | pa.Table") -> pa.Table:
    """Of the rows those of the days that the view reads for its day, in the types of the source."""
    table = rows if isinstance(rows, pa.Table) else pa.Table.from_pandas(rows, preserve_index=False)
    schema = arrow_schema(source)
    typed, read = table.select(schema.names).cast(schema), input_days(view, source, day)
    if not read:
        return typed.slice(0, 0)
    times = typed[source.event_time].to_numpy()
    first, end = (np.datetime64(one, "us") for one in (read[0], read[-1] + ONE_DAY))
    return typed.filter(pa.array((first <= times) & (times < end)))


def _chosen(days: Day | slice | Iterable[Day] | None, there: list[date]) -> list[date]:
    if days is None:
        return there
    if isinstance(days, date | str):
        return [_day(days)]
    if isinstance(days, slice):
        first, last = (_day(end) if end else other for end, other in ((days.start, there[0]), (days.stop, there[-1])))
        return [day for day in day_range(first, last) if day in there]
    return [_day(day) for day in days]


def _day(day: Day) -> date:
    return date.fromisoformat(day) if isinstance(day, str) else day
