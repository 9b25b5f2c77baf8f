"""Project: what a project says of itself. It makes nothing; the catalog heeds it."""

import dagster as dg

from ml_platform.components.graph import SpecComponent
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ProjectSpec


class Project(SpecComponent):
    """Where the project's tables lie in a lake that others share, and whose sources it may name."""

    spec_class = ProjectSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        return dg.Definitions()
