"""The exporter: what Dagster, the lake and the registry say, for Prometheus; and the alert that the daemon is dead.

One process beside the daemon, so that it lives when that does not. Counters are kept in the lake, and go on after a restart.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import suppress
from datetime import UTC, date, datetime

from prometheus_client import CollectorRegistry, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, catalog_at
from ml_platform.core.days import start_of
from ml_platform.core.errors import PlatformError
from ml_platform.core.project import find_projects
from ml_platform.core.settings import Settings, load_settings
from ml_platform.core.spec import AlertsSpec
from ml_platform.monitoring.alerts import Alert, State, deliver, observe
from ml_platform.monitoring.cost import HOUR
from ml_platform.monitoring.expected import channels_of, expected
from ml_platform.monitoring.heartbeat import WATCHED, WEBSERVER, heart, watched
from ml_platform.monitoring.panels import dashboard, rules
from ml_platform.monitoring.run_metrics import Histogram, RunTotals
from ml_platform.resources.alert_book import WRITERS, AlertBook
from ml_platform.resources.beside import Beside
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.dagster_history import Present, ended_runs, present
from ml_platform.resources.lake import Lake
from ml_platform.resources.notify import Notifier
from ml_platform.resources.registry import Registry
from ml_platform.resources.spending import rates
from ml_platform.resources.verdict import verdict

EVERY = 15.0  # seconds between two looks
MOST = 500  # tables, models or sensors that one metric names
TOTALS = "alerts/run_totals.json"


class Exporter:
    """Looks, remembers the last look for whoever scrapes, and tells if the daemon is dead."""

    def __init__(
        self,
        catalog: Catalog,
        project: str,
        lake: Lake,
        registry: Registry,
        api: DagsterApi,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.catalog, self.lake, self.registry, self.api, self.clock = catalog, lake, registry, api, clock
        self.spec = catalog.alerts or AlertsSpec()
        self.book = AlertBook(lake, project, "exporter")
        self.state: State | None = None
        self.totals: RunTotals | None = None
        self.seen: list[Metric] = []

    def collect(self) -> Iterator[Metric]:
        """The last look; what the registry of prometheus_client asks for."""
        yield from self.seen

    def look(self) -> None:
        """Look at everything once. Whatever cannot be looked at leaves the rest as it is."""
        self._remember()
        failed: dict[str, str] = {}
        now, metrics = self.clock(), list[Metric]()
        for what, ask in (
            ("dagster", self._dagster),
            ("runs", self._runs),
            ("lake", self._lake),
            ("registry", self._registry),
            ("alerts", self._alerts),
        ):
            try:
                metrics += list(ask())
            except PlatformError as error:
                failed[what] = error.problem
        up = GaugeMetricFamily("ml_platform_exporter_up", "Whether a part could be looked at", labels=["part"])
        for what in ("dagster", "runs", "lake", "registry", "alerts"):
            up.add_metric([what], what not in failed)
        looked = GaugeMetricFamily("ml_platform_exporter_looked_timestamp_seconds", "When the exporter last looked")
        looked.add_metric([], now)
        self.seen = [*metrics, up, looked]
        if "dagster" in failed:
            before = (self.state or State()).open.values()
            unseen = {(one.alert.kind, one.alert.subject) for one in before} - {("daemon_dead", WEBSERVER)}
            self.tell(list(heart(None, failed["dagster"], now, self.api.url)), unseen)

    # --- Dagster ------------------------------------------------------------------------------------------------------

    def _dagster(self) -> Iterator[Metric]:
        now, found = self.clock(), present(self.api)
        self.tell([*heart(found.heartbeats, "", now, self.api.url), *self._watched(found)])
        under_way = GaugeMetricFamily("ml_platform_runs_under_way", "Runs that wait or run", labels=["status"])
        under_way.add_metric(["queued"], found.queued)
        under_way.add_metric(["running"], found.under_way)
        beats = GaugeMetricFamily(
            "ml_platform_daemon_heartbeat_timestamp_seconds", "Last sign of a daemon; 0: none", labels=["daemon"]
        )
        for daemon, last in found.heartbeats.items():
            beats.add_metric([daemon], last or 0.0)
        ticked = GaugeMetricFamily(
            "ml_platform_sensor_tick_timestamp_seconds", "Last tick of a running sensor", labels=["sensor"]
        )
        failing = GaugeMetricFamily(
            "ml_platform_sensor_failed_ticks", "Failed ticks in a row, up to 3", labels=["sensor"]
        )
        for sensor in found.sensors[:MOST]:
            if sensor.running and sensor.ticked:
                ticked.add_metric([sensor.name], sensor.ticked)
            failing.add_metric([sensor.name], sensor.failures)
        yield from (under_way, beats, ticked, failing)

    def _watched(self, found: Present) -> Iterator[Alert]:
        for sensor in found.sensors:
            if sensor.name == WATCHED:
                yield from watched(sensor.running, sensor.failures, sensor.error, self.api.url)

    def _runs(self) -> Iterator[Metric]:
        if self.totals is None:
            kept = Beside(self.lake).read(TOTALS)
            self.totals = RunTotals.from_json(kept) if kept else RunTotals()
        totals, before = self.totals, self.totals.to_json()
        totals.add(list(ended_runs(self.api, totals.since)))
        if (after := totals.to_json()) != before:
            Beside(self.lake).write(TOTALS, after.encode())
        yield _counter("ml_platform_runs", "Runs that have ended", ["about", "status"], totals.runs)
        yield _counter("ml_platform_run_retries", "Runs that were another try", ["about"], totals.retries)
        yield _histogram("ml_platform_run_seconds", "Duration of runs", ["about"], totals.seconds)
        yield _histogram("ml_platform_run_queue_seconds", "From asking for a run to its start", [], {"": totals.queued})
        yield _counter("ml_platform_steps", "Steps that have ended", ["step", "status"], totals.steps)
        yield _counter("ml_platform_step_retries", "Tries of steps after the first", ["step"], totals.step_retries)
        yield _histogram("ml_platform_step_seconds", "Duration of steps", ["step"], totals.step_seconds)
        if prices := self.catalog.cluster.prices:
            hourly = rates(self.catalog, self.lake, prices).hourly
            spend = {step: hourly(step) * one.total / HOUR for step, one in totals.step_seconds.items()}
            yield _counter("ml_platform_spend", f"What steps have cost, in {prices.currency}", ["step"], spend)

    # --- lake and registry --------------------------------------------------------------------------------------------

    def _lake(self) -> Iterator[Metric]:
        now = datetime.fromtimestamp(self.clock(), UTC)
        late = GaugeMetricFamily(
            "ml_platform_table_late_seconds", "How long the newest due day is late; 0: it is there", labels=["table"]
        )
        for one in expected(self.catalog)[:MOST]:
            day = one.newest_due(now)
            missing = day is not None and self.lake.manifest(one.key, day) is None
            late.add_metric([one.key], (now - one.due_at(day)).total_seconds() if missing and day else 0.0)
        gates = GaugeMetricFamily(
            "ml_platform_gate_passed", "Whether the newest evaluation passes", labels=["model", "gate"]
        )
        for name, model in list(self.catalog.models.items())[:MOST]:
            newest = max(self.lake.days(keys.evaluation(name)), default=None)
            for gate in verdict(model, newest, self.lake)[1] if newest else ():
                gates.add_metric([name, gate.name], gate.passed)
        yield from (late, gates)

    def _registry(self) -> Iterator[Metric]:
        age = GaugeMetricFamily(
            "ml_platform_model_age_seconds", "Time since the champion's training date", labels=["model"]
        )
        step = GaugeMetricFamily(
            "ml_platform_rollout_step", "Step of a rollout under way, from 1; 0: there is none", labels=["model"]
        )
        for name in list(self.catalog.models)[:MOST]:
            standing = self.registry.standing(name)
            if champion := standing.aliases.champion:
                with suppress(ValueError):  # of another writer, without a date
                    trained = start_of(date.fromisoformat(champion.training_date))
                    age.add_metric([name], self.clock() - trained.timestamp())
            step.add_metric([name], standing.active.step + 1 if standing.active else 0)
        yield from (age, step)

    # --- alerts -------------------------------------------------------------------------------------------------------

    def _alerts(self) -> Iterator[Metric]:
        opened = GaugeMetricFamily("ml_platform_alerts_open", "Open alerts", labels=["kind", "severity"])
        broken = GaugeMetricFamily(
            "ml_platform_channel_failures", "Tries in a row that a channel did not take", labels=["channel"]
        )
        counts: dict[tuple[str, str], int] = {}
        for who in WRITERS:
            state = self.book.of(who).state()
            for one in state.open.values():
                if one.gone is None:
                    kind = (one.alert.kind, one.alert.severity)
                    counts[kind] = counts.get(kind, 0) + 1
            for name, trouble in state.channels.items():
                broken.add_metric([name], trouble.failures)
        for labels, count in counts.items():
            opened.add_metric(labels, count)
        yield from (opened, broken)

    def _remember(self) -> None:
        """What was told before this process began. Without a lake it remembers by itself."""
        if self.state is None:
            with suppress(PlatformError):
                self.state = self.book.state()

    def tell(self, alerts: list[Alert], unseen: Collection[tuple[str, str]] = ()) -> None:
        """Send what is due of these, which are all that the exporter tells of; `unseen` could not be looked at."""
        now, silences = self.clock(), []
        with suppress(PlatformError):
            silences = self.book.silences(now)
        state = observe(self.state or State(), alerts, unseen, lambda one: channels_of(self.spec, one), silences, now)
        self._keep(state)
        self._keep(deliver(state, now, Notifier(self.spec, os.environ).send, self._keep))

    def _keep(self, state: State) -> None:
        if state != self.state:
            self.state = state
            with suppress(PlatformError):
                self.book.keep(state)


def _counter(name: str, words: str, labels: list[str], counts: Mapping[str, float]) -> Metric:
    family = CounterMetricFamily(name, words, labels=labels)
    for key, count in counts.items():
        family.add_metric(key.rsplit(" ", len(labels) - 1) if len(labels) > 1 else [key], count)
    return family


def _histogram(name: str, words: str, labels: list[str], by_key: dict[str, Histogram]) -> Metric:
    family = HistogramMetricFamily(name, words, labels=labels)
    for key, one in by_key.items():
        family.add_metric([key] if labels else [], one.cumulative(), one.total)
    return family


def exporter_at(settings: Settings) -> Exporter:
    """The exporter of the first of the projects; metrics are of all."""
    project = find_projects(settings.project)[0]
    lake, registry = Lake.at(settings), Registry.at(settings)
    return Exporter(catalog_at(settings), project.package, lake, registry, DagsterApi.at(settings))


def main() -> None:
    """Serve until SIGTERM."""
    settings = load_settings()
    exporter, stop = exporter_at(settings), threading.Event()
    metrics = CollectorRegistry()
    metrics.register(exporter)  # type: ignore[arg-type]  # whatever has collect() is a collector
    start_http_server(settings.exporter_port, settings.exporter_host, metrics)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    while not stop.is_set():
        try:
            exporter.look()
        except Exception as error:  # noqa: BLE001  # nothing that it looks at ends the dead man's switch
            print(f"exporter: {type(error).__name__}: {error}", file=sys.stderr, flush=True)
        stop.wait(EVERY)


if __name__ == "__main__":
    made = {"rules": rules, "dashboard": dashboard}
    if sys.argv[1:]:
        print(made[sys.argv[1]](), end="")
    else:
        main()
