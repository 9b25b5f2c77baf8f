"""What messages set in motion: a sensor over the Kafka topics that model files name.

How far it has read is its cursor, which Dagster writes after the runs of a tick. Where a tick dies between the two, the next one
asks for the same runs by the same keys, and Dagster starts none twice.
"""

import json
from datetime import UTC, datetime

import dagster as dg

from ml_platform.components.execution import training_run_config
from ml_platform.components.graph import asset_key
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import StackError
from ml_platform.core.settings import load_settings
from ml_platform.core.spec import AutomationSpec
from ml_platform.resources.lake import Lake
from ml_platform.resources.messages import Refused, Waits, answer, set_aside, topics_of
from ml_platform.resources.topics import Message, Topics
from ml_platform.resources.triggers import Request, training_assets
from ml_platform.training.overrides import run_config

MOST = 20  # messages of a partition in a tick


def kafka_sensor(catalog: Catalog, pace: AutomationSpec) -> dg.SensorDefinition:
    topics = topics_of(catalog)

    @dg.sensor(
        name="kafka_sensor",
        asset_selection=dg.AssetSelection.assets(
            *(asset_key(key) for models in topics.values() for spec in models for key in training_assets(spec))
        ),
        default_status=dg.DefaultSensorStatus.RUNNING,
        minimum_interval_seconds=pace.kafka_interval,
        description="Starts the trainings that messages ask for; what cannot be one is set aside with the reason.",
    )
    def kafka(context: dg.SensorEvaluationContext, lake: dg.ResourceParam[Lake]) -> dg.SensorResult:
        cluster, now = Topics.at(load_settings()), datetime.now(UTC)
        positions: dict[str, dict[str, int]] = json.loads(context.cursor or "{}")
        requests, said, unread = list[dg.RunRequest](), list[str](), list[StackError]()
        for topic, models in topics.items():
            read_to, waiting = positions.setdefault(topic, {}), set[int]()
            try:
                found = cluster.read(topic, {int(p): offset for p, offset in read_to.items()}, MOST)
            except StackError as error:
                unread.append(error)
                continue
            for message in found:
                if message.partition in waiting:
                    continue
                outcome = answer(message, models, catalog, lake, now)
                if isinstance(outcome, Waits):
                    waiting.add(message.partition)
                    said.append(outcome.reason)
                    continue
                if isinstance(outcome, Refused):
                    path = set_aside(lake, message, models, outcome.reason)
                    said.append(f"{message.id} is set aside in {path}: {outcome.reason}")
                else:
                    requests.append(_run_request(message, outcome, catalog))
                read_to[str(message.partition)] = message.offset + 1
        if len(unread) == len(topics):
            raise unread[0]
        for words in (*said, *map(str, unread)):
            context.log.warning(words)
        reason = "; ".join([*said, *map(str, unread)]) or "no new messages"
        return dg.SensorResult(requests, None if requests else reason, json.dumps(positions))

    return kafka


def _run_request(message: Message, request: Request, catalog: Catalog) -> dg.RunRequest:
    spec = catalog.models[request.model]
    return dg.RunRequest(
        run_key=message.id,
        partition_key=request.as_of.isoformat(),
        asset_selection=[asset_key(key) for key in training_assets(spec)],
        tags=request.tags(catalog.cluster),
        run_config={**training_run_config(spec), **run_config(request.model, request.overrides)},
    )
