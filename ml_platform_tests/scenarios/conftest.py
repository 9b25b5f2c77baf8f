"""A whole platform in one process: real S3; the sensors' ticks are called instead of awaited."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import Any

import dagster as dg
import httpx
import pytest

from ml_platform.core.settings import Settings, load_settings
from ml_platform.definitions import defs
from ml_platform.examples.fraud.producer import simulated
from ml_platform.local.producer import DailyTable, land
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins
from ml_platform.resources.registry import Registry
from ml_platform_tests.conftest import FIRST_DAY, NO_LOGS, NOWHERE, STORY_DAYS

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


@dataclass
class Platform:
    """What a user has in front of them; `tick` and `settle` stand in for the daemon's clock."""

    settings: Settings
    instance: dg.DagsterInstance
    landing: ObjectStore
    lake: Lake
    registry: Registry
    server: ModelServer
    arrival_cursor: str | None = None
    freshness_cursor: Any = None
    run_keys: set[str] = field(default_factory=set)

    def land(self, files: list[DailyTable]) -> None:
        list(land(files, self.landing))

    def arrivals(self) -> list[dg.RunRequest]:
        """One tick of the arrival sensor: records its events, returns what it asks for."""
        context = dg.build_sensor_context(
            instance=self.instance,
            cursor=self.arrival_cursor,
            definitions=defs,
            resources={"origins": Origins(self.landing), "lake": self.lake},
        )
        result = defs.resolve_sensor_def("arrival_sensor")(context)
        assert isinstance(result, dg.SensorResult)
        self.arrival_cursor = result.cursor or self.arrival_cursor
        for event in result.asset_events:
            self.instance.report_runless_asset_event(event)
        return self._unseen(result.run_requests or [])

    def trainings(self) -> list[dg.RunRequest]:
        """One tick of the retrain sensor."""
        context = dg.build_sensor_context(instance=self.instance, definitions=defs, resources={"lake": self.lake})
        result = defs.resolve_sensor_def("retrain_sensor")(context)
        assert isinstance(result, dg.SensorResult)
        return self._unseen(result.run_requests or [])

    def _unseen(self, requests: Any) -> list[dg.RunRequest]:
        fresh = [request for request in requests if request.run_key not in self.run_keys]
        self.run_keys |= {request.run_key for request in fresh}
        return fresh

    def run(self, request: dg.RunRequest) -> dg.ExecuteInProcessResult:
        return self.materialize(request.asset_selection or [], request.partition_key, dict(request.tags))

    def materialize(
        self, keys: Any, partition: str | None = None, tags: dict[str, str] | None = None
    ) -> dg.ExecuteInProcessResult:
        repository = defs.get_repository_def()
        return dg.materialize(
            list({id(a): a for a in repository.assets_defs_by_key.values()}.values()),
            selection=list(keys),
            partition_key=partition,
            tags=tags,
            instance=self.instance,
            raise_on_error=False,
        )

    def refresh(self) -> int:
        """One tick of the freshness sensor, its backfills run as ranges; returns how many partitions it asked for."""
        selection = dg.AssetSelection.groups("features")
        result = dg.evaluate_automation_conditions(
            defs, self.instance, asset_selection=selection, cursor=self.freshness_cursor
        )
        self.freshness_cursor = result.cursor
        for key in (dg.AssetKey(["features", name]) for name in ("customer_activity", "terminal_risk")):
            if days := sorted(filter(None, result.get_requested_partitions(key))):
                assert self.materialize([key], tags={RANGE_START: days[0], RANGE_END: days[-1]}).success
        if result.get_num_requested(dg.AssetKey(["features", "online_store"])):
            assert self.materialize([dg.AssetKey(["features", "online_store"])]).success
        return result.total_requested

    def settle(self) -> list[dg.ExecuteInProcessResult]:
        """Tick everything until nothing is asked for any more; returns the runs of arrivals and trainings."""
        results = []
        for _ in range(20):
            requests = self.arrivals()
            results += [self.run(request) for request in requests]
            refreshed = self.refresh()
            trainings = [] if refreshed else self.trainings()
            results += [self.run(request) for request in trainings]
            if not requests and not refreshed and not trainings:
                return results
        raise AssertionError("it never settled")

    def checks(self, key: str, day: date) -> dict[str, bool]:
        """The latest result of every check of one partition, as Dagster's storage has it."""
        storage = self.instance.event_log_storage
        results = {}
        for check in defs.resolve_asset_graph().asset_check_keys:
            if check.asset_key.to_user_string() == key:
                history = storage.get_asset_check_execution_history(check, limit=500)
                of_day = [r for r in history if r.partition == day.isoformat() and r.event]
                if of_day:
                    results[check.name] = of_day[0].status.value == "SUCCEEDED"
        return results

    def predict(self, body: dict[str, Any]) -> dict[str, Any]:
        answer = httpx.post(f"{self.server.url}/models/fraud_detection/predict", json=body)
        assert answer.status_code == 200, answer.text
        return answer.json()


def problems(result: dg.ExecuteInProcessResult) -> list[str]:
    """Why a run failed; nothing if it did not."""
    data = [event.event_specific_data for event in result.all_events if event.is_failure]
    errors = [getattr(one, "error", None) for one in data]
    return [str(error.to_string()) if error else "failed" for error in errors]


@contextmanager
def opened(variables: dict[str, str], instance: dg.DagsterInstance) -> Iterator[Platform]:
    """The platform at these addresses."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in variables.items():
            patch.setenv(name, value)
        settings = load_settings()
        landing = ObjectStore.at(settings)
        landing.ensure_bucket()
        yield Platform(settings, instance, landing, Lake.at(settings), Registry.at(settings), ModelServer.at(settings))


@pytest.fixture(scope="module")
def platform(tmp_path_factory: pytest.TempPathFactory, s3_port: int) -> Iterator[Platform]:
    """An empty platform of a test module's own: landing bucket, lake and Dagster; nothing where MLflow and the server should be."""
    folder = tmp_path_factory.mktemp("platform")
    variables = {
        "ML_PLATFORM_HOME": str(folder),
        "ML_PLATFORM_S3_PORT": str(s3_port),
        "ML_PLATFORM_LANDING": f"s3://landing-{folder.name}-{os.getpid()}",
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{NOWHERE}",
    }
    with (
        dg.DagsterInstance.local_temp(str(folder), overrides=NO_LOGS) as instance,
        opened(variables, instance) as platform,
    ):
        yield platform


@pytest.fixture(scope="session")
def demo_files() -> list[DailyTable]:
    """The demo's days: the smallest population whose model passes its gates comfortably."""
    return simulated(STORY_DAYS, 2_000, FIRST_DAY, 7, timedelta(days=7))
