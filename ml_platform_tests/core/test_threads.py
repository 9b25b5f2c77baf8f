import os
from pathlib import Path

import pyarrow as pa
import pytest
from threadpoolctl import threadpool_info

from ml_platform.core import threads
from ml_platform.core.threads import cores, given, limited, share


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads, "cores", lambda: 8)


@pytest.mark.parametrize(
    ("written", "expected"), [("max 100000", None), ("150000 100000", 2), ("10000 100000", 1), ("nonsense", None)]
)
def test_cores_are_those_of_the_container(tmp_path: Path, written: str, expected: int | None) -> None:
    (tmp_path / "cpu.max").write_text(written + "\n")
    here = len(os.sched_getaffinity(0))
    assert cores(tmp_path) == min(expected or here, here)


def test_without_cgroups_cores_are_those_of_the_machine(tmp_path: Path) -> None:
    assert cores(tmp_path) == len(os.sched_getaffinity(0))


@pytest.mark.usefixtures("machine")
@pytest.mark.parametrize(
    ("cpu", "slots", "expected"),
    [
        ("4", 1, 4),
        ("4", 2, 4),
        ("4", 4, 2),
        ("64", 1, 8),
        ("500m", 1, 1),
        ("2.5", 1, 3),
        ("4", 100, 1),
        ("1500m", 1, 2),
    ],
)
def test_step_gets_what_it_asks_for_and_no_more_than_its_part_of_the_machine(
    cpu: str, slots: int, expected: int
) -> None:
    assert share(cpu, slots) == expected


def test_within_the_block_everything_computes_with_so_many_threads_and_after_it_as_before() -> None:
    import torch

    def now() -> tuple[int, int, list[tuple[str, int]], str | None, int]:
        pools = sorted((pool["user_api"], pool["num_threads"]) for pool in threadpool_info())
        return torch.get_num_threads(), pa.cpu_count(), pools, os.environ.get("OMP_NUM_THREADS"), given()

    before = now()
    with limited(1):
        torch_threads, arrow, pools, variable, said = now()
        assert (torch_threads, arrow, variable, said) == (1, 1, "1", 1)
        assert {count for _, count in pools} == {1}
        with limited(2):
            assert given() == 2
        assert given() == 1
    assert now() == before


def test_engine_computes_with_what_the_step_was_given() -> None:
    from ml_platform.features.engine import Embedded, read

    engine = Embedded()
    rows = engine.table(pa.table({"a": [1]}))
    with limited(1):
        read(engine, rows)
        assert engine._duckdb.raw_sql("SELECT current_setting('threads')").fetchone() == (1,)
