"""Key, limits, ids, log and metrics of every request."""

import json
import logging
from pathlib import Path

import pytest
from fastapi.testclient import TestClient
from pydantic import SecretStr

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.resources.model_server import ModelServer
from ml_platform.serving import guard
from ml_platform.serving.json_log import JsonFormatter
from ml_platform_tests.serving.conftest import REQUEST, Told, ready, serving

PREDICT = "/models/fraud/predict"
BODY = {"entities": [REQUEST]}


def test_only_who_has_the_key_gets_answers(
    tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = Settings(home=tmp_path, api_key=SecretStr("open sesame"))
    with serving(settings, catalog, registry, monkeypatch) as client:
        ready(client)
        assert [client.get(path).status_code for path in guard.OPEN] == [200, 200, 200]
        paths = ("/models", "/models/fraud", "/version", "/openapi.json", "/docs", "/nowhere")
        assert {client.get(path).status_code for path in paths} == {401}
        refused = client.post(PREDICT, json=BODY)
        assert (refused.status_code, refused.headers["www-authenticate"]) == (401, "Bearer")
        assert "X-API-Key" in refused.json()["detail"]
        for wrong in ("", "Bearer", "Bearer open", "Bearer open sesame ", "Basic open sesame", "Bearer \xff"):
            assert (
                client.post(PREDICT, json=BODY, headers=[(b"authorization", wrong.encode("latin-1"))]).status_code
                == 401
            )
        for right in ({"Authorization": "Bearer open sesame"}, {"X-API-Key": "open sesame"}):
            assert client.post(PREDICT, json=BODY, headers=right).status_code == 200
        assert client.get("/openapi.json", headers=ModelServer.at(settings).headers).json()["security"] == [{"key": []}]


def test_key_is_never_shown() -> None:
    assert "sesame" not in repr(Settings(api_key=SecretStr("sesame")))


def test_body_of_another_type_is_415(client: TestClient) -> None:
    ready(client)
    answer = client.post(PREDICT, content=b"a,b\n1,2", headers={"content-type": "text/csv"})
    assert answer.status_code == 415
    assert "application/json" in answer.json()["detail"]


def test_request_that_takes_too_long_is_504(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    ready(client)
    monkeypatch.setattr(guard, "TIMEOUT", 0.05)

    async def never(*_: object) -> None:
        await guard.asyncio.sleep(60)

    served = client.app.state.models.served["fraud"].champion  # type: ignore[attr-defined]
    monkeypatch.setattr(served.batcher, "score", never)
    answer = client.post(PREDICT, json=BODY)
    assert (answer.status_code, "within 0.05 s" in answer.json()["detail"]) == (504, True)


def test_fault_of_the_server_is_500_and_in_the_log_under_the_requests_id(
    client: TestClient, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ready(client)

    async def broken(*_: object) -> None:
        raise ZeroDivisionError("out of order")

    served = client.app.state.models.served["fraud"].champion  # type: ignore[attr-defined]
    monkeypatch.setattr(served.batcher, "score", broken)
    with caplog.at_level(logging.INFO, "ml_platform.serving.requests"):
        answer = client.post(PREDICT, json=BODY, headers={"X-Request-ID": "call-7"})
    assert (answer.status_code, "call-7" in answer.json()["detail"]) == (500, True)
    assert "out of order" not in answer.text
    (record,) = [one for one in caplog.records if getattr(one, "about", {}).get("request_id") == "call-7"]
    line = json.loads(JsonFormatter().format(record))
    assert (line["request_id"], line["status"], line["level"], line["model"]) == ("call-7", 500, "error", "fraud")
    assert "ZeroDivisionError: out of order" in line["exception"]


@pytest.mark.parametrize(("given", "kept"), [("abc-1", True), ("", False), ("x" * 129, False), ("a b", False)])
def test_request_id_is_kept_if_it_is_one_and_made_if_not(client: TestClient, given: str, kept: bool) -> None:
    returned = client.get("/health", headers={"X-Request-ID": given}).headers["x-request-id"]
    assert (returned == given) is kept
    assert returned


def test_metrics_count_by_model_version_arm_and_status(client: TestClient) -> None:
    ready(client)
    client.post(PREDICT, json=BODY)
    client.post(PREDICT, json={"entities": [{}]})
    client.post("/models/made-up/predict", json=BODY)
    lines = client.get("/metrics").text.splitlines()
    assert 'ml_platform_requests_total{arm="champion",model="fraud",status="200",version="1"} 1.0' in lines
    assert 'ml_platform_requests_total{arm="",model="fraud",status="422",version=""} 1.0' in lines
    assert 'ml_platform_request_seconds_count{arm="champion",model="fraud"} 1.0' in lines
    assert 'ml_platform_batch_rows_count{model="fraud"} 1.0' in lines
    assert [
        line for line in lines if line.startswith('ml_platform_model_loaded{arm="champion"') and 'version="1"' in line
    ]
    assert not [line for line in lines if "made-up" in line]  # or a stranger could fill the memory with names
