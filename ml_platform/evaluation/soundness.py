"""Whether a model scores a row alike whatever the rows around it, and after it was saved and loaded; and strangers sanely."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ml_platform.evaluation.metrics import MIN_RAREST, MIN_ROWS, NO_VALUE
from ml_platform.features.point_in_time import as_of_column
from ml_platform.training.training_set import LABEL

TOLERANCE = 1e-5  # float32 sums in another order differ by less; a layer in training mode differs by far more
SAMPLE = 500
BATCHES = (1, 7, 64)
# Who is new may be a few times as likely to be positive as everybody, and a week may differ from those before by as much; at
# three times the odds, or a third, it is the defaults that speak. At a base rate of 0.8 % that is a mean of 2.4 %.
MOST_ODDS = 3.0
SURE = 1.96  # standard deviations to either side of a 95 % interval
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


# --- cold starts ------------------------------------------------------------------------------------------------------


def cold_start(score: Score, rows: Rows, entities: Mapping[str, Mapping[str, float]], views: Sequence[str]) -> Finding:
    """By what factor the scores of strangers are off, as odds; 1 where their means are within what turned out.

    Mean scores are held against the share of the label 1, as its 95 % interval: those of all rows as if nobody knew one
    of their entities, or any; and that of the rows of which some view really did not. Who is new may differ from
    everybody, so that for the former both intervals count. Without enough rows to know the base rate there is no value; too few
    first appearances are left out, and that is said.

    Args:
        rows: with labels and each view's `<view>__as_of`.
        entities: of each what its snapshot views have where they do not know it: feature -> default.
        views: the names of the snapshot views.
    """
    try:
        labels = rows[LABEL].astype(np.float64)
        rarest = int(min(labels.sum(), len(labels) - labels.sum()))
        if len(labels) < MIN_ROWS or rarest < MIN_RAREST:
            words = f"not enough data: {len(labels):,} rows, {rarest} of the rarer class ({MIN_ROWS} and {MIN_RAREST} wanted)"
            return Finding(NO_VALUE, words)
        unknown = {f"unknown {entity}": defaults for entity, defaults in entities.items()}
        if len(entities) > 1:
            unknown["nobody known"] = {
                name: value for defaults in entities.values() for name, value in defaults.items()
            }
        means = {words: float(score(_without(rows, defaults)).mean()) for words, defaults in unknown.items()}
        scored = ", ".join(f"{words} {mean:.4g}" for words, mean in means.items())
        words, (low, high) = f"mean scores: {scored}; {_outcomes(labels)}", _interval(labels)
        new = np.flatnonzero(np.any([np.isnat(rows[as_of_column(view)]) for view in views], axis=0))
        if len(new) < MIN_ROWS:
            words += f"; {len(new):,} first appearances are too few to judge ({MIN_ROWS} wanted)"
            return Finding(_odds_off(means.values(), low, high), words)
        mean, (its_low, its_high) = float(score(_taken(rows, new)).mean()), _interval(labels[new])
        words += f"; first appearances {mean:.4g}, of which {_outcomes(labels[new])}"
        as_strangers = _odds_off(means.values(), min(low, its_low), max(high, its_high))
        return Finding(float(np.maximum(as_strangers, _odds_off([mean], its_low, its_high))), words)
    except Exception as error:  # noqa: BLE001  # as above
        return Finding(NO_VALUE, f"{type(error).__name__}: {error}")


def _without(rows: Rows, defaults: Mapping[str, float]) -> Rows:
    """The rows as if all of them had the defaults."""
    return {**rows, **{name: np.full(len(rows[LABEL]), default) for name, default in defaults.items()}}


def _interval(labels: np.ndarray) -> tuple[float, float]:
    """Of the share of ones: E. B. Wilson, "Probable Inference, the Law of Succession, and Statistical Inference" (1927)."""
    count, share = len(labels), labels.mean()
    centre = share + SURE**2 / (2 * count)
    spread = SURE * np.sqrt(share * (1 - share) / count + SURE**2 / (4 * count**2))
    return tuple(np.clip((centre + sign * spread) / (1 + SURE**2 / count), 0.0, 1.0) for sign in (-1, 1))  # type: ignore[return-value]


def _odds_off(means: Iterable[float], low: float, high: float) -> float:
    """By what factor the odds of the worst mean lie outside of the interval; 1 within. NaN where a mean is."""
    odds = _odds([*means])
    return float(np.max([odds / _odds(high), _odds(low) / odds, np.ones_like(odds)]))


def _odds(shares: "float | list[float]") -> np.ndarray:
    within = np.clip(shares, 1e-9, 1 - 1e-9)
    return within / (1 - within)


def _outcomes(labels: np.ndarray) -> str:
    low, high = _interval(labels)
    return f"{labels.mean():.4g} of {len(labels):,} turned out positive (95 % interval {low:.4g} to {high:.4g})"
