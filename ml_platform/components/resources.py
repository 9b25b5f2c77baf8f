"""Adapters as Dagster resources. Each is opened when a step or sensor first needs it, never while definitions load."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import dagster as dg
from dagster_aws.s3 import S3Resource

from ml_platform.core.settings import load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.object_store import ObjectStore, client_options
from ml_platform.resources.online_store import OnlineStore
from ml_platform.resources.registry import Registry


@dg.resource(description="The landing bucket (ML_PLATFORM_LANDING), through dagster-aws.")
def landing() -> ObjectStore:
    settings = load_settings()
    return ObjectStore(S3Resource.model_validate(client_options(settings)).get_client(), settings.landing)


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
    """dagster-mlflow's MLflow run for all steps of a Dagster run. MLflow is imported only when a step starts."""

    @dg.resource(description=f"MLflow run of this Dagster run, in the experiment {experiment}, through dagster-mlflow.")
    def mlflow_run(context: dg.InitResourceContext) -> Any:
        from dagster_mlflow.resources import MlFlow

        assert context.run is not None, "steps run in a run"
        run = SimpleNamespace(
            log=context.log,
            dagster_run=context.run,
            run_id=context.run.run_id,
            resource_config={"experiment_name": experiment, "mlflow_tracking_uri": load_settings().mlflow_url},
        )
        mlflow: Any = MlFlow(run)
        mlflow.mlflow_run_id = mlflow.active_run().info.run_id  # left empty by MlFlow if it made the run itself
        return mlflow

    return mlflow_run


@contextmanager
def step_of(mlflow: Any) -> Iterator[str]:
    """A step's part of the MLflow run, which ends as the step does; yields the MLflow run's id.

    Left to itself the run of a failed step would end as FINISHED: dagster-mlflow unregisters `mlflow.end_run`, but MLflow
    registers another function at exit.
    """
    if mlflow.active_run() is None:  # steps and retries in one process share the resource
        mlflow.start_run(run_id=mlflow.mlflow_run_id)
    try:
        yield mlflow.mlflow_run_id
    except BaseException:
        mlflow.end_run("FAILED")
        raise
    mlflow.end_run("FINISHED")
