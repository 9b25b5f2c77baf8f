# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false
# The stubs of Ibis, PyArrow and pandas know fewer methods than the libraries have.
"""The handbook's 15 features over half a year, and the as-of join: ours, by hand in DuckDB, and the book's own pandas."""

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import duckdb
import ibis.expr.types as ir
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq

from benchmarks.figure import Figure
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.examples.fraud.handbook import customer_windows, terminal_windows
from ml_platform.examples.fraud.simulate import Population, daily_files, simulate
from ml_platform.features.engine import Embedded, Engine, read
from ml_platform.features.expressions import Expression
from ml_platform.features.point_in_time import join_snapshots
from ml_platform.features.views import AS_OF, compute, input_days, view_input, view_inputs
from ml_platform.training.training_set import columns_of
from ml_platform_tests.examples.fraud import book

FIRST_DAY, DAYS, CUSTOMERS = date(2018, 4, 1), 183, 5_000
WINDOWED = ("customer_windows", "terminal_windows")
DAY_US = 86_400_000_000
ROUNDS = 3
ROWS, SNAPSHOT_DAYS = 500_000, 60
Made = TypeVar("Made")


def features() -> Iterator[Figure]:
    catalog = load_catalog(find_project(EXAMPLE).defs)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows = write(folder)
        ours, bare, elapsed = alternating(lambda: over_history(catalog, folder), lambda: by_hand(folder))
        began = time.perf_counter()
        pandas = book_way(folder)
        in_pandas = time.perf_counter() - began
        assert_same(ours, bare)
        assert_same(ours, pandas)
        day = FIRST_DAY + timedelta(days=DAYS - 1)
        one_day = min(timed(lambda: [one_view(catalog, view, folder, day) for view in WINDOWED]) for _ in range(10))
    yield Figure("features.rows", rows, "rows")
    yield Figure("features.ours", elapsed[0], "s")
    yield Figure("features.against_duckdb", elapsed[0] / elapsed[1], "x", 1.5)
    yield Figure("features.faster_than_pandas", in_pandas / elapsed[0], "x", 10, at_least=True)
    yield Figure("features.one_day", one_day, "s", 0.8)


def as_of_join() -> Iterator[Figure]:
    catalog = load_catalog(find_project(EXAMPLE).defs)
    view = catalog.views["customer_activity"]
    rows, snapshots = events_and_snapshots(list(view.features))

    def ours() -> pa.Table:
        engine = Embedded()
        taken = {view.name: engine.table(snapshots)}
        return read(engine, join_snapshots(engine.table(rows), "at", [view], taken, engine))

    def bare() -> pa.Table:
        connection = in_utc()
        connection.register("rows", rows)
        connection.register("snapshots", snapshots)
        alive = "rows.at < snapshots.as_of + INTERVAL 1 DAY"
        values = ", ".join(
            f"coalesce(CASE WHEN {alive} THEN {name} END, {feature.default}) AS {name}"
            for name, feature in view.features.items()
        )
        return connection.sql(
            f"SELECT rows.*, {values}, CASE WHEN {alive} THEN as_of END AS as_of FROM rows ASOF LEFT JOIN snapshots "
            "ON rows.customer_id = snapshots.customer_id AND rows.at >= snapshots.as_of"
        ).to_arrow_table()

    joined, expected, elapsed = alternating(ours, bare)
    for name in view.features:
        assert joined.sort_by("id")[name].combine_chunks().equals(expected.sort_by("id")[name].combine_chunks())
    yield Figure("as_of_join.ours", elapsed[0], "s")
    yield Figure("as_of_join.against_duckdb", elapsed[0] / elapsed[1], "x", 1.3)
    with tempfile.TemporaryDirectory() as folder:
        again, feasts, elapsed = alternating(ours, by_feast(rows, snapshots, list(view.features), Path(folder)))
    again, feasts = again.sort_by("id"), feasts.sort_values("id")
    found = feasts[list(view.features)].notna().to_numpy().all(axis=1)
    assert found.mean() > 0.9
    for name in view.features:  # where Feast has nothing, we have the default
        assert np.allclose(again[name].to_numpy()[found], feasts[name].to_numpy()[found])
    yield Figure("as_of_join.faster_than_feast", elapsed[1] / elapsed[0], "x", 4, at_least=True)


