"""What is known of alerts, in the lake: `alerts/<project>/<who>.json`, and one file a silence beside it.

Each state has one writer, the sensor or the exporter; silences have many, so that each is a file of its own.
"""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import TypeVar
from uuid import uuid4

from ml_platform.core.errors import LakeError
from ml_platform.core.records import read
from ml_platform.monitoring.alerts import Silence, State
from ml_platform.resources.beside import Beside
from ml_platform.resources.lake import Lake

T = TypeVar("T")
WRITERS = ("sensor", "exporter")
READS = 4  # of a file, since some S3 servers answer a reader with half of what is being written


class AlertBook:
    """The alerts that one writer (`who`) has opened, and the silences of its project."""

    def __init__(
        self, lake: Lake, project: str, who: str = "sensor", sleep: Callable[[float], None] = time.sleep
    ) -> None:
        self.lake, self.project, self.sleep = lake, project, sleep
        self.folder = f"alerts/{project}"
        self.path = f"{self.folder}/{who}.json"

    def of(self, who: str) -> "AlertBook":
        """The same project's book of another writer."""
        return AlertBook(self.lake, self.project, who, self.sleep)

    def state(self) -> State:
        """The state, empty at first.

        Raises:
            LakeError: if it cannot be read.
        """
        return self._read(self.path, State.from_json) or State()

    def keep(self, state: State) -> None:
        Beside(self.lake).write(self.path, state.to_json().encode())

    def silences(self, now: float) -> list[Silence]:
        """Those that hold. What has ended is removed."""
        found = []
        for path in Beside(self.lake).names(f"{self.folder}/silences"):
            silence = self._read(path, lambda text: read(Silence, text))
            if silence and silence.until <= now:
                Beside(self.lake).remove(path)
            elif silence:
                found.append(silence)
        return sorted(found, key=lambda one: one.until)

    def silence(self, matches: str, until: float, by: str, reason: str) -> Silence:
        """Tell nobody of what matches until a moment, epoch seconds."""
        made = Silence(uuid4().hex[:8], matches, until, by, reason)
        Beside(self.lake).write(f"{self.folder}/silences/{made.id}.json", json.dumps(asdict(made)).encode())
        return made

    def end_silence(self, id_: str) -> bool:
        """Whether there was such a silence."""
        path = f"{self.folder}/silences/{id_}.json"
        there = path in Beside(self.lake).names(f"{self.folder}/silences")
        if there:
            Beside(self.lake).remove(path)
        return there

    def _read(self, path: str, parse: Callable[[bytes], T]) -> T | None:
        for attempt in range(READS):
            content = Beside(self.lake).read(path)
            if content is None:
                return None
            try:
                return parse(content)
            except (ValueError, TypeError) as error:
                if attempt == READS - 1:
                    raise LakeError(
                        path,
                        f"it cannot be read: {error}",
                        f"remove {self.lake.root}/{path}; what is wrong is told again",
                    ) from error
                self.sleep(0.1 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")
