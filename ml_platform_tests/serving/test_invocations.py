"""MLflow's forms become rows, or an error that names the field."""

from typing import Any

import pytest

from ml_platform.core.errors import RequestError
from ml_platform.serving.invocations import rows_of_invocation

ROWS = [{"a": 1, "b": 2}, {"a": 3, "b": 4}]


@pytest.mark.parametrize(
    "body",
    [
        {"dataframe_split": {"columns": ["a", "b"], "data": [[1, 2], [3, 4]]}},
        {"dataframe_split": {"columns": ["b", "a"], "index": [0, 1], "data": [[2, 1], [4, 3]]}},
        {"dataframe_records": ROWS},
        {"instances": ROWS},
        {"instances": [[1, 2], [3, 4]]},
        {"inputs": ROWS},
        {"inputs": [[1, 2], [3, 4]]},
        {"inputs": {"a": [1, 3], "b": [2, 4]}},
    ],
)
def test_every_form_gives_the_same_rows(body: dict[str, Any]) -> None:
    assert rows_of_invocation(body, ["a", "b"]) == ROWS


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ({}, "request body: has nothing, not one of dataframe_split"),
        ({"instances": ROWS, "inputs": ROWS}, "'inputs', 'instances'"),
        ({"instances": []}, "field 'instances'"),
        ({"instances": [[1, 2], [3]]}, "row 1 of 'instances'.*2 values: a, b"),
        ({"instances": [1]}, "row 0 of 'instances'.*not a number"),
        ({"inputs": {}}, "field 'inputs'"),
        ({"inputs": {"a": [1], "b": [1, 2]}}, "field 'inputs.b'"),
        ({"inputs": {"a": 1}}, "field 'inputs.a'"),
        ({"dataframe_split": [[1]]}, "`columns` and `data`"),
        ({"dataframe_split": {"columns": ["a", "a"], "data": [[1, 2]]}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": [[]], "data": []}}, "dataframe_split.columns"),
        ({"dataframe_split": {"columns": ["a"], "data": [[1], 2]}}, "row 1 of 'dataframe_split.data'"),
        ({"dataframe_split": {"columns": ["a"], "data": 5}}, "field 'dataframe_split.data'.*a number"),
        ({"dataframe_records": {"a": 1}}, "field 'dataframe_records'"),
    ],
)
def test_what_is_no_such_form_names_the_field(body: dict[str, Any], named: str) -> None:
    with pytest.raises(RequestError, match=named):
        rows_of_invocation(body, ["a", "b"])
