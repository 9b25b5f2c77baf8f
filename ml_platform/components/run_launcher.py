"""How runs are started on a laptop: as processes, whose death is noticed."""

import psutil
from dagster import DagsterEventType, DagsterRun
from dagster._core.launcher import WorkerStatus
from dagster._core.launcher.base import CheckRunHealthResult
from dagster._core.launcher.default_run_launcher import DefaultRunLauncher

STARTED = "Started process for run (pid: "
CLOCK_ERROR = 5.0  # seconds by which a process may seem to be younger than the event that it wrote


class ProcessRunLauncher(DefaultRunLauncher):
    """Dagster's own, which alone would take a run for running for ever once its process was killed.

    With it run monitoring ends such a run within its interval, also after the whole machine was off.
    """

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: DagsterRun) -> CheckRunHealthResult:
        events = self._instance.all_logs(run.run_id, of_type=DagsterEventType.ENGINE_EVENT)
        words = [(event.dagster_event.message or "", event.timestamp) for event in events if event.dagster_event]
        started = [(one, when) for one, when in words if STARTED in one]
        if not started:  # somebody runs it in a process of their own
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        last, when = started[-1]
        pid = int(last.split(STARTED, 1)[1].split(")", 1)[0])
        if _is_running(pid, when):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(WorkerStatus.FAILED, f"its process {pid} is gone")


def _is_running(pid: int, since: float) -> bool:
    """Whether it is this process still, and not another one that got its number later."""
    try:
        process = psutil.Process(pid)
        return process.status() != psutil.STATUS_ZOMBIE and process.create_time() <= since + CLOCK_ERROR
    except psutil.NoSuchProcess:
        return False
