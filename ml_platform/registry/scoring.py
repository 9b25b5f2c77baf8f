# pyright: reportAttributeAccessIssue=false
# The stubs of PyArrow know fewer methods than the library has.
"""Batch scores: every row of a table through a bundle, piece by piece."""

from collections.abc import Iterable, Iterator

import numpy as np
import pyarrow as pa

from ml_platform.core.errors import BundleError
from ml_platform.core.spec import SourceSpec
from ml_platform.registry.bundle import Bundle
from ml_platform.training.training_set import columns_of

SCORE, SCORES, VERSION = "score", "scores", "version"


def score_rows(
    bundle: Bundle, source: SourceSpec, version: str, pieces: Iterable[pa.RecordBatch], subject: str
) -> Iterator[pa.Table]:
    """The key, the event time and the score of every row, in the order of the rows.

    `score` is the probability of the label 1 or a value; with more than two classes `scores` has one probability per class.

    Raises:
        BundleError: naming the column, if the rows lack one that this version needs.
    """
    identity = [*source.key, source.event_time]
    for piece in pieces:
        rows = pa.Table.from_batches([piece])
        needed = [*bundle.schema.request, *bundle.schema.features]
        if missing := [name for name in needed if name not in rows.column_names]:
            problem = f"version {version} needs {missing[0]}, which the feature views no longer have"
            raise BundleError(subject, problem, "train and deploy a version with the present features")
        scored = bundle.score(columns_of(rows.select(needed)))
        name = SCORE if scored.ndim == 1 else SCORES
        values = pa.array(scored) if scored.ndim == 1 else pa.array(list(scored), pa.list_(pa.float64()))
        versions = pa.array(np.full(rows.num_rows, version, dtype=object), pa.string())
        yield rows.select(identity).append_column(name, values).append_column(VERSION, versions)


def schema_of(bundle: Bundle, source: SourceSpec, rows: pa.Schema) -> pa.Schema:
    """The columns of `score_rows`."""
    several = bundle.spec.task == "multiclass_classification"
    score = pa.field(SCORES, pa.list_(pa.float64())) if several else pa.field(SCORE, pa.float64())
    identity = [rows.field(name) for name in [*source.key, source.event_time]]
    return pa.schema([*identity, score, pa.field(VERSION, pa.string())])
