import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core import keys
from ml_platform.core.errors import LakeError
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import LogState, PredictionLog, read
from ml_platform.resources.prediction_rows import AS_OF, INPUT, KNOWN, Prediction
from ml_platform.resources.storage import Storage
from ml_platform_tests.processes import eventually
from ml_platform_tests.selection import examples

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(Storage(pafs.LocalFileSystem()), str(tmp_path / "lake"), lambda: NOON)


@pytest.fixture
def log(lake: Lake, tmp_path: Path) -> Iterator[PredictionLog]:
    log = PredictionLog(lake, tmp_path / "spool", lambda: NOON)
    yield log
    log.spool.close()


def answered(number: int, time: datetime = NOON, **more: object) -> Prediction:
    return Prediction(str(number), time, "1", "champion", f"card {number}", 0.5, score=number / 10, **more)  # type: ignore[arg-type]


def ids(lake: Lake, since: datetime = NOON - DAY, until: datetime = NOON + DAY) -> list[str]:
    return read(lake, "fraud", since, until)["request_id"].to_pylist()


def test_what_was_answered_is_read_back_with_its_inputs(lake: Lake, log: PredictionLog) -> None:
    log.add(
        "fraud", [answered(1, inputs={"tx_amount": 12.5}), answered(2, inputs={"tx_amount": None, "country": "at"})]
    )
    log.write()
    table = read(lake, "fraud", NOON, NOON + DAY, inputs=True)
    assert table["score"].to_pylist() == [0.1, 0.2]
    assert table[f"{INPUT}tx_amount"].to_pylist() == [12.5, None]
    assert table[f"{INPUT}country"].to_pylist() == [None, "at"]


def test_moments_of_views_and_whether_they_knew_the_entity_are_read_back(lake: Lake, log: PredictionLog) -> None:
    looked_up = {"as_of": {"clicks": NOON, "visits": NOON - DAY}, "known": ("visits",)}
    log.add("fraud", [answered(1), answered(2, **looked_up), answered(3, as_of={"clicks": NOON}, known=["clicks"])])
    log.write()
    table = read(lake, "fraud", NOON, NOON + DAY, inputs=True).sort_by("request_id")
    assert table[f"{AS_OF}clicks"].to_pylist() == [None, NOON, NOON]
    assert table[f"{AS_OF}visits"].to_pylist() == [None, NOON - DAY, None]
    assert table[f"{KNOWN}clicks"].to_pylist() == [None, False, True]
    assert table[f"{KNOWN}visits"].to_pylist() == [None, True, None]


def test_versions_with_other_inputs_lie_in_one_log(lake: Lake, log: PredictionLog) -> None:
    log.add("fraud", [answered(1, inputs={"old": 1.0})])
    log.write()
    log.add("fraud", [answered(2, inputs={"new": 2})])
    log.write()
    assert read(lake, "fraud", NOON, NOON + DAY, inputs=True)[f"{INPUT}new"].to_pylist() == [None, 2]
    assert ids(lake) == ["1", "2"]


def test_rows_lie_in_the_days_in_which_they_were_answered(lake: Lake, log: PredictionLog) -> None:
    midnight = datetime(2026, 3, 2, tzinfo=UTC)
    log.clock = lambda: midnight
    log.add("fraud", [answered(1, midnight - timedelta(seconds=1)), answered(2, midnight)])
    log.write()
    assert [len(lake.added_files(keys.prediction_log("fraud"), day)) for day in (NOON.date(), midnight.date())] == [
        1,
        1,
    ]
    assert ids(lake, until=midnight) == ["1"]
    assert ids(lake, since=midnight) == ["2"]


def test_log_that_nobody_wrote_is_empty(lake: Lake) -> None:
    assert ids(lake) == []


def away(lake: Lake, of: str = "") -> Lake:
    """The lake, which takes no file whose path has these words."""
    put = lake.put

    def refusing(path: str, content: bytes | Path) -> None:
        if of in path:
            raise OSError("connection refused")
        put(path, content)

    lake.put = refusing
    return lake


