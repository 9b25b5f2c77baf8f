"""A day under the contract: every rule red for its own reason, and every policy with its own end."""

import gzip
import io
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core import digest
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import ColumnSpec, PolicySpec, ReferenceSpec, RowCountSpec, SourceSpec
from ml_platform.data import csv_records, json_lines, passage
from ml_platform.data.contract import CHECKS, arrow_schema
from ml_platform.data.findings import Finding, Rules
from ml_platform.data.ingest import Ingested, LandedFile, LookBack, ingest
from ml_platform.data.landing import LandedObject, Stray
from ml_platform.data.quarantine import Decision
from ml_platform_tests.selection import how_many

DAY = date(2018, 4, 1)
TIME = datetime(2018, 4, 1, tzinfo=UTC)
QUARANTINE = PolicySpec(on_failure="quarantine", up_to=0.5)
RELEASE, DISCARD = (
    Decision(action, "f", tuple(set(CHECKS) - {"row_count_is_normal"}), "looked at it", "ada", "2024-01-01")  # type: ignore[arg-type]
    for action in ("release", "discard")
)


@pytest.fixture(scope="session")
def source(catalog: Catalog) -> SourceSpec:
    """The transactions, with the default policies and without a norm for their number."""
    declared = catalog.sources["transactions"]
    return declared.model_copy(update={"policies": {}, "unique_within_days": 1})


def with_policy(source: SourceSpec, check: Any, policy: PolicySpec = QUARANTINE, **more: Any) -> SourceSpec:
    return source.model_copy(update={"policies": {check: policy}, **more})


def rows(n: int = 10, **columns: Any) -> pa.Table:
    good = {
        "transaction_id": list(range(n)),
        "tx_datetime": [TIME + timedelta(minutes=i) for i in range(n)],
        "customer_id": pa.array([1] * n, pa.int32()),
        "terminal_id": pa.array([2] * n, pa.int32()),
        "tx_amount": [float(i) for i in range(n)],
    }
    return pa.table({**good, **columns})


def amounts(*values: float | None) -> pa.Table:
    return rows(len(values), tx_amount=pa.array(values, pa.float64()))


def parquet(table: pa.Table) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    return buffer.getvalue()


class Outcome:
    """What `ingest` made of some contents, read back from its files."""

    def __init__(self, source: SourceSpec, ingested: Ingested) -> None:
        assert [f.check for f in ingested.findings] == Rules(source).checks
        self.ingested = ingested
        self.quality = ingested.quality
        self.table = None if ingested.staged is None else pq.read_table(ingested.staged.path)
        self.aside = None if ingested.aside is None else pq.read_table(ingested.aside.path).to_pylist()

    def finding(self, check: str) -> Finding:
        return next(finding for finding in self.ingested.findings if finding.check == check)

    @property
    def failed(self) -> dict[str, Finding]:
        return {
            f.check: f
            for f in self.ingested.findings
            if f.outcome != "passed" and not f.words.startswith("not evaluated")
        }

    @property
    def ids(self) -> list[int]:
        assert self.table is not None, self.failed
        return self.table["transaction_id"].to_pylist()


def look(
    source: SourceSpec,
    *contents: pa.Table | bytes | tuple[str, bytes],
    back: LookBack = LookBack(),  # noqa: B008  # frozen
    decision: Decision | None = None,
    strays: Sequence[Stray] = (),
) -> Outcome:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number, content in enumerate(contents):
            suffix, content = content if isinstance(content, tuple) else ("parquet", content)
            content = content if isinstance(content, bytes) else parquet(content)
            path = Path(folder) / f"landed-{number}"
            path.write_bytes(content)
            found = LandedObject(f"{source.name}/{DAY}/o{number}.{suffix}", f"e{number}", len(content), TIME)
            files.append(LandedFile(found, path))
        return Outcome(source, ingest(source, DAY, files, back, Path(folder), decision, strays))


def only_failure(outcome: Outcome) -> tuple[str, int, str]:
    assert outcome.quality == "bad"
    assert outcome.table is None
    assert len(outcome.failed) == 1, outcome.failed
    (finding,) = outcome.failed.values()
    return finding.check, finding.offending, finding.words


# --- every rule -------------------------------------------------------------------------------------------------------


def test_good_rows_become_the_table_in_the_order_of_the_objects(source: SourceSpec) -> None:
    outcome = look(source, rows(4).slice(2), rows(4).slice(0, 2))
    assert outcome.quality == "good"
    assert outcome.ids == [2, 3, 0, 1]
    assert outcome.table is not None
    assert outcome.table.schema.equals(arrow_schema(source))
    assert outcome.ingested.staged is not None
    assert outcome.ingested.staged.content_hash == digest.of_table(outcome.table)


