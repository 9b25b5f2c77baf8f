from datetime import UTC, date, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core.spec import ColumnSpec, SourceSpec
from ml_platform.data.landing import (
    LandedObject,
    day_of,
    day_prefix,
    extend_fingerprint,
    file_format,
    fingerprint,
    lateness,
    why_unread,
)

DAY = date(2024, 1, 1)


def landed(key: str, etag: str = "a", minute: int = 0) -> LandedObject:
    return LandedObject(key, etag, 10, datetime(2024, 1, 1, 0, minute, tzinfo=UTC))


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("part-0.parquet", ("parquet", None)),
        ("part-0.csv", ("csv", None)),
        ("part-0.jsonl", ("jsonl", None)),
        ("part-0.ndjson", ("jsonl", None)),
        ("part-0.json", ("jsonl", None)),
        ("part-0.csv.gz", ("csv", "gzip")),
        ("part-0.json.gz", ("jsonl", "gzip")),
        ("part-0.ndjson.zst", ("jsonl", "zstd")),
        ("part-0.csv.gzip", ("csv", "gzip")),
        ("part-0.jsonl.zstd", ("jsonl", "zstd")),
        ("part-0.parquet.gz", ("parquet", "gzip")),
        ("PART-0.CSV", ("csv", None)),
        ("Export.Csv.GZ", ("csv", "gzip")),
        ("part-0.snappy.parquet", ("parquet", None)),
        ("part-0.gz.parquet", ("parquet", None)),
        ("part-0.c000.zstd.parquet", ("parquet", None)),
        ("part-0.parquet.snappy", ("parquet", None)),
        ("part-0.csv.snappy", None),
        ("part-0.csv.bz2", None),
        ("part-0.csv.gz.gz", None),
        ("part-0.gz", None),
        ("part-0.txt", None),
        ("part-0.csv ", None),
        ("csv", None),
    ],
)
def test_format_and_compression_are_told_by_the_usual_endings_in_any_case(
    name: str, found: tuple[str, str | None] | None
) -> None:
    assert file_format(f"clicks/2024-01-01/{name}") == found
    assert day_of("clicks", f"clicks/2024-01-01/{name}") == DAY
    why = why_unread("clicks", f"clicks/2024-01-01/{name}")
    assert why == ("" if found else "is not named <file>.{parquet,csv,jsonl,ndjson,json}[.gz|.zst]")


@pytest.mark.parametrize("file", ["hour=05/p.csv", "deep/er/a.parquet", "2024-01-02/a.csv"])
def test_what_lies_deeper_is_of_the_day_and_not_read(file: str) -> None:
    assert day_of("clicks", f"clicks/2024-01-01/{file}") == DAY
    assert why_unread("clicks", f"clicks/2024-01-01/{file}") == "lies in a folder within the day's"


@pytest.mark.parametrize(
    "file", ["été.csv", "日本 語.jsonl.gz", "a b  c.parquet", "a=1&b=%20.csv", "x.y.csv.zst", "a_.csv"]
)
def test_file_names_may_have_any_character(file: str) -> None:
    assert day_of("clicks", day_prefix("clicks", DAY) + file) == DAY


@pytest.mark.parametrize(
    "key",
    [
        "clicks/readme.txt",
        "clicks/2024-01-01",
        "clicks/2024-01-01/",
        "clicks/2024-13-01/a.csv",
        "clicks/2023-02-29/a.csv",
        "clicks/2024-1-1/a.csv",
        "clicks/20240101/a.csv",
        "clicks/２０２４-01-01/a.csv",
        "clicks/2024-01-01/hour=05/",
        "clicks/2024-01-01/_temporary/0/part-0.csv",
        "clicks/2024-01-01/.hive-staging_1/part-0.csv",
        "clicks/2024-01-01/hour=05/_SUCCESS",
        "clicks/2024-01-01/_SUCCESS",
        "clicks/2024-01-01/_temporary.csv",
        "clicks/2024-01-01/.a.csv",
        "clicks/2024-01-01/.csv",
        "other/2024-01-01/a.csv",
        "clicks2/2024-01-01/a.csv",
        "/clicks/2024-01-01/a.csv",
    ],
)
def test_other_names_belong_to_no_day(key: str) -> None:
    assert day_of("clicks", key) is None


@given(st.permutations([landed(f"clicks/2024-01-01/{name}.csv", name) for name in ("a", "b", "é", "z z", "a0")]))
def test_fingerprint_does_not_depend_on_the_order_and_is_the_chain_in_key_order(objects: list[LandedObject]) -> None:
    chain = ""
    for found in sorted(objects, key=lambda o: o.key.encode()):  # the order of an S3 listing
        chain = extend_fingerprint(chain, found)
    assert fingerprint(objects) == chain[:12]


def test_fingerprint_is_of_names_and_contents_and_not_of_times() -> None:
    one = [landed("clicks/2024-01-01/a.csv", "a"), landed("clicks/2024-01-01/b.csv", "b")]
    assert fingerprint([landed("clicks/2024-01-01/a.csv", "a", minute=5), one[1]]) == fingerprint(one)
    others = [
        [one[0]],
        [],
        [one[0], landed("clicks/2024-01-01/b.csv", "c")],
        [one[0], landed("clicks/2024-01-01/c.csv", "b")],
        [landed("clicks/2024-01-01/a.csv", "b"), landed("clicks/2024-01-01/b.csv", "a")],
    ]
    assert len({fingerprint(objects) for objects in (one, *others)}) == 1 + len(others)


def test_day_is_late_by_what_passed_since_its_delay_was_over() -> None:
    source = SourceSpec(
        name="clicks",
        start_date=DAY,
        delay_days=2,
        key=("t",),
        event_time="t",
        columns={"t": ColumnSpec(type="timestamp")},
    )
    due = datetime(2024, 1, 4, tzinfo=UTC)  # the day ends on the 2nd
    assert lateness(source, DAY, due) == timedelta(0)
    assert lateness(source, DAY, due + timedelta(hours=5)) == timedelta(hours=5)
    assert lateness(source, DAY, due - timedelta(days=1)) == -timedelta(days=1)
