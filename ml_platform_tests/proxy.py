"""A server that stops at a chosen moment: a TCP proxy that cuts all connections after so many bytes."""

import contextlib
import socket
import threading
from collections.abc import Iterator

from ml_platform_tests.processes import free_port


class Proxy:
    """Forwards to a port on this machine. `cut(to_client=n)` stops it for good once n more bytes went that way."""

    def __init__(self, target: int) -> None:
        self.target = target
        self.port = free_port()
        self.left: dict[str, int | None] = {"to_client": None, "to_server": None}
        self.sockets: list[socket.socket] = []
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self, **after: int) -> None:
        self.left.update(after)
        if 0 in after.values():
            self.stop()

    def restore(self) -> None:
        self.left = {"to_client": None, "to_server": None}
        self.listener = socket.create_server(("127.0.0.1", self.port))
        threading.Thread(target=self._accept, daemon=True).start()

    def stop(self) -> None:
        with contextlib.suppress(OSError):
            self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        for one in self.sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self.sockets.clear()

    def _accept(self) -> None:
        listener = self.listener
        while True:
            try:
                client, _ = listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            self.sockets += [client, server]
            for source, sink, way in ((client, server, "to_server"), (server, client, "to_client")):
                threading.Thread(target=self._forward, args=(source, sink, way), daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket, way: str) -> None:
        with contextlib.suppress(OSError):
            while content := source.recv(4096):
                left = self.left[way]
                if left is not None:
                    content = content[:left]
                    self.left[way] = left - len(content)
                sink.sendall(content)
                if self.left[way] == 0:
                    self.stop()
                    return
            sink.shutdown(socket.SHUT_WR)


@contextlib.contextmanager
def proxy(target: int) -> Iterator[Proxy]:
    running = Proxy(target)
    try:
        yield running
    finally:
        running.stop()
