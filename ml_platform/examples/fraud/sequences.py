# pyright: reportAttributeAccessIssue=false, reportArgumentType=false, reportOperatorIssue=false
# The stubs of Ibis know fewer methods than the library has.
"""Feature views of single past events: vectors for the trainer `sequence`."""

import ibis
import ibis.expr.types as ir

from ml_platform.features.views import ViewInput

LAST = 16  # the longest `length` that a view may declare


def customer_sequence(transactions: ViewInput) -> ir.Table:
    """Per customer, of each of the last transactions: the amount, and how many days ago it was. 1 is the newest."""
    rows = transactions.table
    newest_first = ibis.window(
        group_by="customer_id", order_by=[ibis.desc(rows[transactions.event_time]), "transaction_id"]
    )
    rows = rows.mutate(number=ibis.row_number().over(newest_first) + 1)
    rows = rows.filter(rows.number <= LAST)
    days = transactions.days_since(rows[transactions.event_time])
    return rows.group_by("customer_id").agg(
        **{f"customer_last_amounts_{n}": rows.tx_amount.max(where=rows.number == n) for n in range(1, LAST + 1)},
        **{f"customer_last_days_{n}": days.max(where=rows.number == n) for n in range(1, LAST + 1)},
    )
