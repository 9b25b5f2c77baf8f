"""What a connection may cost: bytes and headers of its requests, time to send them, and its place among the others.

uvicorn reads a head of any length for any time, and keeps whoever neither sends nor reads. Here every state of a connection has an
end: who owes the server bytes, or does not read its answers, has `PATIENCE` seconds, and makes room for others when there
is none. For a request whose head is there the time limit of `guard.py` holds.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from ml_platform.serving.pace import Pace

MOST_HEAD = 32 << 10  # bytes of a request beside its body: head, trailers, and what chunks have around them
MOST_URL = 4 << 10
MOST_HEADERS = 100
MOST_PIPELINED = 16  # requests of a connection that wait for an answer
MOST_DISCARDED = 64 << 20  # bytes that are read of what is refused already, so that the client gets to read why
DISCARDED_PER_SECOND = 32 << 20  # bytes, of all connections
PATIENCE = 5.0  # seconds for a head, for the rest of a request that is answered already, and to read an answer
LOOK_EVERY = 0.25
SHORT = 0.002  # seconds for which it is not worth while to wait


class Door:
    """All connections of one server, `most` at a time; `on_refusal` hears the reason for each that is sent away."""

    def __init__(self, most: int, on_refusal: Callable[[str], None]) -> None:
        self.most = most
        self.on_refusal = on_refusal
        self.inside: set[Connection] = set()
        # Those that keep the server waiting, the longest first: in the middle of a request or before their first, and idle.
        self.owing: dict[Connection, None] = {}
        self.idle: dict[Connection, None] = {}
        self.discarding = Pace(DISCARDED_PER_SECOND)
        self._looks = False

    def connection(self, **of_uvicorn: Any) -> "Connection":
        """A new connection, as uvicorn wants one made."""
        return Connection(self, **of_uvicorn)

    def enter(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> bool:
        """Take a connection in, in the place of one that keeps the server waiting if need be; False if all are busy."""
        if len(self.inside) >= self.most:
            longest = next(iter(self.owing or self.idle), None)
            if longest is None:
                return False
            self.on_refusal("no room")
            longest.transport.abort()
            self.leave(longest)
        self.inside.add(connection)
        if not self._looks:
            self._looks = True
            loop.call_later(LOOK_EVERY, self._look, loop)
        return True

    def leave(self, connection: "Connection") -> None:
        self.inside.discard(connection)
        self.settle(connection)

    def settle(self, connection: "Connection") -> None:
        """It keeps nobody waiting any more."""
        self.owing.pop(connection, None)
        self.idle.pop(connection, None)

    def _look(self, loop: asyncio.AbstractEventLoop) -> None:
        for connection in [*self.inside]:
            connection.look(loop.time())
        self._looks = bool(self.inside)
        if self._looks:
            loop.call_later(LOOK_EVERY, self._look, loop)


@dataclass(frozen=True)
class Refusal:
    """What a client is told that is not answered, and the reason as it is counted."""

    status: int
    problem: str
    reason: str


TOO_LARGE = Refusal(431, f"request headers: are larger than {MOST_HEAD} bytes", "headers")
TOO_MANY = Refusal(431, f"request headers: are more than {MOST_HEADERS}", "headers")
TOO_LONG = Refusal(414, f"URL: is longer than {MOST_URL} bytes", "url")
TOO_LATE = Refusal(408, f"request headers: did not come within {PATIENCE:g} s", "late")
MALFORMED = Refusal(400, "request: is not HTTP/1.1", "malformed")
UPGRADE = Refusal(
    400, "header 'Upgrade': only HTTP/1.1 is spoken here, and a request that has it can have no body", "upgrade"
)
PIPELINED = Refusal(400, f"request: more than {MOST_PIPELINED} wait for an answer on this connection", "pipelined")
NO_ROOM = Refusal(503, "the server has as many connections as it may; try again", "no room")


class Connection(HttpToolsProtocol):
    """uvicorn's connection within these limits."""

    def __init__(self, door: Door, **of_uvicorn: Any) -> None:
        super().__init__(**of_uvicorn)
        self.door = door
        self._since = 0.0  # when it last brought something to an end, or began something
        self._begun = 0  # requests
        self._amid: Literal["", "head", "body"] = ""  # what of a request
        self._head = self._loose = self._body = 0  # bytes of this request: its head, all but its body, its body
        self._running: RequestResponseCycle | None = None
        self._why: Refusal | None = None  # why its parser stopped
        self._refused = False  # nothing that it sends is looked at any more
        self._discarded = 0
        self._closing = 0.0  # since when it is on its way out
        self._unread = 0.0  # since when it does not read

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)  # type: ignore[arg-type]  # it is one for TCP
        self._since = self.loop.time()
        if self.door.enter(self, self.loop):
            self.door.owing[self] = None
        else:
            self._refuse(NO_ROOM)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.door.leave(self)
        if self._running and not self._running.response_complete:  # uvicorn tells the newest request alone
            self._running.disconnected = True
            self._running.message_event.set()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._refused:
            self._discard(len(data))
            return
        begun = self._begun
        super().data_received(data)
        if begun == self._begun:  # what belongs to a request that began in this very piece cannot be told
            self._loose += len(data)
            if self._loose > MOST_HEAD + 2 * self._body and not self._refused:
                self._refuse(TOO_LARGE)

    # --- what the parser finds ----------------------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._begun += 1
        self._amid = "head"
        self._head = self._loose = self._body = 0
        self._owe()

    def on_url(self, url: bytes) -> None:
        if len(self.url) + len(url) > MOST_URL:
            self._stop(TOO_LONG)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:  # of trailers too
        self._head += len(name) + len(value)
        if self._head > MOST_HEAD:
            self._stop(TOO_LARGE)
        if len(self.headers) >= MOST_HEADERS:
            self._stop(TOO_MANY)
        super().on_header(name, value)

    def on_headers_complete(self) -> None:
        if len(self.pipeline) >= MOST_PIPELINED:
            self._stop(PIPELINED)
        if self.parser and self.parser.should_upgrade() and _announces_body(self.headers):
            self._stop(UPGRADE)  # the parser gives up at the upgrade that is not made, and the body with it
        super().on_headers_complete()
        self._amid = "body"

    def on_body(self, body: bytes) -> None:
        self._body += len(body)
        if self.cycle.response_complete:
            self._discard(len(body))
        super().on_body(body)

    def on_message_complete(self) -> None:
        self._amid = ""
        super().on_message_complete()
        if self._busy:
            self.door.settle(self)

    def _stop(self, why: Refusal) -> None:
        self._why = why
        raise ValueError(why.problem)  # of which the parser makes an error of its own

    def send_400_response(self, msg: str) -> None:
        """Called when the parser has stopped, for a reason of ours or its own."""
        self._refuse(self._why or MALFORMED)

    def _unsupported_upgrade_warning(self) -> None:
        """Nobody's concern: the request is answered as if it had not asked."""

    # --- what becomes of its requests ---------------------------------------------------------------------------------

    @property
    def _busy(self) -> bool:
        """Whether the server owes it an answer, and has all that it takes for it."""
        return bool(self.pipeline) or bool(self.cycle and not self.cycle.response_complete and not self.cycle.more_body)

    def _owe(self) -> None:
        self._since = self.loop.time()
        if not self._busy:
            self.door.settle(self)
            (self.door.idle if self._running and not self._amid else self.door.owing)[self] = None

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._owe()
        if self._refused:
            self.transport.close()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.time()
        self.door.owing[self] = None

    def resume_writing(self) -> None:
        super().resume_writing()
        self._unread = 0.0
        if self._busy:
            self.door.settle(self)

    def look(self, now: float) -> None:
        """End what has taken too long."""
        if self._unread and now - self._unread > PATIENCE:
            self.transport.abort()
        elif self.transport.is_closing():
            self._closing = self._closing or now
            if now - self._closing > PATIENCE:
                self.transport.abort()  # it does not read what it was told last
        elif self._refused and not self._busy:
            if now - self._since > PATIENCE:
                self.transport.close()
        elif self.cycle and not self.cycle.response_complete:
            return  # the time limit of requests holds
        elif now - self._since > PATIENCE:
            if self._amid == "head":
                self._refuse(TOO_LATE)
            else:
                self.transport.close()

    def _refuse(self, why: Refusal) -> None:
        """Say why, and read on for a while without looking: who is still sending would not hear it otherwise."""
        self.door.on_refusal(why.reason)
        self._refused = True
        if self._busy:  # what came before it is answered first, and then it ends
            self.pipeline.clear()
            return
        self._since = self.loop.time()
        if self.cycle and not self.cycle.response_complete:  # what is wrong is the body that somebody waits for
            if self.cycle.response_started:
                self.transport.abort()
                return
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        elif self._amid == "body":  # it was answered before its body was there
            self.transport.close()
            return
        content = json.dumps({"detail": why.problem}).encode()
        head = b"content-type: application/json\r\nconnection: close\r\ncontent-length: %d\r\n\r\n" % len(content)
        self.transport.write(STATUS_LINE[why.status] + head + content)
        self._unset_keepalive_if_required()
        if self.transport.can_write_eof():
            self.transport.write_eof()
        self.flow.resume_reading()

    def _discard(self, size: int) -> None:
        self._discarded += size
        if self._discarded > MOST_DISCARDED:
            self.transport.abort()
        elif (wait := self.door.discarding.wait(size, self.loop.time())) > SHORT:
            self.flow.pause_reading()
            self.loop.call_later(wait, self._go_on)

    def _go_on(self) -> None:
        if not self.transport.is_closing():
            self.flow.resume_reading()


def _announces_body(headers: list[tuple[bytes, bytes]]) -> bool:
    return any(
        name == b"transfer-encoding" or (name == b"content-length" and value.strip() != b"0") for name, value in headers
    )
