"""A producer: puts daily files into the landing bucket."""

import io
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core.days import day_range
from ml_platform.core.errors import LandingError
from ml_platform.data.landing import day_prefix
from ml_platform.data.simulate import Population, daily_files, simulate
from ml_platform.resources.object_store import ObjectStore

DailyFile = tuple[str, date, pa.Table]

COLUMNS = ("transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount", "tx_fraud")


def simulated(days: int, customers: int, first_day: date, seed: int, label_delay: timedelta) -> list[DailyFile]:
    """What the producers of transactions and labels would have landed after so many days."""
    return list(daily_files(simulate(Population.scaled(customers), days, first_day, seed), label_delay))


def from_folder(folder: Path, first: date | None, last: date | None, label_delay: timedelta) -> list[DailyFile]:
    """Daily files `YYYY-MM-DD.parquet` of transactions with their label, as the two sources that they come from.

    Raises:
        LandingError: if the folder has no such files, a day within the range is missing, or a file is not of this kind.
    """
    available = {path.stem: path for path in sorted(folder.glob("????-??-??.parquet"))}
    if not available:
        raise LandingError(str(folder), "has no files named YYYY-MM-DD.parquet", "give a folder of daily files")
    first = first or date.fromisoformat(min(available))
    last = last or date.fromisoformat(max(available))
    if missing := [day for day in map(str, day_range(first, last)) if day not in available]:
        raise LandingError(
            str(folder), f"has no file for {missing[0]} ({len(missing)} days missing)", "choose other --from and --to"
        )
    if first > last:
        raise LandingError(str(folder), f"--from {first} is after --to {last}", "choose other --from and --to")
    return list(
        daily_files(pa.concat_tables(_read(available[str(day)]) for day in day_range(first, last)), label_delay)
    )


def _read(path: Path) -> pa.Table:
    try:
        return pq.read_table(path, columns=list(COLUMNS))
    except (pa.ArrowException, OSError) as error:
        raise LandingError(
            str(path), f"cannot be read: {error}", f"give files with the columns {', '.join(COLUMNS)}"
        ) from error


def land(files: list[DailyFile], store: ObjectStore) -> Iterator[DailyFile]:
    """Put the files into the bucket, one object each; yields every file once it is there."""
    store.ensure_bucket()
    for source, day, table in files:
        buffer = io.BytesIO()
        pq.write_table(table, buffer, compression="zstd")
        store.write(f"{day_prefix(source, day)}{source}.parquet", buffer.getvalue())
        yield source, day, table
