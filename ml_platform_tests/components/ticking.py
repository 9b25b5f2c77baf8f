"""Ticks of the sensor over topics, as Dagster's daemon makes them: `python -m ml_platform_tests.components.ticking RUN_LAUNCHED` dies there."""

import logging
import signal
import sys

import dagster as dg
from dagster._core.remote_origin import InProcessCodeLocationOrigin
from dagster._core.test_utils import create_test_daemon_workspace_context
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._core.workspace.load_target import InProcessWorkspaceLoadTarget
from dagster._daemon.run_coordinator import QueuedRunCoordinatorDaemon
from dagster._daemon.sensor import execute_sensor_iteration

from ml_platform.components.execution import executor
from ml_platform.components.graph import asset_key, daily
from ml_platform.components.messages import kafka_sensor
from ml_platform.components.overriding import config_schema
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import AutomationSpec, TriggersSpec
from ml_platform.resources import triggers
from ml_platform.resources.lake import Lake

TOPIC, MODEL = "wishes", "fraud_detection"


def catalog() -> Catalog:
    """The built-in one, whose model has a topic."""
    found = load_catalog(find_project(EXAMPLE).defs)
    spec = found.models[MODEL].model_copy(update={"triggers": TriggersSpec(topic=TOPIC)})
    return Catalog(found.sources, found.views, {MODEL: spec})


@dg.definitions
def definitions() -> dg.Definitions:
    """The assets of a training, as far as they are asked for; inputs are complete."""
    triggers.training_fingerprint = lambda *_: "inputs"
    known = catalog()
    spec = known.models[MODEL]

    def asset(key: str, number: int) -> dg.AssetsDefinition:
        schema = config_schema(spec) if number == 0 else None
        calendar = daily(known.sources[spec.entity_rows].start_date)

        @dg.asset(key=asset_key(key), partitions_def=calendar, config_schema=schema)
        def made() -> None: ...

        return made

    assets = [asset(key, number) for number, key in enumerate(triggers.training_assets(spec))]
    sensor = kafka_sensor(known, AutomationSpec(kafka_interval=1))
    settings = load_settings()
    resources = {"lake": Lake.at(settings)}
    return dg.Definitions(assets, sensors=[sensor], resources=resources, executor=executor(settings, known))


PLACE = InProcessWorkspaceLoadTarget(
    InProcessCodeLocationOrigin(
        LoadableTargetOrigin(module_name="ml_platform_tests.components.ticking", attribute="definitions"),
        location_name="wishes",
    )
)


def tick(instance: dg.DagsterInstance, dies_at: str = "") -> None:
    """One look of the daemon at its sensors; they tick if it is time."""
    flags = {"kafka_sensor": {dies_at: signal.SIGKILL}} if dies_at else None
    with create_test_daemon_workspace_context(PLACE, instance) as workspace:
        list(execute_sensor_iteration(workspace, logging.getLogger("ticks"), None, None, debug_crash_flags=flags))


def dequeue(instance: dg.DagsterInstance) -> None:
    """One look of the daemon at its queue of runs."""
    with create_test_daemon_workspace_context(PLACE, instance) as workspace:
        list(QueuedRunCoordinatorDaemon(interval_seconds=1).run_iteration(workspace))


if __name__ == "__main__":
    with dg.DagsterInstance.get() as own:
        tick(own, sys.argv[1])
