"""What was spent is attributed, all of it and once; a pod costs what it asks for."""

from collections import defaultdict
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import PodSpec, PricesSpec, ResourcesSpec
from ml_platform.monitoring.cost import HOUR, NOBODY, Account, Rates, Spent, hourly, spent, versions, with_serving
from ml_platform.monitoring.run_metrics import Ended, Step
from ml_platform.resources.cluster import requested
from ml_platform_tests.selection import examples

PRICES = PricesSpec(cpu=0.04, memory=0.005, gpu=2.0, gpu_types={"h100": 3.0, "a100": 1.5}, spot=0.25)
MODEL = "fraud_detection"
SHARED = (keys.raw("transactions"), keys.raw("fraud_labels"), keys.feature_view("customer_activity"), keys.ONLINE_STORE)
OWN = (keys.training_set(MODEL), keys.candidate(MODEL), keys.monitoring(MODEL), keys.raw("of_nobody"))
DAYS = ("2018-05-31", "2018-06-07", "")


@pytest.mark.parametrize(
    ("pod", "price"),
    [
        (PodSpec(cpu="500m", memory="4Gi"), 0.5 * 0.04 + 4 * 0.005),
        (PodSpec(cpu="2", memory="512Mi", gpu=2), 2 * 0.04 + 0.5 * 0.005 + 2 * 2.0),
        (PodSpec(cpu="1", memory="1Gi", gpu=1, gpu_type=("a100", "h100")), 0.045 + 3.0),
        (PodSpec(cpu="1", memory="1Gi", spot=True), 0.045 * 0.25),
    ],
    ids=["cpu", "gpu", "the dearest of two types", "spot"],
)
def test_pod_costs_what_it_asks_for(pod: PodSpec, price: float) -> None:
    assert hourly(pod, PRICES) == pytest.approx(price)


def test_training_by_pods_of_its_own_costs_these_and_the_step_that_watches_them() -> None:
    sizes = [{"up_to": "1Gi", "nodes": 2, "cpu": "4"}, {"nodes": 8, "cpu": "16"}]
    resources = ResourcesSpec.model_validate({"cpu": "1", "memory": "2Gi", "gpu": 1, "sizes": sizes})
    pods = requested(resources, 1 << 20)
    assert [(pod.cpu, pod.gpu) for pod in pods] == [("1", 0), ("4", 1), ("4", 1)]
    assert len(requested(resources, 1 << 40)) == 9
    assert requested(ResourcesSpec()) == [ResourcesSpec()]


def run(step: Step, day: str = "2018-05-31") -> Ended:
    return Ended("r", MODEL, "SUCCESS", 0.0, 0.0, 1.0, 1.0, {"dagster/partition": day}, (step,))


RATES = Rates(
    (keys.candidate(MODEL), keys.trials(MODEL)),
    dict.fromkeys((keys.candidate(MODEL), keys.trials(MODEL)), (PodSpec(cpu="10", memory="1Gi"),)),
    PodSpec(cpu="1", memory="1Gi"),
    PricesSpec(cpu=1.0),
)


def test_all_tries_are_paid_and_those_that_came_to_nothing_are_lost() -> None:
    tried = Step(f"{MODEL}__candidate", "SUCCESS", 40.0, (HOUR, 2 * HOUR))
    failed = replace(tried, status="FAILURE")
    assert spent([run(tried)], RATES) == [Spent(keys.candidate(MODEL), "2018-05-31", 3 * HOUR, 30.0, 10.0)]
    assert spent([run(failed)], RATES)[0].lost == 30.0


@pytest.mark.parametrize(
    ("step", "money"), [("start", 1.0), ("trial", 10.0), ("choose", 1.0)], ids=["start", "trial", "choose"]
)
def test_of_a_search_the_trials_get_what_a_training_gets(step: str, money: float) -> None:
    (found,) = spent([run(Step(f"{MODEL}__trials.{MODEL}__{step}", "SUCCESS", 1.0, (HOUR,)))], RATES)
    assert (found.table, found.money) == (keys.trials(MODEL), money)


items = st.builds(
    Spent, st.sampled_from([*SHARED, *OWN]), st.sampled_from(DAYS), st.floats(0, 1e5), st.floats(0, 1e3), st.just(0.0)
)


@examples(200)
@given(history=st.lists(items, max_size=30), answers=st.integers(0, 1000), server=st.floats(0, 100))
def test_what_is_attributed_is_what_was_spent(
    catalog: Catalog, history: list[Spent], answers: int, server: float
) -> None:
    accounts = with_serving(versions(history, catalog), {MODEL: answers}, server)
    assert sum(one.total for one in accounts.values()) == pytest.approx(sum(one.money for one in history) + server)
    assert all(figure >= 0 for one in accounts.values() for figure in vars(one).values())


def test_what_is_shared_is_paid_in_equal_parts_by_the_trainings_that_rest_on_it(catalog: Catalog) -> None:
    other = catalog.models[MODEL].model_copy(update={"name": "other"})
    both = replace(catalog, models={**catalog.models, "other": other})
    trained = [(keys.candidate(MODEL), DAYS[0]), (keys.candidate(MODEL), DAYS[1]), (keys.candidate("other"), DAYS[0])]
    history = [
        Spent(keys.raw("transactions"), "2018-05-01", HOUR, 9.0, 0.0),
        Spent(keys.raw("of_nobody"), "", HOUR, 5.0, 1.0),
    ]
    history += [Spent(key, day, HOUR, 2.0, 0.5) for key, day in trained]
    history += [Spent(keys.candidate("other"), DAYS[1], HOUR, 2.0, 2.0)]  # it failed: nothing rests on anything
    accounts = versions(history, both)
    shared: dict[str, float] = defaultdict(float)
    for (model, _), account in accounts.items():
        shared[model] += account.shared
    assert shared == {MODEL: 6.0, "other": 3.0, NOBODY: 0.0}
    assert accounts["other", DAYS[1]] == Account(HOUR, 2.0, 2.0)
    assert accounts[NOBODY, ""] == Account(HOUR, 5.0, 1.0)
