"""The Dagster code location: everything that the defs folder declares."""

from pathlib import Path

import dagster as dg

from ml_platform.components.graph import read_catalog

# First, so that a mistake in a YAML file is reported with file, line and the nearest valid name.
read_catalog()
defs = dg.load_from_defs_folder(path_within_project=Path(__file__).parent)
