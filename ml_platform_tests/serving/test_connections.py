"""What comes over a wire to a real server: heads, bodies and silence without end cost nobody else an answer."""

import contextlib
import http.client
import json
import os
import re
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from typing import Any

import psutil
import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.serving.connections import MOST_HEADERS, MOST_PIPELINED
from ml_platform_tests.processes import eventually
from ml_platform_tests.serving.conftest import REQUEST, Process, process

PATIENCE, TIMEOUT, MOST = 1.0, 3.0, 20
BODY = json.dumps({"entities": [REQUEST]}).encode()
PREDICT = b"POST /models/fraud/predict HTTP/1.1\r\nHost: x\r\n"
GOOD = PREDICT + b"Content-Length: %d\r\n\r\n" % len(BODY) + BODY
CHUNKED = PREDICT + b"Transfer-Encoding: chunked\r\n\r\n"

pytestmark = pytest.mark.processes


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, catalog: Catalog) -> Iterator[Process]:
    home = tmp_path_factory.mktemp("hostile")
    with process(home, catalog, PATIENCE, TIMEOUT, ML_PLATFORM_MODEL_SERVER_CONNECTIONS=str(MOST)) as started:
        yield started


@pytest.fixture
def port(server: Process) -> Iterator[int]:
    """After each attack the server answers as before, and nothing is left of whoever attacked."""
    yield server.port
    eventually(
        lambda: fetch(server.port, "/models/fraud/predict", BODY)[0] == 200
    )  # a busy one first tells to come again
    eventually(lambda: open_connections(server) <= 1)


def open_connections(server: Process) -> int:
    found = psutil.Process(server.pid).net_connections("tcp")
    return len([one for one in found if one.laddr and one.laddr.port == server.port and one.status != "LISTEN"])


def fetch(port: int, path: str, body: bytes | None = None, **headers: str) -> tuple[int, Any]:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("POST" if body is not None else "GET", path, body, headers)
        answer = connection.getresponse()
        return answer.status, json.loads(answer.read())


def connect(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=20)


def sent(wire: socket.socket, *parts: bytes) -> bytes:
    """What comes back until the server ends the connection; it may do so while it is still being sent to."""
    try:
        for part in parts:
            wire.sendall(part)
    except (BrokenPipeError, ConnectionResetError):
        pass
    return rest(wire)


def rest(wire: socket.socket) -> bytes:
    answer = b""
    try:
        while piece := wire.recv(1 << 16):
            answer += piece
    except ConnectionResetError:
        pass
    return answer


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1.1 (\d+) ", answer)]


def refused_so_far(port: int, reason: str) -> float:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as connection:
        connection.request("GET", "/metrics")
        text = connection.getresponse().read().decode()
    found = re.search(rf'ml_platform_refused_connections_total{{reason="{reason}"}} (\S+)', text)
    return float(found.group(1)) if found else 0.0


MEGABYTE = b"x" * (1 << 20)


