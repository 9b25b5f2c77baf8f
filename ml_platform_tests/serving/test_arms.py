"""Champion and challenger: who answers whom, what the log has of it, and that an experiment costs nobody an answer."""

from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from fastapi.testclient import TestClient

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.resources.prediction_log import LogState
from ml_platform.resources.prediction_rows import Prediction
from ml_platform.rollout.traffic import Traffic
from ml_platform.serving import app as server
from ml_platform_tests.processes import eventually
from ml_platform_tests.serving.conftest import JUNE, REQUEST, Told, ready, serving


class Written:
    """A prediction log that can be looked into."""

    def __init__(self) -> None:
        self.rows: list[Prediction] = []
        self.closed = False

    def start(self) -> None: ...

    def state(self) -> LogState:
        return LogState()

    def add(self, model: str, predictions: Sequence[Prediction]) -> None:
        assert model == "fraud"
        self.rows += predictions

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> Written:
    log = Written()
    monkeypatch.setattr(server, "PredictionLog", lambda *_, **__: log)
    return log


@pytest.fixture
def client(  # the log is replaced before the server starts
    tmp_path: Path, catalog: Catalog, registry: Told, written: Written, monkeypatch: pytest.MonkeyPatch
):
    with serving(Settings(home=tmp_path), catalog, registry, monkeypatch) as client:
        ready(client)
        yield client


def challenge(client: TestClient, registry: Told, **split: Any) -> None:
    registry.split = {"challenger": "2", **split}
    eventually(lambda: (client.get("/models/fraud").json()["challenger"] or {}).get("version") == "2")


def ask(client: TestClient, *customers: int, **parameters: str) -> dict[str, Any]:
    rows = [{**REQUEST, "customer_id": customer} for customer in customers]
    answer = client.post("/models/fraud/predict", json={"entities": rows}, params=parameters)
    assert answer.status_code == 200, answer.text
    return answer.json()


def test_entities_are_split_as_the_traffic_says_and_each_always_meets_the_same_arm(
    client: TestClient, registry: Told, written: Written
) -> None:
    challenge(client, registry, share=0.4, salt="s")
    traffic: Traffic = registry.traffic()["fraud"]
    arms = {customer: ask(client, customer)["arm"] for customer in range(40)}
    assert arms == {customer: traffic.arm(str(customer)) for customer in range(40)}
    assert arms == {customer: ask(client, customer)["arm"] for customer in range(40)}
    versions = defaultdict(set)
    for row in written.rows:
        versions[row.arm].add(row.version)
        assert row.arm == arms[int(row.entity)]
    assert versions == {"champion": {"1"}, "challenger": {"2"}}


def test_rows_of_one_request_are_split_too_and_scored_as_if_alone(client: TestClient, registry: Told) -> None:
    challenge(client, registry, share=0.5, salt="s")
    alone = [ask(client, customer) for customer in range(12)]
    together = ask(client, *range(12))
    assert (together["version"], together["arm"]) == (None, None)
    assert together["answered_by"] == [{"version": one["version"], "arm": one["arm"]} for one in alone]
    assert together["scores"] == pytest.approx([one["scores"][0] for one in alone], abs=1e-12)


def test_request_without_an_entity_is_split_by_its_id(client: TestClient, registry: Told, catalog: Catalog) -> None:
    challenge(client, registry, share=0.5, salt="s")
    features = [name for view in catalog.snapshot_views() for name in view.features]
    row = {"tx_amount": 1.0, "tx_datetime": "2018-06-01", **dict.fromkeys(features, 1.0)}
    for number in range(10):
        answer = client.post("/models/fraud/predict", json={"rows": [row]}, headers={"X-Request-ID": f"r{number}"})
        assert answer.json()["arm"] == registry.traffic()["fraud"].arm(f"r{number}")


def test_shadow_is_logged_and_never_answers(client: TestClient, registry: Told, written: Written) -> None:
    challenge(client, registry, share=1.0, shadow=True)
    answers = [ask(client, customer) for customer in (1, 2)]
    assert {one["arm"] for one in answers} == {"champion"}
    eventually(lambda: len(written.rows) == 4)
    by_arm = {arm: [row for row in written.rows if row.arm == arm] for arm in ("champion", "shadow")}
    assert [row.score for row in by_arm["champion"]] == [one["scores"][0] for one in answers]
    assert {row.version for row in by_arm["shadow"]} == {"2"}
    assert {row.request_id for row in by_arm["shadow"]} == {row.request_id for row in by_arm["champion"]}
    assert not {row.score for row in by_arm["shadow"]} & {row.score for row in by_arm["champion"]}


