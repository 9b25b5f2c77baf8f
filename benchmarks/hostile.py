"""How long `/health` and predictions take while the model server is attacked, against the same server by turns left alone.

Of the 99th percentiles of each kind of turn the least counts, as what else the machine does only makes them larger.
"""

import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.attacks import ATTACKS
from benchmarks.figure import Figure
from benchmarks.load import Load, load
from benchmarks.served import MODEL, World, bodies_by_id, serving

ROUNDS, SECONDS = 9, 2.0
PREDICTIONS, HEALTH = 200, 100  # requests a second
SLOWER = 2.0


def hostile() -> Iterator[Figure]:
    with tempfile.TemporaryDirectory() as folder, serving(Path(folder)) as world:
        watched = Memory()
        asked(world, 3)
        for name in ATTACKS:
            quiet, attacked = [], []
            for _ in range(ROUNDS):
                quiet.append(asked(world, SECONDS))
                with attacking(name, world), watched:
                    attacked.append(asked(world, SECONDS))
            failures = sum(len(one.failures) for both in attacked for one in both.values())
            yield Figure(f"hostile.{name}.failed_requests", failures, "requests", 0)
            for which in ("health", "predictions"):
                was, became = (min(p99(both[which]) for both in turns) for turns in (quiet, attacked))
                yield Figure(f"hostile.{name}.{which}_p99_quiet", was, "ms")
                yield Figure(f"hostile.{name}.{which}_p99", became, "ms")
                yield Figure(f"hostile.{name}.{which}_p99_to_quiet", became / was, "x", SLOWER)
        yield Figure("hostile.memory_of_the_server", watched.server, "MB more", 256)
        yield Figure("hostile.memory_of_the_process_aside", watched.aside, "MB more", 1_024)


def asked(world: World, seconds: float) -> dict[str, Load]:
    with ThreadPoolExecutor(1) as pool:
        health = pool.submit(load, world.url, "/health", [], seconds, HEALTH, 8)
        predictions = load(world.url, f"/models/{MODEL}/predict", bodies_by_id(), seconds, PREDICTIONS, 8)
        return {"health": health.result(), "predictions": predictions}


def p99(measured: Load) -> float:
    return float(np.percentile(measured.milliseconds, 99))


@contextmanager
def attacking(name: str, world: World) -> Iterator[None]:
    command = [sys.executable, "-m", "benchmarks.attacks", name, world.url.rsplit(":", 1)[1]]
    with subprocess.Popen(command) as attacker:
        try:
            threading.Event().wait(1.5)  # until it is at it
            yield
        finally:
            attacker.kill()


class Memory:
    """The most memory that the two processes of the server have had beyond what they had at first, in MB, in its blocks."""

    def __init__(self) -> None:
        (process,) = [one for one in psutil.Process().children() if "ml_platform.serving.main" in one.cmdline()]
        self._processes = [process, *process.children()]
        self._before = [one.memory_info().rss for one in self._processes]
        self._most = [0, 0]

    server = property(lambda self: self._most[0] / 2**20)
    aside = property(lambda self: self._most[1] / 2**20)

    def __enter__(self) -> None:
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._stop.wait(0.1):
            for position, (one, before) in enumerate(zip(self._processes, self._before, strict=True)):
                self._most[position] = max(self._most[position], one.memory_info().rss - before)
