"""Automation: what sets the graph in motion. One sensor each for arrival, freshness, training, rollouts and recovery."""

import logging
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.storage.dagster_run import FINISHED_STATUSES, NOT_FINISHED_STATUSES

from ml_platform.components.execution import training_run_config
from ml_platform.components.graph import SpecComponent, asset_key
from ml_platform.components.messages import kafka_sensor
from ml_platform.components.partitions import RANGE_END, RANGE_START, days_of_run
from ml_platform.components.recovery import recovery_sensor
from ml_platform.components.rollout import rollout_progress_sensor
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LandingError, PlatformError
from ml_platform.core.spec import AutomationSpec, ModelSpec, ObjectsOrigin, SourceSpec
from ml_platform.data.arrivals import Request, look, plan
from ml_platform.data.landing import Page, lateness
from ml_platform.data.watch import Arrival, Watch
from ml_platform.monitoring.retrain import Train, one_cause
from ml_platform.resources.cluster import priority_tags
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import is_handled
from ml_platform.resources.lineage import training_decision, training_needs
from ml_platform.resources.messages import topics_of
from ml_platform.resources.origins import Origins
from ml_platform.resources.triggers import MODEL, TRIGGER, tags_of, training_assets

OVERLAP = timedelta(seconds=15)  # a run's end is written a moment after it
MENTIONED = 5  # misnamed objects that a tick's log mentions


class Automation(SpecComponent):
    """The sensors over all sources, feature views and models."""

    spec_class = AutomationSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        pace = self.spec
        freshness = dg.AutomationConditionSensorDefinition(
            "freshness_sensor",
            target=dg.AssetSelection.groups("features") | dg.AssetSelection.assets(*united(catalog), *scored(catalog)),
            default_status=dg.DefaultSensorStatus.RUNNING,
            minimum_interval_seconds=pace.freshness_interval,
            # A backlog of days becomes one backfill with range runs instead of a run for every day.
            emit_backfills=True,
            description="Features follow their raw partitions, the online store and the newest predictions follow the features.",
        )
        sensors = [arrival_sensor(catalog, pace), freshness, recovery_sensor(catalog, pace)]
        if catalog.models:
            sensors += [retrain_sensor(catalog, pace), rollout_progress_sensor(catalog, pace)]
        if topics_of(catalog):
            sensors.append(kafka_sensor(catalog, pace))
        return dg.Definitions(sensors=sensors)


def united(catalog: Catalog) -> list[dg.AssetKey]:
    """Raw tables that follow their segments."""
    return [asset_key(keys.raw(source.name)) for source in catalog.own_sources.values() if source.segments]


def scored(catalog: Catalog) -> list[dg.AssetKey]:
    """Predictions that follow their features, and what is found of them."""
    specs = catalog.models.values()
    return [
        *(asset_key(keys.predictions(spec.name)) for spec in specs if spec.predictions.automatic_days),
        *(asset_key(keys.monitoring(spec.name)) for spec in specs if spec.monitoring.automatic_days),
    ]


# --- arrival ----------------------------------------------------------------------------------------------------------


