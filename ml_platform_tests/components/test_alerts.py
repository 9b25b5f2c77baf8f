"""The alert sensor on a real instance of Dagster and a real lake, with an HTTP server as its channel."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster_shared.error import SerializableErrorInfo

from ml_platform.components.alerts import alert_sensor
from ml_platform.components.graph import asset_key, daily
from ml_platform.components.source import raw_asset
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.errors import LakeError, RegistryError
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AlertsSpec, GateSpec, RolloutSpec
from ml_platform.evaluation.report import Report
from ml_platform.monitoring.alerts import Alert
from ml_platform.monitoring.heartbeat import WATCHED
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.alert_book import AlertBook
from ml_platform.resources.lake import Lake
from ml_platform.resources.looks import Watch
from ml_platform.resources.online_store import SqliteStore
from ml_platform.rollout.standing import Standing
from ml_platform.rollout.state import Event, Rollout
from ml_platform_tests.conftest import FIRST_DAY, NO_LOGS, NOWHERE
from ml_platform_tests.inbox import Inbox, http_inbox
from ml_platform_tests.resources.memory import MemoryRegistry

MODEL, VIEW = "fraud_detection", "features/customer_activity"
OLD, NEW = (Version(MODEL, number, number, f"2018-05-0{number}", "run", "source") for number in "12")
SPEC = AlertsSpec.model_validate(
    {"channels": {"ops": {"url_variable": "OPS_CHANNEL"}, "second": {"url_variable": "SECOND_CHANNEL"}}}
)
ONE = AlertsSpec.model_validate({"channels": {"ops": {"url_variable": "OPS_CHANNEL"}}})


class Faults:
    """What steps of the views and sources below raise, by day."""

    def __init__(self) -> None:
        self.of_day: dict[str, Exception] = {}

    def asset(self, key: str) -> dg.AssetsDefinition:
        @dg.asset(key=asset_key(key), partitions_def=daily(FIRST_DAY), name=None)
        def made(context: dg.AssetExecutionContext) -> None:
            if error := self.of_day.get(context.partition_key):
                raise error

        return made


class World:
    """An instance and a lake; every tick is that of a process of its own as far as it can tell."""

    def __init__(self, catalog: Catalog, settings: Settings, instance: dg.DagsterInstance, inbox: Inbox) -> None:
        self.catalog, self.instance, self.inbox, self.spec = catalog, instance, inbox, ONE
        self.lake, self.now = Lake.at(settings), datetime.now(UTC)
        self.registry: Any = MemoryRegistry([NEW, OLD])
        self.faults = Faults()
        assets = [self.faults.asset(key) for key in (VIEW, "transactions/raw")]
        self.job = dg.Definitions(assets=assets).resolve_implicit_global_asset_job_def()
        self.online = SqliteStore(settings.home / "online.db")

    def run(self, key: str, day: int, error: Exception | None = None) -> None:
        part = (FIRST_DAY + timedelta(days=day)).isoformat()
        self.faults.of_day = {part: error} if error else {}
        self.job.execute_in_process(
            asset_selection=[asset_key(key)], partition_key=part, instance=self.instance, raise_on_error=False
        )

    def tick(self, seconds: float = 0) -> list[str]:
        """The titles that arrived."""
        self.now, before = max(self.now, datetime.now(UTC)) + timedelta(seconds=seconds), len(self.inbox.taken)
        sensor = alert_sensor(self.catalog, self.spec, "my_team", "http://dagster", lambda: self.now)
        given = {"lake": self.lake, "registry": self.registry, "store": self.online}
        with dg.build_sensor_context(
            instance=self.instance,
            definitions=dg.Definitions(sensors=[sensor, _other], resources=given),
            resources=given,
        ) as context:
            sensor(context)
        return self.inbox.titles[before:]

    @property
    def text(self) -> str:
        return self.inbox.taken[-1][1]["message"]


@dg.sensor(name="arrival_sensor", asset_selection=dg.AssetSelection.all())
def _other(_: dg.SensorEvaluationContext) -> None:
    pass


@pytest.fixture
def world(catalog: Catalog, settings: Settings, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[World]:
    settings.home.mkdir()
    with dg.instance_for_test(overrides=NO_LOGS, temp_dir=str(tmp_path)) as instance, http_inbox() as inbox:
        monkeypatch.setenv("OPS_CHANNEL", f"json://{inbox.address}/ops")
        monkeypatch.setenv("SECOND_CHANNEL", f"json://127.0.0.1:{NOWHERE}/")
        yield World(catalog, settings, instance, inbox)


def test_failed_days_of_one_fault_are_one_message_with_link_and_one_end(world: World) -> None:
    for day in range(3):
        world.run(VIEW, day, dg.Failure(f"column 'c{day}' is missing. Next: mend the view"))
    assert world.tick() == [f"warning: run failed: {VIEW} [3 partitions, 2018-04-01 to 2018-04-03]"]
    assert "see http://dagster/runs/" in world.text
    assert "next: mend the view" in world.text
    world.run(VIEW, 3, dg.Failure("column 'c9' is missing"))
    assert world.tick() == []
    for day in range(3):
        world.run(VIEW, day)
    assert (world.tick(), world.tick(90)) == ([], []), "one day is missing"
    world.run(VIEW, 3)
    assert world.tick() == []
    assert world.tick(90) == [f"over: run failed: {VIEW} [2018-04-04]"]
    assert world.tick(90) == []


def test_day_that_is_reported_without_a_run_ends_the_alert(world: World) -> None:
    world.run(VIEW, 0, dg.Failure("gone"))
    world.tick()
    world.instance.report_runless_asset_event(dg.AssetMaterialization(asset_key(VIEW), partition="2018-04-01"))
    world.tick()
    assert world.tick(90) == [f"over: run failed: {VIEW} [2018-04-01]"]


def test_trouble_with_the_outside_is_told_only_if_it_lasts(world: World) -> None:
    world.run(VIEW, 0, LakeError("lake", "it is away", "look after it"))
    assert world.tick() == []
    assert world.tick(500) == []
    assert world.tick(200) == [f"warning: run failed: {VIEW} [2018-04-01]"]
    assert "next: look after it" in world.text


def test_broken_raw_day_names_the_quarantine(world: World) -> None:
    world.run(
        "transactions/raw",
        1,
        dg.Failure("transactions/raw: 1 of 1 days are broken. [2018-04-02] keys_are_unique: 3 rows"),
    )
    assert world.tick() == ["critical: contract broken: transactions/raw [2018-04-02]"]
    assert "next: ml-platform quarantine show transactions 2018-04-02" in world.text


def test_late_source_is_told_and_silences_what_follows(world: World) -> None:
    late = {"deadline": "6h"}
    sources = {**world.catalog.sources, "transactions": world.catalog.sources["transactions"].model_copy(update=late)}
    views = {name: view.model_copy(update=late) for name, view in world.catalog.views.items()}
    world.catalog = replace(world.catalog, sources=sources, views=views)
    world.now += timedelta(days=2)
    assert world.tick() == [f"critical: data late: transactions/raw [{due(world.now)}]"]
    assert world.tick(3_600) == [], "views are late by their source, and a day more is nothing new"
    for days in range(3):
        world.lake.write_table(
            keys.raw("transactions"), due(world.now) + timedelta(days=days), pa.table({"a": [1]}), []
        )
    world.tick()
    over, *_ = world.tick(90)
    assert over.startswith("over: data late: transactions/raw")
    (views_late,) = world.tick(700)
    assert views_late.startswith("critical: data late: features/")
    assert "more" in views_late, "that its views are late is one message"


def due(now: datetime) -> date:
    return (now - timedelta(hours=6)).date() - timedelta(days=1)


def test_rollback_and_rollout_that_is_stuck(world: World) -> None:
    canary = RolloutSpec(strategy="canary", max_wait="2h")
    rollout = Rollout.begin(NEW, Aliases(champion=OLD), canary, world.now, "sensor")
    world.registry.held = Standing(Aliases(champion=OLD), rollout, NEW)
    assert world.tick(3_500) == []
    assert world.tick(200) == [f"warning: rollout stuck: {MODEL}/deployment [2018-05-02]"]
    assert "ml-platform promote fraud_detection 2" in world.text
    aborted = rollout.moved("aborted", Event(world.now, "aborted", "error rate 7 % against 1 %", "sensor"))
    world.registry.held = Standing(Aliases(champion=OLD), aborted, NEW)
    assert world.tick() == [f"critical: rollback: {MODEL}/deployment [2018-05-02]"]
    assert "error rate 7 % against 1 %; version 1 answers" in world.text
    assert world.tick(90) == [f"over: rollout stuck: {MODEL}/deployment [2018-05-02]"]


def test_registry_that_is_away_ends_no_alert_and_is_told_if_it_stays_away(world: World) -> None:
    rollout = Rollout.begin(NEW, Aliases(champion=OLD), RolloutSpec(strategy="canary"), world.now, "sensor")
    aborted = rollout.moved("aborted", Event(world.now, "aborted", "it is worse", "sensor"))
    world.registry.held = Standing(Aliases(champion=OLD), aborted, NEW)
    assert len(world.tick()) == 1

    class Away:
        def rollouts(self, _: object) -> None:
            raise RegistryError("registry", "MLflow does not answer", "start it")

    there, world.registry = world.registry, Away()
    assert world.tick(300) == []
    assert world.tick(700) == ["warning: cannot look: registry"]
    world.registry = there
    world.tick()
    assert world.tick(90) == ["over: cannot look: registry"]


def test_broken_channel_is_retried_and_told_to_the_other_one(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    world.spec = SPEC
    world.run(VIEW, 0, dg.Failure("gone"))
    assert len(world.tick()) == 1, "the channel that works is told, and the tick does not fail"
    assert world.tick(10) == ["critical: channel broken: channel/second"]
    assert "ml-platform alerts test --channel second" in world.text
    monkeypatch.setenv("SECOND_CHANNEL", f"json://{world.inbox.address}/second")
    assert world.tick(30) == [f"warning: run failed: {VIEW} [2018-04-01]"]
    assert world.inbox.taken[-1][0] == "/second"
    world.tick()
    assert world.tick(90) == ["over: channel broken: channel/second"]


def test_silence_holds_in_the_sensor(world: World) -> None:
    book = AlertBook(world.lake, "my_team")
    book.silence("features/*", world.now.timestamp() + 1_000, "ann", "known")
    world.run(VIEW, 0, dg.Failure("gone"))
    assert world.tick() == []
    assert world.tick(1_001) == [f"warning: run failed: {VIEW} [2018-04-01]"]


@pytest.mark.parametrize(
    ("status", "ticks", "words"),
    [
        (InstigatorStatus.STOPPED, [], "somebody has stopped it"),
        (InstigatorStatus.RUNNING, [TickStatus.FAILURE] * 3, "its last 3 ticks failed"),
        (InstigatorStatus.RUNNING, [TickStatus.FAILURE, TickStatus.SUCCESS, TickStatus.FAILURE], ""),
        (InstigatorStatus.RUNNING, [TickStatus.SKIPPED], "it does not tick any more"),
    ],
)
def test_dead_sensor_is_told(world: World, status: InstigatorStatus, ticks: list[TickStatus], words: str) -> None:
    origin = dg_origin("arrival_sensor")
    data = SensorInstigatorData(sensor_type=None)
    state = world.instance.add_instigator_state(InstigatorState(origin, InstigatorType.SENSOR, status, data))
    for one in ticks:
        at = world.now.timestamp() + (0 if len(ticks) > 1 else -3_600)
        error = SerializableErrorInfo("S3 is away", [], "LandingError") if one == TickStatus.FAILURE else None
        words_ = "nothing landed" if one == TickStatus.SKIPPED else None
        tick = TickData(
            state.instigator_origin_id,
            "arrival_sensor",
            InstigatorType.SENSOR,
            one,
            at,
            run_ids=[],
            error=error,
            skip_reason=words_,
            selector_id=state.selector_id,
        )
        world.instance.create_tick(tick)
    assert world.tick() == (["critical: sensor dead: sensor/arrival_sensor"] if words else [])
    assert not words or words in world.text


def dg_origin(name: str) -> Any:
    from dagster._core.remote_origin import InProcessCodeLocationOrigin, RemoteInstigatorOrigin, RemoteRepositoryOrigin
    from dagster._core.types.loadable_target_origin import LoadableTargetOrigin

    location = InProcessCodeLocationOrigin(LoadableTargetOrigin(module_name="my_team"), location_name="my_team")
    return RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), name)


def test_quarantine_and_gates_are_looked_at_by_turns(world: World) -> None:
    sources = {f"s{n}": world.catalog.sources["transactions"].model_copy(update={"name": f"s{n}"}) for n in range(45)}
    catalog = Catalog(sources, {}, {})
    asked = [Watch(catalog, world.lake, world.now, turn).quarantined(3).unseen for turn in range(4)]
    assert [len(unseen) for unseen in asked] == [25, 25, 40, 25]
    assert not asked[0] & asked[1] & asked[2], "everything has its turn"


def test_days_that_wait_in_quarantine_are_told_beyond_the_limit(world: World) -> None:
    said = list[str]()
    for day in range(4):
        world.lake.write_files(keys.quarantine("transactions"), FIRST_DAY + timedelta(days=day), {"a": b"x"}, [])
        said = world.tick()
        assert bool(said) is (day == 3)
    assert said == ["warning: quarantine growing: transactions/raw [4 partitions, 2018-04-01 to 2018-04-04]"]
    assert "next: ml-platform quarantine list --source transactions" in world.text


def test_newest_evaluation_that_does_not_pass_is_told_with_value_and_limit(world: World) -> None:
    def evaluated(day: date, value: float) -> None:
        report = Report(MODEL, day.isoformat(), "digest", 1_000, (900, 100), int(value < 0.5), 1.0, {}, None)
        world.lake.write_files(keys.evaluation(MODEL), day, {"report.json": report.to_json()}, [])

    gates = (GateSpec(check="no_null_predictions"),)
    model = world.catalog.models[MODEL].model_copy(update={"gates": gates})
    world.catalog = replace(world.catalog, models={MODEL: model})
    assert world.tick() == []
    evaluated(date(2018, 5, 1), 0.4)
    assert world.tick() == [f"warning: gate rejected: {MODEL}/evaluation [2018-05-01]"]
    assert "no_null_predictions: " in world.text
    assert f"see http://dagster/assets/{MODEL}/evaluation?partition=2018-05-01" in world.text
    evaluated(date(2018, 5, 8), 0.9)
    world.tick()
    assert world.tick(90) == [f"over: gate rejected: {MODEL}/evaluation [2018-05-01]"]


def test_deadline_is_a_badge_too(catalog: Catalog) -> None:
    source = catalog.sources["transactions"]
    with_deadline = source.model_copy(update={"deadline": "6h"})
    (bare,), (spec,) = raw_asset(source, catalog).specs, raw_asset(with_deadline, catalog).specs
    assert bare.freshness_policy is None
    assert spec.freshness_policy == dg.FreshnessPolicy.time_window(fail_window=timedelta(hours=30))


def test_online_store_that_stays_behind_is_told(world: World) -> None:
    snapshots = world.catalog.snapshot_views()
    watch = Watch(Catalog(world.catalog.sources, {one.name: one for one in snapshots[:1]}, {}), world.lake, world.now)
    view = snapshots[0]
    assert watch.online(world.online).seen == []
    names = {view.entity: pa.array([1]), **{name: pa.array([1.0]) for name in view.features}}
    rows = pa.table({name: names[name] for name in names if name})
    for day in (1, 2):
        world.lake.write_table(keys.feature_view(view.name), date(2018, 5, day), rows, [])
        if day == 1:
            world.online.write(view, rows, datetime(2018, 5, 1, tzinfo=UTC))
            assert watch.online(world.online).seen == []
    (stale,) = watch.online(world.online).seen
    assert isinstance(stale, Alert)
    assert stale.reason == f"{view.name} is as of 2018-05-01, where the lake has 2018-05-02"
    assert stale.subject == keys.ONLINE_STORE


def test_sensor_is_there_only_where_alerts_are_declared() -> None:
    from ml_platform.components import Alerts

    (sensor,) = list(Alerts(ONE).definitions(load_catalog(find_project(EXAMPLE).defs)).sensors or [])
    assert isinstance(sensor, dg.SensorDefinition)
    assert (sensor.name, sensor.minimum_interval_seconds) == (WATCHED, 30)
