"""A day under the full fraud contract against the same read and write without a contract; rows a second and memory."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator

from benchmarks.figure import Figure

SMALL, LARGE, ROUNDS = 1_000_000, 20_000_000, 3

# In a process of its own: memory is that of one ingest and nothing else.
MEASURE = """
import json, sys, tempfile, time
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
import numpy as np, pyarrow as pa, pyarrow.dataset as pads, pyarrow.parquet as pq
from benchmarks.figure import peak_megabytes
from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.data.formats import BATCH_ROWS
from ml_platform.data.ingest import LandedFile, LookBack, ingest
from ml_platform.data.landing import LandedObject
from ml_platform.data.staging import Stage

rows, folder, rounds = int(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
source, day = load_catalog(find_project(EXAMPLE).defs).sources["transactions"], date(2018, 4, 8)
path, recent = folder / "landed.parquet", [folder / f"recent-{n}.parquet" for n in range(6)]
if sys.argv[4] == "write":
    def write(path, first, day):
        with pq.ParquetWriter(path, schema, compression="zstd") as writer:
            for start in range(0, rows, 250_000):
                n, rng = min(250_000, rows - start), np.random.default_rng(start)
                times = np.datetime64(day, "us") + (np.arange(start, start + n) * (86_400_000_000 // rows)).astype("m8[us]")
                writer.write_table(pa.table({
                    "transaction_id": first + start + rng.permutation(n), "tx_datetime": times,
                    "customer_id": rng.integers(0, 5_000, n).astype("int32"),
                    "terminal_id": rng.integers(0, 10_000, n).astype("int32"),
                    "tx_amount": rng.uniform(0, 200, n).round(2),
                }).cast(schema))
    schema = pa.schema([("transaction_id", pa.int64()), ("tx_datetime", pa.timestamp("us")), ("customer_id", pa.int32()),
                        ("terminal_id", pa.int32()), ("tx_amount", pa.float64())])
    for n, before in enumerate(recent):
        write(before, n * rows, day - timedelta(days=6 - n))
    write(path, 6 * rows, day)
    sys.exit()

def contract():
    landed = LandedFile(LandedObject(f"transactions/{day}/a.parquet", "e", path.stat().st_size, datetime.now(UTC)), path)
    back = LookBack(recent=pads.dataset([str(one) for one in recent]), recent_rows=(rows,) * 6)
    with tempfile.TemporaryDirectory() as scratch:
        made = ingest(source, day, [landed], back, Path(scratch))
        assert made.quality == "good" and made.staged.rows == rows, made.findings

def bare():
    with tempfile.TemporaryDirectory() as scratch, pq.ParquetFile(path, pre_buffer=False) as file:
        stage = Stage(Path(scratch) / "out.parquet", file.schema_arrow)
        for batch in file.iter_batches(BATCH_ROWS):
            stage.write(pa.Table.from_batches([batch]))
        assert stage.finish().rows == rows

seconds = {"contract": [], "bare": []}
for _ in range(rounds):
    for name, do in (("contract", contract), ("bare", bare)):
        began = time.perf_counter()
        do()
        seconds[name].append(time.perf_counter() - began)
        if name == "contract":
            memory = peak_megabytes()
print(json.dumps({"seconds": {name: min(all) for name, all in seconds.items()}, "megabytes": memory}))
"""


def ingest() -> Iterator[Figure]:
    small, large = measure(SMALL, ROUNDS), measure(LARGE, 1)
    for name, rows, found in (("1M", SMALL, small), ("20M", LARGE, large)):
        rate = rows / found["seconds"]["contract"] / 1e6
        yield Figure(f"ingest.rows_per_second_{name}", rate, "Mrows/s", 1.0, at_least=True)
        yield Figure(f"ingest.against_bare_{name}", found["seconds"]["contract"] / found["seconds"]["bare"], "x", 2.0)
        yield Figure(f"ingest.memory_{name}", found["megabytes"], "MB")
    yield Figure("ingest.memory_growth", large["megabytes"] / small["megabytes"], "x", 1.25)


def measure(rows: int, rounds: int) -> dict:
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, "-c", MEASURE, str(rows), folder, str(rounds)]
        subprocess.run([*command, "write"], check=True)
        done = subprocess.run([*command, "measure"], check=True, capture_output=True, text=True)
        return json.loads(done.stdout.splitlines()[-1])