def test_lake_that_is_away_gets_its_rows_later_also_from_the_next_process(
    lake: Lake, log: PredictionLog, tmp_path: Path
) -> None:
    put = lake.put
    away(lake)
    log.add("fraud", [answered(1)])
    log.close()
    assert ids(lake) == []
    lake.put = put
    PredictionLog(lake, tmp_path / "spool", lambda: NOON).close()
    assert ids(lake) == ["1"]
    assert not [*(tmp_path / "spool").rglob("*")]


def test_spool_that_is_full_gives_up_the_oldest_and_counts_them(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(away(lake), tmp_path / "spool", lambda: NOON)
    for number in range(3):
        log.clock = lambda number=number: NOON + timedelta(seconds=number)
        log.add("fraud", [answered(number)])
        log.write()
        (first, *_) = log.spool.files()
        log.most_spooled = 2 * first.stat().st_size
    log.spool.close()
    assert log.state().lost == 1
    assert 0 < log.state().spooled <= log.most_spooled


def test_memory_is_bounded_when_nobody_writes(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(lake, tmp_path / "spool", lambda: NOON, most_waiting=20 * answered(10).size)
    for number in range(10, 99):
        log.add("fraud", [answered(number)])
    assert (log.state().lost, log.state().waiting) == (69, 20)
    log.write()
    assert len(ids(lake)) == 20


def test_long_values_take_more_of_the_memory(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(lake, tmp_path / "spool", lambda: NOON, most_waiting=1 << 20)
    for number in range(100):
        log.add("fraud", [answered(number, inputs={"note": "x" * 100_000})])
    assert log.state().lost == 90


def test_full_memory_is_written_before_its_time(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(lake, tmp_path / "spool", lambda: NOON, most_waiting=20 * answered(10).size)
    log.start()
    log.add("fraud", [answered(number) for number in range(10, 20)])
    eventually(lambda: len(ids(lake)) == 10)
    log.close()


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the disk is full."""
    state, write = [True], Path.write_bytes

    def writing(path: Path, content: bytes) -> int:
        if state[0]:
            write(path, bytes(content)[:10])  # a part of it is there when the disk is full
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(path, content)

    monkeypatch.setattr(Path, "write_bytes", writing)
    return state


def test_full_disk_keeps_rows_in_memory_until_there_is_room(
    lake: Lake, log: PredictionLog, full: list[bool], tmp_path: Path
) -> None:
    put = lake.put
    away(lake)
    for number in range(3):
        log.add("fraud", [answered(number)])
        log.write()
    assert (log.state().waiting, log.state().lost, ids(lake)) == (3, 0, [])
    assert "3 rows of fraud wait in memory" in log.state().trouble
    assert not [*(tmp_path / "spool").rglob("*.parquet")]  # nor is a part of one there
    full[0], lake.put = False, put
    log.write()
    assert (log.state(), ids(lake)) == (LogState(), ["0", "1", "2"])


def test_lake_takes_rows_for_which_the_disk_has_no_room(lake: Lake, log: PredictionLog, full: list[bool]) -> None:
    log.add("fraud", [answered(1)])
    log.write()
    assert (log.state(), ids(lake)) == (LogState(), ["1"])


def test_full_disk_and_full_memory_give_rows_up_and_count_them(
    lake: Lake, full: list[bool], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    log = PredictionLog(away(lake), tmp_path / "spool", lambda: NOON, most_waiting=5 * answered(0).size)
    for number in range(8):
        log.add("fraud", [answered(number)])
        log.write()
    assert (log.state().waiting, log.state().lost) == (5, 3)
    log.close()
    assert (log.state().waiting, log.state().lost) == (0, 8)
    assert "gave up 5 rows" in caplog.text


@pytest.mark.processes
def test_disk_that_is_really_full_loses_nothing_in_silence(lake: Lake, tmp_path: Path) -> None:
    """A file system of 64 KB, where one can be had."""
    disk = tmp_path / "disk"
    disk.mkdir()
    if (
        os.geteuid() != 0
        or subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], check=False).returncode
    ):
        pytest.skip("only root can mount a small file system")
    try:
        put = lake.put
        log = PredictionLog(away(lake), disk / "spool", lambda: NOON)
        for number in range(100):
            log.add("fraud", [answered(number, inputs={"note": os.urandom(1_000).hex()})])
            log.write()
        assert 0 < log.state().waiting < 100
        assert log.state().lost == 0
        lake.put = put
        log.write()
        assert sorted(map(int, ids(lake))) == [*range(100)]
        log.close()
    finally:
        subprocess.run(["umount", disk], check=True)


def test_values_of_different_types_are_all_there(lake: Lake, log: PredictionLog) -> None:
    values = [1, "one", 2.5, None, 10**30, "\ud800", [1], datetime(2018, 1, 1)]
    log.add("fraud", [answered(number, inputs={"of": value}) for number, value in enumerate(values)])
    log.write()
    log.add("fraud", [answered(9, inputs={"of": 9.0})])
    log.write()
    assert log.state() == LogState()
    table = read(lake, "fraud", NOON, NOON + DAY, inputs=True)
    shown = ["1", "one", "2.5", None, str(10**30), "\\ud800", "[1]", "2018-01-01 00:00:00", "9.0"]
    assert table[f"{INPUT}of"].to_pylist() == shown


def test_row_of_which_no_file_can_be_made_harms_no_other(
    lake: Lake, log: PredictionLog, caplog: pytest.LogCaptureFixture
) -> None:
    broken = Prediction("2", NOON, "1", "champion", "", 0.5, score="high")  # type: ignore[arg-type]
    log.add("fraud", [answered(1), broken, answered(3)])
    log.add("churn", [answered(4)])
    log.write()
    assert ids(lake) == ["1", "3"]
    assert read(lake, "churn", NOON, NOON + DAY)["request_id"].to_pylist() == ["4"]
    assert log.state().lost == 1
    assert "a row of fraud cannot be written" in caplog.text


def test_model_whose_files_the_lake_refuses_waits_alone(lake: Lake, log: PredictionLog) -> None:
    put = lake.put
    away(lake, of="/churn/")
    for model in ("churn", "fraud"):
        log.add(model, [answered(1)])
    log.write()
    assert ids(lake) == ["1"]
    assert "files of churn wait" in log.state().trouble
    assert log.state().spooled > 0
    lake.put = put
    log.write()
    assert read(lake, "churn", NOON, NOON + DAY)["request_id"].to_pylist() == ["1"]
    assert log.state() == LogState()


def test_servers_of_one_home_leave_each_others_files_alone_until_one_is_dead(lake: Lake, tmp_path: Path) -> None:
    spool = tmp_path / "spool"
    put = lake.put
    one, other = (PredictionLog(away(lake), spool, lambda: NOON) for _ in range(2))
    one.add("fraud", [answered(1)])
    other.add("fraud", [answered(2)])
    one.write()
    other.write()
    assert [len(log.spool.files()) for log in (one, other)] == [1, 1]
    lake.put = put
    other.write()
    assert ids(lake) == ["2"]
    assert len(one.spool.files()) == 1
    one.spool.close()  # as when its process dies
    other.write()
    assert sorted(ids(lake)) == ["1", "2"]
    other.close()
    assert not [*spool.rglob("*")]


def test_files_of_a_release_without_folders_of_processes_are_taken_over(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(away(lake), tmp_path / "spool", lambda: NOON)
    log.add("fraud", [answered(1)])
    log.write()
    (file,) = log.spool.files()
    log.spool.close()
    old = tmp_path / "old" / "fraud" / NOON.date().isoformat() / file.name
    old.parent.mkdir(parents=True)
    file.rename(old)
    PredictionLog(Lake(Storage(pafs.LocalFileSystem()), str(tmp_path / "lake"), lambda: NOON), tmp_path / "old").close()
    assert ids(lake) == ["1"]
    assert not old.exists()


@given(st.data())
@examples(100)
def test_every_row_is_in_the_lake_or_on_the_disk_or_in_memory_or_counted(data: st.DataObject) -> None:
    """Whatever fails when, for models of their own."""
    with tempfile.TemporaryDirectory() as folder:
        lake = Lake(Storage(pafs.LocalFileSystem()), f"{folder}/lake", lambda: NOON)
        put, write = lake.put, Path.write_bytes
        fails = {"disk": False, "lake": False}

        def to_lake(path: str, content: bytes | Path) -> None:
            if fails["lake"]:
                raise OSError("away")
            put(path, content)

        def to_disk(path: Path, content: bytes) -> int:
            if fails["disk"]:
                raise OSError(errno.ENOSPC, "full")
            return write(path, content)

        lake.put = to_lake
        log = PredictionLog(lake, Path(folder) / "spool", lambda: NOON, most_waiting=20 * 600, most_spooled=20_000)
        added = 0
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Path, "write_bytes", to_disk)
            for _ in range(data.draw(st.integers(1, 6))):
                fails |= {name: data.draw(st.booleans()) for name in fails}
                for model in data.draw(st.lists(st.sampled_from(["a", "b"]), max_size=8)):
                    values = data.draw(
                        st.lists(st.integers() | st.text(max_size=3) | st.none(), min_size=1, max_size=3)
                    )
                    log.add(model, [answered(added + n, inputs={"x": value}) for n, value in enumerate(values)])
                    added += len(values)
                log.write()
        there = sum(read(lake, model, NOON - DAY, NOON + DAY).num_rows for model in "ab")
        spooled = sum(pq.read_metadata(file).num_rows for file in log.spool.files())
        assert there + spooled + log.state().waiting + log.state().lost == added
        log.spool.close()


def test_file_that_is_damaged_is_named(lake: Lake, log: PredictionLog) -> None:
    log.add("fraud", [answered(1)])
    log.write()
    (path,) = lake.added_files(keys.prediction_log("fraud"), NOON.date())
    Path(path).write_bytes(b"PAR1")
    with pytest.raises(LakeError, match=Path(path).name):
        ids(lake)


SERVER = """
import pyarrow.fs as pafs, sys, time
from datetime import UTC, datetime
from pathlib import Path
from ml_platform.resources import prediction_log
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import PredictionLog
from ml_platform.resources.prediction_rows import Prediction
from ml_platform.resources.storage import Storage

prediction_log.WRITE_EVERY = 0.1
now = lambda: datetime.now(UTC)
log = PredictionLog(Lake(Storage(pafs.LocalFileSystem()), sys.argv[1], now), Path(sys.argv[2]))
log.start()
number = 0
while True:
    log.add("fraud", [Prediction(str(number), now(), "1", "champion", "", 0.5, score=0.5)])
    print(number, time.time(), flush=True)
    number += 1
    time.sleep(0.001)
"""


@pytest.mark.processes
def test_server_that_is_killed_loses_what_it_was_about_to_write_at_most(lake: Lake, tmp_path: Path) -> None:
    """And what was in the spool comes with the next process; nothing is there twice."""
    arguments = [sys.executable, "-c", SERVER, str(tmp_path / "lake"), str(tmp_path / "spool")]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        said = [server.stdout.readline() for _ in range(1_000)]
        os.kill(server.pid, signal.SIGKILL)
        said += server.stdout.readlines()
    PredictionLog(lake, tmp_path / "spool").close()
    now = datetime.now(UTC)
    there = [int(one) for one in ids(lake, now - timedelta(minutes=5), now + timedelta(minutes=5))]
    assert there == list(range(len(there)))
    moments = [float(line.split()[1]) for line in said if len(line.split()) == 2]
    assert moments[-1] - moments[len(there) - 1] < 2.0  # a window of 0.1 s, and time to write