def arrival_sensor(catalog: Catalog, pace: AutomationSpec) -> dg.SensorDefinition:
    @dg.sensor(
        name="arrival_sensor",
        asset_selection=dg.AssetSelection.assets(*(asset_key(keys.raw(feed)) for feed in catalog.feeds)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.arrival_interval,
        description="Reports what landed, and starts the raw partitions of every day with new content.",
    )
    def arrival(
        context: dg.SensorEvaluationContext, origins: dg.ResourceParam[Origins], lake: dg.ResourceParam[Lake]
    ) -> dg.SensorResult:
        now, sources = datetime.now(UTC), catalog.feeds
        watch = Watch.from_json(context.cursor)
        seen = look(sources, watch, lambda source, after: page(origins, source, after), pace.lists_per_tick, now.date())
        for problem in [*seen.ignored[:MENTIONED], *(f"{name}: {error}" for name, error in seen.unreachable.items())]:
            context.log.warning(problem)
        planned = plan(
            sources,
            seen,
            lambda source, day, content: _handled(context.log, lake, catalog, sources[source], day, content),
            *raw_days(context.instance, catalog, datetime.fromtimestamp(watch.planned_at, UTC) - OVERLAP),
            now.timestamp(),
        )
        return dg.SensorResult(
            asset_events=[_landed(arrival, sources[arrival.source]) for arrival in seen.found],
            run_requests=[_ingest_request(request) for request in planned.requests],
            cursor=planned.watch.to_json(),
        )

    return arrival


def _handled(log: logging.Logger, lake: Lake, catalog: Catalog, source: SourceSpec, day: date, content: str) -> bool:
    """Whether a day needs nothing more. One of which that cannot be said is named, and keeps no other day waiting."""
    try:
        return is_handled(lake, catalog, source, day, content)
    except PlatformError as error:
        log.warning(f"{source.name} [{day}] waits, since nobody can say what became of it: {error}")
        return True


def page(origins: Origins, source: SourceSpec, after: str) -> Page:
    """Part of a listing. Whatever is wrong with one source must not keep the others from being looked at."""
    try:
        return origins.of(source).page(source, after)
    except Exception as error:
        raise LandingError(source.name, f"cannot be listed: {error}", "mend `origin` or its settings") from error


def raw_days(
    instance: dg.DagsterInstance, catalog: Catalog, since: datetime
) -> tuple[set[tuple[str, date]], set[tuple[str, date]]]:
    """Days of sources that queued or running runs are going to make, and those of runs that have ended since."""
    raws = {asset_key(keys.raw(feed)): feed for feed in catalog.feeds}

    def days_of(runs: Iterable[dg.DagsterRun]) -> set[tuple[str, date]]:
        return {
            (raws[key], day)
            for run in runs
            for key in run.asset_selection or ()
            if key in raws
            for day in days_of_run(run.tags)
        }

    busy = days_of(instance.get_runs(dg.RunsFilter(statuses=NOT_FINISHED_STATUSES)))
    ended = instance.get_runs(dg.RunsFilter(statuses=FINISHED_STATUSES, updated_after=since))
    return busy, days_of(ended)


def _landed(arrival: Arrival, source: SourceSpec) -> dg.AssetMaterialization:
    late = lateness(source, arrival.day, arrival.newest)
    return dg.AssetMaterialization(
        asset_key(keys.landed(arrival.source)),
        partition=arrival.day.isoformat(),
        metadata={
            "files": arrival.files,
            "bytes" if isinstance(source.origin, ObjectsOrigin) else "size": arrival.bytes,
            "newest_arrival": dg.MetadataValue.timestamp(arrival.newest),
            "lateness_hours": round(late.total_seconds() / 3600, 2),
        },
        tags={DATA_VERSION_TAG: arrival.fingerprint},
    )


def _ingest_request(request: Request) -> dg.RunRequest:
    selection = [asset_key(keys.raw(request.source))]
    if request.first == request.last:
        return dg.RunRequest(request.run_key, asset_selection=selection, partition_key=request.first.isoformat())
    tags = {RANGE_START: request.first.isoformat(), RANGE_END: request.last.isoformat()}
    return dg.RunRequest(request.run_key, asset_selection=selection, tags=tags)


# --- training ---------------------------------------------------------------------------------------------------------


def model_assets(spec: ModelSpec) -> list[dg.AssetKey]:
    """The assets that one training makes, in order."""
    return [asset_key(key) for key in training_assets(spec)]


def retrain_sensor(catalog: Catalog, pace: AutomationSpec) -> dg.SensorDefinition:
    @dg.sensor(
        name="retrain_sensor",
        asset_selection=dg.AssetSelection.assets(
            *(key for spec in catalog.models.values() for key in model_assets(spec))
        ),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.retrain_interval,
        description="Starts a training when one is due by cadence, schedule, new days, changed inputs or an alarm, and its inputs are "
        "complete.",
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
        asked = {request.tags[MODEL]: request.tags.get(TRIGGER, "") for request in requests if MODEL in request.tags}
        held = one_cause(asked, {spec.name: spec.entity_rows for spec in catalog.models.values()})
        requests = [request for request in requests if request.tags.get(MODEL) not in held]
        reasons += [f"{model}: {why}" for model, why in held.items()]
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
    if waiting := sorted(key.to_user_string() for key in busy & {*upstream, *model_assets(spec)}):
        return f"waiting for {', '.join(waiting)}"
    decision = training_decision(lake, catalog, spec)
    if not isinstance(decision, Train):
        return decision.reason
    day = decision.training_date
    # A failed training is not asked for again until its inputs change; one whose inputs change back is.
    before = lake.manifest(keys.training_set(spec.name), day)
    return dg.RunRequest(
        run_key=f"{spec.name}:{decision.identity}:{before.written_at if before else 'first'}",
        partition_key=day.isoformat(),
        asset_selection=model_assets(spec),
        tags={**tags_of(spec.name, decision.trigger, decision.reason), **priority_tags(0, catalog.cluster)},
        run_config=training_run_config(spec),
    )