def by_feast(rows: pa.Table, snapshots: pa.Table, features: list[str], folder: Path) -> Callable[[], pd.DataFrame]:
    """The same join by Feast's get_historical_features, with the faster of its embedded offline stores."""
    from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
    from feast.types import Float64

    pq.write_table(snapshots, folder / "snapshots.parquet")
    entity = Entity(name="customer_id", value_type=ValueType.INT64)
    feature_view = FeatureView(
        name="activity",
        entities=[entity],
        ttl=timedelta(days=1) - timedelta(microseconds=1),
        schema=[Field(name=name, dtype=Float64) for name in features],
        source=FileSource(path=str(folder / "snapshots.parquet"), timestamp_field=AS_OF),
    )
    config = {"registry": str(folder / "registry.db"), "offline_store": {"type": "duckdb"}}
    feast = FeatureStore(
        config=RepoConfig(project="bench", provider="local", entity_key_serialization_version=3, **config)
    )
    feast.apply([entity, feature_view])
    asked = rows.to_pandas().rename(columns={"at": "event_timestamp"})
    names = [f"activity:{name}" for name in features]
    return lambda: feast.get_historical_features(entity_df=asked, features=names).to_df()


# --- fifteen features -------------------------------------------------------------------------------------------------


def write(folder: Path) -> int:
    """Half a year as daily files; returns how many transactions that are."""
    history = simulate(Population.scaled(CUSTOMERS), DAYS, FIRST_DAY, seed=7)
    for source in ("transactions", "fraud_labels"):
        (folder / source).mkdir()
    for source, day, rows in daily_files(history, timedelta(days=7)):
        pq.write_table(rows, folder / source / f"{day}.parquet", compression="zstd")
    return history.num_rows


def over_history(catalog: Catalog, folder: Path) -> dict[str, np.ndarray]:
    """All days in one expression, then the request features."""
    engine = Embedded()
    columns = columns_of(read(engine, history_of(catalog, folder, engine)))
    request = catalog.views["handbook_request"].features
    return columns | {name: Expression(name, f.expression or "")(columns) for name, f in request.items()}


def history_of(catalog: Catalog, folder: Path, engine: Engine) -> ir.Table:
    known = FIRST_DAY + timedelta(days=DAYS)
    transactions, labels = (
        view_input(catalog.sources[source], pads.dataset(folder / source), known, engine)
        for source in ("transactions", "fraud_labels")
    )
    rows = terminal_windows(replace(transactions, table=customer_windows(transactions)), labels)
    windows = [name for view in WINDOWED for name in catalog.views[view].features]
    return rows.select(
        "transaction_id", "tx_datetime", "tx_amount", **{name: rows[name].fill_null(0) for name in windows}
    )


def by_hand(folder: Path) -> dict[str, np.ndarray]:
    """The same as one query."""
    frames = {
        **{f"customer{d}": f"customer_id ORDER BY us RANGE BETWEEN {d * DAY_US - 1} PRECEDING AND CURRENT ROW" for d in (1, 7, 30)},
        **{f"terminal{d}": f"terminal_id ORDER BY us RANGE BETWEEN {(7 + d) * DAY_US - 1} PRECEDING AND {7 * DAY_US} PRECEDING" for d in (1, 7, 30)},
    }  # fmt: skip
    named = ", ".join(f"{name} AS (PARTITION BY {frame})" for name, frame in frames.items())
    windows = ", ".join(
        f"count(*) OVER customer{d} AS customer_window_transactions_{d}d, "
        f"avg(tx_amount) OVER customer{d} AS customer_window_mean_amount_{d}d, "
        f"count(*) OVER terminal{d} AS terminal_window_transactions_{d}d, "
        f"coalesce(avg(is_fraud) OVER terminal{d}, 0) AS terminal_window_fraud_share_{d}d"
        for d in (1, 7, 30)
    )
    found = in_utc().sql(
        f"SELECT transaction_id, tx_amount AS amount, {windows}, "
        "(isodow(tx_datetime) >= 6)::DOUBLE AS weekend, (hour(tx_datetime) <= 6)::DOUBLE AS night "
        "FROM (SELECT t.*, l.is_fraud, epoch_us(t.tx_datetime) AS us "
        f"FROM '{folder}/transactions/*.parquet' t LEFT JOIN '{folder}/fraud_labels/*.parquet' l USING (transaction_id)) "
        f"WINDOW {named}"
    )
    return columns_of(found.to_arrow_table())


