"""Retention over lake and registry: what there is, what needs it, and the removal."""

import json
from collections.abc import Iterable, Iterator
from datetime import date, timedelta
from functools import cache

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY
from ml_platform.registry import bundle
from ml_platform.registry.retention import Span, Table, Use, doomed, plan_retention
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY, REMOVED, looks_back_on
from ml_platform.resources.lineage import training_needs, view_needs
from ml_platform.resources.registry import Registry
from ml_platform.training.windows import windows

LEFTOVER_AGE = timedelta(hours=24)  # a writer that has not committed by then has died


def plan(lake: Lake, catalog: Catalog, registry: Registry) -> list[Span]:
    """What would be removed now, and what is kept and why.

    Raises:
        RegistryError, BundleError: if it cannot be told what the registered versions were made from.
    """
    found = list(tables(lake, catalog))
    behind = _Behind(lake, found)
    uses = [*version_uses(registry, catalog, behind), *training_uses(lake, catalog, behind), *next_uses(lake, catalog)]
    return plan_retention(found, uses)


class _Behind:
    """From inputs of a training, by name, to those inputs and the raw partitions that the snapshots among them are from."""

    def __init__(self, lake: Lake, tables: Iterable[Table]) -> None:
        self.read = cache(lake.manifest)  # the windows of versions overlap
        self.snapshots = {
            keys.partition(table.key, day): (table.key, day)
            for table in tables
            if table.key.startswith(keys.feature_view(""))
            for day in table.sizes
        }

    def __call__(self, inputs: Iterable[str]) -> set[str]:
        names = {*inputs}
        for snapshot in [self.snapshots[name] for name in names if name in self.snapshots]:
            manifest = self.read(*snapshot)
            names |= {one.name for one in manifest.inputs} if manifest else set()
        return names


def tables(lake: Lake, catalog: Catalog) -> Iterator[Table]:
    """Every table that `keep_days` is about. A raw day goes together with its quarantine."""
    for source in catalog.ingested.values():
        raw, aside = lake.sizes(keys.raw(source.name)), lake.sizes(keys.quarantine(source.name))
        both = {day: raw.get(day, 0) + aside.get(day, 0) for day in {*raw, *aside}}
        yield Table(keys.raw(source.name), source.keep_days, both)
    for view in catalog.daily_views():
        key = keys.feature_view(view.name)
        yield Table(key, view.keep_days, lake.sizes(key))
    for model in catalog.models.values():
        for key in (*_tables_of(model.name), *_daily_of(model.name)):
            yield Table(key, model.keep_days, lake.sizes(key))


def version_uses(registry: Registry, catalog: Catalog, behind: _Behind) -> Iterator[Use]:
    """What every registered version was made from; those that hold an alias first."""
    for model in registry.models():
        aliases = registry.aliases(model)
        held = {v.number: alias for alias, v in (("previous", aliases.previous), ("champion", aliases.champion)) if v}
        ranks = {"champion": 0, "previous": 1}
        for version in sorted(registry.versions(model), key=lambda v: ranks.get(held.get(v.number, ""), 2)):
            if not version.digest and model not in catalog.models:
                continue  # somebody else's model: it was not made from this lake
            manifest = json.loads(registry.download(version)[bundle.MANIFEST])
            made_from = behind(one["name"] for one in manifest["inputs"])
            trained = date.fromisoformat(manifest["training_date"])
            own = {keys.partition(key, trained) for key in _tables_of(model)}
            alias = f" ({held[version.number]})" if version.number in held else ""
            yield Use(f"{version.label}{alias} was trained on it", frozenset(own | made_from))


def training_uses(lake: Lake, catalog: Catalog, behind: _Behind) -> Iterator[Use]:
    """What every model's newest training set was made from: its version may be about to be registered."""
    for model in catalog.models:
        key = keys.training_set(model)
        if last := max(lake.days(key), default=None):
            made_from = behind(one.name for one in lake.require(key, last).inputs)
            yield Use(f"{keys.partition(key, last)} was made from it", frozenset(made_from))


def next_uses(lake: Lake, catalog: Catalog) -> Iterator[Use]:
    """What the next training of every model needs, the snapshots behind it, and what the next day is judged by."""
    newest = cache(lambda source: max(lake.days(keys.raw(source)), default=None))
    for model in catalog.models.values():
        if last := newest(model.entity_rows):
            day, used = last + ONE_DAY, windows(model.training, catalog.label_delay(model), last + ONE_DAY)
            needs = {*training_needs(catalog, model, day)}
            for view in catalog.daily_views(model):
                needs |= {need for on in (day, *used.days) for need in view_needs(catalog, view, on)}
            yield Use(f"the next training of {model.name} needs it", _names(needs))
    for view in catalog.daily_views():
        known = [last for source in view.inputs if (last := newest(source))]
        if known:
            needs = view_needs(catalog, view, max(known) + ONE_DAY)
            yield Use(f"the next snapshot of {view.name} needs it", _names(needs))
    for source in catalog.feeds.values():
        if last := newest(source.name):
            needs = {(back.table, day) for back in looks_back_on(catalog, source, last + ONE_DAY) for day in back.days}
            yield Use(f"the next day of {source.name} is judged by it", _names(needs))


def apply(lake: Lake, catalog: Catalog, registry: Registry, shown: Iterable[Span]) -> set[tuple[str, date]]:
    """Remove what the plan said that somebody agreed to, as far as it still holds; returns what is gone.

    A day of a source is marked in its ledger first: what is landed for it then is not ingested again, whenever this stops.
    """
    sources = {keys.raw(name): name for name in catalog.feeds}
    gone = doomed(shown) & doomed(plan(lake, catalog, registry))  # a version may have been registered meanwhile
    for key, day in sorted(gone):
        if source := sources.get(key):
            mark_removed(lake, source, day)
            lake.remove(keys.quarantine(source), day)
        lake.remove(key, day)
    return gone


def mark_removed(lake: Lake, source: str, day: date) -> None:
    """Say in a day's ledger that its partition was taken away; accounts, inputs and all else stay as they were."""
    key = keys.ledger(source)
    ledger = lake.manifest(key, day)
    if ledger is not None and ledger.tags[QUALITY] != REMOVED:
        rows = lake.read_table(key, [day])
        lake.write_table(key, day, rows, ledger.inputs, {**ledger.tags, QUALITY: REMOVED})


def all_keys(catalog: Catalog) -> Iterator[str]:
    """Every table of the lake, those without retention included."""
    for source in catalog.ingested:
        yield from (named(source) for named in (keys.raw, keys.quarantine, keys.ledger, keys.decisions))
    yield from (keys.feature_view(view.name) for view in catalog.daily_views())
    for model in catalog.models:
        yield from (*_tables_of(model), *_daily_of(model))


def _tables_of(model: str) -> tuple[str, ...]:
    return keys.training_set(model), keys.trials(model), keys.candidate(model), keys.evaluation(model)


def _daily_of(model: str) -> tuple[str, ...]:
    return keys.predictions(model), keys.monitoring(model)


def _names(needs: Iterable[tuple[str, date]]) -> frozenset[str]:
    return frozenset(keys.partition(key, day) for key, day in needs)