@pytest.mark.parametrize(
    ("parts", "status", "reason"),
    [
        ([b"GET /health HTTP/1.1\r\nX: ", *[MEGABYTE] * 8], 431, "headers"),
        ([b"GET /health HTTP/1.1\r\n", *[b"X: %s\r\n" % (b"y" * 1_000)] * 2_000], 431, "headers"),
        ([b"GET /health HTTP/1.1\r\n", *[b"X: y\r\n"] * (MOST_HEADERS + 1), b"\r\n"], 431, "headers"),
        ([b"GET /health HTTP/1.1\r\n", *[b"X" * 1_000 + b": y\r\n"] * 40, b"\r\n"], 431, "headers"),
        ([b"GET /", *[MEGABYTE] * 8], 414, "url"),
        ([b"GET /health?", b"a&" * 3_000, b" HTTP/1.1\r\n\r\n"], 414, "url"),
        ([CHUNKED, b"1\r\n{\r\n0\r\n", *[b"X: %s\r\n" % (b"y" * 1_000)] * 2_000], 431, "headers"),
        ([CHUNKED, b"1\r\n{\r\n0\r\nX: ", *[MEGABYTE] * 8], 431, "headers"),
        ([CHUNKED, b"1;x=", *[MEGABYTE] * 8], 431, "headers"),
        ([CHUNKED, *[b"1\r\n \r\n" * 5_000] * 20], 431, "headers"),
        ([b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"], 400, "malformed"),
        ([PREDICT, b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"], 400, "malformed"),
        ([PREDICT, b"Content-Length: 5\r\nContent-Length: 6\r\n\r\n123456"], 400, "malformed"),
        ([PREDICT, b"Content-Length: -1\r\n\r\n"], 400, "malformed"),
        ([PREDICT, b"Content-Length: 99999999999999999999999\r\n\r\n"], 400, "malformed"),
        ([CHUNKED, b"zz\r\n"], 400, "malformed"),
        ([CHUNKED, b"fffffffffffffffffff\r\n"], 400, "malformed"),
        ([PREDICT, b"Transfer-Encoding: gzip, chunked, x\r\n\r\n"], 400, "malformed"),
        ([PREDICT, b"Upgrade: h2c\r\nConnection: Upgrade\r\nContent-Length: 2\r\n\r\n{}"], 400, "upgrade"),
        ([b"CONNECT x:80 HTTP/1.1\r\n\r\n"], 400, "malformed"),
        ([b"GET /health HTTP/1.1\r\nX: y\r\n z\r\n\r\n"], 400, "malformed"),
    ],
    ids=range(21),
)
def test_what_has_no_end_or_no_sense_is_refused_and_counted(
    port: int, parts: list[bytes], status: int, reason: str
) -> None:
    before = refused_so_far(port, reason)
    with connect(port) as wire:
        answer = sent(wire, *parts)
    assert statuses(answer) == [status]
    assert json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]
    assert refused_so_far(port, reason) == before + 1


def test_ninety_six_megabytes_of_headers_are_not_read(server: Process, port: int) -> None:
    spent = cpu_seconds(server.pid)
    with connect(port) as wire:
        sent(wire, b"GET /health HTTP/1.1\r\n", *[b"X: %s\r\n" % (b"y" * 65_000)] * 1_500)
    assert cpu_seconds(server.pid) - spent < 3.0  # of 104, when it was read


def cpu_seconds(pid: int) -> float:
    times = psutil.Process(pid).cpu_times()
    return times.user + times.system


@pytest.mark.parametrize(
    ("begun", "status"),
    [(b"", []), (b"GET /hea", [408]), (b"GET /health HTTP/1.1\r\nX: y\r\n", [408]), (b"\r\n", [])],
)
def test_half_open_connections_are_ended(port: int, begun: bytes, status: list[int]) -> None:
    with ExitStack() as stack:
        wires = [stack.enter_context(connect(port)) for _ in range(MOST - 5)]
        for wire in wires:
            wire.sendall(begun)
        began = time.monotonic()
        assert fetch(port, "/models/fraud/predict", BODY)[0] == 200
        assert [statuses(rest(wire)) for wire in wires] == [status] * len(wires)
        assert time.monotonic() - began < 10 * PATIENCE


@pytest.mark.parametrize(
    ("begin", "drop"),
    [
        (b"GET /health HTTP/1.1\r\n", b"X"),
        (b"", b"\r\n"),
        (GOOD, b"\r\n"),
        (PREDICT + b"Content-Length: 1000\r\n\r\n", b" "),
        (CHUNKED, b"1\r\n \r\n"),
        (PREDICT + b"Content-Length: 99999999\r\n\r\n", b" "),  # refused at once, and then?
    ],
)
def test_who_sends_drop_by_drop_is_ended(port: int, begin: bytes, drop: bytes) -> None:
    with connect(port) as wire:
        wire.sendall(begin)
        with pytest.raises((BrokenPipeError, ConnectionResetError)):
            _drip(wire, drop)


def _drip(wire: socket.socket, drop: bytes) -> None:
    for _ in range(300):
        wire.sendall(drop)
        time.sleep(0.1)


def test_body_that_does_not_come_is_408(port: int) -> None:
    with connect(port) as wire:
        answer = sent(wire, PREDICT + b"Content-Length: 1000\r\n\r\n{")
    assert statuses(answer) == [408]
    assert b"request body: was not there within" in answer


def test_who_does_not_read_is_ended(server: Process, port: int) -> None:
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        wire.connect(("127.0.0.1", port))
        wire.sendall(b"GET /static-offline-docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        eventually(lambda: open_connections(server) == 0, timeout=60)


def test_who_asks_and_asks_and_does_not_read_is_ended(server: Process, port: int) -> None:
    """As many answers as the kernel keeps are complete; the next one cannot even begin."""
    asked = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n"
    with socket.socket() as wire:
        wire.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        wire.connect(("127.0.0.1", port))
        grown, before = True, 0
        while grown:
            wire.sendall(asked)
            deadline = time.monotonic() + 0.5
            while not (grown := (now := kept_by_the_kernel(wire)) > before) and time.monotonic() < deadline:
                time.sleep(0.002)
            before = now
        wire.sendall(12 * asked)  # more than the server keeps
        eventually(lambda: open_connections(server) == 0, timeout=60)


def kept_by_the_kernel(wire: socket.socket) -> int:
    """Bytes that the server has sent to a connection, and that wait for its client."""
    ours, theirs = (f":{address[1]:04X}" for address in (wire.getpeername(), wire.getsockname()))
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues, *_ = line.split()
        if local.endswith(ours) and remote.endswith(theirs):
            return int(queues.partition(":")[0], 16)
    return 0


def test_new_connection_takes_the_place_of_one_that_keeps_the_server_waiting(port: int) -> None:
    before = refused_so_far(port, "no room")
    with ExitStack() as stack:
        wires = [stack.enter_context(connect(port)) for _ in range(MOST)]
        wires[-1].sendall(PREDICT + b"Content-Length: 1000\r\n\r\n")
        for _ in range(3):
            assert fetch(port, "/models/fraud/predict", BODY)[0] == 200
        assert rest(wires[0]) == b""
        assert refused_so_far(port, "no room") > before


def test_who_has_had_an_answer_keeps_its_place_longer_than_who_has_sent_nothing(port: int) -> None:
    with ExitStack() as stack, closing(http.client.HTTPConnection("127.0.0.1", port, timeout=20)) as client:
        for _ in range(3):  # within the patience for who is idle
            client.request("GET", "/health")
            assert client.getresponse().read()
            for _ in range(2 * MOST):
                stack.enter_context(connect(port))


def test_connection_for_which_there_is_no_room_is_told_so(server: Process, port: int) -> None:
    """All others have sent what they owe, and wait for the process of large bodies."""
    (aside,) = psutil.Process(server.pid).children()
    large = json.dumps({"entities": [REQUEST] * 1_000}).encode()

    def told(stack: ExitStack) -> bool:
        wires = [stack.enter_context(connect(port)) for _ in range(MOST + 1)]
        for wire in wires:
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                wire.sendall(PREDICT + b"Content-Length: %d\r\n\r\n" % len(large) + large)
        readable, _, _ = select.select(wires, [], [], 1.0)
        return any(b"as many connections as it may" in answer_so_far(wire) for wire in readable)

    os.kill(aside.pid, signal.SIGSTOP)
    try:
        with ExitStack() as stack:
            eventually(lambda: told(stack))
    finally:
        os.kill(aside.pid, signal.SIGCONT)


def answer_so_far(wire: socket.socket) -> bytes:
    try:
        return wire.recv(1 << 16)
    except ConnectionResetError:
        return b""


def test_pipelined_requests_are_answered_in_their_order(port: int) -> None:
    asked = [b"GET /health HTTP/1.1\r\n\r\n", GOOD, b"GET /version HTTP/1.1\r\nConnection: close\r\n\r\n"]
    with connect(port) as wire:
        answer = sent(wire, b"".join(asked))
    assert statuses(answer) == [200, 200, 200]
    assert answer.index(b"alive") < answer.index(b"scores") < answer.index(b'"code"')


@pytest.mark.parametrize(
    "garbage", [b"garbage\r\n\r\n", b"POST / HTTP/1.1\r\nContent-Length: x\r\n\r\n", b"\x00" * 100]
)
def test_garbage_behind_a_request_takes_no_answer_from_it(port: int, garbage: bytes) -> None:
    with connect(port) as wire:
        answer = sent(wire, GOOD + garbage)
    assert statuses(answer)[0] == 200
    assert b"scores" in answer


def test_body_that_is_longer_than_it_says_is_another_request(port: int) -> None:
    with connect(port) as wire:
        answer = sent(wire, PREDICT + b"Content-Length: 2\r\n\r\n{}" + b"{}" * 10)
    assert statuses(answer)[0] == 422


def test_endless_pipeline_is_ended(port: int) -> None:
    with connect(port) as wire:
        answer = sent(wire, b"GET /health HTTP/1.1\r\n\r\n" * 100_000)
    assert statuses(answer) == [200] * len(statuses(answer))
    assert len(statuses(answer)) <= MOST_PIPELINED + 1
    assert refused_so_far(port, "pipelined") >= 1


def test_websocket_is_not_spoken_and_the_request_is_answered_as_if_it_had_not_asked(port: int) -> None:
    upgrade = b"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
    with connect(port) as wire:
        answer = sent(wire, b"GET /health HTTP/1.1\r\n" + upgrade + b"Sec-WebSocket-Version: 13\r\n\r\n")
    assert statuses(answer) == [200]


def test_chunks_of_ordinary_size_are_a_body(port: int) -> None:
    chunks = [BODY[first : first + 7] for first in range(0, len(BODY), 7)]
    framed = b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks)
    with connect(port) as wire:
        answer = sent(wire, CHUNKED.replace(b"Host: x", b"Connection: close"), framed, b"0\r\n\r\n")
    assert statuses(answer) == [200]


def test_who_is_refused_while_it_sends_can_read_why(port: int) -> None:
    """A client of the standard library, which sends its whole body before it reads."""
    answers: list[tuple[int, Any]] = []

    def answered() -> bool:
        with suppress(ConnectionError):  # on a busy machine it may not have sent all within the server's patience
            answers.append(fetch(port, "/models/fraud/predict", b" " * (33 << 20)))
        return bool(answers)

    eventually(answered)
    ((status, answer),) = answers
    assert (status, "larger than" in answer["detail"]) == (413, True)


def test_resets_and_hang_ups_in_the_middle_leave_nothing_behind(server: Process, port: int) -> None:
    for begun in (b"", b"GET /hea", GOOD[:-10], GOOD, CHUNKED + b"5\r\n{"):
        for _ in range(10):
            wire = connect(port)
            wire.sendall(begun)
            wire.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            wire.close()
    eventually(lambda: open_connections(server) == 0)


def test_log_of_all_this_has_no_fault_of_the_server(server: Process) -> None:
    assert [line for line in server.log if "exception" in line] == []