def book_way(folder: Path) -> dict[str, np.ndarray]:
    """The book's pandas; its two flags without `apply` row by row, which would only make it slower."""
    transactions = pd.read_parquet(folder / "transactions")
    labels = pd.read_parquet(folder / "fraud_labels")[["transaction_id", "is_fraud"]]
    rows = transactions.merge(labels.rename(columns={"is_fraud": "tx_fraud"}), how="left", on="transaction_id")
    rows["tx_fraud"] = rows.tx_fraud.fillna(0)  # labels that are not known yet lie in no window
    rows = book.terminal_windows(book.customer_windows(rows))
    rows["weekend"] = (rows.tx_datetime.dt.weekday >= 5).astype(int)
    rows["night"] = (rows.tx_datetime.dt.hour <= 6).astype(int)
    return {name: rows[name].to_numpy() for name in rows.columns if name != "tx_datetime"} | {
        "amount": rows.tx_amount.to_numpy()
    }


def one_view(catalog: Catalog, view: str, folder: Path, day: date) -> pa.Table:
    spec = catalog.views[view]
    tables = {
        source: pads.dataset([folder / source / f"{d}.parquet" for d in input_days(spec, catalog.sources[source], day)])
        for source in spec.inputs
    }
    engine = Embedded()
    return compute(
        spec, day, catalog.sources, view_inputs(spec, day, catalog.sources, tables, engine), engine
    ).read_all()


def assert_same(ours: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    """The same 15 features of the same rows. Rows of one moment, which the book tells apart, may differ: a few."""
    mine, theirs = (np.argsort(columns["transaction_id"]) for columns in (ours, other))
    names = [name for name in ours if name not in ("tx_datetime", "tx_amount")]
    assert len(names) == 16
    for name in names:
        close = np.isclose(ours[name][mine], other[name][theirs].astype(np.float64), rtol=1e-9, atol=1e-9)
        assert (~close).mean() < 1e-3, f"{name}: {(~close).sum()} rows differ"


# --- as-of join -------------------------------------------------------------------------------------------------------


def events_and_snapshots(features: list[str]) -> tuple[pa.Table, pa.Table]:
    """500,000 events of 5,000 customers over 60 days, and a snapshot of each customer for each of the days."""
    rng = np.random.default_rng(0)
    stamp = pa.timestamp("us", tz="UTC")
    start = int(datetime(2018, 4, 1, tzinfo=UTC).timestamp()) * 1_000_000
    rows = {
        "id": np.arange(ROWS),
        "customer_id": rng.integers(0, CUSTOMERS, ROWS, dtype=np.int32),
        "at": pa.array(start + rng.integers(0, SNAPSHOT_DAYS * DAY_US, ROWS), pa.int64()).cast(stamp),
    }
    taken = {
        "customer_id": np.tile(np.arange(CUSTOMERS, dtype=np.int32), SNAPSHOT_DAYS),
        AS_OF: pa.array(start + np.repeat(np.arange(SNAPSHOT_DAYS), CUSTOMERS) * DAY_US, pa.int64()).cast(stamp),
    }
    values = {name: rng.random(CUSTOMERS * SNAPSHOT_DAYS) for name in features}
    return pa.table(rows), pa.table({**taken, **values})


# --- by hand, and time -------------------------------------------------------------------------------------------------------------


def in_utc() -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    connection.execute("SET TimeZone = 'UTC'")
    return connection


def timed(do: Callable[[], object]) -> float:
    began = time.perf_counter()
    do()
    return time.perf_counter() - began


def alternating(one: Callable[[], Made], other: Callable[[], Made]) -> tuple[Made, Made, tuple[float, float]]:
    """What both make, and the shortest time of each; they take turns, so that a busy machine is busy for both."""
    made, seconds = [one(), other()], ([], [])
    for _ in range(ROUNDS):
        for position, do in enumerate((one, other)):
            seconds[position].append(timed(do))
    return made[0], made[1], (min(seconds[0]), min(seconds[1]))
