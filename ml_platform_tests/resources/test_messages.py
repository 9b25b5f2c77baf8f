"""What becomes of a message: a request, waiting, or a reason why not."""

import json
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pyarrow as pa
import pytest

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.settings import Settings
from ml_platform.core.spec import ModelSpec, TriggersSpec
from ml_platform.resources import triggers
from ml_platform.resources.lake import Lake
from ml_platform.resources.manifest import Input
from ml_platform.resources.messages import Refused, Waits, answer, topics_of
from ml_platform.resources.topics import Message
from ml_platform.resources.triggers import Request

NOW, LAST = datetime(2018, 6, 2, 12, tzinfo=UTC), date(2018, 6, 1)


@pytest.fixture
def model(catalog: Catalog) -> ModelSpec:
    return catalog.models["fraud_detection"].model_copy(update={"triggers": TriggersSpec(topic="t", max_wait="2h")})


@pytest.fixture
def lake(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Lake:
    """Rows and one landed object of the last day; inputs are complete."""
    monkeypatch.setattr(triggers, "training_fingerprint", lambda *_: "inputs")
    lake = Lake.at(settings)
    table, objects = pa.table({"n": [1]}), [Input("s3://landing/transactions/2018-06-01/a.csv", "etag")]
    lake.write_table(keys.raw("transactions"), LAST, table, objects)
    lake.write_table(keys.ledger("transactions"), LAST, table, objects)
    return lake


def asked(lake: Lake, catalog: Catalog, models: list[ModelSpec], content: Any, age: float = 0) -> Any:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    message = Message("t", 0, 5, text, NOW - timedelta(minutes=age))
    return answer(message, models, catalog, lake, NOW)


def test_empty_message_asks_for_the_newest_date(lake: Lake, catalog: Catalog, model: ModelSpec) -> None:
    found = asked(lake, catalog, [model], {})
    assert found == Request("fraud_detection", LAST + timedelta(days=1), "message", "by a message, t-0-5")


def test_message_says_what_the_command_says(lake: Lake, catalog: Catalog, model: ModelSpec) -> None:
    said = {
        "as_of": "2018-05-30",
        "priority": -3,
        "reason": "why",
        "overrides": {"training.seed": 3, "training.window_days": 28},
    }
    found = asked(lake, catalog, [model], said)
    assert found == Request("fraud_detection", date(2018, 5, 30), "message", "why, t-0-5", -3, {"training.seed": 3})


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "Invalid JSON"),
        (b"\xff", "Invalid JSON"),
        (b"[]", "Input should be an object"),
        (b" " * 70_000, r"has 70,000 bytes \(at most 65,536\)"),
        ({"as_off": "2018-05-30"}, "unknown key `as_off`; did you mean `as_of`"),
        ({"as_of": "yesterday"}, "`as_of`: Input should be a valid date"),
        ({"priority": 1_001}, r"`priority`: Input should be less than or equal to 1000 \(it is 1001\)"),
        ({"reason": "a\x00b"}, "`reason`: String should match"),
        ({"model": "other"}, "`model`:: 'other' has another topic. Next: one of fraud_detection"),
        ({"overrides": {"training.cadence": "daily"}}, "training.cadence: is nothing that a run may change"),
        ({"overrides": {"training.window_days": 10**30}}, "days before it, and transactions begins on 2018-04-01"),
        ({"as_of": "0001-01-01"}, "transactions begins on 2018-04-01"),
        ({"data": "customers/2018-06-01/a.csv"}, "`data`: customers/2018-06-01/a.csv: is no data of fraud_detection"),
        ({"data": "transactions/2018-13-01/a.csv"}, "is no data of fraud_detection"),
        ({"data": "transactions/2018-06-01", "as_of": "2018-06-01"}, "`as_of`: 2018-06-01: does not know .*2018-06-02 or later"),
    ],
)  # fmt: skip
def test_what_will_never_be_a_training_is_refused_with_the_reason(
    lake: Lake, catalog: Catalog, model: ModelSpec, content: Any, said: str
) -> None:
    found = asked(lake, catalog, [model], content)
    assert isinstance(found, Refused)
    with pytest.raises(ValueError, match=said):
        raise ValueError(found.reason)


@pytest.mark.parametrize(
    "path",
    [
        "transactions/2018-06-01/a.csv",
        "transactions/2018-06-01",
        "transactions/2018-06-01/",
        "s3://landing/transactions/2018-06-01/a.csv",
    ],
)
def test_data_that_is_ingested_is_trained_on(lake: Lake, catalog: Catalog, model: ModelSpec, path: str) -> None:
    found = asked(lake, catalog, [model], {"data": path})
    assert isinstance(found, Request)
    assert (found.as_of, found.reason) == (date(2018, 6, 2), f"by a message, t-0-5, {path}")


@pytest.mark.parametrize(
    "content", [{"data": "transactions/2018-06-01/b.csv"}, {"data": "transactions/2018-06-02"}, {"as_of": "2018-06-03"}]
)
def test_data_that_is_not_there_is_waited_for_and_not_for_ever(
    lake: Lake, catalog: Catalog, model: ModelSpec, content: dict[str, str]
) -> None:
    assert isinstance(asked(lake, catalog, [model], content, age=119), Waits)
    for age in (120, -120):  # of a clock that is wrong
        refused = asked(lake, catalog, [model], content, age)
        assert isinstance(refused, Refused)
        assert refused.reason.startswith("not within 2h (triggers.max_wait of fraud_detection): ")


def test_topic_of_several_models_needs_to_say_which(lake: Lake, catalog: Catalog, model: ModelSpec) -> None:
    second = model.model_copy(update={"name": "second"})
    known = Catalog(catalog.sources, catalog.views, {"fraud_detection": model, "second": second})
    models = topics_of(known)["t"]
    assert models == [model, second]
    refused = asked(lake, known, models, {})
    assert isinstance(refused, Refused)
    assert "is required, since the topic is of several models. Next: one of fraud_detection, second" in refused.reason
    assert asked(lake, known, models, {"model": "second"}).model == "second"
