"""Steps as pods of their own, by dagster-k8s, on a cluster that has its bad days.

What dagster-k8s does not do: it gives up after half a minute without the API server or at the first word of a quota; a run that
is taken up again stumbles over the Job of a step that it had begun; it waits for ever, and without a word, for an image that cannot
be pulled, a node or quota; and where runs are taken up again, the steps of one that is cancelled run on.
"""

import json
import math
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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
from ml_platform.resources.cluster import START_TIMEOUT, WAITING
from ml_platform.resources.job_launcher import STUCK_FOR
from ml_platform.resources.namespace import OUTAGE, Namespace
from ml_platform.resources.training_pods import belongs, standing

LOOKED_AT_EVERY = 10  # seconds
SAID_AFTER = 10.0  # seconds in which a pod starts that waits for nothing
LOOKED_WITHIN = 60.0  # seconds within which a step is looked at again
TOLD_EVERY = 300.0  # seconds between lines that say that it still waits
GRACE = 30.0  # seconds after the moment at which a pod should be gone


def executor_of_pods(start_timeout: float) -> dg.ExecutorDefinition:
    """`k8s_job_executor`, with its step handler wrapped; pods of steps that say nothing of it may wait that many seconds."""
    from dagster_k8s import k8s_job_executor

    make = k8s_job_executor.executor_creation_fn
    assert make, "it is a plain executor"

    schema: Any = k8s_job_executor.config_schema

    @dg.executor(name="k8s", config_schema=schema, requirements=dg.multiple_process_executor_requirements())
    def pods(init_context: dg.InitExecutorContext) -> Executor:
        executor: Any = make(init_context)
        executor._check_step_health_interval_seconds = LOOKED_AT_EVERY
        executor._step_handler = steps = PodSteps(with_priority(executor._step_handler), start_timeout)
        return Cancellable(executor, steps)

    return pods


def priority_of(run: dg.DagsterRun) -> Any:
    """The priority class that the run's tags name, for pods that would not have it: dagster-k8s heeds tags in the run's own pod."""
    from dagster_k8s.container_context import K8sContainerContext
    from dagster_k8s.job import UserDefinedDagsterK8sConfig

    pod = json.loads(run.tags.get("dagster-k8s/config", "{}")).get("pod_spec_config", {})
    asked = {name: value for name, value in pod.items() if name == "priority_class_name"}
    return K8sContainerContext(run_k8s_config=UserDefinedDagsterK8sConfig.from_dict({"pod_spec_config": asked}))


def with_priority(handler: Any) -> Any:
    """The handler of dagster-k8s, whose pods have the priority class of their run."""
    of_step = handler._get_container_context
    handler._get_container_context = lambda context: of_step(context).merge(priority_of(context.dagster_run))
    return handler


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


@dataclass
class Wait:
    """Of a step whose pod has not started: since when, and what was said of it."""

    since: float
    limit: float  # seconds
    looked: float
    refused: str = ""  # why not even its Job could be made
    stuck_since: float = math.inf
    told: float = -math.inf
    words: str = ""


