"""One day of a view by the platform's way."""

from collections.abc import Mapping
from datetime import date

import pyarrow as pa

from ml_platform.core.spec import FeatureViewSpec, SourceSpec
from ml_platform.features.engine import Embedded, Engine
from ml_platform.features.views import compute, input_days, view_inputs

Days = Mapping[str, Mapping[date, pa.Table]]  # source -> day -> raw rows


def day_of(
    view: FeatureViewSpec, day: date, sources: Mapping[str, SourceSpec], raw: Days, engine: Engine | None = None
) -> pa.Table:
    """The view's rows of a day, from those of its raw days that exist."""
    tables = {}
    for name in view.inputs:
        if found := [raw[name][d] for d in input_days(view, sources[name], day) if d in raw[name]]:
            tables[name] = pa.concat_tables(found)
    return from_tables(view, day, sources, tables, engine)


def from_tables(
    view: FeatureViewSpec,
    day: date,
    sources: Mapping[str, SourceSpec],
    tables: Mapping[str, pa.Table],
    engine: Engine | None = None,
) -> pa.Table:
    """The view's rows of a day, from all these rows."""
    engine = engine or Embedded()
    return compute(view, day, sources, view_inputs(view, day, sources, tables, engine), engine).read_all()


def by_day(files: list[tuple[str, date, pa.Table]]) -> Days:
    """Daily files by source and day."""
    days: dict[str, dict[date, pa.Table]] = {}
    for source, day, rows in files:
        days.setdefault(source, {})[day] = rows
    return days
