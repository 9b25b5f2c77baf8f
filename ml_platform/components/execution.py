"""How a run executes its steps (ML_PLATFORM_EXECUTOR): here, as forks, or each in a pod of its own."""

import os
from typing import Any

import dagster as dg

from ml_platform.components.trials import parallel_limits
from ml_platform.core.catalog import Catalog
from ml_platform.core.project import find_project
from ml_platform.core.settings import Settings, load_settings
from ml_platform.core.spec import ModelSpec, seconds
from ml_platform.resources.cluster import pod_config

# What steps that train import anyway: together five seconds of processor time, once a run instead of once a step.
TRAINING_LIBRARIES = (
    "torch",
    "torch._dynamo",
    "dagster_mlflow.resources",
    "mlflow.store.tracking.rest_store",
    "sklearn.metrics",
)
SEARCH_LIBRARIES = ("optuna",)


def executor(settings: Settings, catalog: Catalog) -> dg.ExecutorDefinition:
    """The executor of all runs; it limits how many trials of each model there are at once."""
    limits = parallel_limits(catalog)
    if settings.executor == "k8s":
        from ml_platform.components.pods import executor_of_pods

        # A run that was started by Dagster's command line knows no image; the code location's pods know theirs.
        image = os.environ.get("DAGSTER_CURRENT_IMAGE")
        return executor_of_pods(seconds(catalog.cluster.steps.start_timeout)).configured(
            {
                "tag_concurrency_limits": limits,
                "step_k8s_config": pod_config(catalog.cluster.steps, catalog.cluster),
                **({"job_image": image} if image else {}),
            }
        )
    if settings.executor == "in_process":
        return dg.in_process_executor
    return _forks(limits, find_project(settings.project).definitions)


def _forks(limits: list[dict[str, Any]], definitions: str) -> dg.ExecutorDefinition:
    @dg.configured(dg.multiprocess_executor, {"preload": dg.Field([str], default_value=[], description="more modules")})
    def multiprocess(config: dict[str, Any]) -> dict[str, Any]:
        preload = ["ml_platform.workloads.forkserver", definitions, *config["preload"]]
        return {"start_method": {"forkserver": {"preload_modules": preload}}, "tag_concurrency_limits": limits}

    return multiprocess


def training_run_config(spec: ModelSpec) -> dict[str, Any]:
    """Run config of a training: the steps' processes are forked from one that has imported what all of them need."""
    if load_settings().executor != "multiprocess":
        return {}
    return {"execution": {"config": {"preload": [*TRAINING_LIBRARIES, *(SEARCH_LIBRARIES if spec.searched else ())]}}}
