# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer functions than it has.
"""The prediction log: what the model server answered, in the lake, one folder per model and day.

    <lake>/<model>/prediction_log/date=YYYY-MM-DD/<moment written>-<writer>-<number>.parquet

Rows wait in memory for `WRITE_EVERY` seconds at most, then in a file of the spool folder until the lake has taken it. So a
server that is killed loses those seconds, one that is stopped loses nothing, and a lake that is away for a while gets its
files later. What a full disk does not take stays in memory. Whatever is given up, since there is no room for it, is counted.
Files are never changed: several servers write beside each other.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core import keys
from ml_platform.core.days import day_range
from ml_platform.core.errors import LakeError
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_rows import SCHEMA, Prediction, as_table, together
from ml_platform.resources.spool import Spool

T = TypeVar("T")
LOG = logging.getLogger(__name__)
WRITE_EVERY = 10.0  # seconds of answers that a kill -9 loses at most
AGAIN_AFTER = 1.0  # seconds, if memory is full and the disk does not take it
MOST_WAITING = (
    64 << 20
)  # bytes in memory; beyond, rows are given up, and from half of it on the log does not wait for its time
MOST_SPOOLED = 2 << 30  # bytes on disk while the lake is away; beyond, the oldest are given up
MOST_FAILING = 3  # models whose files the lake has refused in a row: it will refuse the others too
MOMENT = "%Y%m%dT%H%M%S%f"


@dataclass(frozen=True)
class LogState:
    """How a log does: rows that were given up, rows in memory, bytes on disk, and why they are still there."""

    lost: int = 0
    waiting: int = 0
    spooled: int = 0
    trouble: str = ""

    def __add__(self, other: "LogState") -> "LogState":
        trouble = self.trouble or other.trouble
        return LogState(self.lost + other.lost, self.waiting + other.waiting, self.spooled + other.spooled, trouble)


class PredictionLog:
    """The writer of one server process; `start` it, `add` to it from any thread, `close` it."""

    def __init__(
        self,
        lake: Lake,
        spool: Path,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
        most_waiting: int = MOST_WAITING,
        most_spooled: int = MOST_SPOOLED,
    ) -> None:
        """`spool` is a folder that the servers of one home share; the limits are bytes in memory and on disk."""
        self.lake = lake
        self.clock = clock
        self.most_waiting = most_waiting
        self.most_spooled = most_spooled
        self.writer = uuid4().hex[:8]
        self.spool = Spool(spool, self.writer)
        self.files = itertools.count()
        self.lost = 0  # rows that were given up
        self._spooled = 0
        self._trouble = ""
        self._waiting: dict[str, list[Prediction]] = {}
        self._size = 0  # of what waits, in bytes
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def state(self) -> LogState:
        with self._lock:
            rows = sum(map(len, self._waiting.values()))
        return LogState(self.lost, rows, self._spooled, self._trouble)

    def add(self, model: str, predictions: Sequence[Prediction]) -> None:
        """Take note; never waits for disk or lake. When there is no room in memory, rows are given up and counted."""
        size = sum(one.size for one in predictions)
        with self._lock:
            if self._size + size > self.most_waiting:
                self.lost += len(predictions)
                return
            self._waiting.setdefault(model, []).extend(predictions)
            self._size += size
            full = self._size >= self.most_waiting // 2
        if full:
            self._wake.set()

    def close(self) -> None:
        """Write what is waiting; what the lake does not take stays in the spool for the next process."""
        self._closed.set()
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.write()
        if left := self.state().waiting:
            self._waiting = {}
            self._lose(left, f"the server ends, and they cannot be written: {self._trouble}")
        self.spool.close()

    def write(self) -> None:
        """Everything in memory to the spool, and everything in the spool to the lake."""
        with self._lock:
            waiting, self._waiting, self._size = self._waiting, {}, 0
        troubles = []
        for model, predictions in waiting.items():
            by_day: dict[date, list[Prediction]] = {}
            for one in predictions:
                by_day.setdefault(one.time.date(), []).append(one)
            for day, rows in by_day.items():
                try:
                    self._write(model, day, rows)
                except (OSError, LakeError) as error:
                    troubles.append(f"{len(rows)} rows of {model} wait in memory: {error}")
                    self._keep(model, rows)
        self.spool.take_over()
        self._give_up_the_oldest()
        troubles += self._to_the_lake()
        for trouble in troubles:
            LOG.warning("the prediction log: %s", trouble)
        self._trouble = troubles[0] if troubles else ""

    def _run(self) -> None:
        while not self._closed.is_set():
            self._wake.wait(WRITE_EVERY)
            self._wake.clear()
            try:
                self.write()
            except Exception:  # whatever it was, the log goes on
                LOG.exception("the prediction log cannot be written")
            if self._trouble:
                self._closed.wait(AGAIN_AFTER)

    def _write(self, model: str, day: date, rows: Sequence[Prediction]) -> None:
        """Write rows as a file; a row of which no file can be made is given up by itself.

        Raises:
            OSError, LakeError: if neither the disk nor the lake takes it.
        """
        sink = pa.BufferOutputStream()
        try:
            pq.write_table(as_table(rows), sink, compression="zstd")
        except Exception as error:  # noqa: BLE001 - whatever a row has, the others are written
            if len(rows) == 1:
                self._lose(1, f"a row of {model} cannot be written: {type(error).__name__}: {error}")
                return
            for some in (rows[: len(rows) // 2], rows[len(rows) // 2 :]):
                self._write(model, day, some)
            return
        name = f"{self.clock().strftime(MOMENT)}-{self.writer}-{next(self.files)}.parquet"
        content = sink.getvalue().to_pybytes()
        try:
            self.spool.put(model, day, name, content)
        except OSError as error:
            LOG.warning(
                "the prediction log: %s does not take %d rows of %s: %s", self.spool.folder, len(rows), model, error
            )
            self.lake.add_file(keys.prediction_log(model), day, name, content)

    def _keep(self, model: str, rows: Sequence[Prediction]) -> None:
        """Back into memory, before what has come since."""
        with self._lock:
            self._waiting[model] = [*rows, *self._waiting.get(model, ())]
            self._size += sum(one.size for one in rows)

    def _to_the_lake(self) -> list[str]:
        """Files of a model that the lake refuses wait, and those of the others go on; returns why."""
        failing: dict[str, str] = {}
        for file in self.spool.files():
            model = file.parts[-3]
            if model in failing or len(failing) >= MOST_FAILING:
                continue
            try:
                day = date.fromisoformat(file.parts[-2])
                self.lake.add_file(keys.prediction_log(model), day, file.name, file)
                file.unlink()
            except (LakeError, OSError, ValueError) as error:
                failing[model] = f"files of {model} wait in {self.spool.own}: {error}"
        self._spooled = sum(map(_bytes_of, self.spool.files()))
        return [*failing.values()]

    def _give_up_the_oldest(self) -> None:
        files = self.spool.files()
        size = sum(map(_bytes_of, files))
        for file in files:
            if size <= self.most_spooled:
                return
            size -= _bytes_of(file)
            rows = _rows_of(file)
            file.unlink()
            self._lose(rows, f"{self.spool.folder} may have {self.most_spooled} bytes")

    def _lose(self, rows: int, why: str) -> None:
        with self._lock:
            self.lost += rows
        LOG.error("gave up %d rows of the prediction log: %s", rows, why)


def _bytes_of(file: Path) -> int:
    try:
        return file.stat().st_size
    except OSError:
        return 0


def _rows_of(file: Path) -> int:
    """One at least, if nobody can tell."""
    try:
        return pq.read_metadata(file).num_rows
    except (OSError, pa.ArrowException):
        return 1


def read(lake: Lake, model: str, since: datetime, until: datetime, inputs: bool = False) -> pa.Table:
    """What was answered from `since` up to `until`, by time, as far as it is in the lake; `inputs` adds their columns.

    Raises:
        LakeError: if the lake cannot be read.
    """
    import pyarrow.compute as pc

    names = None if inputs else SCHEMA.names
    found = (
        _opened(lake, model, path, lambda file: pq.read_table(file, columns=names))
        for path in _files(lake, model, since, until)
    )
    tables = [SCHEMA.empty_table(), *(table for table in found if table is not None)]
    table = together(tables)
    within = pc.and_(pc.greater_equal(table["time"], pa.scalar(since)), pc.less(table["time"], pa.scalar(until)))
    return table.filter(within).sort_by("time")


def rows_answered(lake: Lake, model: str, since: datetime, until: datetime) -> int:
    """How many rows there are in files that were written since then; their data is not read.

    Raises:
        LakeError: if the lake cannot be read.
    """
    return sum(
        _opened(lake, model, path, lambda file: pq.read_metadata(file).num_rows) or 0
        for path in _files(lake, model, since, until)
    )


def _opened(lake: Lake, model: str, path: str, read_: Callable[[Any], T]) -> T | None:
    """None if retention took it away."""
    try:
        with lake.filesystem.open_input_file(path) as file:
            return read_(file)
    except FileNotFoundError:
        return None
    except (OSError, pa.ArrowException) as error:
        problem = f"{path} cannot be read: {error}"
        raise LakeError(keys.prediction_log(model), problem, "look after ML_PLATFORM_LAKE") from error


def _files(lake: Lake, model: str, since: datetime, until: datetime) -> Iterator[str]:
    """Files that may have rows of this time: those that were written later than it began."""
    earliest = since.astimezone(UTC).strftime(MOMENT)
    days: Iterable[date] = day_range(since.astimezone(UTC).date(), until.astimezone(UTC).date())
    for day in days:
        paths = lake.added_files(keys.prediction_log(model), day)
        yield from (path for path in paths if Path(path).name >= earliest)
