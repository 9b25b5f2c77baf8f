"""Commands about a project as a whole: `init`, `check`."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from ml_platform.cli import app
from ml_platform.core.catalog import _survey

BIN = Path(sys.executable).parent


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])


def said(*words: str) -> tuple[int, str]:
    _survey.cache_clear()
    result = CliRunner().invoke(app, [*words])
    return result.exit_code, result.output if result.exception is None or result.exit_code == 1 else repr(
        result.exception
    )


@pytest.mark.parametrize("name", ["Shop", "my-shop", "class", "json", "ml_platform", "1st"])
def test_name_that_is_no_package_or_taken_is_refused(tmp_path: Path, name: str) -> None:
    result = CliRunner().invoke(app, ["init", name, "--into", str(tmp_path / "x")])
    assert result.exit_code != 0
    assert not (tmp_path / "x").exists()


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "shop_a").mkdir()
    (tmp_path / "shop_a" / "notes.txt").write_text("mine")
    assert CliRunner().invoke(app, ["init", "shop_a", "--into", str(tmp_path / "shop_a")]).exit_code != 0
    assert [path.name for path in (tmp_path / "shop_a").iterdir()] == ["notes.txt"]


@pytest.mark.processes
@pytest.mark.parametrize("example", ["empty", "fraud"])
def test_project_passes_its_own_tests_and_checks_from_any_folder_below(tmp_path: Path, example: str) -> None:
    name = f"shop_{example}"
    assert CliRunner().invoke(app, ["init", name, "--example", example, "--into", str(tmp_path / name)]).exit_code == 0
    environment = {**os.environ, "ML_PLATFORM_HOME": str(tmp_path / "home")}
    environment.pop("ML_PLATFORM_PROJECT", None)

    def run(*words: str, within: str = "") -> str:
        done = subprocess.run(
            [*words], cwd=tmp_path / name / within, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    assert "2 passed" in run(sys.executable, "-m", "pytest", "-q")
    assert "no mistakes" in run(str(BIN / "ml-platform"), "check", within=f"{name}/defs/platform")
    assert "All definitions loaded" in run(str(BIN / "dg"), "check", "defs", within=f"{name}/defs")
    run(str(BIN / "dagster"), "definitions", "validate", "-w", "workspace.yaml")
    run(str(BIN / "dg"), "scaffold", "defs", "ml_platform.components.Source", "orders")
    assert (tmp_path / name / name / "defs" / "orders" / "defs.yaml").is_file()


def test_check_says_all_mistakes_with_file_and_line_and_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    CliRunner().invoke(app, ["init", "shop_check", "--example", "fraud", "--into", str(tmp_path)])
    monkeypatch.delenv("ML_PLATFORM_PROJECT", raising=False)
    monkeypatch.chdir(tmp_path)
    assert said("check") == (0, said("check")[1])
    assert "no mistakes" in said("check")[1]
    defs = tmp_path / "shop_check" / "defs"
    view, model = (defs / "features" / "terminal_risk" / "defs.yaml", defs / "models" / "fraud_detection" / "defs.yaml")
    view.write_text(view.read_text().replace("features.terminal_risk", "features.terminal_rsk"))
    model.write_text(
        model.read_text().replace("trainer: mlp", "trainer: mpl").replace("window_days: 28", "window_days: 0")
    )
    status, output = said("check")
    assert status == 1
    assert f"{model}:" in output
    assert "window_days" in output
    model.write_text(model.read_text().replace("window_days: 0", "window_days: 28"))
    status, output = said("check")
    assert status == 1
    assert "terminal_rsk" in output
    assert "mpl" in output
    assert "2 mistakes in" in output
