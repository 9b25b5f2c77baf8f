"""Content digests: what makes two partitions, two bundles or two code versions the same. All are SHA-256, in hex."""

import hashlib
import json
import os
from collections.abc import Mapping
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ml_platform.core.errors import SettingsError
from ml_platform.core.project import VARIABLE, find_project

if TYPE_CHECKING:  # a machine that only trains needs no Arrow
    import pyarrow as pa


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_json(value: Any) -> str:
    """Digest of a JSON value, independent of key order and spacing."""
    return of_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def of_files(files: Mapping[str, bytes | Path]) -> str:
    """Digest over names and contents of a set of files; a path stands for the content of that file."""
    return of_json(
        {name: of_file(content) if isinstance(content, Path) else of_bytes(content) for name, content in files.items()}
    )


def of_file(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class _HashSink:
    """A file that keeps nothing but the digest of what was written to it."""

    def __init__(self) -> None:
        self.hash = hashlib.sha256()
        self.closed = False

    def write(self, content: Any) -> int:
        self.hash.update(content)
        return len(content)

    def flush(self) -> None:
        pass

    def close(self) -> None:
        self.closed = True


class TableDigest:
    """Digest of a table's schema and values in row order, taken piece by piece.

    Taken over the Arrow IPC stream in batches of fixed size, so that it depends neither on how the table was chunked
    nor on the Parquet writer's version.
    """

    BATCH_ROWS = 65_536

    def __init__(self, schema: "pa.Schema") -> None:
        import pyarrow as pa

        self._sink = _HashSink()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._sink, mode="w"), schema.remove_metadata())

    def update(self, table: "pa.Table") -> None:
        """Add the next rows: a multiple of BATCH_ROWS, except for the last ones."""
        for batch in table.replace_schema_metadata(None).combine_chunks().to_batches(max_chunksize=self.BATCH_ROWS):
            self._writer.write_batch(batch)

    def hexdigest(self) -> str:
        self._writer.close()
        return self._sink.hash.hexdigest()


def of_table(table: "pa.Table") -> str:
    """Digest of a whole table."""
    whole = TableDigest(table.schema)
    whole.update(table)
    return whole.hexdigest()


def _project(package: Path) -> list[tuple[str, Path]]:
    """The folder of the project, where it is none of the platform's own."""
    try:
        project = find_project(os.environ.get(VARIABLE, ""))
    except SettingsError:  # several, or none that is there: no code of a project is of any account
        return []
    return [] if project.folder.is_relative_to(package) else [(f"{project.package}/", project.folder)]


@cache
def code_version(patterns: tuple[str, ...] = ("**/*.py", "**/*.yaml")) -> str:
    """Version of this code: the package version and a digest over the Python and YAML files, or those of the patterns, of the
    platform and of the project."""
    package = Path(__file__).parent.parent
    files = {
        f"{place}{path.relative_to(folder)}": path.read_bytes()
        for place, folder in (("", package), *_project(package))
        for pattern in patterns
        for path in sorted(folder.glob(pattern))
    }
    try:
        number = version("ml-platform")
    except PackageNotFoundError:  # a checkout beside nothing but torch, as on a machine that is lent for its GPU
        number = "0"
    return f"{number}+{of_files(files)[:12]}"
