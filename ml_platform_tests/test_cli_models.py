"""Commands about models on a real registry; the model server does as it is told."""

from dataclasses import replace
from datetime import date
from pathlib import Path
from uuid import uuid4

import pytest

from ml_platform.cli import models
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.registry import bundle
from ml_platform.registry.card import lineage_tags
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import REPORT
from ml_platform_tests.evaluation.test_gates import REPORT as GOOD
from ml_platform_tests.evaluation.test_gates import figure
from ml_platform_tests.registry.test_bundle import make_bundle
from ml_platform_tests.resources.memory import ToldServer
from ml_platform_tests.resources.test_registry import run_id
from ml_platform_tests.test_cli import error, said

pytestmark = pytest.mark.usefixtures("mlflow_url")

DAY = date(2018, 5, 31)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> ToldServer:
    told = ToldServer()
    monkeypatch.setattr(models.ModelServer, "at", lambda _: told)
    return told


@pytest.fixture
def model(
    environment: Settings, catalog: Catalog, server: ToldServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> str:
    """A registered model with two versions, and none deployed; the second was not evaluated."""
    name = f"fraud_{uuid4().hex[:6]}"
    spec = catalog.models["fraud_detection"].model_copy(update={"name": name})
    monkeypatch.setattr(models, "world", lambda: (environment, Catalog({}, {}, {name: spec}), Lake.at(environment)))
    registry = Registry.at(environment)
    for seed in (0, 1):
        files = make_bundle(catalog, seed=seed)
        tags = {"training_date": DAY.isoformat(), "average_precision": f"0.7{seed}", **lineage_tags(files)}
        registry.register(name, files, run_id(registry), tags)
    metrics = {"average_precision": 0.9, "roc_auc": 0.9}
    figures = {metric: figure(value) for metric, value in metrics.items()}
    report = replace(GOOD, bundle_digest=digest(registry, name, "1"), metrics=metrics, figures=figures)
    Lake.at(environment).write_files(keys.evaluation(name), DAY, {REPORT: report.to_json()}, [])
    return name


def version(registry: Registry, model: str, number: str) -> Version:
    found = registry.find(model, number)
    assert found
    return found


def digest(registry: Registry, model: str, number: str) -> str:
    return version(registry, model, number).digest


def row(text: str, first: str) -> list[str]:
    """The cells of a table's row."""
    rows = [[cell.strip() for cell in line.strip("│").split("│")] for line in text.splitlines() if "│" in line]
    return next(cells for cells in rows if cells[0] == first)


def test_from_registered_to_promoted_and_back(model: str, server: ToldServer, environment: Settings) -> None:
    assert row(said("models"), model) == [model, "", "", "2", "2", "nothing", ""]
    listed = said("versions", model)
    assert row(listed, "2")[1:3] == ["candidate", "2018-05-31"]
    assert row(listed, "1")[-1] == "0.70"

    assert "version 1 is champion, and served by http://server" in said("promote", model, "1")
    held = error("promote", model, "2")
    assert "version 2 is not to be champion: the evaluation is of bundle" in held
    assert "--force --reason" in held
    assert "a forced promotion needs a reason" in error("promote", model, "2", "--force")
    said("promote", model, "2", "--force", "--reason", "an incident: 1 is slow")
    server.says = {"version": "2"}
    assert row(said("models"), model)[:6] == [model, "2", "1", "", "2", "2"]

    shown = said("show", model)
    assert f"{model} version 2 (champion), bundle {digest(Registry.at(environment), model, '2')}" in shown
    assert "# fraud_detection" in shown
    assert "forced: an incident: 1 is slow" in shown
    assert row(shown, "trainer")[1] == "linear"

    assert f"{model} version 1 is champion" in said("rollback", model, "--reason", "it was no better")
    assert "it was no better" in said("show", model, "2")
    assert "there is no previous version" in error("rollback", model)


def test_server_that_does_not_take_a_version_leaves_the_champion(model: str, server: ToldServer) -> None:
    said("promote", model, "1")
    server.refuses = True
    assert "refused" in error("promote", model, "2", "--force", "--reason", "hope")
    assert row(said("models"), model)[1:3] == ["1", ""]


def test_diff_says_what_two_versions_differ_in(model: str, environment: Settings) -> None:
    registry = Registry.at(environment)
    files = registry.download(version(registry, model, "1"))
    changed = {**files, bundle.SPEC: files[bundle.SPEC].replace(b"window_days: 28", b"window_days: 14")}
    registry.register(model, {**changed, bundle.METRICS: b'{"average_precision": 0.61}'}, run_id(registry), {})
    told = said("diff", model, "1", "3")
    assert row(told, "average_precision")[1:] == ["0.5", "0.61"]
    assert "-  window_days: 28\n+  window_days: 14" in told
    assert said("diff", model, "1", "1") == "they do not differ\n"


def test_what_is_not_there_is_said_so(model: str) -> None:
    assert "there is no such model. Next: ml-platform models" in error("versions", "nobody")
    assert f"there is no version 9. Next: ml-platform versions {model}" in error("promote", model, "9")
