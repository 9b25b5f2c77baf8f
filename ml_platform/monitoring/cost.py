"""What trainings, and all that they rest on, have cost: the seconds of steps, times what their pods ask for, at the cluster's prices.

Every try counts, also those that failed. What several models rest on is shared by the versions that were trained meanwhile.
"""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass
from functools import cached_property

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.spec import PodSpec, PricesSpec, bytes_of
from ml_platform.core.spec.base import cpus_of
from ml_platform.monitoring.expected import explained_by
from ml_platform.monitoring.run_metrics import Ended

HOUR, GIB = 3_600.0, 2.0**30
NOBODY = "(nobody)"  # what no model of the project rests on
PARTITION = "dagster/partition"  # tag of a run
TRAINING = (
    "training_set",
    "trials",
    "candidate",
    "evaluation",
    "model_version",
    "deployment",
)  # stages of a training date


@dataclass(frozen=True)
class Spent:
    """One step of one run: the table that it was to make, its partition (empty: several), seconds of all tries, and money.

    `lost` is the part of the money that went into tries that came to nothing.
    """

    table: str
    partition: str
    seconds: float
    money: float
    lost: float

    @property
    def account(self) -> "Account":
        return Account(self.seconds, self.money, self.lost)


@dataclass(frozen=True)
class Account:
    """What one thing has cost: `own` steps, its part of what others share (`shared`), and of the model server (`serving`)."""

    seconds: float = 0.0
    own: float = 0.0
    lost: float = 0.0
    shared: float = 0.0
    serving: float = 0.0

    @property
    def total(self) -> float:
        return self.own + self.shared + self.serving

    def __add__(self, other: "Account") -> "Account":
        return Account(*(mine + its for mine, its in zip(astuple(self), astuple(other), strict=True)))

    def part(self, share: float) -> "Account":
        return Account(*(figure * share for figure in astuple(self)))


def hourly(pod: PodSpec, prices: PricesSpec) -> float:
    """What a pod costs an hour."""
    device = max((prices.gpu_types.get(one, prices.gpu) for one in pod.gpu_type), default=prices.gpu)
    whole = cpus_of(pod.cpu) * prices.cpu + bytes_of(pod.memory) / GIB * prices.memory + pod.gpu * device
    return whole * (prices.spot if pod.spot else 1.0)


@dataclass(frozen=True)
class Rates:
    """What an hour of each step costs. `pods` are those of a table's step, where it asks for some of its own.

    `tables` is everything that steps make, by which they are named; `others` is what any other step asks for.
    """

    tables: Collection[str]
    pods: Mapping[str, Sequence[PodSpec]]
    others: PodSpec
    prices: PricesSpec

    @cached_property
    def _named(self) -> dict[str, str]:
        return {table.replace("/", "__"): table for table in self.tables}

    def table(self, step: str) -> str:
        """The table that a step makes; its own name if it makes none."""
        return self._named.get(step.partition(".")[0], step)

    def hourly(self, step: str) -> float:
        # Of a search only the trials train; its first and its last step are like any other.
        is_small = "." in step and not step.endswith("__trial")
        pods = (self.others,) if is_small else self.pods.get(self.table(step), (self.others,))
        return sum(hourly(pod, self.prices) for pod in pods)


def spent(runs: Iterable[Ended], rates: Rates) -> list[Spent]:
    """What the steps of runs have cost, each by itself."""
    found: list[Spent] = []
    for run in runs:
        for step in run.steps:
            seconds, per_second = sum(step.tries), rates.hourly(step.name) / HOUR
            lost = sum(step.tries[:-1] if step.status == "SUCCESS" else step.tries)
            partition = run.tags.get(PARTITION, "")
            found.append(Spent(rates.table(step.name), partition, seconds, seconds * per_second, lost * per_second))
    return found


def versions(spent: Sequence[Spent], catalog: Catalog) -> dict[tuple[str, str], Account]:
    """What each training has cost, by model and training date, and what nobody rests on, by `NOBODY`. The sum is what was spent.

    What is shared (sources, feature views, the online store) is paid in equal parts by the trainings of the time that rest on
    it; by models in equal parts where none was trained, with the date ''. Daily work of a model has no training date either.
    """
    found: dict[tuple[str, str], Account] = defaultdict(Account)
    trained: dict[str, set[str]] = defaultdict(set)
    shared: dict[str, Account] = defaultdict(Account)
    for one in spent:
        model, _, stage = one.table.partition("/")
        if model not in catalog.models:
            shared[one.table] += one.account
            continue
        day = one.partition if stage in TRAINING else ""
        found[model, day] += one.account
        if stage == "candidate" and day and one.money > one.lost:
            trained[model].add(day)
    resting = _resting(catalog)
    for table, account in shared.items():
        models = [name for name in catalog.models if table in resting[name]]
        payers = [(name, day) for name in models for day in sorted(trained[name])] or [(name, "") for name in models]
        for payer in payers:
            found[payer] += Account(shared=account.own / len(payers))
        if not payers:
            found[NOBODY, ""] += account
    return dict(found)


def _resting(catalog: Catalog) -> dict[str, set[str]]:
    """The shared tables that each model rests on."""
    behind = explained_by(catalog)
    return {
        name: {*behind[keys.deployment(name)], *([keys.ONLINE_STORE] if catalog.snapshot_views(spec) else [])}
        for name, spec in catalog.models.items()
    }


def with_serving(
    accounts: Mapping[tuple[str, str], Account], answers: Mapping[str, int], money: float
) -> dict[tuple[str, str], Account]:
    """The same, with the model server's cost shared by the answers that it gave for each model."""
    found, total = defaultdict(Account, accounts), sum(answers.values())
    for model, count in answers.items():
        if count:
            found[model, ""] += Account(serving=money * count / total)
    if not total and money:
        found[NOBODY, ""] += Account(serving=money)
    return dict(found)
