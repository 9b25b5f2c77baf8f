"""OnlineStore: `features/online_store`, the newest snapshot of every view, where the model server looks features up."""

import random
from datetime import date
from uuid import uuid4

import dagster as dg
import pyarrow as pa

from ml_platform.components.graph import HANDLED, RETRIES, SpecComponent, asset_key, dependency
from ml_platform.components.reporting import CheckOutcome
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.errors import PlatformError
from ml_platform.core.spec import FeatureViewSpec, OnlineStoreSpec
from ml_platform.features.health import differing
from ml_platform.features.views import AS_OF
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import OnlineStore as Store

MATCHES = "online_matches_offline"
SAMPLE = 200  # ids of a view that are read back

FOLLOWS_SNAPSHOTS = (
    dg.AutomationCondition.any_deps_updated().since(HANDLED)
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("a snapshot has changed")


class OnlineStore(SpecComponent):
    """One copy of every snapshot view, for reading by id."""

    spec_class = OnlineStoreSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        return dg.Definitions(assets=[online_store_asset(catalog.snapshot_views())])


def online_store_asset(views: list[FeatureViewSpec]) -> dg.AssetsDefinition:
    key = asset_key(keys.ONLINE_STORE)

    @dg.asset(
        key=key,
        deps=[dependency(keys.feature_view(view.name)) for view in views],
        check_specs=[
            dg.AssetCheckSpec(
                MATCHES,
                asset=key,
                description="What the store answers is what the newest snapshots have.",
                blocking=False,
            )
        ],
        automation_condition=FOLLOWS_SNAPSHOTS,
        retry_policy=RETRIES,
        group_name="features",
        tags={"stage": "online"},
        description="The newest snapshot of every feature view, read by entity id on the request path.",
    )
    def online_store(lake: dg.ResourceParam[Lake], store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
        said, wrong, failed = {}, [], list[PlatformError]()
        for declared in views:
            try:
                day, rows = newest(declared, lake)
                view = as_computed(declared, rows)
                said[view.name] = publish(view, day, rows, store) if day else "no snapshot yet"
                if day and (words := mismatch(view, day, rows, store)):
                    wrong.append(f"{view.name}: {words}")
            except PlatformError as error:  # the other views are published all the same
                failed.append(error)
        if failed:
            raise failed[0]
        check = CheckOutcome(MATCHES, not wrong, "; ".join(wrong))
        return dg.MaterializeResult(metadata=said, check_results=[check.result()])

    return online_store


def newest(view: FeatureViewSpec, lake: Lake) -> tuple[date | None, pa.Table]:
    """The day of the view's newest snapshot, and its entities and features; None where there is no snapshot."""
    days = lake.days(keys.feature_view(view.name))[-1:]
    if not days:
        return None, pa.table({})
    return days[0], lake.read_table(keys.feature_view(view.name), days).drop_columns([AS_OF])


def as_computed(view: FeatureViewSpec, rows: pa.Table) -> FeatureViewSpec:
    """The view without the features that were declared after its snapshot was computed."""
    there = {name: feature for name, feature in view.features.items() if name in rows.column_names}
    return view.model_copy(update={"features": there})


def publish(view: FeatureViewSpec, day: date, rows: pa.Table, store: Store) -> str:
    """Put a snapshot into the store; says what is there now."""
    if store.write(view, rows, start_of(day)):
        return f"{rows.num_rows} rows as of {day}"
    return f"kept newer rows as of {store.as_of(view.name):%Y-%m-%d}"


def mismatch(view: FeatureViewSpec, day: date, rows: pa.Table, store: Store) -> str:
    """How the store differs from a snapshot, by a sample of its ids and one that it does not have; "" if it does not."""
    assert view.entity is not None, "the spec guarantees it"
    sample = rows.take(random.sample(range(rows.num_rows), min(SAMPLE, rows.num_rows)))
    ids = sample[view.entity].to_pylist()
    nobody = nobody_of(rows[view.entity])
    found = store.read(view.name, view.entity, [*ids, nobody], view.features)
    if found.as_of != start_of(day):
        return f"rows as of {found.as_of:%Y-%m-%d}, where the lake has {day}"
    if nobody in found.rows:
        return f"a row for {nobody}, which the lake does not have"
    online = pa.Table.from_pylist(
        [{view.entity: id_, **values} for id_, values in found.rows.items()],
        pa.schema([rows.schema.field(name) for name in (view.entity, *view.features)]),
    )
    common, different = differing([view.entity], list(view.features), sample, online)
    if common < len(ids):
        return f"no row for {len(ids) - common} of {len(ids)} ids"
    return ", ".join(f"{name} differs for {count} of {len(ids)} ids" for name, count in different.items())


def nobody_of(ids: pa.ChunkedArray) -> int | str:
    """An id that is not among these."""
    if pa.types.is_string(ids.type):
        return f"nobody-{uuid4().hex}"
    known = set(ids.to_pylist())
    return next(candidate for candidate in range(-1, -len(known) - 2, -1) if candidate not in known)
