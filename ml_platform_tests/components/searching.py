"""A model whose params are searched, small enough to be searched in seconds, and a trainer that does as its params say."""

import json
import os
import signal
import time
from contextlib import AbstractContextManager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from multiprocessing import forkserver
from pathlib import Path
from typing import Any, Self

import dagster as dg
import numpy as np
import pyarrow as pa

from ml_platform.components import resources as adapters
from ml_platform.components.candidate import candidate_asset
from ml_platform.components.execution import executor, training_run_config
from ml_platform.components.trials import trials_asset
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.days import day_range, start_of
from ml_platform.core.errors import Interrupted
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import FeatureViewSpec, ModelSpec
from ml_platform.resources.lake import Lake
from ml_platform.training.training_set import LABEL, SPLIT
from ml_platform.training.windows import windows

MODEL = "searched"
DAY = date(2018, 6, 1)
MOODY = f"{__name__}.Moody"
FITS = "fits.jsonl"  # in ML_PLATFORM_HOME: a line for every fit that began
SPEC = "model.json"
JOB = "search"
SIZE = {"name": "size", "kind": "request", "features": {"amount": {"expression": "tx_amount"}}}


class Moody:
    """Scores rows by `skill` and noise. As its params say, it fails, is killed, or has poor losses; each fit leaves a line."""

    def __init__(self, skill: float) -> None:
        self.skill = skill

    @classmethod
    def fit(cls, params: Any, train: Any, validation: Any, context: Any) -> Self:
        path = load_settings().home / FITS
        before = path.read_text().splitlines() if path.exists() else []
        tries = before.count(line := json.dumps(params))
        with path.open("a") as file:
            file.write(line + "\n")
        if params.get("fails", "") and tries < params.get("times", 99):
            raise RuntimeError(params["fails"])
        if tries < params.get("killed", 0):
            os.kill(os.getpid(), signal.SIGKILL)
        while params.get("slow") and not context.interrupted():
            time.sleep(0.05)
        if params.get("slow"):
            raise Interrupted("moody", "asked to stop", "run it again")
        for epoch in range(1, params.get("epochs", 1) + 1):
            context.on_epoch(epoch, {"validation_loss": params.get("loss", 1.0) / epoch})
        return cls(params.get("skill", 0.5))

    def predict(self, x: np.ndarray) -> np.ndarray:
        noise = np.random.default_rng(1).normal(size=len(x))
        return 1 / (1 + np.exp(-(self.skill * x[:, 0] + (1 - self.skill) * noise)))

    def save(self) -> dict[str, bytes]:
        return {"model.json": json.dumps(self.skill).encode()}

    @classmethod
    def load(cls, files: Any) -> Self:
        return cls(json.loads(files["model.json"]))


def model(*candidates: dict[str, Any], **fields: Any) -> ModelSpec:
    training = {"window_days": 8, "validation_days": 2, **fields.pop("training", {})}
    content = {
        "name": MODEL,
        "entity_rows": "transactions",
        "label": {"source": "fraud_labels", "column": "is_fraud"},
        "features": ["size"],
        "candidates": candidates,
        "resources": {"retries": {"max": 2, "delay": "1s"}},
    }
    return ModelSpec.model_validate({**content, "training": training, **fields})


def catalog_of(spec: ModelSpec) -> Catalog:
    return Catalog(
        load_catalog(find_project(EXAMPLE).defs).sources, {"size": FeatureViewSpec.model_validate(SIZE)}, {MODEL: spec}
    )


def training_rows(spec: ModelSpec, seed: int = 3, per_day: int = 30) -> pa.Table:
    """Rows on every day of the windows; large amounts are mostly fraud."""
    used = windows(spec.training, 7, DAY)
    days = [*day_range(used.train[0], used.validation[1])]
    times: list[datetime] = [start_of(day) + timedelta(seconds=n) for day in days for n in range(per_day)]
    random = np.random.default_rng(seed)
    amounts = random.uniform(0, 10, len(times))
    labels = (amounts + random.normal(0, 2, len(times)) > 6).astype(np.int64)
    split = ["validation" if time >= start_of(used.validation[0]) else "train" for time in times]
    columns = {
        "tx_amount": amounts,
        "tx_datetime": pa.array(times, pa.timestamp("us", tz="UTC")),
        LABEL: labels,
        SPLIT: split,
    }
    return pa.table(columns)


def definitions(spec: ModelSpec) -> dg.Definitions:
    catalog = catalog_of(spec)
    trials, candidate = trials_asset(spec, catalog), candidate_asset(spec, catalog)
    return dg.Definitions(
        assets=[trials, candidate],
        jobs=[dg.define_asset_job(JOB, [trials.key, candidate.key])],
        resources={"lake": adapters.lake, "tracking": adapters.tracking},
        executor=executor(load_settings(), catalog),
    )


def search_in_processes(instance: dg.DagsterInstance, *nouns: str) -> AbstractContextManager[dg.JobExecutionResult]:
    """Materialize as a run of the platform does, each step in a process of its own."""
    # It would keep the environment that it was started with.
    forkserver._forkserver._stop()  # type: ignore[attr-defined]
    return dg.execute_job(
        dg.reconstructable(search_job),
        instance,
        run_config=training_run_config(held()),
        tags={"dagster/partition": DAY.isoformat()},
        asset_selection=[dg.AssetKey([MODEL, noun]) for noun in nouns],
    )


def held() -> ModelSpec:
    """The model in ML_PLATFORM_HOME."""
    return ModelSpec.model_validate_json((load_settings().home / SPEC).read_text())


def search_job() -> dg.JobDefinition:
    """What a step's process loads."""
    return definitions(held()).resolve_job_def(JOB)


@dataclass
class World:
    """A lake with a training set, and the job that searches and trains on it."""

    home: Path
    lake: Lake
    instance: dg.DagsterInstance

    def hold(self, spec: ModelSpec, seed: int = 3, rows: pa.Table | None = None) -> None:
        """Take this model, and a training set for it."""
        self.home.mkdir(exist_ok=True)
        (self.home / SPEC).write_text(spec.model_dump_json())
        self.lake.write_table(keys.training_set(MODEL), DAY, training_rows(spec, seed) if rows is None else rows, [])

    def run(self, *selection: str) -> dg.ExecuteInProcessResult:
        """Materialize within this process."""
        keys_ = [dg.AssetKey([MODEL, noun]) for noun in selection or ("trials", "candidate")]
        return search_job().execute_in_process(
            asset_selection=keys_, partition_key=DAY.isoformat(), instance=self.instance, raise_on_error=False
        )

    def run_in_processes(self, *selection: str) -> AbstractContextManager[dg.JobExecutionResult]:
        """Materialize, each step in a process of its own."""
        return search_in_processes(self.instance, *(selection or ("trials", "candidate")))

    @property
    def fits(self) -> int:
        path = self.home / FITS
        return len(path.read_text().splitlines()) if path.exists() else 0


def metadata(result: Any, noun: str = "trials") -> dict[str, Any]:
    """Metadata of the asset that a run made."""
    made = [
        event.step_materialization_data.materialization for event in result.all_events if event.is_step_materialization
    ]
    found = next(one for one in made if one.asset_key == dg.AssetKey([MODEL, noun]))
    return {name: value.value for name, value in found.metadata.items()}


def failures(result: Any) -> str:
    """What the failed steps of a run said."""
    errors = [event.event_specific_data.error for event in result.all_events if event.is_step_failure]
    return "\n".join(error.to_string() for error in errors)
