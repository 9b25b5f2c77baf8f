"""The Dagster code location: everything that the defs folder declares."""

import warnings
from pathlib import Path

import dagster as dg

import ml_platform.defs
from ml_platform.components.graph import read_catalog
from ml_platform.core.threads import wait_passively

wait_passively()  # for the processes of runs and steps too

# First, so that a mistake in a YAML file is reported with file, line and the nearest valid name.
read_catalog()
with warnings.catch_warnings():
    # What of Dagster we use that is a beta or a preview, we chose.
    warnings.simplefilter("ignore", dg.BetaWarning)
    warnings.simplefilter("ignore", dg.PreviewWarning)
    # `load_from_defs_folder` would look for a pyproject.toml above, which an installed package has not got.
    defs = dg.ComponentTree.from_module(ml_platform.defs, project_root=Path(__file__).parents[1]).build_defs()
