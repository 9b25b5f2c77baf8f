"""A server over HTTP, with a registry that says what it is told."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import RegistryError
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.resources.online_store import online_store_at
from ml_platform.resources.registry import Registry
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving import app as server
from ml_platform.serving.cache import BundleCache
from ml_platform.serving.probation import Probation
from ml_platform_tests.processes import eventually, free_port
from ml_platform_tests.registry.test_bundle import make_bundle
from ml_platform_tests.servers import server as running

JUNE = datetime(2018, 6, 1, tzinfo=UTC)
REQUEST = {"tx_amount": 12.5, "tx_datetime": "2018-06-01T10:00:00", "customer_id": 1, "terminal_id": 2}


class Process(NamedTuple):
    """A server as a real process."""

    port: int
    pid: int
    home: Path
    popen: subprocess.Popen[bytes]

    @property
    def log(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in (self.home / "server.log").read_text().splitlines()]


class Told:
    """A registry with one model, whose champion and challenger can be changed, broken or made unreachable."""

    def __init__(self, catalog: Catalog) -> None:
        self.bundles = {"1": make_bundle(catalog), "2": make_bundle(catalog, seed=1)}
        self.champion: str | None = "1"
        self.split: dict[str, Any] = {}  # of the traffic: challenger (its number), share, shadow
        self.downloads: list[str] = []
        self.down = False
        self.downloads_fail = False
        self.deleted: set[str] = set()  # versions that somebody has deleted
        self.unreadable: dict[str, RegistryError] = {}  # models of which the registry has nonsense

    def traffic(self, unreadable: dict[str, RegistryError] | None = None) -> dict[str, Traffic]:
        if self.down:
            raise RegistryError("registry", "down", "wait")
        if unreadable is not None:
            unreadable |= self.unreadable
        if self.champion is None or "fraud" in self.unreadable:
            return {}
        challenger = self.split.get("challenger")
        split = {**self.split, "challenger": self.version(challenger) if challenger else None}
        return {"fraud": Traffic(self.version(self.champion), **split)}

    def find(self, model: str, number: str) -> Version | None:
        return None if number in self.deleted else self.version(number)

    def version(self, number: str) -> Version:
        return Version("fraud", number, bundle.digest_of(self.bundles[number]), "2018-05-31", "run", "source")

    def download(self, version: Version) -> dict[str, bytes]:
        if self.downloads_fail:
            raise RegistryError("registry", "went away in between", "wait")
        self.downloads.append(version.number)
        return self.bundles[version.number]


@pytest.fixture
def registry(catalog: Catalog) -> Told:
    return Told(catalog)


@pytest.fixture
def client(tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    with serving(Settings(home=tmp_path), catalog, registry, monkeypatch) as client:
        yield client


@contextmanager
def serving(
    settings: Settings, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> Iterator[TestClient]:
    """A server whose online store knows the customers and terminals 1 and 2."""
    fill(settings, catalog)
    monkeypatch.setattr(Registry, "at", lambda _: registry)
    monkeypatch.setattr(server, "SYNCHRONIZE_EVERY", 0.05)
    # A process of its own: test_probation.py has it.
    monkeypatch.setattr(Probation, "__call__", lambda *_: None)
    with TestClient(server.create_app(settings)) as client:
        yield client


def fill(settings: Settings, catalog: Catalog) -> None:
    store = online_store_at(settings)
    for view in catalog.snapshot_views():
        rows = pa.table({str(view.entity): [1, 2], **{name: [1.0, 2.0] for name in view.features}})
        store.write(view, rows, JUNE)


MAIN = """
from ml_platform.serving import connections, guard, main
connections.PATIENCE, guard.TIMEOUT = {patience}, {timeout}
main.main()
"""


@contextmanager
def process(
    home: Path, catalog: Catalog, patience: float = 5.0, timeout: float = 10.0, **environment: str
) -> Iterator[Process]:
    """A server that is started without a registry, from what an earlier one left."""
    registry, cache, port = Told(catalog), BundleCache(home / "bundles"), free_port()
    for version in ("1", "2"):
        cache.save(registry.version(version), registry.bundles[version])
    cache.remember({"fraud": Traffic(registry.version("1"))})
    fill(Settings(home=home), catalog)
    url = f"http://127.0.0.1:{port}"
    environment |= {
        "ML_PLATFORM_HOME": str(home),
        "ML_PLATFORM_MODEL_SERVER_PORT": str(port),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
    }
    command = [sys.executable, "-c", MAIN.format(patience=patience, timeout=timeout)]
    with running(command, f"{url}/ready", home / "server.log", environment) as started:
        eventually(lambda: httpx.get(f"{url}/ready").json()["models"] == ["fraud"])
        yield Process(port, started.pid, home, started)


def ready(client: TestClient) -> None:
    eventually(lambda: client.get("/ready").json()["models"] == ["fraud"])
