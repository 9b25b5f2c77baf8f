"""Specs are read with errors that name file, line and the nearest valid name."""

import re
from datetime import date
from pathlib import Path

import pytest

from ml_platform.core.catalog import load_catalog
from ml_platform.core.errors import SpecError
from ml_platform.core.project import EXAMPLE, find_project

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
    catalog = load_catalog(find_project(EXAMPLE).defs)
    assert catalog.models["fraud_detection"].features == ("customer_activity", "terminal_risk", "transaction_request")
    assert catalog.entities(catalog.models["fraud_detection"]) == ["customer_id", "terminal_id"]
    assert catalog.label_delay(catalog.models["fraud_detection"]) == 7


def test_smallest_valid_model_has_name_rows_label_features_and_one_trainer(tmp_path: Path) -> None:
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
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
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
        write(tmp_path, path.read_text().replace("[customer_activity,", "[customer_activty,"), path.parent.name)
    assert "no feature view 'customer_activty'; did you mean `customer_activity`?" in mistake(tmp_path)


def test_slice_that_no_row_has_is_refused(tmp_path: Path) -> None:
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
        slices = "\n  monitoring: {slices: [customer_mean_amount_7d, tx_amunt]}\n"
        write(tmp_path, path.read_text() + (slices if path.parent.name == "fraud_detection" else ""), path.parent.name)
    assert "feature that is no request feature, 'tx_amunt'; did you mean `tx_amount`?" in mistake(tmp_path)


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
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
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
        ("{metric: roc_au, min: 0.5}", "package.module.function; did you mean `roc_auc`? (it is 'roc_au')"),
        ("{metric: my metric, min: 0.5}", "neither a metric nor package.module.function"),
        ("{metric: my..metric, min: 0.5}", "neither a metric nor package.module.function"),
        ("{metric: roc_auc, min: .nan}", "finite number"),
        ("{metric: roc_auc, min: 1.5}", "roc_auc lies between 0 and 1"),
        ("{metric: brier, max: -0.1}", "brier lies between 0 and 1"),
        ("{metric: f1, better_than_champion_by: 1}", "below 1"),
        ("{metric: f1, min: 0.5, at_confidence: 0.5}", "greater than 0.5"),
        ("{metric: f1, min: 0.5, at_confidence: 1}", "less than 1"),
        ("{metric: f1, min: 0.5, at_recall: 0.5}", "at_recall is for metric precision"),
        ("{metric: precision, min: 0.5, at_recall: 0}", "greater than 0"),
        ("{metric: f1, min: 0.5, params: {k: 3}}", "params are for a function of your own"),
        ("{metric: f1, min: 0.5, min_rows: 3}", "min_rows is for gates per segment"),
        ("{metric: f1, min: 0.5, per: user_id, resample_by: user_id}", "either per or resample_by"),
        ("{metric: f1, min: 0.5, resample_by: user_id, min_rows: 3}", "min_rows is for gates per segment"),
        ("{metric: f1, min: 0.5, per: user_id, at_confidence: 0.9}", "no at_confidence"),
        ("{metric: f1, better_than_champion_by: 0.5, per: user_id}", "has min or max"),
        ("{check: no_null_predictions, at_confidence: 0.9}", "at_confidence is for metrics"),
        ("{check: invariant_to_row_order, max: 3}", "takes no limit"),
        ("{metric: f1, min: 0.5}, {metric: f1, min: 0.6}", "two gates say the same: f1_is_above_minimum"),
        ("{check: no_null_predictions, max: 3}", "takes no limit"),
        ("{check: prediction_latency_p99_ms}", "takes max"),
        ("{min: 0.5}", "either metric or check"),
    ],
)
def test_gate_that_says_nothing_or_too_much_is_refused(tmp_path: Path, gate: str, problem: str) -> None:
    write(tmp_path, MODEL + f"  gates: [{gate}]\n")
    assert problem in mistake(tmp_path)


