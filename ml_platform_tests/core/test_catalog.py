"""Specs are read with errors that name file, line and the nearest valid name."""

from datetime import date
from pathlib import Path

import pytest

from ml_platform.core.catalog import DEFS, load_catalog
from ml_platform.core.errors import SpecError

SOURCE = """\
type: ml_platform.components.Source
attributes:
  name: clicks
  start_date: 2024-01-01
  key: [click_id]
  event_time: clicked_at
  columns:
    click_id: {type: int64}
    clicked_at: {type: timestamp}
    user_id: {type: int32}
"""
MODEL = """\
type: ml_platform.components.Model
attributes:
  name: fraud_copy
  entity_rows: transactions
  label: {source: fraud_labels, column: is_fraud}
  features: [customer_activity]
  candidates: [{trainer: mlp}]
"""


def write(folder: Path, text: str, name: str = "one") -> Path:
    path = folder / name / "defs.yaml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def mistake(folder: Path) -> str:
    with pytest.raises(SpecError) as error:
        load_catalog(folder)
    return str(error.value)


def test_built_in_catalog_has_the_fraud_model() -> None:
    catalog = load_catalog()
    assert catalog.models["fraud_detection"].features == ("customer_activity", "terminal_risk", "transaction_request")
    assert catalog.entities(catalog.models["fraud_detection"]) == ["customer_id", "terminal_id"]
    assert catalog.label_delay(catalog.models["fraud_detection"]) == 7


def test_smallest_valid_model_has_name_rows_label_features_and_one_trainer(tmp_path: Path) -> None:
    for path in DEFS.rglob("defs.yaml"):
        if "models" not in path.parts:
            write(tmp_path, path.read_text(), path.parent.name)
    write(tmp_path, MODEL, "fraud_copy")
    assert load_catalog(tmp_path).models["fraud_copy"].training.window_days == 28


def test_typo_in_a_key_names_file_line_and_nearest_valid_key(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE.replace("event_time:", "event_tme:"))
    assert mistake(tmp_path).startswith(f"{path}:6: unknown key `event_tme`; did you mean `event_time`?")


def test_typo_in_a_nested_key_names_its_line_and_the_keys_of_that_place(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE.replace("{type: int32}", "{type: int32, nulable: true}"))
    assert mistake(tmp_path).startswith(f"{path}:10: unknown key `columns.user_id.nulable`; did you mean `nullable`?")


def test_impossible_value_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE.replace("type: int32", "type: int31"))
    assert mistake(tmp_path).startswith(f"{path}:10: `columns.user_id.type`")


def test_range_on_text_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SOURCE.replace("{type: int32}", "{type: string, min: 0}"))
    assert "min and max are for numbers, not for type string" in mistake(tmp_path)


def test_missing_field_is_named(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE.replace("  key: [click_id]\n", ""))
    assert f"{path}:2: `key` is required" in mistake(tmp_path)


def test_unknown_type_of_ours_is_refused_and_another_packages_is_left_to_dagster(tmp_path: Path) -> None:
    path = write(tmp_path, SOURCE.replace("components.Source", "components.Sorce"))
    assert mistake(tmp_path).startswith(f"{path}:1: unknown type")
    write(tmp_path, "type: dagster.PythonScriptComponent\nattributes: {}\n")
    assert load_catalog(tmp_path).sources == {}


def test_reference_to_a_missing_feature_view_suggests_the_nearest(tmp_path: Path) -> None:
    for path in DEFS.rglob("defs.yaml"):
        write(tmp_path, path.read_text().replace("[customer_activity,", "[customer_activty,"), path.parent.name)
    assert "no feature view 'customer_activty'; did you mean `customer_activity`?" in mistake(tmp_path)


ROLLING = """\
type: ml_platform.components.FeatureView
attributes:
  name: click_windows
  kind: rolling
  rows: clicks
  entity: user_id
  function: some.module.function
  inputs:
    clicks: {window_days: 3}
  features:
    clicks_1d: {}
"""


def test_rolling_view_begins_with_its_rows(tmp_path: Path) -> None:
    write(tmp_path, SOURCE, "source")
    write(tmp_path, ROLLING, "view")
    catalog = load_catalog(tmp_path)
    assert catalog.view_start(catalog.views["click_windows"]) == date(2024, 1, 1)
    assert (catalog.snapshot_views(), catalog.daily_views()) == ([], [catalog.views["click_windows"]])


