"""What stands in for the producers of a project's sources: puts daily files into the landing bucket."""

import io
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Protocol, cast

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LandingError
from ml_platform.core.project import Project
from ml_platform.data.landing import day_prefix
from ml_platform.resources.object_store import ObjectStore

DailyTable = tuple[str, date, pa.Table]  # source, day, and its rows
DailyFile = DailyTable | tuple[str, date, Path]  # or the file that has them


@dataclass(frozen=True)
class Order:
    """What is to land: files of a folder, or so many simulated days of a world of that size.

    With a `drift`, whose kinds are the producer's, the last `drift_days` of them are otherwise than those before.
    """

    folder: Path | None = None
    first: date | None = None
    last: date | None = None
    days: int = 60
    size: int | None = None
    seed: int = 7
    drift: str = ""
    drift_days: int = 7


class Producer(Protocol):
    """The module `producer` of a project, which it may have."""

    def produce(self, catalog: Catalog, order: Order) -> Sequence[DailyFile]:
        """The files of an order, each source's in time order.

        Raises:
            LandingError: if a folder has not got what it takes.
        """
        ...


def daily_files(projects: Sequence[Project], catalog: Catalog, order: Order) -> Sequence[DailyFile]:
    """The files to land: of a folder that is laid out as the landing bucket is, or what the projects' own producers make.

    Raises:
        LandingError: if there are none.
    """
    if order.folder and (files := laid_out(order.folder, catalog, order.first, order.last)):
        return files
    producers = [name for project in projects if find_spec(name := f"{project.package}.producer")]
    if producers:
        made = [cast(Producer, import_module(name)).produce(catalog, order) for name in producers]
        return [file for files in made for file in files]
    package, names = projects[0].package, ", ".join(catalog.feeds) or "none"
    raise LandingError(
        str(order.folder or package),
        f"has no files of a source that is declared ({names})" if order.folder else "has no module `producer`",
        f"ml-platform land --input FOLDER, with FOLDER/<source>/YYYY-MM-DD/<files>; or write {package}/producer.py",
    )


def laid_out(folder: Path, catalog: Catalog, first: date | None, last: date | None) -> list[DailyFile]:
    """The files at `<folder>/<source>/YYYY-MM-DD/<file>` of the sources that are declared, by source and day."""
    found: list[DailyFile] = []
    for source in catalog.feeds:
        for file in sorted((folder / source).glob("????-??-??/**/*")):
            name = file.relative_to(folder / source).parts[0]
            try:
                day = date.fromisoformat(name)
            except ValueError as error:
                raise LandingError(str(file), f"{name!r} is no day", "name the folder YYYY-MM-DD") from error
            if file.is_file() and (first or day) <= day <= (last or day):
                found.append((source, day, file))
    return found


def land(files: Sequence[DailyFile], store: ObjectStore) -> Iterator[DailyFile]:
    """Put the files into the bucket, one object each; yields every file once it is there."""
    store.ensure_bucket()
    for source, day, rows in files:
        if isinstance(rows, Path):
            store.write(day_prefix(source, day) + rows.name, rows.read_bytes())
        else:
            buffer = io.BytesIO()
            pq.write_table(rows, buffer, compression="zstd")
            store.write(f"{day_prefix(source, day)}{source}.parquet", buffer.getvalue())
        yield source, day, rows