@pytest.mark.parametrize("field", ["per", "resample_by"])
def test_gate_on_a_column_that_the_rows_lack_is_refused(tmp_path: Path, field: str) -> None:
    write(tmp_path, SOURCE)
    view = "type: ml_platform.components.FeatureView\nattributes:\n  name: v\n  kind: request\n  features: {f: {expression: user_id}}\n"
    write(tmp_path, view, "two")
    model = MODEL.replace("transactions", "clicks").replace("fraud_labels", "clicks").replace("is_fraud", "user_id")
    model = model.replace("customer_activity", "v") + f"  gates: [{{metric: f1, min: 0.5, {field}: COLUMN}}]\n"
    path = write(tmp_path, model.replace("COLUMN", "usr_id"), "three")
    assert mistake(tmp_path).startswith(
        f"{path}:8: `gates.0.{field}`: no column of clicks 'usr_id'; did you mean `user_id`"
    )
    write(tmp_path, model.replace("COLUMN", "user_id"), "three")
    assert getattr(load_catalog(tmp_path).models["fraud_copy"].gates[0], field) == "user_id"


@pytest.mark.parametrize(
    ("kind", "more", "problem"),
    [
        ("request", "features: {f: {expression: user_id}}", "a request view has no is_known"),
        ("rolling", "rows: clicks, features: {f: {}}", "a rolling view has no is_known"),
        ("snapshot", "entity: user_id, features: {v_is_known: {default: 2}}", "v_is_known is there twice"),
    ],
)
def test_view_that_cannot_say_is_known_is_refused(tmp_path: Path, kind: str, more: str, problem: str) -> None:
    write(tmp_path, SOURCE)
    given = "" if kind == "request" else "function: a.b, inputs: {clicks: {window_days: 1}}, "
    attributes = f"{{name: v, kind: {kind}, is_known: true, {given}{more}}}"
    write(tmp_path, f"type: ml_platform.components.FeatureView\nattributes: {attributes}\n", "two")
    assert problem in mistake(tmp_path)


@pytest.mark.parametrize(
    ("lines", "field"),
    [
        ("training:\n    cold_start_share: 0.1", "training.cold_start_share"),
        ("gates:\n    - {check: cold_start_is_sane}", "gates.0.check"),
    ],
)
def test_cold_starts_of_a_model_that_looks_nobody_up_are_refused(tmp_path: Path, lines: str, field: str) -> None:
    for folder in (tmp_path / "rolling", tmp_path / "snapshot"):
        for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
            if "models" not in path.parts:
                write(folder, path.read_text(), path.parent.name)
        write(folder, f"{MODEL}  {lines}\n", "three")
    assert "fraud_copy" in load_catalog(tmp_path / "snapshot").models
    model = MODEL.replace("customer_activity", "customer_windows")
    path = write(tmp_path / "rolling", f"{model}  {lines}\n", "three")
    said = f"{path}:9: `{field}`: no snapshot view is among the features"
    assert mistake(tmp_path / "rolling").startswith(said)


def test_gpu_type_without_gpu_is_refused(tmp_path: Path) -> None:
    write(tmp_path, MODEL + "  resources: {gpu_type: [a100]}\n")
    assert "gpu_type is given but gpu is 0" in mistake(tmp_path)


@pytest.mark.parametrize(
    ("task", "lines", "problem"),
    [
        ("regression", "gates: [{metric: roc_auc, min: 0.5}]", "`gates.0.metric`: roc_auc is no metric of regression"),
        ("regression", "gates: [{check: min_class_ratio, min: 0.1}]", "min_class_ratio is for classes"),
        (
            "multiclass_classification",
            "training: {select_by: rmse}",
            "`training.select_by`: rmse is no metric of multi",
        ),
        ("binary_classification", "gates: [{metric: macro_f1, min: 0.5}]", "macro_f1 is no metric of binary"),
        ("regression", "monitoring: {metric: brier}", "`monitoring.metric`: brier is no metric of regression"),
    ],
)
def test_metric_of_another_task_is_refused(tmp_path: Path, task: str, lines: str, problem: str) -> None:
    write(tmp_path, MODEL + f"  task: {task}\n  {lines}\n")
    assert problem in mistake(tmp_path)


