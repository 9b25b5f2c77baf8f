"""A training job as files: all that a process of its own needs to fit one candidate.

    job.json            trainer, params, task, classes (0 for regression), seed, features (the columns of x)
    rows.safetensors    train.x, validation.x: float32 [rows, features]; train.y, validation.y: [rows]

What the process leaves are the trainer's own files, as `Trainer.save` returns them.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors.numpy
from pydantic import BaseModel, ConfigDict, ValidationError

from ml_platform.core.errors import TrainingError
from ml_platform.core.tasks import Task
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers import Context, Labelled

JOB = "job.json"
ROWS = "rows.safetensors"


class Job(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)
    trainer: str
    params: dict[str, Any] = {}
    task: Task = "binary_classification"
    classes: int = 2
    seed: int = 7
    features: tuple[Feature, ...] = ()

    @classmethod
    def of(cls, trainer: str, params: Mapping[str, Any], context: Context) -> "Job":
        asked = {name: getattr(context, name) for name in ("task", "classes", "seed", "features")}
        return cls(trainer=trainer, params=dict(params), **asked)


def to_files(job: Job, train: Labelled, validation: Labelled) -> dict[str, bytes]:
    """The job's files by name."""
    arrays = {"train.x": train.x, "train.y": train.y, "validation.x": validation.x, "validation.y": validation.y}
    contiguous = {name: np.ascontiguousarray(array) for name, array in arrays.items()}
    return {JOB: job.model_dump_json(indent=1).encode(), ROWS: safetensors.numpy.save(contiguous)}


def from_files(files: Mapping[str, bytes], subject: str) -> tuple[Job, Labelled, Labelled]:
    """The job, its training rows and its validation rows.

    Raises:
        TrainingError: if they are not the files of a job.
    """
    try:
        job, arrays = Job.model_validate_json(files[JOB]), safetensors.numpy.load(files[ROWS])
        train, validation = (Labelled(arrays[f"{part}.x"], arrays[f"{part}.y"]) for part in ("train", "validation"))
    except (KeyError, ValidationError, safetensors.SafetensorError) as error:
        problem = f"is no training job: {type(error).__name__}: {' '.join(str(error).split())}"
        raise TrainingError(subject, problem, f"write {JOB} and {ROWS} anew") from error
    return job, train, validation
