"""One MLflow run per training, through dagster-mlflow's resource, without its faults.

| fault of the bare resource | here |
|---|---|
| steps that start at once search, find nothing, and each create a run | the first claim in the Dagster run's event log decides |
| the run of a failed step ends as FINISHED: it unregisters `mlflow.end_run`, and MLflow registers another function at exit | the step ends it, with what became of it |
| importing it imports MLflow and pandas | it is imported once a step tracks |
| steps that open an empty SQLite store at once create its tables twice | they do it one after the other |
| a server that is being replaced fails whatever trains | what trains tells it later; what begins or ends waits two minutes |
"""

import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.events import EngineEventData

from ml_platform.core.digest import of_bytes
from ml_platform.core.errors import Interrupted
from ml_platform.resources.mlflow_client import SOON, TWO_MINUTES, patience, prepare_mlflow

if TYPE_CHECKING:
    import pandas as pd

CLAIM = "mlflow_run"
SAMPLED_EVERY = 5  # seconds between samples of the system's metrics
PARTITION = "dagster/partition"


class Tracking:
    """The MLflow run of this Dagster run, kept by dagster-mlflow: all steps of a training log to one run."""

    def __init__(
        self,
        log: dg.DagsterLogManager,
        run: dg.DagsterRun,
        instance: dg.DagsterInstance,
        tracking_uri: str,
        dagster_url: str,
    ) -> None:
        self.log = log
        self.run = run
        self.instance = instance
        self.tracking_uri = tracking_uri
        self.dagster_url = dagster_url

    @contextmanager
    def step(self, experiment: str) -> Iterator[Any]:
        """A step's part of the run, with the metrics of the system meanwhile; the MLflow run ends as the step does.

        Yields dagster-mlflow's object, which has MLflow's functions.
        """
        from dagster_mlflow.resources import MlFlow  # it imports MLflow and pandas

        prepare_mlflow()
        with patience(TWO_MINUTES):
            with _alone(self.tracking_uri):
                run_id = self._run_id(experiment)
            config = {"experiment_name": experiment, "mlflow_tracking_uri": self.tracking_uri, "mlflow_run_id": run_id}
            named = SimpleNamespace(job_name=self._run_name(experiment))
            mlflow: Any = MlFlow(
                SimpleNamespace(log=self.log, dagster_run=named, run_id=self.run.run_id, resource_config=config)
            )
            with self._ended_as_the_step(mlflow), system_metrics(run_id, self.tracking_uri, self.log):
                yield mlflow

    @contextmanager
    def _ended_as_the_step(self, mlflow: Any) -> Iterator[None]:
        try:
            yield
        except (Interrupted, KeyboardInterrupt, DagsterExecutionInterruptedError):
            with patience(SOON), outlived(self.log):  # whoever asked to stop does not wait for long
                mlflow.end_run("KILLED")
            raise
        except BaseException:
            with patience(SOON), outlived(self.log):
                mlflow.end_run("FAILED")
            raise
        mlflow.end_run("FINISHED")

    def metadata(self, mlflow: Any) -> dict[str, Any]:
        """The active MLflow run for an asset's metadata: its id, and where people find it."""
        info = mlflow.active_run().info
        return {"mlflow_run_id": info.run_id, **self._link(info.experiment_id, info.run_id)}

    def _link(self, experiment_id: str, run_id: str) -> dict[str, Any]:
        """Nothing if MLflow is no server but a database, which has no pages."""
        if not self.tracking_uri.startswith("http"):
            return {}
        url = f"{self.tracking_uri.rstrip('/')}/#/experiments/{experiment_id}/runs/{run_id}"
        return {CLAIM: dg.MetadataValue.url(url)}

    def _run_name(self, experiment: str) -> str:
        return f"{experiment} {self.run.tags.get(PARTITION, self.run.run_id[:8])}"

    def _run_id(self, experiment: str) -> str:
        """The MLflow run that was claimed first for this Dagster run, or a new one.

        A search in MLflow cannot decide: two steps may both find nothing. The event log of the Dagster run has one order, which
        all its steps read alike: whoever finds another's claim before its own gives way.
        """
        if claimed := self._claimed(experiment):
            return claimed
        import mlflow

        mlflow.set_tracking_uri(self.tracking_uri)
        experiment_id = mlflow.set_experiment(experiment).experiment_id
        client = mlflow.MlflowClient(self.tracking_uri)
        url = f"{self.dagster_url}/runs/{self.run.run_id}"
        tags = {
            "dagster_run_id": self.run.run_id,
            "dagster_run_url": url,
            "mlflow.note.content": f"[Dagster run {self.run.run_id[:8]}]({url})",
        }
        created = client.create_run(experiment_id, tags=tags, run_name=self._run_name(experiment)).info.run_id
        self._claim(experiment, experiment_id, created)
        first = self._claimed(experiment)
        assert first, "there is at least this one's own claim"
        if first != created:
            client.delete_run(created)
        return first

    def _claim(self, experiment: str, experiment_id: str, run_id: str) -> None:
        link = self._link(experiment_id, run_id)
        data = EngineEventData(
            {"experiment": dg.MetadataValue.text(experiment), "mlflow_run_id": dg.MetadataValue.text(run_id), **link}
        )
        self.instance.report_engine_event(f"MLflow run {run_id} of {experiment}", self.run, data)

    def _claimed(self, experiment: str) -> str | None:
        return claims(self.instance, self.run.run_id).get(experiment)


