# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The feature views of the fraud model: what a card and a terminal have been doing.

The selection of windows and the delayed fraud share of a terminal follow chapter 3 of Le Borgne et al., "Reproducible
Machine Learning for Credit Card Fraud Detection: Practical Handbook" (2022), as daily snapshots.
"""

import ibis
import ibis.expr.types as ir

from ml_platform.features.views import ViewInput

WINDOWS = (1, 7, 30)


def customer_activity(transactions: ViewInput) -> ir.Table:
    """Per customer: how often, how much and how recently, over the last 1, 7 and 30 days."""
    rows = transactions.table
    amount, now = rows.tx_amount, ibis.literal(transactions.known_until)
    counts = {f"customer_transactions_{d}d": transactions.since(d).sum() for d in WINDOWS}
    means = {f"customer_mean_amount_{d}d": amount.mean(where=transactions.since(d)) for d in WINDOWS}
    return rows.group_by("customer_id").agg(
        **counts,
        **means,
        customer_std_amount_30d=amount.std(how="pop"),
        customer_max_amount_7d=amount.max(where=transactions.since(7)),
        customer_days_since_last=(now.epoch_seconds() - rows.tx_datetime.max().epoch_seconds()) / 86_400,
    )


def terminal_risk(transactions: ViewInput, fraud_labels: ViewInput) -> ir.Table:
    """Per terminal: traffic over the last days, and frauds over the last days whose labels are known."""
    rows = transactions.table
    traffic = rows.group_by("terminal_id").agg(
        **{f"terminal_transactions_{d}d": transactions.since(d).sum() for d in WINDOWS},
        terminal_mean_amount_30d=rows.tx_amount.mean(where=transactions.since(30)),
    )
    labelled = rows.inner_join(fraud_labels.table.select("transaction_id", "is_fraud"), "transaction_id")
    fraud, now = labelled.is_fraud.cast("float64"), ibis.literal(transactions.known_until)
    last_fraud = labelled.tx_datetime.max(where=labelled.is_fraud == 1)
    risk = labelled.group_by("terminal_id").agg(
        **{f"terminal_fraud_share_{d}d": fraud.mean(where=fraud_labels.since(d, labelled)) for d in WINDOWS},
        terminal_frauds_30d=fraud.sum(),
        terminal_days_since_fraud=(now.epoch_seconds() - last_fraud.epoch_seconds()) / 86_400,
    )
    return traffic.left_join(risk, "terminal_id").drop("terminal_id_right")
