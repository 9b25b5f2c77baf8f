"""The bodies of MLflow's `/invocations`, as rows: clients of `mlflow models serve` need not change.

    {"dataframe_split": {"columns": [...], "data": [[...], ...]}}
    {"dataframe_records": [{...}, ...]}
    {"instances": [{...}, ...]}  or, without names, [[...], ...]
    {"inputs": {"column": [...], ...}}  or, without names, [[...], ...]

Values without names are in the order of the model's features followed by its request columns.
"""

from collections.abc import Sequence
from typing import Any

from ml_platform.core.errors import RequestError
from ml_platform.serving.requests import EXPLAINED, rows_of

FORMS = ("dataframe_split", "dataframe_records", "instances", "inputs")


def rows_of_invocation(content: dict[str, Any], columns: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a body; `columns` are the names of values that come without.

    Raises:
        RequestError: naming the field, if it is none of the four forms.
    """
    if len(content) != 1 or (form := next(iter(content))) not in FORMS:
        given = ", ".join(sorted(map(repr, content)))[:200] or "nothing"
        raise RequestError("request body", f"has {given}, not one of {', '.join(FORMS)}", "send one of them")
    value = content[form]
    if form == "dataframe_split":
        return _split(value)
    if form == "inputs" and isinstance(value, dict):
        return _by_column(value)
    if form in ("instances", "inputs") and isinstance(value, list) and value and isinstance(value[0], list):
        return _named(value, columns, form)
    return rows_of(value, form)


def _split(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, dict) or not {"columns", "data"} <= value.keys() <= {"columns", "data", "index"}:
        raise RequestError("field 'dataframe_split'", "must have `columns` and `data`", EXPLAINED)
    names = value["columns"]
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise RequestError("field 'dataframe_split.columns'", "must be a list of different names", EXPLAINED)
    return _named(value["data"], names, "dataframe_split.data")


def _by_column(value: dict[str, Any]) -> list[dict[str, Any]]:
    lengths = {name: len(of_name) if isinstance(of_name, list) else None for name, of_name in value.items()}
    for name, length in lengths.items():
        if not length or length != next(iter(lengths.values())):
            problem = "must be a list with one value per row, as many as the other columns have"
            raise RequestError(f"field 'inputs.{name[:100]}'", problem, EXPLAINED)
    rows = zip(*value.values(), strict=True)
    return rows_of([dict(zip(value, row, strict=True)) for row in rows], "inputs")


def _named(data: Any, names: Sequence[str], field: str) -> list[dict[str, Any]]:
    if isinstance(data, list):
        for position, row in enumerate(data):
            if not isinstance(row, list) or len(row) != len(names):
                problem = f"must be a list of {len(names)} values: {', '.join(names)}"
                raise RequestError(f"row {position} of {field!r}", problem[:1_000], EXPLAINED)
        data = [dict(zip(names, row, strict=True)) for row in data]
    return rows_of(data, field)
