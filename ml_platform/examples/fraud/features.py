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
IDENTITY = ["transaction_id", "tx_datetime"]  # of a transaction: the number alone is promised for a week
LARGE = 3.0  # times what the customer usually spends
LAST_LABELS = 5
HOUR = 3_600_000_000  # microseconds
DAY = 24 * HOUR


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
    labelled = rows.inner_join(fraud_labels.table.select("is_fraud", *IDENTITY), IDENTITY)
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
    """Per transaction at t: what its customer did before t, how much is usual, and what was unusual of late.

    Strictly before: what is compared with the transaction's own amount must not have it. Usual are the amounts that are
    not large against the median before them, since a few frauds would lift a plain mean.
    """
    rows = transactions.table
    before = {days: transactions.window(days, "customer_id", strictly_before=True) for days in (1, 3, 7, 14, 30)}
    amount, moment = rows.tx_amount, rows[MOMENT]
    rows = rows.mutate(
        customer_before_median_30d=amount.median().over(before[30]),
        customer_before_max_7d=amount.max().over(before[7]),
        **{f"customer_before_transactions_{d}d": rows.count().over(before[d]) for d in (1, 7, 30)},
        customer_before_amount_1d=amount.sum().over(before[1]),
        customer_hours_since_last=(moment - moment.max().over(before[30])) / HOUR,
    )
    rows = rows.mutate(times_median=rows.tx_amount / ibis.greatest(rows.customer_before_median_30d, 1.0))
    rows = rows.mutate(is_large=rows.times_median > LARGE)
    usual, large_at = ibis.ifelse(rows.is_large, None, rows.tx_amount), ibis.ifelse(rows.is_large, rows[MOMENT], None)
    return rows.mutate(
        customer_usual_mean_30d=usual.mean().over(before[30]),
        customer_usual_std_30d=usual.std(how="pop").over(before[30]),
        **{f"customer_before_large_{d}d": rows.is_large.cast("int64").sum().over(before[d]) for d in (1, 3, 7, 14)},
        **{f"customer_before_most_times_median_{d}d": rows.times_median.max().over(before[d]) for d in (3, 7, 14)},
        customer_hours_since_large=(rows[MOMENT] - large_at.max().over(before[14])) / HOUR,
        customer_hours_since_first_large=(rows[MOMENT] - large_at.min().over(before[14])) / HOUR,
    )


def terminal_frauds(transactions: ViewInput, fraud_labels: ViewInput) -> ir.Table:
    """Per transaction at t: which frauds at its terminal were known at t, since when, and whether they go on.

    A run are the frauds since the newest known genuine transaction: a compromised terminal has nothing else. Frauds of a
    stolen card are large amounts wherever it is used; the least amount of a terminal's frauds tells the two apart.
    """
    labels = fraud_labels.table.select("is_fraud", *IDENTITY)
    rows = transactions.table.left_join(labels, IDENTITY)
    known = {days: fraud_labels.window(days, "terminal_id") for days in (1, 7, 14, 30)}
    so_far = ibis.range_window(group_by="terminal_id", order_by=MOMENT, following=0)
    is_fraud = rows.is_fraud == 1
    rows = rows.mutate(
        fraud_at=ibis.ifelse(is_fraud, rows[MOMENT], None),
        fraud_amount=ibis.ifelse(is_fraud, rows.tx_amount, None),
        genuine_at=ibis.ifelse(rows.is_fraud == 0, rows[MOMENT], None),
        frauds=is_fraud.cast("int64").sum().over(so_far),
    )
    rows = rows.mutate(run=rows.genuine_at.max().over(so_far))
    first_of_run = rows.fraud_at.min().over(ibis.window(group_by=["terminal_id", "run"]))
    rows = rows.mutate(
        first_of_run=ibis.ifelse(rows.fraud_at.notnull(), first_of_run, None),
        frauds_before=ibis.ifelse(rows.genuine_at.notnull(), rows.frauds, None),
    )
    newest_genuine, first_known = rows.genuine_at.max().over(known[30]), rows.fraud_at.min().over(known[30])
    # Without a genuine one among them all are the run; else it is what came after that.
    all_frauds, only_frauds = rows.fraud_at.count().over(known[30]), newest_genuine.isnull()
    began = ibis.ifelse(only_frauds, first_known, rows.first_of_run.max().over(known[30]))
    frauds_since = rows.frauds.max().over(known[30]) - rows.frauds_before.max().over(known[30])
    goes_on = only_frauds | (began > newest_genuine)
    return rows.mutate(
        **{f"terminal_known_frauds_{d}d": rows.fraud_at.count().over(known[d]) for d in (7, 14)},
        terminal_known_frauds_30d=all_frauds,
        **{f"terminal_known_fraud_share_{d}d": rows.is_fraud.mean().over(known[d]) for d in (1, 7, 30)},
        terminal_known_fraud_run=ibis.ifelse(only_frauds, all_frauds, frauds_since),
        terminal_days_since_run_began=(rows[MOMENT] - ibis.ifelse(goes_on, began, None)) / DAY,
        terminal_days_since_first_known_fraud=(rows[MOMENT] - first_known) / DAY,
        terminal_days_since_known_genuine=(rows[MOMENT] - newest_genuine) / DAY,
        terminal_least_known_fraud_amount_30d=rows.fraud_amount.min().over(known[30]),
    )
