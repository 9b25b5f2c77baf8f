"""A code location with one training of the built-in model, which can be started in every way that Dagster has."""

from datetime import timedelta

import dagster as dg

from ml_platform.components import resources as adapters
from ml_platform.components.candidate import candidate_asset
from ml_platform.components.execution import executor
from ml_platform.components.graph import asset_key, read_catalog
from ml_platform.core import keys
from ml_platform.core.settings import load_settings

MODEL, JOB, SENSED = "fraud_detection", "training_job", "2018-06-03"
KEY = asset_key(keys.candidate(MODEL))
catalog = read_catalog()
spec = catalog.models[MODEL]
newest = dg.AutomationCondition.in_latest_time_window(timedelta(days=1)) & dg.AutomationCondition.missing()
(candidate,) = dg.map_asset_specs(
    lambda one: one.replace_attributes(automation_condition=newest & ~dg.AutomationCondition.in_progress()),
    [candidate_asset(spec, catalog)],
)
job = dg.define_asset_job(JOB, [KEY])


@dg.sensor(job=job, default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=5)
def training_sensor() -> dg.RunRequest:
    return dg.RunRequest(run_key="once", partition_key=SENSED)


defs = dg.Definitions(
    assets=[candidate],
    jobs=[job],
    sensors=[
        training_sensor,
        dg.AutomationConditionSensorDefinition(
            "automation", target=[KEY], default_status=dg.DefaultSensorStatus.RUNNING, minimum_interval_seconds=5
        ),
    ],
    resources={"lake": adapters.lake, "tracking": adapters.tracking},
    executor=executor(load_settings(), catalog),
)
