"""Laws of a search: which point comes next, which trial is hopeless, which is the best."""

from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core import keys
from ml_platform.core.errors import TrainingError
from ml_platform.core.spec import RangeSpec, SearchSpec, TrainingSpec
from ml_platform.training import trials
from ml_platform.training.training_set import SPLIT, search_part
from ml_platform.training.trials import Pruned, Pruning, Record, best_of, grid, propose
from ml_platform.training.windows import search_windows, windows

DAY = date(2018, 6, 1)


def record(number: int, cost: float | None = None, **fields: Any) -> Record:
    status = fields.pop("status", "running" if cost is None else "complete")
    return Record(trial=keys.trial(1, number), status=status, cost=cost, **{"params": {}, **fields})


def searched(search: SearchSpec, cost: Any, count: int, seed: int = 7) -> list[Record]:
    """The records of `count` trials, one after the other."""
    records: list[Record] = []
    for number in range(count):
        point = propose(search, seed, number, records)
        records.append(record(number, cost(point), params=point))
    return records


LR = SearchSpec.model_validate({"lr": {"log": [1e-4, 1.0]}, "width": {"range": [4, 64], "step": 4}, "trials": 40})

domains = st.one_of(
    st.lists(st.one_of(st.integers(), st.floats(allow_nan=False), st.text(max_size=3), st.lists(st.integers(1, 9))), min_size=1, max_size=4, unique_by=repr),
    st.tuples(st.integers(1, 50), st.integers(51, 99)).map(lambda ends: {"range": list(ends)}),
    st.tuples(st.floats(-9, 0), st.floats(0.1, 9)).map(lambda ends: {"range": list(ends)}),
    st.tuples(st.floats(1e-6, 1), st.floats(2, 9)).map(lambda ends: {"log": list(ends)}),
)  # fmt: skip


@given(
    st.dictionaries(st.sampled_from("abc"), domains, min_size=1), st.sampled_from(["random", "tpe"]), st.integers(0, 99)
)
def test_points_lie_in_the_space_and_follow_from_the_records(space: dict[str, Any], method: Any, seed: int) -> None:
    search = SearchSpec.model_validate({"method": method, "space": space})
    records = searched(search, lambda _: 1.0, min(3, search.points or 3), seed)
    again = [propose(search, seed, number, records[:number]) for number in range(len(records))]
    assert again == [one.params for one in records]
    for point in again:
        assert list(point) == list(space)
        for name, domain in search.space.items():
            if isinstance(domain, RangeSpec):
                low, high = domain.ends
                assert low <= point[name] <= high
                assert isinstance(point[name], int) or not domain.whole
            else:
                assert point[name] in domain


def test_records_count_in_any_order() -> None:
    records = searched(LR, lambda point: point["lr"], 12)
    assert propose(LR, 7, 12, records) == propose(LR, 7, 12, records[::-1])


def test_trials_at_the_same_time_and_with_other_seeds_have_other_points() -> None:
    records = searched(LR, lambda point: point["lr"], 12)
    points = [propose(LR, seed, number, records) for seed in (1, 2) for number in (12, 13, 14)]
    assert len({point["lr"] for point in points}) == 6


def test_grid_has_every_point_once() -> None:
    search = SearchSpec.model_validate({"a": [1, 2], "b": [[1], [2, 3]], "c": [None, "x"]})
    points = [propose(search, 7, number, []) for number in range(search.count)]
    assert points == grid(search)
    assert len({str(point) for point in points}) == 8


def test_few_points_are_not_drawn_twice() -> None:
    for method in ("random", "tpe"):
        search = SearchSpec.model_validate({"method": method, "a": [1, 2, 3], "b": [1, 2]})
        drawn = searched(search, lambda point: point["a"], 6)
        assert len({str(one.params) for one in drawn}) == 6


def test_tpe_comes_closer_than_chance() -> None:
    def cost(point: dict[str, Any]) -> float:
        return float(abs(np.log10(point["lr"]) + 2) + abs(point["width"] - 32) / 32)

    chance = LR.model_copy(update={"method": "random"})
    found = {
        one.how: np.mean([min(r.cost or 0 for r in searched(one, cost, 40, seed)) for seed in range(4)])
        for one in (LR, chance)
    }
    assert found["tpe"] < found["random"]


def test_what_failed_teaches_tpe_nothing() -> None:
    records = searched(LR, lambda point: point["lr"], 12)
    failed = [record(20 + n, status="failed", params={"lr": 0.5, "width": 8}) for n in range(5)]
    assert propose(LR, 7, 40, [*records, *failed]) == propose(LR, 7, 40, records)


# --- pruning ----------------------------------------------------------------------------------------------------------


def complete(count: int, loss: float = 1.0) -> list[Record]:
    losses = {epoch: loss / epoch for epoch in range(1, 10)}
    return [record(n, 0.5, params={"lr": 0.1, "width": 8}, losses=losses) for n in range(count)]


