"""Automation: what sets the graph in motion. One sensor each for arrival, for freshness and for training."""

import json
from datetime import UTC, date, datetime

import dagster as dg
from dagster._core.storage.dagster_run import NOT_FINISHED_STATUSES

from ml_platform.components.graph import SpecComponent, asset_key, read_catalog
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import AutomationSpec, ModelSpec, SourceSpec
from ml_platform.data.landing import Arrival, find_arrivals
from ml_platform.monitoring.retrain import Train
from ml_platform.resources.cluster import seconds
from ml_platform.resources.lake import Lake
from ml_platform.resources.lineage import training_decision, training_needs
from ml_platform.resources.object_store import ObjectStore

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
MAX_RUNTIME = "dagster/max_runtime"


class Automation(SpecComponent):
    """The sensors over all sources, feature views and models."""

    spec_class = AutomationSpec

    def build_defs(self, context: dg.ComponentLoadContext) -> dg.Definitions:
        catalog, pace = read_catalog(), self.spec
        freshness = dg.AutomationConditionSensorDefinition(
            "freshness_sensor",
            target=dg.AssetSelection.groups("features"),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=pace.freshness_interval,
            # A backlog of days becomes one backfill with range runs instead of a run for every day.
            emit_backfills=True,
            description="Features follow their raw partitions, the online store follows the features.",
        )
        sensors = [arrival_sensor(catalog, pace), freshness]
        if catalog.models:
            sensors.append(retrain_sensor(catalog, pace))
        return dg.Definitions(sensors=sensors)


# --- arrival ----------------------------------------------------------------------------------------------------------


def arrival_sensor(catalog: Catalog, pace: AutomationSpec) -> dg.SensorDefinition:
    @dg.sensor(
        name="arrival_sensor",
        target=dg.AssetSelection.assets(*(asset_key(keys.raw(source)) for source in catalog.sources)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.arrival_interval,
        description="Reports what landed in S3, and starts the raw partitions of every day with new content.",
    )
    def arrival(context: dg.SensorEvaluationContext, landing: dg.ResourceParam[ObjectStore]) -> dg.SensorResult:
        cursor = json.loads(context.cursor or "{}")
        look, seen = cursor.get("look", 0) + 1, cursor.get("seen", {})
        today = datetime.now(UTC).date()
        events, requests = [], []
        for name, source in catalog.sources.items():
            found = find_arrivals(name, landing.objects(f"{name}/"), seen.get(name, {}), source.start_date, today)
            for problem in found.ignored:
                context.log.warning(f"{keys.landed(name)}: ignored {problem}")
            seen[name] = found.seen
            events += [_landed(arrival, landing) for arrival in found.new]
            requests += [
                _ingest_request(source, first, last, found.run_key(first, last, look)) for first, last in found.ranges
            ]
        if not events:
            return dg.SensorResult(skip_reason="nothing new has landed")
        return dg.SensorResult(
            asset_events=events, run_requests=requests, cursor=json.dumps({"look": look, "seen": seen})
        )

    return arrival


def _landed(arrival: Arrival, landing: ObjectStore) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key(keys.landed(arrival.source)),
        partition=arrival.day.isoformat(),
        metadata={
            "files": len(arrival.objects),
            "bytes": arrival.total_bytes,
            "newest_arrival": dg.MetadataValue.timestamp(arrival.newest),
            "objects": dg.MetadataValue.md("\n".join(f"- `{landing.url(o.key)}`" for o in arrival.objects[:20])),
        },
    )


def _ingest_request(source: SourceSpec, first: date, last: date, run_key: str) -> dg.RunRequest:
    key = asset_key(keys.raw(source.name))
    if first == last:
        return dg.RunRequest(run_key=run_key, asset_selection=[key], partition_key=first.isoformat())
    tags = {RANGE_START: first.isoformat(), RANGE_END: last.isoformat()}
    return dg.RunRequest(run_key=run_key, asset_selection=[key], tags=tags)


# --- training ---------------------------------------------------------------------------------------------------------


def model_assets(model: str) -> list[dg.AssetKey]:
    """The assets that one training makes, in order."""
    nouns = (keys.training_set, keys.candidate, keys.evaluation, keys.model_version, keys.deployment)
    return [asset_key(noun(model)) for noun in nouns]


def retrain_sensor(catalog: Catalog, pace: AutomationSpec) -> dg.SensorDefinition:
    @dg.sensor(
        name="retrain_sensor",
        target=dg.AssetSelection.assets(*(key for model in catalog.models for key in model_assets(model))),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.retrain_interval,
        description="Starts a training when one is due by cadence or by changed inputs, and its inputs are complete.",
    )
    def retrain(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult:
        busy = assets_in_progress(context.instance)
        requests, reasons = [], []
        for spec in catalog.models.values():
            request = training_request(spec, catalog, lake, busy)
            if isinstance(request, dg.RunRequest):
                requests.append(request)
            else:
                reasons.append(f"{spec.name}: {request}")
        skipped = "; ".join(reasons) or None
        if requests and skipped:  # Dagster takes a reason only where nothing is requested
            context.log.info(skipped)
        return dg.SensorResult(run_requests=requests, skip_reason=None if requests else skipped)

    return retrain


def assets_in_progress(instance: dg.DagsterInstance) -> set[dg.AssetKey]:
    """Assets that some queued or running run is going to materialize."""
    runs = instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES))
    return {key for run in runs for key in run.asset_selection or ()}


def training_request(spec: ModelSpec, catalog: Catalog, lake: Lake, busy: set[dg.AssetKey]) -> dg.RunRequest | str:
    """The request for the training that is due, or in words why there is none."""
    upstream = {asset_key(key) for key, _ in training_needs(catalog, spec, date.today())}
    if waiting := sorted(key.to_user_string() for key in busy & {*upstream, *model_assets(spec.name)}):
        return f"waiting for {', '.join(waiting)}"
    decision = training_decision(lake, catalog, spec)
    if not isinstance(decision, Train):
        return decision.reason
    day = decision.training_date
    tags = {"ml_platform/reason": decision.reason}
    if spec.resources.timeout:
        tags[MAX_RUNTIME] = str(seconds(spec.resources.timeout))
    # A failed training is not asked for again until its inputs change; one whose inputs change back is.
    before = lake.manifest(keys.training_set(spec.name), day)
    return dg.RunRequest(
        run_key=f"{spec.name}:{day}:{decision.inputs}:{before.written_at if before else 'first'}",
        partition_key=day.isoformat(),
        asset_selection=model_assets(spec.name),
        tags=tags,
    )
