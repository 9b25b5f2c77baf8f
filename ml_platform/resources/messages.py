"""Messages that ask for trainings: each becomes a request, waits for its data, or is set aside with the reason."""

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime

from pydantic import ValidationError

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import ONE_DAY
from ml_platform.core.errors import SpecError, TrainingError
from ml_platform.core.mistakes import first_mistake
from ml_platform.core.spec import ModelSpec, TrainingMessage, duration
from ml_platform.resources.lake import Lake
from ml_platform.resources.topics import Message
from ml_platform.resources.triggers import Request, checked, newest_date

LARGEST = 64 << 10  # bytes of a message
KEPT = 4 << 10  # of one that is set aside


@dataclass(frozen=True)
class Waits:
    """Its data is not there yet; the messages behind it wait with it."""

    reason: str


@dataclass(frozen=True)
class Refused:
    """It will never be a training."""

    reason: str


def topics_of(catalog: Catalog) -> dict[str, list[ModelSpec]]:
    """Which models each topic asks for."""
    found: dict[str, list[ModelSpec]] = {}
    for spec in catalog.models.values():
        if spec.triggers.topic:
            found.setdefault(spec.triggers.topic, []).append(spec)
    return found


def answer(
    message: Message, models: Sequence[ModelSpec], catalog: Catalog, lake: Lake, now: datetime
) -> Request | Waits | Refused:
    """What becomes of a message of a topic of these models.

    Raises:
        LakeError: if it cannot be told what is there.
    """
    try:
        said = read(message.content)
        spec = model_of(said, models)
    except SpecError as error:
        return Refused(str(error))
    why = ", ".join([said.reason or "by a message", message.id, *([said.data] if said.data else [])])
    try:
        known_on = _data_is_there(said.data, spec, catalog, lake) if said.data else None
        day = said.as_of or newest_date(lake, spec)
        if known_on and day < known_on:
            raise SpecError(f"`as_of`: {day}", f"does not know {said.data}", f"{known_on} or later")
        if day > now.date():
            raise TrainingError(keys.partition(keys.training_set(spec.name), day), "that day has not begun", "wait")
        return checked(catalog, lake, Request(spec.name, day, "message", why, said.priority, said.overrides))
    except SpecError as error:
        return Refused(str(error))
    except TrainingError as error:
        waited = abs(now - message.at)  # a clock may be wrong
        if waited < duration(spec.triggers.max_wait):
            return Waits(f"{message.id}: {error}")
        return Refused(f"not within {spec.triggers.max_wait} (triggers.max_wait of {spec.name}): {error}")


def read(content: bytes) -> TrainingMessage:
    """Raises SpecError, naming the field, if that is no message."""
    if len(content) > LARGEST:
        raise SpecError("message", f"has {len(content):,} bytes (at most {LARGEST:,})", "send a smaller one")
    try:
        return TrainingMessage.model_validate_json(content)
    except ValidationError as error:
        mistake = first_mistake(TrainingMessage, error)
        raise SpecError("message", mistake.problem, "docs/triggers.md says what a message may have") from error


def model_of(said: TrainingMessage, models: Sequence[ModelSpec]) -> ModelSpec:
    """Raises SpecError if it is none of these, or it is not said which."""
    if said.model is None and len(models) == 1:
        return models[0]
    for spec in models:
        if spec.name == said.model:
            return spec
    problem = f"{said.model!r} has another topic" if said.model else "is required, since the topic is of several models"
    raise SpecError("`model`:", problem, f"one of {', '.join(spec.name for spec in models)}")


def set_aside(lake: Lake, message: Message, models: Sequence[ModelSpec], reason: str) -> str:
    """Keep a message and why nothing comes of it, once, however often; returns where.

    Raises:
        LakeError: if the lake cannot be written.
    """
    key = keys.dead_letters(models[0].name)
    path = f"{lake.day_folder(key, message.at.date())}/{message.id}.json"
    record = {
        "topic": message.topic,
        "partition": message.partition,
        "offset": message.offset,
        "sent_at": message.at.isoformat(),
        "reason": reason,
        "bytes": len(message.content),
        "content": message.content[:KEPT].decode("utf-8", "backslashreplace"),
    }
    with lake.translated(keys.partition(key, message.at.date())):
        lake.put(path, json.dumps(record, indent=1).encode())
    return path


def _data_is_there(path: str, spec: ModelSpec, catalog: Catalog, lake: Lake) -> date:
    """The first date that knows what a path names.

    Raises:
        SpecError: if it names no data of the model.
        TrainingError: while that is not ingested.
    """
    inputs = [name for view in catalog.daily_views(spec) for name in view.inputs]
    sources = [catalog.sources[name] for name in dict.fromkeys([spec.entity_rows, spec.label.source, *inputs])]
    for feed in (feed.name for source in sources for feed in catalog.feeds_of(source)):
        match = re.search(rf"(?:^|/)({re.escape(feed)}/(\d{{4}}-\d\d-\d\d)(?:/.*)?)$", path)
        if not match:
            continue
        try:
            day = date.fromisoformat(match[2])
        except ValueError:
            break
        known = lake.manifest(keys.ledger(feed), day)
        name = match[1].rstrip("/")
        if not known or not any(one.name.endswith(f"/{name}") or f"/{name}/" in one.name for one in known.inputs):
            raise TrainingError(keys.partition(keys.raw(feed), day), f"{path} is not ingested yet", "ml-platform land")
        return day + ONE_DAY
    known_as = ", ".join(f"{source.name}/YYYY-MM-DD" for source in sources)
    raise SpecError(f"`data`: {path}", f"is no data of {spec.name}", f"below one of {known_as}")
