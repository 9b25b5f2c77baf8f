"""What was asked for and is not there is asked for again; what is there and Dagster does not know is reported."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_TAG
from dagster._core.execution.backfill import BulkActionsFilter, BulkActionStatus, PartitionBackfill
from dagster._core.storage.dagster_run import RunRecord
from dagster_shared.error import SerializableErrorInfo

from ml_platform.components.execution import training_run_config
from ml_platform.components.graph import asset_key
from ml_platform.components.partitions import PARTITION, RANGE_END, RANGE_START, days_of_run
from ml_platform.components.reporting import MISTAKES
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import PlatformError
from ml_platform.core.spec import AutomationSpec, ModelSpec
from ml_platform.monitoring.due import Again, Ask, Part, decide
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Manifest
from ml_platform.resources.release import Clock, utc_now
from ml_platform.resources.triggers import MODEL, REASON, TRIGGER
from ml_platform.training.overrides import op_of

TRIES, AGAIN_OF = "ml_platform/try", "ml_platform/again_of"  # tags: how often it was tried, and for which run it stands
STAYS = (MODEL, TRIGGER, "dagster/priority", "dagster-k8s/config")  # tags that a run has again
LOOK_BACK = timedelta(days=7)  # of the first tick
OVERLAP = timedelta(seconds=60)  # a run's end is written a moment after it
REPORTED = 100  # partitions that a tick reports at most
# What code raises whose author has to mend it. By name, since that is all that Dagster keeps of an error.
_WRONG_CODE = (AssertionError, AttributeError, ImportError, IndexError, KeyError, ModuleNotFoundError, NameError)
_WRONG_CODE += (
    NotImplementedError,
    RecursionError,
    SyntaxError,
    TypeError,
    UnboundLocalError,
    ValueError,
    ZeroDivisionError,
)
FINAL = {error.__name__ for error in (*MISTAKES, *_WRONG_CODE)} | {"DagsterAssetCheckFailedError"}


def recovery_sensor(catalog: Catalog, pace: AutomationSpec, clock: Clock = utc_now) -> dg.SensorDefinition:
    """Raw partitions that arrivals start are asked for again by the arrival sensor, which knows what has landed since."""
    arriving = {keys.raw(feed) for feed in catalog.feeds}

    @dg.sensor(
        name="recovery_sensor",
        asset_selection=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.recovery_interval,
        description="Asks again for what runs should have made and did not, and reports what is there unknown to Dagster.",
    )
    def recovery(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult:
        now, instance = clock(), context.instance
        state: dict[str, Any] = json.loads(context.cursor or "{}")
        since = datetime.fromtimestamp(state["looked"], UTC) if "looked" in state else now - LOOK_BACK
        asks = find_asks(context, since - OVERLAP, state.get("open", ()))
        known = set(context.repository_def.asset_graph.materializable_asset_keys)  # type: ignore[union-attr]
        report = _Report(lake, instance)
        asks = [report.of_ask(ask) if ask.ending in ("trouble", "mistake") else ask for ask in asks]
        lost = [_without(ask, arriving, known) for ask in asks]
        decision = decide(lost, now.timestamp())
        turn = report.next_table(sorted(key.to_user_string() for key in known), state.get("table", ""))
        for reason in decision.reasons:
            context.log.info(reason)
        waiting = [ask.id for ask in lost if ask.ending == "trouble" and ask.id not in decision.settled]
        requests = [_request(one, catalog, context.instance) for one in decision.again]
        reasons = "; ".join(decision.reasons) or "nothing that was asked for is missing"
        return dg.SensorResult(
            run_requests=requests,
            asset_events=report.events,
            skip_reason=None if requests else dg.SkipReason(reasons),
            cursor=json.dumps({"looked": now.timestamp(), "open": waiting, "table": turn}),
        )

    return recovery


# --- what was asked for -----------------------------------------------------------------------------------------------


def find_asks(context: dg.SensorEvaluationContext, since: datetime, waiting: Sequence[str]) -> list[Ask]:
    """Runs and backfills that failed since then or still wait, and all that was asked for after the first of them."""
    instance = context.instance
    failed = dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE], updated_after=since)
    records = {record.dagster_run.run_id: record for record in instance.get_run_records(failed)}
    records |= _records(instance, dg.RunsFilter(run_ids=list(waiting))) if waiting else {}
    backfills = [
        found
        for found in instance.get_backfills(filters=BulkActionsFilter(statuses=[BulkActionStatus.FAILED]), limit=100)
        if found.backfill_id in waiting
        or (found.backfill_end_timestamp or found.backfill_timestamp) >= since.timestamp()
    ]
    starts = [record.create_timestamp.timestamp() for record in records.values()]
    if not (starts or backfills):
        return []
    first = min([*starts, *(found.backfill_timestamp for found in backfills)])
    records |= _records(instance, dg.RunsFilter(created_after=datetime.fromtimestamp(first, UTC)))
    return [
        *(ask_of_run(instance, record) for record in records.values()),
        *(ask_of_backfill(context, found) for found in backfills),
    ]


def _records(instance: dg.DagsterInstance, chosen: dg.RunsFilter) -> dict[str, RunRecord]:
    return {record.dagster_run.run_id: record for record in instance.get_run_records(chosen)}


def ask_of_run(instance: dg.DagsterInstance, record: RunRecord) -> Ask:
    run = record.dagster_run
    days = days_of_run(run.tags)
    assets = [key.to_user_string() for key in run.asset_selection or ()]
    parts = frozenset((asset, day) for asset in assets for day in (days or [None]))
    at = record.create_timestamp.timestamp()
    if not run.is_finished:
        return Ask(run.run_id, at, parts)
    if run.status != dg.DagsterRunStatus.FAILURE:
        return Ask(run.run_id, at, parts, ending="made")
    ending, why = ending_of(instance, run)
    before = list(_repeated(instance, run))
    return Ask(
        run.run_id,
        at,
        parts,
        parts.difference(*(made_by(instance, one.run_id) for one in (run, *before))),
        ending,
        record.end_time or record.update_timestamp.timestamp(),
        int(run.tags.get(TRIES, 1)),
        why,
    )


def _repeated(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Iterator[dg.DagsterRun]:
    """The runs that Dagster began again as this one, which makes only what they did not."""
    parent = run.parent_run_id
    while parent and (found := instance.get_run_by_id(parent)):
        yield found
        parent = found.parent_run_id


def ask_of_backfill(context: dg.SensorEvaluationContext, backfill: PartitionBackfill) -> Ask:
    """A backfill that Dagster itself gave up, as when the code location was away; its runs are asks of their own."""
    assert context.repository_def is not None, "the daemon evaluates sensors of a repository"
    target = backfill.get_asset_backfill_data(context.repository_def.asset_graph).target_subset
    parts = frozenset(
        (one.asset_key.to_user_string(), date.fromisoformat(one.partition_key) if one.partition_key else None)
        for one in target.iterate_asset_partitions()
    )
    ended = backfill.backfill_end_timestamp or backfill.backfill_timestamp
    why = backfill.error.message if backfill.error else "the backfill failed"
    return Ask(backfill.backfill_id, backfill.backfill_timestamp, parts, parts, "trouble", ended, 1, why)


def made_by(instance: dg.DagsterInstance, run_id: str) -> frozenset[Part]:
    """What a run has materialized."""
    events = instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    made = [event.dagster_event for event in events if event.dagster_event and event.dagster_event.asset_key]
    return frozenset(
        (event.asset_key.to_user_string(), date.fromisoformat(event.partition) if event.partition else None)  # type: ignore[union-attr]
        for event in made
    )


def ending_of(instance: dg.DagsterInstance, run: dg.DagsterRun) -> tuple[Any, str]:
    """Whether a run failed by trouble with the outside, which passes, or by a mistake; and its words."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_FAILURE)
    words = "its process ended, or it could not be started"
    for event in (event.dagster_event for event in events if event.dagster_event):
        data = event.step_failure_data
        raised = data.user_failure_data
        if raised is not None and str(getattr(raised.metadata.get("stopped"), "value", "")) != "preempted":
            return "mistake", raised.description or ""
        errors = list(_chain(data.error))
        words = errors[-1].message.strip() if errors else words
        if any(error.cls_name in FINAL for error in errors):
            return "mistake", words
    return "trouble", words


