# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis and PyArrow know fewer methods than the libraries have.
"""The features of the fraud handbook, event by event: what a card and a terminal were doing up to each transaction.

Chapter 3 of Le Borgne et al., "Reproducible Machine Learning for Credit Card Fraud Detection: Practical Handbook" (2022),
whose remaining features are the request view `handbook_request`. Other than there, transactions of the same moment all see
each other: their order in a file is no information.
"""

import ibis.expr.types as ir

from ml_platform.features.views import ViewInput

WINDOWS = (1, 7, 30)
IDENTITY = ["transaction_id", "tx_datetime"]  # of a transaction: the number alone is promised for a week


def customer_windows(transactions: ViewInput) -> ir.Table:
    """Per transaction at t: how often and how much its customer spent within (t - days, t]."""
    rows = transactions.table
    of_customer = {days: transactions.window(days, "customer_id") for days in WINDOWS}
    return rows.mutate(
        **{f"customer_window_transactions_{d}d": rows.count().over(window) for d, window in of_customer.items()},
        **{f"customer_window_mean_amount_{d}d": rows.tx_amount.mean().over(w) for d, w in of_customer.items()},
    )


def terminal_windows(transactions: ViewInput, fraud_labels: ViewInput) -> ir.Table:
    """Per transaction at t: how much its terminal did, and what part was fraud, within (t - delay - days, t - delay].

    The delay is that of the labels, for the count as well: both are of the same transactions.
    """
    labels = fraud_labels.table.select("is_fraud", *IDENTITY)
    rows = transactions.table.left_join(labels, IDENTITY)
    of_terminal = {days: fraud_labels.window(days, "terminal_id") for days in WINDOWS}
    return rows.mutate(
        **{f"terminal_window_transactions_{d}d": rows.count().over(window) for d, window in of_terminal.items()},
        **{f"terminal_window_fraud_share_{d}d": rows.is_fraud.mean().over(w) for d, w in of_terminal.items()},
    )
