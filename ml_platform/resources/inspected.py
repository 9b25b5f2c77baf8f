# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer functions than it has.
"""What there is of one partition: facts, inputs and whether they are still the same, rows and files."""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date
from typing import TYPE_CHECKING, Any

import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core import keys
from ml_platform.core.errors import LakeError
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Input
from ml_platform.training.profile import MOST_ROWS, frame_of, profile

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

CURRENT, GONE, UNKNOWN = "current", "is gone", "not looked up"
MOST_TEXT = 1 << 20  # bytes of a file that is read to say what it holds
TEXTS = (".json", ".md", ".yaml", ".txt")


@dataclass(frozen=True)
class InputState:
    """One thing that a partition was made from, and how it is now."""

    name: str
    version: str
    size: int | None
    state: str


@dataclass(frozen=True)
class Rows:
    """Rows of a partition. The figures of `columns` are of `profiled` rows, evenly spread over all of them."""

    columns: list[dict[str, Any]]
    profiled: int
    sample: list[dict[str, Any]]


@dataclass(frozen=True)
class StoredFile:
    """A file of a partition; `content` is what JSON or text of moderate size has, otherwise None."""

    name: str
    size: int
    content: Any = None


@dataclass(frozen=True)
class Inspection:
    """What there is of one partition, or of an asset without any. `day` is None where there are no days."""

    asset: str
    day: date | None
    facts: dict[str, Any]
    inputs: tuple[InputState, ...] = ()
    rows: Rows | None = None
    files: tuple[StoredFile, ...] = ()
    notes: tuple[str, ...] = ()
    in_graph: bool = True  # or it is kept beside the graph, and Dagster has nothing of it

    @property
    def name(self) -> str:
        return keys.partition(self.asset, self.day) if self.day else self.asset


def said(name: str, content: bytes) -> Any:
    """What a file of JSON or text has; None of any other."""
    if not name.endswith(TEXTS) or len(content) > MOST_TEXT:
        return None
    text = content.decode(errors="replace")
    try:
        return json.loads(text) if name.endswith(".json") else text
    except ValueError:
        return text


def looked_into(table: "pads.Dataset", count: int, rows: int) -> Rows:
    """The columns of a table of so many rows, with figures, and its first rows."""
    spread = _spread(table, count)
    return Rows(list(_columns(spread)), spread.num_rows, table.head(rows).to_pylist() if rows else [])


def _spread(table: "pads.Dataset", count: int) -> pa.Table:
    """All rows, or evenly spread ones of a large table, which is never in memory as a whole."""
    step = -(-count // MOST_ROWS) or 1
    picked, seen = list[pa.RecordBatch](), 0
    for batch in table.to_batches():
        picked.append(batch if step == 1 else batch.take(pa.array(range(-seen % step, batch.num_rows, step))))
        seen += batch.num_rows
    return pa.Table.from_batches(picked, table.schema)


def _columns(table: pa.Table) -> Iterator[dict[str, Any]]:
    frame = frame_of(table)
    numbers = frame.select_dtypes(["number", "bool"])
    figures = {row.pop("column"): row for row in profile(numbers).to_dict("records")} if numbers.shape[1] else {}
    for column in table.schema:
        values = table[column.name]
        yield {"column": column.name, "type": str(column.type), "missing": values.null_count} | (
            figures.get(column.name) or _ends(values)
        )


def _ends(values: pa.ChunkedArray) -> dict[str, Any]:
    """How many values that are no numbers there are, and the first and the last of them where they have an order."""
    count = {"count": len(values) - values.null_count}
    if pa.types.is_string(values.type) or pa.types.is_temporal(values.type) or pa.types.is_boolean(values.type):
        return {**count, **pc.min_max(values).as_py(), "distinct": pc.count_distinct(values).as_py()}
    return count


def input_states(lake: Lake, made_from: Iterable[Input]) -> Iterator[InputState]:
    """Partitions are held against what they are now; of all else it is not known."""
    inputs = list(made_from)
    days: dict[str, list[date]] = {}
    for one in inputs:
        if _is_partition(one):
            key, day = keys.parse_partition(one.name)
            days.setdefault(key, []).append(day)
    now = {
        keys.partition(key, day): manifest.content_hash
        for key, of in days.items()
        for day, manifest in lake.manifests(key, of).items()
    }
    for one in inputs:
        state = state_of(one.version, now.get(one.name)) if _is_partition(one) else UNKNOWN
        yield InputState(one.name, one.version, one.size, state)


def _is_partition(one: Input) -> bool:
    return one.name.endswith("]") and "://" not in one.name


def state_of(version: str, now: str | None) -> str:
    """How something is that was of that version: its version `now`, or None if it is gone."""
    return GONE if now is None else CURRENT if now == version else f"has changed: is {now}"


def day_named(asset: str, partition: str, there: list[date]) -> date:
    """The day that is asked for, whether it is there or not; default: the newest of those that are.

    Raises:
        LakeError: if it is no day, or none is there to be the default.
    """
    if not partition and not there:
        raise LakeError(asset, "has no partition yet", "materialize it in the Dagster UI")
    try:
        return date.fromisoformat(partition) if partition else there[-1]
    except ValueError as error:
        spans = f", from {there[0]} to {there[-1]}" if there else ""
        raise LakeError(asset, f"{partition!r} is no partition; they are days{spans}", "write it YYYY-MM-DD") from error


def chosen(asset: str, partition: str, there: list[date]) -> date:
    """The day that is asked for, or the newest of those that are there.

    Raises:
        LakeError: if it is not there; says the nearest that are.
    """
    day = day_named(asset, partition, there)
    if day in there:
        return day
    close = [d for d in there if d < day][-1:] + [d for d in there if d > day][:1]
    problem = f"is not there; nearest: {' and '.join(map(str, close))}" if close else "is not there, nor any other"
    raise LakeError(keys.partition(asset, day), problem, f"ml-platform inspect {asset}, for the newest")
