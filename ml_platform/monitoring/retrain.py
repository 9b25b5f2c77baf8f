"""The retrain decision: which training date is due, and why; or why not.

A training is due by cadence or schedule, by new days, by inputs that have changed, or by an alarm of monitoring. An alarm asks
for one only when there is something to learn from: labelled rows since it began, among those that a training is fitted on.
After one that had them the same alarm asks for no other. Cool-down and weekly budget hold alarms back, and nothing else.
"""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import date, datetime, timedelta
from typing import Literal, get_args
from zoneinfo import ZoneInfo

from cronsim import CronSim

from ml_platform.core.spec import ModelSpec, duration
from ml_platform.core.spec.monitoring import Trigger
from ml_platform.core.spec.training import TrainingSpec

CADENCE_DAYS = {"daily": 1, "weekly": 7, "monthly": 28}
WEEK = timedelta(days=7)
MOST_AT_ONCE = 3  # models on one source that alarms ask to train at once; more have one cause, and that is no model's
SAID = 300  # characters of an alarm

Reason = Literal["first", "cadence", "schedule", "new_days", "changed_inputs", Trigger]


@dataclass(frozen=True)
class Alarm:
    """What monitoring has found, on rows of `since` or later."""

    trigger: Trigger
    since: date
    words: str


@dataclass(frozen=True)
class Training:
    """A past training: the fingerprint of its inputs, and when its training set was made."""

    inputs: str
    at: datetime


@dataclass(frozen=True)
class Train:
    """Train as of this date, on inputs with this fingerprint."""

    training_date: date
    reason: str
    inputs: str
    trigger: Reason = "cadence"

    @property
    def identity(self) -> str:
        """What tells it from others: two reasons to train on the same inputs are two requests."""
        return f"{self.trigger}:{self.training_date}:{self.inputs}"


@dataclass(frozen=True)
class Wait:
    """Nothing is due."""

    reason: str


@dataclass(frozen=True)
class Held(Wait):
    """An alarm asks for a training, and has to wait for cool-down or budget."""


@dataclass(frozen=True)
class AwaitLabels(Wait):
    """An alarm asks for a training, and there is nothing yet that it could learn from."""


@dataclass(frozen=True)
class Seen:
    """What a decision is made from.

    Args:
        now: in any time zone.
        known_dates: dates for which at least the newest input exists.
        fingerprint: digest over all inputs of a training as of a date; None while inputs are missing or out of date.
        trained: past trainings by their dates.
        alarms: those of the deployed version that go on; looked up only where nothing else is due.
        fitted_after: days from a row's own to the first training that is fitted on it.
        labelled_rows: how many there are of days from the first to the second, both included.
    """

    now: datetime
    known_dates: Iterable[date]
    fingerprint: Callable[[date], str | None]
    trained: Mapping[date, Training]
    alarms: Callable[[], Sequence[Alarm]] = lambda: ()
    fitted_after: int = 0
    labelled_rows: Callable[[date, date], int] = lambda first, last: 0


def decide(spec: ModelSpec, seen: Seen) -> Train | Wait:
    """Whether a training is due."""
    newest = max(seen.known_dates, default=None)
    if newest is None:
        return Wait("no features yet")
    inputs = seen.fingerprint(newest)
    if inputs is None:
        return Wait(f"inputs for a training as of {newest} are missing or out of date")
    last = max(seen.trained, default=None)
    if last is None:
        return Train(newest, "the model has never been trained", inputs, "first")
    by_date = _by_date(spec.training, seen, last, newest)
    if isinstance(by_date, tuple):
        return Train(newest, by_date[1], inputs, by_date[0])
    if newest == last and inputs != seen.trained[last].inputs:
        return Train(newest, f"inputs of the training as of {last} have changed since", inputs, "changed_inputs")
    asked = [one for one in seen.alarms() if one.trigger in spec.monitoring.retrain_on]
    decided = [_by_alarm(spec, seen, alarm, last, newest, inputs) for alarm in asked]
    for kind in (Train, Held, AwaitLabels):
        for one in decided:
            if isinstance(one, kind):
                return one
    return Wait("; ".join([by_date, *(one.reason for one in decided)]))