@pytest.mark.parametrize(
    ("task", "lines", "at", "problem"),
    [
        (
            "regression",
            "  gates:\n    - {metric: mae, max: 3}\n    - metric: macro_f1\n      min: 0.5\n",
            11,
            "`gates.1.metric`: macro_f1 is no metric of regression; rmse, mae, mape, r2 are",
        ),
        (
            "multiclass_classification",
            "  gates:\n    - {metric: accuracy, min: 0.5}\n    - {metric: f1, min: 0.5}\n",
            11,
            "`gates.1.metric`: f1 is no metric of multiclass_classification; accuracy, log_loss, macro_f1 are",
        ),
        (
            "regression",
            "  gates:\n    - {metric: mae, max: 3}\n    - {check: min_class_ratio, min: 0.1}\n",
            11,
            "`gates.1.check`: min_class_ratio is for classes, and regression has none",
        ),
        *(
            (
                task,
                "  gates:\n    - {check: no_null_predictions}\n    - {check: cold_start_is_sane}\n",
                11,
                f"`gates.1.check`: cold_start_is_sane holds probabilities against a base rate, and {task} has none",
            )
            for task in ("regression", "multiclass_classification")
        ),
        (
            "binary_classification",
            "  gates:\n    - {metric: f1, min: 0.5}\n    - {metric: f1, min: 0.6}\n",
            11,
            "`gates.1`: two gates say the same: f1_is_above_minimum",
        ),
        (
            "binary_classification",
            "  training:\n    select_by: rmse\n",
            10,
            "`training.select_by`: rmse is no metric of",
        ),
        (
            "regression",
            "  rollout:\n    strategy: canary\n    abort_if:\n      metric: {name: accuracy}\n",
            12,
            "`rollout.abort_if.metric`: accuracy is not among",
        ),
    ],
)
def test_what_does_not_fit_the_task_is_said_with_its_own_line(
    tmp_path: Path, task: str, lines: str, at: int, problem: str
) -> None:
    path = write(tmp_path, MODEL + f"  task: {task}\n{lines}")
    assert mistake(tmp_path).startswith(f"{path}:{at}: {problem}")


def with_candidate(folder: Path, candidate: str) -> Path:
    """The built-in catalog, and a model with this candidate in line 8."""
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
        write(folder, path.read_text(), path.parent.name)
    return write(folder, MODEL.replace("[{trainer: mlp}]", f"\n  - {{trainer: linear}}\n  - {candidate}"), "fraud_copy")


@pytest.mark.parametrize(
    ("candidate", "said"),
    [
        ("{trainer: mpl}", "`candidates.1.trainer`: trainer 'mpl': is not known; did you mean `mlp`?"),
        ("{trainer: nolib.trainers.Best}", "`candidates.1.trainer`: .* there is no module nolib.trainers"),
        ("{trainer: torch.nothere.Best}", "`candidates.1.trainer`: .* there is no module torch.nothere"),
        (
            "{trainer: mlp, params: {hiden: [8]}}",
            "unknown key `candidates.1.params.hiden`; did you mean `hidden`.*Next: one of epochs",
        ),
        ("{trainer: mlp, params: {lr: -1}}", r"`candidates.1.params.lr`: .* greater than 0 \(it is -1\)"),
        ("{trainer: mlp, params: {hidden: [8, 0]}}", r"`candidates.1.params.hidden.1`: .* \(it is 0\)"),
        ("{trainer: xgboost, params: {subsample: .inf}}", "`candidates.1.params.subsample`"),
        ("{trainer: lightgbm, params: {num_leave: 3}}", "did you mean `num_leaves`"),
        ("{trainer: mlp, search: {lrr: [1, 2]}}", "unknown key `candidates.1.search.lrr`; did you mean `lr`"),
        ("{trainer: mlp, search: {lr: {range: [-1.0, 1.0]}}}", "`candidates.1.search.lr`: .* greater than 0"),
        ("{trainer: mlp, search: {lr: {log: [2, 1]}}}", "the low end 2 is not below the high end 1"),
        ("{trainer: linear, params: {max_iter: many}}", "`candidates.1.params.max_iter`"),
        ("{trainer: forest, params: {max_features: cube}}", "`candidates.1.params.max_features"),
    ],
)
def test_trainer_or_param_that_is_none_is_refused_with_its_line(tmp_path: Path, candidate: str, said: str) -> None:
    path = with_candidate(tmp_path, candidate)
    assert re.match(f"{re.escape(str(path))}:9: .*{said}", message := mistake(tmp_path)), message


def test_trainer_of_ones_own_is_looked_for_but_not_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "code" / "heavylib"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    (package / "trainers.py").write_text("raise AssertionError('imported')")
    monkeypatch.syspath_prepend(package.parent)
    with_candidate(tmp_path / "defs", "{trainer: heavylib.trainers.Best, params: {anything: goes}}")
    assert load_catalog(tmp_path / "defs").models["fraud_copy"].candidates[1].params == {"anything": "goes"}


