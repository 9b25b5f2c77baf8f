"""The contract between a producer and the platform: what must hold before landed rows become a raw partition."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, timedelta
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from ml_platform.core.days import ONE_DAY, start_of
from ml_platform.core.spec import ColumnSpec, SourceSpec
from ml_platform.data.landing import read_table

if TYPE_CHECKING:
    import pandas as pd

CHECKS = {
    "objects_are_readable": "Every landed object of the day opens as what its name says.",
    "schema_conforms": "Every declared column is there, with a type that fits without loss.",
    "required_values_are_present": "No column that is not nullable has a null or NaN.",
    "values_are_allowed": "Every value lies within its column's min, max and allowed.",
    "keys_are_unique": "No two rows of the day have the same key.",
    "event_times_are_in_partition": "Every row's event time lies in the day that the objects are named for.",
}
SAMPLE_ROWS = 5

_ARROW_TYPES = {
    "int8": pa.int8(),
    "int16": pa.int16(),
    "int32": pa.int32(),
    "int64": pa.int64(),
    "float32": pa.float32(),
    "float64": pa.float64(),
    "bool": pa.bool_(),
    "string": pa.string(),
    "timestamp": pa.timestamp("us", tz="UTC"),
}


@dataclass(frozen=True)
class Finding:
    """The outcome of one check: `offending` rows or objects, a `sample` of them, and what is wrong in words."""

    check: str
    offending: int = 0
    problem: str = ""
    sample: tuple[dict[str, Any], ...] = ()

    @property
    def passed(self) -> bool:
        return not self.problem


@dataclass(frozen=True)
class Inspection:
    """What the contract says of one day's objects. `table` is there only if every finding passed."""

    findings: tuple[Finding, ...]
    table: pa.Table | None = None
    undeclared_columns: tuple[str, ...] = field(default=())

    @property
    def failed(self) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if not finding.passed)


def arrow_schema(source: SourceSpec) -> pa.Schema:
    """The schema of the source's raw table."""
    return pa.schema([pa.field(name, _ARROW_TYPES[column.type]) for name, column in source.columns.items()])


def inspect(source: SourceSpec, day: date, objects: Sequence[tuple[str, bytes]]) -> Inspection:
    """Hold one day's landed objects (name, content) against the contract.

    A check that cannot be evaluated because an earlier one failed does not pass. The table is sorted by key, so that it
    does not depend on how the rows were spread over objects.
    """
    readable, unreadable = _read(objects)
    fitted, misfits = _fit(source, readable)
    extra = tuple(sorted({name for _, table in readable for name in table.column_names} - set(source.columns)))
    findings = [
        Finding("objects_are_readable", len(unreadable), _first_problem(unreadable), tuple(unreadable[:SAMPLE_ROWS])),
        Finding("schema_conforms", len(misfits), _first_problem(misfits), tuple(misfits[:SAMPLE_ROWS])),
    ]
    blocker = next((finding.check for finding in findings if not finding.passed), None)
    if blocker is not None or not fitted:
        reason = f"not evaluated, because {blocker} failed" if blocker else "not evaluated: there are no objects"
        findings += [Finding(check, problem=reason) for check in CHECKS if check not in {f.check for f in findings}]
        return Inspection(tuple(findings), undeclared_columns=extra)

    table = pa.concat_tables(fitted).sort_by([(name, "ascending") for name in source.key])
    findings += _inspect_rows(source, day, table)
    passed = all(finding.passed for finding in findings)
    return Inspection(tuple(findings), table if passed else None, extra)


def _first_problem(problems: Sequence[dict[str, Any]]) -> str:
    if not problems:
        return ""
    more = f" (and {len(problems) - 1} more)" if len(problems) > 1 else ""
    return f"{problems[0]['object']}: {problems[0]['problem']}{more}"


def _read(objects: Sequence[tuple[str, bytes]]) -> tuple[list[tuple[str, pa.Table]], list[dict[str, Any]]]:
    readable, unreadable = [], []
    for name, content in objects:
        try:
            readable.append((name, read_table(content)))
        except ValueError as error:
            unreadable.append({"object": name, "problem": str(error)})
    return readable, unreadable


def _fit(source: SourceSpec, tables: Sequence[tuple[str, pa.Table]]) -> tuple[list[pa.Table], list[dict[str, Any]]]:
    """Each table with the declared columns and types; and what kept a column from it."""
    fitted, misfits = [], []
    for name, table in tables:
        arrays = []
        for column, spec in source.columns.items():
            try:
                arrays.append(_fitted_column(table, column, spec))
            except ValueError as error:
                misfits.append({"object": name, "column": column, "problem": str(error)})
        if len(arrays) == len(source.columns):
            fitted.append(pa.table(arrays, schema=arrow_schema(source)))
    return fitted, misfits


