"""Large bodies: answered as small ones are, by a process of their own, which may die of them."""

import json
import os
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import psutil
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.resources import prediction_log
from ml_platform.resources.lake import Lake
from ml_platform_tests.processes import eventually
from ml_platform_tests.serving.conftest import REQUEST, Process, process

PREDICT = "/models/fraud/predict"
pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Iterator[Process]:
    """A server whose process for large bodies has loaded its model: until then it may tell to come again."""
    with process(tmp_path_factory.mktemp("aside"), catalog) as started:
        eventually(lambda: post(started, {"entities": rows(1_000)}).status_code == 200)
        yield started


def post(server: Process, body: bytes | Any, path: str = PREDICT, **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    headers = {"content-type": "application/json", **headers}
    return httpx.post(f"http://127.0.0.1:{server.port}{path}", content=content, headers=headers, timeout=30)


def aside(server: Process) -> int:
    (child,) = psutil.Process(server.pid).children()
    return child.pid


def metrics(server: Process) -> str:
    return httpx.get(f"http://127.0.0.1:{server.port}/metrics", timeout=30).text


def rows(count: int) -> list[dict[str, Any]]:
    return [{**REQUEST, "customer_id": number % 3, "tx_amount": number} for number in range(count)]


def test_large_body_is_answered_as_its_rows_alone_are(server: Process) -> None:
    large = post(server, {"entities": rows(1_000)})
    assert large.status_code == 200
    alone = post(server, {"entities": rows(100)}).json()
    assert large.json()["scores"][:100] == pytest.approx(alone["scores"], abs=1e-12)
    assert large.json()["known"][:100] == alone["known"]
    by_row = dict.fromkeys(("scores", "known", "age_seconds"))
    assert {**large.json(), **by_row} == {**alone, **by_row}
    invoked = post(server, {"dataframe_records": rows(1_000)}, "/invocations").json()
    assert invoked["predictions"] == large.json()["scores"]
    assert 'ml_platform_requests_total{arm="champion",model="fraud",status="200",version="1"}' in metrics(server)


def test_mistake_in_a_large_body_is_named(server: Process) -> None:
    wrong = [*rows(1_000), {**REQUEST, "tx_amount": "much"}]
    answer = post(server, {"entities": wrong})
    assert (answer.status_code, "row 1000, field 'tx_amount'" in answer.json()["detail"]) == (422, True)
    assert post(server, b" " * 100_000).status_code == 422
    assert post(server, {"entities": rows(1_000)}, f"{PREDICT}?arm=challenger").status_code == 422


IDS = list(range(1_000_000, 4_400_000))


@pytest.mark.parametrize(
    "body",
    [
        {"rows": [{**REQUEST, "customer_id": IDS}]},
        {"rows": IDS},
        {"entities": [{**REQUEST, "customer_id": IDS}]},
        {"entities": [{**REQUEST, "customer_id": "7" * 30_000_000}]},
        {"entities": [{**REQUEST, "7" * 30_000_000: 1}]},
        b'{"entities": [' + b"{}," * 10_000_000 + b"{}]}",
        b'{"entities": ' + b"[" * 15_000_000 + b"]" * 15_000_000 + b"}",
        b'{"entities": [{' + b",".join(b'"%025d":1' % number for number in range(1_000_000)) + b"}]}",
        {"rows": [{**REQUEST, "customer_id": number, "terminal_id": "x" * 2_900} for number in range(10_000)]},
    ],
    ids=["ids of a row", "ids for rows", "ids for an id", "long id", "long key", "no rows", "deep", "keys", "strings"],
)
def test_thirty_megabytes_of_anything_are_refused_in_little_room(server: Process, body: Any) -> None:
    peaks, stop = [0], threading.Event()
    both = [psutil.Process(server.pid), psutil.Process(aside(server))]
    before = sum(one.memory_info().rss for one in both)

    def watch() -> None:
        while not stop.wait(0.02):
            peaks.append(sum(one.memory_info().rss for one in both) - before)

    watching = threading.Thread(target=watch)
    watching.start()
    try:
        answer = post(server, body)
    finally:
        stop.set()
        watching.join()
    assert answer.status_code in (422, 503)  # on a machine that has too much to do
    assert len(answer.content) < 2_000
    assert max(peaks) < 700 << 20  # it was 1.6 GB, in the process that answers everybody


def test_large_bodies_together_have_a_limit_and_the_others_are_answered(server: Process) -> None:
    """While the process of large bodies stands still."""
    body = json.dumps({"entities": [{**REQUEST, "tx_amount": "x" * 20_000_000}]}).encode()
    stopped = aside(server)
    os.kill(stopped, signal.SIGSTOP)
    try:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(post, server, body) for _ in range(8)]
            eventually(lambda: any(one.done() for one in answers))
            assert post(server, {"entities": [REQUEST]}).status_code == 200
            found = [one.result() for one in answers]
    finally:
        os.kill(stopped, signal.SIGCONT)
    assert {one.status_code for one in found} == {503}
    assert {one.headers["retry-after"] for one in found} == {"1"}
    assert any("large bodies of 67108864 bytes" in one.text for one in found)
    eventually(lambda: "ml_platform_large_bodies_bytes 0.0" in metrics(server))
    assert post(server, {"entities": rows(1_000)}).status_code == 200


def test_process_that_dies_is_told_of_and_started_again(server: Process) -> None:
    post(server, {"entities": rows(1_000)})
    os.kill(aside(server), signal.SIGKILL)
    eventually(lambda: post(server, {"entities": rows(1_000)}).status_code == 200)
    assert httpx.get(f"http://127.0.0.1:{server.port}/ready", timeout=30).json()["prediction_log"]["lost"] >= 0


def test_stopped_server_has_written_down_what_both_processes_answered(
    tmp_path_factory: pytest.TempPathFactory, catalog: Catalog
) -> None:
    home = tmp_path_factory.mktemp("stopped")
    with process(home, catalog) as server:
        beside = aside(server)
        assert post(server, {"entities": rows(1_000)}, **{"x-request-id": "large"}).status_code == 200
        assert post(server, {"entities": rows(10)}, **{"x-request-id": "small"}).status_code == 200
        server.popen.send_signal(signal.SIGTERM)
        assert server.popen.wait(timeout=60) in (0, -signal.SIGTERM)
    assert not psutil.pid_exists(beside)
    now = datetime.now(UTC)
    logged = prediction_log.read(Lake.at(Settings(home=home)), "fraud", now - timedelta(minutes=5), now)
    ids = logged["request_id"].to_pylist()
    assert (ids.count("large"), ids.count("small")) == (1_000, 10)


def test_process_ends_with_a_server_that_is_killed(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> None:
    with process(tmp_path_factory.mktemp("killed"), catalog) as server:
        beside = aside(server)
        os.kill(server.pid, signal.SIGKILL)
        eventually(lambda: not psutil.pid_exists(beside))
