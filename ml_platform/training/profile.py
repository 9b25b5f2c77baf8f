"""What a training set looks like, column by column: for people who look at its page, and for MLflow."""

from typing import TYPE_CHECKING

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd

MOST_ROWS = 200_000  # of which the figures are taken; of a larger set, evenly spread ones


def frame_of(table: pa.Table) -> "pd.DataFrame":
    """The table, or evenly spread rows of it, as a frame."""
    step = -(-table.num_rows // MOST_ROWS) or 1
    return (table if step == 1 else table.take(list(range(0, table.num_rows, step)))).to_pandas()


def profile(frame: "pd.DataFrame") -> "pd.DataFrame":
    """A row for each column that has numbers: how many there are, how many are missing, and how they lie."""
    numbers = frame.select_dtypes(["number", "bool"]).astype("float64")
    described = numbers.describe(percentiles=[0.01, 0.5, 0.99]).T
    described.insert(1, "missing", numbers.isna().sum())
    return described.rename_axis("column").reset_index()


def shown(value: object) -> object:
    """A figure as people read it."""
    return f"{value:.4g}" if isinstance(value, float) else value
