"""Models: the one file that a team writes."""

from pydantic import Field, model_validator

from ml_platform.core.spec.base import Described, Name
from ml_platform.core.spec.gates import GateSpec
from ml_platform.core.spec.predictions import PredictionsSpec
from ml_platform.core.spec.resources import PodSpec, ResourcesSpec
from ml_platform.core.spec.rollout import ROW_METRICS, RolloutSpec
from ml_platform.core.spec.training import CandidateSpec, LabelSpec, TrainingSpec
from ml_platform.core.tasks import METRICS, SELECT_BY, Metric, Task


class ModelSpec(Described):
    task: Task = "binary_classification"
    entity_rows: Name = Field(description="the source whose rows are scored: one training row each")
    label: LabelSpec
    features: tuple[Name, ...] = Field(min_length=1, description="names of feature views")
    training: TrainingSpec = TrainingSpec()
    candidates: tuple[CandidateSpec, ...] = Field(
        min_length=1, description="trained side by side on the same rows; the best by training.select_by is taken"
    )
    resources: ResourcesSpec = Field(default=ResourcesSpec(), description="of the steps that train")
    batch_resources: PodSpec | None = Field(
        default=None,
        description="of the steps that read many rows and do not train: training_set, evaluation, predictions",
    )
    gates: tuple[GateSpec, ...] = Field(
        default=(GateSpec(check="no_null_predictions"),), description="what a candidate passes to be registered"
    )
    predictions: PredictionsSpec = PredictionsSpec()
    rollout: RolloutSpec = Field(default=RolloutSpec(), description="how a version that passed becomes champion")

    @model_validator(mode="after")
    def _gates_differ(self) -> "ModelSpec":
        names = [gate.name for gate in self.gates]
        if twice := {name for name in names if names.count(name) > 1}:
            raise ValueError(f"two gates say the same: {', '.join(sorted(twice))}")
        return self

    @model_validator(mode="after")
    def _metrics_are_of_the_task(self) -> "ModelSpec":
        named = {"training.select_by": self.training.select_by}
        named |= {
            f"gates.{position}.metric": gate.metric
            for position, gate in enumerate(self.gates)
            if not gate.is_own_metric
        }
        for field, metric in named.items():
            if metric is not None and metric not in METRICS[self.task]:
                raise ValueError(f"{field}: {metric} is no metric of {self.task}; {', '.join(METRICS[self.task])} are")
        if self.task == "regression" and any(gate.check == "min_class_ratio" for gate in self.gates):
            raise ValueError("gates: min_class_ratio is for classes, and regression has none")
        limit, comparable = self.rollout.abort_if.metric, ROW_METRICS[self.task]
        if limit and limit.name not in comparable:
            raise ValueError(
                f"rollout.abort_if.metric: {limit.name} is not among {', '.join(comparable)}, which are means over rows of {self.task}"
            )
        return self

    @model_validator(mode="after")
    def _trials_have_days(self) -> "ModelSpec":
        training = self.training
        if self.searched and training.window_days <= training.validation_days:
            raise ValueError(
                f"training.window_days ({training.window_days}) leaves no day to fit trials on before the "
                f"{training.validation_days} (training.validation_days) that they are scored on: widen it"
            )
        return self

    @property
    def searched(self) -> dict[int, CandidateSpec]:
        """The candidates whose params are found by trials, by their position from 1."""
        return {position: one for position, one in enumerate(self.candidates, start=1) if one.search}

    @property
    def select_by(self) -> Metric:
        """The metric by which the best candidate is taken."""
        return self.training.select_by or SELECT_BY[self.task]
