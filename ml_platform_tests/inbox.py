"""Servers that take messages, in threads of this process: real HTTP and real SMTP."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from email import message_from_bytes
from email.message import Message
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

from aiosmtpd.controller import Controller

from ml_platform_tests.processes import free_port


class Inbox:
    """What an HTTP server was sent; it answers with `status`."""

    def __init__(self, port: int) -> None:
        self.port, self.status = port, 200
        self.taken: list[tuple[str, Any]] = []

    @property
    def titles(self) -> list[str]:
        """The titles of what apprise posted as JSON."""
        return [content["title"] for _, content in self.taken]

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"


@contextmanager
def http_inbox() -> Iterator[Inbox]:
    inbox = Inbox(0)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            content = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            if inbox.status == 200:
                inbox.taken.append((self.path, content))
            self.send_response(inbox.status)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        inbox.port = server.server_address[1]
        thread = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
        thread.start()
        try:
            yield inbox
        finally:
            server.shutdown()
            thread.join()


@contextmanager
def mail_inbox() -> Iterator[tuple[int, list[Message]]]:
    """The port of an SMTP server, and the mails that it was sent."""
    taken: list[Message] = []

    class Handler:
        async def handle_DATA(self, server: object, session: object, envelope: Any) -> str:  # noqa: N802
            taken.append(message_from_bytes(envelope.content))
            return "250 taken"

    controller = Controller(Handler(), hostname="127.0.0.1", port=free_port())
    controller.start()
    try:
        yield controller.port, taken
    finally:
        controller.stop()
