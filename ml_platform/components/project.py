"""The code location of a project: all that its `defs` folder declares, with the resources and the executor that it runs on.

Our own components are built from the catalog, which has read their files. What else lies in the folder, Python modules and
other packages' components, is for Dagster to load.
"""

import logging
import os
import warnings
from collections.abc import Iterator
from functools import cache
from importlib import import_module
from pathlib import Path

import dagster as dg

from ml_platform import components
from ml_platform.components import resources as adapters
from ml_platform.components.execution import executor
from ml_platform.components.graph import SpecComponent, asset_key, daily
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, Survey, remember, survey_at
from ml_platform.core.catalog.reading import Declared
from ml_platform.core.project import VARIABLE, Project, find_project
from ml_platform.core.settings import load_settings
from ml_platform.core.threads import wait_passively

LOG = logging.getLogger(__name__)


@cache
def project_definitions(package: str) -> dg.Definitions:
    """What `package/definitions.py` names `defs`.

    Raises:
        SpecError: for the first mistake in the YAML files, with file, line and the nearest valid name.
        SettingsError: if the package is not there, or has no `defs` folder.
    """
    wait_passively()  # for the processes of runs and steps too
    # This process, and those that it starts for runs and steps, are about this project wherever they stand.
    os.environ[VARIABLE] = package
    project, settings = find_project(package), load_settings()
    found = survey_at(settings, project)
    if settings.strict:
        found.require_whole()
    else:
        remember(found, project.defs, settings.home / "last_good" / package)
    for error in found.errors:
        LOG.error("%s", error)
    with warnings.catch_warnings():
        # What of Dagster we use that is a beta or a preview, we chose.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        foreign = list(_foreign(project, found))
        own = [
            _built(one, found)
            for file in found.files.values()
            if not any(file.path.is_relative_to(folder) for folder in foreign)
            for one in file.declared
        ]
        others = [_loaded_by_dagster(folder, project) for folder in foreign]
        return dg.Definitions.merge(
            *own, *others, _read_from_others(found.catalog), _outside(executor(settings, found.catalog))
        )


def _read_from_others(catalog: Catalog) -> dg.Definitions:
    """Raw tables that are another project's: here only what follows them is made."""
    return dg.Definitions(
        assets=[
            dg.AssetSpec(
                asset_key(keys.raw(name)), partitions_def=daily(catalog.sources[name].start_date), group_name=name
            )
            for name in sorted(catalog.foreign)
        ]
    )


def _built(declared: Declared, found: Survey) -> dg.Definitions:
    """What one document makes: its assets lead to its line, and say so if it stands as it last was without mistakes."""
    component: type[SpecComponent] = getattr(components, declared.component.rpartition(".")[2])
    made = component(declared.spec).definitions(found.catalog)
    line = dg.LocalFileCodeReference(
        file_path=str(declared.path), line_number=declared.line(), label=declared.component.rpartition(".")[2]
    )
    references = {"dagster/code_references": dg.CodeReferencesMetadataValue(code_references=[line])}
    error = found.catalog.broken.get(declared.path)

    def shown(spec: dg.AssetSpec) -> dg.AssetSpec:
        spec = spec.merge_attributes(metadata=references)
        words = f"BROKEN, and as it last was without the mistake: {error}\n\n{spec.description or ''}"
        return spec.replace_attributes(description=words) if error else spec

    return made.map_asset_specs(func=shown) if made.assets else made


def _foreign(project: Project, found: Survey) -> Iterator[Path]:
    """The topmost folders that have anything but our components: Python modules, or other packages' components."""
    modules = {path.parent for path in project.defs.rglob("*.py") if path.name != "__init__.py"}
    folders = modules | {file.path.parent for file in found.files.values() if file.foreign}
    for folder in sorted(folders):
        if not any(folder != other and folder.is_relative_to(other) for other in folders):
            yield folder


def _loaded_by_dagster(folder: Path, project: Project) -> dg.Definitions:
    name = ".".join((project.package, *folder.relative_to(project.folder).parts))
    # `load_from_defs_folder` would look for a pyproject.toml above, which an installed package has not got.
    return dg.ComponentTree.from_module(import_module(name), project_root=project.root or project.folder).build_defs()


def _outside(executor: dg.ExecutorDefinition) -> dg.Definitions:
    """Where the outside is, and how steps are executed; both follow the environment."""
    return dg.Definitions(
        resources={
            "origins": adapters.origins,
            "lake": adapters.lake,
            "engine": adapters.engine,
            "store": adapters.online_store,
            "registry": adapters.registry,
            "server": adapters.model_server,
            "tracking": adapters.tracking,
        },
        executor=executor,
    )
