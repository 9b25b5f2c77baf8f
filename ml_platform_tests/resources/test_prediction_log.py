import os
import signal
import subprocess
import sys
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from ml_platform.core import keys
from ml_platform.core.errors import LakeError
from ml_platform.resources import prediction_log
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import INPUT, Prediction, PredictionLog, read
from ml_platform_tests.processes import eventually

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
DAY = timedelta(days=1)


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(pafs.LocalFileSystem(), str(tmp_path / "lake"), lambda: NOON)


@pytest.fixture
def log(lake: Lake, tmp_path: Path) -> PredictionLog:
    return PredictionLog(lake, tmp_path / "spool", lambda: NOON)


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


def test_lake_that_is_away_gets_its_rows_later_also_from_the_next_process(
    lake: Lake, log: PredictionLog, tmp_path: Path
) -> None:
    def away(path: str, content: object) -> None:
        raise OSError("connection refused")

    lake.put, put = away, lake.put
    log.add("fraud", [answered(1)])
    log.close()
    assert ids(lake) == []
    lake.put = put
    PredictionLog(lake, tmp_path / "spool", lambda: NOON).close()
    assert ids(lake) == ["1"]
    assert not list((tmp_path / "spool").rglob("*.parquet"))


def test_spool_that_is_full_gives_up_the_oldest_and_counts_them(
    lake: Lake, log: PredictionLog, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def away(path: str, content: object) -> None:
        raise OSError("connection refused")

    lake.put = away
    for number in range(3):
        log.clock = lambda number=number: NOON + timedelta(seconds=number)
        log.add("fraud", [answered(number)])
        log.write()
        (first, *_) = sorted((tmp_path / "spool").rglob("*.parquet"))
        monkeypatch.setattr(prediction_log, "MOST_SPOOLED", 2 * first.stat().st_size)
    assert log.lost == 1


def test_memory_is_bounded_when_nobody_writes(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(lake, tmp_path / "spool", lambda: NOON, most=10)
    for number in range(100):
        log.add("fraud", [answered(number)])
    assert log.lost == 80
    log.write()
    assert len(ids(lake)) == 20


def test_full_memory_is_written_before_its_time(lake: Lake, tmp_path: Path) -> None:
    log = PredictionLog(lake, tmp_path / "spool", lambda: NOON, most=10)
    log.start()
    log.add("fraud", [answered(number) for number in range(10)])
    eventually(lambda: len(ids(lake)) == 10)
    log.close()


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
from ml_platform.resources.prediction_log import Prediction, PredictionLog

prediction_log.WRITE_EVERY = 0.1
now = lambda: datetime.now(UTC)
log = PredictionLog(Lake(pafs.LocalFileSystem(), sys.argv[1], now), Path(sys.argv[2]))
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
