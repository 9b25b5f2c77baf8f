"""Where the outside is, and how steps are executed; both follow the environment."""

from typing import Any

import dagster as dg

from ml_platform.components import resources as adapters
from ml_platform.components.graph import read_catalog
from ml_platform.components.trials import parallel_limits
from ml_platform.core.settings import Settings, load_settings


def executor(settings: Settings, limits: list[dict[str, Any]]) -> dg.ExecutorDefinition:
    """How a run executes its steps (ML_PLATFORM_EXECUTOR), and how many of those with a tag there are at once."""
    if settings.executor == "k8s":
        from dagster_k8s import k8s_job_executor

        return k8s_job_executor.configured({"tag_concurrency_limits": limits})
    if settings.executor == "in_process":
        return dg.in_process_executor
    return dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}, "tag_concurrency_limits": limits})


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
        executor=executor(load_settings(), parallel_limits(read_catalog())),
    )
