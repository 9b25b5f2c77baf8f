"""Files of the lake beside its tables: states and totals, each replaced whole."""

import pyarrow.fs as pafs

from ml_platform.resources.lake import Lake


class Beside:
    """Files below the lake's own folder, by a path that no table has."""

    def __init__(self, lake: Lake) -> None:
        self.lake = lake

    def read(self, path: str) -> bytes | None:
        """What a file has; None if there is no such file."""
        try:
            with self.lake.translated(path), self.lake.filesystem.open_input_stream(self._at(path)) as stream:
                return stream.readall()
        except FileNotFoundError:
            return None

    def write(self, path: str, content: bytes) -> None:
        """Replace a file: readers have the old one or the new one."""
        self.lake.write_file(self._at(path), content)

    def names(self, folder: str) -> list[str]:
        """The paths of the files in a folder, in order."""
        with self.lake.translated(folder):
            infos = self.lake.filesystem.get_file_info(pafs.FileSelector(self._at(folder), allow_not_found=True))
        found = (info.path.removeprefix(f"{self.lake.root}/") for info in infos if info.type == pafs.FileType.File)
        return sorted(path for path in found if not path.rpartition("/")[2].startswith("."))

    def remove(self, path: str) -> None:
        self.lake.delete_file(self._at(path))

    def _at(self, path: str) -> str:
        return f"{self.lake.root}/{path}"
