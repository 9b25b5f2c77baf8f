"""Where the outside is, and how steps are executed; both follow the environment."""

import dagster as dg

from ml_platform.components import resources as adapters
from ml_platform.components.execution import executor
from ml_platform.components.graph import read_catalog
from ml_platform.core.settings import load_settings


@dg.definitions
def resources() -> dg.Definitions:
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
        executor=executor(load_settings(), read_catalog()),
    )
