"""What a model server remembers over a restart: the bundles that it loaded, and who answered which model.

    <home>/bundles/<digest>/<files of the bundle>
    <home>/bundles/traffic.json

A folder is complete or not there. What is not what its digest says is not used, but downloaded again.
"""

import json
import logging
import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from uuid import uuid4

from ml_platform.core.errors import BundleError
from ml_platform.core.records import read
from ml_platform.registry import bundle
from ml_platform.registry.versions import Version
from ml_platform.rollout.traffic import Traffic

LOG = logging.getLogger("ml_platform.serving")
SPARE = 5  # bundles that are kept beyond those in use: a roll-back needs no download


class BundleCache:
    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, version: Version) -> dict[str, bytes] | None:
        """The files of a version's bundle; None if they are not here, or are not what they were."""
        folder = self.folder / version.digest
        if not version.digest or not folder.is_dir():
            return None
        try:
            files = {file.name: file.read_bytes() for file in sorted(folder.iterdir())}
            bundle.verify(files, version.digest, version.label)
        except (OSError, BundleError) as error:
            LOG.warning("ignored the cached bundle of %s: %s", version.label, error)
            return None
        os.utime(folder)
        return files

    def save(self, version: Version, files: Mapping[str, bytes]) -> None:
        """Keep the files. A full or read-only disk is no reason not to serve."""
        folder, hidden = self.folder / version.digest, self.folder / f".{uuid4().hex}"
        try:
            hidden.mkdir(parents=True)
            for name, content in files.items():
                (hidden / name).write_bytes(content)
            shutil.rmtree(folder, ignore_errors=True)  # what was there did not load
            hidden.rename(folder)
        except OSError as error:
            LOG.warning("cannot cache the bundle of %s: %s", version.label, error)
            shutil.rmtree(hidden, ignore_errors=True)

    def prune(self, used: Iterable[str]) -> None:
        """Forget the bundles that were not used for the longest time."""
        unused = [f for f in self.folder.glob("*/") if f.name not in {*used} and not f.name.startswith(".")]
        for folder in sorted(unused, key=lambda f: f.stat().st_mtime)[:-SPARE]:
            shutil.rmtree(folder, ignore_errors=True)

    def remember(self, traffic: Mapping[str, Traffic]) -> None:
        """Write down who answers."""
        hidden = self.folder / f".{uuid4().hex}"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            hidden.write_text(json.dumps({model: one.to_json() for model, one in traffic.items()}, indent=1))
            hidden.rename(self.folder / "traffic.json")
        except OSError as error:
            LOG.warning("cannot write down who answers: %s", error)

    def remembered(self) -> dict[str, Traffic]:
        """Who answered when this was last written; nobody if that cannot be read."""
        try:
            return read(dict[str, Traffic], (self.folder / "traffic.json").read_text())
        except FileNotFoundError:
            return {}
        except (OSError, ValueError) as error:
            LOG.warning("cannot read who answered: %s", error)
            return {}
