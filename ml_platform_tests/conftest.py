"""What many tests stand on: a small simulated world, and addresses of a test's own."""

import os
import signal
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.examples.fraud.simulate import Population, daily_files, simulate
from ml_platform.resources.lake import Lake

pytest_plugins = ("ml_platform_tests.selection", "ml_platform_tests.servers")

FIRST_DAY = date(2018, 4, 1)
STORY_DAYS = 60  # as the demo has: with fewer, the built-in model does not pass its gates comfortably
# For an instance in whose runs nobody reads the output of steps: Dagster captures it by four processes a step.
NO_LOGS = {
    "compute_logs": {
        "module": "dagster._core.storage.noop_compute_log_manager",
        "class": "NoOpComputeLogManager",
    }
}
NOWHERE = 9  # the port on which nothing listens

# matplotlib and MLflow would otherwise look for a home of their own on every import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Tiny networks are fitted sooner by one thread, also in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Its workers evaluate prompts; each takes as long to start as the server.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The built-in catalog."""
    return load_catalog(find_project(EXAMPLE).defs)


@pytest.fixture(autouse=True)
def _signals_stay_as_they_were() -> Iterator[None]:
    """Dagster makes SIGTERM do what SIGINT does. In a test run in the background that is nothing, and what later tests start would
    inherit it and not end."""
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture(scope="session")
def simulated() -> pa.Table:
    """60 days of a small population, with labels."""
    return simulate(Population.scaled(600), 60, FIRST_DAY, seed=11)


@pytest.fixture(scope="session")
def landed_files(simulated: pa.Table) -> list[tuple[str, date, pa.Table]]:
    """The same as daily files of both sources."""
    return list(daily_files(simulated, timedelta(days=7)))


def lake_of(settings: Settings, files: list[tuple[str, date, pa.Table]]) -> Lake:
    """A lake whose raw days are these files."""
    lake = Lake.at(settings)
    for source, day, rows in files:
        lake.write_table(keys.raw(source), day, rows, [])
    return lake


@pytest.fixture
def settings(request: pytest.FixtureRequest, tmp_path: Path) -> Settings:
    """Addresses of a test's own world. Where S3 and MLflow should be is nothing, unless the test asks for `s3_port`, `mlflow_url`."""
    s3, mlflow = (
        request.getfixturevalue(name) if name in request.fixturenames else None for name in ("s3_port", "mlflow_url")
    )
    return Settings(
        home=tmp_path / "home",
        s3_port=s3 or NOWHERE,
        landing=f"s3://{tmp_path.name.replace('_', '-').lower()}-{os.getpid()}-landing",
        tracking_uri=mlflow or f"http://127.0.0.1:{NOWHERE}",
    )


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tries of a step follow each other at once."""
    monkeypatch.setattr(dg.RetryPolicy, "calculate_delay", lambda policy, attempt_num: 0)


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same addresses, as the environment of this process."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    monkeypatch.setenv("ML_PLATFORM_S3_PORT", str(settings.s3_port))
    monkeypatch.setenv("ML_PLATFORM_LANDING", settings.landing)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_url)
    return settings
