"""The platform on Kubernetes: from landed files to a served model, and what happens to a training on its way.

The scenarios follow each other on one platform. `make test-cluster` runs them on a real cluster.
"""

import json
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from typing import Any

import boto3
import pytest
import yaml
from rich.console import Console

from ml_platform.core import keys
from ml_platform.examples.fraud.producer import simulated
from ml_platform.local import demo
from ml_platform.local.story import Outcome, World, ask
from ml_platform.resources.object_store import client_options
from ml_platform_tests.cluster.world import COMPONENT, NAMESPACE, NEXT, TAG, Cluster, answers, platform_env
from ml_platform_tests.conftest import FIRST_DAY, STORY_DAYS

pytestmark = pytest.mark.story
MODEL = "fraud_detection"
CANDIDATE = keys.candidate(MODEL)
AFTER_MIGRATION = ("dagster-code", "dagster-daemon", "dagster-webserver", "mlflow", "model-server")
STEP = CANDIDATE.replace("/", "__")


def training_gets(**more: int | str) -> str:
    """ML_PLATFORM_CLUSTER as the overlay has it, where a training gets more."""
    given = yaml.safe_load(platform_env()["ML_PLATFORM_CLUSTER"])
    given["profiles"]["gpu-training"] |= more
    return json.dumps(given)


@pytest.fixture(scope="module")
def trained(cluster: Cluster) -> date:
    """The training date of the model that came of the landed days."""
    files = simulated(STORY_DAYS, 2_000, FIRST_DAY, 7, timedelta(days=7))
    world, outcome = World.at(cluster.settings), Outcome()
    arrived = demo.watch_until_deployed(world, files, outcome, Console(stderr=True))
    assert arrived, outcome.failures
    ask(world, files, outcome)
    assert not outcome.failures
    return world.lake.days(keys.training_set(MODEL))[-1]


@pytest.fixture
def training(cluster: Cluster, trained: date) -> str:
    """A training that has begun: the id of its run."""
    return cluster.launch([CANDIDATE], trained.isoformat())


def said(cluster: Cluster, run: str, words: str) -> bool:
    return any(words in str(event.get("message")) for event in cluster.events(run))


def assert_succeeds(cluster: Cluster, run: str) -> None:
    assert cluster.ended(run) == "SUCCESS", cluster.story(run)


def limits(pod: object) -> dict[str, str]:
    return pod.spec.containers[0].resources.limits  # type: ignore[attr-defined]


def test_schemas_were_migrated_before_anything_else(cluster: Cluster) -> None:
    migrated = cluster.batch.read_namespaced_job("migration", NAMESPACE).status.completion_time
    for name in AFTER_MIGRATION:
        assert all(pod.metadata.creation_timestamp >= migrated for pod in cluster.pods({"app": name})), name


def test_landed_files_become_a_gated_model_that_answers(trained: date) -> None:
    assert trained == FIRST_DAY + timedelta(days=STORY_DAYS)


def test_every_step_was_a_pod_of_its_own_with_what_the_model_file_asks_for(cluster: Cluster, trained: date) -> None:
    pods = cluster.pods({COMPONENT: "step_worker"})
    assert {STEP, "fraud_detection__evaluation", "transactions__raw"} <= {
        pod.metadata.labels["dagster/op"] for pod in pods
    }
    candidate = next(pod for pod in pods if pod.metadata.labels["dagster/op"] == STEP)
    assert limits(candidate) == {"memory": "1536Mi"}
    assert candidate.spec.active_deadline_seconds is None  # that is the Job's
    assert candidate.spec.security_context.run_as_non_root
    assert candidate.spec.containers[0].security_context.read_only_root_filesystem


def test_step_whose_pod_is_killed_is_tried_again_and_its_log_is_in_s3_while_it_runs(
    cluster: Cluster, training: str
) -> None:
    s3 = boto3.client("s3", **client_options(cluster.settings))

    def logged() -> bool:
        found = s3.list_objects_v2(Bucket="logs", Prefix=f"compute-logs/storage/{training}").get("Contents", [])
        return any(one["Size"] for one in found)

    pod = cluster.running_pod(training, STEP)
    cluster.eventually(lambda: said(cluster, training, "epoch 2 of"), 300, "an epoch's line")
    cluster.kill(pod)
    cluster.running_pod(training, STEP)
    cluster.eventually(logged, 60, "a log in S3")
    assert cluster.status(training) == "STARTED"
    assert_succeeds(cluster, training)
    assert any(event["__typename"] == "ExecutionStepUpForRetryEvent" for event in cluster.events(training))
    assert said(cluster, training, "going on from the checkpoint in epoch"), cluster.story(training)


@pytest.fixture
def node(cluster: Cluster) -> Iterator[str]:
    """The first node, which comes out of this as it was."""
    name = cluster.node()
    yield name
    cluster.uncordon(name)
    cluster.advertise_gpus(name, 0)


