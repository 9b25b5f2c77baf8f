"""The code location of the present project, under one name for whatever starts it."""

from ml_platform.components.project import project_definitions
from ml_platform.core.project import find_project
from ml_platform.core.settings import load_settings

defs = project_definitions(find_project(load_settings().project).package)