class PodSteps(StepHandler):
    """A handler of steps in front of that of dagster-k8s. What a pod waits for is in its run's log, and in a tag of the run."""

    def __init__(self, handler: StepHandler, start_timeout: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._handler = handler
        self._start_timeout = start_timeout  # of steps that say nothing of it
        self._clock = clock
        self._tagged: str | None = None
        self._waits: dict[str, Wait] = {}  # by step
        self._looked_at: dict[str, StepHandlerContext] = {}  # by step: those that were launched or found running

    @property
    def name(self) -> str:
        return self._handler.name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        step = _step(step_handler_context)
        self._looked_at[step] = step_handler_context
        self._waits[step] = self._begun(step_handler_context)
        yield from self._launch(step_handler_context, self._waits[step])

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        self._looked_at[step := _step(step_handler_context)] = step_handler_context
        wait = self._waits.setdefault(step, self._begun(step_handler_context))
        wait.looked = self._clock()
        result = self._looked(step_handler_context, wait)
        self._tag(step_handler_context)
        return result

    def _looked(self, step_handler_context: StepHandlerContext, wait: Wait) -> CheckStepHealthResult:
        step = _step(step_handler_context)
        if wait.refused:
            list(self._launch(step_handler_context, wait))
            if wait.refused:
                return self._waits_on(step_handler_context, wait, wait.refused)
            return CheckStepHealthResult.healthy()
        result = self._handler.check_step_health(step_handler_context)
        job, pods = _job_and_pods(step_handler_context, step)
        if not result.is_healthy:
            # To Kubernetes a pod that is told to go has failed; until it is gone it may save and say what has become of it.
            return CheckStepHealthResult.healthy() if any(map(_is_going, pods)) else result
        now_is = standing(job or {}, pods)
        if now_is.state not in ("waiting", "stuck"):
            del self._waits[step]
            return result
        wait.stuck_since = min(wait.stuck_since, self._clock()) if now_is.state == "stuck" else math.inf
        complaints = _namespace(step_handler_context).complaints(job["metadata"]["name"]) if job and not pods else []
        return self._waits_on(step_handler_context, wait, "; ".join([now_is.words, *complaints[-1:]]))

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        yield from self._handler.terminate_step(step_handler_context)

    def terminate_all(self) -> None:
        """End every step whose pod has not ended."""
        for step, context in self._looked_at.items():
            job, pods = _job_and_pods(context, step)
            waits = (
                job and not pods and not job.get("status", {}).get("conditions")
            )  # for quota: its pod would come later
            if waits or any(pod["status"].get("phase") in ("Pending", "Running") for pod in pods):
                list(self._handler.terminate_step(context))

    def _launch(self, context: StepHandlerContext, wait: Wait) -> Iterator[dg.DagsterEvent]:
        """Make the step's Job. A refusal that passes is noted, and the next look tries again; any other is raised."""
        from dagster_k8s.client import DagsterK8sAPIRetryLimitExceeded, DagsterK8sUnrecoverableAPIError
        from urllib3.exceptions import HTTPError

        wait.refused = ""
        while True:
            try:
                yield from self._handler.launch_step(context)
                return
            except DagsterK8sUnrecoverableAPIError as error:
                refusal: Any = error.k8s_api_exception
                if refusal.status == 409:
                    if _runs(_namespace(context), json.loads(refusal.body)["details"]["name"]):
                        return
                    continue
                if not (refusal.status == 403 and "exceeded quota" in str(refusal.body)):
                    raise
                wait.refused = f"its Job is refused: {json.loads(refusal.body)['message']}"
                return
            except (DagsterK8sAPIRetryLimitExceeded, HTTPError) as error:
                wait.limit = min(wait.limit, OUTAGE)
                wait.refused = f"the Kubernetes API does not answer: {error}"
                return

    def _waits_on(self, context: StepHandlerContext, wait: Wait, words: str) -> CheckStepHealthResult:
        """Say what a step's pod waits for, or that it has waited for too long."""
        now, step = self._clock(), _step(context)
        is_stuck = now - wait.stuck_since >= STUCK_FOR
        if is_stuck or now - wait.since >= wait.limit:
            del self._waits[step]
            if not wait.refused:
                list(self._handler.terminate_step(context))  # nobody would
            limit = "" if is_stuck else f" within {wait.limit:.0f} s (start_timeout of its resources)"
            return CheckStepHealthResult.unhealthy(f"its pod cannot start{limit}: {words}")
        if now - wait.since >= SAID_AFTER and (words != wait.words or now - wait.told >= TOLD_EVERY):
            wait.told, wait.words = now, words
            context.instance.report_engine_event(f"waiting: {words}", context.dagster_run, step_key=step)
        return CheckStepHealthResult.healthy()

    def _tag(self, context: StepHandlerContext) -> None:
        """On the run: what its steps wait for, as far as it was said. Those that are over are not looked at any more."""
        now = self._clock()
        said = {
            step: wait.words for step, wait in self._waits.items() if wait.words and now - wait.looked < LOOKED_WITHIN
        }
        words = "; ".join(f"{step}: {words}" for step, words in said.items())
        if self._tagged is None:
            self._tagged = context.dagster_run.tags.get(WAITING, "")
        if words != self._tagged:
            context.instance.add_run_tags(context.dagster_run.run_id, {WAITING: words})
            self._tagged = words

    def _begun(self, context: StepHandlerContext) -> Wait:
        limit = float(context.step_tags[_step(context)].get(START_TIMEOUT, self._start_timeout))
        return Wait(self._clock(), limit, self._clock())


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


def _job_and_pods(context: StepHandlerContext, step: str) -> tuple[dict[str, Any] | None, list[dict[str, Any]]]:
    """Of the last try of a step: those before have left theirs."""
    from dagster_k8s.utils import sanitize_k8s_label

    labels = {"dagster/run-id": context.execute_step_args.run_id, "dagster/op": sanitize_k8s_label(step)}
    namespace = _namespace(context)
    job = namespace.newest_job_with(labels)
    pods = namespace.pods_with(labels)
    return job, [pod for pod in pods if job is None or belongs(pod, job)]
