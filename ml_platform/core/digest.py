"""Content digests: what makes two partitions, two bundles or two code versions the same. All are SHA-256, in hex."""

import hashlib
import json
from collections.abc import Mapping
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pyarrow as pa


def of_bytes(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def of_json(value: Any) -> str:
    """Digest of a JSON value, independent of key order and spacing."""
    return of_bytes(json.dumps(value, sort_keys=True, separators=(",", ":"), default=str).encode())


def of_files(files: Mapping[str, bytes]) -> str:
    """Digest over names and contents of a set of files."""
    return of_json({name: of_bytes(content) for name, content in files.items()})


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


def of_table(table: pa.Table) -> str:
    """Digest of a table's schema and values in row order.

    Taken over the Arrow IPC stream in batches of fixed size, so that it depends neither on how the table was chunked
    nor on the Parquet writer's version.
    """
    sink = _HashSink()
    schema = table.schema.remove_metadata()
    with pa.ipc.new_stream(pa.PythonFile(sink, mode="w"), schema) as writer:
        for batch in table.replace_schema_metadata(None).combine_chunks().to_batches(max_chunksize=65_536):
            writer.write_batch(batch)
    return sink.hash.hexdigest()


@cache
def code_version() -> str:
    """Version of this code: the package version and a digest over its Python and YAML files."""
    package = Path(__file__).parent.parent
    files = {
        str(path.relative_to(package)): path.read_bytes()
        for pattern in ("**/*.py", "**/*.yaml")
        for path in sorted(package.glob(pattern))
    }
    return f"{version('ml-platform')}+{of_files(files)[:12]}"
