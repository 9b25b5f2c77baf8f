"""Checkpoints in the lake. A folder is a lake as well.

Layout: `<lake>/<key>/date=YYYY-MM-DD/<number>-<digest>.checkpoint`, each a whole checkpoint in one file, so that writing it is
the commit. The newest two are kept: one that is not what its name says gives way to the one before.
"""

import logging
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import date

import pyarrow.fs as pafs

from ml_platform.core import digest, keys
from ml_platform.core.errors import LakeError
from ml_platform.resources.lake import Lake
from ml_platform.training.packing import pack, unpack

LOG = logging.getLogger(__name__)
KEPT = 2
_NAME = re.compile(r"(\d{8})-([0-9a-f]{64})\.checkpoint")


class LakeCheckpoints:
    """The checkpoints of one fit, written by one process at a time. Whoever has stored the fit's result clears them."""

    def __init__(self, lake: Lake, key: str, day: date) -> None:
        self.lake = lake
        self.folder = lake.day_folder(key, day)
        self.subject = keys.partition(key, day)

    def load(self) -> Mapping[str, bytes] | None:
        """The newest checkpoint that is whole; None if there is none.

        Raises:
            LakeError: if the lake cannot be read.
        """
        for name in reversed(self._names()):
            with self._translated(), self.lake.filesystem.open_input_stream(f"{self.folder}/{name}") as stream:
                content = stream.readall()
            if name == _name(_number(name), content):
                return unpack(content)
            LOG.warning("%s: %s is not what was written; the one before it is used", self.subject, name)
        return None

    def save(self, files: Mapping[str, bytes]) -> None:
        """Write a checkpoint, then remove all but the newest ones.

        Raises:
            LakeError: if the lake cannot be written.
        """
        before = self._names()
        content = pack(files)
        with self._translated():
            self.lake.put(f"{self.folder}/{_name(_number(before[-1]) + 1 if before else 1, content)}", content)
        self._delete(before[: -(KEPT - 1)])

    def clear(self) -> None:
        """Remove them all, and what a writer that was killed has left."""
        self._delete(self._files())

    def _names(self) -> list[str]:
        """The checkpoints' file names, oldest first."""
        return sorted(name for name in self._files() if _NAME.fullmatch(name))

    def _files(self) -> list[str]:
        with self._translated():
            found = self.lake.filesystem.get_file_info(pafs.FileSelector(self.folder, allow_not_found=True))
        return [info.base_name for info in found if info.is_file]

    def _delete(self, names: list[str]) -> None:
        for name in names:
            with self._translated():
                self.lake.delete(f"{self.folder}/{name}")

    @contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            problem = f"the lake at {self.lake.root} failed: {error}"
            raise LakeError(self.subject, problem, "look after ML_PLATFORM_LAKE") from error


def _name(number: int, content: bytes) -> str:
    return f"{number:08d}-{digest.of_bytes(content)}.checkpoint"


def _number(name: str) -> int:
    return int(name.partition("-")[0])
