"""Models: the one file that a team writes."""

from pydantic import Field, model_validator

from ml_platform.core.mistakes import Location, misplaced
from ml_platform.core.spec.base import Described, Name
from ml_platform.core.spec.gates import GateSpec
from ml_platform.core.spec.monitoring import MonitoringSpec
from ml_platform.core.spec.predictions import PredictionsSpec
from ml_platform.core.spec.resources import PodSpec, ResourcesSpec
from ml_platform.core.spec.rollout import ROW_METRICS, RolloutSpec
from ml_platform.core.spec.training import CandidateSpec, LabelSpec, TrainingSpec
from ml_platform.core.spec.triggers import TriggersSpec
from ml_platform.core.tasks import METRICS, SELECT_BY, Metric, Task


class ModelSpec(Described):
    task: Task = Field(default="binary_classification", description="what is predicted")
    entity_rows: Name = Field(description="the source whose rows are scored: one training row each")
    label: LabelSpec = Field(description="what came true")
    features: tuple[Name, ...] = Field(min_length=1, description="names of feature views")
    training: TrainingSpec = Field(default=TrainingSpec(), description="on which days it is trained, and when")
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
    predictions: PredictionsSpec = Field(default=PredictionsSpec(), description="scores of whole days")
    rollout: RolloutSpec = Field(default=RolloutSpec(), description="how a version that passed becomes champion")
    monitoring: MonitoringSpec = Field(default=MonitoringSpec(), description="what is watched of the deployed version")
    triggers: TriggersSpec = Field(default=TriggersSpec(), description="what asks for a training from outside")

    @model_validator(mode="after")
    def _gates_differ(self) -> "ModelSpec":
        names = [gate.name for gate in self.gates]
        for position, name in enumerate(names):
            if name in names[:position]:
                raise misplaced(("gates", position), f"two gates say the same: {name}")
        return self

    @model_validator(mode="after")
    def _metrics_are_of_the_task(self) -> "ModelSpec":
        self._is_of_the_task(("training", "select_by"), self.training.select_by)
        self._is_of_the_task(("monitoring", "metric"), self.monitoring.metric)
        for position, gate in enumerate(self.gates):
            at = ("gates", position)
            if not gate.is_own_metric:
                self._is_of_the_task((*at, "metric"), gate.metric)
            if gate.check == "min_class_ratio" and self.task == "regression":
                raise misplaced((*at, "check"), "min_class_ratio is for classes, and regression has none")
            if gate.check == "cold_start_is_sane" and self.task != "binary_classification":
                problem = f"cold_start_is_sane holds probabilities against a base rate, and {self.task} has none"
                raise misplaced((*at, "check"), problem)
        limit, comparable = self.rollout.abort_if.metric, ROW_METRICS[self.task]
        if limit and limit.name not in comparable:
            problem = f"{limit.name} is not among {', '.join(comparable)}, which are means over rows of {self.task}"
            raise misplaced(("rollout", "abort_if", "metric"), problem)
        return self

    def _is_of_the_task(self, location: Location, metric: str | None) -> None:
        known = METRICS[self.task]
        if metric is not None and metric not in known:
            raise misplaced(location, f"{metric} is no metric of {self.task}; {', '.join(known)} are")

    @model_validator(mode="after")
    def _trials_have_days(self) -> "ModelSpec":
        training = self.training
        if self.searched and training.window_days <= training.validation_days:
            problem = f"{training.window_days} days (window_days) leave none to fit trials on before the "
            problem += f"{training.validation_days} (validation_days) that they are scored on: widen it"
            raise misplaced(("training", "window_days"), problem)
        return self

    @property
    def searched(self) -> dict[int, CandidateSpec]:
        """The candidates whose params are found by trials, by their position from 1."""
        return {position: one for position, one in enumerate(self.candidates, start=1) if one.search}

    @property
    def select_by(self) -> Metric:
        """The metric by which the best candidate is taken."""
        return self.training.select_by or SELECT_BY[self.task]
