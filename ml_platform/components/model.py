"""Model: training_set -> [trials ->] candidate -> evaluation [gates] -> model_version -> deployment, one partition per training date; predictions and monitoring, one a day."""

import dagster as dg

from ml_platform.components.candidate import candidate_asset, training_set_asset
from ml_platform.components.evaluation import evaluation_asset
from ml_platform.components.graph import SpecComponent
from ml_platform.components.monitoring import monitoring_asset
from ml_platform.components.predictions import predictions_asset
from ml_platform.components.release import deployment_asset, model_version_asset
from ml_platform.components.trials import trials_asset
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ModelSpec


class Model(SpecComponent):
    """A model: from one YAML file to its part of the graph."""

    spec_class = ModelSpec

    def definitions(self, catalog: Catalog) -> dg.Definitions:
        spec = catalog.models[self.spec.name]
        return dg.Definitions(
            assets=[
                training_set_asset(spec, catalog),
                *([trials_asset(spec, catalog)] if spec.searched else []),
                candidate_asset(spec, catalog),
                evaluation_asset(spec, catalog),
                model_version_asset(spec, catalog),
                deployment_asset(spec, catalog),
                predictions_asset(spec, catalog),
                monitoring_asset(spec, catalog),
            ]
        )