VECTORS = """\
type: ml_platform.components.FeatureView
attributes:
  name: last_events
  entity: customer_id
  function: a.b
  inputs: {transactions: {window_days: 30}}
  features:
    last_amounts: {length: 3, default: -1}
    shop: {type: int64, categories: 5}
"""


def test_vector_is_its_columns_wherever_features_are_listed(tmp_path: Path) -> None:
    for path in find_project(EXAMPLE).defs.rglob("defs.yaml"):
        write(tmp_path, path.read_text(), path.parent.name)
    write(tmp_path, VECTORS, "last_events")
    view = load_catalog(tmp_path).views["last_events"]
    assert list(view.features) == ["last_amounts_1", "last_amounts_2", "last_amounts_3", "shop"]
    assert [feature.vector for feature in view.features.values()] == [*["last_amounts"] * 3, ""]
    assert view.features["last_amounts_3"].default == -1


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("shop:", "last_amounts_2:", "last_amounts_2 is there twice: as a column of last_amounts too"),
        ("default: -1", "categories: 4, type: int64", "categories or a length, not both"),
        ("type: int64, ", "", "with categories that is no expression has type int64"),
        ("length: 3", "length: 0", ":8: `features.last_amounts.length`"),
        ("length: 3", "length: 3, dfault: 4", ":8: unknown key `features.last_amounts.dfault`; did you mean `default`"),
    ],
)
def test_impossible_vectors_and_categories_are_refused(tmp_path: Path, was: str, becomes: str, said: str) -> None:
    write(tmp_path, VECTORS.replace(was, becomes))
    assert said in mistake(tmp_path)


def test_vector_of_a_request_view_is_refused(tmp_path: Path) -> None:
    text = "type: ml_platform.components.FeatureView\nattributes:\n  name: r\n  kind: request\n  features:\n"
    write(tmp_path, text + "    a: {expression: b, length: 3}\n")
    assert "a: a request view has no vectors" in mistake(tmp_path)


@pytest.mark.parametrize(
    ("params", "said"),
    [
        (
            "steps: [last_amonts]",
            "`candidates.1.params.steps`: no vector feature 'last_amonts'; did you mean `last_amounts`",
        ),
        ("steps: [last_amounts], embeddings: {shops: 4}", "no feature with categories 'shops'; did you mean `shop`"),
        ("hidden: [8]", "`candidates.1.params.steps` is required"),
    ],
)
def test_params_name_features_of_the_model(tmp_path: Path, params: str, said: str) -> None:
    path = with_candidate(tmp_path, f"{{trainer: sequence, params: {{{params}}}}}")
    path.write_text(path.read_text().replace("features: [customer_activity]", "features: [last_events]"))
    write(tmp_path, VECTORS, "last_events")
    assert mistake(tmp_path).startswith(f"{path}:9: {said}" if said[0] == "`" else f"{path}:9: ")
    assert said in mistake(tmp_path)


@pytest.mark.parametrize(
    ("was", "becomes", "said"),
    [
        ("  key: [click_id]\n", "  key: [click_id]\n  key: [user_id]\n", "key `key` is there twice"),
        ("    user_id: {", "    user_id: {type: int64}\n    user_id: {", "key `user_id` is there twice"),
        (
            "{type: int32}",
            "{type: int32}\n  resources: {memory: 4GB}",
            "is no quantity, such as 500m, 4G (4 x 10^9) or 4Gi (4 x 2^30) (it is '4GB')",
        ),
        (
            "{type: int32}",
            "{type: int32}\n  resources: {timeout: 4hours}",
            "is no duration, such as 30s, 10m, 4h or 7d (it is '4hours')",
        ),
        (
            "{type: int32}",
            "{type: int32}\n  owners: [fraud]",
            "is no owner, such as ann@example.com or team:fraud (it is 'fraud')",
        ),
        ("{type: int32}", "{type: int32}\n  new_columns: adpt", "did you mean `adopt`? (it is 'adpt')"),
        ("type: int32", "type: itn32", "did you mean `int32`?"),
    ],
)
def test_values_that_are_none_of_a_kind_are_refused_with_an_example(
    tmp_path: Path, was: str, becomes: str, said: str
) -> None:
    path = write(tmp_path, SOURCE.replace(was, becomes))
    found = mistake(tmp_path)
    assert said in found
    assert found.startswith(f"{path}:")


