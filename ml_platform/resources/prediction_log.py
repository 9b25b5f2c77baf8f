# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer functions than it has.
"""The prediction log: what the model server answered, in the lake, one folder per model and day.

    <lake>/<model>/prediction_log/date=YYYY-MM-DD/<moment written>-<writer>-<number>.parquet

Rows wait in memory for `WRITE_EVERY` seconds at most, then in a file of the spool folder until the lake has taken it. So a
server that is killed loses those seconds, one that is stopped loses nothing, and a lake that is away for a while gets its
files later. Files are never changed: several servers write beside each other.
"""

import itertools
import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core import keys
from ml_platform.core.days import day_range
from ml_platform.core.errors import LakeError
from ml_platform.resources.lake import Lake
from ml_platform.rollout.traffic import Arm

LOG = logging.getLogger(__name__)
WRITE_EVERY = 10.0  # seconds of answers that a kill -9 loses at most
PIECE_ROWS = 250
MOST_ROWS = 100_000  # in memory; beyond, the log does not wait for its time
MOST_SPOOLED = 2 << 30  # bytes on disk while the lake is away; beyond, the oldest are given up
MOMENT = "%Y%m%dT%H%M%S%f"

SCHEMA = pa.schema(
    [
        ("request_id", pa.string()),
        ("time", pa.timestamp("us", tz="UTC")),
        ("version", pa.string()),
        ("arm", pa.string()),
        ("entity", pa.string()),
        ("score", pa.float64()),
        ("scores", pa.list_(pa.float64())),
        ("error", pa.string()),
        ("latency_ms", pa.float64()),
    ]
)
INPUT = "input_"  # what the columns of the inputs begin with


@dataclass(frozen=True, slots=True)
class Prediction:
    """One row that was scored, or that could not be. `scores` is for several classes, `score` for all else.

    `features` float64 [features] are inputs too, whose `names` rows of one version share.
    """

    request_id: str
    time: datetime
    version: str
    arm: Arm
    entity: str
    latency_ms: float
    score: float | None = None
    scores: Sequence[float] | None = None
    error: str = ""
    inputs: Mapping[str, Any] | None = None
    features: np.ndarray | None = None
    names: tuple[str, ...] = ()


class PredictionLog:
    """The writer of one server process; `start` it, `add` to it from any thread, `close` it."""

    def __init__(
        self, lake: Lake, spool: Path, clock: Callable[[], datetime] = lambda: datetime.now(UTC), most: int = MOST_ROWS
    ) -> None:
        """`spool` is a folder of this process alone; what another left there when it died is written as well."""
        self.lake = lake
        self.spool = spool
        self.clock = clock
        self.most = most
        self.writer = uuid4().hex[:8]
        self.files = itertools.count()
        self.lost = 0  # rows that were given up
        self._waiting: dict[str, list[Prediction]] = {}
        self._rows = 0
        self._lock = threading.Lock()
        self._wake = threading.Event()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="prediction log", daemon=True)
        spool.mkdir(parents=True, exist_ok=True)
        for unfinished in spool.glob("*/*/.*.parquet"):
            unfinished.unlink()

    def start(self) -> None:
        self._thread.start()

    def add(self, model: str, predictions: Sequence[Prediction]) -> None:
        """Take note; never waits for the lake. When the writer cannot keep up, rows are given up and counted."""
        with self._lock:
            if self._rows + len(predictions) > 2 * self.most:
                self.lost += len(predictions)
                return
            self._waiting.setdefault(model, []).extend(predictions)
            self._rows += len(predictions)
            full = self._rows >= self.most
        if full:
            self._wake.set()

    def close(self) -> None:
        """Write what is waiting; what the lake does not take stays in the spool for the next process."""
        self._closed = True
        self._wake.set()
        if self._thread.is_alive():
            self._thread.join()
        self.write()

    def write(self) -> None:
        """Everything in memory to the spool, and everything in the spool to the lake."""
        with self._lock:
            waiting, self._waiting, self._rows = self._waiting, {}, 0
        for model, predictions in waiting.items():
            by_day: dict[date, list[Prediction]] = {}
            for one in predictions:
                by_day.setdefault(one.time.date(), []).append(one)
            for day, of_day in by_day.items():
                name = f"{self.clock().strftime(MOMENT)}-{self.writer}-{next(self.files)}.parquet"
                folder = self.spool / model / day.isoformat()
                folder.mkdir(parents=True, exist_ok=True)
                pq.write_table(as_table(of_day), folder / f".{name}", compression="zstd")
                (folder / f".{name}").rename(folder / name)
        self._give_up_the_oldest()
        self._to_the_lake()

    def _run(self) -> None:
        while not self._closed:
            self._wake.wait(WRITE_EVERY)
            self._wake.clear()
            try:
                self.write()
            except Exception:  # a full disk must not end the log for good
                LOG.exception("the prediction log cannot be written")

    def _spooled(self) -> list[Path]:
        return sorted(self.spool.glob("*/*/[!.]*.parquet"), key=lambda file: file.name)

    def _to_the_lake(self) -> None:
        for file in self._spooled():
            model, day = file.parts[-3], date.fromisoformat(file.parts[-2])
            try:
                self.lake.add_file(keys.prediction_log(model), day, file.name, file)
            except LakeError as error:
                LOG.warning("the prediction log waits in %s: %s", self.spool, error)
                return
            file.unlink()

    def _give_up_the_oldest(self) -> None:
        files = self._spooled()
        size = sum(file.stat().st_size for file in files)
        for file in files:
            if size <= MOST_SPOOLED:
                return
            size -= file.stat().st_size
            rows = pq.read_metadata(file).num_rows
            self.lost += rows
            LOG.error("gave up %d rows of the prediction log: %s is full", rows, self.spool)
            file.unlink()


