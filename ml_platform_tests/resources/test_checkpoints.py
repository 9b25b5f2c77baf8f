"""Checkpoints in the lake: the newest that is whole counts."""

import subprocess
import sys
from datetime import UTC, date, datetime
from itertools import count
from pathlib import Path

import pyarrow.fs as pafs
import pytest

from ml_platform.core.errors import LakeError
from ml_platform.core.settings import Settings
from ml_platform.resources.checkpoints import LakeCheckpoints
from ml_platform.resources.lake import Lake
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.storage import Storage
from ml_platform_tests.processes import eventually

DAY = date(2018, 5, 31)
KEY = "model/checkpoint_1"
FIRST, SECOND, THIRD = ({"a": bytes([n]) * 9, "b.json": b"{}"} for n in (1, 2, 3))


@pytest.fixture
def store(tmp_path: Path) -> LakeCheckpoints:
    lake = Lake(Storage(pafs.LocalFileSystem()), str(tmp_path), lambda: datetime.now(UTC))
    return LakeCheckpoints(lake, KEY, DAY)


def written(store: LakeCheckpoints) -> list[Path]:
    return sorted(Path(store.folder).glob("*.checkpoint"))


def test_newest_is_loaded_and_two_are_kept(store: LakeCheckpoints) -> None:
    assert store.load() is None
    for files in (FIRST, SECOND, THIRD):
        store.save(files)
        assert store.load() == files
    assert len(written(store)) == 2


@pytest.mark.parametrize("spoil", [lambda b: b[:-3], lambda b: b"", lambda b: b.replace(b"\2", b"\7")])
def test_torn_or_tampered_one_gives_way_to_the_one_before(
    store: LakeCheckpoints, spoil, caplog: pytest.LogCaptureFixture
) -> None:
    store.save(FIRST)
    store.save(SECOND)
    newest = written(store)[-1]
    newest.write_bytes(spoil(newest.read_bytes()))
    assert store.load() == FIRST
    assert "is not what was written" in caplog.text
    store.save(THIRD)
    assert store.load() == THIRD


def test_writer_that_died_before_the_commit_leaves_the_old_one_in_force(
    store: LakeCheckpoints, monkeypatch: pytest.MonkeyPatch
) -> None:
    store.save(FIRST)

    def put(path: str, content: bytes | Path) -> None:
        (Path(path).parent / ".half-written").write_bytes(b"half")
        raise OSError("the disk is full")

    monkeypatch.setattr(store.lake, "put", put)
    with pytest.raises(LakeError, match="the disk is full"):
        store.save(SECOND)
    assert store.load() == FIRST


def endless_writer(folder: str) -> None:
    """Checkpoints of 60 MB, each of one byte over and over, until it is killed."""
    store = LakeCheckpoints(Lake(Storage(pafs.LocalFileSystem()), folder, lambda: datetime.now(UTC)), KEY, DAY)
    for number in count(1):
        store.save({"a": bytes([number % 256]) * 60_000_000})


@pytest.mark.processes
def test_kill_9_inside_a_write_loses_only_what_was_being_written(store: LakeCheckpoints, tmp_path: Path) -> None:
    def half_written() -> list[Path]:
        return [path for path in Path(store.folder).glob(".*") if path.stat().st_size]

    for _ in range(20):
        code = f"from {__name__} import endless_writer; endless_writer({str(tmp_path)!r})"
        with subprocess.Popen([sys.executable, "-c", code]) as process:
            eventually(lambda: bool(written(store)) and bool(half_written()), timeout=60)
            process.kill()
        if half_written():
            break
    assert half_written(), "it was never killed inside a write"
    content = store.load()
    assert content is not None
    assert len(set(content["a"])) == 1
    assert len(content["a"]) == 60_000_000
    store.clear()
    assert list(Path(store.folder).iterdir()) == []


def test_cleared_ones_are_gone(store: LakeCheckpoints) -> None:
    store.save(FIRST)
    store.clear()
    assert store.load() is None


def test_same_on_s3(s3_port: int, settings: Settings) -> None:
    ObjectStore.at(settings).ensure_bucket()
    lake = Lake.at(settings.model_copy(update={"lake": f"{settings.landing}/lake"}))
    store = LakeCheckpoints(lake, "model/checkpoint_1", DAY)
    for files in (FIRST, SECOND, THIRD):
        store.save(files)
    assert store.load() == THIRD
    store.clear()
    assert store.load() is None
