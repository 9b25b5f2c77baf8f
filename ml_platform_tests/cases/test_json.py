"""JSON that two parsers read in two ways."""

import pytest

from ml_platform_tests.cases.case import Case, json

VALUE = {"value": "float64"}
TWICE = {"values_fit_their_types": "a line has two values for one name"}
NO_OBJECT = {"values_fit_their_types": "a line is no JSON object"}


def lines(*rest: str) -> dict[str, str]:
    return {"a.jsonl": "".join(f'{{"id": {n}, "at": "2024-03-01", {one}\n' for n, one in enumerate(rest))}


CASES = [
    Case("boostorg/json#71", "the last of two values for a name", VALUE, lines('"value": 5, "value": 50}', '"value": 7}'),
         rows=[(7.0,)], red=TWICE),
    Case("DaveGamble/cJSON#696", "the first of two values for a name", VALUE, lines('"value": 5, "value": 5}'), red=TWICE),
    Case("danielaparker/jsoncons#505", "written in two ways", VALUE, lines('"value": 5, "val\\u0075e": 50}'), red=TWICE),
    Case("JamesNK/Newtonsoft.Json#818", "a comma before the bracket", VALUE, lines('"value": 5,}', '"value": 7}'),
         rows=[(7.0,)], red=NO_OBJECT),
    Case("open-source-parsers/jsoncpp#1547", "what comes after the object", VALUE, lines('"value": 5} 6', '"value": 7}'),
         rows=[(7.0,)], red=NO_OBJECT),
    Case("jqlang/jq#1389", "NaN, which is null here", VALUE, {"a.jsonl": json("NaN", "7")}, rows=[(None,), (7.0,)]),
    Case("jqlang/jq#1389", "nan, which is nothing", VALUE, {"a.jsonl": json("nan", "7")}, rows=[(7.0,)], red=NO_OBJECT),
    Case("jqlang/jq#1389", "what is infinite is no number to learn from", VALUE, {"a.jsonl": json("-Infinity", "7")},
         rows=[(7.0,)], red={"values_are_allowed": "value: infinite: -inf"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_json(case: Case) -> None:
    case.hold()
