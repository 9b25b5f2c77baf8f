"""Who holds which alias of a model and which rollout is under way, as one thing that changes at once.

A registry can write one alias or one tag at a time, and a writer may die after any of them. So the tag says first where the
aliases are moving to, and that one write is the change: readers take it for the truth, and whoever writes next completes it.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from ml_platform.registry.versions import Aliases, Version
from ml_platform.rollout.state import Rollout
from ml_platform.rollout.traffic import Traffic

ALIASES = ("candidate", "previous", "champion")
Numbers = Mapping[str, str]  # alias -> version number


@dataclass(frozen=True)
class Record:
    """The content of the tag. `moving`: the aliases that are to hold, while they do not yet. `vouched`: the last champion that
    a rollout or a command made; an alias can be moved past both.
    """

    moving: Numbers | None = None
    rollout: Rollout | None = None
    vouched: str | None = None

    def to_json(self) -> str:
        rollout = json.loads(self.rollout.to_json()) if self.rollout else None
        return json.dumps({"moving": self.moving, "rollout": rollout, "vouched": self.vouched})

    def vouches_for(self, champion: str) -> bool:
        """Whether this version became champion by a rollout or a command."""
        rollout = self.rollout
        if rollout and rollout.phase in ("proving", "finished") and rollout.version == champion:
            return True
        if self.vouched is not None or rollout is None:
            return self.vouched == champion
        return champion in (rollout.champion, rollout.previous)  # written before there was `vouched`

    @classmethod
    def from_json(cls, text: str | None) -> "Record":
        """Read the tag, which anybody may have written, and a newer release with more in it.

        Raises:
            ValueError: if it makes no sense.
        """
        if not text:
            return cls()
        try:
            content = json.loads(text)
            rollout, moving = content.get("rollout"), content.get("moving")
            if moving is not None and not all(isinstance(one, str) for pair in moving.items() for one in pair):
                raise ValueError(f"moving is {moving}")
            return cls(moving, Rollout.from_json(json.dumps(rollout)) if rollout else None, content.get("vouched"))
        except (TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ValueError(f"{type(error).__name__}: {error}") from error


@dataclass(frozen=True)
class SetTag:
    record: Record


@dataclass(frozen=True)
class SetAlias:
    """`number` None takes the alias away."""

    alias: str
    number: str | None


Write = SetTag | SetAlias


@dataclass(frozen=True)
class Standing:
    """What holds for a model."""

    aliases: Aliases = field(default_factory=Aliases)
    rollout: Rollout | None = None
    challenger: Version | None = None  # the rollout's version, if the registry has it

    @property
    def active(self) -> Rollout | None:
        """The rollout, unless it is over."""
        return None if self.rollout is None or self.rollout.is_over else self.rollout

    def traffic(self) -> Traffic:
        """Who answers. A challenger whose champion somebody replaced gets nothing."""
        champion, rollout = self.aliases.champion, self.active
        stage = rollout.stage if rollout else None
        if not (champion and rollout and stage and self.challenger and rollout.champion == champion.number):
            return Traffic(champion)
        return Traffic(champion, self.challenger, stage.share, stage.shadow, salt=f"{champion.model}/{rollout.version}")


def held(actual: Numbers, record: Record) -> Numbers:
    """What the aliases are, to every reader."""
    return {a: n for a, n in (actual if record.moving is None else record.moving).items() if a in ALIASES}


def writes(actual: Numbers, wanted: Numbers, rollout: Rollout | None, vouched: str | None = None) -> Iterator[Write]:
    """The single writes that make `wanted` and `rollout` true; after the first of them, they are.

    `vouched` is who was vouched for before; a champion that stays what somebody else made of it is not vouched for by that.
    """
    champion = wanted.get("champion")
    vouched = vouched if champion == actual.get("champion") else champion
    if held(actual, Record()) == wanted:
        yield SetTag(Record(None, rollout, vouched))
        return
    yield SetTag(Record(dict(wanted), rollout, vouched))
    yield from completion(actual, Record(dict(wanted), rollout, vouched))


def completion(actual: Numbers, record: Record) -> Iterator[Write]:
    """The writes that a writer which died still owes."""
    if record.moving is None:
        return
    for alias in ALIASES:
        if actual.get(alias) != record.moving.get(alias):
            yield SetAlias(alias, record.moving.get(alias))
    yield SetTag(Record(None, record.rollout, record.vouched))


def numbers(aliases: Aliases) -> dict[str, str]:
    return {alias: version.number for alias in ALIASES if (version := getattr(aliases, alias)) is not None}
