"""What was spent, by what Dagster tells of runs, the model files ask for, and the model server has answered."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from ml_platform.core import keys
from ml_platform.core.catalog import Catalog
from ml_platform.core.errors import SettingsError
from ml_platform.core.spec import ModelSpec, PodSpec, PricesSpec
from ml_platform.monitoring import cost
from ml_platform.monitoring.cost import HOUR, Account, Rates, Spent
from ml_platform.resources.cluster import BYTES, requested
from ml_platform.resources.dagster_api import DagsterApi
from ml_platform.resources.dagster_history import ended_runs
from ml_platform.resources.lake import Lake
from ml_platform.resources.prediction_log import rows_answered

_OF_A_MODEL = (
    keys.training_set,
    keys.trials,
    keys.candidate,
    keys.evaluation,
    keys.model_version,
    keys.deployment,
    keys.predictions,
    keys.monitoring,
)


def prices_of(catalog: Catalog) -> PricesSpec:
    """
    Raises:
        SettingsError: if the project says none.
    """
    if catalog.cluster.prices is None:
        example = "prices: {currency: EUR, cpu: 0.04, memory: 0.005, gpu: 2.5} in ml_platform.components.Cluster"
        raise SettingsError("cluster", "says no prices, so that nobody knows what anything costs", example)
    return catalog.cluster.prices


def rates(catalog: Catalog, lake: Lake, prices: PricesSpec) -> Rates:
    """By what the files ask for now; a training by the size of its newest training set."""
    pods: dict[str, Sequence[PodSpec]] = {}
    for name, source in catalog.ingested.items():
        pods |= _own(keys.raw(name), source.resources)
    for view in catalog.daily_views():
        pods |= _own(keys.feature_view(view.name), view.resources)
    for name, model in catalog.models.items():
        for noun in (keys.training_set, keys.evaluation, keys.predictions, keys.monitoring):
            pods |= _own(noun(name), model.batch_resources)
        pods |= dict.fromkeys(
            (keys.trials(name), keys.candidate(name)), requested(model.resources, _bytes(model, lake))
        )
    tables = [
        *map(keys.raw, catalog.ingested),
        *(keys.feature_view(view.name) for view in catalog.daily_views()),
    ]
    tables += [keys.ONLINE_STORE, *(noun(name) for name in catalog.models for noun in _OF_A_MODEL)]
    return Rates(frozenset(tables), pods, catalog.cluster.steps, prices)


def spending(catalog: Catalog, lake: Lake, api: DagsterApi, since: datetime) -> list[Spent]:
    """What the steps of runs that ended since then have cost.

    Raises:
        StackError: if Dagster does not answer.
    """
    return cost.spent(ended_runs(api, since.timestamp()), rates(catalog, lake, prices_of(catalog)))


def accounts(
    catalog: Catalog, lake: Lake, spent: Sequence[Spent], since: datetime, now: datetime
) -> dict[tuple[str, str], Account]:
    """The same by model and training date, with each model's part of the model server."""
    answers = {name: rows_answered(lake, name, since, now) for name in catalog.models}
    hours = (now.astimezone(UTC) - since).total_seconds() / HOUR
    return cost.with_serving(cost.versions(spent, catalog), answers, prices_of(catalog).model_server * hours)


def _own(table: str, pod: PodSpec | None) -> Mapping[str, Sequence[PodSpec]]:
    return {} if pod is None else {table: (pod,)}


def _bytes(model: ModelSpec, lake: Lake) -> int:
    if not model.resources.sizes:
        return 0
    newest = max(lake.days(keys.training_set(model.name)), default=None)
    manifest = lake.manifest(keys.training_set(model.name), newest) if newest else None
    return int(manifest.tags.get(BYTES, 0)) if manifest else 0
