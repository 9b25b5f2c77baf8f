"""A change of who answers for a model: the writes to MLflow's registry that make it true, in an order that survives a crash."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ml_platform.registry.versions import Aliases
from ml_platform.resources.lease import Lease
from ml_platform.rollout.standing import SetAlias, SetTag, Standing, Write, numbers, writes
from ml_platform.rollout.state import Rollout

if TYPE_CHECKING:
    from ml_platform.resources.registry import Registry

RECORD = "ml_platform.rollout"  # the tag of a registered model: see rollout/standing.py


@dataclass
class Change:
    """A model that nobody else changes now: what holds, and the way to make something else true."""

    registry: "Registry"
    model: str
    lease: Lease
    standing: Standing
    actual: dict[str, str]  # the aliases, by number
    vouched: str | None = None  # see Record

    def to(self, aliases: Aliases, rollout: Rollout | None) -> None:
        """Make this true. Whenever it dies, all of it holds or nothing."""
        self.write(writes(self.actual, numbers(aliases), rollout, self.vouched))
        challenger = self.registry.find(self.model, rollout.version) if rollout and not rollout.is_over else None
        self.standing = Standing(aliases, rollout, challenger)

    def write(self, planned: Iterable[Write]) -> None:
        client = self.registry.client
        for one in list(planned):
            self.lease.check()
            match one:
                case SetTag(record):
                    self.vouched = record.vouched
                    client.set_registered_model_tag(self.model, RECORD, record.to_json())
                case SetAlias(alias, None):
                    client.delete_registered_model_alias(self.model, alias)
                    self.actual.pop(alias, None)
                case SetAlias(alias, str(number)):
                    client.set_registered_model_alias(self.model, alias, number)
                    self.actual[alias] = number
