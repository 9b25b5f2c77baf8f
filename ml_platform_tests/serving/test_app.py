"""The server over HTTP, with a registry that says what it is told."""

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from fastapi.testclient import TestClient

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.resources.online_store import online_store_at
from ml_platform.resources.registry import Registry
from ml_platform.serving import app as server
from ml_platform_tests.processes import eventually
from ml_platform_tests.serving.conftest import JUNE, REQUEST, Told, ready, serving
from ml_platform_tests.stores import at_store  # noqa: F401  # a fixture


def test_scores_by_id_and_by_full_row_are_the_same(client: TestClient, catalog: Catalog) -> None:
    ready(client)
    by_id = client.post("/models/fraud/predict", json={"entities": [REQUEST]}).json()
    customer, terminal = (catalog.views[name].features for name in ("customer_activity", "terminal_risk"))
    row = {**REQUEST, **dict.fromkeys(customer, 1.0), **dict.fromkeys(terminal, 2.0)}
    by_row = client.post("/models/fraud/predict", json={"rows": [row]}).json()
    assert by_row["as_of"] is by_row["known"] is by_row["age_seconds"] is None
    names = [view.name for view in catalog.snapshot_views()]
    assert by_id["as_of"] == dict.fromkeys(names, "2018-06-01T00:00:00Z")
    assert by_id["known"] == [names]
    age = (datetime.now(UTC) - JUNE).total_seconds()
    assert by_id["age_seconds"] == pytest.approx(dict.fromkeys(names, age), abs=600)
    looked_up = dict.fromkeys(("as_of", "known", "age_seconds"))
    assert {**by_id, **looked_up} == by_row
    assert by_id["version"] == "1"
    assert 0 < by_id["scores"][0] < 1


def test_answer_is_the_same_from_every_online_store(
    client: TestClient,
    at_store: Settings,  # noqa: F811
    catalog: Catalog,
    registry: Told,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ready(client)
    body = {"entities": [REQUEST, {**REQUEST, "customer_id": 2}, {**REQUEST, "terminal_id": 99}]}
    expected = client.post("/models/fraud/predict", json=body).json()
    assert len(set(expected["scores"])) == 3
    assert expected["known"] == [["customer_activity", "terminal_risk"]] * 2 + [["customer_activity"]]
    with serving(at_store, catalog, registry, monkeypatch) as other:
        ready(other)
        assert without_age(other.post("/models/fraud/predict", json=body).json()) == without_age(expected)
        for view in catalog.snapshot_views():
            rows = pa.table({str(view.entity): [1], **{name: [3.0] for name in view.features}})
            online_store_at(at_store).write(view, rows, JUNE + timedelta(days=1))
        after = other.post("/models/fraud/predict", json=body).json()
    assert set(after["as_of"].values()) == {"2018-06-02T00:00:00Z"}
    assert after["scores"] != expected["scores"]


def without_age(answer: dict[str, Any]) -> dict[str, Any]:
    return {**answer, "age_seconds": None}


def test_invocations_tell_what_was_looked_up_too(client: TestClient) -> None:
    ready(client)
    answer = client.post("/invocations", json={"dataframe_records": [{**REQUEST, "customer_id": 99}]}).json()
    assert answer["known"] == [["terminal_risk"]]
    assert set(answer["age_seconds"]) == {"customer_activity", "terminal_risk"}


def test_health_readiness_and_version(client: TestClient) -> None:
    assert client.get("/health").json() == {"status": "alive"}
    ready(client)
    assert (
        client.get("/ready").json().items() >= {"ready": True, "models": ["fraud"], "refused": [], "kept": []}.items()
    )
    assert client.get("/version").json()["models"] == {"fraud": "1"}
    described = client.get("/models/fraud").json()
    assert described["input"]["entities"] == ["customer_id", "terminal_id"]
    assert client.get("/models").json() == [described]


def test_readiness_tells_how_the_prediction_log_does(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(client)
    assert client.get("/ready").json()["prediction_log"] == {"lost": 0, "waiting": 0, "spooled": 0, "trouble": ""}
    client.post("/models/fraud/predict", json={"entities": [REQUEST] * 3})
    assert client.get("/ready").json()["prediction_log"]["waiting"] == 3
    assert "ml_platform_prediction_log_waiting_rows 3.0" in client.get("/metrics").text


def test_home_that_cannot_be_written_is_no_reason_not_to_answer(client: TestClient, tmp_path: Path) -> None:
    (tmp_path / "prediction_log").write_bytes(b"where the spool should be")
    ready(client)
    assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).status_code == 200


def test_new_champion_is_taken_without_a_failed_request(client: TestClient, registry: Told) -> None:
    ready(client)
    registry.champion = "2"
    versions = set()
    while versions != {"1", "2"} and "2" not in versions:
        answer = client.post("/models/fraud/predict", json={"entities": [REQUEST]})
        assert answer.status_code == 200
        versions.add(answer.json()["version"])


def test_bad_bundle_is_refused_and_the_old_one_keeps_serving(client: TestClient, registry: Told) -> None:
    ready(client)
    registry.bundles["2"] = {**registry.bundles["2"], "model.safetensors": b"junk"}
    registry.champion = "2"
    eventually(lambda: "refused" in client.get("/models/fraud").json())
    described = client.get("/models/fraud").json()
    assert described["version"] == "1"
    assert described["refused"]["version"] == "2"
    assert "cannot be loaded" in described["refused"]["reason"]
    assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).json()["version"] == "1"


