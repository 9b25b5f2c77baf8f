"""Versions of a model and who holds which alias."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Version:
    """A registered bundle."""

    model: str
    number: str
    digest: str
    training_date: str
    run_id: str
    source: str

    @property
    def label(self) -> str:
        return f"{self.model} version {self.number}"


@dataclass(frozen=True)
class Aliases:
    """`champion` answers requests; `previous` is what it replaced."""

    champion: Version | None = None
    previous: Version | None = None

    def promoted(self, version: Version) -> "Aliases":
        """What holds after `version` has become champion."""
        if self.champion and version.number == self.champion.number:
            return self
        return Aliases(champion=version, previous=self.champion)
