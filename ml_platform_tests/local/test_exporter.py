"""The exporter against a real Dagster webserver, lake and channel: what it counts, and the alert that the daemon is dead."""

import json
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import dagster as dg
import httpx
import pytest
from dagster._core.definitions.run_request import InstigatorType
from dagster._core.remote_origin import (
    ManagedGrpcPythonEnvCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    SensorInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster_shared.error import SerializableErrorInfo
from prometheus_client import CollectorRegistry, generate_latest, start_http_server

from ml_platform.cli.status import _sensors
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import StackError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AlertsSpec, PricesSpec
from ml_platform.local.exporter import Exporter
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.dagster_history import present
from ml_platform.resources.lake import Lake
from ml_platform.rollout.standing import Standing
from ml_platform_tests.conftest import NO_LOGS
from ml_platform_tests.inbox import Inbox, http_inbox
from ml_platform_tests.processes import BIN, eventually, free_port
from ml_platform_tests.resources.memory import MemoryRegistry
from ml_platform_tests.servers import server

ROOT = Path(__file__).parents[2]
CODE = """
import dagster as dg

@dg.asset(key=["transactions", "raw"])
def good(): ...

@dg.asset(key=["features", "cards"], retry_policy=dg.RetryPolicy(max_retries=1))
def bad():
    raise ValueError("no")

@dg.sensor(asset_selection=dg.AssetSelection.all())
def alert_sensor(_): ...

defs = dg.Definitions(assets=[good, bad], sensors=[alert_sensor])
"""
SPEC = AlertsSpec.model_validate({"channels": {"ops": {"url_variable": "OPS_CHANNEL"}}})
CHAMPION = Version("fraud_detection", "1", "digest", "2018-05-01", "run", "source")


@pytest.fixture(scope="module")
def dagster_home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An instance with two runs that went well and one that did not."""
    home = tmp_path_factory.mktemp("dagster")
    (home / "dagster.yaml").write_text(json.dumps({**NO_LOGS, "telemetry": {"enabled": False}}))
    (home / "code.py").write_text(CODE)
    space: dict[str, Any] = {}
    exec(CODE, space)
    job = space["defs"].resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.from_config(str(home)) as instance:
        for key in ("transactions/raw", "transactions/raw", "features/cards"):
            job.execute_in_process(
                asset_selection=[dg.AssetKey(key.split("/"))], instance=instance, raise_on_error=False
            )
    return home


@pytest.fixture(scope="module")
def api(processes: None, dagster_home: Path) -> Iterator[DagsterApi]:
    port = free_port()
    command = [str(BIN / "dagster-webserver"), "-h", "127.0.0.1", "-p", str(port), "-f", str(dagster_home / "code.py")]
    url = f"http://127.0.0.1:{port}"
    with server(command, f"{url}/server_info", dagster_home / "log", {"DAGSTER_HOME": str(dagster_home)}):
        yield DagsterApi(url)


def exporter_of(catalog: Catalog, lake: Lake, api: Any) -> Exporter:
    registry: Any = MemoryRegistry([CHAMPION], Standing(Aliases(champion=CHAMPION)))
    cluster = catalog.cluster.model_copy(update={"prices": PricesSpec(cpu=0.04)})
    return Exporter(replace(catalog, alerts=SPEC, cluster=cluster), "my_team", lake, registry, api)


def text_of(exporter: Exporter) -> str:
    registry = CollectorRegistry()
    registry.register(exporter)  # type: ignore[arg-type]
    return generate_latest(registry).decode()


def test_metrics_of_a_real_dagster_survive_a_restart(catalog: Catalog, settings: Settings, api: DagsterApi) -> None:
    lake, text = Lake.at(settings), ""
    for _ in range(2):  # each is a process of its own, as far as it can tell
        exporter = exporter_of(catalog, lake, api)
        for _ in range(2):
            exporter.look()
            text = text_of(exporter)
            for line in (
                'ml_platform_runs_total{about="transactions",status="SUCCESS"} 2.0',
                'ml_platform_runs_total{about="cards",status="FAILURE"} 1.0',
                'ml_platform_run_seconds_count{about="transactions"} 2.0',
                "ml_platform_run_queue_seconds_count 3.0",
                'ml_platform_steps_total{status="SUCCESS",step="transactions__raw"} 2.0',
                'ml_platform_step_retries_total{step="features__cards"} 1.0',
                'ml_platform_spend_total{step="transactions__raw"} ',
                'ml_platform_runs_under_way{status="queued"} 0.0',
                'ml_platform_daemon_heartbeat_timestamp_seconds{daemon="SENSOR"} 0.0',
                'ml_platform_sensor_failed_ticks{sensor="alert_sensor"} 0.0',
                'ml_platform_rollout_step{model="fraud_detection"} 0.0',
                'ml_platform_exporter_up{part="dagster"} 1.0',
                'ml_platform_exporter_up{part="lake"} 1.0',
                'ml_platform_exporter_up{part="registry"} 1.0',
            ):
                assert line in text
    if shutil.which("promtool"):
        checked = subprocess.run(
            ["promtool", "check", "metrics"], input=text, capture_output=True, text=True, check=False
        )
        assert checked.returncode == 0, checked.stdout + checked.stderr


def test_ticks_are_seen_though_a_process_before_has_written_the_state_of_their_sensor(
    dagster_home: Path, api: DagsterApi
) -> None:
    """As after every restart of `make dev`: the ids of a code location are others then."""
    target = LoadableTargetOrigin(python_file="/elsewhere/code.py")
    location = ManagedGrpcPythonEnvCodeLocationOrigin(target, location_name="code.py")
    origin = RemoteInstigatorOrigin(RemoteRepositoryOrigin(location, "__repository__"), "alert_sensor")
    with dg.DagsterInstance.from_config(str(dagster_home)) as instance:
        state = InstigatorState(origin, InstigatorType.SENSOR, InstigatorStatus.RUNNING, SensorInstigatorData())
        instance.add_instigator_state(state)
        for moment, status in ((1.0, TickStatus.SUCCESS), (2.0, TickStatus.FAILURE), (3.0, TickStatus.FAILURE)):
            ids, kind, failed = (origin.get_id(), "alert_sensor"), InstigatorType.SENSOR, status == TickStatus.FAILURE
            error = SerializableErrorInfo("S3 is away", [], None) if failed else None
            tick = TickData(*ids, kind, status, moment, run_ids=[], error=error, selector_id=state.selector_id)
            instance.create_tick(tick)
    (sensor,) = present(api).sensors
    assert (sensor.name, sensor.failures, sensor.ticked) == ("alert_sensor", 2, 3.0)
    assert list(_sensors(api)) == [("alert_sensor", "FAILURE", "S3 is away")]


@pytest.fixture
def inbox(monkeypatch: pytest.MonkeyPatch) -> Iterator[Inbox]:
    with http_inbox() as found:
        monkeypatch.setenv("OPS_CHANNEL", f"json://{found.address}/ops")
        yield found


class Told:
    """A Dagster that answers as it is told; its daemon gave its last sign at `beat`."""

    url = "http://dagster"

    def __init__(self) -> None:
        self.beat: float | None = 1_000_000.0
        self.away = False
        self.ticks: list[dict[str, Any]] = []

    def query(self, text: str, **_: Any) -> dict[str, Any]:
        if self.away:
            raise StackError("dagster", "nobody answers", "make dev")
        if "runsOrError(\n" in text:
            return {"runsOrError": {"results": []}}
        sensor = {"name": "alert_sensor", "sensorState": {"status": "RUNNING", "ticks": self.ticks}}
        location = {"locationOrLoadError": {"repositories": [{"sensors": [sensor]}]}}
        daemons = [{"daemonType": "SENSOR", "required": True, "lastHeartbeatTime": self.beat}]
        return {
            "queued": {"count": 1},
            "under_way": {"count": 2},
            "instance": {"daemonHealth": {"allDaemonStatuses": daemons}},
            "workspaceOrError": {"locationEntries": [location]},
        }


def test_daemon_that_stops_is_told_once_and_its_return_once(catalog: Catalog, settings: Settings, inbox: Inbox) -> None:
    told, now = Told(), [1_000_100.0]

    def look(at: float) -> list[str]:
        now[0], before = at, len(inbox.taken)
        exporter = exporter_of(catalog, Lake.at(settings), told)  # it is started anew every time
        exporter.clock = lambda: now[0]
        exporter.look()
        return inbox.titles[before:]

    assert look(1_000_100.0) == []
    assert look(1_000_200.0) == ["critical: daemon dead: daemon/sensor"]
    assert "nothing is started by itself" in inbox.taken[-1][1]["message"]
    assert look(1_000_300.0) == []
    told.away = True
    assert look(1_000_400.0) == [], "a webserver may be away for a moment"
    told.away, told.beat = False, 1_000_500.0
    assert look(1_000_500.0) == []
    assert look(1_000_600.0) == ["over: daemon dead: daemon/sensor"]
    told.away = True
    assert look(1_000_700.0) == []
    assert look(1_000_820.0) == ["critical: daemon dead: dagster/webserver"]


def test_alert_sensor_that_fails_is_told_by_the_exporter(catalog: Catalog, settings: Settings, inbox: Inbox) -> None:
    told = Told()
    told.ticks = [{"status": "FAILURE", "timestamp": 1_000_000.0, "error": {"message": "the lake is away"}}] * 3
    exporter = exporter_of(catalog, Lake.at(settings), told)
    exporter.clock = lambda: 1_000_050.0
    exporter.look()
    assert inbox.titles == ["critical: sensor dead: sensor/alert_sensor"]
    assert "the lake is away" in inbox.taken[0][1]["message"]


def test_lake_that_is_away_keeps_nobody_from_being_told(catalog: Catalog, settings: Settings, inbox: Inbox) -> None:
    told = Told()
    settings.home.mkdir(parents=True)
    (settings.home / "lake").write_text("no folder")
    exporter = exporter_of(catalog, Lake.at(settings), told)
    exporter.clock = lambda: 1_000_500.0
    for _ in range(3):
        exporter.look()
    assert inbox.titles == ["critical: daemon dead: daemon/sensor"]
    assert 'ml_platform_exporter_up{part="alerts"} 0.0' in text_of(exporter)


def test_real_prometheus_scrapes_it(catalog: Catalog, settings: Settings, api: DagsterApi, tmp_path: Path) -> None:
    if shutil.which("prometheus") is None:
        pytest.skip("no Prometheus on this machine (apt-get install prometheus)")
    exporter, registry, port = exporter_of(catalog, Lake.at(settings), api), CollectorRegistry(), free_port()
    registry.register(exporter)  # type: ignore[arg-type]
    exporter.look()
    served, thread = start_http_server(0, "127.0.0.1", registry)
    job = {"job_name": "x", "static_configs": [{"targets": [f"127.0.0.1:{served.server_port}"]}]}
    rules = str(ROOT / "k8s" / "monitoring" / "rules.yaml")
    written = {"global": {"scrape_interval": "1s"}, "scrape_configs": [job], "rule_files": [rules]}
    (tmp_path / "prometheus.yml").write_text(json.dumps(written))
    listening = [f"--web.listen-address=127.0.0.1:{port}", f"--storage.tsdb.path={tmp_path / 'data'}"]
    command = ["prometheus", f"--config.file={tmp_path / 'prometheus.yml'}", *listening]
    url = f"http://127.0.0.1:{port}"

    def answer() -> float:
        query = {"query": 'ml_platform_runs_total{about="transactions",status="SUCCESS"}'}
        found = httpx.get(f"{url}/api/v1/query", params=query).json()["data"]["result"]
        return float(found[0]["value"][1]) if found else 0.0

    try:
        with server(command, f"{url}/-/ready", tmp_path / "log"):
            eventually(lambda: answer() == 2.0)
            groups = httpx.get(f"{url}/api/v1/rules").json()["data"]["groups"]
            assert [group["name"] for group in groups] == ["ml_platform"]
    finally:
        served.shutdown()
        thread.join()
