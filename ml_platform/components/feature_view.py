"""FeatureView: `features/<name>`, one partition a day. Request views have no asset: they live in the model bundle."""

from collections.abc import Iterable, Mapping
from datetime import date

import dagster as dg

from ml_platform.components.graph import (
    FOLLOWS_INPUTS,
    RETRIES,
    DayOutcome,
    SpecComponent,
    asset_key,
    daily,
    days_back,
    dependency,
    make_days,
    read_catalog,
)
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import FeatureError, LakeError
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.features.views import compute_rolling, compute_snapshot, days_behind, input_days
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY
from ml_platform.resources.lineage import current_inputs, required_inputs, view_needs


class FeatureView(SpecComponent):
    """Features of one entity, of single events, or of the request."""

    spec_class = FeatureViewSpec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        catalog = read_catalog()
        view = catalog.views[self.spec.name]
        return dg.Definitions(assets=[] if view.kind == "request" else [view_asset(view, catalog)])


def view_asset(view: FeatureViewSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.feature_view(view.name)
    newest = {source: days_behind(view, catalog.sources[source]) for source in view.inputs}

    @dg.asset(
        key=asset_key(key),
        deps=[
            dependency(keys.raw(source), days_back(newest[source] + needs.window_days - 1, newest[source]))
            for source, needs in view.inputs.items()
        ],
        partitions_def=daily(catalog.view_start(view)),
        automation_condition=FOLLOWS_INPUTS if is_followed(view, catalog) else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        group_name="features",
        kinds={"ibis", "duckdb"},
        tags={"stage": "features"},
        owners=list(view.owners),
        description=_described(view),
    )
    def feature_view(context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake]) -> Iterable[dg.MaterializeResult]:
        yield from make_days(context, key, lambda day: compute(view, day, catalog, lake))  # type: ignore[misc] - no checks

    return feature_view


def is_followed(view: FeatureViewSpec, catalog: Catalog) -> bool:
    """Whether the view's days are made by themselves.

    A rolling view costs as much as its source has rows, so it waits to be asked for where no model uses it.
    """
    return view.kind == "snapshot" or any(view.name in model.features for model in catalog.models.values())


def compute(view: FeatureViewSpec, day: date, catalog: Catalog, lake: Lake) -> DayOutcome:
    """Load the raw days that the view's day looks back on, compute it, write it."""
    days = {source: input_days(view, catalog.sources[source], day) for source in view.inputs}
    inputs = required_inputs(lake, view_needs(catalog, view, day))
    refuse_degraded(view, days, lake, keys.partition(keys.feature_view(view.name), day))
    tables = {
        source: lake.dataset(keys.raw(source), known, arrow_schema(catalog.sources[source]))
        for source, known in days.items()
        if known
    }
    rows = (compute_rolling if view.kind == "rolling" else compute_snapshot)(view, day, catalog.sources, tables)
    if current_inputs(lake.manifest, view_needs(catalog, view, day)) != inputs:
        subject = keys.partition(keys.feature_view(view.name), day)
        raise LakeError(subject, "its inputs were replaced while it was computed", "it is tried again")
    before = lake.manifest(keys.feature_view(view.name), day)
    manifest = lake.write_table(keys.feature_view(view.name), day, rows, inputs)
    return DayOutcome(
        day,
        {
            "dagster/partition_row_count": manifest.rows,
            "content_hash": manifest.content_hash,
            "raw_days": ", ".join(f"{source}: {known[0]} to {known[-1]}" for source, known in days.items() if known),
        },
        content_hash=manifest.content_hash,
        unchanged=before is not None and before.content_hash == manifest.content_hash,
    )


def refuse_degraded(view: FeatureViewSpec, days: Mapping[str, list[date]], lake: Lake, subject: str) -> None:
    """Stop where an input has a day of less quality than the view asks for.

    Raises:
        FeatureError: naming the first such day, and how to judge it.
    """
    for source, known in days.items():
        if view.inputs[source].quality == "good":
            for day, manifest in lake.manifests(keys.raw(source), known).items():
                if (quality := manifest.tags.get(QUALITY)) != "good":
                    raise FeatureError(
                        subject,
                        f"{keys.partition(keys.raw(source), day)} is {quality}, and inputs.{source}.quality is good",
                        f"ml-platform quarantine show {source} {day}",
                    )


def _described(view: FeatureViewSpec) -> str:
    features = "\n".join(
        f"| `{name}` | {feature.type} | {feature.default:g} | {feature.description} |"
        for name, feature in view.features.items()
    )
    what = f"event of `{view.rows}`, as of that event" if view.rows else f"`{view.entity}`, as of the start of the day"
    return (
        f"{view.description}\n\nOne row per {what}; `{view.function}`.\n\n"
        f"| feature | type | default | |\n|---|---|---|---|\n{features}"
    )
