"""What many tests stand on: a small simulated world, and real servers on free ports."""

import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path

import httpx
import pyarrow as pa
import pytest
from hypothesis import settings as hypothesis_settings

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.settings import EMBEDDED_S3_CREDENTIALS, Settings
from ml_platform.data.simulate import Population, daily_files, simulate
from ml_platform.resources.lake import Lake

# Speed is measured in benchmarks/, never in tests.
hypothesis_settings.register_profile("untimed", deadline=None)
hypothesis_settings.load_profile("untimed")

FIRST_DAY = date(2018, 4, 1)
BIN = Path(sys.executable).parent

# matplotlib and MLflow would otherwise look for a home of their own on every import.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
# Tiny networks are fitted sooner by one thread, also in processes that tests start.
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Its workers evaluate prompts; each takes as long to start as the server.
os.environ.setdefault("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@contextmanager
def server(
    command: list[str], url: str, log: Path, env: dict[str, str] | None = None, timeout: float = 90
) -> Iterator[subprocess.Popen]:
    """A real server process, from the moment it answers until the end of the block."""
    with log.open("w") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, env={**os.environ, **(env or {})})
        try:
            deadline = time.monotonic() + timeout
            while True:
                assert process.poll() is None, f"{command[0]} died: {log.read_text()[-2000:]}"
                assert time.monotonic() < deadline, f"{command[0]} does not answer at {url}: {log.read_text()[-2000:]}"
                try:
                    if httpx.get(url, timeout=1).status_code < 500:
                        break
                except httpx.HTTPError:
                    time.sleep(0.1)
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def s3_command(folder: Path, port: int) -> list[str]:
    key, secret = EMBEDDED_S3_CREDENTIALS
    return [
        str(BIN / "rclone"),
        "serve",
        "s3",
        str(folder),
        "--addr",
        f"127.0.0.1:{port}",
        "--auth-key",
        f"{key},{secret}",
        "--config",
        "",
    ]


@contextmanager
def mlflow_server(folder: Path, port: int) -> Iterator[str]:
    """A real MLflow server that keeps everything in a folder; its URL."""
    command = [
        str(BIN / "mlflow"), "server", "--backend-store-uri", f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination", str(folder / "artifacts"), "--host", "127.0.0.1", "--port", str(port), "--workers", "1",
    ]  # fmt: skip
    url = f"http://127.0.0.1:{port}"
    with server(command, f"{url}/health", folder / "mlflow.log"):
        yield url


@pytest.fixture(scope="session")
def s3_port(tmp_path_factory: pytest.TempPathFactory) -> Iterator[int]:
    """A real S3 server for the whole session; tests use buckets of their own."""
    folder, port = tmp_path_factory.mktemp("s3"), free_port()
    with server(s3_command(folder, port), f"http://127.0.0.1:{port}/", folder.parent / "s3.log"):
        yield port


@pytest.fixture(scope="session")
def mlflow_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A real MLflow server for the whole session; tests use model names or fresh registries of their own."""
    with mlflow_server(tmp_path_factory.mktemp("mlflow"), free_port()) as url:
        yield url


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The built-in catalog."""
    return load_catalog()


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
def settings(tmp_path: Path, s3_port: int, mlflow_url: str) -> Settings:
    """Addresses of a test's own world."""
    return Settings(
        home=tmp_path / "home",
        s3_port=s3_port,
        landing=f"s3://{tmp_path.name.replace('_', '-').lower()}-landing",
        tracking_uri=mlflow_url,
    )


@pytest.fixture
def environment(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Settings:
    """The same addresses, as the environment of this process."""
    monkeypatch.setenv("ML_PLATFORM_HOME", str(settings.home))
    monkeypatch.setenv("ML_PLATFORM_S3_PORT", str(settings.s3_port))
    monkeypatch.setenv("ML_PLATFORM_LANDING", settings.landing)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", settings.mlflow_url)
    return settings


def eventually(condition: Callable[[], bool], timeout: float = 30) -> None:
    """Wait until a condition holds."""
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline, "it did not come true in time"
        time.sleep(0.1)
