"""183 days of raw, and of the fraud model's feature views, in one range run each: real S3 server, SQLite instance, a process of its own per step as in `make dev`."""

import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

from benchmarks.figure import Figure
from ml_platform_tests.processes import free_port
from ml_platform_tests.servers import s3_command, server

DAYS = 183
LAND = """
from datetime import date, timedelta
from ml_platform.core.settings import load_settings
from ml_platform.examples.fraud.producer import simulated
from ml_platform.local.producer import land
from ml_platform.resources.object_store import ObjectStore
days = int(__import__("sys").argv[1])
files = simulated(days, 5_000, date(2018, 4, 1), 7, timedelta(days=7))
print(sum(table.num_rows for source, _, table in land(files, ObjectStore.at(load_settings())) if source == "transactions"))
"""
RUN = """
import sys, time
import dagster as dg
from ml_platform.examples.fraud.definitions import defs
first, last, check, *names = sys.argv[1:]
tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
keys = [dg.AssetKey(name.split("/")) for name in names]
job = defs.resolve_implicit_global_asset_job_def().get_subset(asset_selection=set(keys))
with dg.DagsterInstance.get() as instance:
    began = time.perf_counter()
    result = job.execute_in_process(instance=instance, tags=tags)
    print(time.perf_counter() - began)
    assert result.success
    made = [len(instance.get_materialized_partitions(key)) for key in keys]
    infos = instance.event_log_storage.get_asset_check_partition_info([dg.AssetCheckKey(key, check) for key in keys])
    print(*made, len([info for info in infos if info.partition_key]))
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
            seconds = days_in_range(environment, date(2018, 4, 1), last, "keys_are_unique", "transactions/raw")
            known = last - timedelta(days=7)
            days_in_range(environment, date(2018, 4, 1), known, "keys_are_unique", "fraud_labels/raw")
            views = "features/customer_activity", "features/terminal_risk"
            features = days_in_range(environment, date(2018, 4, 2), last, "no_future_information", *views)
    yield Figure("backfill.rows", float(landed), "rows")
    yield Figure("backfill.raw_183_days", seconds, "s", 60.0)
    yield Figure("backfill.features_182_days_of_two_views", features, "s", 90.0)


def days_in_range(environment: dict[str, str], first: date, last: date, check: str, *assets: str) -> float:
    """Seconds of the run, after which every day and its check are recorded."""
    said = python(RUN, environment, first.isoformat(), last.isoformat(), check, *assets).splitlines()
    days = (last - first).days + 1
    assert said[-1].split() == [*[str(days)] * len(assets), str(days * len(assets))], said[-1]
    return float(said[-2])


def python(code: str, environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip()
