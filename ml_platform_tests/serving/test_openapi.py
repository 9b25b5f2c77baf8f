"""The document says what the server does: its examples are answered, and nothing that can be made from it breaks it."""

import http.client
import json
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import pytest
import schemathesis
import uvicorn
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, given
from hypothesis import strategies as st
from schemathesis.checks import CHECKS, load_all_checks
from schemathesis.core.result import Ok

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.serving import app as server
from ml_platform_tests.processes import eventually, free_port
from ml_platform_tests.selection import examples
from ml_platform_tests.serving.conftest import REQUEST, Told, ready, serving

load_all_checks()
PROMISES: list[Any] = CHECKS.get_by_names(
    ["not_a_server_error", "status_code_conformance", "content_type_conformance", "response_schema_conformance"]
)
SLOW = [HealthCheck.too_slow, HealthCheck.filter_too_much, HealthCheck.data_too_large]
PREDICT = "/models/fraud/predict"


def test_served_model_has_a_typed_request_which_appears_and_goes_with_it(client: TestClient, registry: Told) -> None:
    ready(client)
    document = client.get("/openapi.json").json()
    assert {PREDICT, "/models/fraud/invocations"} <= set(document["paths"])
    rows = {
        key: one["properties"][key]
        for one in document["components"]["schemas"]["fraud.Rows"]["oneOf"]
        for key in one["required"]
    }
    by_id = rows["entities"]["items"]
    assert set(by_id["required"]) == set(REQUEST)
    assert by_id["properties"]["customer_id"]["type"] == ["integer", "null"]
    assert by_id["properties"]["tx_datetime"] == {"type": "string", "format": "date-time"}
    assert len(rows["rows"]["items"]["required"]) > len(REQUEST)
    registry.champion = None
    eventually(lambda: PREDICT not in client.get("/openapi.json").json()["paths"])


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Iterator[str]:
    """A server on a real port, with a champion and a challenger."""
    with pytest.MonkeyPatch.context() as patch:
        registry = Told(catalog)
        registry.split = {"challenger": "2", "share": 0.5}
        home = Settings(home=tmp_path_factory.mktemp("fuzz"))
        with serving(home, catalog, registry, patch):
            pass  # which fills the online store
        port = free_port()
        process = uvicorn.Server(uvicorn.Config(server.create_app(home), port=port, log_config=None))
        thread = threading.Thread(target=process.run)
        thread.start()
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: process.started and "challenger" in json.dumps(fetch(port, "GET", "/models/fraud")[1]))
        yield address
        process.should_exit = True
        thread.join()


def fetch(port: int, method: str, path: str, body: bytes | None = None) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request(method, path, body, {"content-type": "application/json"})
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def test_everything_that_the_document_allows_and_much_that_it_does_not_is_answered_as_it_says(url: str) -> None:
    document = schemathesis.openapi.from_url(f"{url}/openapi.json")
    operations: list[Any] = [found.ok() for found in document.get_all_operations() if isinstance(found, Ok)]
    assert {PREDICT, "/models/fraud/invocations", "/models/{name}"} <= {operation.path for operation in operations}
    for operation in operations:

        @given(case=operation.as_strategy())
        @examples(15, suppress_health_check=SLOW, derandomize=True, database=None)
        def answered(case: schemathesis.Case) -> None:
            case.call_and_validate(timeout=20, checks=PROMISES)

        answered()


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(
    field=st.sampled_from([*REQUEST]),
    value=json_values.filter(lambda value: not isinstance(value, int | float | str) and value is not None),
)
@examples(40, suppress_health_check=SLOW, derandomize=True, database=None)
def test_value_of_the_wrong_kind_is_422_and_its_field_is_named(url: str, field: str, value: Any) -> None:
    body = json.dumps({"entities": [{**REQUEST, field: value}]}).encode()
    status, answer = fetch(int(url.rsplit(":", 1)[1]), "POST", PREDICT, body)
    assert status == 422
    assert f"row 0, field '{field}'" in answer["detail"]


@pytest.mark.parametrize(
    ("value", "named"),
    [
        ("NaN", "row 0, field 'tx_amount'"),
        ("Infinity", "row 0, field 'tx_amount'"),
        ("-Infinity", "row 0, field 'tx_amount'"),
        ("1e999", "row 0, field 'tx_amount'"),
        ("9" * 400, "row 0, field 'tx_amount'"),
        ("9" * 5_000, "request body"),
        ("[" * 100 + "]" * 100, "row 0, field 'tx_amount'"),
        ("[" * 100_000 + "]" * 100_000, "request body"),
        ('{"a": ' * 100_000, "request body"),
        ('"\\ud800"', "request body"),
        ('"\\u0000"', "row 0, field 'tx_amount'"),
        ("tru", "request body"),
    ],
)
def test_impossible_numbers_and_depths_are_422_and_named(url: str, value: str, named: str) -> None:
    body = json.dumps({"entities": [{**REQUEST, "tx_amount": "here"}]}).replace('"here"', value).encode()
    status, answer = fetch(int(url.rsplit(":", 1)[1]), "POST", PREDICT, body)
    assert (status, named in answer["detail"]) == (422, True), answer


def test_huge_batch_is_answered_or_refused_and_the_server_goes_on(url: str) -> None:
    port = int(url.rsplit(":", 1)[1])
    for rows, expected in ((10_000, 200), (10_001, 422)):
        body = json.dumps({"entities": [REQUEST] * rows}).encode()
        assert fetch(port, "POST", PREDICT, body)[0] == expected
    assert fetch(port, "POST", PREDICT, b" " * (33 << 20))[0] == 413


@given(garbage=st.binary(max_size=300))
@examples(25, suppress_health_check=SLOW, derandomize=True, database=None)
def test_garbage_on_the_wire_ends_that_connection_and_nothing_else(url: str, garbage: bytes) -> None:
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        wire.sendall(garbage + b"\r\n\r\n")
        wire.shutdown(socket.SHUT_WR)
        began = time.monotonic()
        answer = b"".join(iter(lambda: wire.recv(4_096), b""))
    assert b" 500 " not in answer[:20]
    assert time.monotonic() - began < 15
    assert fetch(port, "GET", "/health")[0] == 200
