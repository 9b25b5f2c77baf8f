"""`ml-platform check`: every mistake in the project's files, at once."""

from collections.abc import Iterator

import typer

from ml_platform.core.catalog import Survey, survey, together
from ml_platform.core.catalog.reading import Declared, files_below
from ml_platform.core.errors import PlatformError, SpecError
from ml_platform.core.imports import load_object
from ml_platform.core.mistakes import Location, Mistake
from ml_platform.core.project import find_projects
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import FeatureViewSpec, ModelSpec


def check() -> None:
    """Say every mistake in the project's YAML files, with file and line, and import what they name. Status 1 if there is one."""
    settings = load_settings()
    projects = find_projects(settings.project)
    surveys = [survey(project.defs, settings.first_day, settings.cluster) for project in projects]
    errors = [error for found in surveys for error in (*found.errors, *_absent(found))]
    try:
        of = together([found.catalog for found in surveys])
    except SpecError as error:
        errors, of = [*errors, error], surveys[0].catalog
    for error in errors:
        print(error)
    files = f"{sum(len(list(files_below(p.defs))) for p in projects)} files below {', '.join(str(p.defs) for p in projects)}"
    if errors:
        print(f"{len(errors)} mistake{'s' if len(errors) > 1 else ''} in {files}")
        raise typer.Exit(1)
    print(
        f"{files}: {len(of.own_sources)} sources, {len(of.views)} feature views, {len(of.models)} models; no mistakes"
    )


def _absent(found: Survey) -> Iterator[SpecError]:
    """Functions and classes of one's own that cannot be imported."""
    for one in (one for file in found.files.values() for one in file.declared):
        for location, path in _named(one):
            try:
                load_object(path, ".".join(map(str, location)))
            except PlatformError as error:
                yield one.error(
                    Mistake(location, f"`{'.'.join(map(str, location))}`: {error.problem}", error.next_step)
                )


def _named(declared: Declared) -> Iterator[tuple[Location, str]]:
    spec = declared.spec
    if isinstance(spec, FeatureViewSpec) and spec.function:
        yield ("function",), spec.function
    if isinstance(spec, ModelSpec):
        for position, gate in enumerate(spec.gates):
            if gate.metric and gate.is_own_metric:
                yield ("gates", position, "metric"), gate.metric
