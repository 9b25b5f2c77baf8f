"""OnlineStore: `features/online_store`, the newest snapshot of every view, where the model server looks features up."""

import dagster as dg

from ml_platform.components.graph import HANDLED, RETRIES, SpecComponent, asset_key, dependency, read_catalog
from ml_platform.core import keys
from ml_platform.core.days import start_of
from ml_platform.core.spec import FeatureViewSpec, OnlineStoreSpec
from ml_platform.features.views import AS_OF
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import OnlineStore as Store

FOLLOWS_SNAPSHOTS = (
    dg.AutomationCondition.any_deps_updated().since(HANDLED)
    & ~dg.AutomationCondition.any_deps_in_progress()
    & ~dg.AutomationCondition.in_progress()
).with_label("a snapshot has changed")


class OnlineStore(SpecComponent):
    """One copy of every snapshot view, for reading by id."""

    spec_class = OnlineStoreSpec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        return dg.Definitions(assets=[online_store_asset(read_catalog().snapshot_views())])


def online_store_asset(views: list[FeatureViewSpec]) -> dg.AssetsDefinition:
    @dg.asset(
        key=asset_key(keys.ONLINE_STORE),
        deps=[dependency(keys.feature_view(view.name)) for view in views],
        automation_condition=FOLLOWS_SNAPSHOTS,
        retry_policy=RETRIES,
        group_name="features",
        kinds={"sqlite"},
        tags={"stage": "online"},
        description="The newest snapshot of every feature view, read by entity id on the request path.",
    )
    def online_store(lake: dg.ResourceParam[Lake], store: dg.ResourceParam[Store]) -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={view.name: publish(view, lake, store) for view in views})

    return online_store


def publish(view: FeatureViewSpec, lake: Lake, store: Store) -> str:
    """Copy a view's newest snapshot to the store; says what is there now."""
    key = keys.feature_view(view.name)
    days = lake.days(key)
    if not days:
        return "no snapshot yet"
    assert view.entity is not None, "the spec guarantees it"
    rows = lake.read_table(key, days[-1:]).drop_columns([AS_OF])
    written = store.write(view.name, view.entity, rows, start_of(days[-1]))
    return (
        f"{rows.num_rows} rows as of {days[-1]}"
        if written
        else f"kept newer rows as of {store.as_of(view.name):%Y-%m-%d}"
    )