def as_table(predictions: Sequence[Prediction]) -> pa.Table:
    """Predictions as a table, each input in a column of its own. Piece by piece, since requests wait as long as one takes."""
    pieces = [SCHEMA.empty_table()]
    for _, alike in itertools.groupby(predictions, key=lambda one: one.names):
        rows = list(alike)
        pieces += [_piece(rows[first : first + PIECE_ROWS]) for first in range(0, len(rows), PIECE_ROWS)]
    return pa.concat_tables(pieces, promote_options="permissive")


def _piece(rows: Sequence[Prediction]) -> pa.Table:
    columns = {name: [getattr(one, name) for one in rows] for name in SCHEMA.names}
    table = pa.table(columns, schema=SCHEMA)
    if rows[0].names:
        matrix = np.array([one.features for one in rows])
        for name, values in zip(rows[0].names, matrix.T, strict=True):
            table = table.append_column(INPUT + name, pa.array(np.ascontiguousarray(values)))
    for name in dict.fromkeys(name for one in rows for name in one.inputs or ()):
        table = table.append_column(INPUT + name, pa.array([(one.inputs or {}).get(name) for one in rows]))
    return table


def read(lake: Lake, model: str, since: datetime, until: datetime, inputs: bool = False) -> pa.Table:
    """What was answered from `since` up to `until`, by time, as far as it is in the lake; `inputs` adds their columns.

    Raises:
        LakeError: if the lake cannot be read.
    """
    import pyarrow.compute as pc

    tables = [SCHEMA.empty_table()]
    for path in _files(lake, model, since, until):
        try:
            with lake.filesystem.open_input_file(path) as file:
                tables.append(pq.read_table(file, columns=None if inputs else SCHEMA.names))
        except FileNotFoundError:
            continue  # retention took it away
        except (OSError, pa.ArrowException) as error:
            problem = f"{path} cannot be read: {error}"
            raise LakeError(keys.prediction_log(model), problem, "look after ML_PLATFORM_LAKE") from error
    table = pa.concat_tables(tables, promote_options="permissive")
    within = pc.and_(pc.greater_equal(table["time"], pa.scalar(since)), pc.less(table["time"], pa.scalar(until)))
    return table.filter(within).sort_by("time")


def _files(lake: Lake, model: str, since: datetime, until: datetime) -> Iterator[str]:
    """Files that may have rows of this time: those that were written later than it began."""
    earliest = since.astimezone(UTC).strftime(MOMENT)
    days: Iterable[date] = day_range(since.astimezone(UTC).date(), until.astimezone(UTC).date())
    for day in days:
        paths = lake.added_files(keys.prediction_log(model), day)
        yield from (path for path in paths if Path(path).name >= earliest)