def claims(instance: dg.DagsterInstance, dagster_run_id: str) -> dict[str, str]:
    """The MLflow run of each experiment that steps of a Dagster run log to."""
    found: dict[str, str] = {}
    for entry in instance.all_logs(dagster_run_id, of_type=dg.DagsterEventType.ENGINE_EVENT):
        event = entry.dagster_event
        metadata = event.engine_event_data.metadata if event else {}
        if "mlflow_run_id" in metadata and "experiment" in metadata:
            found.setdefault(str(metadata["experiment"].value), str(metadata["mlflow_run_id"].value))
    return found


@contextmanager
def system_metrics(run_id: str, tracking_uri: str, log: dg.DagsterLogManager) -> Iterator[None]:
    """Log processor, memory, disk, network and GPUs to the run, going on where an earlier step of the run stopped."""
    from mlflow.exceptions import MlflowException
    from mlflow.system_metrics.system_metrics_monitor import SystemMetricsMonitor
    from requests.exceptions import RequestException

    monitor = SystemMetricsMonitor(
        run_id, sampling_interval=SAMPLED_EVERY, resume_logging=True, tracking_uri=tracking_uri
    )
    monitor.start()
    try:
        yield
    finally:
        monitor.finish()
        try:  # MLflow's own thread throws away what it has not logged: of a short step that is everything
            monitor.collect_metrics()
            monitor.publish_metrics(monitor.aggregate_metrics())
            monitor.mlflow_logger.flush()
        except (MlflowException, RequestException) as error:
            log.warning(f"the last metrics of the system were not logged: {error}")


@contextmanager
def outlived(log: dg.DagsterLogManager) -> Iterator[None]:
    """What is told to MLflow while an error is on its way, which is not lost if MLflow is away."""
    from mlflow.exceptions import MlflowException

    try:
        yield
    except MlflowException as error:
        log.warning(f"MLflow was not told: {error}")


class Figures:
    """The figures of epochs, on their way to MLflow: while it is away the work goes on, and it is told later.

    `tell` gets epoch, figures by name, and when they were measured in milliseconds.
    """

    def __init__(self, tell: Callable[[int, Mapping[str, float], int], None], log: dg.DagsterLogManager) -> None:
        self._tell, self._log = tell, log
        self._untold: list[tuple[int, Mapping[str, float], int]] = []

    def __call__(self, epoch: int, figures: Mapping[str, float]) -> None:
        self._untold.append((epoch, figures, int(time.time() * 1_000)))
        with patience(SOON), outlived(self._log):
            self.finish()

    def finish(self) -> None:
        """Tell what is untold; MLflow's error if it is still away."""
        while self._untold:
            self._tell(*self._untold[0])
            del self._untold[0]


def log_files(mlflow: Any, files: Mapping[str, bytes], folder: str) -> None:
    """Files as artifacts of the active run, below `folder`."""
    with tempfile.TemporaryDirectory() as place:
        for name, content in files.items():
            (Path(place) / name).write_bytes(content)
        mlflow.log_artifacts(place, folder)


def log_dataset(mlflow: Any, frame: "pd.DataFrame", name: str, version: str, targets: str) -> None:
    """Say which rows the run is about: their schema, size and version."""
    from mlflow.data.code_dataset_source import CodeDatasetSource
    from mlflow.data.pandas_dataset import PandasDataset

    dataset = PandasDataset(frame, CodeDatasetSource({}), targets=targets, name=name, digest=version[:16])
    mlflow.log_input(dataset, context="training")


def _alone(tracking_uri: str) -> Any:
    """A lock around the first use of a SQLite store, whose tables MLflow creates without one."""
    if not tracking_uri.startswith("sqlite:"):
        return nullcontext()
    from mlflow.utils.file_utils import ExclusiveFileLock

    return ExclusiveFileLock(str(Path(tempfile.gettempdir()) / f"mlflow-{of_bytes(tracking_uri.encode())[:16]}.lock"))
