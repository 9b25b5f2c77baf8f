"""The lake: a partition is there as a whole or not at all, on a folder and on S3 alike."""

import errno
import io
import itertools
import json
import os
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import duckdb
import pandas as pd
import pyarrow as pa
import pyarrow.dataset as pads
import pyarrow.fs as pafs
import pyarrow.parquet as pq
import pytest

from ml_platform.core.errors import LakeError
from ml_platform.core.settings import Settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.leftovers import leftovers, remove_leftovers
from ml_platform.resources.manifest import Input
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.storage import Storage
from ml_platform_tests.stores import S3

DAY = date(2018, 4, 1)
OLD, NEW = pa.table({"a": [1, 2]}), pa.table({"a": [3]})


def on_disk(folder: Path) -> Lake:
    return Lake(Storage(pafs.LocalFileSystem()), str(folder), lambda: datetime(2024, 1, 1, tzinfo=UTC))


@pytest.fixture(params=["folder", S3])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Lake]:
    if request.param == "folder":
        yield Lake.at(Settings(lake=str(tmp_path / "lake")))
    else:
        bucket = f"s3://lake-{tmp_path.name.replace('_', '-').lower()}"
        settings = Settings(lake=bucket, landing=bucket, s3_port=request.getfixturevalue("s3_port"))
        ObjectStore.at(settings).ensure_bucket()
        yield Lake.at(settings)


def test_written_partition_reads_back_with_its_manifest(lake: Lake) -> None:
    written = lake.write_table("x/raw", DAY, OLD, [Input("object", "etag", 7)], {"tag": "t"})
    assert lake.read_table("x/raw", [DAY]).equals(OLD)
    assert lake.manifest("x/raw", DAY) == written
    assert (written.rows, written.inputs, written.tags) == (2, (Input("object", "etag", 7),), {"tag": "t"})
    assert lake.days("x/raw") == [DAY]


def test_rewriting_replaces_rows_and_leaves_no_old_files(lake: Lake) -> None:
    lake.write_table("x/raw", DAY, OLD, [])
    lake.write_table("x/raw", DAY, NEW, [])
    assert lake.read_table("x/raw", [DAY]).equals(NEW)
    selector = pafs.FileSelector(f"{lake.root}/x/raw/date={DAY}", recursive=True)
    names = [info.base_name for info in lake.filesystem.get_file_info(selector) if info.type == pafs.FileType.File]
    assert len(names) == 2, names


def test_same_rows_have_the_same_content_hash(lake: Lake) -> None:
    first = lake.write_table("x/raw", DAY, OLD, [])
    assert lake.write_table("x/raw", DAY, OLD, []).content_hash == first.content_hash
    assert lake.read_table("x/raw", [DAY]).equals(OLD)


def test_files_read_back_and_a_changed_one_is_refused(lake: Lake) -> None:
    manifest = lake.write_files("m/candidate", DAY, {"a.json": b"1", "b.bin": b"2"}, [])
    assert lake.read_files("m/candidate", DAY) == {"a.json": b"1", "b.bin": b"2"}
    with lake.filesystem.open_output_stream(f"{lake.root}/m/candidate/date={DAY}/{manifest.files[0]}") as stream:
        stream.write(b"tampered")
    with pytest.raises(LakeError, match="not those that the manifest was written for"):
        lake.read_files("m/candidate", DAY)


def test_missing_partition_is_named(lake: Lake) -> None:
    assert lake.manifest("x/raw", DAY) is None
    assert lake.days("x/raw") == []
    with pytest.raises(LakeError, match=r"^x/raw \[2018-04-01\]: this partition does not exist"):
        lake.read_table("x/raw", [DAY])


def read_by_folder(folder: Path) -> dict[str, list[int]]:
    """What those see of a table who know nothing of manifests."""
    table = pads.dataset(folder, format="parquet", partitioning="hive")
    readers = {"arrow": sorted(table.to_table()["a"].to_pylist()) if table.files else []}
    for pattern in ("*/*.parquet", "**/*.parquet"):
        found = duckdb.execute(f"SELECT * FROM glob('{folder}/{pattern}')").fetchall()
        rows = duckdb.execute(f"SELECT a FROM read_parquet('{folder}/{pattern}')").fetchall() if found else []
        readers[pattern] = sorted(a for (a,) in rows)
    readers["pandas"] = sorted(pd.read_parquet(folder)["a"]) if table.files else []
    return readers


