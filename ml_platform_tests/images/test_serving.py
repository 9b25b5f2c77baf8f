"""The serving image by what it does: it answers with a model of every trainer, by id and by row, from each kind of store."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving.cache import BundleCache
from ml_platform.training.trainers import TRAINERS
from ml_platform_tests.processes import eventually, free_port
from ml_platform_tests.registry.test_bundle import make_bundle
from ml_platform_tests.servers import server
from ml_platform_tests.serving.conftest import REQUEST, fill
from ml_platform_tests.stores import at_store  # noqa: F401  # a fixture

ONE = {**REQUEST, "customer_id": 1, "terminal_id": 1}  # of whom every feature in the store is 1
SMALL: dict[str, Any] = {"hidden": [8], "epochs": 1}
PARAMS: dict[str, dict[str, Any]] = {
    "mlp": SMALL,
    "ensemble": {"members": [{"trainer": "linear", "seeds": 2}]},
}
FAMILIES = [
    name for name in TRAINERS if name != "sequence"
]  # it has the same libraries as mlp, and needs columns of its own


@pytest.fixture(scope="module")
def python(install: Callable[[str], Path]) -> Path:
    return install("serving")


def test_server_answers_by_id_and_by_row_with_a_model_of_every_trainer(
    python: Path,
    at_store: Settings,  # noqa: F811
    catalog: Catalog,
    tmp_path: Path,
) -> None:
    cache, traffic = BundleCache(tmp_path / "bundles"), {}
    for family in FAMILIES:
        files = make_bundle(catalog, family=family, params=PARAMS.get(family, {}))
        version = Version(family, "1", bundle.digest_of(files), "2018-05-31", "run", "source")
        cache.save(version, files)
        traffic[family] = Traffic(version)
    cache.remember(traffic)
    fill(at_store, catalog)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    environment = {
        "PYTHONPATH": "",
        "ML_PLATFORM_HOME": str(tmp_path),
        "ML_PLATFORM_ONLINE_STORE": at_store.online_store_url,
        "ML_PLATFORM_MODEL_SERVER_PORT": str(port),
        "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{free_port()}",
    }
    log = tmp_path / "server.log"
    with server([str(python), "-m", "ml_platform.serving.main"], f"{url}/ready", log, environment):
        eventually(lambda: set(httpx.get(f"{url}/ready").json()["models"]) == set(FAMILIES), 60)
        for family in FAMILIES:
            by_id = httpx.post(f"{url}/models/{family}/predict", json={"entities": [ONE]}, timeout=30)
            assert by_id.status_code == 200, by_id.text
            row = {**dict.fromkeys(named(catalog), 1.0), **ONE}
            by_row = httpx.post(f"{url}/models/{family}/predict", json={"rows": [row]}, timeout=30)
            assert by_row.json()["scores"] == by_id.json()["scores"], by_row.text


def named(catalog: Catalog) -> list[str]:
    """The features that a row brings."""
    return [name for view in catalog.snapshot_views(catalog.models["fraud_detection"]) for name in view.features]