def _fitted_column(table: pa.Table, name: str, spec: ColumnSpec) -> pa.ChunkedArray:
    if name not in table.column_names:
        raise ValueError(f"column {name!r} is missing; there are {', '.join(table.column_names)}")
    column, wanted = table[name], _ARROW_TYPES[spec.type]
    if not _same_family(column.type, wanted):
        raise ValueError(f"column {name!r} has type {column.type}, not {wanted}")
    try:
        if pa.types.is_timestamp(column.type) and column.type.tz is None:
            column = column.cast(pa.timestamp(column.type.unit, tz="UTC"))  # times without a zone are UTC
        return column.cast(wanted)
    except pa.ArrowInvalid as error:
        raise ValueError(f"column {name!r} of type {column.type} does not fit {wanted}: {error}") from error


def _same_family(found: pa.DataType, wanted: pa.DataType) -> bool:
    if pa.types.is_floating(wanted):
        return pa.types.is_floating(found) or pa.types.is_integer(found)
    families = (pa.types.is_integer, pa.types.is_timestamp, pa.types.is_boolean)
    if any(family(wanted) for family in families):
        return any(family(wanted) and family(found) for family in families)
    return pa.types.is_string(found) or pa.types.is_large_string(found) or pa.types.is_string_view(found)


def _inspect_rows(source: SourceSpec, day: date, table: pa.Table) -> Iterator[Finding]:
    frame = table.to_pandas()
    rows_of = {check: set[int]() for check in list(CHECKS)[2:]}
    problems: dict[str, str] = {}
    for check, column, rule, rows in _failures(source, day, frame):
        problems.setdefault(check, f"{column}: {rule}")
        rows_of[check].update(rows)
    for check, rows in rows_of.items():
        problem = f"{len(rows):,} of {len(frame):,} rows; {problems[check]}" if rows else ""
        sample = table.take(pa.array(sorted(rows)[:SAMPLE_ROWS], pa.int64())).to_pylist()
        yield Finding(check, len(rows), problem, tuple(sample))


def _failures(source: SourceSpec, day: date, frame: "pd.DataFrame") -> Iterator[tuple[str, str, str, list[int]]]:
    """Offending rows by (check, column, rule), as Pandera finds them."""
    import pandera.errors
    import pandera.pandas as pan

    begin, end = start_of(day), start_of(day) + ONE_DAY
    in_day = pan.Check.in_range(begin, end - timedelta(microseconds=1), error="event_times_are_in_partition")
    columns = {
        name: pan.Column(
            nullable=spec.nullable,
            checks=[*_value_checks(spec), *([in_day] if name == source.event_time else [])],
        )
        for name, spec in source.columns.items()
    }
    try:
        pan.DataFrameSchema(columns, unique=list(source.key)).validate(frame, lazy=True)
    except pandera.errors.SchemaErrors as errors:
        cases = errors.failure_cases
        cannot = cases[cases["index"].isna()]
        if len(cannot):  # a check that itself failed says nothing of the rows, so none of them counts as good
            rule = f"the check could not be evaluated: {cannot['failure_case'].iloc[0]}"
            yield "values_are_allowed", str(cannot["column"].iloc[0]), rule, list(range(len(frame)))
        cases = cases[cases["index"].notna()]
        for (column, rule), group in cases.groupby(["column", "check"], dropna=False):
            rows = sorted({int(index) for index in group["index"]})
            yield _check_of(str(rule)), str(column), _in_words(str(rule), begin), rows


def _value_checks(spec: ColumnSpec) -> list[Any]:
    import pandera.pandas as pan

    checks = []
    if spec.min is not None:
        checks.append(pan.Check.ge(spec.min))
    if spec.max is not None:
        checks.append(pan.Check.le(spec.max))
    if spec.allowed is not None:
        checks.append(pan.Check.isin(list(spec.allowed)))
    return checks


def _check_of(rule: str) -> str:
    if rule == "not_nullable":
        return "required_values_are_present"
    if rule == "multiple_fields_uniqueness":
        return "keys_are_unique"
    return rule if rule in CHECKS else "values_are_allowed"


def _in_words(rule: str, begin: Any) -> str:
    words = {
        "not_nullable": "null where a value is required",
        "multiple_fields_uniqueness": "the same key twice",
        "event_times_are_in_partition": f"not within {begin:%Y-%m-%d}",
    }
    return words.get(rule, rule)
