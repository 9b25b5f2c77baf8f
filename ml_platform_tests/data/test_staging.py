from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.core import digest
from ml_platform.data.staging import BLOCK_ROWS, Stage


@pytest.mark.parametrize("sizes", [[], [1, 2, 3], [BLOCK_ROWS], [BLOCK_ROWS - 1, 2, BLOCK_ROWS + 5], [7] * 1_000])
def test_pieces_become_one_file_with_the_hash_of_the_whole(tmp_path: Path, sizes: list[int]) -> None:
    rng = np.random.default_rng(0)
    schema = pa.schema([("n", pa.int64()), ("s", pa.string())])
    pieces = [pa.table({"n": rng.integers(0, 9, size), "s": [f"{i % 5}" for i in range(size)]}) for size in sizes]
    stage = Stage(tmp_path / "x.parquet", schema)
    for piece in pieces:
        stage.write(piece.append_column("more", piece["n"]))
    staged = stage.finish()
    whole = pa.concat_tables([schema.empty_table(), *pieces])
    assert pq.read_table(staged.path).equals(whole)
    assert (staged.rows, staged.content_hash) == (whole.num_rows, digest.of_table(whole))
    assert pq.read_metadata(staged.path).num_row_groups == -(-whole.num_rows // BLOCK_ROWS)
