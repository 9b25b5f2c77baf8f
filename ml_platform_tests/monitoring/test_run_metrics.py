"""Counters are a fold over runs: given once or often, at once or in portions, over restarts, they say the same."""

from hypothesis import given
from hypothesis import strategies as st

from ml_platform.monitoring.run_metrics import BUCKETS, NAMES, OTHER, Ended, RunTotals, Step
from ml_platform_tests.selection import examples

times = st.floats(1, 5_000)
runs = st.builds(
    Ended,
    st.uuids().map(str),
    st.sampled_from(["transactions", "fraud", "several"]),
    st.sampled_from(["SUCCESS", "FAILURE", "CANCELED"]),
    times,
    times | st.none(),
    times | st.none(),
    times,
    st.sampled_from([{}, {"ml_platform/try": "2"}]),
    st.lists(
        st.builds(
            Step,
            st.sampled_from(["a", "b"]),
            st.sampled_from(["SUCCESS", "FAILURE"]),
            times | st.none(),
            st.tuples(times),
        ),
        max_size=3,
    ).map(tuple),
)


def counted(totals: RunTotals) -> tuple[object, ...]:
    return (
        totals.runs,
        totals.retries,
        totals.steps,
        totals.queued.counts,
        {n: h.counts for n, h in totals.seconds.items()},
    )


@examples(100)
@given(st.lists(runs, max_size=20), st.integers(1, 5))
def test_every_run_counts_once_over_restarts(history: list[Ended], portion: int) -> None:
    at_once = RunTotals()
    at_once.add(history)
    by_portions = RunTotals()
    history = sorted(history, key=lambda run: run.updated)
    for first in range(0, len(history), portion):
        # Runs of the overlap are given again, as a look after a restart does.
        seen = [run for run in history[: first + portion] if run.updated > by_portions.since]
        by_portions.add(seen)
        by_portions = RunTotals.from_json(by_portions.to_json())
    assert counted(by_portions) == counted(at_once)
    assert sum(at_once.runs.values()) == len(history)


def test_histogram_is_cumulative_and_ends_with_all() -> None:
    totals = RunTotals()
    totals.add(
        [
            Ended(str(n), "x", "SUCCESS", 0.0, 10.0, 10.0 + seconds, 20.0)
            for n, seconds in enumerate((0.5, 1.0, 400.0, 1e6))
        ]
    )
    found = dict(totals.seconds["x"].cumulative())
    assert (found["1.0"], found["300.0"], found["900.0"], found["+Inf"]) == (2, 2, 3, 4)
    assert len(found) == len(BUCKETS) + 1


def test_names_are_bounded() -> None:
    totals = RunTotals()
    totals.add([Ended(str(n), f"m{n}", "SUCCESS", 0.0, None, None, 1.0) for n in range(NAMES + 10)])
    assert len(totals.seconds) == NAMES + 1
    assert totals.runs[f"{OTHER} SUCCESS"] == 10
