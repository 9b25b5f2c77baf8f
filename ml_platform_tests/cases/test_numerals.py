"""Texts that a library's grammar takes for numbers, and a producer did not mean as such."""

import pytest

from ml_platform_tests.cases.case import Case, csv, json

NUMBERS = {"whole": "int64", "number": "float64"}


def refused(value: str) -> dict[str, str]:
    return {"values_fit_their_types": f"whole: no whole number: '{value}'"}


CASES = [
    Case("pyexcel/pyexcel#138", "1234_5678 becomes 12345678", NUMBERS,
         {"a.csv": csv("whole,number", "1,1", "1234_5678,2", "3,1234_5678")}, rows=[(1, 1.0)], red=refused("1234_5678")),
    Case("kinverarity1/lasio#592", "321_04 becomes 32104", NUMBERS, {"a.csv": csv("whole,number", "321_04,1")}, red=refused("321_04")),
    Case("weecology/retriever#1322", "2_0 becomes 20", NUMBERS, {"a.csv": csv("whole,number", "2_0,1", "20,2_0")}, red=refused("2_0")),
    Case("pola-rs/polars#15567", "whether 0x123 is a number depends on the library", NUMBERS,
         {"a.csv": csv("whole,number", "0x123,1", "0XFFE,1", "291,1")}, rows=[(291, 1.0)], red=refused("0x123")),
    Case("NVIDIA/cudf#973", "hexadecimal in a text format", {"whole": "int64"}, {"a.csv": csv("whole", "0x1A")}, red=refused("0x1A")),
    Case("adaltas/node-csv-parse#148", "0o42 and 0x42.23", {"whole": "int64"},
         {"a.csv": csv("whole", "0o42", "0x42.23", "042")}, rows=[(42,)], red=refused("0o42")),
    Case("pola-rs/polars#15567", "nor does JSON know it", {"value": "int64"}, {"a.jsonl": json("0x123", "291")}, rows=[(291,)],
         red={"values_fit_their_types": "a line is no JSON object"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_numerals(case: Case) -> None:
    case.hold()
