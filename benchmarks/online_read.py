"""Reading two feature views by id from the online store, as one prediction request does."""

import tempfile
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa

from benchmarks.figure import Figure
from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.resources.online_store import SqliteStore

ENTITIES = {"customer_id": 5_000, "terminal_id": 10_000}
READS = 5_000


def online_read() -> Iterator[Figure]:
    rng = np.random.default_rng(0)
    views = load_catalog(find_project(EXAMPLE).defs).snapshot_views()
    with tempfile.TemporaryDirectory() as folder:
        store = SqliteStore(Path(folder) / "online.db")
        for view in views:
            count = ENTITIES[view.entity or ""]
            rows = pa.table({view.entity: np.arange(count), **{name: rng.random(count) for name in view.features}})
            store.write(view, rows, datetime(2018, 6, 1, tzinfo=UTC))
        elapsed = []
        for _ in range(READS):
            ids = {entity: int(rng.integers(count)) for entity, count in ENTITIES.items()}
            began = time.perf_counter()
            for view in views:
                store.read(view.name, view.entity or "", [ids[view.entity or ""]], view.features)
            elapsed.append((time.perf_counter() - began) * 1_000)
    yield Figure("online_read.p50", float(np.percentile(elapsed, 50)), "ms")
    yield Figure("online_read.p99", float(np.percentile(elapsed, 99)), "ms", 5.0)
