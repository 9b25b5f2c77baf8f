"""Names: one function per noun in the graph. A key `owner/noun` names the asset, its table in the lake, and its errors."""

from datetime import date


def landed(source: str) -> str:
    return f"{source}/landed"


def raw(source: str) -> str:
    return f"{source}/raw"


def ledger(source: str) -> str:
    """What became of every landed object, by day."""
    return f"{source}/ledger"


def quarantine(source: str) -> str:
    """Rows and objects that were kept out of the raw partitions."""
    return f"quarantine/{source}"


def decisions(source: str) -> str:
    """What people decided about the quarantine, by day."""
    return f"{source}/decisions"


def feature_view(view: str) -> str:
    return f"features/{view}"


ONLINE_STORE = "features/online_store"


def training_set(model: str) -> str:
    return f"{model}/training_set"


def trials(model: str) -> str:
    """What became of every trial of a search."""
    return f"{model}/trials"


def trial_records(model: str) -> str:
    """The same while the search is under way."""
    return f"{model}/trial_records"


def trial(position: int, number: int) -> str:
    """A trial's name: of the candidate at this position of the model file, from 1, the trial with this number, from 0."""
    return f"c{position}_{number:03d}"


def candidate(model: str) -> str:
    return f"{model}/candidate"


# A fit is of the candidate at a position of the model file, or of a trial, by its name.


def training_job(model: str, fit: int | str) -> str:
    """What training processes of their own are to fit."""
    return f"{model}/training_job_{fit}"


def trained(model: str, fit: int | str) -> str:
    """What such processes fitted: the trainer's files."""
    return f"{model}/trained_{fit}"


def checkpoint(model: str, fit: int | str) -> str:
    """How far a fit is."""
    return f"{model}/checkpoint_{fit}"


def evaluation(model: str) -> str:
    return f"{model}/evaluation"


def model_version(model: str) -> str:
    return f"{model}/model_version"


def deployment(model: str) -> str:
    return f"{model}/deployment"


def dead_letters(model: str) -> str:
    """Messages that asked for a training and could not be one, by the day on which they were sent."""
    return f"{model}/dead_letters"


def prediction_log(model: str) -> str:
    """What the model server answered, by day."""
    return f"{model}/prediction_log"


def predictions(model: str) -> str:
    """Scores of all rows of a day."""
    return f"{model}/predictions"


def monitoring(model: str) -> str:
    """What was found of a day's rows and scores."""
    return f"{model}/monitoring"


def partition(key: str, day: date) -> str:
    """How a partition is written in messages and manifests."""
    return f"{key} [{day.isoformat()}]"


def parse_partition(name: str) -> tuple[str, date]:
    """Key and day of what `partition` wrote."""
    key, _, day = name.removesuffix("]").partition(" [")
    return key, date.fromisoformat(day)