def test_download_that_fails_is_tried_again(client: TestClient, registry: Told) -> None:
    """Only a bundle that is bad is refused for good; a registry that stumbles is not the bundle's fault."""
    ready(client)
    registry.downloads_fail = True
    registry.champion = "2"
    assert "refused" not in client.get("/models/fraud").json()
    registry.downloads_fail = False
    eventually(lambda: client.get("/models/fraud").json()["version"] == "2")


def test_refused_first_version_that_is_withdrawn_is_forgotten(client: TestClient, registry: Told) -> None:
    ready(client)
    registry.bundles["2"] = {"junk": b""}
    registry.champion = "2"
    eventually(lambda: client.get("/ready").json()["refused"] == ["fraud"])
    registry.champion = None
    eventually(lambda: client.get("/ready").json().items() >= {"ready": True, "models": [], "refused": []}.items())


def test_registry_that_goes_down_changes_nothing(client: TestClient, registry: Told) -> None:
    ready(client)
    registry.down = True
    assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).status_code == 200
    assert client.get("/ready").status_code == 200


def test_server_is_not_ready_before_it_has_heard_of_the_champions(
    tmp_path: Path, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.down = True
    monkeypatch.setattr(Registry, "at", lambda _: registry)
    with TestClient(server.create_app(Settings(home=tmp_path))) as client:
        assert client.get("/ready").status_code == 503


def test_unknown_model_is_404_and_names_what_there_is(client: TestClient) -> None:
    ready(client)
    answer = client.post("/models/frau/predict", json={"entities": [REQUEST]})
    assert answer.status_code == 404
    assert "there are: fraud" in answer.json()["detail"]


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"[]",
        b"{}",
        b'{"entities": []}',
        b'{"entities": [1]}',
        b'{"entities": [{}], "rows": [{}]}',
        b'{"entities": [{}]}',
        b'{"rows": [{"tx_amount": NaN}]}',
        b'{"entities": [{"customer_id": {"a": 1}}]}',
        b'{"entities": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
        b'{"rows": [' + b"{}," * 10_001 + b"{}]}",
        b"\xff\xfe",
    ],
)
def test_impossible_bodies_are_4xx(client: TestClient, body: bytes) -> None:
    ready(client)
    answer = client.post("/models/fraud/predict", content=body, headers={"content-type": "application/json"})
    assert 400 <= answer.status_code < 500


def test_field_that_is_wrong_is_named(client: TestClient) -> None:
    ready(client)
    answer = client.post("/models/fraud/predict", json={"entities": [{**REQUEST, "tx_amount": "much"}]})
    assert answer.status_code == 422
    assert "row 0, field 'tx_amount'" in answer.json()["detail"]


def test_missing_online_store_is_503_for_ids_and_no_trouble_for_full_rows(
    client: TestClient, tmp_path: Path, catalog: Catalog
) -> None:
    ready(client)
    for path in tmp_path.glob("online_store.db*"):
        path.unlink()
    assert client.post("/models/fraud/predict", json={"entities": [REQUEST]}).status_code == 503
    features = [name for view in catalog.snapshot_views() for name in view.features]
    row = {"tx_amount": 1.0, "tx_datetime": "2018-06-01", **dict.fromkeys(features, 1.0)}
    assert client.post("/models/fraud/predict", json={"rows": [row]}).status_code == 200
