"""Objects that a pattern passes over, and compressed ones of which a part is read."""

import pyarrow as pa
import pytest

from ml_platform_tests.cases.case import Case, csv, json, members, parquet

VALUE = {"value": "int64"}
ONE, TWO = parquet(pa.array([1])), csv("value", "2")
CASES = [
    Case("ananthakumaran/paisa#60", "a bank's .CSV", VALUE, {"report.CSV": TWO}, rows=[(2,)]),
    Case("huggingface/datasets#7153", ".ndjson beside .jsonl", VALUE, {"a.ndjson": json("3")}, rows=[(3,)]),
    Case("rmoralespp/jsonl#36", "compressed ones", VALUE, {"a.ndjson.gz": members(json("3"))}, rows=[(3,)]),
    Case("rmoralespp/jsonl#36", "of a kind that is not read is said", VALUE, {"a.jsonl.bz2": "BZh", "b.csv": TWO}, rows=[(2,)],
         red={"everything_is_recognised": "1 of 2 objects; landed/2024-03-01/a.jsonl.bz2: is not named"}),
    Case("apache/paimon#8860", "folders of writers that have not committed are theirs", VALUE,
         {"__magic_job-1/tasks/part-0.snappy.parquet": b"", "_temporary/0/part-0.parquet": ONE, ".hive-staging_1/p.parquet": ONE,
          "part-0.snappy.parquet": ONE}, rows=[(1,)]),
    Case("apache/paimon#8860", "other folders are said", VALUE, {"hour=05/p.csv": TWO, "part-0.c000.gz.parquet": ONE}, rows=[(1,)],
         red={"everything_is_recognised": "hour=05/p.csv: lies in a folder within the day's"}),
    Case("trinodb/trino#18281", "rows of all members of a gzip file", VALUE, {"a.csv.gz": members("id,at,value\n", "1,2024-03-01,2\n", "", "2,2024-03-01,3\n")},
         rows=[(2,), (3,)]),
    Case("oven-sh/bun#31522", "a member ends within a record", VALUE, {"a.csv.gz": members("id,at,value\n1,2024-", "03-01,2\n")}, rows=[(2,)]),
    Case("openjdk/jdk#30925", "what comes after the last member is no gzip", VALUE, {"a.csv.gz": members(TWO) + b"hello", "b.parquet": ONE},
         rows=[(1,)], red={"objects_are_readable": "a.csv.gz: not a readable CSV file"}),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=str)
def test_names_and_compression(case: Case) -> None:
    case.hold()
