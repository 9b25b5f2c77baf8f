# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer methods than the library has.
"""A model of three classes that reads past events and names, from its files to the answers of a server over HTTP."""

import json
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime
from typing import Any

import httpx
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
import uvicorn
import yaml

from ml_platform.components.candidate import make_training_set
from ml_platform.components.feature_view import compute_day
from ml_platform.components.parity import serving_matches_training
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.errors import BundleError
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec
from ml_platform.features.engine import Embedded
from ml_platform.registry import bundle
from ml_platform.registry.candidate import train_candidate
from ml_platform.registry.versions import Version
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.online_store import online_store_at
from ml_platform.resources.registry import Registry
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving import app as server
from ml_platform.serving.probation import Probation, self_test
from ml_platform.training.windows import windows
from ml_platform_tests.conftest import lake_of
from ml_platform_tests.processes import free_port
from ml_platform_tests.test_documentation import blocks

DAY = date(2018, 5, 20)
NEWEST = date(2018, 5, 30)
SMALL = {
    "task": "multiclass_classification",
    "training": {"window_days": 3, "validation_days": 1, "embargo_days": 0},
    "gates": [{"check": "no_null_predictions"}],
}


@pytest.fixture(scope="module")
def known(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The built-in catalog with the files of docs/sequences.md; the model has three classes and little time."""
    folder = tmp_path_factory.mktemp("defs")
    texts = {path.parent.name: path.read_text() for path in find_project(EXAMPLE).defs.rglob("defs.yaml")}
    for page, body in blocks("yaml"):
        if page == "sequences.md":
            content = yaml.safe_load(body)
            if content["type"].endswith("Model"):
                content["attributes"] |= SMALL
                content["attributes"]["candidates"][0]["params"] |= {
                    "epochs": 3,
                    "width": 8,
                    "hidden": [16],
                    "batch_size": 64,
                    "lr": 0.02,
                }
                content["attributes"]["candidates"][1]["params"] = {"epochs": 1, "hidden": [16]}
            texts[content["attributes"]["name"]] = yaml.safe_dump(content)
    for name, text in texts.items():
        (folder / name).mkdir()
        (folder / name / "defs.yaml").write_text(text)
    return load_catalog(folder)


@pytest.fixture(scope="module")
def spec(known: Catalog) -> ModelSpec:
    return known.models["card_history"]


@pytest.fixture(scope="module")
def lake(tmp_path_factory: pytest.TempPathFactory, simulated: pa.Table, landed_files: Any) -> Lake:
    """60 raw days whose labels say whether an amount is small, usual or large."""
    amount_of = dict(zip(simulated["transaction_id"].to_pylist(), simulated["tx_amount"].to_pylist(), strict=True))

    def sized(source: str, rows: pa.Table) -> pa.Table:
        if source != "fraud_labels":
            return rows
        sizes = np.digitize([amount_of[key] for key in rows["transaction_id"].to_pylist()], [25.0, 75.0])
        at = rows.schema.get_field_index("is_fraud")
        return rows.set_column(at, "is_fraud", pa.array(sizes, rows.schema.field(at).type))

    files = [(source, day, sized(source, rows)) for source, day, rows in landed_files]
    return lake_of(Settings(home=tmp_path_factory.mktemp("lake")), files)


@pytest.fixture(scope="module")
def heard() -> list[dict[str, float]]:
    return []


@pytest.fixture(scope="module")
def files(lake: Lake, known: Catalog, spec: ModelSpec, heard: list[dict[str, float]]) -> dict[str, bytes]:
    """The candidate, trained on features as of four days."""
    used = windows(spec.training, known.label_delay(spec), DAY)
    for view in known.snapshot_views(spec):
        for day in (*used.days, NEWEST):
            compute_day(view, day, known, lake, Embedded())
    list(make_training_set(spec, known, DAY, lake, Embedded(), {}))
    table = lake.read_table(keys.training_set(spec.name), [DAY])
    views = known.daily_views(spec), known.request_views(spec)
    source = known.sources["transactions"]
    made = train_candidate(spec, DAY, source, *views, table, "hash", [], lambda _, figures: heard.append(figures))
    assert [entry.status for entry in made.leaderboard].count("failed") == 0
    # Selected or not: the sequence is what is served here.
    alone = spec.model_copy(update={"candidates": spec.candidates[:1]})
    files = train_candidate(alone, DAY, source, *views, table, "hash", [], lambda *_: None).files
    lake.write_files(keys.candidate(spec.name), DAY, files, [])
    return files


@pytest.fixture(scope="module")
def served(
    files: dict[str, bytes], lake: Lake, known: Catalog, spec: ModelSpec, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[ModelServer]:
    """A server in this process, on a port, with the bundle as champion and the newest features online."""
    settings = Settings(home=tmp_path_factory.mktemp("home"))
    for view in known.snapshot_views(spec):
        newest = lake.read_table(keys.feature_view(view.name), [NEWEST])
        online_store_at(settings).write(view, newest, datetime(NEWEST.year, NEWEST.month, NEWEST.day, tzinfo=UTC))
    version = Version(spec.name, "1", bundle.digest_of(files), DAY.isoformat(), "run", "source")

    class OneChampion:
        def traffic(self, unreadable: object = None) -> dict[str, Traffic]:
            return {spec.name: Traffic(version)}

        def download(self, _: Version) -> dict[str, bytes]:
            return files

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Registry, "at", lambda _: OneChampion())
        patch.setattr(Probation, "__call__", lambda *_: None)  # a process of its own: serving/test_probation.py has it
        port = free_port()
        running = uvicorn.Server(
            uvicorn.Config(server.create_app(settings), "127.0.0.1", port, log_level="warning", lifespan="on")
        )
        thread = threading.Thread(target=running.run)
        thread.start()
        model_server = ModelServer(f"http://127.0.0.1:{port}", sleep=lambda _: time.sleep(0.1))
        model_server.wait_until_served(version)  # after its self-test
        yield model_server
        running.should_exit = True
        thread.join()


def test_figures_of_several_candidates_have_prefixes(files: dict[str, bytes], heard: list[dict[str, float]]) -> None:
    assert files
    prefixes = {name.removesuffix("_validation_loss") for figures in heard for name in figures if "validation" in name}
    assert prefixes == {"1_sequence", "2_mlp"}


def test_server_answers_by_id_what_batch_scoring_says(
    served: ModelServer, spec: ModelSpec, known: Catalog, lake: Lake
) -> None:
    """Two hundred customers, some of whom nobody knows, and their terminals."""
    outcome = serving_matches_training(spec, DAY, known, lake, Embedded(), served, "1")
    assert outcome.passed, outcome.description
    assert outcome.metadata
    assert outcome.metadata["rows"] == 200


def test_another_bundle_than_the_served_one_is_seen(
    served: ModelServer, spec: ModelSpec, known: Catalog, lake: Lake, files: dict[str, bytes]
) -> None:
    content = json.loads(files[bundle.TRANSFORMS])
    content["categories"]["terminal"].reverse()  # the same names with other codes
    changed = {**files, bundle.TRANSFORMS: json.dumps(content).encode()}
    lake.write_files(keys.candidate(spec.name), DAY, changed, [])
    try:
        assert not serving_matches_training(spec, DAY, known, lake, Embedded(), served, "1").passed
    finally:
        lake.write_files(keys.candidate(spec.name), DAY, files, [])


def test_answer_is_a_probability_per_class(served: ModelServer, spec: ModelSpec) -> None:
    row = {"customer_id": 5, "terminal_id": 3, "tx_datetime": "2018-05-30T12:00:00"}
    sizes = [{**row, "tx_amount": amount} for amount in (1.0, 300.0)]
    scores = np.array(served.predict(spec.name, {"entities": sizes})["scores"])
    assert scores.shape == (2, 3)
    np.testing.assert_allclose(scores.sum(axis=1), 1, rtol=1e-12)
    assert scores.argmax(axis=1).tolist() == [0, 2]


def test_every_step_and_a_name_change_the_answer(served: ModelServer, spec: ModelSpec) -> None:
    described = httpx.get(f"{served.url}/models/{spec.name}").json()["input"]
    assert described["request"] == {"tx_amount": "float64", "tx_datetime": "timestamp", "terminal_id": "int32"}
    defaults = {**described["features"], "tx_amount": 30.0, "tx_datetime": "2018-05-30T12:00:00", "terminal_id": -1}
    some = {f"customer_last_{what}_{n}": float(n) for n in range(1, 9) for what in ("amounts", "days")}
    rows: list[dict[str, Any]] = [defaults, {**defaults, **some}]
    rows += [{**defaults, **some, name: 2_000.0} for name in some]
    scores = [tuple(score) for score in served.predict(spec.name, {"rows": rows})["scores"]]
    assert len(set(scores)) == len(rows)


def test_terminal_that_training_never_saw_is_like_every_other_such(served: ModelServer, spec: ModelSpec) -> None:
    row = {"customer_id": 5, "tx_amount": 30.0, "tx_datetime": "2018-05-30T12:00:00"}
    terminals = [{**row, "terminal_id": terminal} for terminal in (-1, 999_999, 3)]
    scores = served.predict(spec.name, {"entities": terminals})["scores"]
    np.testing.assert_allclose(scores[0], scores[1], rtol=1e-5)
    assert not np.allclose(scores[0], scores[2], rtol=1e-5)


def test_bundle_whose_self_test_gives_no_row_of_classes_is_refused(files: dict[str, bytes]) -> None:
    loaded = bundle.unpack(files, "m")
    self_test(loaded, "m")

    class Flat:
        def predict(self, x: np.ndarray) -> np.ndarray:
            return np.zeros(len(x))

    with pytest.raises(BundleError, match="not one finite score per class"):
        self_test(replace(loaded, trainer=Flat()), "m")  # type: ignore[arg-type]


def test_vector_of_a_customer_is_the_last_transactions_newest_first(lake: Lake, known: Catalog, files: Any) -> None:
    """Against a plain loop."""
    view = known.views["customer_sequence"]
    computed = {row["customer_id"]: row for row in lake.read_table(keys.feature_view(view.name), [NEWEST]).to_pylist()}
    days = [day for day in lake.days(keys.raw("transactions")) if 0 < (NEWEST - day).days <= 30]
    raw = lake.read_table(keys.raw("transactions"), days).sort_by([("tx_datetime", "descending")])
    start = datetime(NEWEST.year, NEWEST.month, NEWEST.day, tzinfo=UTC)
    fewest = min(
        computed, key=lambda customer: sum(computed[customer][f"customer_last_days_{n}"] >= 0 for n in range(1, 9))
    )
    for customer in (5, 17, fewest):
        mine = raw.filter(pc.equal(raw["customer_id"], customer)).slice(0, 8).to_pylist()
        for n in range(1, 9):
            amount, ago = (computed[customer][f"customer_last_{what}_{n}"] for what in ("amounts", "days"))
            if n > len(mine):
                assert (amount, ago) == (-1, -1)
                continue
            assert amount == mine[n - 1]["tx_amount"]
            assert ago == pytest.approx((start - mine[n - 1]["tx_datetime"]).total_seconds() / 86_400, abs=2e-5)
