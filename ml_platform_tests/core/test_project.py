"""Which project is meant, by where one stands and by name."""

import sys
from pathlib import Path

import pytest

from ml_platform.core import digest
from ml_platform.core.errors import SettingsError
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings


@pytest.fixture(autouse=True)
def _path(monkeypatch: pytest.MonkeyPatch) -> None:
    """A project that is not installed is put onto the path, which no other test is to see."""
    monkeypatch.setattr(sys, "path", [*sys.path])


def project(root: Path, package: str, within: str = "") -> Path:
    (root / within / package / "defs").mkdir(parents=True)
    (root / within / package / "__init__.py").touch()
    (root / "pyproject.toml").write_text(f'[tool.dg.project]\nroot_module = "{package}"\n')
    return root / within / package


@pytest.mark.parametrize("within", ["", "src"])
def test_project_is_the_one_that_one_stands_in_however_deep(tmp_path: Path, within: str) -> None:
    package = project(tmp_path, f"shop_{within or 'flat'}", within)
    found = find_project(start=package / "defs")
    assert (found.package, found.folder, found.root) == (package.name, package, tmp_path)
    assert found.definitions == f"{package.name}.definitions"


def test_elsewhere_it_is_the_one_that_is_named_as_package_or_folder(tmp_path: Path) -> None:
    package = project(tmp_path / "a", "named_shop")
    (tmp_path / "b").mkdir()
    assert find_project(str(tmp_path / "a"), tmp_path / "b").folder == package
    assert find_project("named_shop", tmp_path / "b").folder == package, "it is on the path now"
    assert find_project("named_shop", package).root == tmp_path / "a"


def test_where_there_is_none_it_is_the_example(tmp_path: Path) -> None:
    assert find_project(start=tmp_path).package == EXAMPLE
    (tmp_path / "pyproject.toml").write_text("[project]\nname = 'other'\n")
    assert find_project(start=tmp_path).package == EXAMPLE


def test_what_is_no_project_is_refused_and_the_next_step_is_said(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="there is no package 'no_such_shop'"):
        find_project("no_such_shop", tmp_path)
    with pytest.raises(SettingsError, match="has no pyproject.toml with"):
        find_project(str(tmp_path), tmp_path)
    with pytest.raises(SettingsError, match="has no folder `defs`"):
        find_project("ml_platform.core", tmp_path)
    (tmp_path / "pyproject.toml").write_text("[tool.dg.project\n")
    with pytest.raises(SettingsError, match="cannot be read"):
        find_project(start=tmp_path)


def test_code_of_a_project_of_ones_own_is_part_of_the_code_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = project(tmp_path, "versioned_shop")
    monkeypatch.setenv("ML_PLATFORM_PROJECT", str(tmp_path))
    before = digest.code_version.__wrapped__()
    (package / "features.py").write_text("x = 1\n")
    assert digest.code_version.__wrapped__() != before
    monkeypatch.setenv("ML_PLATFORM_PROJECT", EXAMPLE)
    assert digest.code_version.__wrapped__() not in (before, "")


def test_home_lies_in_the_projects_folder_from_any_folder_below(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    package = project(tmp_path, "home_shop")
    monkeypatch.chdir(package / "defs")
    monkeypatch.delenv("ML_PLATFORM_HOME", raising=False)
    assert Settings().home == tmp_path / ".ml_platform"
