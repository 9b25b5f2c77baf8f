"""The graph as Dagster sees it: a change of keys, dependencies, groups or checks is a change of this test."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph
from dagster_k8s.job import get_user_defined_k8s_config

from ml_platform.components.execution import executor
from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.data.contract import CHECKS
from ml_platform.definitions import defs
from ml_platform.features import health
from ml_platform.monitoring import checks as monitoring_checks
from ml_platform.resources.cluster import STARTS_AND_STOPS

ROOT = Path(__file__).parents[2]
NEVER_IMPORTED = (
    "torch",
    "pandas",
    "mlflow",
    "ibis",
    "duckdb",
    "kubernetes",
    "sklearn",
    "feast",
    "redis",
    "xgboost",
    "lightgbm",
    "pyspark",
    "optuna",
)


@pytest.fixture(scope="module")
def graph() -> AssetGraph:
    return defs.resolve_asset_graph()


def name(key: dg.AssetKey) -> str:
    return key.to_user_string()


def test_graph_has_these_assets_with_these_parents(graph: AssetGraph) -> None:
    found = {name(key): sorted(map(name, graph.get(key).parent_keys)) for key in graph.get_all_asset_keys()}
    features = ["features/customer_activity", "features/terminal_risk"]
    raw = ["fraud_labels/raw", "transactions/raw"]
    assert found == {
        "transactions/landed": [],
        "transactions/raw": ["transactions/landed"],
        "fraud_labels/landed": [],
        "fraud_labels/raw": ["fraud_labels/landed", "transactions/raw"],
        "features/customer_activity": ["transactions/raw"],
        "features/terminal_risk": raw,
        "features/customer_bursts": ["transactions/raw"],
        "features/customer_windows": ["transactions/raw"],
        "features/terminal_frauds": raw,
        "features/terminal_windows": raw,
        "features/online_store": features,
        "fraud_detection/training_set": features + raw,
        "fraud_detection/candidate": ["fraud_detection/training_set"],
        "fraud_detection/evaluation": ["fraud_detection/candidate", "fraud_detection/training_set"],
        "fraud_detection/model_version": ["fraud_detection/candidate", "fraud_detection/evaluation"],
        "fraud_detection/deployment": ["fraud_detection/evaluation", "fraud_detection/model_version"],
        "fraud_detection/predictions": [*features, "fraud_detection/deployment", "transactions/raw"],
        "fraud_detection/monitoring": ["fraud_detection/predictions", "fraud_labels/raw"],
    }


def test_contract_and_gates_are_checks(graph: AssetGraph) -> None:
    found: dict[str, set[str]] = {}
    for key in graph.asset_check_keys:
        found.setdefault(name(key.asset_key), set()).add(key.name)
    assert found == {
        "transactions/raw": set(CHECKS) - {"references_exist"},
        "fraud_labels/raw": set(CHECKS),
        **{f"features/{name}": set(health.CHECKS) for name in ("customer_activity", "terminal_risk")},
        **{
            f"features/{name}": set(health.CHECKS) - {"entities_are_covered"}
            for name in ("customer_bursts", "customer_windows", "terminal_frauds", "terminal_windows")
        },
        "features/online_store": {"online_matches_offline"},
        "fraud_detection/training_set": {"no_future_information", "each_row_is_there_once", "every_row_has_a_label"},
        "fraud_detection/deployment": {"serving_matches_training"},
        "fraud_detection/predictions": {"every_row_has_a_score"},
        "fraud_detection/monitoring": set(monitoring_checks.CHECKS) - {"no_slice_performs_worse"},
        "fraud_detection/evaluation": {
            "average_precision_is_above_minimum",
            "roc_auc_is_above_minimum",
            "keeps_up_with_champion_on_average_precision",
            "no_null_predictions",
            "prediction_latency_is_within_limit",
            "class_ratio_is_above_minimum",
            "invariant_to_row_order",
            "invariant_to_batch_size",
            "survives_save_and_load",
            "input_schema_matches",
            "cold_start_is_sane",
        },
    }


def test_groups_are_owners_and_everything_has_a_stage_and_a_description(graph: AssetGraph) -> None:
    for key in graph.get_all_asset_keys():
        node = graph.get(key)
        assert node.group_name == key.path[0]
        assert node.tags["stage"]
        assert node.description


def test_sensors(graph: AssetGraph) -> None:
    assert {sensor.name for sensor in defs.sensors or ()} == {
        "arrival_sensor",
        "freshness_sensor",
        "recovery_sensor",
        "retrain_sensor",
        "rollout_progress_sensor",
    }


def test_features_of_a_day_need_exactly_the_raw_days_before_it(graph: AssetGraph) -> None:
    mapping = graph.get(dg.AssetKey(["features", "terminal_risk"])).partition_mappings
    assert mapping[dg.AssetKey(["transactions", "raw"])] == dg.TimeWindowPartitionMapping(
        start_offset=-37, end_offset=-1, allow_nonexistent_upstream_partitions=True
    )
    assert mapping[dg.AssetKey(["fraud_labels", "raw"])] == dg.TimeWindowPartitionMapping(
        start_offset=-37, end_offset=-8, allow_nonexistent_upstream_partitions=True
    )


def test_training_step_carries_its_resources_wherever_it_is_started_from() -> None:
    op = defs.resolve_assets_def(dg.AssetKey(["fraud_detection", "candidate"])).op
    tags = op.tags
    assert json.loads(tags["dagster-k8s/config"])["container_config"]["resources"] == {
        "requests": {"cpu": "4", "memory": "8Gi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "8Gi", "nvidia.com/gpu": "1"},
    }
    config = get_user_defined_k8s_config(tags)
    assert config.job_spec_config == {"active_deadline_seconds": 14_400 + STARTS_AND_STOPS}
    assert config.pod_spec_config["affinity"]
    assert op.pool == "gpu_training"
    assert op.retry_policy == dg.RetryPolicy(3, 2, dg.Backoff.EXPONENTIAL, dg.Jitter.PLUS_MINUS)


def test_k8s_executor_is_chosen_by_the_environment(catalog: Catalog) -> None:
    assert executor(Settings(executor="k8s"), catalog).name == "k8s"
    assert executor(Settings(executor="in_process"), catalog).name == "in_process"
    assert executor(Settings(), catalog).name == "multiprocess"


def python(code: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(cwd)}
    return subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)


@pytest.mark.processes
def test_heavy_libraries_are_not_imported_while_definitions_load() -> None:
    found = python(
        f"import ml_platform.definitions, sys; print([m for m in {NEVER_IMPORTED} if m in sys.modules])", ROOT
    )
    assert found.stdout.strip() == "[]", found.stderr


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the project to drop files into."""
    shutil.copytree(ROOT / "ml_platform", tmp_path / "ml_platform", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


SECOND_MODEL = """\
type: ml_platform.components.Model
attributes:
  name: second_model
  entity_rows: transactions
  label: {source: fraud_labels, column: is_fraud}
  features: [terminal_risk]
  candidates: [{trainer: mlp, search: {lr: {log: [1e-4, 1e-2]}, trials: 12}}]
"""


@pytest.mark.processes
def test_second_model_is_one_new_file(project: Path) -> None:
    path = project / "ml_platform" / "examples" / "fraud" / "defs" / "models" / "second_model" / "defs.yaml"
    path.parent.mkdir()
    path.write_text(SECOND_MODEL)
    code = (
        "from ml_platform.definitions import defs\n"
        "import ml_platform; print(ml_platform.__file__)\n"
        "print(sorted(k.to_user_string() for k in defs.resolve_all_asset_keys() if k.path[0] == 'second_model'))"
    )
    found = python(code, project)
    assert str(project) in found.stdout, found.stderr
    nouns = ["candidate", "deployment", "evaluation", "model_version", "monitoring", "predictions"]
    nouns += ["training_set", "trials"]
    assert str([f"second_model/{noun}" for noun in nouns]) in found.stdout


@pytest.mark.processes
def test_typo_in_a_model_file_is_reported_with_file_line_and_the_valid_name(project: Path) -> None:
    path = project / "ml_platform" / "examples" / "fraud" / "defs" / "models" / "fraud_detection" / "defs.yaml"
    path.write_text(path.read_text().replace("  training:", "  trainig:"))
    found = python("import ml_platform.definitions", project)
    assert f"{path}:10: unknown key `trainig`; did you mean `training`?" in found.stderr
