"""One tick of the arrival sensor with 1,000,000 objects landed, none of them new: LIST calls and time over real HTTP."""

import contextlib
import socket
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from multiprocessing import Process, Value
from pathlib import Path
from urllib.parse import parse_qs, urlsplit
from zlib import crc32

import dagster as dg

from benchmarks.figure import Figure
from ml_platform.components.automation import arrival_sensor
from ml_platform.core.catalog import load_catalog
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import AutomationSpec, SourceSpec
from ml_platform.data.arrivals import look, plan
from ml_platform.data.landing import LandedObject, Page
from ml_platform.data.watch import Watch
from ml_platform.resources.lake import Lake
from ml_platform.resources.origins import Origins
from ml_platform_tests.processes import eventually, free_port

SOURCES = ("fraud_labels", "transactions")
DAYS, FILES_A_DAY, PAGE = 2_000, 250, 1_000
LANDED = datetime(2024, 1, 1, tzinfo=UTC)
TICKS = 20
ENTRY = (
    '<Contents><Key>{}</Key><LastModified>2024-01-01T00:00:00.000Z</LastModified><ETag>"{:032x}"</ETag>'
    "<Size>1000</Size><StorageClass>STANDARD</StorageClass></Contents>"
)


def arrival_tick() -> Iterator[Figure]:
    first_day = datetime.now(UTC).date() - timedelta(days=DAYS - 1)
    catalog = load_catalog(find_project(EXAMPLE).defs, first_day=first_day)
    bucket = Bucket(first_day)
    with tempfile.TemporaryDirectory() as folder, bucket.served() as port, dg.DagsterInstance.ephemeral() as instance:
        settings = Settings(home=Path(folder), s3_port=port)
        sensor = arrival_sensor(catalog, AutomationSpec())
        resources = {"origins": Origins.at(settings), "lake": Lake.at(settings)}
        cursor, pages = all_handled(catalog.sources, bucket, first_day)
        lists, seconds = [], []
        for _ in range(TICKS):
            before, began = bucket.lists, time.perf_counter()
            context = dg.build_sensor_context(instance=instance, cursor=cursor, resources=resources)
            ticked = sensor.evaluate_tick(context)
            seconds.append(time.perf_counter() - began)
            lists.append(bucket.lists - before)
            assert not ticked.run_requests, "nothing is new"
            cursor = ticked.cursor or cursor
    swept = pages / (AutomationSpec().lists_per_tick - len(SOURCES)) * AutomationSpec().arrival_interval / 60
    yield Figure("arrival_tick.objects", len(SOURCES) * DAYS * FILES_A_DAY, "objects")
    yield Figure("arrival_tick.lists", max(lists), "LISTs", 5)
    yield Figure("arrival_tick.slowest", max(seconds), "s", 1.0)
    yield Figure("arrival_tick.cursor", len(cursor) / 1_000, "kB")
    yield Figure("arrival_tick.old_overwrite_is_found_within", swept, "min")


class Bucket:
    """A million keys that follow a rule, and a server (a process of its own) that answers LIST calls as S3 does."""

    def __init__(self, first_day: date) -> None:
        self.days = [(first_day + timedelta(days=n)).isoformat() for n in range(DAYS)]
        self.calls = Value("i", 0)

    @property
    def lists(self) -> int:
        return self.calls.value

    def keys(self, source: str, after: str) -> list[str]:
        """The next page of a source's keys, and one more if there is one."""
        _, _, rest = after.partition("/")
        day = rest.partition("/")[0]
        found: list[str] = []
        for one in self.days[sum(d < day for d in self.days) :]:
            names = (f"{source}/{one}/part-{n:04d}.parquet" for n in range(FILES_A_DAY))
            found += [name for name in names if name > after]
            if len(found) > PAGE:
                break
        return found[: PAGE + 1]

    @contextmanager
    def served(self) -> Iterator[int]:
        port = free_port()
        process = Process(target=serve, args=(self, port), daemon=True)
        process.start()
        try:
            eventually(lambda: answers(port))
            yield port
        finally:
            process.terminate()
            process.join()


def answers(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def serve(bucket: Bucket, port: int) -> None:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            query = {name: values[0] for name, values in parse_qs(urlsplit(self.path).query).items()}
            keys = bucket.keys(query["prefix"].rstrip("/"), query.get("start-after", ""))
            with bucket.calls.get_lock():
                bucket.calls.value += 1
            entries = "".join(ENTRY.format(key, crc32(key.encode())) for key in keys[:PAGE])
            more = str(len(keys) > PAGE).lower()
            body = (
                '<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
                f"<Name>landing</Name><KeyCount>{len(keys[:PAGE])}</KeyCount><IsTruncated>{more}</IsTruncated>{entries}"
                "</ListBucketResult>"
            ).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/xml")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            pass

    ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()


def all_handled(sources: dict[str, SourceSpec], bucket: Bucket, first_day: date) -> tuple[str, int]:
    """The cursor of a sensor that has seen and handled everything; and the pages that this took."""
    pages = 0

    def page(source: SourceSpec, after: str) -> Page:
        nonlocal pages
        pages += 1
        keys = bucket.keys(source.name, after)
        objects = tuple(LandedObject(key, f"{crc32(key.encode()):032x}", 1_000, LANDED) for key in keys[:PAGE])
        return Page(objects, len(keys) > PAGE)

    seen = look(sources, Watch(), page, 10**6, datetime.now(UTC).date())
    handled = plan(sources, seen, lambda *_: True, (), (), 0.0)
    return handled.watch.to_json(), pages
