# pyright: reportAttributeAccessIssue=false
"""The handbook's windows over a history four times as large as the memory that the engine may use: it spills, and is done."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from benchmarks.features import CUSTOMERS, DAYS, FIRST_DAY
from benchmarks.figure import Figure
from ml_platform.examples.fraud.simulate import Population, daily_files, simulate

COPIES, LIMIT_MB = 13, 256

# In a process of its own: memory is that of the features and nothing else.
MEASURE = """
import json, sys, time
from pathlib import Path
from benchmarks.features import history_of
from benchmarks.figure import peak_megabytes
from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.features.engine import Embedded
folder, memory = Path(sys.argv[1]), sys.argv[2]
engine = Embedded(memory, folder / "spill")
expression = history_of(load_catalog(find_project(EXAMPLE).defs), folder, engine)
before, began, rows, spilled = peak_megabytes(), time.perf_counter(), 0, 0
for batch in engine.batches(expression):
    rows += batch.num_rows
    spilled = max(spilled, sum(file.stat().st_size for file in (folder / "spill").rglob("*") if file.is_file()))
used = peak_megabytes() - before
print(json.dumps([rows, time.perf_counter() - began, used, spilled / 2**20]))
"""


def feature_memory() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        rows, size = write_copies(folder)
        command = [sys.executable, "-c", MEASURE, name, f"{LIMIT_MB}MB"]
        said = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    done, seconds, used, spilled = json.loads(said)
    assert done == rows, f"{done} of {rows} rows"
    assert spilled > 0, "it was to spill"
    yield Figure("feature_memory.rows", rows, "rows")
    yield Figure("feature_memory.history_to_limit", size / LIMIT_MB, "x", 4, at_least=True)
    yield Figure("feature_memory.seconds", seconds, "s")
    yield Figure("feature_memory.used", used, "MB")
    yield Figure("feature_memory.used_to_history", used / size, "x", 2)


def write_copies(folder: Path) -> tuple[int, float]:
    """The history of several populations side by side; returns rows of transactions, and MB of all in memory."""
    history = simulate(Population.scaled(CUSTOMERS), DAYS, FIRST_DAY, seed=7)
    size = 0
    for source in ("transactions", "fraud_labels"):
        (folder / source).mkdir()
    for source, day, rows in daily_files(history, timedelta(days=7)):
        copies = pa.concat_tables(shifted(rows, copy, history.num_rows) for copy in range(COPIES))
        size += copies.nbytes
        pq.write_table(copies, folder / source / f"{day}.parquet", compression="zstd")
    return history.num_rows * COPIES, size / 2**20


def shifted(rows: pa.Table, copy: int, transactions: int) -> pa.Table:
    """The same rows of other customers and terminals."""
    for name, distance in (
        ("transaction_id", transactions),
        ("customer_id", CUSTOMERS),
        ("terminal_id", 2 * CUSTOMERS),
    ):
        if name in rows.column_names:
            position, of_type = rows.schema.get_field_index(name), rows.schema.field(name).type
            moved = pc.add(rows[name], pa.scalar(copy * distance, of_type))
            rows = rows.set_column(position, name, moved)
    return rows
