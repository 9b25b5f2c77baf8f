"""A model server with a model of 100 features, as real processes: what `serving` and `hot_swap` put under load."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch

from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import FeatureSpec, FeatureViewSpec, ViewInputSpec
from ml_platform.features.transforms import Transforms
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.online_store import SqliteStore
from ml_platform.resources.registry import Registry
from ml_platform.training.trainers.mlp import MLP, MLPArchitecture
from ml_platform_tests.processes import free_port
from ml_platform_tests.servers import mlflow_server, server

MODEL = "benchmark"
ENTITIES = 10_000
VIEWS = {"customer": 50, "terminal": 50}  # features by view, and entity


@dataclass(frozen=True)
class World:
    settings: Settings
    registry: Registry
    experiment: str

    @property
    def url(self) -> str:
        return self.settings.model_server_url

    def register(self, seed: int) -> Version:
        run = self.registry.client.create_run(self.experiment)  # a bundle is where its run keeps it
        return self.registry.register(MODEL, bundle_of(seed), run.info.run_id, {"training_date": "2018-06-01"})

    def promote(self, version: Version) -> None:
        with self.registry.changing(MODEL) as change:
            change.to(change.standing.aliases.promoted(version), None)


@contextmanager
def serving(folder: Path) -> Iterator[World]:
    """MLflow and the server of version 1, whose online store knows `ENTITIES` ids of each kind."""
    settings = Settings(home=folder, mlflow_port=free_port(), model_server_port=free_port())
    fill(SqliteStore(folder / "online_store.db"))
    environment = {
        "ML_PLATFORM_HOME": str(folder),
        "ML_PLATFORM_MLFLOW_PORT": str(settings.mlflow_port),
        "ML_PLATFORM_MODEL_SERVER_PORT": str(settings.model_server_port),
    }
    ours = [sys.executable, "-m", "ml_platform.serving.main"]
    with (
        mlflow_server(folder, settings.mlflow_port),
        server(ours, f"{settings.model_server_url}/health", folder / "server.log", environment),
    ):
        registry = Registry.at(settings)
        world = World(settings, registry, registry.client.create_experiment("benchmark"))
        first = world.register(0)
        world.promote(first)
        ModelServer.at(settings).wait_until_served(first)
        yield world


def fill(store: SqliteStore) -> None:
    rng = np.random.default_rng(0)
    for view, count in VIEWS.items():
        names = feature_names(view, count)
        rows = pa.table({f"{view}_id": np.arange(ENTITIES), **{name: rng.random(ENTITIES) for name in names}})
        spec = FeatureViewSpec(
            name=view,
            entity=f"{view}_id",
            function="somewhere.else",
            inputs={"events": ViewInputSpec(window_days=1)},
            features=dict.fromkeys(names, FeatureSpec()),
        )
        store.write(spec, rows, datetime(2018, 6, 1, tzinfo=UTC))


def feature_names(view: str, count: int) -> list[str]:
    return [f"{view}_feature_{number:02}" for number in range(count)]


NAMES = [name for view, count in VIEWS.items() for name in feature_names(view, count)]


def network(seed: int) -> MLP:
    torch.manual_seed(seed)
    architecture = MLPArchitecture(features=sum(VIEWS.values()), hidden=(128, 128), dropout=0.1)
    return MLP(architecture, architecture.build())


def bundle_of(seed: int) -> dict[str, bytes]:
    views = tuple(
        bundle.ViewSchema(view, f"{view}_id", "int64", dict.fromkeys(feature_names(view, count), 0.0))
        for view, count in VIEWS.items()
    )
    spec = load_catalog(find_project(EXAMPLE).defs).models["fraud_detection"].model_copy(update={"name": MODEL})
    manifest = {
        "trainer": "mlp", "params": {}, "training_date": "2018-06-01", "code_version": "", "seed": seed, "inputs": [],
    }  # fmt: skip
    transforms = Transforms(tuple(NAMES), {}, (0.5,) * len(NAMES), (0.3,) * len(NAMES))
    schema = bundle.InputSchema({}, views)
    return bundle.pack(spec, network(seed), transforms, schema, {}, json.dumps(manifest).encode())


def bodies_by_id(count: int = 2_000) -> list[bytes]:
    ids = np.random.default_rng(1).integers(ENTITIES, size=(count, len(VIEWS))).tolist()
    keys = [f"{view}_id" for view in VIEWS]
    return [json.dumps({"entities": [dict(zip(keys, of_row, strict=True))]}).encode() for of_row in ids]


def bodies_of_values(count: int = 500) -> list[bytes]:
    """One row of 100 numbers each, as MLflow and LitServe take them too."""
    values = np.random.default_rng(2).random((count, sum(VIEWS.values()))).tolist()
    return [json.dumps({"inputs": [row]}).encode() for row in values]


def bodies_of_columns(count: int = 500) -> list[bytes]:
    """The same rows with the names of their columns, in the form that MLflow's documentation begins with."""
    values = np.random.default_rng(2).random((count, sum(VIEWS.values()))).tolist()
    return [json.dumps({"dataframe_split": {"columns": NAMES, "data": [row]}}).encode() for row in values]
