"""183 days of raw in one range run: real S3 server, SQLite instance, a process of its own per step as in `make dev`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from benchmarks.figure import Figure
from ml_platform_tests.conftest import free_port, s3_command, server

DAYS = 183
LAND = """
from datetime import date, timedelta
from ml_platform.core.settings import load_settings
from ml_platform.local.producer import land, simulated
from ml_platform.resources.object_store import ObjectStore
days = int(__import__("sys").argv[1])
files = [f for f in simulated(days, 5_000, date(2018, 4, 1), 7, timedelta(days=7)) if f[0] == "transactions"]
print(sum(table.num_rows for _, _, table in land(files, ObjectStore.at(load_settings()))))
"""
RUN = """
import sys, time
import dagster as dg
from ml_platform.definitions import defs
first, last = sys.argv[1:]
tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
key = dg.AssetKey(["transactions", "raw"])
job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection={key})
with dg.DagsterInstance.get() as instance:
    began = time.perf_counter()
    result = job.execute_in_process(instance=instance, tags=tags)
    print(time.perf_counter() - began)
    assert result.success
    made = instance.get_materialized_partitions(key)
    check = dg.AssetCheckKey(key, "keys_are_unique")
    infos = instance.event_log_storage.get_asset_check_partition_info([check])
    passed = {info.partition_key for info in infos if info.partition_key}
    print(len(made), len(passed))
"""


def backfill() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        port = free_port()
        home, dagster_home = Path(folder) / "home", Path(folder) / "dagster"
        dagster_home.mkdir()
        (Path(folder) / "s3").mkdir()
        (dagster_home / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        environment = {
            **os.environ,
            "ML_PLATFORM_HOME": str(home),
            "ML_PLATFORM_S3_PORT": str(port),
            "DAGSTER_HOME": str(dagster_home),
        }
        last = date(2018, 4, 1) + timedelta(days=DAYS - 1)
        with server(s3_command(Path(folder) / "s3", port), f"http://127.0.0.1:{port}/", Path(folder) / "s3.log"):
            landed = python(LAND, environment, str(DAYS))
            seconds, counted = python(RUN, environment, "2018-04-01", last.isoformat()).splitlines()[-2:]
    assert counted == f"{DAYS} {DAYS}", counted
    yield Figure("backfill.rows", float(landed), "rows")
    yield Figure("backfill.raw_183_days", float(seconds), "s", 60.0)


def python(code: str, environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()
