"""One call of a bundle for the rows of several requests."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np

from ml_platform.core.errors import BundleError, RequestError
from ml_platform.registry.bundle import Bundle
from ml_platform.resources.online_store import OnlineStore
from ml_platform.serving.requests import EXPLAINED, Checked, Checker


@dataclass(frozen=True)
class Scored:
    """The scores of one request's rows, and what they were computed from: features [rows, features], as of which moments.

    `known` has the views that knew a row's entity, by row; nothing if none was asked.
    """

    scores: list[Any]
    as_of: dict[str, datetime]
    features: np.ndarray
    known: Sequence[Sequence[str]] = ()


def score_together(
    bundle: Bundle, checker: Checker, store: OnlineStore, batch: Sequence[Checked]
) -> list[Scored | RequestError]:
    """Score the rows of several requests; one whose values are beyond the model gets its own error.

    Raises:
        FeatureError: if the online store cannot be read.
    """
    columns = checker.columns(batch, store)
    scores = scores_of(bundle, columns.values, sum(map(len, batch)))
    finite = np.isfinite(scores).all()
    results: list[Scored | RequestError] = []
    begin = 0
    for one in batch:
        end = begin + len(one)
        if finite or np.isfinite(scores[begin:end]).all():
            looked_up = (columns.as_of, columns.known[begin:end]) if one.features is None else ({}, ())
            moments, known = looked_up
            results.append(Scored(scores[begin:end].tolist(), moments, columns.features[begin:end], known))
        else:
            results.append(
                _beyond(bundle, {name: values[begin:end] for name, values in columns.values.items()}, scores[begin:end])
            )
        begin = end
    return results


def scores_of(bundle: Bundle, columns: Mapping[str, np.ndarray], rows: int) -> np.ndarray:
    """Scores, as many as there are rows; not finite where values are beyond the model."""
    with np.errstate(all="ignore"):
        scores = bundle.score(columns)
    if len(scores) != rows:
        raise BundleError(bundle.spec.name, f"{len(scores)} scores for {rows} rows", "look at its trainer's predict")
    return scores


def _beyond(bundle: Bundle, columns: Mapping[str, np.ndarray], scores: np.ndarray) -> RequestError:
    """Which value was too much: the model input that is farthest from what it was trained on."""
    position = int(np.argmin(np.isfinite(scores).reshape(len(scores), -1).all(axis=1)))
    with np.errstate(all="ignore"):
        inputs = np.abs(bundle.transforms.apply(columns)[position])
    field = bundle.transforms.names[int(np.argmax(np.where(np.isfinite(inputs), inputs, np.inf)))]
    problem = "is so large that the model has no finite score"
    return RequestError(f"row {position}, field {field!r}", problem, EXPLAINED)
