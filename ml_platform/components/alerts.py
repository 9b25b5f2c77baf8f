"""Alerts: one sensor that looks at what is wrong, and tells those whom it concerns."""

import os
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import InstigatorState, InstigatorStatus, TickStatus

from ml_platform.components.graph import SpecComponent, asset_key
from ml_platform.components.run_failures import Failures
from ml_platform.components.run_failures import look as look_at_runs
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.project import find_project
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import AlertsSpec
from ml_platform.monitoring.alerts import Alert, broken_channels, deliver, observe
from ml_platform.monitoring.expected import channels_of
from ml_platform.monitoring.heartbeat import FAILED_TICKS, WATCHED
from ml_platform.resources.alert_book import AlertBook
from ml_platform.resources.lake import Lake
from ml_platform.resources.looks import Look, Watch
from ml_platform.resources.notify import Notifier
from ml_platform.resources.online_store import OnlineStore
from ml_platform.resources.registry import Registry
from ml_platform.resources.release import Clock, utc_now

SILENT = timedelta(minutes=15)  # since a sensor's last tick


class Alerts(SpecComponent):
    """Who is told of what is wrong: channels, routes, and the sensor that looks."""

    spec_class = AlertsSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        settings = load_settings()
        project = find_project(settings.project).package
        return dg.Definitions(sensors=[alert_sensor(catalog, self.spec, project, settings.dagster_url)])


def alert_sensor(
    catalog: Catalog, spec: AlertsSpec, project: str, url: str, clock: Clock = utc_now
) -> dg.SensorDefinition:
    """A tick looks, writes down what is open, sends what is due, and writes down after each message what was told.

    Nothing that goes wrong with a look or a channel fails the tick: it is an alert of its own.
    """

    @dg.sensor(
        name=WATCHED,
        asset_selection=dg.AssetSelection.all(),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=spec.interval,
        description="Looks at what has failed, is late, stuck or broken, and tells each channel once, and once that it is over.",
    )
    def alert(
        context: dg.SensorEvaluationContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        store: dg.ResourceParam[OnlineStore],
    ) -> dg.SkipReason:
        now, book, notifier = clock(), AlertBook(lake, project), Notifier(spec, os.environ)
        before = book.state()
        turn = int(before.more.get("turn", 0))
        failures = look_at_runs(context.instance, catalog, Failures.of(before.more.get("runs", {})), now, url)
        watch = Watch(catalog, lake, now, turn, url)
        found = Look([watch.finish(one) for one in failures.alerts()])
        for look in (watch.late(), watch.quarantined(spec.quarantine_days), watch.rejected(), watch.rollouts(registry)):
            found.add(look)
        if _has_online_store(context):
            found.add(watch.online(store))
        found.seen += [*sensors(context, now, url), *broken_channels(before)]
        state = observe(
            before,
            found.seen,
            found.unseen,
            lambda one: channels_of(spec, one),
            book.silences(now.timestamp()),
            now.timestamp(),
        ).keeping({"turn": turn + 1, "runs": failures.kept()})
        book.keep(state)
        state = deliver(state, now.timestamp(), notifier.send, book.keep)
        notifier.repeat(state)
        for name, trouble in state.channels.items():
            context.log.warning(f"channel {name}: {trouble.failures} tries: {trouble.error}")
        return dg.SkipReason(f"{len(state.open)} alerts are open; ml-platform alerts list")

    return alert


def _has_online_store(context: dg.SensorEvaluationContext) -> bool:
    repository = context.repository_def
    return repository is not None and repository.asset_graph.has(asset_key(keys.ONLINE_STORE))


def sensors(context: dg.SensorEvaluationContext, now: datetime, url: str) -> Iterator[Alert]:
    """Alerts about sensors of this code location that are stopped, fail again and again, or do not tick."""
    repository = context.repository_def
    names = {sensor.name for sensor in repository.sensor_defs} - {WATCHED} if repository else set()
    for state in context.instance.all_instigator_state(instigator_type=InstigatorType.SENSOR):
        if state.instigator_name in names and (words := _trouble_of(context.instance, state, now)):
            cause, reason = words
            yield Alert(
                "sensor_dead",
                f"sensor/{state.instigator_name}",
                reason,
                cause=cause,
                value=cause,
                limit=f"{FAILED_TICKS} failed ticks, or {SILENT.total_seconds() / 60:g} minutes without one",
                link=f"{url}/automation",
                next_step="see its ticks in Dagster's UI; ml-platform status",
            )


def _trouble_of(instance: dg.DagsterInstance, state: InstigatorState, now: datetime) -> tuple[str, str] | None:
    if state.status == InstigatorStatus.STOPPED:
        return "stopped", "somebody has stopped it"
    ticks: list[Any] = list(instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=FAILED_TICKS))
    if len(ticks) == FAILED_TICKS and all(tick.status == TickStatus.FAILURE for tick in ticks):
        error = ticks[0].error
        return "failing", f"its last {FAILED_TICKS} ticks failed: {error.message.strip()[:600] if error else ''}"
    if ticks and now.timestamp() - ticks[0].timestamp > SILENT.total_seconds():
        return "silent", "it does not tick any more"
    return None
