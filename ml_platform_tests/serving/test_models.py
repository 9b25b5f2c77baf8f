"""What a server serves after its registry, its disk or itself went away."""

import signal
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.resources import prediction_log
from ml_platform.resources.lake import Lake
from ml_platform.rollout.traffic import Traffic
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
