"""What becomes of a step that trains and is asked to stop: it is preempted, cancelled, or out of time."""

from collections.abc import Iterator
from contextlib import contextmanager

import dagster as dg

from ml_platform.components.graph import limits
from ml_platform.core.errors import Interrupted, TrainingError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import ResourcesSpec, seconds
from ml_platform.core.threads import limited, share
from ml_platform.resources.cluster import pool
from ml_platform.resources.stopping import Stop, stoppable

PREEMPTIONS = 20  # of one step; then something else is wrong
LONGEST_WAIT = 300.0  # seconds before a step that was preempted is started again
_CANCELLED = (dg.DagsterRunStatus.CANCELING, dg.DagsterRunStatus.CANCELED)


@contextmanager
def within_limits(
    context: dg.AssetExecutionContext | dg.OpExecutionContext, subject: str, resources: ResourcesSpec
) -> Iterator[Stop]:
    """A step's work, which asks the `Stop` and raises `Interrupted`. Preempted, it is tried again and goes on from its
    checkpoint; that counts as none of its retries. Cancelled or out of time, it is final.

    Left to itself Dagster would raise its own error wherever the work is, and retry a cancelled step in-process.
    """
    policy, before = limits(resources)["retry_policy"], preemptions(context)
    stop = Stop(seconds(resources.timeout))
    try:
        with stoppable(stop), limited(threads_of(context, resources)):
            yield stop
    except Interrupted as error:
        if stop.reason == "timeout":
            problem = f"training took longer than {resources.timeout}: {error.problem}"
            late = TrainingError(subject, problem, "raise resources.timeout; run again, it goes on from its checkpoint")
            raise dg.Failure(str(late), {"stopped": "timeout"}, allow_retries=False) from error
        if is_cancelled(context.instance, context.run.run_id):
            raise dg.Failure(f"{subject}: cancelled: {error.problem}", {"stopped": "cancelled"}, False) from error
        context.log.warning(f"{subject}: preempted, no failure: {error.problem}. Started again, it goes on from there.")
        if before == PREEMPTIONS:
            raise dg.Failure(f"{subject}: preempted {before + 1} times", {"stopped": "preempted"}, False) from error
        wait = min(policy.calculate_delay(before + 1), LONGEST_WAIT)
        raise dg.RetryRequested(max_retries=context.retry_number + 1, seconds_to_wait=wait) from error
    except (dg.Failure, dg.RetryRequested):
        raise
    except Exception as error:
        if not before:
            raise  # Dagster itself counts right
        wait = policy.calculate_delay(context.retry_number - before + 1)
        raise dg.RetryRequested(max_retries=policy.max_retries + before, seconds_to_wait=wait) from error


def threads_of(context: dg.AssetExecutionContext | dg.OpExecutionContext, resources: ResourcesSpec) -> int:
    """What the step computes with: its own processors in a pod, or its part of a machine that the pool's slots share."""
    if load_settings().executor == "k8s":
        return share(resources.cpu)
    own = pool(resources)
    limits_ = {one.name: one.limit for one in context.instance.event_log_storage.get_pool_limits()}
    default = context.instance.get_concurrency_config().pool_config.default_pool_limit
    return share(resources.cpu, limits_.get(own) or default or 1)


def is_cancelled(instance: dg.DagsterInstance, run_id: str) -> bool:
    """Whether nobody wants the run any more."""
    run = instance.get_run_by_id(run_id)
    return run is None or run.status in _CANCELLED


def is_last_try(context: dg.AssetExecutionContext | dg.OpExecutionContext, resources: ResourcesSpec) -> bool:
    """Whether the step is not tried again if it fails."""
    return context.retry_number - preemptions(context) >= resources.retried.max


def preemptions(context: dg.AssetExecutionContext | dg.OpExecutionContext) -> int:
    """How many of this step's tries in this run ended by preemption."""
    if not context.retry_number:
        return 0
    events = context.instance.all_logs(context.run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY)
    step = context.get_step_execution_context().step.key
    of_step = [event.dagster_event for event in events if event.dagster_event and event.dagster_event.step_key == step]
    causes = [event.step_retry_data.error.cause for event in of_step if event.step_retry_data.error]
    return sum(cause is not None and cause.cls_name == Interrupted.__name__ for cause in causes)
