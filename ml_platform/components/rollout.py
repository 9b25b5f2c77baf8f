"""Rollouts go on by themselves: one sensor looks at all of them."""

import json

import dagster as dg

from ml_platform.components.graph import asset_key
from ml_platform.components.release import step_metadata
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import PlatformError, RegistryError
from ml_platform.core.spec import AutomationSpec
from ml_platform.resources.lake import Lake
from ml_platform.resources.model_server import ModelServer
from ml_platform.resources.registry import Registry
from ml_platform.resources.release import Clock, progress, utc_now
from ml_platform.rollout.state import Rollout

ASK_AGAIN = 300.0  # seconds after which a proof that has not come is asked for again
SENSOR = "rollout_progress_sensor"


def rollout_progress_sensor(catalog: Catalog, pace: AutomationSpec, clock: Clock = utc_now) -> dg.SensorDefinition:
    """Decides in the tick itself, so that no queue of runs stands between a bad version and its end.

    Each state that a rollout has come to is reported once as a materialization of the deployment: the cursor says which
    have been. A new champion's proof is a run of the deployment.
    """

    @dg.sensor(
        name=SENSOR,
        asset_selection=dg.AssetSelection.assets(*(asset_key(keys.deployment(model)) for model in catalog.models)),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.rollout_interval,
        description="Looks at every rollout: goes on to the next step, ends a bad one, or has the new champion proven.",
    )
    def rollout_progress(
        context: dg.SensorEvaluationContext,
        lake: dg.ResourceParam[Lake],
        registry: dg.ResourceParam[Registry],
        server: dg.ResourceParam[ModelServer],
    ) -> dg.SensorResult:
        reported: dict[str, str] = json.loads(context.cursor or "{}")
        events: list[dg.AssetMaterialization] = []
        observed: list[dg.AssetObservation] = []
        requests: list[dg.RunRequest] = []
        unreadable: dict[str, RegistryError] = {}
        rollouts = registry.rollouts(unreadable)
        by_hand = {model: number for model, number in registry.set_by_hand().items() if model in catalog.models}
        for error in unreadable.values():  # the other models' rollouts go on
            context.log.warning(str(error))
        for model, seen in rollouts.items():
            if model not in catalog.models:
                continue
            states = [seen]
            if not seen.is_over:
                try:
                    after = progress(catalog.models[model], catalog, lake, registry, server, SENSOR, clock)
                except PlatformError as error:  # the other models' rollouts go on
                    context.log.warning(f"{model}: its rollout waits: {error}")
                    after = seen
                states += [after] if after else []
            for state in states:
                if reported.get(model) != identity(state):
                    reported[model] = identity(state)
                    if not state.last.by.startswith("run "):  # a run reports by itself
                        events.append(_materialization(model, state))
            requests += _proof(model, states[-1], clock)
        for model, number in by_hand.items():
            if reported.get(place := f"{model} by hand") != number:
                reported[place] = number
                observed.append(_set_by_hand(model, number))
                context.log.warning(observed[-1].description or "")
        reported = {
            place: seen for place, seen in reported.items() if place.split(" ")[0] in by_hand or " " not in place
        }
        return dg.SensorResult(asset_events=[*events, *observed], run_requests=requests, cursor=json.dumps(reported))

    return rollout_progress


def identity(rollout: Rollout) -> str:
    """A state of a rollout, unlike all others of the model."""
    return f"{rollout.version} {rollout.began.isoformat()} {rollout.number}"


def _materialization(model: str, rollout: Rollout) -> dg.AssetMaterialization:
    key = asset_key(keys.deployment(model))
    return dg.AssetMaterialization(key, partition=rollout.training_date or None, metadata=step_metadata(rollout))


def _set_by_hand(model: str, number: str) -> dg.AssetObservation:
    words = f"{model}: somebody moved its alias champion to version {number} in the registry, past rollouts and gates. "
    words += (
        f"Servers go on as before unless ML_PLATFORM_SERVE_BY_HAND is true. Next: ml-platform promote {model} {number}"
    )
    return dg.AssetObservation(asset_key(keys.deployment(model)), description=words, metadata={"version": number})


def _proof(model: str, rollout: Rollout, clock: Clock) -> list[dg.RunRequest]:
    """The run that proves a new champion: at once if this sensor promoted it, or if whoever did has not done it for long."""
    if rollout.phase != "proving" or not rollout.training_date:
        return []
    attempt = int((clock() - rollout.since).total_seconds() // ASK_AGAIN)
    if attempt == 0 and rollout.last.by != SENSOR:
        return []
    return [
        dg.RunRequest(
            run_key=f"{model}:{identity(rollout)}:{attempt}",
            partition_key=rollout.training_date,
            asset_selection=[asset_key(keys.deployment(model))],
            tags={"ml_platform/reason": f"prove version {rollout.version}"},
        )
    ]