def test_unreadable_object(source: SourceSpec) -> None:
    check, count, problem = only_failure(look(source, rows(), b"<html>"))
    assert (check, count) == ("objects_are_readable", 1)
    assert "o1.parquet: not a readable Parquet file" in problem


def test_object_that_turns_out_to_be_cut_short_while_it_is_read(source: SourceSpec) -> None:
    content = gzip.compress(
        b"transaction_id,tx_datetime,customer_id,terminal_id,tx_amount\n" + b"1,2018-04-01,1,1,1\n" * 9
    )
    check, count, _ = only_failure(look(source, ("csv.gz", content[:-10])))
    assert (check, count) == ("objects_are_readable", 1)


def test_text_that_is_not_utf8_is_unreadable(source: SourceSpec) -> None:
    table = rows().append_column("note", pa.array([b"\xff"] * 10).view(pa.string()))
    noted = source.model_copy(update={"columns": {**source.columns, "note": ColumnSpec(type="string")}})
    assert only_failure(look(noted, table))[0] == "objects_are_readable"


def test_rule_that_cannot_be_evaluated_does_not_pass(source: SourceSpec) -> None:
    """A rule that fails on the values themselves must not count as kept."""
    broken = ColumnSpec.model_construct(type="string", nullable=False, min=0.0, max=None, allowed=None)
    text = source.model_copy(update={"columns": {**source.columns, "note": broken}})
    outcome = look(text, rows().append_column("note", pa.array(["x"] * 10)))
    assert only_failure(outcome)[:2] == ("values_are_allowed", 10)


def test_missing_column(source: SourceSpec) -> None:
    check, _, problem = only_failure(look(source, rows().drop_columns(["terminal_id"])))
    assert check == "schema_conforms"
    assert "column 'terminal_id' is missing" in problem


@pytest.mark.parametrize("values", [["1.0"] * 10, [True] * 10, [TIME] * 10])
def test_retyped_column(source: SourceSpec, values: list[Any]) -> None:
    check, _, problem = only_failure(look(source, rows(tx_amount=values)))
    assert check == "schema_conforms"
    assert "column 'tx_amount' has type" in problem


def test_integer_that_overflows(source: SourceSpec) -> None:
    check, count, problem = only_failure(look(source, rows(customer_id=pa.array([2**40, *[1] * 9], pa.int64()))))
    assert (check, count) == ("values_fit_their_types", 1)
    assert "customer_id: beyond int32, -2147483648 to 2147483647: 1099511627776" in problem


@pytest.mark.parametrize("bad", [None, float("nan")])
def test_null_or_nan_in_a_required_column(source: SourceSpec, bad: float | None) -> None:
    assert only_failure(look(source, amounts(bad, *range(9))))[:2] == ("required_values_are_present", 1)


@pytest.mark.parametrize("bad", [-1.0, 1e9, float("inf")])
def test_value_out_of_range(source: SourceSpec, bad: float) -> None:
    outcome = look(source, amounts(bad, *map(float, range(9))))
    assert only_failure(outcome)[:2] == ("values_are_allowed", 1)
    assert outcome.finding("values_are_allowed").sample[0]["tx_amount"] == bad


@pytest.mark.parametrize("bad", [float("inf"), float("-inf")])
def test_infinite_value_is_not_allowed_even_without_a_range(source: SourceSpec, bad: float) -> None:
    free = source.model_copy(update={"columns": {**source.columns, "tx_amount": ColumnSpec(type="float64")}})
    assert only_failure(look(free, amounts(bad, 1.0)))[:2] == ("values_are_allowed", 1)


def test_value_that_is_not_among_the_allowed(source: SourceSpec) -> None:
    limited = source.model_copy(
        update={"columns": {**source.columns, "tx_amount": ColumnSpec(type="float64", allowed=(0.0, 1.0))}}
    )
    assert only_failure(look(limited, rows(3)))[:2] == ("values_are_allowed", 1)


BIG = 2**53


@pytest.mark.parametrize("beside", [[], [None]])
@pytest.mark.parametrize("limit", [{"max": BIG}, {"min": BIG + 2}, {"allowed": [BIG, BIG + 2]}])
def test_limits_are_compared_in_the_type_of_the_column(
    source: SourceSpec, limit: dict[str, Any], beside: list[None]
) -> None:
    """As floats 9007199254740993 is 9007199254740992; and pandas makes floats of whole numbers beside a null."""
    spec = ColumnSpec.model_validate({"type": "int64", "nullable": True, **limit})
    limited = source.model_copy(update={"columns": {**source.columns, "number": spec}})
    table = rows(1 + len(beside)).append_column("number", pa.array([BIG + 1, *beside], pa.int64()))
    check, count, words = only_failure(look(limited, table))
    assert (check, count) == ("values_are_allowed", 1)
    assert words.endswith(": 9007199254740993")


