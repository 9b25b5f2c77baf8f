"""Files that wait on the disk for the lake: one folder a process, and what a dead process left goes to a living one.

    <spool>/<process>/<model>/<day>/<file>
    <spool>/<process>/.lock                   locked as long as the process lives

Releases before this one had the folders of the models without that of a process; such files are taken over too.
"""

import contextlib
import fcntl
import logging
import os
import shutil
from collections.abc import Iterable
from datetime import date
from pathlib import Path

LOG = logging.getLogger(__name__)
LOCK = ".lock"
FILES = "*/????-??-??/[!.]*.parquet"


class Spool:
    """The folder of one process. It is made when there is something to put into it, as that may fail."""

    def __init__(self, folder: Path, process: str) -> None:
        self.folder = folder
        self.own = folder / process
        self._lock = -1  # the lock's file descriptor, while it is held

    def put(self, model: str, day: date, name: str, content: bytes) -> None:
        """Keep a file.

        Raises:
            OSError: if the disk does not take it; then nothing of it is left.
        """
        self._enter()
        file = self.own / model / day.isoformat() / name
        hidden = file.with_name(f".{name}")
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            hidden.write_bytes(content)
            hidden.rename(file)
        except OSError:
            with contextlib.suppress(OSError):
                hidden.unlink(missing_ok=True)
            raise

    def files(self) -> list[Path]:
        """The oldest first, by name."""
        return sorted(self.own.glob(FILES), key=lambda file: file.name)

    def take_over(self) -> None:
        """Make what dead processes have left one's own."""
        others = [one for one in self.folder.glob("[!.]*/") if one != self.own] if self.folder.is_dir() else []
        for other in others:
            try:
                self._take(other)
            except OSError as error:
                LOG.warning("cannot take over %s: %s", other, error)

    def close(self) -> None:
        """Leave what is there to the next process."""
        if self._lock >= 0:
            if not self.files():
                shutil.rmtree(self.own, ignore_errors=True)
            os.close(self._lock)
            self._lock = -1

    def _enter(self) -> None:
        if self._lock >= 0:
            return
        # Locked before it has its name, so that nobody takes it for a dead process's.
        hidden = self.own.with_name(f".{self.own.name}")
        hidden.mkdir(parents=True, exist_ok=True)
        lock = os.open(hidden / LOCK, os.O_WRONLY | os.O_CREAT)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX)
            hidden.rename(self.own)
        except OSError:
            os.close(lock)
            raise
        self._lock = lock

    def _take(self, other: Path) -> None:
        if not (other / LOCK).exists():
            self._move(other.parent.glob(f"{other.name}/{FILES.partition('/')[2]}"), other.parent)
            return
        with (other / LOCK).open("rb") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return  # it lives
            self._move(other.glob(FILES), other)
            shutil.rmtree(other)

    def _move(self, files: Iterable[Path], root: Path) -> None:
        for file in [*files]:
            self._enter()
            to = self.own / file.relative_to(root)
            to.parent.mkdir(parents=True, exist_ok=True)
            file.rename(to)
