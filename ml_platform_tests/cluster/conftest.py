"""One platform for all scenarios of this folder, which follow each other as its days do."""

import os
from collections.abc import Iterator

import pytest

from ml_platform_tests.cluster.world import ASKED, Cluster, answers, on_cluster, on_double, secrets


@pytest.fixture(scope="module")
def cluster(
    processes: None, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    with pytest.MonkeyPatch.context() as patch:
        for name in (
            "AWS_ACCESS_KEY_ID",
            "AWS_SECRET_ACCESS_KEY",
            "MLFLOW_TRACKING_USERNAME",
            "MLFLOW_TRACKING_PASSWORD",
        ):
            patch.setenv(name, secrets()[name])
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        if os.environ.get(ASKED):
            with on_cluster(folder) as world:
                yield _up(world)
            return
        with on_double(folder, request.getfixturevalue("nursery"), request.getfixturevalue("postgres_url")) as (
            world,
            _,
        ):
            yield _up(world)


def _up(world: Cluster) -> Cluster:
    """Once everything answers."""
    for name in ("s3", "redis", "mlflow", "model-server", "dagster-code", "dagster-webserver", "dagster-daemon"):
        world.eventually(lambda name=name: world.is_rolled_out(name), 600, name)
    for url in world.urls.values():
        world.eventually(lambda url=url: answers(url), 120, f"an answer at {url}")
    return world
