"""The documents say what is there: commands, variables, links and every YAML block."""

import re
from datetime import date
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import yaml

from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.catalog.reading import SPEC_OF_COMPONENT
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.training.trainers import Context, Labelled, trainer_named
from ml_platform_tests.features.computing import by_day, day_of

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted((ROOT / "docs").rglob("*.md"))]
BLOCK = re.compile(r"```(\w+)\n(.*?)```", re.DOTALL)
LINK = re.compile(r"\[[^\]]+\]\((?!https?:)([^)#]+)")


def blocks(language: str) -> list[tuple[str, str]]:
    return [(page.name, body) for page in PAGES for kind, body in BLOCK.findall(page.read_text()) if kind == language]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    assert [link for link in LINK.findall(page.read_text()) if not (page.parent / link).exists()] == []


def test_every_make_target_that_is_named_exists() -> None:
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = {word for page in PAGES for word in re.findall(r"`make ([a-z]+)(?![a-z]*-)", page.read_text())}
    assert {"demo", "dev", "test", "check", "bench", "clean"} <= targets
    assert named <= targets


def test_every_setting_is_documented() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    for name, field in Settings.model_fields.items():
        assert f"`{field.validation_alias or f'ML_PLATFORM_{name.upper()}'}`" in text


@pytest.mark.parametrize(("page", "body"), blocks("yaml"))
def test_yaml_in_the_documents_is_valid(page: str, body: str) -> None:
    documents = list(yaml.safe_load_all(body))
    for document in documents:
        if "load_from" not in document:  # a workspace
            SPEC_OF_COMPONENT[document["type"]].model_validate(document["attributes"])
    assert documents


def test_model_of_the_readme_joins_the_built_in_catalog(tmp_path: Path) -> None:
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
        copy = tmp_path / path.parent.name / "defs.yaml"
        copy.parent.mkdir()
        copy.write_text(path.read_text())
    (body,) = [body for page, body in blocks("yaml") if page == "README.md"]
    (tmp_path / "night_fraud").mkdir()
    (tmp_path / "night_fraud" / "defs.yaml").write_text(body)
    assert set(load_catalog(tmp_path).models) == {"fraud_detection", "night_fraud"}


def test_view_of_the_features_page_computes(
    tmp_path: Path, catalog: Catalog, landed_files: list[tuple[str, date, pa.Table]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A third party's module, as the page has it, beside the platform."""
    (code,) = [body for page, body in blocks("python") if page == "features.md"]
    (declared,) = [yaml.safe_load(body) for page, body in blocks("yaml") if page == "features.md"]
    (tmp_path / "fraudlib").mkdir()
    (tmp_path / "fraudlib" / "merchants.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    view = FeatureViewSpec.model_validate(declared["attributes"])
    rows = day_of(view, date(2018, 5, 20), catalog.sources, by_day(landed_files))
    assert rows.num_rows > 100
    assert min(rows["merchant_days_since_last"].to_pylist()) < 1


def test_trainer_of_the_training_page_trains(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = [body for page, body in blocks("python") if page == "training.md"]
    (tmp_path / "pricelib").mkdir()
    (tmp_path / "pricelib" / "trainers.py").write_text(code)
    monkeypatch.syspath_prepend(tmp_path)
    trainer = trainer_named("pricelib.trainers.Majority")
    rows = Labelled(np.ones((4, 2), np.float32), np.array([0, 1, 1, 1]))
    fitted = trainer.fit({}, rows, rows, Context("binary_classification", 2, 1))
    assert trainer.load(fitted.save()).predict(rows.x).tolist() == [0.75] * 4


def test_files_that_the_capabilities_name_exist() -> None:
    text = (ROOT / "docs" / "capabilities.md").read_text()
    paths = re.findall(r"`((?:ml_platform|ml_platform_tests|k8s|docs|benchmarks)/[^`]+?\.(?:py|md|yaml))`", text)
    assert len(paths) > 40
    assert [path for path in paths if not (ROOT / path).is_file()] == []