def test_node_is_drained_under_a_training(cluster: Cluster, training: str, node: str) -> None:
    """Run and step are asked to go; the run is taken up again, the step goes on from its checkpoint."""
    pod = cluster.running_pod(training, STEP)
    cluster.eventually(lambda: said(cluster, training, "epoch 2 of"), 300, "an epoch's line")
    cluster.drain(pod.spec.node_name, {"dagster/run-id": training})
    cluster.eventually(
        lambda: not [one for one in cluster.pods({"dagster/run-id": training}) if one.status.phase == "Running"], 120
    )
    assert cluster.status(training) == "STARTED"
    cluster.uncordon(node)
    assert_succeeds(cluster, training)
    assert said(cluster, training, "going on from the checkpoint in epoch"), cluster.story(training)


def test_run_whose_pod_finds_no_node_is_cancelled_by_force_and_does_nothing_later(
    cluster: Cluster, trained: date, node: str
) -> None:
    cluster.cordon(node)
    run = cluster.launch([CANDIDATE], trained.isoformat())
    cluster.eventually(lambda: bool(cluster.pods({"dagster/run-id": run})), 300, "the run's pod")
    assert cluster.status(run) == "STARTING"
    cluster.cancel(run, by_force=True)
    assert cluster.status(run) == "CANCELED"
    cluster.uncordon(node)
    cluster.eventually(
        lambda: all(pod.status.phase in ("Succeeded", "Failed") for pod in cluster.pods({"dagster/run-id": run})), 300
    )
    assert not any(event["__typename"] == "ExecutionStepStartEvent" for event in cluster.events(run))


@pytest.fixture
def differing(cluster: Cluster) -> Iterator[Callable[..., None]]:
    """Say what a training gets otherwise than the overlay does, for as long as a test takes."""

    def differ(**resources: int | str) -> None:
        cluster.configure(ML_PLATFORM_CLUSTER=training_gets(**resources))

    yield differ  # runs that begin from now on have it
    cluster.configure(ML_PLATFORM_CLUSTER=training_gets())


def test_training_with_a_gpu_waits_for_a_node_that_has_one(
    cluster: Cluster, trained: date, node: str, differing: Callable[..., None]
) -> None:
    differing(gpu=1)
    run = cluster.launch([CANDIDATE], trained.isoformat())
    of_step = {"dagster/run-id": run, "dagster/op": STEP}
    cluster.eventually(lambda: bool(cluster.pods(of_step)), 300, "a pod of the step")
    (pod,) = cluster.pods(of_step)
    assert limits(pod) == {"memory": "1536Mi", "nvidia.com/gpu": "1"}
    assert pod.status.phase == "Pending"
    cluster.advertise_gpus(node, 1)
    assert cluster.running_pod(run, STEP).spec.node_name == node
    assert_succeeds(cluster, run)


@pytest.fixture
def of_two_pods(cluster: Cluster, trained: date, differing: Callable[..., None]) -> tuple[str, list[Any]]:
    """The run of a training in two pods of a Job of its own, and these, once they train."""
    differing(nodes=2, processes=1, memory="768Mi")  # three of these and a run fit onto the smallest node
    run = cluster.launch([CANDIDATE], trained.isoformat())

    def running() -> list[Any]:
        return [
            pod for pod in cluster.pods({"dagster/run-id": run, COMPONENT: "training"}) if pod.status.phase == "Running"
        ]

    cluster.eventually(lambda: len(running()) == 2, 300, "two pods that train")
    return run, running()


def test_training_of_two_pods_goes_on_after_one_was_evicted(
    cluster: Cluster, of_two_pods: tuple[str, list[Any]]
) -> None:
    run, pods = of_two_pods
    cluster.evict(pods[1])
    assert_succeeds(cluster, run)
    assert any("preempted, no failure" in str(event.get("message")) for event in cluster.events(run))


def test_cancelled_run_leaves_no_pod(cluster: Cluster, of_two_pods: tuple[str, list[Any]]) -> None:
    run, _ = of_two_pods
    cluster.cancel(run)
    assert cluster.ended(run) == "CANCELED", cluster.story(run)
    step = {"dagster/run-id": run, "dagster/op": STEP}
    cluster.eventually(lambda: not [pod for pod in cluster.pods(step) if pod.status.phase == "Running"], 60)
    assert not any(event["__typename"] == "ExecutionStepSuccessEvent" for event in cluster.events(run)), "it ran on"
    cluster.eventually(
        lambda: (
            not [pod for pod in cluster.pods({"dagster/run-id": run}) if pod.status.phase in ("Running", "Pending")]
        ),
        120,
    )


def test_release_is_rolled_out_under_a_training_and_taken_back(cluster: Cluster, training: str) -> None:
    """Code location, daemon, webserver, MLflow and server are replaced; the run began with the release before, and ends with it."""
    image = cluster.running_pod(training, STEP).spec.containers[0].image
    assert cluster.deploy(NEXT).wait() == 0
    assert_succeeds(cluster, training)
    assert {pod.spec.containers[0].image for pod in cluster.pods({"dagster/run-id": training})} == {image}
    assert cluster.deploy(TAG).wait() == 0
    cluster.eventually(lambda: answers(f"{cluster.urls['model-server']}/ready"), 120, "the server")