def test_limits_of_a_float32_are_float32(source: SourceSpec) -> None:
    spec = ColumnSpec.model_validate({"type": "float32", "max": 0.1, "allowed": [0.1, 0.05]})
    limited = source.model_copy(update={"columns": {**source.columns, "share": spec}})
    table = rows(2).append_column("share", pa.array([0.1, 0.05], pa.float32()))
    assert look(limited, table).quality == "good"
    assert look(limited, ("csv", b"transaction_id,tx_datetime,customer_id,terminal_id,tx_amount,share\n1,2018-04-01,1,1,1,0.1\n")).quality == "good"  # fmt: skip


def test_nan_is_null_where_a_value_may_be_missing(source: SourceSpec) -> None:
    columns = {**source.columns, "tx_amount": ColumnSpec(type="float64", nullable=True, max=0.9)}
    outcome = look(source.model_copy(update={"columns": columns}), amounts(0.5, float("nan"), None))
    assert outcome.quality == "good"
    assert outcome.table is not None
    assert (outcome.table["tx_amount"].to_pylist(), outcome.table["tx_amount"].null_count) == ([0.5, None, None], 2)


def test_nan_of_an_adopted_column_is_null(source: SourceSpec) -> None:
    table = rows(2).append_column("score", pa.array([0.5, float("nan")]))
    outcome = look(source.model_copy(update={"new_columns": "adopt"}), table)
    assert outcome.table is not None
    assert outcome.table["score"].to_pylist() == [0.5, None]


def test_time_that_python_has_no_word_for_is_named_and_set_aside(source: SourceSpec) -> None:
    times = pa.array([2**60, 1_522_540_800_000_000], pa.timestamp("us", "UTC"))
    check, count, words = only_failure(look(source, rows(2, tx_datetime=times)))
    assert (check, count) == ("values_fit_their_types", 1)
    assert "tx_datetime: no time within the years 1 to 9999: '1152921504606846976 us'" in words
    kept = look(with_policy(source, "values_fit_their_types"), rows(2, tx_datetime=times))
    assert kept.aside is not None
    assert [row["tx_datetime"] for row in kept.aside] == ["1152921504606846976"]


def test_key_twice_across_objects(source: SourceSpec) -> None:
    assert only_failure(look(source, rows(), rows(1)))[:2] == ("keys_are_unique", 1)


def test_key_of_a_recent_day(source: SourceSpec) -> None:
    recent = LookBack(recent=pads.dataset(rows(3)))
    weekly = source.model_copy(update={"unique_within_days": 7})
    check, count, words = only_failure(look(weekly, rows(), back=recent))
    assert (check, count) == ("keys_are_unique", 3)
    assert "a key of the 6 days before" in words


def test_row_of_another_day(source: SourceSpec) -> None:
    times = [TIME + timedelta(days=1), *[TIME + timedelta(days=1, microseconds=-1)] * 9]
    assert only_failure(look(source, rows(tx_datetime=times)))[:2] == ("event_times_are_in_partition", 1)


@pytest.mark.parametrize("known", [[1], None])
def test_reference_that_leads_nowhere(source: SourceSpec, known: list[int] | None) -> None:
    reference = ReferenceSpec(source="customers", column="id")
    referring = source.model_copy(update={"references": {"customer_id": reference}})
    others = None if known is None else pads.dataset(pa.table({"id": pa.array(known, pa.int32())}))
    outcome = look(
        referring,
        rows(3, customer_id=pa.array([1, 7, 1], pa.int32())),
        back=LookBack(references={"customer_id": others}),
    )
    finding = outcome.failed["references_exist"]
    assert finding.offending == (3 if known is None else 1)
    assert ("no rows for these days" in finding.words) == (known is None)


@pytest.mark.parametrize(
    ("count", "recent", "words"),
    [
        (10, (10, 10), ""),  # two days make no norm
        (10, (100, 100, 100), "10 rows are not within 33 to 300"),
        (10, (2, 2, 2), "10 rows are not within 1 to 6"),
        (10, (9, 10, 500), ""),
        (0, (), "0 rows are fewer than row_count.min, 1"),
    ],
)
def test_row_count_against_the_norm_is_a_warning_by_default(
    source: SourceSpec, count: int, recent: tuple[int, ...], words: str
) -> None:
    outcome = look(source, rows(count), back=LookBack(recent_rows=recent))
    assert outcome.quality == ("degraded" if words else "good")
    assert outcome.finding("row_count_is_normal").words.startswith(words)
    assert outcome.table is not None


