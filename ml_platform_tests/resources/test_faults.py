"""Processes that are killed and servers that stop in the middle: what is left is the old partition or the new one."""

import io
import random
import subprocess
import sys
import textwrap
import threading
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from ml_platform.components.source import ingest_day
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import LakeError, LandingError
from ml_platform.core.settings import Settings
from ml_platform.data.landing import fingerprint
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import is_handled
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins
from ml_platform_tests.proxy import Proxy, proxy

pytestmark = pytest.mark.usefixtures("processes", "s3_port")

DAY = date(2018, 4, 1)
RAW = "transactions/raw"


def day_of(rows: int, first_id: int) -> pa.Table:
    times = [datetime(2018, 4, 1, tzinfo=UTC) + timedelta(seconds=i) for i in range(rows)]
    return pa.table(
        {
            "transaction_id": range(first_id, first_id + rows),
            "tx_datetime": times,
            "customer_id": pa.array([1] * rows, pa.int32()),
            "terminal_id": pa.array([2] * rows, pa.int32()),
            "tx_amount": [random.Random(first_id).random()] * rows,
        }
    )


def land(store: ObjectStore, table: pa.Table) -> None:
    buffer = io.BytesIO()
    pq.write_table(table, buffer, compression="none", use_dictionary=False)
    store.write(f"transactions/{DAY}/a.parquet", buffer.getvalue())


OLD, NEW = day_of(20_000, 0), day_of(30_000, 50_000)

# The process under test: it ingests the landed day, and kills itself when it comes to the chosen point.
CHILD = """
import os, signal, sys
from datetime import date
from ml_platform.components.source import ingest_day
from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import load_settings
from ml_platform.resources.lake import Lake
from ml_platform.resources.origins import Origins

number, moment = int(sys.argv[1]), sys.argv[2]
put, count = Lake.write_file, 0

def die():
    os.kill(os.getpid(), signal.SIGKILL)

class Dying:
    def __init__(self, stream): self.stream = stream
    def __enter__(self): self.stream.__enter__(); return self
    def __exit__(self, *error): return self.stream.__exit__(*error)
    def write(self, content):
        self.stream.write(content[: len(content) // 2]); self.stream.flush(); die()

def watched(self, path, content):
    global count
    count += 1
    if count == number and moment == "before": die()
    if count == number and moment == "within":
        storage = self.put.__self__
        opened = storage.filesystem.open_output_stream
        class Cut:
            def __getattr__(_, name): return getattr(real, name)
            def open_output_stream(_, target): return Dying(opened(target))
        real, storage.filesystem = storage.filesystem, Cut()
    put(self, path, content)
    if count == number and moment == "after": die()

Lake.write_file = watched
settings = load_settings()
catalog = load_catalog(find_project(EXAMPLE).defs)
ingest_day(catalog.sources["transactions"], date(2018, 4, 1), catalog, Origins.at(settings), Lake.at(settings))
"""


@pytest.fixture
def world(environment: Settings) -> Settings:
    ObjectStore.at(environment).ensure_bucket()
    return environment


def make(settings: Settings, catalog: Catalog) -> None:
    ingest_day(catalog.sources["transactions"], DAY, catalog, Origins.at(settings), Lake.at(settings))


def handled(settings: Settings, catalog: Catalog) -> bool:
    source = catalog.sources["transactions"]
    content = fingerprint(ObjectStore.at(settings).of_day(source, DAY))
    return is_handled(Lake.at(settings), catalog, source, DAY, content)


# Files are put in this order: data, manifest, ledger's data, ledger's manifest.
@pytest.mark.parametrize(
    ("number", "moment", "left"),
    [
        (1, "before", OLD),
        (1, "within", OLD),
        (1, "after", OLD),
        (2, "within", OLD),
        (2, "after", NEW),
        (3, "after", NEW),
        (4, "within", NEW),
    ],
)
def test_killed_writer_leaves_one_whole_version_and_the_day_is_asked_for_again(
    world: Settings, catalog: Catalog, number: int, moment: str, left: pa.Table
) -> None:
    store, lake = ObjectStore.at(world), Lake.at(world)
    land(store, OLD)
    make(world, catalog)
    assert handled(world, catalog)
    land(store, NEW)
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(CHILD), str(number), moment], capture_output=True, check=False)  # fmt: skip
    assert killed.returncode == -9, killed.stderr
    assert lake.read_table(RAW, [DAY])["transaction_id"].equals(left["transaction_id"])
    assert not handled(world, catalog)
    make(world, catalog)
    assert lake.read_table(RAW, [DAY])["transaction_id"].equals(NEW["transaction_id"])
    assert handled(world, catalog)


