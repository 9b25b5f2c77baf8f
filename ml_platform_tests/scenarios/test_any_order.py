"""A law: whatever the order in which objects land, and however often, the lake ends up the same."""

import tempfile
from collections.abc import Sequence
from datetime import UTC, date, datetime
from pathlib import Path

import pyarrow.fs as pafs
import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from ml_platform.components.source import ingest_day
from ml_platform.core.catalog import Catalog
from ml_platform.core.days import day_range
from ml_platform.core.digest import of_bytes
from ml_platform.core.errors import LandingError
from ml_platform.core.spec import ColumnSpec, PolicySpec, ReferenceSpec, SourceSpec
from ml_platform.data.arrivals import look, plan
from ml_platform.data.landing import LandedObject, Page, day_of
from ml_platform.data.watch import Watch
from ml_platform.resources.lake import Lake
from ml_platform.resources.ledger import accounts_of, is_handled
from ml_platform.resources.origins import Origins
from ml_platform.resources.storage import Storage
from ml_platform_tests.selection import examples

FIRST, TODAY = date(2024, 1, 1), date(2024, 1, 5)
KEEP = PolicySpec(on_failure="quarantine", up_to=1.0)


def source(name: str, **more: object) -> SourceSpec:
    columns = {"id": ColumnSpec(type="int64"), "at": ColumnSpec(type="timestamp")}
    policies = {"keys_are_unique": KEEP, "references_exist": KEEP, "objects_are_readable": KEEP}
    return SourceSpec.model_validate(
        {"name": name, "start_date": FIRST, "key": ["id"], "event_time": "at", "columns": columns, "policies": policies, **more}
    )  # fmt: skip


ORDERS = source("orders", unique_within_days=3)
REFUNDS = source("refunds", references={"id": ReferenceSpec(source="orders", column="id", window_days=3)})
CATALOG = Catalog({"orders": ORDERS, "refunds": REFUNDS}, {}, {})


def csv(day: int, *ids: int) -> bytes:
    return b"id,at\n" + b"".join(b"%d,2024-01-%02d\n" % (one, day) for one in ids)


# Keys come twice within a day, in another object and on another day; refunds know orders of three days, and one of none.
OBJECTS = {
    "orders/2024-01-01/a.csv": csv(1, 1, 2, 2),
    "orders/2024-01-01/b.csv": csv(1, 2, 3),
    "orders/2024-01-02/a.csv": csv(2, 3, 4),
    "orders/2024-01-03/a.csv": csv(3, 1, 5),
    "orders/2024-01-03/b.csv": b"junk\xff",
    "orders/2024-01-04/a.csv": csv(4, 1, 6),
    "refunds/2024-01-03/a.csv": csv(3, 1, 4, 99),
    "refunds/2024-01-04/a.csv": csv(4, 2, 6),
}


class Bucket:
    """Objects in memory."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}

    def page(self, source: SourceSpec, after: str) -> Page:
        found = [self._found(key) for key in sorted(self.objects) if key.startswith(f"{source.name}/") and key > after]
        return Page(tuple(found[:2]), len(found) > 2)

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        return [self._found(key) for key in sorted(self.objects) if day_of(source.name, key) == day]

    def fetch(self, source: SourceSpec, found: LandedObject, target: Path) -> None:
        if self._found(found.key) != found:
            raise LandingError(found.key, "was replaced", "again")
        target.write_bytes(self.objects[found.key])

    def url(self, key: str) -> str:
        return f"memory://{key}"

    def _found(self, key: str) -> LandedObject:
        content = self.objects[key]
        return LandedObject(key, of_bytes(content)[:16], len(content), datetime(2024, 1, 9, tzinfo=UTC))


class World:
    """A bucket, a lake, and the sensor between them; every run is over at once."""

    def __init__(self, folder: str) -> None:
        self.bucket, self.watch, self.now = Bucket(), Watch(), 0.0
        self.lake = Lake(Storage(pafs.LocalFileSystem()), folder, lambda: datetime(2024, 1, 9, tzinfo=UTC))
        self.origins = Origins(self.bucket)  # type: ignore[arg-type]  # it is an origin, and nothing more is asked of it

    def tick(self) -> int:
        self.now += 4_000  # later than any delay between tries

        def handled(name: str, day: date, content: str) -> bool:
            return is_handled(self.lake, CATALOG, CATALOG.sources[name], day, content)

        seen = look(CATALOG.sources, self.watch, self.bucket.page, 5, TODAY)
        planned = plan(CATALOG.sources, seen, handled, (), (), self.now)
        self.watch = planned.watch
        for request in planned.requests:
            for day in day_range(request.first, request.last):
                ingest_day(CATALOG.sources[request.source], day, CATALOG, self.origins, self.lake)
        return len(planned.requests)

    def end(self) -> dict[str, object]:
        """What the lake holds when nothing more happens."""
        quiet = 0
        for _ in range(60):
            quiet = 0 if self.tick() else quiet + 1
            if quiet == 8:  # the sweep has been everywhere
                break
        assert quiet == 8, "it never settled"
        return {
            f"{name} {day}": (manifest.content_hash, manifest.tags["quality"], accounts_of(self.lake, name, day))
            for name in CATALOG.sources
            for day, manifest in self.lake.manifests(f"{name}/raw", day_range(FIRST, TODAY)).items()
        }


def lake_after(events: Sequence[str]) -> dict[str, object]:
    """The lake after objects have landed in this order, with ticks in between."""
    with tempfile.TemporaryDirectory() as folder:
        world = World(folder)
        for event in events:
            if event == "tick":
                world.tick()
            elif event == "lost cursor":
                world.watch = Watch()
            else:
                world.bucket.objects[event] = OBJECTS[event]
        world.bucket.objects.update(OBJECTS)
        return world.end()


@pytest.fixture(scope="module")
def expected() -> dict[str, object]:
    """The lake after all objects have landed at once."""
    return lake_after([])


@given(st.lists(st.sampled_from([*OBJECTS, "tick", "tick", "tick", "lost cursor"]), max_size=25))
@examples(25, suppress_health_check=[HealthCheck.too_slow])
def test_any_order_and_multiplicity_gives_the_same_lake(expected: dict[str, object], events: list[str]) -> None:
    assert lake_after(events) == expected


def test_the_lake_is_what_the_rules_say(expected: dict[str, object]) -> None:
    counts = {
        name: [(a.written, a.quarantined, bool(a.held)) for a in accounts]  # type: ignore[attr-defined]
        for name, (_, _, accounts) in expected.items()  # type: ignore[misc]
    }
    assert counts == {
        "orders 2024-01-01": [(2, 1, False), (1, 1, False)],
        "orders 2024-01-02": [(1, 1, False)],
        "orders 2024-01-03": [(1, 1, False), (0, 0, True)],
        "orders 2024-01-04": [(2, 0, False)],
        "refunds 2024-01-03": [(2, 1, False)],
        "refunds 2024-01-04": [(1, 1, False)],
    }