@pytest.mark.parametrize("before", [None, OLD])
@pytest.mark.parametrize("survived", range(5))
def test_whoever_reads_the_folder_sees_committed_rows_and_none_twice(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int, before: pa.Table | None
) -> None:
    """A writer that dies after any of its steps: a file, its manifest, the old file's removal, the name for all, its manifest."""
    lake, done = on_disk(tmp_path), []
    lake.write_table("x/raw", date(2018, 4, 2), pa.table({"a": [9]}), [])
    if before is not None:
        lake.write_table("x/raw", DAY, before, [])

    def dying(step: str) -> None:
        real = getattr(lake, step)

        def do(*arguments: object) -> None:
            if len(done) >= survived:
                raise KeyboardInterrupt
            real(*arguments)
            done.append(step)

        monkeypatch.setattr(lake, step, do)

    for step in ("put", "copy", "delete"):
        dying(step)
    with pytest.raises(KeyboardInterrupt):
        lake.write_table("x/raw", DAY, NEW, [])
    monkeypatch.undo()
    is_committed = survived >= 2
    allowed = [[9], [3, 9]] if is_committed else [[9] if before is None else [1, 2, 9]]
    seen = read_by_folder(tmp_path / "x" / "raw")
    assert all(rows == seen["arrow"] for rows in seen.values()), seen
    assert seen["arrow"] in [*allowed, *([[1, 2, 9]] if before is not None and survived == 2 else [])]
    if is_committed:
        assert lake.read_table("x/raw", [DAY]).equals(NEW)
        lake.clock = lambda: datetime(2024, 1, 1, 0, 2, tzinfo=UTC)
        assert lake.read_table("x/raw", [DAY]).equals(NEW)
        seen = read_by_folder(tmp_path / "x" / "raw")
        assert seen == {reader: [3, 9] for reader in seen}, "who reads it later makes up for the writer that died"
    lake.clock = lambda: datetime(2024, 1, 1, 0, 4, tzinfo=UTC)
    lake.write_table("x/raw", DAY, NEW, [])
    assert read_by_folder(tmp_path / "x" / "raw") == {reader: [3, 9] for reader in seen}


def test_partitions_of_an_earlier_release_stay_readable_and_are_replaced(tmp_path: Path) -> None:
    """Their files had their names from the beginning."""
    lake = on_disk(tmp_path)
    shown = lake.write_table("x/raw", DAY, OLD, [])
    folder = tmp_path / "x" / "raw" / f"date={DAY}"
    (folder / shown.files[0]).rename(folder / "part-0123456789abcdef-01234567.parquet")
    content = json.loads((folder / "_manifest.json").read_text())
    (folder / "_manifest.json").write_text(json.dumps({**content, "files": ["part-0123456789abcdef-01234567.parquet"]}))
    assert lake.read_table("x/raw", [DAY]).equals(OLD)
    lake.write_table("x/raw", DAY, NEW, [])
    assert len(list(folder.iterdir())) == 2
    assert lake.read_table("x/raw", [DAY]).equals(NEW)


def test_disk_without_second_names_gets_a_copy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    lake = on_disk(tmp_path)
    lake.write_table("x/raw", DAY, OLD, [])
    assert lake.read_table("x/raw", [DAY]).equals(OLD)
    assert read_by_folder(tmp_path / "x" / "raw")["*/*.parquet"] == [1, 2]


@pytest.mark.parametrize("survived", [0, 1])
def test_writer_that_dies_leaves_the_old_partition(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, survived: int
) -> None:
    """Cut after the data file or before it: without the new manifest, the old version is in force."""
    lake = on_disk(tmp_path)
    lake.write_table("x/raw", DAY, OLD, [])
    put, done = Lake.write_file, []

    def dying(self: Lake, path: str, content: bytes) -> None:
        if len(done) >= survived:
            raise KeyboardInterrupt
        done.append(path)
        put(self, path, content)

    monkeypatch.setattr(Lake, "write_file", dying)
    with pytest.raises(KeyboardInterrupt):
        lake.write_table("x/raw", DAY, NEW, [])
    monkeypatch.undo()
    assert lake.read_table("x/raw", [DAY]).equals(OLD)
    lake.write_table("x/raw", DAY, NEW, [])
    assert lake.read_table("x/raw", [DAY]).equals(NEW)


def test_writers_of_the_same_content_do_not_share_files(tmp_path: Path) -> None:
    """Or one that replaces the other's version would delete what the other is about to name."""
    lake = on_disk(tmp_path)
    assert lake.write_table("x/raw", DAY, OLD, []).files != lake.write_table("x/raw", DAY, OLD, []).files
    assert lake.write_files("m/c", DAY, {"a": b"1"}, []).files != lake.write_files("m/c", DAY, {"a": b"1"}, []).files


def test_layout_is_plain_hive_that_others_read_without_us(tmp_path: Path) -> None:
    lake = on_disk(tmp_path)
    lake.write_table("x/raw", DAY, OLD, [])
    lake.write_table("x/raw", date(2018, 4, 2), NEW, [])
    assert pq.read_table(tmp_path / "x" / "raw", partitioning="hive").num_rows == 3


def test_bytes_of_a_table_are_counted_by_day(lake: Lake) -> None:
    assert lake.sizes("x/raw") == {}
    lake.write_table("x/raw", DAY, OLD, [])
    lake.write_files("x/raw", date(2018, 4, 3), {"a.json": b"12345", "b": b"6"}, [])
    sizes = lake.sizes("x/raw")
    assert list(sizes) == [DAY, date(2018, 4, 3)]
    assert sizes[date(2018, 4, 3)] > 6, "the manifest counts as well"


