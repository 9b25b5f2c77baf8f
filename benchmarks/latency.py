"""How long the running platform takes: a landed file to its raw partition, a training's trigger to the deployed model."""

import tempfile
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

from rich.console import Console

from benchmarks.figure import Figure
from ml_platform.core import keys
from ml_platform.core.catalog import catalog_at
from ml_platform.core.settings import load_settings
from ml_platform.examples.fraud.producer import simulated
from ml_platform.local import demo
from ml_platform.local.producer import land
from ml_platform.local.story import Outcome, World
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform_tests.processes import free_port

TRAINING = "{ runsOrError(limit: 50) { ... on Runs { results { creationTime endTime assetSelection { path } } } } }"


def latency() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder:
        ports = {name: free_port() for name in ("s3_port", "mlflow_port", "dagster_port", "model_server_port")}
        settings = load_settings().model_copy(update={"home": Path(folder), **ports})
        catalog_start = catalog_at(settings).sources["transactions"].start_date
        files = simulated(61, 2_000, catalog_start, 7, timedelta(days=7))
        last = max(day for _, day, _ in files)
        early, late = ([f for f in files if (f[1] == last) is is_last] for is_last in (False, True))
        with demo.running_stack(settings, Console(stderr=True)):
            world = World.at(settings)
            outcome = Outcome()
            assert demo.watch_until_deployed(world, early, outcome, Console(stderr=True)), outcome.failures
            runs = DagsterApi.at(settings).query(TRAINING)["runsOrError"]["results"]
            training = next(
                r for r in runs if [world.model, "candidate"] in [k["path"] for k in r["assetSelection"] or ()]
            )
            began = time.monotonic()
            list(land(late, world.landing))
            while world.lake.manifest(keys.raw("transactions"), last) is None:
                time.sleep(0.1)
            yield Figure("latency.landed_to_raw", time.monotonic() - began, "s", 30.0)
            yield Figure("latency.trigger_to_deployed", training["endTime"] - training["creationTime"], "s", 180.0)
