# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportCallIssue=false, reportOperatorIssue=false, reportReturnType=false
# The stubs of pandas do not know what groupby().apply() returns.
"""The handbook's own way in pandas: `get_customer_spending_behaviour_features` and `get_count_risk_rolling_window` of
Le Borgne et al. (2022), chapter 3, with our column names. The oracle of the windows, and what they are measured against."""

import pandas as pd

WINDOWS = (1, 7, 30)
DELAY_DAYS = 7


def customer_windows(transactions: pd.DataFrame) -> pd.DataFrame:
    """Transactions with their customer's count and mean amount; rows of one customer lie together."""
    return transactions.groupby("customer_id", group_keys=False)[transactions.columns].apply(_of_customer)


def terminal_windows(transactions: pd.DataFrame) -> pd.DataFrame:
    """Transactions, with `tx_fraud`, with their terminal's delayed count and fraud share."""
    return transactions.groupby("terminal_id", group_keys=False)[transactions.columns].apply(_of_terminal)


def _of_customer(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.sort_values("tx_datetime", kind="stable")
    amount = rows.set_index("tx_datetime").tx_amount
    for days in WINDOWS:
        total, count = amount.rolling(f"{days}d").sum(), amount.rolling(f"{days}d").count()
        rows[f"customer_window_transactions_{days}d"] = list(count)
        rows[f"customer_window_mean_amount_{days}d"] = list(total / count)
    return rows


def _of_terminal(rows: pd.DataFrame) -> pd.DataFrame:
    rows = rows.sort_values("tx_datetime", kind="stable")
    fraud = rows.set_index("tx_datetime").tx_fraud
    frauds_since, count_since = fraud.rolling(f"{DELAY_DAYS}d").sum(), fraud.rolling(f"{DELAY_DAYS}d").count()
    for days in WINDOWS:
        frauds = fraud.rolling(f"{DELAY_DAYS + days}d").sum() - frauds_since
        count = fraud.rolling(f"{DELAY_DAYS + days}d").count() - count_since
        rows[f"terminal_window_transactions_{days}d"] = list(count)
        rows[f"terminal_window_fraud_share_{days}d"] = list((frauds / count).fillna(0))
    return rows
