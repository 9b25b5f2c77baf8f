"""FeatureView: `features/<name>`, one partition a day. Request views have no asset: they live in the model bundle."""

import tempfile
from collections.abc import Iterable, Mapping
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

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
from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.errors import FeatureError, LakeError
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.data.staging import stage_all
from ml_platform.features.engine import Engine
from ml_platform.features.health import (
    BLOCKING,
    CHECKS,
    NORM_DAYS,
    Verdict,
    distribution_is_normal,
    entities_are_covered,
    nulls_are_within_limits,
    same_inputs_give_same_values,
    shifts,
    values_are_in_range,
)
from ml_platform.features.leakage import no_future_information
from ml_platform.features.plots import distributions
from ml_platform.features.views import compute, days_behind, definition, input_days, view_inputs
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import QUALITY
from ml_platform.resources.lineage import DEFINITION, current_inputs, required_inputs, view_needs
from ml_platform.resources.manifest import Manifest

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas


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


def checks_of(view: FeatureViewSpec) -> list[str]:
    """A rolling view that misses an event is an error, so that there is nothing to check."""
    return [name for name in CHECKS if name != "entities_are_covered" or view.kind == "snapshot"]


def compute_day(
    view: FeatureViewSpec, day: date, catalog: Catalog, lake: Lake, engine: Engine, plot: bool = False
) -> DayOutcome:
    """Load the raw days that the view's day looks back on, compute it, judge it, write it."""
    key, sources = keys.feature_view(view.name), catalog.sources
    subject = keys.partition(key, day)
    days = {source: known for source in view.inputs if (known := input_days(view, sources[source], day))}
    inputs = required_inputs(lake, view_needs(catalog, view, day))
    refuse_degraded(view, days, lake, subject)
    raw = {
        source: lake.dataset(keys.raw(source), known, arrow_schema(sources[source])) for source, known in days.items()
    }
    before = lake.manifest(key, day)
    former = before if before and list(before.inputs) == inputs else None  # made from what is there now
    norm = norm_of(view, day, catalog, lake)
    with tempfile.TemporaryDirectory(prefix="ml_platform-") as folder:
        given = view_inputs(view, day, sources, raw, engine)
        rows = compute(view, day, sources, given, engine)
        staged = stage_all(rows.schema, rows, Path(folder) / "features.parquet")
        made = staged.dataset()
        shifted = shifts(view, norm, made) if norm else []
        verdicts = {
            "no_future_information": no_future_information(view, day, sources, given, made, engine),
            "values_are_in_range": values_are_in_range(view, made),
            "nulls_are_within_limits": nulls_are_within_limits(view, rows.nulls, staged.rows),
            "entities_are_covered": covered(view, days, catalog, lake, made),
            "distribution_is_normal": distribution_is_normal(view, shifted if norm else None),
            "same_inputs_give_same_values": repeated(view, day, catalog, lake, former, made),
        }
        if current_inputs(lake.manifest, view_needs(catalog, view, day)) != inputs:
            raise LakeError(subject, "its inputs were replaced while it was computed", "it is tried again")
        checks = tuple(_outcome(name, verdicts[name]) for name in checks_of(view))
        if any(not check.passed and check.name in BLOCKING for check in checks):
            return DayOutcome(day, None, checks)
        tags = {DEFINITION: definition(view)}
        if former and former.tags == tags and verdicts["same_inputs_give_same_values"].passed:
            manifest = former  # sums differ in their last digits from run to run: that is no new version
        else:
            manifest = lake.write_staged(key, day, staged, inputs, tags)
    metadata = {"raw_days": ", ".join(f"{source}: {known[0]} to {known[-1]}" for source, known in days.items())}
    drift = {"drift": png_metadata(distributions(shifted, subject))} if plot and shifted else {}
    return DayOutcome.written(day, manifest, before, checks, **metadata, **drift)


def norm_of(view: FeatureViewSpec, day: date, catalog: Catalog, lake: Lake) -> "pads.Dataset | None":
    """The days by which a day's distribution is judged; None where there are too few, or look back on too little."""
    days = list(day_range(day - timedelta(days=NORM_DAYS), day - ONE_DAY))
    if any(len(input_days(view, catalog.sources[s], days[0])) < needs.window_days for s, needs in view.inputs.items()):
        return None
    manifests = lake.manifests(keys.feature_view(view.name), days)
    alike = [manifest for manifest in manifests.values() if manifest.tags.get(DEFINITION) == definition(view)]
    return lake.dataset(keys.feature_view(view.name), days) if len(alike) == NORM_DAYS else None


def covered(
    view: FeatureViewSpec, days: Mapping[str, list[date]], catalog: Catalog, lake: Lake, made: "pads.Dataset"
) -> Verdict:
    """Whether the entities of the newest raw day that has the entity at all have rows."""
    source = next((name for name in days if view.entity in catalog.sources[name].columns), None)
    if view.kind == "rolling" or source is None:
        return Verdict(True)
    return entities_are_covered(view, made, lake.dataset(keys.raw(source), days[source][-1:]))


def repeated(
    view: FeatureViewSpec,
    day: date,
    catalog: Catalog,
    lake: Lake,
    former: Manifest | None,
    made: "pads.Dataset",
) -> Verdict:
    """Hold a day that is computed again against what it was, unless its inputs are others now."""
    if former is None:
        return Verdict(True, "computed from these inputs for the first time")
    identity = [view.entity] if view.kind == "snapshot" else catalog.sources[view.rows or ""].key
    old = lake.read_table(keys.feature_view(view.name), [day])
    return same_inputs_give_same_values(view, [str(name) for name in identity], old, made.to_table())


def _outcome(name: str, verdict: Verdict) -> CheckOutcome:
    severity = dg.AssetCheckSeverity.ERROR if name in BLOCKING else dg.AssetCheckSeverity.WARN
    table = {"table": markdown_table([dict(row) for row in verdict.table])} if verdict.table else None
    return CheckOutcome(name, verdict.passed, verdict.words, table, severity)


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
