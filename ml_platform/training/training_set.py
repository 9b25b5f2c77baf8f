# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The training set: rows of one kind of event, their labels, and their features as of the event."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.errors import TrainingError
from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.core.tasks import Task
from ml_platform.features.engine import Engine, read
from ml_platform.features.point_in_time import as_of_column, join_features
from ml_platform.training.labels import LABEL, Counted, Match, count, labelled
from ml_platform.training.windows import Windows

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

SPLIT = "split"
MOST_CLASSES = 1_000  # a label above is taken for an id or an amount, not for a class


@dataclass(frozen=True)
class Assembled:
    """A training set, and how many of the rows it was made from have a label and how many have none."""

    table: pa.Table
    counted: Counted
    match: Match

    @property
    def has_each_row_once(self) -> bool:
        return self.table.num_rows == self.counted.labelled


@dataclass(frozen=True)
class Parts:
    """A training set as arrays by column name: what a model is fitted on and what it is judged by."""

    train: Mapping[str, np.ndarray]
    validation: Mapping[str, np.ndarray]


def assemble(
    rows: "pads.Dataset | pa.Table",
    row_source: SourceSpec,
    labels: "pads.Dataset | pa.Table",
    label_source: SourceSpec,
    label_column: str,
    views: Sequence[FeatureViewSpec],
    features: "Mapping[str, pads.Dataset | pa.Table]",
    split: Windows,
    engine: Engine,
) -> Assembled:
    """Join rows with labels and point-in-time features.

    Returns:
        The columns of the rows, `label`, every feature, `<view>__as_of`, and `split` (train or validation); sorted by
        event time and key. Rows without a label are left out, and counted.
    """
    import ibis

    left, known = engine.table(rows), engine.table(labels)
    match = Match(row_source, label_source, len(split.span))
    joined = labelled(left, known, label_column, match)
    tables = {name: engine.table(computed) for name, computed in features.items()}
    joined = join_features(joined, row_source, views, tables, engine)
    is_validation = joined[row_source.event_time] >= start_of(split.validation[0])
    joined = joined.mutate(**{SPLIT: ibis.ifelse(is_validation, "validation", "train")})
    table = read(engine, joined.order_by([row_source.event_time, *row_source.key]))
    return Assembled(table, count(left, known, label_column, match, engine), match)


@dataclass(frozen=True)
class Leakage:
    """Rows that know something of their own future; each count is zero in a sound training set."""

    features_from_the_future: int
    labels_not_yet_known: int

    @property
    def found(self) -> bool:
        return bool(self.features_from_the_future or self.labels_not_yet_known)


def leakage(
    table: pa.Table, event_time: str, views: Sequence[FeatureViewSpec], label_delay: int, training_starts: datetime
) -> Leakage:
    """Compare every row's time with the time of what was joined to it."""
    times = table[event_time]
    future = sum(
        pc.sum(pc.fill_null(pc.greater(table[as_of_column(view.name)], times), False)).as_py() or 0 for view in views
    )
    known_before = pa.scalar(training_starts - timedelta(days=label_delay), pa.timestamp("us", tz="UTC"))
    unknown = pc.sum(pc.greater_equal(times, known_before)).as_py() or 0
    return Leakage(future, unknown)


def split_columns(table: pa.Table, subject: str, task: Task = "binary_classification") -> Parts:
    """The table's two parts, ready to fit and to judge.

    Raises:
        TrainingError: if either part has no rows or the same label everywhere, or if labels are not what the task has.
    """
    parts = Parts(part_of(table, "train"), part_of(table, "validation"))
    for name, part in (("train", parts.train), ("validation", parts.validation)):
        found = np.unique(part[LABEL])
        if len(found) < 2:
            raise TrainingError(
                subject,
                f"the {name} rows ({len(part[LABEL]):,}) have {f'only the label {found[0]}' if len(found) else 'no label'}",
                f"widen training.{'window' if name == 'train' else 'validation'}_days",
            )
        _check_labels(found, f"{subject}, {name} rows", task)
    numbers = np.arange(class_count(parts, task))
    if missing := np.setdiff1d(numbers, parts.train[LABEL]).tolist():
        problem = f"the train rows have no label {missing[0]}, of 0 to {len(numbers) - 1}"
        raise TrainingError(subject, problem, "number the classes without gaps, or widen training.window_days")
    return parts


def _check_labels(found: np.ndarray, subject: str, task: Task) -> None:
    """Raise TrainingError unless the labels are 0 and 1, whole numbers from 0 on, or finite numbers."""
    if found.dtype.kind not in "biuf" or not np.isfinite(found).all():
        raise TrainingError(subject, f"a label is no finite number ({found[-1]!r})", "mend label.column")
    if task != "regression":
        most = 1 if task == "binary_classification" else MOST_CLASSES - 1
        wrong = found[(found < 0) | (found > most) | (found % 1 != 0)] if found.dtype != bool else found[:0]
        if len(wrong):
            raise TrainingError(
                subject, f"label {wrong[0]} is no class of {task} (0 to {most})", "mend label.column or task"
            )


def search_part(table: pa.Table, event_time: str, split: Windows) -> pa.Table:
    """The rows of a training set that trials of a search see, `split` anew; see `search_windows`."""
    day = table[event_time].cast(pa.timestamp("us", tz="UTC"))

    def within(first: date, last: date) -> pa.ChunkedArray:
        until = pa.scalar(start_of(last + ONE_DAY), day.type)
        return pc.and_(pc.greater_equal(day, pa.scalar(start_of(first), day.type)), pc.less(day, until))

    names = pc.if_else(within(*split.validation), "validation", pc.if_else(within(*split.train), "train", None))
    kept = table.set_column(table.column_names.index(SPLIT), SPLIT, names)
    return kept.filter(pc.is_valid(names))


def class_count(parts: Parts, task: Task) -> int:
    """How many classes the labels have; 0 for regression."""
    if task == "regression":
        return 0
    return 1 + int(max(parts.train[LABEL].max(), parts.validation[LABEL].max()))


def part_of(table: pa.Table, split: str) -> dict[str, np.ndarray]:
    """The rows of one split, as arrays by column name."""
    return columns_of(table.filter(pc.equal(table[SPLIT], split)))


def columns_of(table: pa.Table) -> dict[str, np.ndarray]:
    """A table as arrays by column name; times as datetime64[us] in UTC."""
    arrays = {}
    for name in table.column_names:
        column = table[name]
        if pa.types.is_timestamp(column.type):
            column = column.cast(pa.timestamp("us", tz=column.type.tz)).cast(pa.timestamp("us"))
        arrays[name] = column.to_numpy()
    return arrays
