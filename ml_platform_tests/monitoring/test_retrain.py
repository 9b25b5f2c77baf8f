from datetime import date

from ml_platform.core.catalog import Catalog
from ml_platform.monitoring.retrain import Train, Wait, decide

NEW, LAST = date(2018, 6, 10), date(2018, 6, 3)


def decision(catalog: Catalog, known: list[date], inputs: str | None, trained: dict[date, str]) -> Train | Wait:
    return decide(catalog.models["fraud_detection"], known, lambda _: inputs, trained)


def test_first_training_is_due_as_soon_as_inputs_are_complete(catalog: Catalog) -> None:
    assert decision(catalog, [LAST, NEW], "x", {}) == Train(NEW, "the model has never been trained", "x")
    assert isinstance(decision(catalog, [LAST, NEW], None, {}), Wait)
    assert isinstance(decision(catalog, [], "x", {}), Wait)


def test_next_training_is_due_by_cadence(catalog: Catalog) -> None:
    assert isinstance(decision(catalog, [NEW], "x", {LAST: "old"}), Train)
    assert isinstance(decision(catalog, [date(2018, 6, 9)], "x", {LAST: "old"}), Wait)


def test_changed_inputs_make_the_same_date_due_again(catalog: Catalog) -> None:
    found = decision(catalog, [LAST], "new", {LAST: "old"})
    assert isinstance(found, Train)
    assert "have changed" in found.reason
    assert isinstance(decision(catalog, [LAST], "old", {LAST: "old"}), Wait)
