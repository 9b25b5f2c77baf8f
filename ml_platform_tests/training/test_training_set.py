from datetime import UTC, date, datetime

import pyarrow as pa
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.days import start_of
from ml_platform.core.errors import TrainingError
from ml_platform.core.spec import FeatureViewSpec
from ml_platform.core.tasks import Task
from ml_platform.features.engine import Embedded
from ml_platform.features.point_in_time import as_of_column
from ml_platform.features.views import AS_OF
from ml_platform.training.training_set import LABEL, SPLIT, assemble, class_count, leakage, split_columns
from ml_platform.training.windows import Windows

WINDOWS = Windows((date(2018, 5, 1), date(2018, 5, 2)), (date(2018, 5, 4), date(2018, 5, 4)))
STAMP = pa.timestamp("us", tz="UTC")


def at(day: int, hour: int = 12) -> datetime:
    return datetime(2018, 5, day, hour, tzinfo=UTC)


def rolling_rows(view: FeatureViewSpec) -> pa.Table:
    """What a rolling view has for transactions 1 and 3; nothing for 2."""
    times = pa.array([at(1), at(4)], STAMP)
    return pa.table({"transaction_id": [1, 3], "tx_datetime": times, **{name: [5.0, 6.0] for name in view.features}})


def assembled(catalog: Catalog, labels: dict[int, int]) -> pa.Table:
    rolling = catalog.views["customer_windows"]
    view = catalog.views["customer_activity"]
    rows = pa.table(
        {
            "transaction_id": [1, 2, 3],
            "tx_datetime": pa.array([at(1), at(2), at(4)], STAMP),
            "customer_id": pa.array([7, 8, 7], pa.int32()),
            "terminal_id": pa.array([1, 1, 1], pa.int32()),
            "tx_amount": [10.0, 20.0, 30.0],
        }
    )
    known = pa.table(
        {
            "transaction_id": pa.array(list(labels), pa.int64()),
            "tx_datetime": pa.array([at({1: 1, 2: 2, 3: 4}[number]) for number in labels], STAMP),
            "is_fraud": pa.array(list(labels.values()), pa.int8()),
        }
    )
    snapshot = pa.table(
        {
            "customer_id": pa.array([7, 7], pa.int32()),
            AS_OF: pa.array([at(1, 0), at(4, 0)], STAMP),
            **{f: [1.0, 4.0] for f in view.features},
        }
    )
    source = catalog.sources["transactions"]
    return assemble(
        rows,
        source,
        known,
        catalog.sources["fraud_labels"],
        "is_fraud",
        [rolling, view],
        {view.name: snapshot, rolling.name: rolling_rows(rolling)},
        WINDOWS,
        Embedded(),
    ).table


def test_rows_have_label_features_of_their_day_and_split(catalog: Catalog) -> None:
    table = assembled(catalog, {1: 0, 2: 1, 3: 1})
    assert table["transaction_id"].to_pylist() == [1, 2, 3]
    assert table[LABEL].to_pylist() == [0, 1, 1]
    assert table[SPLIT].to_pylist() == ["train", "train", "validation"]
    assert table["customer_mean_amount_30d"].to_pylist() == [1.0, 0.0, 4.0]
    assert table["customer_days_since_last"].to_pylist() == [1.0, 30.0, 4.0]


def test_rolling_features_are_those_of_the_very_row_and_defaults_stand_in(catalog: Catalog) -> None:
    table = assembled(catalog, {1: 0, 2: 1, 3: 1})
    assert table["customer_window_mean_amount_7d"].to_pylist() == [5.0, 0.0, 6.0]
    assert table["customer_windows__as_of"].to_pylist() == [at(1), None, at(4)]


def test_rows_without_label_are_left_out(catalog: Catalog) -> None:
    assert assembled(catalog, {1: 0, 3: 1})["transaction_id"].to_pylist() == [1, 3]


def test_leakage_is_nothing_in_a_sound_set_and_found_in_a_broken_one(catalog: Catalog) -> None:
    views = [catalog.views["customer_activity"], catalog.views["customer_windows"]]
    table = assembled(catalog, {1: 0, 2: 1, 3: 1})
    assert not leakage(table, "tx_datetime", views, 7, start_of(date(2018, 5, 12))).found
    early = leakage(table, "tx_datetime", views, 7, start_of(date(2018, 5, 11)))
    assert early.labels_not_yet_known == 1
    for view in views:
        column = as_of_column(view.name)
        times = pa.array([at(2), None, at(4, 11)], STAMP)
        shifted = table.set_column(table.schema.get_field_index(column), column, times)
        assert leakage(shifted, "tx_datetime", views, 7, start_of(date(2018, 5, 12))).features_from_the_future == 1


def test_part_with_one_class_only_cannot_be_trained_on(catalog: Catalog) -> None:
    with pytest.raises(TrainingError, match="validation rows .* have only the label 1.*validation_days"):
        split_columns(assembled(catalog, {1: 0, 2: 1, 3: 1}), "fraud/candidate")


def labelled(train: list[object], validation: list[object]) -> pa.Table:
    split = ["train"] * len(train) + ["validation"] * len(validation)
    return pa.table({LABEL: pa.array([*train, *validation]), SPLIT: split})


@pytest.mark.parametrize(
    ("task", "train", "validation", "said"),
    [
        ("binary_classification", [], [0, 1], r"the train rows \(0\) have no label\. Next: widen training.window_days"),
        (
            "binary_classification",
            [0, 1],
            [],
            r"the validation rows \(0\) have no label\. Next: widen .*validation_days",
        ),
        ("binary_classification", [0, 1, 2], [0, 1], r"train rows: label 2 is no class of binary_.* \(0 to 1\)"),
        ("binary_classification", [0, 1], [0, -1], "validation rows: label -1 is no class of binary_classification"),
        ("multiclass_classification", [0, 1.5], [0, 1], r"label 1.5 is no class of multiclass_.* \(0 to 999\)"),
        ("multiclass_classification", [0, 1_000], [0, 1], "label 1000 is no class of multiclass_classification"),
        ("multiclass_classification", [0, 2], [0, 2], "the train rows have no label 1, of 0 to 2. Next: number"),
        ("multiclass_classification", [0, 1], [0, 2], "the train rows have no label 2, of 0 to 2"),
        ("binary_classification", [0.0, float("nan")], [0, 1], r"a label is no finite number \(.*nan"),
        ("regression", [0.5, float("inf")], [0, 1], "a label is no finite number .* Next: mend label.column"),
        ("regression", ["a", "b"], ["a", "b"], r"a label is no finite number \('b'\)"),
        ("regression", [3.5, 3.5], [1, 2], "have only the label 3.5"),
    ],
)
def test_labels_that_are_not_the_tasks_are_named(
    task: Task, train: list[object], validation: list[object], said: str
) -> None:
    with pytest.raises(TrainingError, match=f"m/candidate.*{said}"):
        split_columns(labelled(train, validation), "m/candidate", task)


def test_labels_of_every_task_are_taken() -> None:
    assert class_count(split_columns(labelled([False, True], [True, False]), "m"), "binary_classification") == 2
    three = split_columns(labelled([0, 2, 1], [2, 0]), "m", "multiclass_classification")
    assert class_count(three, "multiclass_classification") == 3
    assert class_count(split_columns(labelled([-1.5, 2.0], [3.0, 4.0]), "m", "regression"), "regression") == 0
