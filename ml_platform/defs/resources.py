"""Where the outside is, and how steps are executed; both follow the environment."""

import dagster as dg

from ml_platform.components import resources as adapters
from ml_platform.core.settings import Settings, load_settings


def executor(settings: Settings) -> dg.ExecutorDefinition:
    """How a run executes its steps (ML_PLATFORM_EXECUTOR)."""
    if settings.executor == "k8s":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor
    if settings.executor == "in_process":
        return dg.in_process_executor
    return dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}})


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
        executor=executor(load_settings()),
    )
