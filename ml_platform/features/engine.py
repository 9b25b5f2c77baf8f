# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Where expressions run: DuckDB in this process, or whatever else has the same four members (Spark: resources/spark.py)."""

import tempfile
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pyarrow as pa

from ml_platform.core.threads import given

if TYPE_CHECKING:
    import ibis.expr.types as ir
    import pyarrow.dataset as pads  # it imports pandas

BATCH_ROWS = 1 << 18
SPILL = Path(tempfile.gettempdir()) / "ml_platform-spill"


class Engine(Protocol):
    """Runs Ibis expressions. Times are in UTC, whole microseconds; results come in batches, so that they may be large."""

    joins_as_of: bool

    def table(self, rows: "pads.Dataset | pa.Table") -> "ir.Table":
        """Arrow rows as a table of this engine; a dataset's files are read where the engine runs, if it can."""
        ...

    def microseconds(self, times: "ir.Value") -> "ir.Value":
        """Whole microseconds since 1970, for which Ibis has no expression that runs on all engines."""
        ...

    def batches(self, expression: "ir.Table") -> Iterator[pa.RecordBatch]:
        """The expression's rows, in its order."""
        ...


class Embedded:
    """DuckDB in memory; what does not fit into `memory` (such as 4GB; by default most of the machine's) it spills."""

    joins_as_of = True

    def __init__(self, memory: str | None = None, spill: Path = SPILL) -> None:
        import ibis

        self._duckdb: Any = ibis.duckdb.connect(temp_directory=str(spill))
        self._duckdb.raw_sql("SET TimeZone = 'UTC'")
        # DuckDB cannot estimate the rows of an Arrow dataset, takes it for tiny, and joins as-of by nested loops: 200 s
        # instead of 3 s for a month of real transactions.
        self._duckdb.raw_sql("SET asof_loop_join_threshold = 0")
        if memory:
            self._duckdb.raw_sql(f"SET memory_limit = '{memory}'")
        self._tables = 0

    def table(self, rows: "pads.Dataset | pa.Table") -> "ir.Table":
        self._tables += 1
        self._duckdb.con.register(name := f"rows_{self._tables}", rows)
        return self._duckdb.table(name)

    def microseconds(self, times: "ir.Value") -> "ir.Value":
        import ibis

        return ibis.udf.scalar.builtin(_of_time, name="epoch_us", signature=((times.type(),), "int64"))(times)

    def batches(self, expression: "ir.Table") -> Iterator[pa.RecordBatch]:
        self._duckdb.raw_sql(f"SET threads = {given()}")  # it counts the machine's, whatever the step was given
        # Ibis' own way to batches asks for a method that DuckDB 2 has under another name.
        yield from self._duckdb.con.sql(self._duckdb.compile(expression)).to_arrow_reader(BATCH_ROWS)


def read(engine: Engine, expression: "ir.Table") -> pa.Table:
    """All rows of an expression at once."""
    batches = list(engine.batches(expression))
    return pa.Table.from_batches(batches) if batches else expression.schema().to_pyarrow().empty_table()


def _of_time(time: datetime) -> int: ...  # type: ignore[empty-body]  # the engine's own
