"""The retrain decision: which training date is due, and why."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import date, timedelta

from ml_platform.core.spec import ModelSpec

CADENCE_DAYS = {"daily": 1, "weekly": 7, "monthly": 28}


@dataclass(frozen=True)
class Train:
    """Train as of this date, on inputs with this fingerprint."""

    training_date: date
    reason: str
    inputs: str


@dataclass(frozen=True)
class Wait:
    """Nothing is due."""

    reason: str


def decide(
    spec: ModelSpec,
    known_dates: Iterable[date],
    fingerprint: Callable[[date], str | None],
    trained: Mapping[date, str],
) -> Train | Wait:
    """Whether a training is due.

    Args:
        known_dates: dates for which at least the newest input exists.
        fingerprint: digest over all inputs of a training as of a date; None while inputs are missing or out of date.
        trained: fingerprint of the inputs that each past training date was made from.
    """
    newest = max(known_dates, default=None)
    if newest is None:
        return Wait("no features yet")
    last = max(trained, default=None)
    inputs = fingerprint(newest)
    if inputs is None:
        return Wait(f"inputs for a training as of {newest} are missing or out of date")
    if last is None:
        return Train(newest, "the model has never been trained", inputs)
    due = last + timedelta(days=CADENCE_DAYS[spec.training.cadence])
    if newest >= due:
        return Train(newest, f"last trained as of {last}; cadence {spec.training.cadence}", inputs)
    if newest == last and inputs != trained[last]:
        return Train(newest, f"inputs of the training as of {last} have changed since", inputs)
    return Wait(f"trained as of {last}; next due as of {due}")
