"""The code location of a project of one's own."""

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from ml_platform.cli.init import init
from ml_platform.components.project import project_definitions
from ml_platform.core.catalog import _survey
from ml_platform.core.errors import SpecError
from ml_platform.core.project import VARIABLE

Loaded = Callable[[], dg.Definitions]


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Iterator[Path]:
    """A project as `init --example fraud` writes it, on the path; its name is the test's own."""
    name = f"team_{abs(hash(request.node.name))}"
    init(name, "fraud", tmp_path / name)
    monkeypatch.setattr(sys, "path", [str(tmp_path / name), *sys.path])
    monkeypatch.setenv(VARIABLE, name)
    monkeypatch.setenv("ML_PLATFORM_HOME", str(tmp_path / "home"))
    yield tmp_path / name
    for module in [one for one in sys.modules if one.split(".")[0] == name]:
        del sys.modules[module]


def loaded(root: Path) -> dg.Definitions:
    project_definitions.cache_clear()
    _survey.cache_clear()
    return project_definitions(root.name)


def names(defs: dg.Definitions) -> set[str]:
    return {key.to_user_string() for key in defs.resolve_all_asset_keys()}


def test_example_under_a_name_of_its_own_has_the_same_graph(root: Path) -> None:
    defs = loaded(root)
    assert {"transactions/raw", "features/terminal_risk", "fraud_detection/candidate"} <= names(defs)
    view = (root / root.name / "defs" / "features" / "terminal_risk" / "defs.yaml").read_text()
    assert f"function: {root.name}.features.terminal_risk" in view
    assert not any("ml_platform.examples" in path.read_text() for path in root.rglob("*") if path.is_file())


def test_every_asset_leads_to_the_line_that_declares_it(root: Path) -> None:
    spec = loaded(root).resolve_asset_graph().get(dg.AssetKey(["fraud_detection", "candidate"]))
    (reference,) = spec.metadata["dagster/code_references"].code_references
    assert reference.file_path.endswith("fraud_detection/defs.yaml")
    assert reference.line_number == 1


def test_python_and_other_packages_components_in_the_folder_are_dagsters_to_load(root: Path) -> None:
    (root / root.name / "defs" / "reports").mkdir()
    (root / root.name / "defs" / "reports" / "assets.py").write_text(
        "import dagster as dg\n\n\n@dg.asset\ndef weekly_report() -> None: ...\n"
    )
    assert {"weekly_report", "transactions/raw"} <= names(loaded(root))


def test_strictly_read_one_mistake_stops_the_code_location_else_it_is_shown_on_the_assets(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_STRICT", "false")
    before = names(loaded(root))
    path = root / root.name / "defs" / "models" / "fraud_detection" / "defs.yaml"
    path.write_text(path.read_text().replace("candidates:", "candidtaes:"))
    defs = loaded(root)
    assert names(defs) == before
    spec = defs.resolve_asset_graph().get(dg.AssetKey(["fraud_detection", "candidate"]))
    assert "BROKEN" in (spec.description or "")
    assert "did you mean `candidates`?" in (spec.description or "")
    assert "BROKEN" not in (defs.resolve_asset_graph().get(dg.AssetKey(["transactions", "raw"])).description or "")
    monkeypatch.setenv("ML_PLATFORM_STRICT", "true")
    with pytest.raises(SpecError, match="did you mean `candidates`"):
        loaded(root)
