"""Whether a model scores a row alike whatever the rows around it, and after it was saved and loaded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

TOLERANCE = 1e-5  # float32 sums in another order differ by less; a layer in training mode differs by far more
SAMPLE = 500
BATCHES = (1, 7, 64)
Rows = Mapping[str, np.ndarray]
Score = Callable[[Rows], np.ndarray]


@dataclass(frozen=True)
class Finding:
    """What a proof found: the largest difference, or how many; NaN and why if it could not be made."""

    value: float
    words: str = ""


def findings(score: Score, reloaded: Callable[[], Score], rows: Rows) -> dict[str, Finding]:
    """The largest relative difference of a sample's scores, per proof.

    Args:
        score: rows [n] -> scores [n] or [n, classes].
        reloaded: saves and loads the model, and gives its `score`.
    """
    count = len(next(iter(rows.values())))
    sample = _taken(rows, np.linspace(0, count - 1, min(count, SAMPLE)).astype(np.int64))
    shuffled = np.random.default_rng(0).permutation(min(count, SAMPLE))

    def in_another_order() -> np.ndarray:
        scores = score(_taken(sample, shuffled))
        back = np.empty_like(scores)
        back[shuffled] = scores
        return back

    def in_batches() -> np.ndarray:
        return np.concatenate([score(batch) for batch in _batches(sample)])

    return {
        "invariant_to_row_order": _difference(lambda: score(sample), in_another_order),
        "invariant_to_batch_size": _difference(lambda: score(sample), in_batches),
        "survives_save_and_load": _difference(lambda: score(sample), lambda: reloaded()(sample)),
    }


def _taken(rows: Rows, index: np.ndarray) -> dict[str, np.ndarray]:
    return {name: values[index] for name, values in rows.items()}


def _batches(rows: Rows) -> Iterator[Rows]:
    """Batches of one, then some of each other size, then the rest."""
    count, begin = len(next(iter(rows.values()))), 0
    sizes = [size for size in BATCHES for _ in range(10 if size < 64 else count)]
    while begin < count:
        end = min(begin + sizes.pop(0), count)
        yield _taken(rows, np.arange(begin, end))
        begin = end


def _difference(one: Callable[[], np.ndarray], other: Callable[[], np.ndarray]) -> Finding:
    try:
        left, right = one(), other()
        if left.shape != right.shape:
            return Finding(float("nan"), f"scores of shape {right.shape} instead of {left.shape}")
        return Finding(float(np.max(np.abs(right - left) / (1 + np.abs(left)))))
    except Exception as error:  # noqa: BLE001  # the trainer may be anyone's; what it cannot show counts as a no
        return Finding(float("nan"), f"{type(error).__name__}: {error}")
