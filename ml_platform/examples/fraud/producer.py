"""The producers of transactions and of labels: simulated days, or the daily files of the handbook."""

from datetime import date, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.errors import LandingError
from ml_platform.examples.fraud.simulate import DRIFTS, Population, daily_files, drifted, simulate
from ml_platform.local.producer import DailyTable, Order

COLUMNS = ("transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount", "tx_fraud")
CUSTOMERS = 2_000


def produce(catalog: Catalog, order: Order) -> list[DailyTable]:
    """The order's days of both sources; its size is how many customers there are.

    Raises:
        LandingError: if its folder has no daily files of transactions with their label, or there is no such drift.
    """
    delay = timedelta(days=catalog.sources["fraud_labels"].delay_days)
    if order.folder:
        return from_folder(order.folder, order.first, order.last, delay)
    first = order.first or catalog.sources["transactions"].start_date
    made = simulate(Population.scaled(order.size or CUSTOMERS), order.days, first, order.seed)
    if order.drift and order.drift not in DRIFTS:
        raise LandingError(f"--drift {order.drift}", "is no kind of drift", f"one of {', '.join(DRIFTS)}")
    if order.drift:
        made = drifted(made, order.drift, first + timedelta(days=order.days - order.drift_days), order.seed)
    return list(daily_files(made, delay))


def simulated(days: int, customers: int, first_day: date, seed: int, label_delay: timedelta) -> list[DailyTable]:
    """What the producers of transactions and labels would have landed after so many days."""
    return list(daily_files(simulate(Population.scaled(customers), days, first_day, seed), label_delay))


def from_folder(folder: Path, first: date | None, last: date | None, label_delay: timedelta) -> list[DailyTable]:
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