def _chain(error: SerializableErrorInfo | None) -> Iterator[SerializableErrorInfo]:
    """An error, and what it was raised from."""
    while error is not None:
        yield error
        error = error.cause


def _without(ask: Ask, arriving: Iterable[str], known: Iterable[dg.AssetKey]) -> Ask:
    """The ask without what others look after, and what is no longer declared."""
    declared = {key.to_user_string() for key in known} - {*arriving}
    missing = frozenset(part for part in ask.missing if part[0] in declared)
    return Ask(ask.id, ask.at, ask.parts, missing, ask.ending, ask.ended, ask.tries, ask.why)


def _request(again: Again, catalog: Catalog, instance: dg.DagsterInstance) -> dg.RunRequest:
    after, failed = again.after, instance.get_run_by_id(again.after.id)  # None: a backfill
    tags = {name: value for name, value in failed.tags.items() if name in STAYS} if failed else {}
    tags |= {TRIES: str(after.tries + 1), AGAIN_OF: after.id, REASON: f"again: {after.why[:200]}"}
    if again.days and again.days[0] == again.days[1]:
        tags[PARTITION] = again.days[0].isoformat()
    elif again.days:
        tags |= {RANGE_START: again.days[0].isoformat(), RANGE_END: again.days[1].isoformat()}
    owners = {asset.split("/")[0] for asset in again.assets} & {*catalog.models}
    return dg.RunRequest(
        run_key=f"{after.id}:{after.tries}:{','.join(again.assets)}:{again.days}",
        asset_selection=[asset_key(asset) for asset in again.assets],
        tags=tags,
        run_config=_run_config(again, failed, catalog.models[owners.pop()]) if len(owners) == 1 else {},
    )


