# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""How well a model finds the fraud of the handbook's data, by the handbook's protocol and the platform's own path.

    python -m benchmarks.handbook FOLDER [--folds]

FOLDER has the simulated transactions of the book, a Parquet file a day. Train on 7 days, leave 7 days, whose labels are not
known yet, judge by the next 7: the windows that the platform gives a model with `validation_days: 7`. Everything about the
models was chosen on the four folds; `--folds` leaves the test week alone.
"""

import argparse
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as pads

from benchmarks.figure import Figure
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.imports import load_object
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.spec import FeatureViewSpec, ModelSpec
from ml_platform.data.contract import arrow_schema
from ml_platform.evaluation.metrics import measure
from ml_platform.examples.fraud.metrics import card_precision
from ml_platform.features.engine import Embedded
from ml_platform.features.health import differing
from ml_platform.features.views import FeatureRows, compute, input_days, view_input, view_inputs
from ml_platform.registry import bundle
from ml_platform.registry.candidate import train_candidate
from ml_platform.training.training_set import LABEL, assemble, part_of
from ml_platform.training.windows import windows

FIRST_DAY = date(2018, 4, 1)
DELAY = timedelta(days=7)
TEST_WEEK = date(2018, 7, 25)  # first day of training
FOLDS = (date(2018, 7, 11), date(2018, 7, 4), date(2018, 6, 27), date(2018, 6, 20))
NETWORK = {"hidden": [256, 256], "dropout": 0.2, "batch_size": 512}
Tables = Mapping[str, pa.Table]


@dataclass(frozen=True)
class Contender:
    """A model of the benchmark, and the least it is to reach: on the test week, and in AP as a mean of the folds."""

    features: tuple[str, ...]
    training_days: int
    params: Mapping[str, object]
    at_least: Mapping[str, float]
    folds_at_least: float | None = None

    def spec(self) -> ModelSpec:
        return ModelSpec(
            name="handbook",
            entity_rows="transactions",
            label={"source": "fraud_labels", "column": "is_fraud"},
            features=self.features,
            training={"window_days": self.training_days, "validation_days": 7},
            candidates=[{"trainer": "ensemble", "params": {"members": [{"trainer": "mlp", "seeds": 3, "params": self.params}]}}],
        )  # fmt: skip


PUBLISHED = ("handbook_request", "customer_windows", "terminal_windows")
RICHER = ("amount_request", "customer_bursts", "terminal_frauds")
CONTENDERS = {
    "published_7_days": Contender(PUBLISHED, 7, {**NETWORK, "epochs": 24}, {"ap": 0.66, "auc": 0.87}),
    "richer_7_days": Contender(RICHER, 7, {**NETWORK, "epochs": 16}, {}),
    "richer_70_days": Contender(
        RICHER, 70, {**NETWORK, "epochs": 4}, {"ap": 0.74, "auc": 0.88, "cp100": 0.30}, folds_at_least=0.74
    ),
}


def handbook(folder: Path, only_folds: bool = False) -> Iterator[Figure]:
    catalog, raw = load_catalog(find_project(EXAMPLE).defs), read(folder)
    features = {
        name: over_history(catalog, catalog.views[name], raw)
        for name in dict.fromkeys(name for one in CONTENDERS.values() for name in one.features)
        if catalog.views[name].kind == "rolling"
    }
    for name, contender in CONTENDERS.items():
        found = []
        for week in FOLDS:
            found.append(judged(catalog, contender.spec(), week, raw, features))
            yield Figure(f"handbook.{name}.fold_{week}_ap", found[-1]["ap"], "")
        for metric in found[0]:
            limit = contender.folds_at_least if metric == "ap" else None
            mean = float(np.mean([one[metric] for one in found]))
            yield Figure(f"handbook.{name}.folds_mean_{metric}", mean, "", limit, at_least=True)
    for name, contender in {} if only_folds else CONTENDERS.items():
        for metric, value in judged(catalog, contender.spec(), TEST_WEEK, raw, features).items():
            yield Figure(f"handbook.{name}.test_{metric}", value, "", contender.at_least.get(metric), at_least=True)


def read(folder: Path) -> dict[str, pa.Table]:
    """Transactions and all of their labels, as two sources; times in UTC."""
    days = pads.dataset(sorted(folder.glob("????-??-??.parquet"))).to_table().sort_by("transaction_id")
    stamp = pa.timestamp("us", tz="UTC")
    days = days.set_column(days.schema.get_field_index("tx_datetime"), "tx_datetime", days["tx_datetime"].cast(stamp))
    days = days.rename_columns({"tx_fraud": "is_fraud"})
    return {
        "transactions": days.select(["transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount"]),
        "fraud_labels": days.select(["transaction_id", "tx_datetime", "is_fraud"]),
    }


# --- features ---------------------------------------------------------------------------------------------------------


def over_history(catalog: Catalog, view: FeatureViewSpec, raw: Tables) -> pa.Table:
    """A rolling view's rows of all days in one go, which is sooner done than day by day; one day is held against `compute`."""
    source, engine = catalog.sources[view.rows or ""], Embedded()
    last = max(raw[source.name][source.event_time].to_pylist()[-1:]).date()
    inputs = {name: view_input(catalog.sources[name], raw[name], last + ONE_DAY, engine) for name in view.inputs}
    identity = [source.event_time, *source.key]
    rows = load_object(view.function or "", "function")(**inputs).select(*identity, *view.features).order_by(identity)
    columns = {name: arrow_schema(source).field(name).type for name in (*source.key, source.event_time)}
    found = FeatureRows(view, last, columns, engine.batches(rows), raw[source.name].num_rows).read_all()
    day = TEST_WEEK - ONE_DAY
    alone = of_one_day(catalog, view, raw, day)
    same_day = of_days(found, source.event_time, day, day)
    assert differing([*source.key], list(view.features), alone, same_day) == (alone.num_rows, {}), view.name
    return found


