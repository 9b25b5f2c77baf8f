"""What a server serves after its registry, its disk or itself went away."""

import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest
from fastapi.testclient import TestClient

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import RegistryError
from ml_platform.core.settings import Settings
from ml_platform.registry.versions import Version
from ml_platform.resources import prediction_log
from ml_platform.resources.lake import Lake
from ml_platform.resources.online_store import SqliteStore
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving import models
from ml_platform.serving.cache import BundleCache
from ml_platform_tests.processes import eventually, free_port
from ml_platform_tests.servers import server
from ml_platform_tests.serving.conftest import REQUEST, Told, ready, serving


def test_restart_serves_the_same_versions_while_the_registry_is_down(
    tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.split = {"challenger": "2", "share": 0.5, "salt": "s"}
    settings = Settings(home=tmp_path)
    with serving(settings, catalog, registry, monkeypatch) as client:
        eventually(lambda: client.get("/models/fraud").json().get("challenger") is not None)
        before = client.get("/models/fraud").json()
    registry.down = registry.downloads_fail = True
    with serving(settings, catalog, registry, monkeypatch) as client:
        ready(client)
        after = client.get("/models/fraud").json()
        assert (after["digest"], after["challenger"]["digest"]) == (before["digest"], before["challenger"]["digest"])
        assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).status_code == 200
        registry.down = registry.downloads_fail = False
        registry.split = {}
        eventually(lambda: client.get("/models/fraud").json()["challenger"] is None)
    assert registry.downloads == ["1", "2"]


def test_online_store_has_been_read_before_the_server_is_ready(
    tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    looked_at: list[str] = []
    read = SqliteStore.read
    monkeypatch.setattr(
        SqliteStore, "read", lambda store, view, *rest: looked_at.append(view) or read(store, view, *rest)
    )
    with serving(Settings(home=tmp_path), catalog, registry, monkeypatch) as client:
        ready(client)
        assert looked_at == [view.name for view in catalog.snapshot_views(catalog.models["fraud_detection"])]


def test_tampered_cache_is_downloaded_again(
    tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    with serving(settings, catalog, registry, monkeypatch) as client:
        ready(client)
    (weights,) = (tmp_path / "bundles").glob("*/model.safetensors")
    weights.write_bytes(b"evil")
    with serving(settings, catalog, registry, monkeypatch) as client:
        ready(client)
    assert registry.downloads == ["1", "1"]


def test_restart_with_a_bad_champion_serves_what_was_served_before(
    tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path)
    registry.bundles["2"] = {**registry.bundles["2"], "model.safetensors": b"junk"}
    with serving(settings, catalog, registry, monkeypatch) as client:
        ready(client)
        registry.champion = "2"
        eventually(lambda: "refused" in client.get("/models/fraud").json())
    for _ in range(2):
        with serving(settings, catalog, registry, monkeypatch) as client:
            ready(client)
            described = client.get("/models/fraud").json()
            assert (described["version"], described["refused"]["version"]) == ("1", "2")


def test_model_of_which_the_registry_has_nonsense_is_served_as_before_and_named(
    client: TestClient, registry: Told
) -> None:
    ready(client)
    registry.unreadable = {"fraud": RegistryError("fraud/rollout", "its tag cannot be read", "delete it")}
    eventually(lambda: "its tag cannot be read" in client.get("/models/fraud").json().get("kept", ""))
    assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).status_code == 200
    assert client.get("/ready").json()["kept"] == ["fraud"]
    assert 'ml_platform_model_kept{model="fraud"} 1.0' in client.get("/metrics").text
    registry.unreadable = {}
    eventually(lambda: "kept" not in client.get("/models/fraud").json())


def test_deleted_version_is_served_on_and_an_alias_taken_away_is_not(client: TestClient, registry: Told) -> None:
    ready(client)
    registry.deleted, registry.champion = {"1"}, None
    eventually(lambda: "was deleted in the registry" in client.get("/models/fraud").json().get("kept", ""))
    assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).status_code == 200
    registry.deleted = set()
    eventually(lambda: client.get("/ready").json()["models"] == [])


def test_trouble_that_passes_refuses_a_version_for_a_while_only(
    client: TestClient, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A full disk, say. What is wrong with the bundle itself stays wrong."""
    ready(client)
    monkeypatch.setattr(models, "TRY_AGAIN", 0.2)
    download, times = registry.download, [0]

    def full(version: Version) -> dict[str, bytes]:
        times[0] += 1
        if times[0] < 3:
            raise OSError(28, "No space left on device")
        return download(version)

    monkeypatch.setattr(registry, "download", full)
    registry.champion = "2"
    eventually(lambda: client.get("/models/fraud").json()["version"] == "2")
    assert times == [3]
    assert client.get("/ready").json()["refused"] == []


def test_server_knows_how_old_its_look_at_the_registry_is(client: TestClient, registry: Told) -> None:
    ready(client)
    assert client.get("/ready").json()["registry_answered_seconds_ago"] < 60
    registry.down = True
    first = client.get("/ready").json()["registry_answered_seconds_ago"]
    eventually(lambda: client.get("/ready").json()["registry_answered_seconds_ago"] > first + 0.3)
    assert client.get("/ready").status_code == 200
    assert "ml_platform_registry_answered_timestamp_seconds" in client.get("/metrics").text


@pytest.mark.processes
def test_process_that_is_stopped_answers_first_and_loses_no_row_of_its_log(
    tmp_path: Path, catalog: Catalog, registry: Told
) -> None:
    """A real process, started without a registry from what an earlier one left."""
    cache = BundleCache(tmp_path / "bundles")
    cache.save(registry.version("1"), registry.bundles["1"])
    cache.remember({"fraud": Traffic(registry.version("1"))})
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "ML_PLATFORM_HOME": str(tmp_path),
        "ML_PLATFORM_MODEL_SERVER_PORT": str(port),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
    }
    features = [name for view in catalog.snapshot_views() for name in view.features]
    row = {"tx_amount": 1.0, "tx_datetime": "2018-06-01", **dict.fromkeys(features, 1.0)}
    command = [sys.executable, "-m", "ml_platform.serving.main"]
    with server(command, f"{url}/ready", tmp_path / "server.log", environment) as process:
        eventually(lambda: httpx.get(f"{url}/ready").json()["models"] == ["fraud"])
        for _ in range(7):
            assert httpx.post(f"{url}/models/fraud/predict", json={"rows": [row]}).status_code == 200
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=30) in (0, -signal.SIGTERM)
    now = datetime.now(UTC)
    logged = prediction_log.read(Lake.at(Settings(home=tmp_path)), "fraud", now - timedelta(minutes=5), now)
    assert logged.num_rows == 7