@pytest.mark.parametrize("text", ["", "# nothing yet\n", "---\n"])
def test_empty_file_is_said_to_be_that(tmp_path: Path, text: str) -> None:
    path = write(tmp_path, text)
    assert mistake(tmp_path).startswith(f"{path}:1: the file is empty")


VIEW_OF_USER = """\
type: ml_platform.components.FeatureView
attributes:
  name: of_user
  entity: user_id
  function: tests.function
  inputs: {clicks: {window_days: 1}, users: {window_days: 1}}
  features: {a: {}}
"""


def users(type_: str) -> str:
    return f"""\
type: ml_platform.components.Source
attributes:
  name: users
  start_date: 2018-01-01
  key: [user_id]
  event_time: seen_at
  columns:
    user_id: {{type: {type_}}}
    seen_at: {{type: timestamp}}
    churned: {{type: int8, nullable: true}}
"""


@pytest.mark.parametrize(
    ("text", "type_", "said"),
    [
        (
            SOURCE + "  references: {user_id: {source: users, column: user_id}}\n",
            "string",
            "`references.user_id`: clicks.user_id is int32 and users.user_id is string",
        ),
        (SOURCE + "---\n" + VIEW_OF_USER, "float64", "`entity`: clicks.user_id is int32 and users.user_id is float64"),
    ],
)
def test_columns_that_are_held_against_each_other_have_one_type(
    tmp_path: Path, text: str, type_: str, said: str
) -> None:
    write(tmp_path, text)
    write(tmp_path, users(type_), "two")
    assert said in mistake(tmp_path)
    write(tmp_path, users("int64"), "two")
    load_catalog(tmp_path)


def churn(features: str, **changes: str) -> str:
    text = f"""\
type: ml_platform.components.FeatureView
attributes:
  name: asked
  kind: request
  features: {features}
---
type: ml_platform.components.Model
attributes:
  name: churn
  entity_rows: clicks
  label: {{source: users, column: churned}}
  features: [asked]
  candidates: [{{trainer: mlp}}]
"""
    for was, becomes in changes.items():
        text = text.replace(was, becomes)
    return text


@pytest.mark.parametrize(
    ("features", "said"),
    [
        ("{a: {expression: user_id + 1}}", None),
        ("{a: {expression: usr_id + 1}}", "no column of clicks, or feature of the model, that asked.a reads, 'usr_id'"),
        ("{a: {expression: age + 1}}", "asked.a reads age, which may be null, and has no default"),
        ("{a: {expression: age + 1, default: 0}}", None),
        ("{a: {expression: 'fill_null(age, 0) + is_null(age)'}}", None),
        ("{a: {expression: 'user_id +'}}", "`user_id +` is no expression"),
    ],
)
def test_request_features_read_what_there_is_and_know_what_a_null_is(
    tmp_path: Path, features: str, said: str | None
) -> None:
    write(tmp_path, SOURCE + "    age: {type: float64, nullable: true}\n")
    write(tmp_path, users("int64"), "two")
    write(tmp_path, churn(features), "three")
    if said:
        assert said in mistake(tmp_path)
    else:
        load_catalog(tmp_path)


def test_labels_that_are_corrected_need_keys_that_hold_over_a_whole_training(tmp_path: Path) -> None:
    write(tmp_path, SOURCE)
    write(tmp_path, users("int64") + "  corrections: latest\n", "two")
    write(tmp_path, churn("{a: {expression: user_id + 1}}"), "three")
    assert "told by key over the 35 days of a training, and keys of clicks are unique within 1 only" in mistake(
        tmp_path
    )
    write(tmp_path, SOURCE + "  unique_within_days: 35\n")
    load_catalog(tmp_path)


def test_labels_whose_key_has_another_type_are_refused(tmp_path: Path) -> None:
    write(tmp_path, SOURCE)
    write(tmp_path, users("string"), "two")
    write(tmp_path, churn("{a: {expression: user_id + 1}}"), "three")
    assert "`label.source`: users.user_id is string and clicks.user_id is int32" in mistake(tmp_path)
