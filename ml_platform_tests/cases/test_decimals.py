"""Decimals that become a float which is not the nearest."""

from decimal import Decimal

import pyarrow as pa
import pytest

from ml_platform_tests.cases.case import Case, parquet


def decimals(precision: int, scale: int, *values: str) -> dict[str, bytes]:
    return {"a.parquet": parquet(pa.array(list(map(Decimal, values)), pa.decimal128(precision, scale)))}


FLOAT = {"value": "float64"}
CASES = [
    Case("apache/arrow-rs#10508", "1.0 becomes 0.9999999999999999", FLOAT, decimals(38, 37, "1.0"), rows=[(1.0,)]),
    Case("apache/arrow-rs#10508", "two roundings", FLOAT, decimals(38, 20, "1.23456789012345678901"), rows=[(1.2345678901234567,)]),
    Case("apache/arrow-rs#10508", "a very small one", FLOAT, decimals(38, 37, "1e-37"), rows=[(1e-37,)]),
    Case("apache/datafusion-comet#5670", "12345.6789 becomes 12345.678899999999", FLOAT,
         decimals(38, 18, "12345.6789", "123456.789012", "76543.21"), rows=[(12345.6789,), (123456.789012,), (76543.21,)]),
    Case("spiceai/spiceai#13993", "a mean of whole numbers", FLOAT, decimals(38, 20, "47.5"), rows=[(47.5,)]),
    Case("trinodb/trino#29378", "two roundings on the way to a float32", {"value": "float32"}, decimals(13, 2, "999999.00"), rows=[(999999.0,)]),
    Case("", "zero with many places is a whole number", {"value": "int32"},
         decimals(38, 18, "0", "7"), rows=[(0,), (7,)]),
    Case("", "and a half is none", {"value": "int32"}, decimals(38, 18, "0.5", "7"), rows=[(7,)],
         red={"values_fit_their_types": "value: no whole number: '0.500000000000000000'"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_decimals(case: Case) -> None:
    case.hold()
