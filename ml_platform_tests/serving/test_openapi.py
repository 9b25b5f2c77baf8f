"""The document says what the server does: its examples are answered, and nothing that can be made from it breaks it."""

import http.client
import json
import re
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
from ml_platform.serving.main import configured
from ml_platform.serving.metrics import Metrics
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
        settings = home.model_copy(update={"model_server_port": port})
        process = uvicorn.Server(configured(settings, Metrics(), aside=None))
        thread = threading.Thread(target=process.run)
        thread.start()
        address = f"http://127.0.0.1:{port}"
        eventually(lambda: process.started and "challenger" in json.dumps(fetch(port, "GET", "/models/fraud")[1]))
        yield address
        process.should_exit = True
        thread.join()


def test_challenger_can_be_asked_for_while_there_is_one(client: TestClient, registry: Told) -> None:
    """Without one it would be 422, which the document does not promise to answer."""

    def arms() -> list[str]:
        (arm,) = client.get("/openapi.json").json()["paths"][PREDICT]["post"]["parameters"]
        return arm["schema"]["enum"]

    ready(client)
    assert arms() == ["champion"]
    asked = {"url": f"{PREDICT}?arm=challenger", "json": {"entities": [REQUEST]}}
    assert client.post(**asked).status_code == 422
    registry.split = {"challenger": "2", "share": 0.5}
    eventually(lambda: arms() == ["champion", "challenger"])
    assert client.post(**asked).status_code == 200


def test_limits_of_ids_and_strings_are_in_the_document(client: TestClient) -> None:
    ready(client)
    schemas = client.get("/openapi.json").json()["components"]["schemas"]
    by_row = schemas["fraud.Rows"]["oneOf"][0]["properties"]["rows"]["items"]
    assert by_row["properties"]["customer_id"]["type"] == ["integer", "null"]
    assert "customer_id" not in by_row["required"]


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_pages_need_nothing_from_elsewhere_in_the_world(client: TestClient, page: str) -> None:
    shown = client.get(page).text
    loaded = re.findall(r"""(?:src|href)=["']([^"']+)""", shown)
    assert len(loaded) >= 2
    assert not re.findall(r"https?://|(?<![:\w])//\w", shown)
    for path in loaded:
        found = client.get(path)
        assert (found.status_code, len(found.content) > 1_000) == (200, True), path
        if path.endswith(".css"):
            assert not re.findall(r"url\(\s*[\"']?https?:|@import", found.text)


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


keys = st.sampled_from(["entities", "rows", "inputs", "columns", "data", *REQUEST]) | st.text(max_size=5)
odd = st.sampled_from(
    [
        10**400,
        -(2**63),
        2**63,
        1e308,
        -0.0,
        "9" * 5_000,
        "\\ud800",
        "\x00",
        "2018-06-01",
        "0001-01-01T00:00:00+14:00",
        True,
    ]
)
likely = st.recursive(
    json_values | odd,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=6),
    max_leaves=20,
)
forms = st.sampled_from(["entities", "rows", "dataframe_split", "dataframe_records", "instances", "inputs"])
ROWS = st.lists(
    st.builds(lambda change: {**REQUEST, **change}, st.dictionaries(st.sampled_from([*REQUEST]), likely, max_size=2)),
    max_size=3,
)


@given(
    body=likely | st.dictionaries(forms, likely | ROWS, min_size=1, max_size=1),
    path=st.sampled_from([PREDICT, "/models/fraud/invocations", "/invocations", f"{PREDICT}?arm=challenger"]),
)
@examples(300, suppress_health_check=SLOW, derandomize=True, database=None)
def test_any_json_is_answered_or_refused(url: str, body: Any, path: str) -> None:
    refused_or_right(url, path, json.dumps(body).encode(errors="surrogatepass"))


@given(
    body=st.binary(max_size=200)
    | st.builds(lambda a, b: b'{"entities": [' + a + b"]}" + b, st.binary(max_size=50), st.binary(max_size=5))
)
@examples(100, suppress_health_check=SLOW, derandomize=True, database=None)
def test_any_bytes_are_answered_or_refused(url: str, body: bytes) -> None:
    refused_or_right(url, PREDICT, body)


def refused_or_right(url: str, path: str, body: bytes) -> None:
    status, answer = fetch(int(url.rsplit(":", 1)[1]), "POST", path, body)
    if status == 200:
        scores = answer.get("scores") or answer["predictions"]
        assert all(0 <= score <= 1 for score in scores)
    else:
        assert 400 <= status < 500
        assert 0 < len(answer["detail"]) < 2_000


@given(
    lines=st.lists(
        st.builds(lambda name, value: name + b": " + value, st.binary(max_size=10), st.binary(max_size=20))
        | st.sampled_from(
            [
                b"Content-Length: 3",
                b"Content-Length: 0",
                b"Transfer-Encoding: chunked",
                b"Connection: close",
                b"Upgrade: websocket",
                b"Connection: Upgrade",
                b"Expect: 100-continue",
                b"Content-Type: text/x",
            ]
        ),
        max_size=6,
    ),
    target=st.binary(max_size=30) | st.sampled_from([PREDICT.encode(), b"/health", b"/models/%ff%00", b"*"]),
    body=st.sampled_from([b"", b"{}", b"3\r\n{} \r\n0\r\n\r\n"]) | st.binary(max_size=30),
)
@examples(200, suppress_health_check=SLOW, derandomize=True, database=None)
def test_any_request_on_the_wire_has_an_end(url: str, lines: list[bytes], target: bytes, body: bytes) -> None:
    port = int(url.rsplit(":", 1)[1])
    with socket.create_connection(("127.0.0.1", port), timeout=20) as wire:
        wire.sendall(b"POST " + target + b" HTTP/1.1\r\n" + b"\r\n".join([*lines, b"", b""]) + body)
        wire.shutdown(socket.SHUT_WR)
        answer = b"".join(iter(lambda: wire.recv(4_096), b""))
    assert not answer or 100 <= int(answer[9:12]) < 500
    assert fetch(port, "GET", "/health")[0] == 200


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
