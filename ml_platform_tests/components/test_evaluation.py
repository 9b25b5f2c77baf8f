"""`evaluation` on a lake with a trained candidate: its checks, and a registry that cannot be reached."""

from datetime import date
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pytest

from ml_platform.components.evaluation import _evaluation_result, make_report
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureViewSpec, GateSpec, ModelSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.evaluation.gates import judge
from ml_platform.registry.candidate import train_candidate
from ml_platform.registry.versions import Aliases, Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.registry import Registry
from ml_platform.resources.verdict import verdict
from ml_platform.training.training_set import LABEL, SPLIT

DAY = date(2024, 1, 20)
GATES = [
    {"metric": "average_precision", "min": 0.3},
    {"metric": "roc_auc", "min": 0.6, "per": "terminal_id", "min_rows": 20},
    {
        "metric": "ml_platform.examples.fraud.metrics.card_precision",
        "params": {"time": "tx_datetime", "card": "customer_id", "k": 5},
        "resample_by": "customer_id",
        "min": 0.001,
    },
    {"metric": "average_precision", "better_than_champion_by": -0.02, "at_confidence": 0.9},
    {"check": "prediction_latency_p99_ms", "max": 10_000},
    {"check": "invariant_to_row_order"},
    {"check": "invariant_to_batch_size"},
    {"check": "survives_save_and_load"},
    {"check": "input_schema_matches"},
]


class Known:
    """A registry that holds one champion, or none."""

    def __init__(self, files: dict[str, bytes] | None = None) -> None:
        self.files = files

    def aliases(self, model: str) -> Aliases:
        return Aliases(Version(model, "4", "digest", "2024-01-01", "run", "source") if self.files else None)

    def download(self, version: Version) -> dict[str, bytes]:
        return self.files or {}


@pytest.fixture(scope="module")
def catalog() -> Catalog:
    """The built-in one, and a view of the request alone."""
    built_in = load_catalog(find_project(EXAMPLE).defs)
    view = {"name": "size", "kind": "request", "features": {"amount": {"expression": "asinh(tx_amount)"}}}
    views = {**built_in.views, "size": FeatureViewSpec.model_validate(view)}
    return Catalog(built_in.sources, views, built_in.models)


@pytest.fixture(scope="module")
def spec(catalog: Catalog) -> ModelSpec:
    fraud = catalog.models["fraud_detection"].model_dump()
    candidates = [{"trainer": "mlp", "params": {"hidden": [8], "epochs": 3}}]
    return ModelSpec.model_validate({**fraud, "features": ["size"], "candidates": candidates, "gates": GATES})


def training_set(catalog: Catalog) -> pa.Table:
    """Rows whose fraud is a matter of the amount."""
    random, count = np.random.default_rng(3), 3_000
    fraud = random.random(count) < 0.1
    columns = {
        "transaction_id": np.arange(count),
        "tx_datetime": np.datetime64("2024-01-01", "us") + np.arange(count) * np.timedelta64(5, "m"),
        "customer_id": random.integers(0, 50, count),
        "terminal_id": random.integers(0, 3, count),
        "tx_amount": np.where(fraud, random.uniform(50, 400, count), random.uniform(1, 200, count)),
    }
    declared = arrow_schema(catalog.sources["transactions"])
    assert set(columns) == set(declared.names)
    table = pa.table({name: pa.array(columns[name]).cast(declared.field(name).type) for name in declared.names})
    split = np.where(np.arange(count) < 2_000, "train", "validation")
    return table.append_column(LABEL, pa.array(fraud.astype(np.int8))).append_column(SPLIT, pa.array(split))


@pytest.fixture(scope="module")
def lake(catalog: Catalog, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory) -> Lake:
    """Only what `evaluation` reads."""
    lake = Lake.at(Settings(lake=str(tmp_path_factory.mktemp("lake"))))
    table = training_set(catalog)
    lake.write_table(keys.training_set(spec.name), DAY, table, [])
    source, views = catalog.sources["transactions"], catalog.request_views(spec)
    trained = train_candidate(spec, DAY, source, [], views, table, "hash", [], lambda *_: None)
    lake.write_files(keys.candidate(spec.name), DAY, trained.files, [])
    return lake


def evaluated(spec: ModelSpec, catalog: Catalog, lake: Lake, registry: object) -> dg.MaterializeResult:
    report, curves = make_report(spec, catalog, DAY, lake, registry)  # type: ignore[arg-type]
    assert verdict(spec, DAY, lake)[1] == judge(spec.gates, report)  # what is judged again at deployment
    return _evaluation_result(spec, report, judge(spec.gates, report), curves)


def failed(result: dg.MaterializeResult) -> dict[str, str]:
    return {check.check_name: check.description or "" for check in result.check_results or () if not check.passed}  # type: ignore[misc]


