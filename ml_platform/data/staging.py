# pyright: reportAttributeAccessIssue=false
"""A table that is written piece by piece to a local Parquet file, in memory that does not grow with its rows."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core.digest import TableDigest

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

BLOCK_ROWS = 4 * TableDigest.BATCH_ROWS


@dataclass(frozen=True)
class StagedTable:
    """A finished file. The content hash is that of `digest.of_table` for the same rows."""

    path: Path
    rows: int
    content_hash: str

    def dataset(self) -> "pads.Dataset":
        import pyarrow.dataset as pads

        return pads.dataset(self.path)


class Stage:
    """Rows on their way to a file; small pieces are put together to row groups of BLOCK_ROWS."""

    def __init__(self, path: Path, schema: pa.Schema) -> None:
        self.path = path
        self.rows = 0
        self._schema = schema
        self._waiting: list[pa.Table] = []
        self._waiting_rows = 0
        self._digest = TableDigest(schema)
        self._writer = pq.ParquetWriter(path, schema, compression="zstd")

    def write(self, table: pa.Table) -> None:
        """Add rows; columns that are not of the schema are left out."""
        self.rows += table.num_rows
        self._waiting.append(table.select(self._schema.names))
        self._waiting_rows += table.num_rows
        while self._waiting_rows >= BLOCK_ROWS:
            together = pa.concat_tables(self._waiting)
            self._flush(together.slice(0, BLOCK_ROWS))
            self._waiting = [together.slice(BLOCK_ROWS)]
            self._waiting_rows -= BLOCK_ROWS

    def finish(self) -> StagedTable:
        if self._waiting_rows:
            self._flush(pa.concat_tables(self._waiting))
        self._writer.close()
        return StagedTable(self.path, self.rows, self._digest.hexdigest())

    def _flush(self, table: pa.Table) -> None:
        table = table.combine_chunks()
        self._digest.update(table)
        self._writer.write_table(table, row_group_size=BLOCK_ROWS)


def stage_all(schema: pa.Schema, tables: Iterable[pa.Table], path: Path) -> StagedTable:
    """Write tables one after the other."""
    stage = Stage(path, schema)
    for table in tables:
        stage.write(table)
    return stage.finish()
