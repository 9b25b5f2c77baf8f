"""How a run says which days it makes."""

from collections.abc import Mapping
from datetime import date

from ml_platform.core.days import day_range

PARTITION = "dagster/partition"
RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def days_of_run(tags: Mapping[str, str]) -> list[date]:
    """The days that a run is about, by its tags; none if it is about assets without days."""
    if PARTITION in tags:
        return [date.fromisoformat(tags[PARTITION])]
    if RANGE_START in tags:
        return list(day_range(date.fromisoformat(tags[RANGE_START]), date.fromisoformat(tags[RANGE_END])))
    return []
