"""The lake: one folder per partition, written so that a partition is there as a whole or not at all.

Layout: `<lake>/<owner>/<table>/date=YYYY-MM-DD/` with data files and `_manifest.json`. The manifest is written last and
names the files that count: without manifest there is no partition. A new version's files get new names, so a writer that
dies leaves the old version in force. Others read the folders themselves: until the manifest is there, tables have names that
such readers skip, and no ending that a pattern would find.
"""

import io
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING
from uuid import uuid4

import pyarrow as pa
import pyarrow.fs as pafs
import pyarrow.parquet as pq

from ml_platform.core import digest, keys
from ml_platform.core.catalog import homes_at
from ml_platform.core.errors import LakeError
from ml_platform.core.settings import Settings
from ml_platform.data.staging import StagedTable
from ml_platform.resources.manifest import MANIFEST, Input, Manifest
from ml_platform.resources.storage import Storage, storage_at

if TYPE_CHECKING:
    import pyarrow.dataset as pads  # it imports pandas

PENDING = "_pending-"
FINISHED_WITHIN = timedelta(minutes=1)  # or the writer has died
MANIFEST_READS = 4
READERS = 16  # manifests that are read at once: on S3 each takes a round trip


class Lake:
    def __init__(
        self, storage: Storage, root: str, clock: Callable[[], datetime], homes: Mapping[str, str] | None = None
    ) -> None:
        """`homes` are prefixes, below `root`, of tables or of owners of tables."""
        self.filesystem, self.is_local = storage.filesystem, storage.is_local
        self.put, self.delete, self.copy = storage.put, storage.delete, storage.copy
        self.root = root.rstrip("/")
        self.clock = clock
        self.homes = homes or {}

    @classmethod
    def at(cls, settings: Settings) -> "Lake":
        """The lake at the address in the settings: a folder, or a bucket behind any S3 endpoint."""
        storage, root = storage_at(settings)
        return cls(storage, root, lambda: datetime.now(UTC), homes_at(settings))

    # --- reading ------------------------------------------------------------------------------------------------------

    def manifest(self, key: str, day: date) -> Manifest | None:
        """The partition's manifest; None if there is no such partition."""
        path = f"{self.day_folder(key, day)}/{MANIFEST}"
        for attempt in range(MANIFEST_READS):
            try:
                with self.filesystem.open_input_stream(path) as stream:
                    return Manifest.from_json(stream.readall())
            except FileNotFoundError:
                return None
            except (OSError, ValueError) as error:  # some S3 servers answer a reader with half of what is being written
                if attempt == MANIFEST_READS - 1:
                    subject, problem = keys.partition(key, day), f"its manifest in {self.root} cannot be read: {error}"
                    raise LakeError(subject, problem, "look after ML_PLATFORM_LAKE") from error
                time.sleep(0.1 * 2**attempt)
        raise AssertionError("the last attempt returns or raises")

    def require(self, key: str, day: date) -> Manifest:
        """Like `manifest`, but a missing partition is an error."""
        found = self.manifest(key, day)
        if found is None:
            raise LakeError(
                keys.partition(key, day), "this partition does not exist", "materialize it in the Dagster UI"
            )
        return found

    def manifests(self, key: str, days: Iterable[date]) -> dict[date, Manifest]:
        """Manifests of those of the days that exist."""
        asked = list(days)
        if self.is_local or len(asked) < 2:  # a local file is read sooner than a thread starts
            found = [self.manifest(key, day) for day in asked]
        else:
            with ThreadPoolExecutor(READERS) as pool:
                found = list(pool.map(lambda day: self.manifest(key, day), asked))
        return {day: manifest for day, manifest in zip(asked, found, strict=True) if manifest is not None}

    def days(self, key: str) -> list[date]:
        """All days of a table that exist, in time order."""
        return sorted(day for day, files in self.listing(key).items() if MANIFEST in files)

    def sizes(self, key: str) -> dict[date, int]:
        """Bytes of every day of a table that exists, in time order."""
        listed = sorted(self.listing(key).items())
        return {day: sum(info.size for info in files.values()) for day, files in listed if MANIFEST in files}

    def listing(self, key: str) -> dict[date, dict[str, pafs.FileInfo]]:
        """The files of each day's folder, by their name within it."""
        root = self.table_folder(key)
        found: dict[date, dict[str, pafs.FileInfo]] = {}
        with self.translated(key):
            for info in self.filesystem.get_file_info(pafs.FileSelector(root, allow_not_found=True, recursive=True)):
                folder, _, name = info.path.removeprefix(f"{root}/").partition("/")
                if info.type == pafs.FileType.File and name:
                    found.setdefault(date.fromisoformat(folder.removeprefix("date=")), {})[name] = info
        return found

    def dataset(self, key: str, days: Iterable[date], schema: pa.Schema | None = None) -> "pads.Dataset":
        """The rows of these days, to be read by whom they concern, with push-down.

        With a `schema`, days whose files lack one of its columns have nulls there.

        Raises:
            LakeError: if one of the days does not exist.
        """
        import pyarrow.dataset as pads

        paths = [f"{self.day_folder(key, day)}/{name}" for day in days for name in self._finished(key, day).files]
        if not paths:
            raise LakeError(key, "no days were asked for", "give at least one day")
        with self.translated(key):
            return pads.dataset(paths, schema=schema, filesystem=self.filesystem, format="parquet")

    def rows_of_file(self, key: str, day: date, name: str) -> "pads.Dataset | None":
        """The rows of one Parquet file of a partition that is a set of files; None if it has no such file."""
        import pyarrow.dataset as pads

        paths = [path for path in self.require(key, day).files if Path(path).name == name]
        with self.translated(keys.partition(key, day)):
            return (
                pads.dataset(f"{self.day_folder(key, day)}/{paths[0]}", filesystem=self.filesystem) if paths else None
            )

    def read_table(self, key: str, days: Iterable[date], columns: list[str] | None = None) -> pa.Table:
        """The rows of these days: of each the old version or the new one, if it is being replaced meanwhile."""
        asked = list(days)
        while True:
            before = self.manifests(key, asked)
            try:
                with self.translated(key):
                    return self.dataset(key, asked).to_table(columns=columns)
            except (FileNotFoundError, LakeError):
                if self.manifests(key, asked) == before:
                    raise

    def read_files(self, key: str, day: date) -> dict[str, bytes]:
        """The files of a partition that is a set of files.

        Raises:
            LakeError: if the partition is missing, or its files are not what its manifest says.
        """
        manifest = self.require(key, day)
        files = {}
        for name in manifest.files:
            path = f"{self.day_folder(key, day)}/{name}"
            with self.translated(keys.partition(key, day)), self.filesystem.open_input_stream(path) as stream:
                files[Path(name).name] = stream.readall()
        if digest.of_files(files) != manifest.content_hash:
            raise LakeError(
                keys.partition(key, day),
                "the files are not those that the manifest was written for",
                "materialize it again",
            )
        return files

    # --- writing ------------------------------------------------------------------------------------------------------

    def write_table(
        self, key: str, day: date, table: pa.Table, inputs: Iterable[Input], tags: Mapping[str, str] | None = None
    ) -> Manifest:
        """Replace a partition by these rows."""
        content_hash = digest.of_table(table)
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        return self._commit_table(key, day, buffer.getvalue(), table.num_rows, content_hash, inputs, tags)

    def write_staged(
        self, key: str, day: date, staged: StagedTable, inputs: Iterable[Input], tags: Mapping[str, str] | None = None
    ) -> Manifest:
        """Replace a partition by the rows of a local Parquet file."""
        return self._commit_table(key, day, staged.path, staged.rows, staged.content_hash, inputs, tags)

    def write_files(
        self,
        key: str,
        day: date,
        files: Mapping[str, bytes | Path],
        inputs: Iterable[Input],
        tags: Mapping[str, str] | None = None,
    ) -> Manifest:
        """Replace a partition by this set of files; a path stands for the content of that local file."""
        content_hash = digest.of_files(files)
        version = f"{content_hash[:16]}-{uuid4().hex[:8]}"
        placed = {f"{version}/{name}": content for name, content in files.items()}
        return self._commit(key, day, placed, len(files), content_hash, inputs, tags)[0]

    def _commit_table(
        self,
        key: str,
        day: date,
        content: bytes | Path,
        rows: int,
        content_hash: str,
        inputs: Iterable[Input],
        tags: Mapping[str, str] | None,
    ) -> Manifest:
        """Commit a file under a name that readers of folders skip; then let them see it in place of the version before."""
        name = _part(content_hash)
        committed, rest = self._commit(key, day, {_pending(name): content}, rows, content_hash, inputs, tags, name)
        return self._show(key, day, committed, rest)

    def _show(self, key: str, day: date, committed: Manifest, rest: tuple[str, ...]) -> Manifest:
        """Give a table's file its name for all; `rest` are names that the writer before may still be about to show."""
        folder, (pending,) = self.day_folder(key, day), committed.files
        name = f"{pending.removeprefix(PENDING)}.parquet"
        try:
            with self.translated(f"{folder}/{name}"):
                self.copy(f"{folder}/{pending}", f"{folder}/{name}")
        except FileNotFoundError:  # another writer has replaced it
            return committed
        shown = replace(committed, files=(name,), unfinished=rest)
        if self.manifest(key, day) == committed:
            self.write_file(f"{folder}/{MANIFEST}", shown.to_json())
        else:
            self.delete_file(f"{folder}/{name}")
            shown = committed
        self.delete_file(f"{folder}/{pending}")
        return shown

    def _finished(self, key: str, day: date) -> Manifest:
        """The manifest of a partition; of one whose writer has died before all could see it, after that was made up for."""
        found = self.require(key, day)
        if not any(name.startswith(PENDING) for name in found.files) or not self._is_abandoned(found):
            return found
        try:
            for name in found.unfinished:
                self.delete_file(f"{self.day_folder(key, day)}/{name}")
            return self._show(key, day, found, ())
        except LakeError:  # a reader need not be allowed to write
            return found

    def _is_abandoned(self, manifest: Manifest) -> bool:
        return self.clock() - datetime.fromisoformat(manifest.written_at) > FINISHED_WITHIN

    def _commit(
        self,
        key: str,
        day: date,
        files: Mapping[str, bytes | Path],
        rows: int,
        content_hash: str,
        inputs: Iterable[Input],
        tags: Mapping[str, str] | None,
        name_for_all: str = "",
    ) -> tuple[Manifest, tuple[str, ...]]:
        """Put files and then their manifest; returns it, and what the writer before may still be about to finish."""
        folder = self.day_folder(key, day)
        try:
            for name, content in files.items():
                self.write_file(f"{folder}/{name}", content)
        except LakeError:  # such as a full disk, which these files would keep full
            for name in files:
                with suppress(LakeError):
                    self.delete_file(f"{folder}/{name}")
            raise
        replaced = self.manifest(key, day)
        old, rest = replaced.files if replaced else (), replaced.unfinished if replaced else ()
        if rest and replaced and self._is_abandoned(replaced):
            old, rest = (*old, *rest), ()
        manifest = Manifest(
            rows,
            content_hash,
            tuple(files),
            tuple(inputs),
            digest.code_version(),
            self.clock().isoformat(),
            dict(tags or {}),
            (*rest, *old, name_for_all) if name_for_all else rest,
        )
        self.write_file(f"{folder}/{MANIFEST}", manifest.to_json())
        # Only what the replaced version named: files of a writer that has not committed yet are its own business.
        for name in set(old) - set(files):
            self.delete_file(f"{folder}/{name}")
        return manifest, rest

    def add_file(self, key: str, day: date, name: str, content: bytes | Path) -> None:
        """Put a file beside those of the day. For logs, which grow and have no manifest: each file is there as a whole."""
        self.write_file(f"{self.day_folder(key, day)}/{name}", content)

    def added_files(self, key: str, day: date) -> list[str]:
        """The paths of such files, by name."""
        folder = pafs.FileSelector(self.day_folder(key, day), allow_not_found=True)
        with self.translated(keys.partition(key, day)):
            infos = self.filesystem.get_file_info(folder)
        return sorted(info.path for info in infos if not info.base_name.startswith("."))

    def remove(self, key: str, day: date) -> None:
        """Make a partition not exist. The manifest goes first: what is left of it then does not count."""
        manifest = self.manifest(key, day)
        for name in (MANIFEST, *((*manifest.files, *manifest.unfinished) if manifest else ())):
            self.delete_file(f"{self.day_folder(key, day)}/{name}")

    def write_file(self, path: str, content: bytes | Path) -> None:
        """Write a file so that it appears whole."""
        with self.translated(path):
            self.put(path, content)

    def delete_file(self, path: str) -> None:
        with self.translated(path):
            try:
                self.delete(path)
            except FileNotFoundError:
                return  # another writer replaced the same version

    def table_folder(self, key: str) -> str:
        """Where a table lies: below its project's prefix, where that has one."""
        owner, _, noun = key.partition("/")
        home = self.homes.get(key) or self.homes.get(noun if owner == "quarantine" else owner)
        return "/".join(filter(None, (self.root, home, key)))

    def day_folder(self, key: str, day: date) -> str:
        return f"{self.table_folder(key)}/date={day.isoformat()}"

    @contextmanager
    def translated(self, subject: str) -> Iterator[None]:
        """Trouble with the storage as an error of ours; a missing file stays what it is."""
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise LakeError(
                subject, f"the lake at {self.root} failed: {error}", "look after ML_PLATFORM_LAKE"
            ) from error


def _part(content_hash: str) -> str:
    return f"part-{content_hash[:16]}-{uuid4().hex[:8]}.parquet"


def _pending(name: str) -> str:
    return f"{PENDING}{name.removesuffix('.parquet')}"
