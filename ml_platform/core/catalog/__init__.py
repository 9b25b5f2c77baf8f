"""The catalog: all specs below a defs folder, checked one by one and against each other.

Dagster, the command line and the processes that know no Dagster read the same catalog. A mistake is reported with file,
line and the nearest valid name. Strictly read, the first one is an error; else a file with mistakes is left out, or stands
as it last was without, and the others are as they are.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from functools import lru_cache
from pathlib import Path

from ml_platform.core.catalog.assembling import assembled
from ml_platform.core.catalog.catalog import Catalog, together
from ml_platform.core.catalog.reading import File, files_below, read
from ml_platform.core.errors import SpecError
from ml_platform.core.project import Project, find_project, find_projects
from ml_platform.core.settings import Settings

__all__ = ["Catalog", "Survey", "catalog_at", "homes_at", "load_catalog", "remember", "survey", "survey_at", "together"]


@dataclass(frozen=True)
class Survey:
    """All that is declared below a folder: what is right, and every mistake.

    `files` are those that count, by path; one that is `broken` is there as it last was without mistakes, or not at all.
    """

    catalog: Catalog
    files: Mapping[Path, File]
    errors: tuple[SpecError, ...]

    def require_whole(self) -> None:
        """Raises the first mistake, if there is one."""
        for error in self.errors:
            raise error


def catalog_at(settings: Settings) -> Catalog:
    """All specs of the project, or of the projects, read once.

    Raises:
        SpecError: if the settings are strict, for the first mistake; if two projects declare the same name.
    """
    surveys = [survey_at(settings, project) for project in find_projects(settings.project)]
    if settings.strict:
        for found in surveys:
            found.require_whole()
    return together([found.catalog for found in surveys])


def homes_at(settings: Settings) -> Mapping[str, str]:
    """Which tables lie below a prefix of the lake, whatever mistakes there are elsewhere."""
    return together([survey_at(settings, project).catalog for project in find_projects(settings.project)]).homes


def survey_at(settings: Settings, project: Project) -> Survey:
    """The survey of a project, made once."""
    last_good = None if settings.strict else settings.home / "last_good" / project.package
    return survey(project.defs, settings.first_day, settings.cluster, last_good)


def load_catalog(folder: Path, first_day: date | None = None, cluster: str = "") -> Catalog:
    """All specs below `folder`; `cluster`, as YAML, is what is different on this cluster.

    Raises:
        SpecError: with file, line and the nearest valid name, for the first mistake found.
        SettingsError: if `cluster` says what it may not.
    """
    found = survey(folder, first_day, cluster)
    found.require_whole()
    return found.catalog


def remember(found: Survey, folder: Path, last_good: Path) -> None:
    """Keep the files that are right, to stand in for them when they are not."""
    for path, file in found.files.items():
        kept, text = last_good / path.relative_to(folder), file.declared[0].text if file.declared else ""
        if path not in found.catalog.broken and text and not (kept.is_file() and kept.read_text("utf-8") == text):
            kept.parent.mkdir(parents=True, exist_ok=True)
            kept.write_text(text, encoding="utf-8")


def survey(folder: Path, first_day: date | None = None, cluster: str = "", last_good: Path | None = None) -> Survey:
    """All that is declared below `folder`, read once; a file with mistakes stands as `last_good` has it, if that fits the
    others. Without that, a folder with mistakes is read again."""
    found = _survey(folder, first_day, cluster, last_good)
    if found.errors and last_good is None:
        _survey.cache_clear()
    return found


@lru_cache(maxsize=16)
def _survey(folder: Path, first_day: date | None, cluster: str, last_good: Path | None) -> Survey:
    files = {path: read(path) for path in files_below(folder)}
    errors = [error for file in files.values() for error in file.errors]
    broken = {path: file.errors[0] for path, file in files.items() if file.errors}
    files = {path: file for path, file in files.items() if path not in broken}
    files |= _as_they_were(broken, folder, last_good)

    def others(package: str) -> Catalog:
        return survey(find_project(package).defs, first_day, cluster).catalog

    while True:
        found = [one for path in sorted(files) for one in files[path].declared]
        catalog, wrong = assembled(found, first_day, cluster, broken, others)
        if not wrong:
            return Survey(catalog, files, tuple(errors))
        # What rests on a file that is left out is left out too, until the rest hangs together.
        errors += [error for of_file in wrong.values() for error in of_file]
        fresh = {path: of_file[0] for path, of_file in wrong.items() if path not in broken}
        broken |= fresh
        files = {path: file for path, file in files.items() if path not in wrong}
        files |= _as_they_were(fresh, folder, last_good)


def _as_they_were(paths: Iterable[Path], folder: Path, last_good: Path | None) -> dict[Path, File]:
    """Files as they last were without mistakes, where that is known and still is right by itself."""
    there: dict[Path, File] = {}
    if last_good is None:
        return there
    for path in paths:
        kept = last_good / path.relative_to(folder)
        if kept.is_file() and not (file := read(path, kept.read_text("utf-8"))).errors:
            there[path] = file
    return there