def epochs_until_pruned(loss: float, others: Sequence[Record], search: SearchSpec = LR) -> int | None:
    pruning = Pruning(search, lambda: others)
    for epoch in range(1, 10):
        try:
            pruning.hear(epoch, {"validation_loss": loss / epoch})
        except Pruned:
            return epoch
    return None


def test_trial_worse_than_the_median_is_pruned_but_not_by_its_first_epoch() -> None:
    assert epochs_until_pruned(1.5, complete(trials.JUDGED_AGAINST)) == trials.FIRST_JUDGED
    assert epochs_until_pruned(0.9, complete(trials.JUDGED_AGAINST)) is None


def test_nothing_is_pruned_against_few_trials_or_where_nobody_wants_it() -> None:
    assert epochs_until_pruned(1.5, complete(trials.JUDGED_AGAINST - 1)) is None
    assert epochs_until_pruned(1.5, complete(9), LR.model_copy(update={"prune": False})) is None


def test_figures_without_a_loss_prune_nothing() -> None:
    Pruning(LR, lambda: complete(9)).hear(5, {"train_loss": 99.0})


def test_others_that_end_meanwhile_count_and_are_not_read_at_every_epoch() -> None:
    now, reads = [0.0], []

    def others() -> list[Record]:
        reads.append(now[0])
        return complete(0 if now[0] < trials.REFRESH_SECONDS else 9)

    pruning = Pruning(LR, others, lambda: now[0])
    for epoch in range(1, 5):
        pruning.hear(epoch, {"validation_loss": 1.5 / epoch})
    assert reads == [0.0]
    now[0] = trials.REFRESH_SECONDS
    with pytest.raises(Pruned, match="epoch 5"):
        pruning.hear(5, {"validation_loss": 1.5 / 5})


# --- the result -------------------------------------------------------------------------------------------------------


@given(st.lists(st.floats(-9, 9), min_size=1, max_size=9), st.integers(0, 3))
def test_least_cost_wins_and_the_first_of_equals(costs: list[float], pruned: int) -> None:
    records = [record(n, cost) for n, cost in enumerate(costs)]
    extra = [record(50 + n, status="pruned", losses={3: -99.0}) for n in range(pruned)]
    assert best_of("m/trials", LR, [*extra, *records]).trial == keys.trial(1, costs.index(min(costs)))


@pytest.mark.parametrize(("failed", "allowed"), [(0, True), (5, True), (6, False), (20, False)])
def test_a_share_of_the_trials_may_fail(failed: int, allowed: bool) -> None:
    records = [record(n, status="failed", error=f"reason {n}") for n in range(failed)]
    records += [record(n, 1.0) for n in range(failed, 20)]
    if allowed:
        assert best_of("m/trials", LR, records).status == "complete"
    else:
        with pytest.raises(TrainingError, match=rf"{failed} of 20 trials failed \(at most 25%\).*reason 0.*reason 4"):
            best_of("m/trials", LR, records)


def test_pruned_trials_alone_have_no_winner() -> None:
    with pytest.raises(TrainingError, match="none of 2 trials is complete"):
        best_of("m/trials", LR, [record(n, status="pruned") for n in range(2)])


# --- rows -------------------------------------------------------------------------------------------------------------


@given(st.integers(2, 60), st.integers(1, 30), st.integers(0, 20), st.integers(0, 14))
def test_trials_never_see_the_validation_days_nor_a_day_twice(window: int, days: int, embargo: int, delay: int) -> None:
    training = TrainingSpec(window_days=window, validation_days=min(days, window - 1), embargo_days=embargo)
    whole, inner = windows(training, delay, DAY), search_windows(training, delay, DAY)
    assert (inner.train[0], inner.validation[1]) == whole.train
    assert inner.train[0] <= inner.train[1] < inner.validation[0] <= inner.validation[1]
    assert (inner.validation[1] - inner.validation[0]).days + 1 == training.validation_days
    gap = (inner.validation[0] - inner.train[1]).days - 1
    fitted = (inner.train[1] - inner.train[0]).days + 1
    assert gap == embargo or (gap < embargo and fitted * 2 <= window + 1)


def test_rows_between_fit_and_score_are_left_out() -> None:
    training = TrainingSpec(window_days=20, validation_days=4, embargo_days=3)
    whole, inner = windows(training, 7, DAY), search_windows(training, 7, DAY)
    times = [datetime(day.year, day.month, day.day, hour, tzinfo=UTC) for day in whole.days for hour in (0, 23)]
    table = pa.table({"at": pa.array(times, pa.timestamp("us", tz="UTC")), SPLIT: ["train"] * len(times)})
    found = search_part(table, "at", inner)
    by_split = {name: {t.date() for t, s in zip(*found.to_pydict().values(), strict=True) if s == name} for name in ("train", "validation")}  # fmt: skip
    assert by_split["train"] == {inner.train[0] + timedelta(days=n) for n in range(13)}
    assert by_split["validation"] == {inner.validation[0] + timedelta(days=n) for n in range(4)}
    assert found.num_rows == 2 * 17
