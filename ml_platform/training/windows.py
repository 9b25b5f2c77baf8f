"""Which days a training as of one date uses."""

from dataclasses import dataclass
from datetime import date, timedelta

from ml_platform.core.days import ONE_DAY, day_range
from ml_platform.core.spec import SourceSpec, TrainingSpec


@dataclass(frozen=True)
class Windows:
    """First and last day of the rows to fit on, and of the rows to judge by; both ends included."""

    train: tuple[date, date]
    validation: tuple[date, date]

    @property
    def days(self) -> list[date]:
        """Every day whose rows are used, in time order."""
        return [*day_range(*self.train), *day_range(*self.validation)]

    @property
    def span(self) -> list[date]:
        """Every day from the first to the last, those between the two parts included."""
        return list(day_range(self.train[0], self.validation[1]))


def windows(training: TrainingSpec, label_delay: int, training_date: date) -> Windows:
    """The windows as of the start of `training_date`.

    The validation rows are the newest with known labels. Between them and the training rows lies the embargo, by default
    as long as labels take: the distance at which the model will work in production.
    """
    embargo = training.embargo(label_delay)
    validation_last = training_date - timedelta(days=label_delay + 1)
    validation_first = validation_last - timedelta(days=training.validation_days - 1)
    train_last = validation_first - ONE_DAY - timedelta(days=embargo)
    train_first = train_last - timedelta(days=training.window_days - 1)
    return Windows((train_first, train_last), (validation_first, validation_last))


def search_windows(training: TrainingSpec, label_delay: int, training_date: date) -> Windows:
    """The windows that trials of a search are fitted and scored on: both within the rows that models are fitted on.

    The validation rows stay out of it, since a winner that was chosen by them would look better there than it is. Trials
    are scored on the last `validation_days`. The embargo before them gives way where less than half of the window would be
    left to fit on.
    """
    first, last = windows(training, label_delay, training_date).train
    embargo = training.embargo(label_delay)
    scored_first = last - timedelta(days=training.validation_days - 1)
    room = training.window_days - training.validation_days - -(-training.window_days // 2)
    fit_last = scored_first - ONE_DAY - timedelta(days=min(embargo, max(0, room)))
    return Windows((first, fit_last), (scored_first, last))


def label_days(labels: SourceSpec, used: Windows) -> list[date]:
    """The days whose labels are used: with corrections those of all days up to the last that is known."""
    return used.span if labels.corrections == "latest" else used.days
