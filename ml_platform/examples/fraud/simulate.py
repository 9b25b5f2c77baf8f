# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""Simulated card transactions with three kinds of fraud.

Vectorised version of the simulator in Le Borgne, Siblini, Lebichot and Bontempi, "Reproducible Machine Learning for
Credit Card Fraud Detection: Practical Handbook" (2022), chapter 3: customers spend around their own mean at terminals
near them; terminals and cards are compromised for a while.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import date, timedelta
from typing import Literal, NamedTuple, get_args

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ml_platform.core.days import start_of

SECONDS_PER_DAY = 86_400
MAX_GENUINE_AMOUNT = 220.0
TERMINAL_COMPROMISED_DAYS = 28
CARD_COMPROMISED_DAYS = 14
CARD_FRAUD_SHARE = 1 / 3
CARD_FRAUD_FACTOR = 5.0


@dataclass(frozen=True)
class Population:
    """How many of everything. The radius follows, so that a customer has about 75 terminals in range at any size."""

    customers: int = 5_000
    terminals: int = 10_000
    compromised_terminals_per_day: float = 2.0
    compromised_cards_per_day: float = 3.0

    @classmethod
    def scaled(cls, customers: int) -> "Population":
        """The published population, everything scaled down alike, so that the fraud share stays near 0.8 %."""
        share = customers / 5_000
        return cls(customers, max(1, round(10_000 * share)), 2.0 * share, 3.0 * share)

    @property
    def radius(self) -> float:
        return 5.0 * np.sqrt(10_000 / self.terminals)


def simulate(population: Population, days: int, first_day: date, seed: int) -> pa.Table:
    """All transactions of `days` days, in time order. More days with the same seed leave the earlier ones as they are.

    Returns:
        One row per transaction: transaction_id (int64), tx_datetime (timestamp[us, UTC]), customer_id and terminal_id
        (int32), tx_amount (float64), tx_fraud and tx_fraud_scenario (int8; 0 genuine, 1 amount, 2 terminal, 3 card).
    """
    rng = np.random.default_rng([seed, 0])
    mean_amount = rng.uniform(5, 100, population.customers)
    rate = rng.uniform(0, 4, population.customers)
    usable, offsets = _terminals_in_range(population, rng)
    rate = np.where(np.diff(offsets) > 0, rate, 0.0)

    per_day = [_spend(np.random.default_rng([seed, 1, day]), rate, mean_amount, usable, offsets) for day in range(days)]
    day = np.repeat(np.arange(days), [len(rows.second) for rows in per_day])
    spent = Spending(*(np.concatenate(column) for column in zip(*per_day, strict=True)))
    amount, scenario = _commit_fraud(population, days, day, spent, seed)

    start = np.datetime64(start_of(first_day).replace(tzinfo=None), "us")
    seconds = (day * SECONDS_PER_DAY + spent.second).astype("timedelta64[s]")
    return pa.table(
        {
            "transaction_id": pa.array(np.arange(len(day)), pa.int64()),
            "tx_datetime": pa.array(start + seconds, pa.timestamp("us", tz="UTC")),
            "customer_id": pa.array(spent.customer, pa.int32()),
            "terminal_id": pa.array(spent.terminal, pa.int32()),
            "tx_amount": amount,
            "tx_fraud": pa.array(scenario > 0, pa.int8()),
            "tx_fraud_scenario": pa.array(scenario, pa.int8()),
        }
    )


class Spending(NamedTuple):
    """Genuine transactions as columns, in time order."""

    second: np.ndarray
    customer: np.ndarray
    terminal: np.ndarray
    amount: np.ndarray


def _spend(
    rng: np.random.Generator, rate: np.ndarray, mean_amount: np.ndarray, usable: np.ndarray, offsets: np.ndarray
) -> Spending:
    """One day's genuine transactions."""
    customer = np.repeat(np.arange(len(rate)), rng.poisson(rate))
    second = rng.normal(SECONDS_PER_DAY / 2, 20_000, len(customer)).astype(np.int64)
    amount = rng.normal(mean_amount[customer], mean_amount[customer] / 2)
    redrawn = rng.uniform(0, 2 * mean_amount[customer])
    amount = np.round(np.where(amount < 0, redrawn, amount), 2)
    choice = (rng.random(len(customer)) * np.diff(offsets)[customer]).astype(np.int64)
    terminal = usable[offsets[customer] + choice]
    order = np.argsort(second, kind="stable")
    order = order[(second[order] > 0) & (second[order] < SECONDS_PER_DAY)]
    return Spending(second[order], customer[order], terminal[order], amount[order])


