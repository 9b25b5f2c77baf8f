"""The candidate step on a small training set: within the step, in processes of its own, and interrupted."""

import os
import signal
from collections.abc import Mapping
from dataclasses import replace
from datetime import date, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import mlflow
import numpy as np
import pyarrow as pa
import pytest

from ml_platform.components import resources as adapters
from ml_platform.components.candidate import candidate_asset
from ml_platform.components.graph import asset_key
from ml_platform.components.launching import BYTES
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.settings import Settings, load_settings
from ml_platform.core.spec import FeatureViewSpec, ModelSpec
from ml_platform.resources.lake import Lake
from ml_platform.training.trainers import Context
from ml_platform.training.trainers.mlp import MLP
from ml_platform.training.training_set import LABEL, SPLIT

pytestmark = pytest.mark.usefixtures("mlflow_url")

MODEL = "sized"
DAY = date(2018, 6, 1)
SIZE = FeatureViewSpec.model_validate(
    {"name": "size", "kind": "request", "features": {"amount": {"expression": "tx_amount"}}}
)
PARAMS = {"hidden": [4], "epochs": 3, "batch_size": 64, "dropout": 0.0}


class Evicted(MLP):
    """Its first fit gets SIGTERM as soon as it has a checkpoint."""

    on_ranks = False

    @classmethod
    def fit(cls, params: Any, train: Any, validation: Any, context: Context) -> Any:
        if context.checkpoints is not None and context.checkpoints.load() is None:
            heard = context.on_epoch

            def evicted(epoch: int, figures: dict[str, float]) -> None:
                heard(epoch, figures)
                if epoch == 2:
                    os.kill(os.getpid(), signal.SIGTERM)

            context = replace(context, on_epoch=evicted)
        return MLP.fit(params, train, validation, context)


def training_rows() -> pa.Table:
    rng = np.random.default_rng(3)
    amounts = rng.uniform(0, 10, 900)
    columns = {
        "tx_amount": amounts,
        "tx_datetime": pa.array([start_of(DAY) - timedelta(hours=n) for n in range(900)], pa.timestamp("us", tz="UTC")),
        LABEL: (amounts + rng.normal(0, 2, 900) > 6).astype(np.int64),
        SPLIT: ["train"] * 600 + ["validation"] * 300,
    }
    return pa.table(columns)


def problems(result: dg.ExecuteInProcessResult) -> list[str]:
    failures = [event.step_failure_data.error for event in result.all_events if event.is_step_failure]
    return [error.to_string() for error in failures if error]


def materialized(catalog: Catalog, trainer: str = "mlp", **resources: Any) -> tuple[dg.ExecuteInProcessResult, Lake]:
    fraud = catalog.models["fraud_detection"].model_dump(exclude={"gates"})
    given = {"candidates": [{"trainer": trainer, "params": PARAMS}], "features": ["size"], "resources": resources}
    spec = ModelSpec.model_validate(fraud | {"name": MODEL} | given)
    lake = Lake.at(load_settings())
    rows = training_rows()
    lake.write_table(keys.training_set(MODEL), DAY, rows, [], {BYTES: str(rows.nbytes)})
    asset = candidate_asset(spec, Catalog(catalog.sources, {"size": SIZE}, {MODEL: spec}))
    wanted = {"lake": adapters.lake, "tracking": adapters.tracking}
    result = dg.materialize([asset], partition_key=DAY.isoformat(), resources=wanted, raise_on_error=False)
    assert result.success, problems(result)
    return result, lake


def weights(lake: Lake) -> bytes:
    return lake.read_files(keys.candidate(MODEL), DAY)["model.safetensors"]


def metadata(result: dg.ExecuteInProcessResult) -> Mapping[str, Any]:
    (made,) = result.asset_materializations_for_node("__".join(asset_key(keys.candidate(MODEL)).path))
    return {name: value.value for name, value in made.metadata.items()}


def tracked(settings: Settings, result: dg.ExecuteInProcessResult) -> tuple[str, list[int]]:
    """The MLflow run's status, and the epochs that it has a training loss of."""
    client = mlflow.MlflowClient(settings.mlflow_url)
    run = str(metadata(result)["mlflow_run_id"])
    epochs = [metric.step for metric in client.get_metric_history(run, "train_loss")]
    return client.get_run(run).info.status, epochs


def test_step_trains_in_processes_of_its_own_as_by_itself(catalog: Catalog, environment: Settings) -> None:
    _, lake = materialized(catalog)
    alone = weights(lake)
    result, _ = materialized(catalog, processes=1)
    assert weights(lake) == alone
    assert tracked(environment, result) == ("FINISHED", [1, 2, 3])
    assert lake.manifest(keys.training_job(MODEL, 1), DAY) is None
    assert not list(Path(lake.root).rglob("*.checkpoint"))


@pytest.mark.parametrize(("up_to", "place"), [("20k", 2), ("100k", 1)])
def test_size_of_the_training_follows_the_training_set_and_is_said(
    catalog: Catalog, environment: Settings, up_to: str, place: int
) -> None:
    sizes = [{"up_to": up_to, "cpu": 2}, {"cpu": 6, "gpu": 4}]
    said = metadata(materialized(catalog, sizes=sizes)[0])
    words = {1: "at most 100k): 2 CPU, 2Gi", 2: "more than all others): 6 CPU, 2Gi, 4 GPUs"}
    assert said["resources"] == f"size {place} of 2 ({words[place]}"
    assert said["training_set_bytes"] == training_rows().nbytes


def test_pods_of_a_training_need_a_run_that_is_one(
    catalog: Catalog, environment: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ML_PLATFORM_EXECUTOR", "k8s")
    with pytest.raises(AssertionError, match="needs runs that are pods"):
        materialized(catalog, launcher="job")


@pytest.mark.parametrize("retries", [0, 3])
def test_evicted_step_is_tried_again_and_ends_with_the_same_weights(
    catalog: Catalog, environment: Settings, retries: int
) -> None:
    _, lake = materialized(catalog)
    alone = weights(lake)
    result, _ = materialized(catalog, f"{__name__}.Evicted", retries={"max": retries, "delay": "1s"})
    assert weights(lake) == alone
    assert [event.event_type_value for event in result.all_events].count("STEP_UP_FOR_RETRY") == 1
    status, epochs = tracked(environment, result)
    assert status == "FINISHED"
    assert sorted(set(epochs)) == [1, 2, 3]
