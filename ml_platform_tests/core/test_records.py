"""Two releases side by side on one lake and one registry: what the newer one wrote, the older one reads."""

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, is_dataclass, replace
from datetime import UTC, date, datetime
from typing import Any

import pytest
from pydantic import BaseModel

from ml_platform.core.records import of, read
from ml_platform.core.spec import RolloutSpec
from ml_platform.data.quarantine import Decision
from ml_platform.evaluation.figures import Segment
from ml_platform.evaluation.report import ChampionReport, Report
from ml_platform.evaluation.soundness import Finding
from ml_platform.monitoring.alerts import Alert, Open, Silence, State, Trouble
from ml_platform.monitoring.drift import Drift, ShareChange
from ml_platform.monitoring.performance import Performance
from ml_platform.monitoring.report import MonitoringReport
from ml_platform.monitoring.run_metrics import Histogram, RunTotals
from ml_platform.registry.bundle import InputSchema, ViewSchema
from ml_platform.registry.versions import Version
from ml_platform.resources.manifest import Input, Manifest
from ml_platform.rollout.standing import Record
from ml_platform.rollout.state import Event, Rollout
from ml_platform.rollout.traffic import Traffic
from ml_platform.training import trials
from ml_platform_tests.evaluation.test_gates import figure

NOON = datetime(2018, 6, 1, 12, tzinfo=UTC)
EVENT = Event(NOON, "started", "canary", "sensor", {"share": 0.1})
ROLLOUT = Rollout(
    "2", "2018-05-31", "1", None, RolloutSpec(strategy="canary", steps=(10,)), NOON, NOON, "running", EVENT
)
ALERT = Alert("data_late", "transactions/raw", "it is late", parts=("2018-06-01",))
PERFORMANCE = Performance("", "ok", "average_precision", 100, 7.0, 0.7)
VERSION = Version("fraud", "1", "ab", "2018-05-31", "run", "s3://mlflow/1")
# A record, and how it is read from the text that its writer made of it.
RECORDS: dict[str, tuple[Any, Callable[[Any], Any]]] = {
    "decision": (Decision("release", "ab", ("keys_are_unique",), "known", "ann", "2018-06-01"), Decision.from_json),
    "manifest": (Manifest(3, "ab", ("a.parquet",), (Input("a", "b", 3),), "c", "2018", {"run": "1"}), Manifest.from_json),
    "evaluation": (
        Report(
            "m", "2018-05-31", "ab", 9, (8, 1), 0, 0.5, {"log_loss": 0.1}, ChampionReport("1", {"log_loss": 0.2}),
            {"log_loss": replace(figure(0.1), segments=(Segment("a", 5, 2, 0.1),))}, {"deterministic": Finding(0.0)},
        ),
        Report.from_json,
    ),
    "monitoring": (
        MonitoringReport(
            "m", "2018-06-01", "1", "2018-05-31", 9, (Drift("amount", "ok", 9, 0.01, 0.4),), (), (ShareChange("n", "ok", 0.1, 0.1),),
            ("ok", "as usual"), (PERFORMANCE,), (PERFORMANCE,), (), ("2018-05-25", "2018-06-01"), None,
        ),
        MonitoringReport.from_json,
    ),
    "counters": (RunTotals(until=3.0, runs={"m SUCCESS": 1}, seconds={"m": Histogram(total=3.0)}), RunTotals.from_json),
    "alerts": (
        State({ALERT.id: Open(ALERT, 1.0, 2.0, owed=("mail",))}, {"mail": Trouble(1, 1.0, 2.0, "away")}, {"turn": 3}),
        State.from_json,
    ),
    "silence": (Silence("ab", "*", 9.0, "ann", "holiday"), lambda text: read(Silence, text)),
    "rollout": (Record({"champion": "1"}, ROLLOUT, "1"), Record.from_json),
    "event": (EVENT, Event.from_json),
    "traffic": (Traffic(VERSION, replace(VERSION, number="2"), 0.1, salt="s"), lambda text: read(Traffic, text)),
    "input schema": (InputSchema({"a": "float"}, (ViewSchema("v", "e", "string", {"x": 0.0}),)), InputSchema.from_json),
    "trial": (trials.Record(trial="c1_0", params={"lr": 0.1}, losses={1: 0.2}), lambda text: read(trials.Record, text)),
    "model file": (RolloutSpec(strategy="canary", steps=(10,)), lambda text: read(RolloutSpec, text)),
}  # fmt: skip
NEWER = "of_a_newer_release"


def grown(record: Any) -> Any:
    """A record as JSON has it, with something more at every depth."""
    if isinstance(record, BaseModel):
        return {name: grown(value) for name, value in record} | {NEWER: [1]}
    if is_dataclass(record):
        named = {one.name: getattr(record, one.name) for one in fields(record)}
        more = named.pop("more", {}) if isinstance(record, Rollout) else {}
        return {name: grown(value) for name, value in named.items()} | more | {NEWER: [1]}
    if isinstance(record, Mapping):
        return {str(name): grown(value) for name, value in record.items()}
    if isinstance(record, tuple | list):
        return [grown(one) for one in record]
    return record.isoformat() if isinstance(record, date) else record


@pytest.mark.parametrize("name", RECORDS)
def test_what_a_newer_release_has_added_at_any_depth_is_no_trouble(name: str) -> None:
    record, parse = RECORDS[name]
    assert parse(json.dumps(grown(record)).encode()) == expected(record)


def expected(record: Any) -> Any:
    """A rollout keeps what it does not know, for the newer release to find again."""
    if isinstance(record, Record) and record.rollout:
        return replace(record, rollout=replace(record.rollout, more={NEWER: [1]}))
    return record


def test_alert_of_a_kind_that_only_a_newer_release_has_is_left_out_alone() -> None:
    opened = grown(State({ALERT.id: Open(ALERT, 1.0, 2.0)}))
    opened["open"]["newer"] = {
        **opened["open"][ALERT.id],
        "alert": {"kind": "moon_full", "subject": "m", "reason": "r"},
    }
    assert State.from_json(json.dumps(opened)) == State({ALERT.id: Open(ALERT, 1.0, 2.0)})


def test_what_is_no_record_says_where() -> None:
    with pytest.raises(ValueError, match="^champion.number: Field required$"):
        of(Traffic, {"champion": dict.fromkeys(("model", "digest", "training_date", "run_id", "source"), "1")})
