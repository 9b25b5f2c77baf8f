"""How fast the model server answers: by id at a steady rate, and at most, beside what else serves such a model.

The servers get the same bodies, one row of 100 numbers, and run the same network: ours as it is deployed, MLflow's
as `mlflow models serve` starts it, LitServe's as its documentation starts it. Each has its turns while the others are idle.
MLflow is asked by named columns, as a model of named features is used there, and by position, which it takes much faster.
"""

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.figure import Figure
from benchmarks.load import load
from benchmarks.served import MODEL, NAMES, bodies_by_id, bodies_of_columns, bodies_of_values, network, serving
from ml_platform_tests.processes import BIN, free_port
from ml_platform_tests.servers import server

RATE = 1_000
SECONDS = 20.0
ROUNDS, ROUND_SECONDS = 3, 5.0


def serving_speed() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as name, serving(Path(name)) as world:
        by_id = f"/models/{MODEL}/predict"
        load(world.url, by_id, bodies_by_id(), 3, RATE)
        steady = load(world.url, by_id, bodies_by_id(), SECONDS, RATE)
        yield Figure("serving.failed_requests", len(steady.failures), "requests", 0)
        yield Figure("serving.p50", float(np.percentile(steady.milliseconds, 50)), "ms")
        yield Figure("serving.p99", float(np.percentile(steady.milliseconds, 99)), "ms", 5.0)
        yield Figure("serving.by_id_per_second", load(world.url, by_id, bodies_by_id(), 5).per_second, "requests/s")
        with tensors(Path(name)) as by_position, columns(Path(name)) as by_name, litserve(Path(name)) as lit:
            ours = (world.url, f"/models/{MODEL}/invocations")
            values, named = bodies_of_values(), bodies_of_columns()
            turns = {
                "": (*ours, values),
                "named_": (*ours, named),
                "mlflow_": (by_position, "/invocations", values),
                "mlflow_named_": (by_name, "/invocations", named),
                "litserve_": (lit, "/predict", values),
            }
            measured: dict[str, list[float]] = {which: [] for which in turns}
            for round_ in range(ROUNDS + 1):
                for which, (url, path, bodies) in turns.items():
                    answered = load(url, path, bodies, ROUND_SECONDS)
                    assert not answered.failures, f"{which}: {answered.failures[0]}"
                    if round_:  # the first is for warming up
                        measured[which].append(answered.per_second)
        reached = {which: median(of) for which, of in measured.items()}
        for which, per_second in reached.items():
            yield Figure(f"serving.{which}per_second", per_second, "requests/s")
        by_columns = reached["named_"] / reached["mlflow_named_"]
        yield Figure("serving.against_mlflow", by_columns, "x", 10.0, at_least=True)
        yield Figure("serving.against_mlflow_tensors", reached[""] / reached["mlflow_"], "x")
        yield Figure("serving.against_litserve", reached[""] / reached["litserve_"], "x", 1.0, at_least=True)


def tensors(folder: Path) -> AbstractContextManager[str]:
    """MLflow with the model as a function of a matrix, which is the fastest that it can be had."""
    from mlflow.types import Schema, TensorSpec

    return mlflow_models_serve(folder / "tensors", Schema([TensorSpec(np.dtype("float32"), (-1, len(NAMES)))]))


def columns(folder: Path) -> AbstractContextManager[str]:
    """MLflow with the model as a function of named columns, as ours is: whoever calls needs not know their order."""
    from mlflow.types import ColSpec, DataType, Schema

    return mlflow_models_serve(folder / "columns", Schema([ColSpec(DataType.double, name) for name in NAMES]))


@contextmanager
def mlflow_models_serve(folder: Path, inputs: Any) -> Iterator[str]:
    import torch
    from mlflow import pytorch  # pyright: ignore[reportPrivateImportUsage]
    from mlflow.models import ModelSignature

    model = torch.nn.Sequential(network(0).network, torch.nn.Sigmoid())
    signature = ModelSignature(inputs)
    pytorch.save_model(model, folder, signature=signature, pip_requirements=["torch"], serialization_format="pickle")
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    command = [str(BIN / "mlflow"), "models", "serve", "-m", str(folder), "--env-manager", "local"]
    path = {"PATH": f"{BIN}:{os.environ['PATH']}"}  # where it looks for uvicorn
    log = folder.with_suffix(".log")
    with server([*command, "-h", "127.0.0.1", "-p", str(port)], f"{url}/ping", log, path):
        yield url


@contextmanager
def litserve(folder: Path) -> Iterator[str]:
    url = f"http://127.0.0.1:{free_port()}"
    command = [sys.executable, "-m", "benchmarks.litserve_app", url.rsplit(":", 1)[1]]
    with server(command, f"{url}/health", folder / "litserve.log"):
        yield url