def test_rows_of_one_file_of_a_set(lake: Lake) -> None:
    buffer = io.BytesIO()
    pq.write_table(OLD, buffer)
    lake.write_files("x/aside", DAY, {"rows.parquet": buffer.getvalue(), "a.csv": b"no parquet"}, [])
    rows = lake.rows_of_file("x/aside", DAY, "rows.parquet")
    assert rows is not None
    assert rows.to_table().equals(OLD)
    assert lake.rows_of_file("x/aside", DAY, "other.parquet") is None


def test_files_that_dead_writers_left_go_after_a_day_and_no_others(lake: Lake) -> None:
    other = date(2018, 4, 2)
    lake.write_table("x/raw", DAY, OLD, [])
    lake.write_files("x/raw", other, {"a.json": b"1"}, [])
    lost = [f"{lake.root}/x/raw/date={DAY}/part-lost.parquet", f"{lake.root}/x/raw/date=2018-04-07/v/c.json"]
    for path in lost:
        lake.write_file(path, b"12345")
    while any(
        info.mtime.year == 1970 for day in lake.listing("x/raw").values() for info in day.values() if info.path in lost
    ):
        for path in lost:  # see the test below
            lake.write_file(path, b"12345")
    assert remove_leftovers(lake, "x/raw", timedelta(hours=24)) == 0, "their writers may be at work"
    lake.clock = lambda: datetime.now(UTC) + timedelta(hours=25)
    assert leftovers(lake, "x/raw", timedelta(hours=24)) == dict.fromkeys(lost, 5)
    assert remove_leftovers(lake, "x/raw", timedelta(hours=24)) == 10
    assert leftovers(lake, "x/raw", timedelta(0)) == {}
    assert lake.read_table("x/raw", [DAY]).equals(OLD)
    assert lake.read_files("x/raw", other) == {"a.json": b"1"}
    assert lake.days("x/raw") == [DAY, other]


def test_file_whose_age_is_unknown_is_no_leftover(lake: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    """Arrow cannot read some times that rclone's S3 server gives, and says 1970: a writer may be at work on that file."""
    path = f"{lake.root}/x/raw/date={DAY}/part-new.parquet"
    epoch = pafs.FileInfo(path, pafs.FileType.File, size=5, mtime=datetime.fromtimestamp(0, UTC))
    monkeypatch.setattr(lake, "listing", lambda key: {DAY: {"part-new.parquet": epoch}})
    assert leftovers(lake, "x/raw", timedelta(hours=24)) == {}


def test_manifest_of_a_newer_release_is_read_and_one_that_is_none_is_named(tmp_path: Path) -> None:
    lake = on_disk(tmp_path)
    written = lake.write_table("x/raw", DAY, OLD, [Input("object", "etag", 7)])
    path = tmp_path / "x" / "raw" / f"date={DAY}" / "_manifest.json"
    content = json.loads(path.read_text())
    inputs = [{**one, "checksum": "new"} for one in content["inputs"]]
    path.write_text(json.dumps({**content, "inputs": inputs, "engine": "newer"}))
    assert lake.manifest("x/raw", DAY) == written
    for nonsense in ("{", "[]", "{}", '{"rows": 1, "inputs": [3], "files": []}'):
        path.write_text(nonsense)
        with pytest.raises(LakeError, match="its manifest in .* cannot be read"):
            lake.manifest("x/raw", DAY)


def test_write_for_which_the_disk_has_no_room_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lake = on_disk(tmp_path)
    before = lake.write_files("x/candidate", DAY, {"a": b"1", "b": b"2"}, [])
    put, count = lake.put, itertools.count()

    def full(path: str, content: bytes | Path) -> None:
        if next(count) == 1:
            raise OSError(errno.ENOSPC, "No space left on device")
        put(path, content)

    monkeypatch.setattr(lake, "put", full)
    with pytest.raises(LakeError, match="No space left"):
        lake.write_files("x/candidate", DAY, {"a": b"3", "b": b"4"}, [])
    assert lake.read_files("x/candidate", DAY) == {"a": b"1", "b": b"2"}
    files = [path for path in (tmp_path / "x").rglob("*") if path.is_file()]
    assert len(files) == len(before.files) + 1


def test_file_is_on_the_disk_before_it_has_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a power cut leaves is the old partition or the new one."""
    happened: list[str] = []
    sync, move = os.fsync, pafs.LocalFileSystem.move
    monkeypatch.setattr(
        os,
        "fsync",
        lambda one: (
            happened.append("folder" if Path(f"/proc/self/fd/{one}").resolve().is_dir() else "file"),
            sync(one),
        )[1],
    )

    class Watched(pafs.LocalFileSystem):
        def move(self, source: str, target: str) -> None:
            happened.append("named")
            move(self, source, target)

    Lake(Storage(Watched()), str(tmp_path), lambda: datetime(2024, 1, 1, tzinfo=UTC)).write_table("x/raw", DAY, OLD, [])
    written = ["file", "named", "folder"]
    assert happened == [*written, *written, "folder", *written], (
        "data and manifest; the name for all, and the manifest with it"
    )
