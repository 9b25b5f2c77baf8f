"""Adapters as Dagster resources. Each is opened when a step or sensor first needs it, never while definitions load."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg
from ml_platform.core.settings import load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.online_store import OnlineStore
from ml_platform.resources.registry import Registry


@dg.resource(required_resource_keys={"s3"}, description="The landing bucket (ML_PLATFORM_LANDING).")
def landing(context: dg.InitResourceContext) -> ObjectStore:
    return ObjectStore(context.resources.s3, load_settings().landing)


@dg.resource(description="The lake (ML_PLATFORM_LAKE).")
def lake() -> Lake:
    return Lake.at(load_settings())


@dg.resource(description="The online store (ML_PLATFORM_ONLINE_STORE).")
def online_store() -> OnlineStore:
    return OnlineStore.at(load_settings())


@dg.resource(description="The model registry (MLFLOW_TRACKING_URI).")
def registry() -> Registry:
    return Registry.at(load_settings())


@dg.resource(description="The model server (ML_PLATFORM_MODEL_SERVER).")
def model_server() -> ModelServer:
    return ModelServer.at(load_settings())


def mlflow_resource(experiment: str) -> dg.ResourceDefinition:
    """dagster-mlflow's resource: one MLflow run for all steps of a Dagster run. Imported only when a step starts."""

    @dg.resource(description=f"MLflow run of this Dagster run, in the experiment {experiment}.")
    def mlflow_run(context: dg.InitResourceContext) -> Iterator[Any]:
        from dagster_mlflow import mlflow_tracking

        configured = dg.build_init_resource_context(
            config={"experiment_name": experiment, "mlflow_tracking_uri": load_settings().mlflow_url, "env": {}, "extra_tags": {}},
            instance=context.instance,
        )
        # The built context knows no run; dagster-mlflow ties the MLflow run to the run of the real one.
        yield from mlflow_tracking.resource_fn(_OfRun(configured.resource_config, context))

    return mlflow_run


class _OfRun:
    """An init context with this resource config and another context's run."""

    def __init__(self, resource_config: Any, context: dg.InitResourceContext) -> None:
        self.resource_config = resource_config
        self.log = context.log
        self.dagster_run = context.dagster_run
        self.run_id = context.run_id


@contextmanager
def step_of(mlflow: Any) -> Iterator[str]:
    """Close the MLflow run with the step's own outcome; yields the MLflow run's id.

    Left to itself the run of a failed step would end as FINISHED: dagster-mlflow unregisters `mlflow.end_run`, but MLflow
    registers another function at exit.
    """
    try:
        yield mlflow.active_run().info.run_id
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    mlflow.end_run("FINISHED")