def test_row_count_may_stop_the_day(source: SourceSpec) -> None:
    strict = with_policy(source, "row_count_is_normal", PolicySpec(), row_count=RowCountSpec(max=5))
    assert only_failure(look(strict, rows(6)))[2] == "6 rows are more than row_count.max, 5"


def test_nothing_landed_is_not_a_pass(source: SourceSpec) -> None:
    outcome = look(source)
    assert outcome.quality == "bad"
    assert outcome.finding("keys_are_unique").outcome == "error"
    assert outcome.finding("every_object_is_accounted_for").outcome == "error"


def test_checks_after_one_that_stopped_the_day_are_not_evaluated_and_do_not_pass(source: SourceSpec) -> None:
    outcome = look(source, b"junk")
    passed = {f.check for f in outcome.ingested.findings if f.outcome == "passed"}
    assert passed == {"everything_is_recognised", "schema_conforms", "every_object_is_accounted_for"}


# --- formats and types ------------------------------------------------------------------------------------------------

CSV = "transaction_id,tx_datetime,customer_id,terminal_id,tx_amount\n"


def test_text_formats_give_the_same_rows_as_parquet(source: SourceSpec) -> None:
    lines = "".join(f"{i},2018-04-01T00:{i:02d}:00,1,2,{i}.0\n" for i in range(10))
    json = "".join(
        f'{{"transaction_id": {i}, "tx_datetime": "2018-04-01 00:{i:02d}:00", "customer_id": 1, "terminal_id": 2, "tx_amount": {i}.0}}\n'
        for i in range(10)
    )
    expected = look(source, rows()).table
    assert expected is not None
    for suffix, content in (("csv", (CSV + lines).encode()), ("jsonl", json.encode())):
        for compressed in (content, gzip.compress(content), pa.compress(content, codec="zstd", asbytes=True)):
            ending = (
                suffix
                if compressed is content
                else f"{suffix}.gz"
                if compressed[:2] == b"\x1f\x8b"
                else f"{suffix}.zst"
            )
            assert expected.equals(look(source, (ending, compressed)).table), ending  # type: ignore[arg-type]


def test_objects_of_several_formats_make_one_day(source: SourceSpec) -> None:
    outcome = look(source, rows(2), ("csv", f"{CSV}7,2018-04-01,1,2,3\n".encode()))
    assert outcome.ids == [0, 1, 7]


@pytest.mark.parametrize(
    ("written", "utc"),
    [
        ("2018-04-01T10:00:00Z", 10),
        ("2018-04-01 12:00:00+02:00", 10),
        ("2018-04-01 10:00:00", 10),
        ("2018-03-31T23:30:00-10:30", 10),
    ],
)
def test_time_zones_may_be_mixed_within_an_object(source: SourceSpec, written: str, utc: int) -> None:
    outcome = look(source, ("csv", f"{CSV}1,2018-04-01T01:00:00,1,2,3\n2,{written},1,2,3\n".encode()))
    assert outcome.table is not None, outcome.failed
    assert outcome.table["tx_datetime"][1].as_py() == TIME + timedelta(hours=utc)


def test_typed_times_without_a_zone_are_utc_and_other_zones_are_converted(source: SourceSpec) -> None:
    naive = rows(tx_datetime=pa.array([datetime(2018, 4, 1, 0, i) for i in range(10)], pa.timestamp("ms")))
    berlin = rows(tx_datetime=rows()["tx_datetime"].cast(pa.timestamp("us", tz="Europe/Berlin")))
    for table in (naive, berlin):
        found = look(source, table).table
        assert found is not None
        assert found["tx_datetime"][1].as_py() == TIME + timedelta(minutes=1)


@pytest.mark.parametrize(("values", "kind"), [([2**63, 1], pa.uint64()), ([2**64 - 1, 1], pa.uint64())])
def test_unsigned_number_that_would_turn_negative_does_not_fit(
    source: SourceSpec, values: list[int], kind: pa.DataType
) -> None:
    outcome = look(source, rows(2, transaction_id=pa.array(values, kind)))
    assert only_failure(outcome)[:2] == ("values_fit_their_types", 1)


