"""The code location of a project: all that its `defs` folder declares, with the resources and the executor that it runs on."""

import os
import warnings
from functools import cache
from importlib import import_module

import dagster as dg

from ml_platform.components import resources as adapters
from ml_platform.components.execution import executor
from ml_platform.components.graph import read_catalog
from ml_platform.core.project import VARIABLE, find_project
from ml_platform.core.settings import load_settings
from ml_platform.core.threads import wait_passively


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
    project = find_project(package)
    catalog = read_catalog()  # first, for its words about a mistake
    with warnings.catch_warnings():
        # What of Dagster we use that is a beta or a preview, we chose.
        warnings.simplefilter("ignore", dg.BetaWarning)
        warnings.simplefilter("ignore", dg.PreviewWarning)
        # `load_from_defs_folder` would look for a pyproject.toml above, which an installed package has not got.
        declared = dg.ComponentTree.from_module(
            import_module(f"{package}.defs"), project_root=project.root or project.folder
        ).build_defs()
        return dg.Definitions.merge(declared, _outside(executor(load_settings(), catalog)))


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