def of_one_day(catalog: Catalog, view: FeatureViewSpec, raw: Tables, day: date) -> pa.Table:
    """The view's day as the platform computes it: from its raw days alone."""
    tables = {}
    for name in view.inputs:
        days = input_days(view, catalog.sources[name], day)
        tables[name] = of_days(raw[name], catalog.sources[name].event_time, days[0], days[-1])
    engine = Embedded()
    inputs = view_inputs(view, day, catalog.sources, tables, engine)
    return compute(view, day, catalog.sources, inputs, engine).read_all()


def of_days(table: pa.Table, time: str, first: date, last: date) -> pa.Table:
    stamp = table.schema.field(time).type
    after = pc.greater_equal(table[time], pa.scalar(start_of(first), stamp))
    return table.filter(pc.and_(after, pc.less(table[time], pa.scalar(start_of(last + ONE_DAY), stamp))))


# --- protocol ---------------------------------------------------------------------------------------------------------


def judged(catalog: Catalog, spec: ModelSpec, week: date, raw: Tables, features: Tables) -> dict[str, float]:
    """Figures of a model that is trained up to the week that begins with the day `week`, two weeks after that."""
    training_date = week + timedelta(days=28)
    split = windows(spec.training, DELAY.days, training_date)
    assert split.train[1] == week + timedelta(days=6)
    assert split.validation[0] == week + timedelta(days=14)
    rows, labels = catalog.sources["transactions"], catalog.sources["fraud_labels"]
    views = catalog.daily_views(spec)

    def used(table: pa.Table) -> pa.Table:
        parts = [of_days(table, rows.event_time, *days) for days in (split.train, split.validation)]
        return pa.concat_tables(parts)

    training_set = assemble(
        used(raw[rows.name]),
        rows,
        used(raw[labels.name]),
        labels,
        "is_fraud",
        views,
        {view.name: used(features[view.name]) for view in views},
        split,
        Embedded(),
    ).table
    trained = train_candidate(
        spec, training_date, rows, views, catalog.request_views(spec), training_set, "", [], lambda epoch, figures: None
    )
    test = part_of(training_set, "validation")
    kept = ~known_compromised(raw, week, test)
    test = {name: values[kept] for name, values in test.items()}
    scores = bundle.unpack(trained.files, spec.name).score(test)
    figures = measure(spec.task, test[LABEL], scores)
    days = test[rows.event_time].astype("datetime64[D]")
    return {
        "ap": figures["average_precision"],
        "auc": figures["roc_auc"],
        "cp100": card_precision(test[LABEL], scores, {"day": days, "card": test["customer_id"]}, "day", "card"),
    }


def known_compromised(raw: Tables, week: date, test: Mapping[str, np.ndarray]) -> np.ndarray:
    """Which rows are of customers with a fraud between the day `week` and eight days before the row."""
    frauds = raw["transactions"].join(raw["fraud_labels"].drop_columns("tx_datetime"), "transaction_id")
    frauds = frauds.filter(pc.equal(frauds["is_fraud"], 1))
    customers = frauds["customer_id"].to_numpy()
    fraud_days, days = (
        np.asarray(times).astype("datetime64[D]")
        for times in (frauds["tx_datetime"].cast(pa.timestamp("us")).to_numpy(), test["tx_datetime"])
    )
    known = np.zeros(len(days), dtype=bool)
    for day in np.unique(days):
        seen = (fraud_days >= np.datetime64(week)) & (fraud_days <= day - np.timedelta64(8))
        known |= (days == day) & np.isin(test["customer_id"], customers[seen])
    return known


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.handbook", description=__doc__)
    parser.add_argument("folder", type=Path, help="daily Parquet files of the handbook's transactions")
    parser.add_argument("--folds", action="store_true", help="the four validation folds alone, to choose by")
    arguments = parser.parse_args()
    passed = True
    for figure in handbook(arguments.folder, arguments.folds):
        print(figure.line(), flush=True)
        passed &= figure.passed
    return 0 if passed else 1


if __name__ == "__main__":
    sys.exit(main())
