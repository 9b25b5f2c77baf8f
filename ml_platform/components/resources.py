"""Adapters as Dagster resources. Each is opened when a step or sensor first needs it, never while definitions load."""

import dagster as dg
from dagster_aws.s3 import S3Resource

from ml_platform.components.tracking import Tracking
from ml_platform.core.settings import load_settings
from ml_platform.features.engine import Engine
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.object_store import ObjectStore, client_options
from ml_platform.resources.online_store import OnlineStore, online_store_at
from ml_platform.resources.origins import Origins
from ml_platform.resources.registry import Registry
from ml_platform.resources.spark import engine_at


@dg.resource(
    description="Where sources come from: the landing bucket (ML_PLATFORM_LANDING) through dagster-aws, databases."
)
def origins() -> Origins:
    settings = load_settings()
    client = S3Resource.model_validate(client_options(settings)).get_client()
    return Origins(ObjectStore(client, settings.landing))


@dg.resource(description="The lake (ML_PLATFORM_LAKE).")
def lake() -> Lake:
    return Lake.at(load_settings())


@dg.resource(description="What computes features (ML_PLATFORM_ENGINE).")
def engine() -> Engine:
    return engine_at(load_settings())


@dg.resource(description="The online store (ML_PLATFORM_ONLINE_STORE).")
def online_store() -> OnlineStore:
    return online_store_at(load_settings())


@dg.resource(description="The model registry (MLFLOW_TRACKING_URI).")
def registry() -> Registry:
    return Registry.at(load_settings())


@dg.resource(description="The model server (ML_PLATFORM_MODEL_SERVER).")
def model_server() -> ModelServer:
    return ModelServer.at(load_settings())


@dg.resource(description="The MLflow run of this Dagster run (MLFLOW_TRACKING_URI), through dagster-mlflow.")
def tracking(context: dg.InitResourceContext) -> Tracking:
    assert context.run is not None, "steps run in a run"
    assert context.log is not None, "and can log"
    assert context.instance is not None, "and are recorded"
    settings = load_settings()
    return Tracking(context.log, context.run, context.instance, settings.mlflow_url, settings.dagster_url)
