"""Who answers a model's requests while a new version is rolled out."""

from dataclasses import asdict, dataclass
from hashlib import blake2b
from typing import Any, Literal

from ml_platform.registry.versions import Version

Arm = Literal["champion", "challenger", "shadow"]


@dataclass(frozen=True)
class Traffic:
    """What a server does with a model's requests.

    `share` of the entities are answered by the challenger, always the same ones for one `salt`, and those of a smaller share
    are among those of a larger. A `shadow` challenger scores every request for the log, and answers none.
    """

    champion: Version | None
    challenger: Version | None = None
    share: float = 0.0
    shadow: bool = False
    salt: str = ""

    def arm(self, entity: str) -> Arm:
        """Who answers for this entity."""
        if self.challenger is None or self.shadow or position(entity, self.salt) >= self.share:
            return "champion"
        return "challenger"

    def to_json(self) -> dict[str, Any]:
        return asdict(self)


def position(entity: str, salt: str) -> float:
    """Where an entity lies in [0, 1): uniform over entities, fixed for each salt."""
    hashed = blake2b(f"{salt}/{entity}".encode(), digest_size=8).digest()
    return int.from_bytes(hashed) / 2**64
