"""Versions of a model and who holds which alias."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Version:
    """A registered bundle."""

    model: str
    number: str
    digest: str
    training_date: str
    run_id: str
    source: str
    overrides: str = ""  # what its run said otherwise than the model file, as JSON; empty if nothing

    @property
    def label(self) -> str:
        return f"{self.model} version {self.number}"


@dataclass(frozen=True)
class Aliases:
    """`champion` answers requests; `previous` is what it replaced; `candidate` passed its gates and waits to be champion."""

    champion: Version | None = None
    previous: Version | None = None
    candidate: Version | None = None

    def nominated(self, version: Version) -> "Aliases":
        """What holds after `version` has been registered."""
        if _same(version, self.champion) or _same(version, self.previous):
            return self
        return replace(self, candidate=version)

    def promoted(self, version: Version) -> "Aliases":
        """What holds after `version` has become champion."""
        if _same(version, self.champion):
            return self
        return Aliases(version, self.champion, None if _same(version, self.candidate) else self.candidate)

    def withdrawn(self, version: Version) -> "Aliases":
        """What holds after `version` has turned out not to become champion."""
        return replace(self, candidate=None) if _same(version, self.candidate) else self

    def rolled_back(self) -> "Aliases":
        """What holds after the champion's place was given back to the previous one; the same if there is none."""
        return replace(self, champion=self.previous, previous=None) if self.previous else self


def _same(one: Version, other: Version | None) -> bool:
    return other is not None and one.number == other.number
