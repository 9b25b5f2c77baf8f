# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The feature views of the fraud model: what a card and a terminal have been doing.

The selection of windows and the delayed fraud share of a terminal follow chapter 3 of Le Borgne et al., "Reproducible
Machine Learning for Credit Card Fraud Detection: Practical Handbook" (2022), as daily snapshots.
"""

import ibis
import ibis.expr.types as ir

from ml_platform.features.views import MOMENT, ViewInput

WINDOWS = (1, 7, 30)
LARGE = 3.0  # times what the customer usually spends
LAST_LABELS = 5


def customer_activity(transactions: ViewInput) -> ir.Table:
    """Per customer: how often, how much and how recently, over the last 1, 7 and 30 days; and how often unusually much."""
    rows = transactions.table
    median = rows.group_by("customer_id").agg(customer_median_amount_30d=rows.tx_amount.median())
    rows = rows.left_join(median, "customer_id").drop("customer_id_right")
    amount, time = rows.tx_amount, rows[transactions.event_time]
    large = amount > LARGE * rows.customer_median_amount_30d
    return rows.group_by("customer_id").agg(
        **{f"customer_transactions_{d}d": transactions.since(d, rows).sum() for d in WINDOWS},
        **{f"customer_mean_amount_{d}d": amount.mean(where=transactions.since(d, rows)) for d in WINDOWS},
        customer_median_amount_30d=rows.customer_median_amount_30d.max(),
        customer_std_amount_30d=amount.std(how="pop"),
        customer_max_amount_7d=amount.max(where=transactions.since(7, rows)),
        customer_last_amount=amount.argmax(time),
        customer_days_since_last=transactions.days_since(time.max()),
        **{f"customer_large_amounts_{d}d": (large & transactions.since(d, rows)).sum() for d in (3, 7, 14)},
        customer_days_since_large=transactions.days_since(time.max(where=large)),
    )


def terminal_risk(transactions: ViewInput, fraud_labels: ViewInput) -> ir.Table:
    """Per terminal: traffic over the last days, and frauds over the last days whose labels are known.

    A run are the frauds since the newest known genuine transaction: a compromised terminal has nothing else.
    """
    rows = transactions.table
    traffic = rows.group_by("terminal_id").agg(
        **{f"terminal_transactions_{d}d": transactions.since(d).sum() for d in WINDOWS},
        terminal_mean_amount_30d=rows.tx_amount.mean(where=transactions.since(30)),
    )
    labelled = rows.inner_join(fraud_labels.table.select("transaction_id", "is_fraud"), "transaction_id")
    newest_first = ibis.window(group_by="terminal_id", order_by=[ibis.desc(transactions.event_time), "transaction_id"])
    genuine_at = labelled[transactions.event_time].max(where=labelled.is_fraud == 0)
    labelled = labelled.mutate(
        position=ibis.row_number().over(newest_first), genuine_at=genuine_at.over(group_by="terminal_id")
    )
    time, is_fraud, share = labelled[transactions.event_time], labelled.is_fraud == 1, labelled.is_fraud.cast("float64")
    in_run = is_fraud & ((time > labelled.genuine_at) | labelled.genuine_at.isnull())
    risk = labelled.group_by("terminal_id").agg(
        **{f"terminal_fraud_share_{d}d": share.mean(where=fraud_labels.since(d, labelled)) for d in WINDOWS},
        terminal_frauds_30d=is_fraud.sum(),
        terminal_last_labels_fraud_share=share.mean(where=labelled.position < LAST_LABELS),
        terminal_days_since_fraud=transactions.days_since(time.max(where=is_fraud)),
        terminal_fraud_run=in_run.sum(),
        terminal_fraud_run_days=transactions.days_since(time.min(where=in_run)),
    )
    return traffic.left_join(risk, "terminal_id").drop("terminal_id_right")


def customer_bursts(transactions: ViewInput) -> ir.Table:
    """Per transaction at t: what its customer did before t, and within how short a time.

    Strictly before: what is compared with the transaction's own amount must not have it.
    """
    rows = transactions.table
    before = {days: transactions.window(days, "customer_id", strictly_before=True) for days in (1, 3, 7, 14, 30)}
    amount = rows.tx_amount
    rows = rows.mutate(
        customer_before_mean_30d=amount.mean().over(before[30]),
        customer_before_std_30d=amount.std(how="pop").over(before[30]),
        customer_before_max_7d=amount.max().over(before[7]),
        customer_before_transactions_1d=rows.count().over(before[1]),
        customer_before_transactions_7d=rows.count().over(before[7]),
        customer_before_amount_1d=amount.sum().over(before[1]),
        last_at=rows[MOMENT].max().over(before[30]),
    )
    rows = rows.mutate(large=(amount > LARGE * rows.customer_before_mean_30d).cast("int64"))
    return rows.mutate(
        customer_hours_since_last=(rows[MOMENT] - rows.last_at) / 3_600_000_000,
        **{f"customer_before_large_{d}d": rows.large.sum().over(before[d]) for d in (1, 3, 7, 14)},
    )
