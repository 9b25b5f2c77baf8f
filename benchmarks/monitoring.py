"""Monitoring on the simulator, with the built-in features and a model that is trained on them: how often it alarms where
nothing drifts, how soon where something does, and from which shift and sample size on a drift is found."""

import shutil
import tempfile
import time
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path

import numpy as np

from benchmarks.figure import Figure
from ml_platform.components.feature_view import compute_day
from ml_platform.components.monitoring import watch_day
from ml_platform.components.predictions import score_day
from ml_platform.core import keys
from ml_platform.core.catalog import Catalog, load_catalog
from ml_platform.core.days import day_range
from ml_platform.core.project import EXAMPLE, find_project
from ml_platform.core.settings import Settings
from ml_platform.core.spec import CandidateSpec
from ml_platform.examples.fraud.simulate import DRIFTS, Drift, Population, daily_files, drifted, simulate
from ml_platform.features.engine import Embedded
from ml_platform.monitoring.drift import Profile, drifts
from ml_platform.monitoring.report import MonitoringReport
from ml_platform.registry import bundle
from ml_platform.registry.candidate import train_candidate
from ml_platform.resources.assembly import assembled
from ml_platform.resources.lake import Lake
from ml_platform.resources.monitored import REPORT, Monitored
from ml_platform_tests.components.test_monitoring import Registered

MODEL, CUSTOMERS, FIRST, DELAY = "fraud_detection", 2_000, date(2018, 4, 1), timedelta(days=7)
TRAINED, LAST = FIRST + timedelta(days=57), FIRST + timedelta(days=99)
DRIFT_DAYS = 14
WORLDS = 2
CHECKS = (
    "features_have_not_drifted",
    "scores_have_not_drifted",
    "traffic_is_usual",
    "estimated_performance_holds",
    "labels_are_as_frequent",
    "realised_performance_holds",
)


def monitoring() -> Iterator[Figure]:
    catalog = load_catalog(find_project(EXAMPLE).defs)
    with tempfile.TemporaryDirectory() as folder:
        sound, seconds = list[MonitoringReport](), list[float]()
        worlds = [Settings(home=Path(folder) / f"world-{seed}") for seed in range(1, WORLDS + 1)]
        trained = [_trained(settings, catalog, seed) for seed, settings in enumerate(worlds, 1)]
        for settings, registry in zip(worlds, trained, strict=True):
            began = time.perf_counter()
            sound += _watched(settings, catalog, registry, TRAINED)
            seconds.append((time.perf_counter() - began) / ((LAST - TRAINED).days + 1))
        yield Figure("monitoring.a_day", float(np.median(seconds)), "s")
        yield Figure("monitoring.sound_days", float(len(sound)), "days")
        for check in CHECKS:
            yield Figure(f"monitoring.false_alarms.{check}", _days(sound, check), "days", 0.02 * len(sound))
            yield Figure(f"monitoring.not_enough_data.{check}", _days(sound, check, "not_enough_data"), "days")
        for kind in DRIFTS:
            reports = _with_drift(Path(folder), worlds[-1], catalog, trained[-1], kind, WORLDS)
            for check in CHECKS:
                yield Figure(f"monitoring.{kind}_drift.{check}", _days(reports, check), f"of {len(reports)} days")
    yield from _power()


def _days(reports: list[MonitoringReport], check: str, outcome: str = "alarm") -> float:
    return float(sum(report.checks[check][0] == outcome for report in reports))


def _trained(settings: Settings, catalog: Catalog, seed: int) -> Registered:
    """A world's raw days and features, and a model of them."""
    lake = Lake.at(settings)
    table = simulate(Population.scaled(CUSTOMERS), (LAST - FIRST).days + 1, FIRST, seed)
    for source, day, rows in daily_files(table, DELAY):
        lake.write_table(keys.raw(source), day, rows, [])
    _compute(lake, catalog, FIRST + timedelta(days=8), LAST)
    candidate = CandidateSpec(trainer="xgboost", params={"n_estimators": 200, "max_depth": 4})
    spec = catalog.models[MODEL].model_copy(update={"candidates": (candidate,)})
    made = assembled(lake, Embedded(), catalog, spec, TRAINED)
    lake.write_table(keys.training_set(MODEL), TRAINED, made.table, [])
    views = catalog.daily_views(spec), catalog.request_views(spec)
    source = catalog.sources[spec.entity_rows]
    trained = train_candidate(spec, TRAINED, source, *views, made.table, "", [], lambda *_: None)
    registry = Registered(trained.files)
    assert registry.version
    registry.version = type(registry.version)(MODEL, "1", registry.version.digest, TRAINED.isoformat(), "", "")
    return registry


def _compute(lake: Lake, catalog: Catalog, first: date, last: date) -> None:
    engine = Embedded()
    for view in catalog.snapshot_views(catalog.models[MODEL]):
        for day in day_range(first, last):
            compute_day(view, day, catalog, lake, engine)


def _watched(settings: Settings, catalog: Catalog, registry: Registered, first: date) -> list[MonitoringReport]:
    """The reports of the days from the first on."""
    lake, engine = Lake.at(settings), Embedded()
    assert registry.version
    model = bundle.unpack(registry.download(registry.version), "m", catalog.plugins)
    rows = Monitored(catalog.models[MODEL], catalog, lake, engine, registry)  # type: ignore[arg-type]  # a double
    for day in day_range(first, LAST):
        score_day(day, registry.version, model, catalog, lake, engine)
    found = []
    for day in day_range(first, LAST):
        watch_day(day, rows)
        found.append(MonitoringReport.from_json(lake.read_files(keys.monitoring(MODEL), day)[REPORT]))
    return found


def _with_drift(
    folder: Path, sound: Settings, catalog: Catalog, registry: Registered, kind: Drift, seed: int
) -> list[MonitoringReport]:
    """The reports of the last days, which drift."""
    settings = Settings(home=folder / kind)
    shutil.copytree(sound.home, settings.home)
    lake, since = Lake.at(settings), LAST - timedelta(days=DRIFT_DAYS - 1)
    table = simulate(Population.scaled(CUSTOMERS), (LAST - FIRST).days + 1, FIRST, seed)
    for source, day, rows in daily_files(drifted(table, kind, since, seed), DELAY):
        if day >= since:
            lake.write_table(keys.raw(source), day, rows, [])
    _compute(lake, catalog, since, LAST)
    return _watched(settings, catalog, registry, since)


def _power() -> Iterator[Figure]:
    """Of 5 columns one has moved by so many standard deviations: how often that is found, among 40 days."""
    random, columns, days = np.random.default_rng(1), 5, 40
    reference = [
        Profile.of(f"f{n}", random.normal(size=7 * 4_000), np.repeat(np.arange(7), 4_000)) for n in range(columns)
    ]
    for rows in (200, 1_000, 5_000):
        for moved in (0.0, 0.25, 0.5, 0.75, 1.0):
            found = 0
            for seed in range(days):
                day = {f"f{n}": random.normal(moved if n == 0 else 0.0, size=rows) for n in range(columns)}
                found += any(one.outcome == "alarm" for one in drifts(reference, day, 0.01, 0.2, 200, seed))
            yield Figure(f"monitoring.power.{rows}_rows.{moved:g}_sd", found / days, "of the days")
