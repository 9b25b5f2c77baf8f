"""FeatureView: `features/<name>`, one partition a day. Request views have no asset: they live in the model bundle."""

import tempfile
from collections.abc import Iterable
from datetime import date
from pathlib import Path

import dagster as dg

from ml_platform.components.graph import (
    FOLLOWS_INPUTS,
    RETRIES,
    SpecComponent,
    asset_key,
    badge,
    daily,
    days_back,
    days_of,
    dependency,
    pod,
)
from ml_platform.components.reporting import CheckOutcome, DayOutcome, make_days, markdown_table, png_metadata
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.features.engine import Engine
from ml_platform.features.health import BLOCKING, CHECKS, Verdict
from ml_platform.features.plots import distributions
from ml_platform.features.views import days_behind, definition
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import DEFINITION
from ml_platform.resources.view_day import checks_of, computed


class FeatureView(SpecComponent):
    """Features of one entity, of single events, or of the request."""

    spec_class = FeatureViewSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        view = catalog.views[self.spec.name]
        return dg.Definitions(assets=[] if view.kind == "request" else [view_asset(view, catalog)])


def view_asset(view: FeatureViewSpec, catalog: Catalog) -> dg.AssetsDefinition:
    key = keys.feature_view(view.name)
    partitions = daily(catalog.view_start(view))
    newest = {source: days_behind(view, catalog.sources[source]) for source in view.inputs}

    @dg.asset(
        key=asset_key(key),
        deps=[
            dependency(keys.raw(source), days_back(newest[source] + needs.window_days - 1, newest[source]))
            for source, needs in view.inputs.items()
        ],
        partitions_def=partitions,
        check_specs=[
            dg.AssetCheckSpec(
                name,
                asset=asset_key(key),
                description=CHECKS[name],
                blocking=name in BLOCKING,
                partitions_def=partitions,
            )
            for name in checks_of(view)
        ],
        code_version=definition(view),
        automation_condition=FOLLOWS_INPUTS if is_followed(view, catalog) else None,
        backfill_policy=dg.BackfillPolicy.single_run(),
        retry_policy=RETRIES,
        **pod(view.resources, catalog),
        group_name="features",
        **badge(view.deadline),
        kinds={"ibis"},
        tags={"stage": "features"},
        owners=list(view.owners),
        description=_described(view),
    )
    def feature_view(
        context: dg.AssetExecutionContext, lake: dg.ResourceParam[Lake], engine: dg.ResourceParam[Engine]
    ) -> Iterable[dg.AssetCheckResult | dg.MaterializeResult]:
        last = days_of(context)[-1]  # a plot of each day of a long range would take longer than the days
        yield from make_days(
            context, key, lambda day: compute_day(view, day, catalog, lake, engine, plot=day == last), view.resources
        )

    return feature_view  # type: ignore[return-value]  # the overload is lost behind **pod


def is_followed(view: FeatureViewSpec, catalog: Catalog) -> bool:
    """Whether the view's days are made by themselves.

    A rolling view costs as much as its source has rows, so it waits to be asked for where no model uses it.
    """
    return view.kind == "snapshot" or any(view.name in model.features for model in catalog.models.values())


def compute_day(
    view: FeatureViewSpec, day: date, catalog: Catalog, lake: Lake, engine: Engine, plot: bool = False
) -> DayOutcome:
    """Compute a day, judge it, write it."""
    key = keys.feature_view(view.name)
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as folder:
        made = computed(view, day, catalog, lake, engine, Path(folder) / "features.parquet")
        checks = tuple(_outcome(name, verdict) for name, verdict in made.verdicts.items())
        if any(not check.passed and check.name in BLOCKING for check in checks):
            return DayOutcome(day, None, checks)
        tags = {DEFINITION: definition(view)}
        if made.former and made.former.tags == tags and made.verdicts["same_inputs_give_same_values"].passed:
            manifest = made.former  # sums differ in their last digits from run to run: that is no new version
        else:
            manifest = lake.write_staged(key, day, made.staged, made.inputs, tags)
    metadata = {"raw_days": ", ".join(f"{source}: {known[0]} to {known[-1]}" for source, known in made.days.items())}
    shifted, subject = made.shifted, keys.partition(key, day)
    drift = {"drift": png_metadata(distributions(shifted, subject))} if plot and shifted else {}
    return DayOutcome.written(day, manifest, made.before, checks, **metadata, **drift)


def _outcome(name: str, verdict: Verdict) -> CheckOutcome:
    severity = dg.AssetCheckSeverity.ERROR if name in BLOCKING else dg.AssetCheckSeverity.WARN
    table = {"table": markdown_table([dict(row) for row in verdict.table])} if verdict.table else None
    return CheckOutcome(name, verdict.passed, verdict.words, table, severity)


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
