"""What has to be there by now, whose it is, and what explains what: the part of alerts that follows from the catalog alone."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.spec import AlertsSpec, duration
from ml_platform.monitoring.alerts import Alert


@dataclass(frozen=True)
class Expected:
    """A table with a deadline: day D has to be there `deadline` after the start of day D + `known_after` days."""

    key: str
    start: date
    known_after: int
    deadline: str

    def newest_due(self, now: datetime) -> date | None:
        """The newest day that has to be there; None before the first one is due."""
        day = (now - duration(self.deadline)).date() - timedelta(days=self.known_after)
        return day if day >= self.start else None

    def due_at(self, day: date) -> datetime:
        return start_of(day + timedelta(days=self.known_after)) + duration(self.deadline)


def expected(catalog: Catalog) -> list[Expected]:
    """All tables with a deadline."""
    raw = [
        Expected(keys.raw(source.name), source.start_date, source.delay_days + 1, source.deadline)
        for source in catalog.ingested.values()
        if source.deadline
    ]
    views = [
        Expected(keys.feature_view(view.name), catalog.view_start(view), int(view.kind == "rolling"), view.deadline)
        for view in catalog.daily_views()
        if view.deadline
    ]
    scores = [
        Expected(
            keys.predictions(model.name),
            catalog.sources[model.entity_rows].start_date,
            1,
            model.predictions.deadline,
        )
        for model in catalog.models.values()
        if model.predictions.deadline
    ]
    return [*raw, *views, *scores]


def explained_by(catalog: Catalog) -> dict[str, tuple[str, ...]]:
    """Of every asset that follows from others: itself and all of those, whose trouble explains its own."""
    found: dict[str, tuple[str, ...]] = {}

    def note(key: str, inputs: Iterable[str]) -> None:
        found[key] = tuple(dict.fromkeys([key, *(one for of in inputs for one in found.get(of, (of,)))]))

    for feed in catalog.feeds:
        note(keys.raw(feed), ())
    for name, source in catalog.sources.items():
        segments = [keys.raw(feed.name) for feed in catalog.feeds_of(source)] if source.segments else []
        note(keys.raw(name), segments)
    for view in catalog.daily_views():
        note(keys.feature_view(view.name), map(keys.raw, view.inputs))
    note(keys.ONLINE_STORE, (keys.feature_view(view.name) for view in catalog.snapshot_views()))
    for name, model in catalog.models.items():
        views = [keys.feature_view(view.name) for view in catalog.daily_views(model)]
        rows, labels = keys.raw(model.entity_rows), keys.raw(model.label.source)
        note(keys.predictions(name), (rows, *views))
        note(keys.deployment(name), (rows, labels, *views))
    return found


def belongings(catalog: Catalog, subject: str) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The source, view or model that an asset is of, and its owners; a segment is its source's."""
    owner, _, noun = subject.partition("/")
    name = noun if owner == "features" else owner
    spec = catalog.views.get(name) if owner == "features" else catalog.sources.get(name) or catalog.models.get(name)
    return ((name,), spec.owners) if spec else ((), ())


def channels_of(spec: AlertsSpec, alert: Alert) -> tuple[str, ...]:
    """The channels of all routes that fit an alert; every channel, if there is none. None is told of itself."""
    chosen = [
        name
        for route in spec.routes
        if _overlap((*route.models, *route.sources, *route.views), alert.about)
        and _overlap(route.owners, alert.owners)
        and _overlap(route.kinds, (alert.kind,))
        and route.severity in (None, alert.severity)
        for name in route.channels
    ]
    chosen, others = (
        [name for name in dict.fromkeys(names) if alert.subject != f"channel/{name}"]
        for names in (chosen, spec.channels)
    )
    return tuple(chosen or others)


def _overlap(wanted: Iterable[str], there: Iterable[str]) -> bool:
    """Whether one of those is there; who wants nothing in particular wants all."""
    wanted = set(wanted)
    return not wanted or not wanted.isdisjoint(there)
