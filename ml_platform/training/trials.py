"""Trials of a search: which point of the space comes next, when one is hopeless, and which is the best.

A search has no process of its own. Each trial reads what became of the others and asks for its own point; the same records,
the same point. Points come from Optuna: random (Bergstra and Bengio 2012, https://www.jmlr.org/papers/v13/bergstra12a.html)
or by the tree-structured Parzen estimator (Bergstra et al. 2011, "Algorithms for Hyper-Parameter Optimization").
"""

import itertools
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal
from zlib import crc32

from pydantic import BaseModel, ConfigDict

from ml_platform.core.errors import TrainingError
from ml_platform.core.spec import RangeSpec, SearchSpec
from ml_platform.core.spec.search import values_of

if TYPE_CHECKING:
    from optuna import Study, Trial
    from optuna.distributions import BaseDistribution

STARTUP = 8  # points that TPE draws at random before it has an opinion
JUDGED_AGAINST = 4  # complete trials that there must be before one is pruned
FIRST_JUDGED = 2  # the first epoch that a trial is judged by
REFRESH_SECONDS = 2.0  # how long the records of the others are believed
LOSS = "validation_loss"  # the figure by which trials are pruned: what every built-in trainer reports
MENTIONED = 5  # failed trials whose errors a message has
TRIES = 20  # to draw a point that no other trial has

Point = dict[str, Any]


class Record(BaseModel):
    """What became of one trial. `run` is the Dagster run that fitted it.

    `cost` is what the search makes small: the metric that selects, or its negative. `losses` are validation losses by epoch
    (or round). A trial that is running and has an error is about to be tried again.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)
    trial: str
    params: Point
    status: Literal["running", "complete", "pruned", "failed"] = "running"
    cost: float | None = None
    metrics: dict[str, float] = {}
    losses: dict[int, float] = {}
    error: str = ""
    seconds: float = 0.0
    run: str = ""
    tracking_run: str = ""

    @property
    def done(self) -> bool:
        """Whether there is nothing to be gained by fitting it again."""
        return self.status in ("complete", "pruned")


class Outcome(BaseModel):
    """A search that is over: of which candidate, as its file said then, on which training set, and the best trial."""

    model_config = ConfigDict(extra="forbid", frozen=True)
    fingerprint: str
    training_set: str
    candidate: dict[str, Any]
    winner: str
    records: tuple[Record, ...]

    @property
    def best(self) -> Record:
        return next(record for record in self.records if record.trial == self.winner)


class Pruned(Exception):  # noqa: N818  # no error: the trial has done its part
    pass


# --- points -----------------------------------------------------------------------------------------------------------


def grid(search: SearchSpec) -> list[Point]:
    """Every point of the space, the last param changing fastest."""
    domains = [values_of(domain) or [] for domain in search.space.values()]
    return [dict(zip(search.space, values, strict=True)) for values in itertools.product(*domains)]


def propose(search: SearchSpec, seed: int, number: int, others: Sequence[Record]) -> Point:
    """The point of trial `number` (from 0), given the records of the others.

    Those that are still running count: TPE takes their points for bad ones, so that trials at the same time spread.
    """
    if search.how == "grid":
        return grid(search)[number]
    study, taken = _study(search, crc32(f"{seed} {number}".encode()), others), [record.params for record in others]
    point: Point = {}
    for _ in range(TRIES):
        asked = study.ask(_distributions(search)).params
        point = {name: _value(domain, asked[name]) for name, domain in search.space.items()}
        if point not in taken:
            break
    return point


def _study(search: SearchSpec, seed: int, others: Sequence[Record]) -> "Study":
    """An Optuna study, in memory, that knows the other trials."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = (
        optuna.samplers.RandomSampler(seed=seed)
        if search.how != "tpe"
        else optuna.samplers.TPESampler(seed=seed, n_startup_trials=STARTUP, constant_liar=True)
    )
    pruner = optuna.pruners.MedianPruner(n_startup_trials=JUDGED_AGAINST, n_warmup_steps=FIRST_JUDGED)
    study = optuna.create_study(direction="minimize", sampler=sampler, pruner=pruner)
    states = {
        "running": optuna.trial.TrialState.RUNNING,
        "complete": optuna.trial.TrialState.COMPLETE,
        "pruned": optuna.trial.TrialState.PRUNED,
        "failed": optuna.trial.TrialState.FAIL,
    }
    for record in sorted(others, key=lambda one: one.trial):
        study.add_trial(
            optuna.trial.create_trial(
                state=states[record.status],
                value=record.cost if record.status == "complete" else None,
                params={name: _asked(domain, record.params[name]) for name, domain in search.space.items()},
                distributions=_distributions(search),
                intermediate_values=record.losses,
            )
        )
    return study