def test_checks_carry_value_limit_interval_and_pictures(spec: ModelSpec, catalog: Catalog, lake: Lake) -> None:
    result = evaluated(spec, catalog, lake, Known(lake.read_files(keys.candidate(spec.name), DAY)))
    assert failed(result) == {}
    checks = {check.check_name: check.metadata for check in result.check_results or ()}
    assert list(checks) == [gate.name for gate in spec.gates]
    assert {"value", "limit", "interval_low", "interval_high", "curve"} <= set(
        checks["average_precision_is_above_minimum"]
    )
    beats = checks["keeps_up_with_champion_on_average_precision"]
    assert beats["gain"].value == 0  # the champion is the same bundle
    assert beats["confidence"].value == 1
    assert "| 0 | " in checks["roc_auc_is_above_minimum_in_every_terminal_id"]["segments"].value  # type: ignore[operator]
    assert {"precision_recall", "roc", "calibration", "gates"} <= set(result.metadata or {})
    assert "precision_recall.png" in lake.read_files(keys.evaluation(spec.name), DAY)


def test_registry_that_cannot_be_reached_says_no_and_why(
    spec: ModelSpec, catalog: Catalog, lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    result = evaluated(spec, catalog, lake, Registry("http://127.0.0.1:9"))
    assert list(failed(result)) == ["keeps_up_with_champion_on_average_precision"]
    assert "MLflow at http://127.0.0.1:9" in failed(result)["keeps_up_with_champion_on_average_precision"]


def test_champion_whose_files_are_broken_says_no_and_why(spec: ModelSpec, catalog: Catalog, lake: Lake) -> None:
    files = {**lake.read_files(keys.candidate(spec.name), DAY), "model.safetensors": b"cut short"}
    result = evaluated(spec, catalog, lake, Known(files))
    assert "cannot be loaded" in failed(result)["keeps_up_with_champion_on_average_precision"]


def test_source_that_has_changed_since_the_training_says_no(spec: ModelSpec, catalog: Catalog, lake: Lake) -> None:
    source = catalog.sources["transactions"]
    amount = source.columns["tx_amount"].model_copy(update={"type": "float32"})
    changed = source.model_copy(update={"columns": {**source.columns, "tx_amount": amount}})
    now = Catalog({**catalog.sources, "transactions": changed}, catalog.views, catalog.models)
    found = failed(evaluated(spec, now, lake, Known()))
    assert "tx_amount is float64 in the bundle and float32 in transactions" in found["input_schema_matches"]


def test_gate_that_is_newer_than_the_report_holds_until_it_is_made_again(
    spec: ModelSpec, catalog: Catalog, lake: Lake
) -> None:
    evaluated(spec, catalog, lake, Known())
    newer = spec.model_copy(update={"gates": (GateSpec(metric="f1", min=0.0),)})
    assert "materialize fraud_detection/evaluation again" in verdict(newer, DAY, lake)[1][0].reason


# --- strangers --------------------------------------------------------------------------------------------------------

CARDS = {
    "name": "cards",
    "entity": "customer_id",
    "function": "a.b",
    "inputs": {"transactions": {"window_days": 1}},
    "is_known": True,
    "features": {"usual": {}},
}
TIMES = {"name": "times", "kind": "request", "features": {"times": {"expression": "tx_amount / maximum(usual, 1.0)"}}}


@pytest.mark.parametrize(("share", "sane"), [(0.0, False), (0.05, True)])
def test_model_that_never_saw_a_stranger_is_held_and_one_that_did_is_not(
    catalog: Catalog, spec: ModelSpec, tmp_path: Path, share: float, sane: bool
) -> None:
    """Fraud is several times what a card usually spends, which of an unknown card is 0."""
    snapshot, request = (FeatureViewSpec.model_validate(view) for view in (CARDS, TIMES))
    strange = Catalog(catalog.sources, {"cards": snapshot, "times": request}, {})
    changed = {"features": ["cards", "times"], "training": {"cold_start_share": share}}
    gates = [{"check": "cold_start_is_sane"}, {"metric": "average_precision", "min": 0.9}]
    candidates = [{"trainer": "forest", "params": {"n_estimators": 30}}]
    model = ModelSpec.model_validate({**spec.model_dump(), **changed, "gates": gates, "candidates": candidates})
    table = training_set(catalog)
    usual = np.random.default_rng(6).uniform(20, 90, len(table))
    times = np.where(table[LABEL].to_numpy() == 1, 5.0, np.random.default_rng(7).uniform(0.2, 2.0, len(table)))
    table = table.set_column(table.schema.get_field_index("tx_amount"), "tx_amount", pa.array(usual * times))
    table = table.append_column("usual", pa.array(usual)).append_column("cards_is_known", pa.array(np.ones(len(table))))
    table = table.append_column("cards__as_of", table["tx_datetime"])
    lake = Lake.at(Settings(lake=str(tmp_path)))
    lake.write_table(keys.training_set(spec.name), DAY, table, [])
    source = catalog.sources["transactions"]
    trained = train_candidate(model, DAY, source, [snapshot], [request], table, "hash", [], lambda *_: None)
    lake.write_files(keys.candidate(spec.name), DAY, trained.files, [])
    found = failed(evaluated(model, strange, lake, Known()))
    assert list(found) == ([] if sane else ["cold_start_is_sane"])
    assert sane or "mean scores: unknown customer_id 0.8" in found["cold_start_is_sane"]
