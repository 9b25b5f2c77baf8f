"""What a search costs beyond its fits: 18 trials in processes of their own, against the same steps with nothing in them."""

import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np

from benchmarks.figure import Figure
from ml_platform.components.execution import executor, training_run_config
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.trials import outcomes
from ml_platform_tests.components.searching import DAY, MODEL, SPEC, model, search_in_processes, training_rows
from ml_platform_tests.processes import free_port
from ml_platform_tests.servers import mlflow_server

TRIALS, PARALLEL = 18, 2
SEARCH = {
    "lr": [3e-4, 1e-3, 3e-3],
    "weight_decay": [0.0, 1e-2, 1e-1],
    "dropout": [0.0, 0.2],
    "parallel": PARALLEL,
    "prune": False,
}


def search() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name:
        folder, port = Path(name), free_port()
        os.environ |= {"ML_PLATFORM_HOME": name, "MLFLOW_TRACKING_URI": f"http://127.0.0.1:{port}"}
        (built_in,) = load_catalog(find_project(EXAMPLE).defs).models["fraud_detection"].candidates
        spec = model({"trainer": built_in.trainer, "params": built_in.params, "search": SEARCH})
        (folder / SPEC).write_text(spec.model_dump_json())
        lake = Lake.at(load_settings())
        lake.write_table(keys.training_set(MODEL), DAY, training_rows(spec, per_day=3_000), [])
        with mlflow_server(folder, port), dg.instance_for_test() as instance:
            bare, config = dg.reconstructable(bare_job), training_run_config(spec)
            empty = _seconds(lambda: dg.execute_job(bare, instance, run_config=config))
            wall = _seconds(lambda: search_in_processes(instance, "trials"))
        records = outcomes(lake, MODEL, DAY)[1].records
    assert [one.status for one in records] == ["complete"] * TRIALS, "every trial is fitted"
    fits = np.array([one.seconds for one in records])
    yield Figure("search.fit", float(fits.mean()), "s")
    yield Figure("search.bare_steps", empty, "s")
    yield Figure("search.wall", wall, "s")
    yield Figure("search.wall_to_fits_and_step_start", wall / (fits.sum() / PARALLEL + empty), "x", 1.2)


def bare_job() -> dg.JobDefinition:
    """The same steps without anything in them: what starting them takes."""

    @dg.op(out=dg.DynamicOut(dg.Nothing))
    def start() -> Iterator[dg.DynamicOutput[None]]:
        for number in range(TRIALS):
            yield dg.DynamicOutput(None, mapping_key=str(number))

    @dg.op(ins={"start": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
    def trial() -> None:
        pass

    @dg.op(ins={"trials": dg.In(dg.Nothing)}, out=dg.Out(dg.Nothing))
    def choose() -> None:
        pass

    def steps() -> Any:
        choose(start().map(lambda named: trial(named)).collect())

    return dg.job(executor_def=executor(load_settings(), Catalog({}, {}, {})))(steps)


def _seconds(run: Callable[[], AbstractContextManager[dg.JobExecutionResult]]) -> float:
    began = time.perf_counter()
    with run() as result:
        assert result.success
    return time.perf_counter() - began
