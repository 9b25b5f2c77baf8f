"""Steps as pods of their own, by dagster-k8s, on a cluster that has its bad days.

What dagster-k8s does not do: it gives up after half a minute without the API server or at the first word of a quota; a run that
is taken up again stumbles over the Job of a step that it had begun; it waits for ever for an image that cannot be pulled; and where
runs are taken up again, the steps of one that is cancelled run on.
"""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import dagster as dg
from dagster._core.errors import DagsterExecutionInterruptedError
from dagster._core.execution.context.system import PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.base import Executor
from dagster._core.executor.step_delegating import CheckStepHealthResult, StepHandler, StepHandlerContext

from ml_platform.components.stopping import is_cancelled
from ml_platform.resources.job_launcher import OUTAGE, STUCK_FOR, Namespace
from ml_platform.resources.training_pods import standing

PAUSE = 10.0  # seconds between tries
GRACE = 30.0  # seconds after the moment at which a pod should be gone


def executor_of_pods() -> dg.ExecutorDefinition:
    """`k8s_job_executor`, with its step handler wrapped."""
    from dagster_k8s import k8s_job_executor

    make = k8s_job_executor.executor_creation_fn
    assert make, "it is a plain executor"

    schema: Any = k8s_job_executor.config_schema

    @dg.executor(name="k8s", config_schema=schema, requirements=dg.multiple_process_executor_requirements())
    def pods(init_context: dg.InitExecutorContext) -> Executor:
        executor: Any = make(init_context)
        executor._step_handler = steps = PodSteps(executor._step_handler)
        return Cancellable(executor, steps)

    return pods


class Cancellable(Executor):
    """An executor whose steps end when their run is cancelled."""

    def __init__(self, executor: Executor, steps: "PodSteps") -> None:
        self._executor = executor
        self._steps = steps

    @property
    def retries(self) -> RetryMode:
        return self._executor.retries

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        try:
            yield from self._executor.execute(plan_context, execution_plan)
        except DagsterExecutionInterruptedError:
            if is_cancelled(
                plan_context.instance, plan_context.run_id
            ):  # if not, it is taken up again, and so are they
                self._steps.terminate_all()
            raise


class PodSteps(StepHandler):
    """A handler of steps in front of that of dagster-k8s."""

    def __init__(
        self,
        handler: StepHandler,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._handler = handler
        self._clock = clock
        self._sleep = sleep
        self._stuck_since: dict[str, float] = {}  # by step
        self._looked_at: dict[str, StepHandlerContext] = {}  # by step: those that were launched or found running

    @property
    def name(self) -> str:
        return self._handler.name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        from dagster_k8s.client import DagsterK8sAPIRetryLimitExceeded, DagsterK8sUnrecoverableAPIError
        from urllib3.exceptions import HTTPError

        self._looked_at[_step(step_handler_context)] = step_handler_context
        namespace, until = _namespace(step_handler_context), self._clock() + OUTAGE
        while True:
            try:
                yield from self._handler.launch_step(step_handler_context)
                return
            except DagsterK8sUnrecoverableAPIError as error:
                refusal: Any = error.k8s_api_exception
                if refusal.status == 409:
                    if _runs(namespace, json.loads(refusal.body)["details"]["name"]):
                        return
                    continue
                if not (refusal.status == 403 and "exceeded quota" in str(refusal.body)) or self._clock() > until:
                    raise
            except (DagsterK8sAPIRetryLimitExceeded, HTTPError):
                if self._clock() > until:
                    raise
            self._sleep(PAUSE)

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        result = self._handler.check_step_health(step_handler_context)
        self._looked_at[step := _step(step_handler_context)] = step_handler_context
        if not result.is_healthy:
            # To Kubernetes a pod that is told to go has failed; until it is gone it may save and say what has become of it.
            saving = any(_is_going(pod) for pod in _pods(step_handler_context, step))
            return CheckStepHealthResult.healthy() if saving else result
        now_is = standing({}, _pods(step_handler_context, step))
        if now_is.state != "stuck":
            self._stuck_since.pop(step, None)
            return result
        since = self._stuck_since.setdefault(step, self._clock())
        if self._clock() - since < STUCK_FOR:
            return result
        del self._stuck_since[step]
        list(self._handler.terminate_step(step_handler_context))  # nobody would
        return CheckStepHealthResult.unhealthy(f"its pod cannot start: {now_is.words}")

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        yield from self._handler.terminate_step(step_handler_context)

    def terminate_all(self) -> None:
        """End every step whose pod has not ended."""
        for step, context in self._looked_at.items():
            if any(pod["status"].get("phase") in ("Pending", "Running") for pod in _pods(context, step)):
                list(self._handler.terminate_step(context))


def _step(context: StepHandlerContext) -> str:
    (step,) = context.execute_step_args.step_keys_to_execute or [""]
    return step


def _is_going(pod: dict[str, Any]) -> bool:
    """Whether it still runs, though it was told to go; of a node that is gone nobody will say that it has ended."""
    deadline = pod["metadata"].get("deletionTimestamp")
    if not deadline or pod["status"].get("phase") != "Running":
        return False
    return datetime.now(UTC) < datetime.fromisoformat(deadline) + timedelta(seconds=GRACE)


def _namespace(context: StepHandlerContext) -> Namespace:
    from kubernetes.client import ApiClient

    launcher: Any = context.instance.run_launcher
    return Namespace(ApiClient(), launcher.job_namespace)


def _runs(namespace: Namespace, job: str) -> bool:
    """Whether a Job of a step that was begun before still runs; if not, it is taken away."""
    there = namespace.get("job", job)
    if there is None:
        return False
    status = there.get("status", {})
    if not status.get("failed") and not status.get("conditions") and "deletionTimestamp" not in there["metadata"]:
        return True
    namespace.delete("job", job)
    namespace.wait_until_gone("job", job)
    return False


def _pods(context: StepHandlerContext, step: str) -> list[dict[str, Any]]:
    from dagster_k8s.utils import sanitize_k8s_label

    run = context.execute_step_args.run_id
    return _namespace(context).pods_with({"dagster/run-id": run, "dagster/op": sanitize_k8s_label(step)})
