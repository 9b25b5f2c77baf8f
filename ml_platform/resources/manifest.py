"""The manifest of a partition: what is in force of it, and what that was made from."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from datetime import date

from ml_platform.core import keys

MANIFEST = "_manifest.json"


@dataclass(frozen=True)
class Input:
    """One thing that a partition was made from: a landed object (version: ETag) or a partition (version: content hash)."""

    name: str
    version: str
    size: int | None = None


@dataclass(frozen=True)
class Manifest:
    """What is in force of a partition. `unfinished` are names that may be there besides, if its writer has died since."""

    rows: int
    content_hash: str
    files: tuple[str, ...]
    inputs: tuple[Input, ...]
    code_version: str
    written_at: str
    tags: Mapping[str, str] = field(default_factory=dict)
    unfinished: tuple[str, ...] = ()

    @classmethod
    def from_json(cls, text: bytes) -> "Manifest":
        """What a newer release may have added beside it is ignored.

        Raises:
            ValueError: if it is no manifest.
        """
        content = json.loads(text)
        try:
            known = {one.name: content[one.name] for one in fields(cls) if one.name in content}
            inputs = tuple(Input(one["name"], one["version"], one.get("size")) for one in content["inputs"])
            names = {one: tuple(content.get(one, ())) for one in ("files", "unfinished")}
            return cls(**{**known, **names, "inputs": inputs})
        except (TypeError, KeyError, AttributeError) as error:
            raise ValueError(f"it is no manifest: {type(error).__name__}: {error}") from error

    def to_json(self) -> bytes:
        return json.dumps(asdict(self), indent=1).encode()

    def as_input(self, key: str, day: date) -> Input:
        return Input(keys.partition(key, day), self.content_hash, self.rows)
