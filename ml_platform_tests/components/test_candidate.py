"""The candidate asset as it runs: what a training of several candidates leaves in MLflow."""

from datetime import date
from pathlib import Path

import dagster as dg
import pytest
from mlflow.tracking import MlflowClient

from ml_platform.components.candidate import candidate_asset
from ml_platform.components.graph import asset_key
from ml_platform.components.resources import tracking
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec
from ml_platform.resources.lake import Lake
from ml_platform_tests.registry.test_candidate import VIEW, table

DAY = date(2018, 5, 31)


def model(catalog: Catalog, name: str, *candidates: dict) -> ModelSpec:
    fraud = catalog.models["fraud_detection"].model_dump(exclude={"gates"})
    changes = {"name": name, "features": [VIEW.name], "candidates": candidates, "task": "multiclass_classification"}
    return ModelSpec.model_validate({**fraud, **changes})


def logged(
    spec: ModelSpec, catalog: Catalog, folder: Path, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, str], dict[str, float]]:
    """Params and metrics of the MLflow run of one training, which goes well."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", mlflow_url)
    lake = Lake.at(Settings(home=folder))
    lake.write_table(keys.training_set(spec.name), DAY, table(spec.task), [])
    known = Catalog(catalog.sources, {**catalog.views, VIEW.name: VIEW}, {**catalog.models, spec.name: spec})
    resources = {"lake": dg.ResourceDefinition.hardcoded_resource(lake), "tracking": tracking}
    result = dg.materialize([candidate_asset(spec, known)], partition_key=DAY.isoformat(), resources=resources)
    (made,) = result.asset_materializations_for_node(asset_key(keys.candidate(spec.name)).to_python_identifier())
    run = MlflowClient(mlflow_url).get_run(str(made.metadata["mlflow_run_id"].value))
    return run.data.params, run.data.metrics


def test_params_and_figures_of_several_candidates_begin_with_their_names(
    catalog: Catalog, tmp_path: Path, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    boosted = {"trainer": "xgboost", "params": {"n_estimators": 5, "max_depth": 2}}
    spec = model(catalog, "three_sizes", {"trainer": "linear"}, boosted, {**boosted, "params": {"n_estimators": 1}})
    params, metrics = logged(spec, catalog, tmp_path, mlflow_url, monkeypatch)
    assert params["1_linear_trainer"] == "linear"
    assert (params["2_xgboost_n_estimators"], params["3_xgboost_n_estimators"]) == ("5", "1")
    figures = ("validation_loss", "log_loss", "accuracy", "macro_f1")
    expected = {f"{label}_{name}" for label in ("1_linear", "2_xgboost", "3_xgboost") for name in figures}
    assert expected <= set(metrics)
    assert metrics["2_xgboost_log_loss"] < metrics["3_xgboost_log_loss"]
    assert not {"n_estimators", "trainer"} & set(params)
    assert not set(figures) & set(metrics)


def test_only_candidate_has_plain_names(
    catalog: Catalog, tmp_path: Path, mlflow_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = model(catalog, "one_size", {"trainer": "linear", "params": {"alpha": 2.0}})
    params, metrics = logged(spec, catalog, tmp_path, mlflow_url, monkeypatch)
    assert (params["trainer"], params["alpha"]) == ("linear", "2.0")
    assert "validation_loss" in metrics
