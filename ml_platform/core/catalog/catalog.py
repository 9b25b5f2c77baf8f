"""All specs by name, as the rest of the platform reads them."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from functools import cached_property
from pathlib import Path
from types import MappingProxyType

from ml_platform.core.errors import SpecError
from ml_platform.core.spec import (
    SEGMENT,
    AlertsSpec,
    ClusterSpec,
    FeatureViewSpec,
    ModelSpec,
    SourceSpec,
)


@dataclass(frozen=True)
class Catalog:
    """Specs by name, as the rest of the platform reads them: a source with segments has the column `segment`.

    `homes` says which tables, or owners of tables, lie below a prefix of the lake, and `foreign` which sources are another
    project's: they are read here, and made there.
    """

    sources: dict[str, SourceSpec]
    views: dict[str, FeatureViewSpec]
    models: dict[str, ModelSpec]
    cluster: ClusterSpec = field(default_factory=ClusterSpec)
    homes: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    foreign: frozenset[str] = frozenset()
    broken: Mapping[Path, SpecError] = field(default_factory=lambda: MappingProxyType({}))
    alerts: AlertsSpec | None = None
    origins: Mapping[str, Path] = field(default_factory=lambda: MappingProxyType({}))  # the files of names

    def require_whole(self) -> None:
        """For what may not go on without knowing all that is declared.

        Raises:
            SpecError: if a file has mistakes.
        """
        for error in self.broken.values():
            raise error

    @cached_property
    def feeds(self) -> dict[str, SourceSpec]:
        """What lands and is ingested by itself: each source, or each of its segments as `<source>/<segment>`."""
        return {feed.name: feed for source in self.own_sources.values() for feed in self.feeds_of(source)}

    @property
    def own_sources(self) -> dict[str, SourceSpec]:
        """The sources that are made here."""
        return {name: source for name, source in self.sources.items() if name not in self.foreign}

    @property
    def ingested(self) -> dict[str, SourceSpec]:
        """What has a raw table that is made here: sources, and their segments."""
        return {**self.own_sources, **self.feeds}

    @cached_property
    def plugins(self) -> frozenset[str]:
        """Import paths of all trainers that the project's model files name: code that its owners trust."""
        candidates = (candidate for model in self.models.values() for candidate in model.candidates)
        return frozenset(name for candidate in candidates for name in candidate.trainers if "." in name)

    def feeds_of(self, source: SourceSpec) -> list[SourceSpec]:
        if not source.segments:
            return [source]
        columns = {name: column for name, column in source.columns.items() if name != SEGMENT}
        return [
            source.model_copy(update={"name": f"{source.name}/{segment}", "segments": (), "columns": columns})
            for segment in source.segments
        ]

    def snapshot_views(self, model: ModelSpec | None = None) -> list[FeatureViewSpec]:
        """Snapshot views of one model, in the order it names them, or of all."""
        names: Iterable[str] = model.features if model else self.views
        return [self.views[name] for name in names if self.views[name].kind == "snapshot"]

    def daily_views(self, model: ModelSpec | None = None) -> list[FeatureViewSpec]:
        """Views with a partition a day, snapshot and rolling, of one model or of all."""
        names: Iterable[str] = model.features if model else self.views
        return [self.views[name] for name in names if self.views[name].kind != "request"]

    def request_views(self, model: ModelSpec) -> list[FeatureViewSpec]:
        return [self.views[name] for name in model.features if self.views[name].kind == "request"]

    def entities(self, model: ModelSpec) -> list[str]:
        """The columns by which the model's snapshot features are looked up."""
        return list(dict.fromkeys(view.entity for view in self.snapshot_views(model) if view.entity))

    def label_delay(self, model: ModelSpec) -> int:
        return self.sources[model.label.source].delay_days

    def view_start(self, view: FeatureViewSpec) -> date:
        """The first day with events, or the first one at whose start some row of the view's inputs is known."""
        if view.rows:
            return self.sources[view.rows].start_date
        inputs = [self.sources[source] for source in view.inputs]
        return min(source.start_date + timedelta(days=source.delay_days + 1) for source in inputs)


def together(catalogs: Sequence[Catalog]) -> Catalog:
    """Several projects as one, as a model server or a command has them.

    Raises:
        SpecError: if two declare the same name.
    """
    first, *others = catalogs
    for other in others:
        for one, two in (
            (first.own_sources, other.own_sources),
            (first.views, other.views),
            (first.models, other.models),
        ):
            for name in one.keys() & two.keys():
                places = f"{first.origins[name]} and {other.origins[name]}"
                raise SpecError(places, f"both declare {name!r}", "choose another `name:` in one of them")
        first = Catalog(
            {**other.sources, **first.sources, **other.own_sources},
            {**first.views, **other.views},
            {**first.models, **other.models},
            first.cluster,
            MappingProxyType({**first.homes, **other.homes}),
            (first.foreign | other.foreign) - first.own_sources.keys() - other.own_sources.keys(),
            MappingProxyType({**first.broken, **other.broken}),
            first.alerts or other.alerts,
            MappingProxyType({**first.origins, **other.origins}),
        )
    return first