@pytest.mark.parametrize("shadow", [True, False])
def test_challenger_that_fails_is_noted_and_the_champion_answers(
    client: TestClient, registry: Told, written: Written, shadow: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    challenge(client, registry, share=1.0, shadow=shadow)
    challenger = client.app.state.models.served["fraud"].challenger  # type: ignore[attr-defined]
    monkeypatch.setattr(type(challenger.bundle.trainer), "predict", _fail_for(challenger.bundle.trainer))
    answer = ask(client, 1)
    assert (answer["version"], answer["arm"]) == ("1", "champion")
    eventually(lambda: len(written.rows) == 2)
    failed, good = sorted(written.rows, key=lambda row: row.error, reverse=True)
    assert (failed.version, failed.arm) == ("2", "shadow" if shadow else "challenger")
    assert "ZeroDivisionError: out of order" in failed.error
    assert (failed.score, good.score) == (None, answer["scores"][0])
    assert 'ml_platform_failed_rows_total{arm="' in client.get("/metrics").text


def _fail_for(broken: Any) -> Any:
    predict = type(broken).predict

    def failing(self: Any, x: Any) -> Any:
        if self is broken:
            raise ZeroDivisionError("out of order")
        return predict(self, x)

    return failing


def test_clients_mistake_is_nobodys_failure(client: TestClient, registry: Told, written: Written) -> None:
    challenge(client, registry, share=1.0)
    bad = {**REQUEST, "tx_amount": "much"}
    assert client.post("/models/fraud/predict", json={"entities": [bad]}).status_code == 422
    assert written.rows == []


def test_arm_that_is_asked_for_answers_and_is_no_traffic(client: TestClient, registry: Told, written: Written) -> None:
    assert client.post("/models/fraud/predict?arm=challenger", json={"entities": [REQUEST]}).status_code == 422
    assert client.post("/models/fraud/predict?arm=shadow", json={"entities": [REQUEST]}).status_code == 422
    challenge(client, registry, share=0.0)
    assert ask(client, 1, arm="challenger")["version"] == "2"
    assert ask(client, 1, arm="champion")["version"] == "1"
    assert written.rows == []


def test_challenger_that_is_bad_is_refused_and_the_champion_answers_everyone(
    client: TestClient, registry: Told
) -> None:
    registry.bundles["2"] = {**registry.bundles["2"], "model.safetensors": b"junk"}
    registry.split = {"challenger": "2", "share": 1.0}
    eventually(lambda: client.get("/models/fraud").json()["challenger"] is not None)
    described = client.get("/models/fraud").json()
    assert described["challenger"]["refused"]["version"] == "2"
    assert "refused" not in described
    assert ask(client, 1)["arm"] == "champion"


def test_challenger_that_is_promoted_is_not_loaded_again(client: TestClient, registry: Told) -> None:
    challenge(client, registry, share=0.1)
    since = client.get("/models/fraud").json()["challenger"]["since"]
    registry.champion, registry.split = "2", {}
    eventually(lambda: client.get("/models/fraud").json()["version"] == "2")
    described = client.get("/models/fraud").json()
    assert (described["since"], described["challenger"]) == (since, None)
    assert registry.downloads == ["1", "2"]


def test_log_says_which_row_it_was_by_whatever_way_it_came(
    client: TestClient, registry: Told, written: Written, catalog: Catalog
) -> None:
    challenge(client, registry, share=0.0, shadow=True)
    features = [name for view in catalog.snapshot_views() for name in view.features]
    keyed = {**REQUEST, "transaction_id": 77, "terminal_id": 99}
    client.post("/models/fraud/predict", json={"entities": [keyed, {**REQUEST, "customer_id": None}]})
    client.post("/models/fraud/predict", json={"rows": [{**keyed, **dict.fromkeys(features, 1.0)}]})
    client.post("/invocations", json={"dataframe_records": [keyed]})
    eventually(lambda: len(written.rows) == 8)
    for arm in ("champion", "shadow"):
        first, second, whole, invoked = [row for row in written.rows if row.arm == arm]
        ids = {"transaction_id": 77, "customer_id": 1, "terminal_id": 99}
        for one in (first, whole, invoked):
            assert ids.items() <= (one.inputs or {}).items()
        assert (second.inputs or {})["transaction_id"] is None
        assert [first.known, second.known, invoked.known] == [
            ["customer_activity"],
            ["terminal_risk"],
            ["customer_activity"],
        ]
        assert (whole.as_of, whole.known) == ({}, ())


def test_log_has_what_was_scored_and_is_closed_at_the_end(
    tmp_path: Path, catalog: Catalog, registry: Told, written: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    with serving(Settings(home=tmp_path), catalog, registry, monkeypatch) as client:
        ready(client)
        response = client.post("/models/fraud/predict", json={"entities": [REQUEST]}, headers={"X-Request-ID": "me"})
        (row,) = written.rows
        assert (row.request_id, row.entity, row.score) == ("me", "1", response.json()["scores"][0])
        features = {name for view in catalog.snapshot_views() for name in view.features}
        assert set(row.names) == features
        assert row.features is not None
        assert len(row.features) == len(features)
        assert set(row.inputs or {}) == {"tx_amount", "tx_datetime", "customer_id", "terminal_id"}
        assert row.as_of == dict.fromkeys(["customer_activity", "terminal_risk"], JUNE)
        assert row.known == ["customer_activity", "terminal_risk"]
        assert (row.inputs or {})["tx_amount"] == 12.5
        assert row.latency_ms > 0
    assert written.closed