def _by_date(training: TrainingSpec, seen: Seen, last: date, newest: date) -> tuple[Reason, str] | str:
    """What makes a training due, and in words; or what is waited for."""
    if training.new_days is not None and (newest - last).days >= training.new_days:
        return "new_days", f"{(newest - last).days} days are new since the training as of {last}"
    if training.schedule is None:
        due = last + timedelta(days=CADENCE_DAYS[training.cadence])
        if newest >= due:
            return "cadence", f"last trained as of {last}; cadence {training.cadence}"
        return f"trained as of {last}; next due as of {due}"
    local = seen.now.astimezone(ZoneInfo(training.time_zone))
    due_at = next(CronSim(training.schedule, local, reverse=True))
    if due_at <= max(one.at for one in seen.trained.values()):
        return f"trained as of {last}; next due {_moment(next(CronSim(training.schedule, local)))}"
    if newest <= last:
        return f"due since {_moment(due_at)}; waits for a day after {last}, as of which it was trained"
    return "schedule", f"due since {_moment(due_at)} by its schedule; last trained as of {last}"


def _by_alarm(spec: ModelSpec, seen: Seen, alarm: Alarm, last: date, newest: date, inputs: str) -> Train | Wait:
    limits, lag = spec.monitoring, timedelta(days=seen.fitted_after)
    what = f"{alarm.trigger} since {alarm.since}: {alarm.words[:SAID]}"
    if seen.labelled_rows(alarm.since, last - lag) >= limits.min_labelled_rows:
        return Wait(f"{what}; the training as of {last} knew of it")
    rows = seen.labelled_rows(alarm.since, newest - lag)
    if rows < limits.min_labelled_rows:
        waits = (
            f"waits for {limits.min_labelled_rows:,} labelled rows of {alarm.since} or after to fit on, has {rows:,}"
        )
        return AwaitLabels(f"{what}; {waits}; not before the training as of {alarm.since + lag}")
    moments = sorted(one.at for one in seen.trained.values())
    cooled = moments[-1] + duration(limits.cooldown)
    if seen.now < cooled:
        return Held(f"{what}; waits until {_moment(cooled)} (monitoring.cooldown {limits.cooldown})")
    recent = [at for at in moments if seen.now - at < WEEK]
    if len(recent) >= limits.max_retrains_per_week:
        free = f" until {_moment(recent[-limits.max_retrains_per_week] + WEEK)}" if limits.max_retrains_per_week else ""
        spent = f"{len(recent)} trainings within seven days (monitoring.max_retrains_per_week)"
        return Held(f"{what}; held{free}: {spent}")
    return Train(newest, f"{what}; {rows:,} labelled rows since then to fit on", inputs, alarm.trigger)


def ongoing(days: Iterable[tuple[str, Sequence[Alarm]]]) -> list[Alarm]:
    """The alarms of the newest day, each since the first of the days without a gap, by one version, that had it.

    Args:
        days: version and alarms of each monitored day, the newest first; read no further than is needed.
    """
    found: dict[Trigger, Alarm] = {}
    version, going_on = "", set[Trigger]()
    for position, (by, alarms) in enumerate(days):
        if position == 0:
            version = by
            found.update({one.trigger: one for one in alarms})
            going_on = set(found)
        else:
            earlier = {one.trigger: one for one in alarms} if by == version else {}
            going_on &= earlier.keys()
            found.update({name: replace(found[name], since=earlier[name].since) for name in going_on})
        if not going_on:
            break
    return list(found.values())


def one_cause(asked: Mapping[str, Reason | str], source_of: Mapping[str, str]) -> dict[str, str]:
    """Which models are not trained, and why: alarms of many models on the same rows are about the rows.

    Args:
        asked: by model, why a training of it is asked for.
        source_of: the source whose rows each model scores.
    """
    by_source: dict[str, list[str]] = {}
    for model, reason in asked.items():
        if reason in get_args(Trigger):
            by_source.setdefault(source_of[model], []).append(model)
    return {
        model: f"held: alarms ask for trainings of {len(models)} models on {source} at once. Look after {source} first"
        for source, models in by_source.items()
        if len(models) > MOST_AT_ONCE
        for model in models
    }


def to_json(alarms: Iterable[Alarm]) -> str:
    return json.dumps([{**asdict(one), "since": one.since.isoformat()} for one in alarms])


def from_json(text: str) -> list[Alarm]:
    return [Alarm(one["trigger"], date.fromisoformat(one["since"]), one["words"]) for one in json.loads(text)]


def _moment(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d %H:%M %Z}"
