"""Who attacks the model server in the benchmark `hostile`: `python -m benchmarks.attacks NAME PORT`, until it is ended."""

import contextlib
import json
import os
import socket
import sys
import threading
import time
from collections.abc import Callable

PREDICT = b"POST /models/benchmark/predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
IDS = {"customer_id": 1, "terminal_id": 2}
PIECE = b"x" * (64 << 10)


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def huge_headers(port: int) -> None:
    """One header of 96 MB."""
    with connected(port) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\nX: ")
        for _ in range(1_500):
            wire.sendall(PIECE)


def many_headers(port: int) -> None:
    with connected(port) as wire:
        wire.sendall(b"GET /health HTTP/1.1\r\n")
        for _ in range(1_500):
            wire.sendall(b"X: y\r\n" * 10_000)


def half_open(port: int) -> None:
    """More of them than the server has connections."""
    wires = []
    try:
        for number in range(1_200):
            wires.append(connected(port))
            wires[-1].sendall(b"GET /health HTTP/1.1\r\nX: "[: number % 26])
        time.sleep(2)
    finally:
        for wire in wires:
            wire.close()


def slow_bodies(port: int) -> None:
    wires = [connected(port) for _ in range(300)]
    try:
        for wire in wires:
            wire.sendall(PREDICT + b"Content-Length: 1000\r\n\r\n{")
        for _ in range(20):
            for wire in wires:
                with contextlib.suppress(OSError):
                    wire.sendall(b" ")
            time.sleep(0.5)
    finally:
        for wire in wires:
            wire.close()


def _posts(body: bytes) -> Callable[[int], None]:
    """One body after the other over a connection, whatever is answered."""

    def post(port: int) -> None:
        with connected(port) as wire:
            while True:
                wire.sendall(PREDICT + b"Content-Length: %d\r\n\r\n" % len(body))
                wire.sendall(body)
                if not wire.recv(1 << 16):
                    return

    return post


def _body(row: dict[str, object], kind: str = "entities") -> bytes:
    return json.dumps({kind: [row]}).encode()


# Name: what one thread does again and again, and how many threads there are.
ATTACKS: dict[str, tuple[Callable[[int], None], int]] = {
    "huge_headers": (huge_headers, 4),
    "many_headers": (many_headers, 4),
    "half_open": (half_open, 1),
    "slow_bodies": (slow_bodies, 1),
    "large_ids": (_posts(_body({**IDS, "customer_id": [*range(1_000_000, 4_400_000)]}, "rows")), 4),
    "large_strings": (_posts(_body({**IDS, "customer_id": "7" * 2_000_000})), 4),
    "deep_json": (_posts(b'{"entities": ' + b"[" * 30_000_000), 4),
    "empty_rows": (_posts(b'{"entities": [' + b"{}," * 10_000_000 + b"{}]}"), 4),
}


def main() -> None:
    name, port = sys.argv[1], int(sys.argv[2])
    os.nice(19)  # what is measured is the server, and not who gets the processor
    attack, threads = ATTACKS[name]

    def again() -> None:
        while True:
            try:
                attack(port)
            except OSError:
                time.sleep(0.01)  # it was thrown out

    for _ in range(threads):
        threading.Thread(target=again, daemon=True).start()
    threading.Event().wait()


if __name__ == "__main__":
    main()