@pytest.mark.parametrize(
    ("old", "new", "problem"),
    [
        ("  rows: clicks\n", "", "2: `attributes`: a rolling view needs rows"),
        ("  rows: clicks\n", "  rows: clickz\n", "2: `attributes`: inputs has no clickz, whose events get features"),
        ("clicks: {", "clickz: {", "2: `attributes`: inputs has no clicks, whose events get features"),
        (
            "  inputs:\n",
            "  inputs:\n    clickz: {window_days: 3}\n",
            "8: `inputs`: no source 'clickz'; did you mean `clicks`?",
        ),
        ("entity: user_id", "entity: user", "6: `entity`: no column of clicks 'user'; did you mean `user_id`?"),
        ("clicks_1d: {}", 'clicks_1d: {expression: "1"}', "expression belongs to request views only, not to clicks_1d"),
        ("kind: rolling", "kind: snapshot", "a snapshot view has no rows"),
        ("kind: rolling", "kind: request", "a request view has no entity, rows, function, inputs"),
    ],
)
def test_rolling_view_that_cannot_be_is_refused(tmp_path: Path, old: str, new: str, problem: str) -> None:
    write(tmp_path, SOURCE, "source")
    write(tmp_path, ROLLING.replace(old, new), "view")
    assert problem in mistake(tmp_path)


def test_rolling_view_of_an_entity_that_may_be_null_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SOURCE.replace("{type: int32}", "{type: int32, nullable: true}"), "source")
    path = write(tmp_path, ROLLING, "view")
    assert mistake(tmp_path).startswith(f"{path}:6: `entity`: user_id may be null")


def test_rolling_view_of_rows_that_are_known_late_is_refused(tmp_path: Path) -> None:
    write(tmp_path, SOURCE + "  delay_days: 2\n", "source")
    path = write(tmp_path, ROLLING, "view")
    assert mistake(tmp_path).startswith(f"{path}:5: `rows`: clicks is known only 2 days after its events")


@pytest.mark.parametrize(
    ("features", "problem"),
    [
        ("[click_windows]", "`features`: click_windows has features of clicks, not of transactions"),
        ("[transaction_request, handbook_request]", "transaction_request and handbook_request both have amount"),
    ],
)
def test_model_whose_views_do_not_fit_is_refused(tmp_path: Path, features: str, problem: str) -> None:
    for path in DEFS.rglob("defs.yaml"):
        if "models" not in path.parts:
            write(tmp_path, path.read_text(), path.parent.name)
    write(tmp_path, SOURCE, "clicks")
    write(tmp_path, ROLLING, "click_windows")
    write(tmp_path, MODEL.replace("[customer_activity]", features), "fraud_copy")
    assert problem in mistake(tmp_path)


def test_two_models_of_one_name_are_refused(tmp_path: Path) -> None:
    write(tmp_path, SOURCE, "one")
    write(tmp_path, SOURCE, "two")
    assert "name 'clicks' is already taken by" in mistake(tmp_path)


def test_broken_yaml_names_its_line(tmp_path: Path) -> None:
    path = write(tmp_path, "type: x\nattributes: {a: [1, 2}\n")
    assert mistake(tmp_path).startswith(f"{path}:2: not valid YAML")


def test_first_day_replaces_the_start_of_every_source(tmp_path: Path) -> None:
    write(tmp_path, SOURCE)
    assert load_catalog(tmp_path, date(2025, 5, 5)).sources["clicks"].start_date == date(2025, 5, 5)


@pytest.mark.parametrize(
    ("gate", "problem"),
    [
        ("{metric: roc_auc}", "exactly one of min, max, better_than_champion_by"),
        ("{metric: roc_auc, min: 0.5, max: 0.9}", "exactly one of"),
        ("{metric: roc_au, min: 0.5}", "Input should be"),
        ("{check: no_null_predictions, max: 3}", "takes no limit"),
        ("{check: prediction_latency_p99_ms}", "takes max"),
        ("{min: 0.5}", "either metric or check"),
    ],
)
def test_gate_that_says_nothing_or_too_much_is_refused(tmp_path: Path, gate: str, problem: str) -> None:
    write(tmp_path, MODEL + f"  gates: [{gate}]\n")
    assert problem in mistake(tmp_path)


def test_gpu_type_without_gpu_is_refused(tmp_path: Path) -> None:
    write(tmp_path, MODEL + "  resources: {gpu_type: [a100]}\n")
    assert "gpu_type is given but gpu is 0" in mistake(tmp_path)


@pytest.mark.parametrize(
    ("task", "lines", "problem"),
    [
        ("regression", "gates: [{metric: roc_auc, min: 0.5}]", "gates.0.metric: roc_auc is no metric of regression"),
        ("regression", "gates: [{check: min_class_ratio, min: 0.1}]", "min_class_ratio is for classes"),
        ("multiclass_classification", "training: {select_by: rmse}", "training.select_by: rmse is no metric of multi"),
        ("binary_classification", "gates: [{metric: macro_f1, min: 0.5}]", "macro_f1 is no metric of binary"),
    ],
)
def test_metric_of_another_task_is_refused(tmp_path: Path, task: str, lines: str, problem: str) -> None:
    write(tmp_path, MODEL + f"  task: {task}\n  {lines}\n")
    assert problem in mistake(tmp_path)