def _terminals_in_range(population: Population, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Terminals that each customer can use: those of customer c are usable[offsets[c]:offsets[c + 1]]."""
    customers = rng.uniform(0, 100, (population.customers, 2))
    terminals = rng.uniform(0, 100, (population.terminals, 2))
    in_range = []
    for block in np.array_split(customers, max(1, population.customers // 500)):  # bounds memory
        squared = ((block[:, None, :] - terminals[None, :, :]) ** 2).sum(axis=2)
        in_range.extend(np.flatnonzero(row) for row in squared < population.radius**2)
    offsets = np.concatenate([[0], np.cumsum([len(found) for found in in_range])])
    return np.concatenate(in_range), offsets


def _commit_fraud(
    population: Population, days: int, day: np.ndarray, spent: Spending, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Amounts and scenarios after fraud; a later scenario overwrites an earlier one."""
    amount = spent.amount.copy()
    scenario = np.where(amount > MAX_GENUINE_AMOUNT, 1, 0)
    first_row = np.searchsorted(day, np.arange(days + 1))

    def rows_with(ids: np.ndarray, column: np.ndarray, on: int) -> np.ndarray:
        rows = slice(first_row[on], first_row[on + 1])
        return rows.start + np.flatnonzero(np.isin(column[rows], ids))

    for start in range(days):
        rng = np.random.default_rng([seed, 2, start])
        chosen = rng.choice(population.terminals, _whole(population.compromised_terminals_per_day, rng), replace=False)
        for on in range(start, min(start + TERMINAL_COMPROMISED_DAYS, days)):
            scenario[rows_with(chosen, spent.terminal, on)] = 2
    for start in range(days):
        rng = np.random.default_rng([seed, 3, start])
        chosen = rng.choice(population.customers, _whole(population.compromised_cards_per_day, rng), replace=False)
        for on in range(start, min(start + CARD_COMPROMISED_DAYS, days)):
            theirs = rows_with(chosen, spent.customer, on)
            taken = theirs[rng.random(len(theirs)) < CARD_FRAUD_SHARE]
            amount[taken] = np.round(amount[taken] * CARD_FRAUD_FACTOR, 2)
            scenario[taken] = 3
    return amount, scenario


def _whole(expected: float, rng: np.random.Generator) -> int:
    """A whole number with this expectation, so that small populations keep the fraud share of large ones."""
    return int(expected) + int(rng.random() < expected % 1)


# --- drift ------------------------------------------------------------------------------------------------------------

# Sudden, from one day on: people spend twice as much; amounts come in another unit; frauds are more frequent.
Drift = Literal["amounts", "unit", "labels"]
DRIFTS: tuple[Drift, ...] = get_args(Drift)
_FACTORS = {"amounts": 2.0, "unit": 0.01}
FRAUD_TIMES = 8  # as many frauds


def drifted(table: pa.Table, kind: Drift, since: date, seed: int) -> pa.Table:
    """Transactions of `simulate`, with those of `since` and later otherwise than before; none is added or taken away."""
    changed = pc.greater_equal(table["tx_datetime"], pa.scalar(start_of(since), table["tx_datetime"].type)).to_numpy()
    if kind != "labels":
        amount = table["tx_amount"].to_numpy()
        return _with(table, "tx_amount", np.where(changed, np.round(amount * _FACTORS[kind], 2), amount))
    # Label shift: another share of frauds, and each kind of row looks as it did. Frauds of a day take the place of others.
    days, fraud = table["tx_datetime"].to_numpy().astype("datetime64[D]"), table["tx_fraud"].to_numpy() == 1
    drawn = np.arange(len(days))
    for day in np.unique(days[changed]):
        rng = np.random.default_rng([seed, 4, int(day.astype(int))])
        frauds, others = np.flatnonzero((days == day) & fraud), np.flatnonzero((days == day) & ~fraud)
        count = min((FRAUD_TIMES - 1) * len(frauds), len(others))
        if count:
            drawn[rng.choice(others, count, replace=False)] = rng.choice(frauds, count)
    for name in ("customer_id", "terminal_id", "tx_amount", "tx_fraud", "tx_fraud_scenario"):
        table = _with(table, name, table[name].to_numpy()[drawn])
    return table


def _with(table: pa.Table, name: str, values: np.ndarray) -> pa.Table:
    position = table.schema.get_field_index(name)
    return table.set_column(position, name, pa.array(values, table.schema.field(name).type))


def daily_files(table: pa.Table, label_delay: timedelta) -> Iterator[tuple[str, date, pa.Table]]:
    """Split transactions with labels into what two producers would have landed when the table's last day is over.

    Yields (source, day, rows): every day of `transactions` without anything that only hindsight knows, and of
    `fraud_labels` those days that are `label_delay` old.
    """
    if table["tx_datetime"].type.tz is None:
        times = table["tx_datetime"].cast(pa.timestamp("us")).cast(pa.timestamp("us", tz="UTC"))
        table = table.set_column(table.schema.get_field_index("tx_datetime"), "tx_datetime", times)
    days = pc.cast(table["tx_datetime"], pa.date32())
    last: date = pc.max(days).as_py()
    transactions = table.select(["transaction_id", "tx_datetime", "customer_id", "terminal_id", "tx_amount"])
    labels = table.select(["transaction_id", "tx_datetime"]).append_column("is_fraud", table["tx_fraud"])
    for day in sorted(pc.unique(days).to_pylist()):
        of_day = pc.equal(days, pa.scalar(day, pa.date32()))
        yield "transactions", day, transactions.filter(of_day)
        if day + label_delay <= last:
            yield "fraud_labels", day, labels.filter(of_day)
