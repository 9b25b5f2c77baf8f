"""Files in the lake that no manifest names: their writers died."""

from datetime import UTC, datetime, timedelta

from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import MANIFEST

_EPOCH = datetime.fromtimestamp(0, UTC)


def leftovers(lake: Lake, key: str, age: timedelta) -> dict[str, int]:
    """Path -> bytes of files of a table that no manifest names and that are older than `age`."""
    old = lake.clock() - age
    unnamed = {}
    for day, files in lake.listing(key).items():
        manifest = lake.manifest(key, day)  # read after the listing, so that it names what was committed meanwhile
        named = {MANIFEST, *(manifest.files if manifest else ())}
        # Arrow gives 1970 where it cannot read the time, as with one in ten of rclone's: such a file may be new.
        lost = [info for name, info in files.items() if name not in named and _EPOCH < info.mtime < old]
        unnamed |= {info.path: info.size for info in lost}
    return unnamed


def remove_leftovers(lake: Lake, key: str, age: timedelta) -> int:
    """Delete the `leftovers`; returns how many bytes they had."""
    found = leftovers(lake, key, age)
    for path in found:
        lake.delete_file(path)
    return sum(found.values())
