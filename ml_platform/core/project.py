"""The project: a team's Python package with a `defs` folder, in which it declares its sources, features and models.

Which one is meant follows from where one stands, as for git: the nearest pyproject.toml with `[tool.dg.project]`. Elsewhere,
as in an image, ML_PLATFORM_PROJECT names it. Where there is none it is the example that comes with the platform.
"""

import sys
import tomllib
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path

from ml_platform.core.errors import SettingsError

EXAMPLE = "ml_platform.examples.fraud"
VARIABLE = "ML_PLATFORM_PROJECT"
WORKSPACE = "workspace.yaml"
_NEXT = f"run this below a folder whose pyproject.toml has [tool.dg.project] root_module, or export {VARIABLE}=<package or folder>"


@dataclass(frozen=True)
class Project:
    """A package with a `defs` folder; `root` is the folder of its pyproject.toml, where it has one."""

    package: str
    folder: Path
    root: Path | None = None

    @property
    def defs(self) -> Path:
        return self.folder / "defs"

    @property
    def definitions(self) -> str:
        """The module that Dagster loads."""
        return f"{self.package}.definitions"


def root_of(start: Path) -> Path | None:
    """The nearest folder, from `start` up, whose pyproject.toml declares a project."""
    return next((folder for folder in (start, *start.parents) if _declared(folder) is not None), None)


def find_projects(names: str = "") -> list[Project]:
    """The projects of these packages or folders, separated by commas; without names those of the workspace.yaml that lies
    here, where no project is stood in, or the present one.

    Raises:
        SettingsError: as `find_project` does.
    """
    if not names and root_of(Path.cwd()) is None and (Path.cwd() / WORKSPACE).is_file():
        names = ",".join(members(Path.cwd() / WORKSPACE))
    return [find_project(name.strip()) for name in names.split(",")]


def members(workspace: Path) -> list[str]:
    """The projects of a workspace.yaml, each as the folder that it lies in, or as a package that is installed."""
    import yaml

    content = yaml.safe_load(workspace.read_text(encoding="utf-8")) or {}
    found = []
    for entry in content.get("load_from") or ():
        module = entry.get("python_module") if isinstance(entry, dict) else None
        name = module.get("module_name", "") if isinstance(module, dict) else module or ""
        if not name.endswith(".definitions"):
            continue  # no project of ours
        folder = (
            workspace.parent / (module.get("working_directory", ".") if isinstance(module, dict) else ".")
        ).resolve()
        package = name.removesuffix(".definitions")
        found.append(str(folder) if _declared(folder) == package else package)
    return found


def find_project(name: str = "", start: Path | None = None) -> Project:
    """The project of that package or folder; without a name the one that `start` (default: here) lies in, or the example.

    Raises:
        SettingsError: if there is none of that name, or it is no package with a `defs` folder.
    """
    return _found(name, (start or Path.cwd()).resolve())


@cache
def _found(name: str, start: Path) -> Project:
    if name and ("/" in name or name.startswith(".")):
        folder = Path(name).expanduser().resolve()
        if _declared(folder) is None:
            raise SettingsError(VARIABLE, f"{folder} has no pyproject.toml with [tool.dg.project]", _NEXT)
        return _declared_at(folder)
    root = root_of(start)
    if name:
        # By name, the project that one stands in need not be installed, nor one that lies beside it or here.
        beside = (root, *sorted(root.parent.iterdir())) if root else sorted(start.iterdir())
        named = next((folder for folder in beside if folder.is_dir() and _declared(folder) == name), None)
        return _declared_at(named) if named else _installed(name, None)
    return _declared_at(root) if root else _installed(EXAMPLE, None)


def _declared(folder: Path) -> str | None:
    """The package that a folder's pyproject.toml declares as a project."""
    file = folder / "pyproject.toml"
    if not file.is_file():
        return None
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))["tool"]["dg"]["project"]["root_module"]
    except (KeyError, TypeError):
        return None
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(str(file), f"cannot be read: {error}", "mend the file") from error


def _declared_at(root: Path) -> Project:
    package = _declared(root)
    assert package is not None, "the caller looked"
    for source in (root, root / "src"):
        # Installed or not: what lies in the folder is what is meant.
        if source.joinpath(*package.split(".")).is_dir() and str(source) not in sys.path:
            sys.path.insert(0, str(source))
    return _installed(package, root)


def _installed(package: str, root: Path | None) -> Project:
    try:
        spec = find_spec(package)
    except (ImportError, ValueError) as error:
        raise SettingsError(VARIABLE, f"package {package!r} cannot be imported: {error}", _NEXT) from error
    if spec is None or not spec.submodule_search_locations:
        raise SettingsError(VARIABLE, f"there is no package {package!r}", _NEXT)
    project = Project(package, Path(next(iter(spec.submodule_search_locations))), root)
    if not project.defs.is_dir():
        raise SettingsError(
            VARIABLE, f"{project.folder} has no folder `defs`", "make one: ml-platform init <name> shows how"
        )
    return project