@pytest.fixture
def stopping(world: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """The S3 server behind a proxy that can stop; landing and lake are both there."""
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "2")
    land(ObjectStore.at(world), OLD)
    with proxy(world.s3_port) as running:
        yield running


@pytest.fixture
def through(world: Settings, stopping: Proxy) -> Settings:
    return world.model_copy(update={"s3_port": stopping.port, "lake": f"{world.landing}/lake"})


@pytest.mark.parametrize("bytes_left", [0, 300, 5_000, 100_000])
def test_s3_that_stops_while_listing_or_reading_is_an_error_and_writes_nothing(
    through: Settings, stopping: Proxy, catalog: Catalog, bytes_left: int
) -> None:
    stopping.cut(to_client=bytes_left)
    with pytest.raises((LandingError, LakeError), match="could not|failed|cannot be read"):
        make(through, catalog)
    stopping.restore()
    assert Lake.at(through).manifest(RAW, DAY) is None
    make(through, catalog)
    assert Lake.at(through).read_table(RAW, [DAY]).num_rows == OLD.num_rows


def test_s3_that_stops_while_writing_leaves_the_old_partition(
    through: Settings, stopping: Proxy, catalog: Catalog
) -> None:
    make(through, catalog)
    land(ObjectStore.at(through), NEW)
    stopping.cut(to_server=20_000)  # in the middle of the data file
    with pytest.raises(LakeError, match="failed"):
        make(through, catalog)
    stopping.restore()
    assert Lake.at(through).read_table(RAW, [DAY])["transaction_id"].equals(OLD["transaction_id"])
    make(through, catalog)
    assert Lake.at(through).read_table(RAW, [DAY])["transaction_id"].equals(NEW["transaction_id"])


def test_object_that_is_replaced_while_it_is_read_is_not_mixed(
    world: Settings, catalog: Catalog, tmp_path: Path
) -> None:
    store, source = ObjectStore.at(world), catalog.sources["transactions"]
    land(store, OLD)
    (listed,) = store.of_day(source, DAY)
    land(store, NEW)
    with pytest.raises(LandingError, match="was replaced while it was read"):
        store.fetch(source, listed, tmp_path / "x")


@pytest.mark.parametrize("place", ["folder", "s3"])
def test_readers_and_writers_of_one_partition_see_whole_versions(world: Settings, place: str) -> None:
    settings = world if place == "folder" else world.model_copy(update={"lake": f"{world.landing}/lake"})
    versions = [pa.table({"n": [number] * 1_000}) for number in range(4)]
    Lake.at(settings).write_table("x/raw", DAY, versions[0], [])
    wrong: list[str] = []
    done = threading.Event()

    def write(number: int) -> None:
        lake = Lake.at(settings)
        for _ in range(15):
            lake.write_table("x/raw", DAY, versions[number], [])

    def read() -> None:
        lake = Lake.at(settings)
        while not done.is_set():
            try:
                found = lake.read_table("x/raw", [DAY])["n"].to_pylist()
            except (LakeError, OSError) as error:
                wrong.append(str(error))
                return
            if len(found) != 1_000 or len(set(found)) != 1:
                wrong.append(f"{len(found)} rows of {set(found)}")

    writers = [threading.Thread(target=write, args=(number,)) for number in (1, 2, 3)]
    reader = threading.Thread(target=read)
    for thread in (*writers, reader):
        thread.start()
    for thread in writers:
        thread.join()
    done.set()
    reader.join()
    assert wrong == []
    manifest = Lake.at(settings).require("x/raw", DAY)
    assert Lake.at(settings).read_table("x/raw", [DAY]).num_rows == manifest.rows == 1_000
