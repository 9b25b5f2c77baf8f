import pyarrow as pa
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core import digest


@given(st.lists(st.integers(0, 9), min_size=1), st.integers(1, 5))
def test_table_digest_does_not_depend_on_chunks(values: list[int], size: int) -> None:
    whole = pa.table({"a": values})
    chunked = pa.concat_tables([whole.slice(start, size) for start in range(0, len(values), size)])
    assert digest.of_table(whole) == digest.of_table(chunked)


def test_table_digest_sees_values_order_names_and_types() -> None:
    base = pa.table({"a": [1, 2]})
    others = [
        pa.table({"a": [1, 3]}),
        pa.table({"a": [2, 1]}),
        pa.table({"b": [1, 2]}),
        pa.table({"a": pa.array([1, 2], pa.int32())}),
    ]
    assert len({digest.of_table(table) for table in [base, *others]}) == 5


def test_files_digest_sees_names_and_contents_but_not_order() -> None:
    assert digest.of_files({"a": b"1", "b": b"2"}) == digest.of_files({"b": b"2", "a": b"1"})
    assert digest.of_files({"a": b"1"}) != digest.of_files({"a": b"2"}) != digest.of_files({"b": b"2"})
