"""Cluster: what model files may leave to the cluster. It makes nothing itself; the catalog puts it where it is named."""

import dagster as dg

from ml_platform.components.graph import SpecComponent
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ClusterSpec


class Cluster(SpecComponent):
    """The named resources of a Kubernetes cluster, and how its nodes are labelled."""

    spec_class = ClusterSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        return dg.Definitions()
