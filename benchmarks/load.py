"""A cheap load generator: bodies over keep-alive connections, as it shares the machine with what it measures."""

import asyncio
import time
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import cast

import uvloop


@dataclass
class Load:
    """What was measured. Milliseconds are from when a request was due, so that a server that stalls cannot hide it."""

    milliseconds: list[float] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def per_second(self) -> float:
        return len(self.milliseconds) / self.seconds


class _Connection(asyncio.Protocol):
    """One request at a time."""

    def __init__(self, free: Callable[["_Connection"], None], load: Load, answered: Callable[[bytes], None]) -> None:
        self.free, self.load, self.answered = free, load, answered
        self.received = b""
        self.due = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)  # of uvloop's own kind

    def send(self, request: bytes, due: float) -> None:
        self.due, self.received = due, b""
        if self.transport.is_closing():
            self.load.failures.append("connection lost while it was idle")
        else:
            self.transport.write(request)

    def data_received(self, data: bytes) -> None:
        self.received += data
        head, separator, body = self.received.partition(b"\r\n\r\n")
        if not separator:
            return
        length = int(head.lower().split(b"content-length:")[1].split(b"\r\n")[0])
        if len(body) < length:
            return
        if head[9:12] == b"200":
            self.load.milliseconds.append((time.perf_counter() - self.due) * 1_000)
            self.answered(body)
        else:
            self.load.failures.append(f"{head[9:12].decode()}: {body[:200].decode()}")
        self.free(self)

    def connection_lost(self, exc: Exception | None) -> None:
        if self.due and not self.transport.is_closing():
            self.load.failures.append(f"connection lost: {exc}")


def load(
    url: str,
    path: str,
    bodies: Sequence[bytes],
    seconds: float,
    rate: float | None = None,
    connections: int = 32,
    answered: Callable[[bytes], None] = lambda body: None,
) -> Load:
    """POST the bodies in turn, or GET if there are none: `rate` a second whatever the server does, or as many as it answers."""
    host, port = url.removeprefix("http://").split(":")
    get = f"GET {path} HTTP/1.1\r\nHost: {host}:{port}\r\n\r\n".encode()
    head = f"POST {path} HTTP/1.1\r\nHost: {host}:{port}\r\nContent-Type: application/json\r\nContent-Length: "
    requests = [f"{head}{len(body)}\r\n\r\n".encode() + body for body in bodies]
    return uvloop.run(_load(host, int(port), requests or [get], seconds, rate, connections, answered))


async def _load(
    host: str,
    port: int,
    requests: Sequence[bytes],
    seconds: float,
    rate: float | None,
    connections: int,
    answered: Callable[[bytes], None],
) -> Load:
    loop, result = asyncio.get_running_loop(), Load()
    idle: deque[_Connection] = deque()
    late: deque[float] = deque()  # requests that were due while no connection was free
    sent = 0

    def send(connection: _Connection, due: float) -> None:
        nonlocal sent
        connection.send(requests[sent % len(requests)], due)
        sent += 1

    def free(connection: _Connection) -> None:
        now = time.perf_counter()
        if rate is None:
            send(connection, now) if now < end else idle.append(connection)
        elif late:
            send(connection, late.popleft())
        else:
            idle.append(connection)

    pool = [
        (await loop.create_connection(lambda: _Connection(free, result, answered), host, port))[1]
        for _ in range(connections)
    ]
    began = time.perf_counter()
    end = began + seconds
    if rate is None:
        for connection in pool:
            send(connection, began)
        await asyncio.sleep(seconds)
    else:
        idle.extend(pool)
        for number in range(int(rate * seconds)):
            due = began + number / rate
            if (wait := due - time.perf_counter()) > 0:
                await asyncio.sleep(wait)
            send(idle.popleft(), due) if idle else late.append(due)
    result.seconds = time.perf_counter() - began
    deadline = time.perf_counter() + 30
    while len(idle) < connections and time.perf_counter() < deadline:
        await asyncio.sleep(0.01)
    if len(idle) < connections:
        result.failures.append(f"{connections - len(idle)} requests were never answered")
    for connection in pool:
        connection.transport.close()
    return result
