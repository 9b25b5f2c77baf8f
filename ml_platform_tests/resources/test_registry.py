"""The registry against a real MLflow server."""

from uuid import uuid4

import mlflow
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import BundleError, RegistryError
from ml_platform.registry import bundle
from ml_platform.registry.versions import Aliases
from ml_platform.resources.registry import Registry
from ml_platform_tests.conftest import free_port
from ml_platform_tests.registry.test_bundle import make_bundle


@pytest.fixture
def registry(mlflow_url: str) -> Registry:
    return Registry(mlflow_url)


@pytest.fixture
def model() -> str:
    return f"model_{uuid4().hex[:8]}"


def run_id(registry: Registry) -> str:
    experiment = registry.client.get_experiment_by_name("Default")
    assert experiment is not None
    return registry.client.create_run(experiment.experiment_id).info.run_id


def test_registered_bundle_comes_back_byte_for_byte(registry: Registry, model: str, catalog: Catalog) -> None:
    files = make_bundle(catalog)
    version = registry.register(model, files, run_id(registry), {"training_date": "2018-05-31"})
    assert (version.number, version.digest, version.training_date) == ("1", bundle.digest_of(files), "2018-05-31")
    assert registry.download(version) == files


def test_same_bundle_is_the_same_version(registry: Registry, model: str, catalog: Catalog) -> None:
    first = registry.register(model, make_bundle(catalog), run_id(registry), {})
    assert registry.register(model, make_bundle(catalog), run_id(registry), {}) == first
    second = registry.register(model, make_bundle(catalog, seed=1), run_id(registry), {})
    assert [version.number for version in registry.versions(model)] == ["2", "1"]
    assert second.number == "2"


def test_aliases_read_back_and_can_be_taken_away_again(registry: Registry, model: str, catalog: Catalog) -> None:
    assert registry.aliases(model) == Aliases()
    one = registry.register(model, make_bundle(catalog), run_id(registry), {})
    two = registry.register(model, make_bundle(catalog, seed=1), run_id(registry), {})
    registry.set_aliases(model, Aliases(champion=two, previous=one))
    assert registry.aliases(model) == Aliases(champion=two, previous=one)
    assert registry.champions()[model] == two
    registry.set_aliases(model, Aliases())
    assert registry.aliases(model) == Aliases()


def test_artifact_that_was_changed_behind_the_registry_is_refused(
    registry: Registry, model: str, catalog: Catalog
) -> None:
    run = run_id(registry)
    version = registry.register(model, make_bundle(catalog), run, {})
    mlflow.set_tracking_uri(registry.tracking_uri)
    registry.client.log_text(run, '{"average_precision": 0.99}', "bundle/metrics.json")
    with pytest.raises(BundleError, match="its files have digest"):
        registry.download(version)


def test_registry_that_is_down_is_an_error_with_the_next_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with pytest.raises(RegistryError, match="start it .make dev., or set MLFLOW_TRACKING_URI"):
        Registry(f"http://127.0.0.1:{free_port()}").aliases("m")
