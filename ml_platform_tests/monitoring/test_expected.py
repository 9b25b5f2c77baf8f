"""When a day has to be there, what explains what, and who is told, by the built-in catalog."""

from dataclasses import replace
from datetime import UTC, date, datetime

import pytest

from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import AlertsSpec
from ml_platform.monitoring.alerts import Alert
from ml_platform.monitoring.expected import Expected, belongings, channels_of, expected, explained_by


@pytest.mark.parametrize(
    ("now", "due"),
    [
        ("2026-01-03T05:59", "2026-01-01"),
        ("2026-01-03T06:00", "2026-01-02"),
        ("2026-01-04T05:59", "2026-01-02"),
    ],
)
def test_newest_due_day_changes_at_its_deadline(now: str, due: str) -> None:
    table = Expected("a/raw", date(2026, 1, 1), 1, "6h")
    at = datetime.fromisoformat(now).replace(tzinfo=UTC)
    assert table.newest_due(at) == date.fromisoformat(due)
    assert table.due_at(date.fromisoformat(due)) <= at


def test_nothing_is_due_before_the_first_day() -> None:
    assert Expected("a/raw", date(2026, 1, 1), 1, "6h").newest_due(datetime(2026, 1, 2, 5, tzinfo=UTC)) is None


def test_tables_with_a_deadline_are_expected_each_by_its_own_calendar(catalog: Catalog) -> None:
    assert expected(catalog) == [], "who declares no deadline is told of nothing"
    deadline = {"deadline": "6h"}
    model = catalog.models["fraud_detection"]
    predictions = model.predictions.model_copy(update=deadline)
    changed = replace(
        catalog,
        sources={name: source.model_copy(update=deadline) for name, source in catalog.sources.items()},
        views={name: view.model_copy(update=deadline) for name, view in catalog.views.items()},
        models={model.name: model.model_copy(update={"predictions": predictions})},
    )
    after = {one.key: one.known_after for one in expected(changed)}
    assert after["transactions/raw"] == 1
    assert after["fraud_labels/raw"] == 8, "labels are known a week later"
    assert after["features/customer_activity"] == 0, "a snapshot is of the start of its day"
    assert after["features/customer_windows"] == 1
    assert after["fraud_detection/predictions"] == 1
    assert "features/transaction_request" not in after


def test_trouble_of_a_source_explains_that_of_its_views_and_models(catalog: Catalog) -> None:
    causes = explained_by(catalog)
    assert causes["transactions/raw"] == ("transactions/raw",)
    assert set(causes["features/customer_activity"]) >= {"features/customer_activity", "transactions/raw"}
    assert set(causes["features/online_store"]) >= {"features/customer_activity", "transactions/raw"}
    for noun in ("predictions", "deployment"):
        found = causes[f"fraud_detection/{noun}"]
        assert set(found) > {"transactions/raw", "features/customer_activity"}
    assert "fraud_labels/raw" in causes["fraud_detection/deployment"]


def test_segment_is_explained_alone_and_explains_its_source(catalog: Catalog) -> None:
    source = catalog.sources["transactions"].model_copy(update={"segments": ("at", "be")})
    causes = explained_by(replace(catalog, sources={**catalog.sources, "transactions": source}))
    assert causes["transactions/at/raw"] == ("transactions/at/raw",)
    assert causes["transactions/raw"] == ("transactions/raw", "transactions/at/raw", "transactions/be/raw")
    assert "transactions/at/raw" in causes["features/customer_activity"]


def test_alert_belongs_to_its_source_view_or_model(catalog: Catalog) -> None:
    assert belongings(catalog, "transactions/raw") == (("transactions",), ("team:payments",))
    assert belongings(catalog, "features/customer_activity")[0] == ("customer_activity",)
    assert belongings(catalog, "fraud_detection/deployment")[0] == ("fraud_detection",)
    assert belongings(catalog, "sensor/arrival_sensor") == ((), ())


def test_routes_choose_by_all_that_they_say() -> None:
    spec = AlertsSpec.model_validate(
        {
            "channels": {name: {"url_variable": name.upper()} for name in ("payments", "pager", "fraud", "ops")},
            "routes": [
                {"channels": ["payments"], "owners": ["team:payments"]},
                {"channels": ["pager"], "severity": "critical", "sources": ["transactions"]},
                {"channels": ["fraud"], "models": ["fraud_detection"]},
                {"channels": ["ops"], "kinds": ["sensor_dead", "channel_broken"]},
            ],
        }
    )
    late = Alert("data_late", "transactions/raw", "", about=("transactions",), owners=("team:payments",))
    assert channels_of(spec, late) == ("payments", "pager")
    assert channels_of(spec, replace(late, kind="run_failed")) == ("payments",)
    assert channels_of(spec, Alert("gate_rejected", "x", "", about=("fraud_detection",))) == ("fraud",)
    assert channels_of(spec, Alert("sensor_dead", "sensor/x", "")) == ("ops",)
    assert channels_of(spec, Alert("rollback", "x", "")) == ("payments", "pager", "fraud", "ops"), "no route: all"
    others = ("payments", "pager", "fraud")
    assert channels_of(spec, Alert("channel_broken", "channel/ops", "")) == others, "none is told of itself"