def _distributions(search: SearchSpec) -> "dict[str, BaseDistribution]":
    """The space as Optuna knows it. Of a list it gets the positions: values may be lists themselves."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    found: dict[str, BaseDistribution] = {}
    for name, domain in search.space.items():
        if isinstance(domain, tuple):
            found[name] = CategoricalDistribution(range(len(domain)))
            continue
        (low, high), log = domain.ends, domain.log is not None
        if domain.whole:
            found[name] = IntDistribution(int(low), int(high), log=log, step=int(domain.step or 1))
        else:
            found[name] = FloatDistribution(low, high, log=log, step=domain.step)
    return found


def _value(domain: tuple[Any, ...] | RangeSpec, asked: Any) -> Any:
    return domain[asked] if isinstance(domain, tuple) else asked


def _asked(domain: tuple[Any, ...] | RangeSpec, value: Any) -> Any:
    return domain.index(value) if isinstance(domain, tuple) else value


# --- pruning ----------------------------------------------------------------------------------------------------------


class Pruning:
    """Hears a trial's figures, and raises `Pruned` once its best loss so far is worse than the median of the complete ones
    at the same epoch (Golovin et al. 2017, "Google Vizier", median stopping rule).

    `others` reads the records of the other trials, which is done again every now and then: they run at the same time.
    """

    def __init__(
        self,
        search: SearchSpec,
        others: Callable[[], Sequence[Record]],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.search = search
        self.others = others
        self.clock = clock
        self.losses: dict[int, float] = {}
        self._trial: Trial | None = None
        self._read_at = 0.0

    def hear(self, epoch: int, figures: Mapping[str, float]) -> None:
        if LOSS not in figures:
            return
        self.losses[epoch] = figures[LOSS]
        if not self.search.prune:
            return
        trial, heard = self._trial, {epoch: figures[LOSS]}
        if trial is None or self.clock() - self._read_at >= REFRESH_SECONDS:
            trial, heard = _study(self.search, 0, self.others()).ask(), self.losses
            self._trial, self._read_at = trial, self.clock()
        for step, loss in heard.items():
            trial.report(loss, step)
        if trial.should_prune():
            raise Pruned(f"worse in epoch {epoch} than the median of the trials before it")


# --- the result -------------------------------------------------------------------------------------------------------


def best_of(subject: str, search: SearchSpec, records: Sequence[Record]) -> Record:
    """The best trial, the first of equals.

    Raises:
        TrainingError: naming reasons, if more trials failed than `max_failed_share` allows, or if none is complete.
    """
    failed = [record for record in records if record.status == "failed"]
    if len(failed) > search.max_failed_share * len(records):
        reasons = "; ".join(f"{record.trial} {record.params}: {record.error}" for record in failed[:MENTIONED])
        problem = f"{len(failed)} of {len(records)} trials failed (at most {search.max_failed_share:.0%}): {reasons}"
        raise TrainingError(subject, problem, "mend candidates.search, or raise its max_failed_share")
    complete = [(record.cost, record.trial, record) for record in records if record.cost is not None]
    if not complete:
        raise TrainingError(subject, f"none of {len(records)} trials is complete", "materialize it again")
    return min(complete, key=lambda one: one[:2])[2]
