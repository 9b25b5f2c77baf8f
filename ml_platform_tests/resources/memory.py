"""A registry in memory and a model server that does as it is told, for stories that need no processes."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from ml_platform.core.errors import DeploymentError, RegistryError
from ml_platform.registry.versions import Aliases, Version
from ml_platform.rollout.standing import Standing
from ml_platform.rollout.state import Event, Rollout


@dataclass
class MemoryRegistry:
    """Versions of one model. `history` are the aliases after each change."""

    known: list[Version]
    held: Standing = field(default_factory=Standing)
    history: list[Aliases] = field(default_factory=list)
    noted: list[tuple[str, str]] = field(default_factory=list)
    moved: dict[str, str] = field(default_factory=dict)  # champions that somebody set by hand

    def versions(self, _: str) -> list[Version]:
        return self.known

    def find(self, _: str, number: str) -> Version | None:
        return next((version for version in self.known if version.number == number), None)

    def standing(self, _: str) -> Standing:
        return self.held

    def aliases(self, _: str) -> Aliases:
        return self.held.aliases

    def set_by_hand(self) -> dict[str, str]:
        return self.moved

    def rollouts(self, unreadable: dict[str, RegistryError] | None = None) -> dict[str, Rollout]:
        return {self.known[0].model: self.held.rollout} if self.held.rollout else {}

    @contextmanager
    def changing(self, model: str) -> Iterator["MemoryChange"]:
        yield MemoryChange(self, model)

    def note(self, version: Version, event: Event) -> None:
        self.noted.append((version.number, event.what))


@dataclass
class MemoryChange:
    registry: MemoryRegistry
    model: str

    @property
    def standing(self) -> Standing:
        return self.registry.held

    def to(self, aliases: Aliases, rollout: Rollout | None) -> None:
        challenger = self.registry.find("", rollout.version) if rollout and not rollout.is_over else None
        self.registry.held = Standing(aliases, rollout, challenger)
        self.registry.history.append(aliases)


@dataclass
class ToldServer:
    """Serves what it is asked to wait for, unless it refuses; `meanwhile` happens while somebody waits."""

    refuses: bool = False
    meanwhile: Callable[[], None] = lambda: None
    says: dict[str, Any] = field(default_factory=dict)
    url: str = "http://server"

    def wait_until_served(self, version: Version) -> dict[str, str]:
        self.meanwhile()
        if self.refuses:
            raise DeploymentError("fraud_detection/deployment", "refused", "train again")
        return {"version": version.number, "digest": version.digest}

    def status(self, _: str) -> dict[str, Any]:
        return self.says
