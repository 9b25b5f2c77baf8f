"""Bodies within their limits, by themselves and together."""

import asyncio
import gzip
from collections.abc import Iterator
from pathlib import Path

import pytest
from fastapi import HTTPException
from fastapi.testclient import TestClient
from pydantic import ByteSize
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.serving.intake import LARGE_BODY, Body, Intake
from ml_platform_tests.serving.conftest import REQUEST, Told, ready, serving

PREDICT = "/models/fraud/predict"
JSON = {"content-type": "application/json"}
KB = 1 << 10


@pytest.fixture
def client(tmp_path: Path, catalog: Catalog, registry: Told, monkeypatch: pytest.MonkeyPatch) -> Iterator[TestClient]:
    settings = Settings(home=tmp_path, model_server_body=ByteSize(1_000), model_server_string=20)
    with serving(settings, catalog, registry, monkeypatch) as client:
        ready(client)
        yield client


def test_body_that_is_too_large_is_refused_whether_it_says_so_or_not(client: TestClient) -> None:
    announced = client.post(PREDICT, content=b" " * 1_001, headers=JSON)
    streamed = client.post(PREDICT, content=iter([b" " * 600] * 2), headers=JSON)
    assert (announced.status_code, streamed.status_code) == (413, 413)
    assert "larger than 1000 bytes" in announced.json()["detail"]
    assert client.post(PREDICT, json={"entities": [REQUEST]}).status_code == 200


def test_compressed_body_is_refused_before_it_is_anything(client: TestClient) -> None:
    bomb = gzip.compress(b" " * (100 << 10))
    answer = client.post(PREDICT, content=bomb, headers={**JSON, "content-encoding": "gzip"})
    assert (answer.status_code, "content-encoding" in answer.json()["detail"]) == (415, True)


def request_of(*parts: bytes, **headers: str) -> Request:
    messages = [{"type": "http.request", "body": part, "more_body": True} for part in parts]
    messages.append({"type": "http.request", "body": b"", "more_body": False})
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming, {"type": "http.disconnect"})

    named = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    return Request({"type": "http", "method": "POST", "headers": named}, receive)


def received(intake: Intake, request: Request) -> Body:
    return asyncio.run(intake.receive(request))


def test_large_bodies_count_until_they_are_let_go_and_small_ones_do_not() -> None:
    intake = Intake(200 * KB, 300 * KB)
    small = received(intake, request_of(b"x" * KB))
    assert (small.large, small.whole(), intake.held) == (False, b"x" * KB, 0)
    large = received(intake, request_of(b"x" * LARGE_BODY, b"y" * KB))
    assert (large.large, intake.held) == (True, LARGE_BODY + KB)
    assert large.whole() == b"x" * LARGE_BODY + b"y" * KB
    large.let_go()
    large.let_go()
    assert intake.held == 0


@pytest.mark.parametrize("announced", [{"content_length": str(150 * KB)}, {}])
def test_large_body_for_which_there_is_no_room_is_refused_and_leaves_nothing(announced: dict[str, str]) -> None:
    intake = Intake(200 * KB, 300 * KB)
    held = [received(intake, request_of(*[b"x" * KB] * 100)) for _ in range(2)]
    with pytest.raises(HTTPException) as refused:
        received(intake, request_of(*[b"x" * KB] * 150, **announced))
    assert (refused.value.status_code, refused.value.headers) == (503, {"Retry-After": "1"})
    assert intake.held == 200 * KB
    assert (received(intake, request_of(b"x" * KB))).size == KB  # a small one always has
    held[0].let_go()
    assert (received(intake, request_of(*[b"x" * KB] * 150, **announced))).size == 150 * KB


def test_client_that_hangs_up_holds_nothing() -> None:
    intake = Intake(200 * KB, 300 * KB)
    messages = iter([{"type": "http.request", "body": b"x" * 100 * KB, "more_body": True}, {"type": "http.disconnect"}])

    async def receive() -> Message:
        return next(messages)

    with pytest.raises(ClientDisconnect):
        received(intake, Request({"type": "http", "method": "POST", "headers": []}, receive))
    assert intake.held == 0
