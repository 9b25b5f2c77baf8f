"""Where a rollout stands: all that has to survive a restart, and nothing else."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import datetime
from typing import Any, Literal

from ml_platform.core.records import of, read
from ml_platform.core.spec import RolloutSpec, Stage
from ml_platform.registry.versions import Aliases, Version

MOST_WORDS = 1_000  # letters of a reason: MLflow on PostgreSQL keeps 5,000 of a tag
Phase = Literal["running", "proving", "finished", "aborted"]


@dataclass(frozen=True)
class Event:
    """What was done to a version, by whom, why, and what was observed then. `what`: started, advanced, promoted ..."""

    at: datetime
    what: str
    reason: str
    by: str
    figures: Mapping[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "at": self.at.isoformat(), "reason": self.reason[:MOST_WORDS]})

    @classmethod
    def from_json(cls, text: str) -> "Event":
        return read(cls, text)


@dataclass(frozen=True)
class Rollout:
    """A version on its way to become champion, or at the end of it.

    `running`: step number `step`, from 0, since `since`. `proving`: it is champion, and not yet proven to score as it should.
    `champion` and `previous` are what was there before, by number. `spec` is the model file's as the rollout began. `last`
    is what led here, the `number`-th event.
    """

    version: str
    training_date: str
    champion: str | None
    previous: str | None
    spec: RolloutSpec
    began: datetime
    since: datetime
    phase: Phase
    last: Event
    step: int = 0
    number: int = 0
    more: Mapping[str, Any] = field(
        default_factory=dict
    )  # what a newer release has written beside it, and will read again

    @classmethod
    def begin(
        cls, version: Version, before: Aliases, spec: RolloutSpec, now: datetime, by: str, why: str = ""
    ) -> "Rollout":
        """The first state: the first step, or the proof where there are no steps or there is nothing to compare with."""
        staged = bool(spec.stages) and before.champion is not None
        words = f"step 1 of {len(spec.stages)}: {spec.stages[0]}" if staged else "at once"
        return cls(
            version.number,
            version.training_date,
            before.champion.number if before.champion else None,
            before.previous.number if before.previous else None,
            spec,
            now,
            now,
            "running" if staged else "proving",
            Event(now, "started" if staged else "promoted", why or f"{spec.strategy}, {words}", by),
        )

    @property
    def is_over(self) -> bool:
        return self.phase in ("finished", "aborted")

    @property
    def stage(self) -> Stage | None:
        """What the version is given now; None unless the rollout is running."""
        return self.spec.stages[self.step] if self.phase == "running" else None

    def moved(self, phase: Phase, event: Event, step: int | None = None) -> "Rollout":
        """The state after an event."""
        at_step = self.step if step is None else step
        return replace(self, phase=phase, step=at_step, since=event.at, last=event, number=self.number + 1)

    def to_json(self) -> str:
        content = {**self.more, **self.__dict__, "last": json.loads(self.last.to_json())}
        del content["more"]
        content |= {"began": self.began.isoformat(), "since": self.since.isoformat()}
        return json.dumps({**content, "spec": self.spec.model_dump(mode="json", exclude_defaults=True)})

    @classmethod
    def from_json(cls, text: str) -> "Rollout":
        content, known = json.loads(text), {one.name for one in fields(cls)}
        return replace(of(cls, content), more={name: value for name, value in content.items() if name not in known})