def test_column_that_json_mentions_late_is_not_lost(source: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(json_lines, "BLOCK_BYTES", 64)
    columns = {**source.columns, "note": ColumnSpec(type="string", nullable=True)}
    plain = '{"transaction_id": %d, "tx_datetime": "2018-04-01", "customer_id": 1, "terminal_id": 2, "tx_amount": 3}\n'
    noted = plain.replace("}", ', "note": "x"}')
    lines = "".join(plain % n for n in range(50)) + noted % 50
    outcome = look(source.model_copy(update={"columns": columns}), ("jsonl", b"\xef\xbb\xbf" + lines.encode()))
    assert outcome.table is not None, outcome.failed
    assert outcome.table["note"].to_pylist() == [*[None] * 50, "x"]


def test_quote_that_is_not_closed_does_not_swallow_lines(source: SourceSpec) -> None:
    columns = {**source.columns, "note": ColumnSpec(type="string")}
    lines = f'{CSV[:-1]},note\n1,2018-04-01,1,2,3,"a\n2,2018-04-01,1,2,3,b\n'
    check, _, words = only_failure(look(source.model_copy(update={"columns": columns}), ("csv", lines.encode())))
    assert check == "objects_are_readable"
    assert "a quoted field is not closed" in words


@pytest.mark.parametrize("name", ["position", "_position"])
def test_columns_may_have_names_that_we_use_ourselves(source: SourceSpec, name: str) -> None:
    if name.startswith("_"):
        outcome = look(source.model_copy(update={"new_columns": "adopt"}), rows(1).append_column(name, pa.array([1])))
        assert only_failure(outcome)[0] == "schema_conforms"
        return
    columns = {**source.columns, name: ColumnSpec(type="int64")}
    keeping = with_policy(source, "keys_are_unique", columns=columns)
    table = rows(4, transaction_id=[1, 2, 2, 9]).append_column(name, pa.array([0, 1, 3, 7]))
    outcome = look(keeping, table)
    assert outcome.ids == [1, 2, 9]


def test_row_with_values_that_are_no_text_is_set_aside(source: SourceSpec) -> None:
    keeping = with_policy(source, "values_are_allowed", new_columns="adopt")
    table = amounts(-1, 2).append_column("items", pa.array([[1, 2], [3]]))
    outcome = look(keeping, table)
    assert outcome.aside is not None
    assert outcome.aside[0]["items"] == "[1, 2]"


def test_nanoseconds_that_would_be_lost_do_not_fit(source: SourceSpec) -> None:
    times = pa.array([1_522_540_800_000_000_001], pa.timestamp("ns"))
    assert only_failure(look(source, rows(1, tx_datetime=times)))[0] == "values_fit_their_types"


@pytest.mark.parametrize(
    ("column", "text"),
    [("customer_id", "0x10"), ("tx_datetime", "infinity"), ("tx_datetime", "2018-04-01 00:00:00.123456789"), ("customer_id", "1.5"), ("customer_id", "3000000000"), ("customer_id", "x"), ("tx_amount", "12,5"), ("tx_datetime", "yesterday")],
)  # fmt: skip
def test_text_that_is_not_of_its_type(source: SourceSpec, column: str, text: str) -> None:
    values = {
        "transaction_id": "2",
        "tx_datetime": "2018-04-01",
        "customer_id": "1",
        "terminal_id": "2",
        "tx_amount": "3",
    }
    line = ",".join(f'"{v}"' for v in {**values, column: text}.values())
    outcome = look(source, ("csv", f"{CSV}1,2018-04-01,1.0,2,3\n{line}\n".encode()))
    assert only_failure(outcome)[:2] == ("values_fit_their_types", 1)
    assert outcome.finding("values_fit_their_types").sample[0][column] == text


def test_lines_that_are_no_rows(source: SourceSpec) -> None:
    kept = with_policy(source, "values_fit_their_types")
    outcome = look(kept, ("csv", f"{CSV}1,2018-04-01,1,2,3\n1,2\n".encode()), ("jsonl", b'{"transaction_id": 5, "tx_datetime": "2018-04-01", "customer_id": 1, "terminal_id": 2, "tx_amount": 3}\n{"trans'))  # fmt: skip
    assert outcome.ids == [1, 5]
    assert outcome.aside is not None
    assert [row["_text"] for row in outcome.aside] == ["1,2", '{"trans']


def test_new_column_is_reported_and_left_out_or_adopted(source: SourceSpec) -> None:
    table = rows(2).append_column("channel", pa.array(["web", "pos"]))
    ignoring = look(source, table)
    assert ignoring.ingested.undeclared == ("channel",)
    assert ignoring.table is not None
    assert "channel" not in ignoring.table.column_names
    adopting = look(source.model_copy(update={"new_columns": "adopt"}), table, rows(3).slice(2))
    assert adopting.table is not None
    assert adopting.table["channel"].to_pylist() == ["web", "pos", None]


def test_new_column_with_two_types_is_a_finding(source: SourceSpec) -> None:
    tables = [rows(1).append_column("channel", pa.array([value])) for value in ("web", datetime(2018, 4, 1))]
    check, count, words = only_failure(look(source.model_copy(update={"new_columns": "adopt"}), *tables))
    assert (check, count) == ("schema_conforms", 1)
    assert "another type" in words


def test_column_that_is_not_mentioned_in_json_is_null(source: SourceSpec) -> None:
    columns = {**source.columns, "tx_amount": ColumnSpec(type="float64", nullable=True)}
    line = b'{"transaction_id": 5, "tx_datetime": "2018-04-01", "customer_id": 1, "terminal_id": 2}\n'
    outcome = look(source.model_copy(update={"columns": columns}), ("jsonl", line))
    assert outcome.table is not None, outcome.failed
    assert outcome.table["tx_amount"].to_pylist() == [None]
    assert only_failure(look(source, ("jsonl", line)))[0] == "schema_conforms"


def test_ten_thousand_columns_are_read_past(source: SourceSpec) -> None:
    wide = rows(2)
    wide = pa.table({**{name: wide[name] for name in wide.column_names}, **{f"c{i}": [i, i] for i in range(10_000)}})
    outcome = look(source, wide)
    assert outcome.ids == [0, 1]
    assert len(outcome.ingested.undeclared) == 10_000


def test_five_thousand_tiny_files(source: SourceSpec) -> None:
    count = how_many(5_000, 300)
    outcome = look(source, *[("csv", f"{CSV}{i},2018-04-01,1,2,3\n".encode()) for i in range(count)])
    assert outcome.quality == "good"
    assert sorted(outcome.ids) == list(range(count))


@pytest.mark.parametrize("kind", ["csv.gz", "parquet.gz"])
def test_bomb_is_refused_before_it_unpacks(source: SourceSpec, kind: str) -> None:
    bounded = source.model_copy(update={"origin": source.origin.model_copy(update={"max_bytes": "1Mi"})})
    check, _, words = only_failure(look(bounded, (kind, gzip.compress(CSV.encode() + b"1,2,3,4,5\n" * 1_000_000))))
    assert check == "objects_are_readable"
    assert "decompresses to more than max_bytes, 1,048,576" in words


# --- everything that is there ------------------------------------------------------------------------------------------


def stray(key: str, size: int = 7) -> Stray:
    return Stray(LandedObject(f"transactions/{DAY}/{key}", "s", size, TIME), "lies in a folder within the day's")


def test_what_is_not_read_has_an_account_and_a_warning(source: SourceSpec) -> None:
    outcome = look(source, rows(2), strays=[stray("hour=05/p.csv"), stray("hour=06/p.csv")])
    assert (outcome.quality, outcome.ids) == ("degraded", [0, 1])
    finding = outcome.failed["everything_is_recognised"]
    assert (finding.outcome, finding.offending) == ("warning", 2)
    assert "2 of 3 objects; transactions/2018-04-01/hour=05/p.csv: lies in a folder" in finding.words
    assert [(a.object[-13:], a.bytes, a.rows, a.held) for a in outcome.ingested.accounts[1:]] == [
        (f"hour={hour}/p.csv", 7, 0, "everything_is_recognised: lies in a folder within the day's") for hour in ("05", "06")
    ]  # fmt: skip
    assert outcome.finding("every_object_is_accounted_for").outcome == "passed"


def test_what_is_not_read_may_stop_the_day(source: SourceSpec) -> None:
    strict = with_policy(source, "everything_is_recognised", PolicySpec())
    assert only_failure(look(strict, rows(2), strays=[stray("hour=05/p.csv")]))[:2] == ("everything_is_recognised", 1)


def test_day_of_which_nothing_is_read_is_bad_and_accounted_for(source: SourceSpec) -> None:
    outcome = look(source, strays=[stray("hour=05/p.csv")])
    assert outcome.quality == "bad"
    assert outcome.finding("keys_are_unique").words == "not evaluated, because nothing that is read has landed"
    assert outcome.finding("every_object_is_accounted_for").outcome == "passed"
    assert [account.object for account in outcome.ingested.accounts] == ["transactions/2018-04-01/hour=05/p.csv"]


@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet"])
def test_row_that_a_parser_loses_is_missed(source: SourceSpec, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    """Rows are counted where the file is read, and not by what comes out of the parser."""

    if kind == "csv":
        read = csv_records.pacsv.read_csv
        monkeypatch.setattr(csv_records.pacsv, "read_csv", lambda *a, **k: read(*a, **k).slice(1))
        content = ("csv", f"{CSV}1,2018-04-01,1,2,3\n2,2018-04-01,1,2,3\n".encode())
    elif kind == "jsonl":
        values = json_lines._values
        monkeypatch.setattr(json_lines, "_values", lambda *found: [table.slice(1) for table in values(*found)])
        line = (
            '{"transaction_id": %d, "tx_datetime": "2018-04-01", "customer_id": 1, "terminal_id": 2, "tx_amount": 3}\n'
        )
        content = ("jsonl", (line % 1 + line % 2).encode())
    else:
        iter_batches = pq.ParquetFile.iter_batches
        monkeypatch.setattr(pq.ParquetFile, "iter_batches", lambda *a, **k: (b.slice(1) for b in iter_batches(*a, **k)))
        content = ("parquet", parquet(rows(2)))
    check, count, words = only_failure(look(source, content))
    assert (check, count) == ("every_object_is_accounted_for", 1)
    assert f"o0.{kind}: 2 rows in, 1 written" in words


# --- policies ---------------------------------------------------------------------------------------------------------


def test_few_bad_rows_are_set_aside_with_their_reason_and_origin(source: SourceSpec) -> None:
    outcome = look(
        with_policy(source, "values_are_allowed"), amounts(-1, 2, 3), amounts(4).set_column(0, "transaction_id", [[9]])
    )
    assert outcome.quality == "degraded"
    assert outcome.ids == [1, 2, 9]
    assert outcome.finding("values_are_allowed").outcome == "warning"
    assert outcome.aside == [
        {
            "_object": "transactions/2018-04-01/o0.parquet",
            "_row": 0,
            "_reasons": "values_are_allowed: tx_amount: less than min, 0.0",
            "_text": None,
            "transaction_id": "0",
            "tx_datetime": "2018-04-01 00:00:00.000000Z",
            "customer_id": "1",
            "terminal_id": "2",
            "tx_amount": "-1",
        }
    ]
    assert [(a.rows, a.written, a.quarantined) for a in outcome.ingested.accounts] == [(3, 2, 1), (1, 1, 0)]


def test_more_bad_rows_than_the_share_stop_the_day(source: SourceSpec) -> None:
    outcome = look(with_policy(source, "values_are_allowed"), amounts(-1, -2, 3))
    check, count, words = only_failure(outcome)
    assert (check, count) == ("values_are_allowed", 2)
    assert "66.67% is more than policies.values_are_allowed.up_to, 50.00%" in words
    assert [a.held for a in outcome.ingested.accounts] == ["values_are_allowed: the day was stopped"]


def test_warning_writes_all_rows(source: SourceSpec) -> None:
    outcome = look(with_policy(source, "values_are_allowed", PolicySpec(on_failure="warn")), amounts(-1, 2))
    assert outcome.quality == "degraded"
    assert outcome.ids == [0, 1]
    assert outcome.aside is None


def test_of_rows_with_the_same_key_the_first_stays(source: SourceSpec) -> None:
    outcome = look(with_policy(source, "keys_are_unique"), rows(3), rows(2))
    assert outcome.ids == [0, 1, 2]
    assert outcome.aside is not None
    assert [(row["_object"][-10:], row["_row"]) for row in outcome.aside] == [("o1.parquet", 0), ("o1.parquet", 1)]


def test_unreadable_object_is_held_and_the_others_go_on(source: SourceSpec) -> None:
    outcome = look(with_policy(source, "objects_are_readable"), rows(3), b"junk", ("csv.gz", gzip.compress(CSV.encode() * 99)[:-9]), rows(4).slice(3))  # fmt: skip
    assert outcome.quality == "degraded"
    assert outcome.ids == [0, 1, 2, 3]
    assert [bool(a.held) for a in outcome.ingested.accounts] == [False, True, True, False]
    assert outcome.finding("objects_are_readable").offending == 2


def test_row_that_breaks_several_rules_is_set_aside_once(source: SourceSpec) -> None:
    policies = {"values_are_allowed": QUARANTINE, "event_times_are_in_partition": QUARANTINE}
    both = source.model_copy(update={"policies": policies})
    outcome = look(both, rows(2, tx_amount=[-1.0, 1.0], tx_datetime=[TIME - timedelta(days=9), TIME]))
    assert outcome.aside is not None
    assert len(outcome.aside) == 1
    assert "values_are_allowed" in outcome.aside[0]["_reasons"]
    assert "event_times_are_in_partition" in outcome.aside[0]["_reasons"]


def test_hopeless_day_is_not_read_to_its_end(source: SourceSpec, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passage, "HOPELESS_ROWS", 5)
    monkeypatch.setattr(passage, "BATCH_ROWS", 4)
    outcome = look(source, *[amounts(-1, -1, -1, -1)] * 9)
    assert outcome.finding("values_are_allowed").offending == 8
    assert outcome.finding("keys_are_unique").words.startswith("not evaluated")


# --- decisions --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("policy", [PolicySpec(), QUARANTINE])
def test_released_rows_are_written_after_all(source: SourceSpec, policy: PolicySpec) -> None:
    outcome = look(with_policy(source, "values_are_allowed", policy), amounts(-1, 2, 3), decision=RELEASE)
    assert outcome.quality == "good"
    assert outcome.ids == [0, 1, 2]
    assert "released by ada: looked at it" in outcome.finding("values_are_allowed").words


@pytest.mark.parametrize("policy", [PolicySpec(), QUARANTINE])
def test_discarded_rows_are_gone_and_accounted_for(source: SourceSpec, policy: PolicySpec) -> None:
    outcome = look(with_policy(source, "values_are_allowed", policy), amounts(-1, -2, 3), decision=DISCARD)
    assert outcome.quality == "good"
    assert outcome.ids == [2]
    assert outcome.aside is None
    assert [(a.rows, a.written, a.discarded) for a in outcome.ingested.accounts] == [(3, 1, 2)]


def test_what_cannot_be_read_cannot_be_released(source: SourceSpec) -> None:
    assert look(source, rows(), b"junk", decision=RELEASE).quality == "bad"
    assert look(source, rows(), b"junk", decision=DISCARD).quality == "good"


def test_day_of_which_everything_is_discarded_is_empty(source: SourceSpec) -> None:
    outcome = look(source, b"junk", decision=DISCARD)
    assert (outcome.quality, outcome.ids) == ("degraded", [])


def test_decision_is_about_the_checks_that_had_failed_then(source: SourceSpec) -> None:
    decision = replace(RELEASE, checks=("values_are_allowed",))
    assert look(source, amounts(-1, 2), decision=decision).ids == [0, 1]
    assert only_failure(look(source, amounts(-1, 2), rows(1), decision=decision))[0] == "keys_are_unique"


def test_rows_that_are_discarded_and_rows_that_are_kept_are_told_apart(source: SourceSpec) -> None:
    policies = {"values_are_allowed": QUARANTINE, "keys_are_unique": QUARANTINE}
    both = source.model_copy(update={"policies": policies})
    outcome = look(both, amounts(-1, 2, 3), rows(2), decision=replace(DISCARD, checks=("values_are_allowed",)))
    assert outcome.aside is not None
    assert [row["transaction_id"] for row in outcome.aside] == ["1"]
    assert [(a.written, a.quarantined, a.discarded) for a in outcome.ingested.accounts] == [(2, 0, 1), (1, 1, 0)]


def test_number_of_rows_can_be_released_but_not_discarded(source: SourceSpec) -> None:
    strict = with_policy(source, "row_count_is_normal", PolicySpec(), row_count=RowCountSpec(max=5))
    about = {"checks": ("row_count_is_normal",)}
    assert look(strict, rows(6), decision=replace(RELEASE, **about)).ids == list(range(6))
    assert look(strict, rows(6), decision=replace(DISCARD, **about)).quality == "bad"


# --- laws -------------------------------------------------------------------------------------------------------------


@given(st.lists(st.sampled_from([-1.0, float("nan"), 1.0, 1e9]), min_size=1, max_size=40), st.integers(1, 5))
def test_every_row_is_accounted_for(source: SourceSpec, values: Sequence[float], objects: int) -> None:
    policies = {check: PolicySpec(on_failure="quarantine", up_to=1) for check in ("values_are_allowed", "required_values_are_present", "keys_are_unique")}  # fmt: skip
    keeping = source.model_copy(update={"policies": policies})
    ids = [number % 7 for number in range(len(values))]
    tables = [
        rows(len(values[start::objects]), tx_amount=list(values[start::objects]), transaction_id=ids[start::objects])
        for start in range(objects)
    ]
    outcome = look(keeping, *tables)
    assert outcome.finding("every_object_is_accounted_for").outcome == "passed"
    assert outcome.table is not None
    assert outcome.table.num_rows + len(outcome.aside or ()) == len(values)
    assert len(set(outcome.ids)) == outcome.table.num_rows


@given(st.permutations(range(4)))
def test_order_in_which_objects_are_given_does_not_matter(source: SourceSpec, order: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        files = []
        for number in order:
            path = Path(folder) / str(number)
            pq.write_table(rows(3).set_column(0, "transaction_id", [[number, number + 1, 10 * number + 100]]), path)
            files.append(LandedFile(LandedObject(f"transactions/{DAY}/{number}.parquet", "e", 1, TIME), path))
        keeping = with_policy(source, "keys_are_unique")
        outcome = Outcome(keeping, ingest(keeping, DAY, files, LookBack(), Path(folder)))
    assert outcome.ids == [0, 1, 100, 2, 110, 3, 120, 4, 130]
