"""Sources by where they come from; a class of one's own is as good as the built-in ones."""

from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pytest

from ml_platform.components.source import ingest_day
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import SpecError
from ml_platform.core.settings import Settings
from ml_platform.core.spec import PluginOrigin, SourceSpec
from ml_platform.data.landing import LandedObject, Page
from ml_platform.resources.lake import Lake
from ml_platform.resources.object_store import ObjectStore
from ml_platform.resources.origins import Origins

DAY = date(2018, 4, 1)


class Feed:
    """A third party's origin: one generated CSV a day."""

    def __init__(self, options: dict[str, Any]) -> None:
        self.rows = int(options["rows"])

    def of_day(self, source: SourceSpec, day: date) -> list[LandedObject]:
        return [LandedObject(f"{source.name}/{day}/feed.csv", f"v{self.rows}", 0, datetime(2018, 4, 2, tzinfo=UTC))]

    def page(self, source: SourceSpec, after: str) -> Page:
        return Page(tuple(o for o in self.of_day(source, DAY) if o.key > after), False)

    def fetch(self, source: SourceSpec, found: LandedObject, target: Path) -> None:
        lines = [f"{n},2018-04-01,1,2,{n}.5\n" for n in range(self.rows)]
        target.write_text("transaction_id,tx_datetime,customer_id,terminal_id,tx_amount\n" + "".join(lines))

    def url(self, key: str) -> str:
        return f"feed://{key}"


def test_files_are_the_default(settings: Settings, catalog: Catalog) -> None:
    origins = Origins.at(settings)
    assert isinstance(origins.of(catalog.sources["transactions"]), ObjectStore)
    assert origins.of(catalog.sources["transactions"]) is origins.of(catalog.sources["fraud_labels"])


def test_day_of_a_plugin_goes_the_way_of_all_days(settings: Settings, catalog: Catalog) -> None:
    plugin = PluginOrigin(type=f"{__name__}.Feed", options={"rows": 3})
    source = catalog.sources["transactions"].model_copy(update={"origin": plugin})
    lake = Lake.at(settings)
    outcome = ingest_day(source, DAY, catalog, Origins.at(settings), lake)
    assert not outcome.broken
    raw = lake.require("transactions/raw", DAY)
    assert (raw.rows, raw.inputs[0].name) == (3, "feed://transactions/2018-04-01/feed.csv")


def test_plugin_that_cannot_be_imported_names_the_field(settings: Settings, catalog: Catalog) -> None:
    missing = PluginOrigin(type="nowhere.Feed")
    source = catalog.sources["transactions"].model_copy(update={"origin": missing})
    with pytest.raises(SpecError, match="mend `transactions: origin.type`"):
        Origins.at(settings).of(source)