def _run_config(again: Again, failed: dg.DagsterRun | None, spec: ModelSpec) -> dict[str, Any]:
    """What a run said otherwise than the model file is said again, where the training begins anew."""
    config = training_run_config(spec)
    if failed and keys.training_set(spec.name) in again.assets:
        ops: Any = failed.run_config.get("ops", {})
        config |= {"ops": {op: said for op, said in ops.items() if op == op_of(spec.name)}}
    return config


# --- what is there ----------------------------------------------------------------------------------------------------


class _Report:
    """What the lake has and Dagster does not know, as events."""

    def __init__(self, lake: Lake, instance: dg.DagsterInstance) -> None:
        self.lake, self.instance = lake, instance
        self.events: list[dg.AssetMaterialization] = []

    def of_ask(self, ask: Ask) -> Ask:
        """The ask without what it wrote before it could say so."""
        written = set[Part]()
        for asset, day in ask.missing:
            manifest = self._manifest(asset, day) if day else None
            if day and manifest and datetime.fromisoformat(manifest.written_at).timestamp() >= ask.at:
                written.add((asset, day))
                if not self._is_known(asset, day, manifest):
                    self.events.append(materialization(asset, day, manifest))
        return Ask(ask.id, ask.at, ask.parts, ask.missing - written, ask.ending, ask.ended, ask.tries, ask.why)

    def next_table(self, tables: Sequence[str], last: str) -> str:
        """Look at the table after `last`, unless somebody is writing it; returns its name."""
        if not tables:
            return ""
        table = next((name for name in tables if name > last), tables[0])
        running = self.instance.get_runs(dg.RunsFilter(statuses=list(_NOT_OVER)))
        if any(asset_key(table) in (run.asset_selection or ()) for run in running):
            return table
        reported = {event.partition for event in self.events if event.asset_key == asset_key(table)}
        try:
            there = self.lake.days(table)
            known = self.instance.get_materialized_partitions(asset_key(table)) if there else set()
            unknown = [day for day in there if day.isoformat() not in known | reported][:REPORTED]
            found = self.lake.manifests(table, unknown)
        except PlatformError:
            return table
        self.events += [materialization(table, day, manifest) for day, manifest in found.items()]
        return table

    def _manifest(self, asset: str, day: date) -> Manifest | None:
        try:
            return self.lake.manifest(asset, day)
        except PlatformError:  # nobody can say whether it was made, so that it is made again
            return None

    def _is_known(self, asset: str, day: date, manifest: Manifest) -> bool:
        latest = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(asset_key(asset), asset_partitions=[day.isoformat()]), limit=1
        ).records
        return bool(latest) and _hash(latest[0].asset_materialization) == manifest.content_hash


_NOT_OVER = (
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.NOT_STARTED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
)


def materialization(asset: str, day: date, manifest: Manifest) -> dg.AssetMaterialization:
    """The event of a partition that is in the lake, in place of the one that its writer could not give."""
    metadata = {"dagster/partition_row_count": manifest.rows, "content_hash": manifest.content_hash}
    return dg.AssetMaterialization(
        asset_key(asset),
        description=f"found in the lake, written at {manifest.written_at}",
        partition=day.isoformat(),
        metadata=metadata,
        tags={DATA_VERSION_TAG: manifest.content_hash},
    )


def _hash(event: dg.AssetMaterialization | None) -> str | None:
    found: Mapping[str, Any] = event.metadata if event else {}
    return getattr(found.get("content_hash"), "value", None)
