"""How many of the cards that are looked at each day are compromised: the measure of people who can check only so many."""

from collections.abc import Mapping

import numpy as np


def card_precision(
    labels: np.ndarray, scores: np.ndarray, rows: Mapping[str, np.ndarray], time: str, card: str, k: int = 100
) -> float:
    """Card precision at k: the share of a day's k most suspicious cards that have a fraud on it, as a mean over the days.

    A card is as suspicious as its most suspicious transaction of the day; of equals, the one with the lower number comes
    first. A compromised card that is caught is blocked: its later days do not count. The share is of k even where there
    are fewer cards, so that a perfect scorer too is below 1 where there are fewer frauds.

    Section 4.4 of Le Borgne et al., "Reproducible Machine Learning for Credit Card Fraud Detection: Practical Handbook"
    (2022), CP@k.

    Args:
        labels, scores: [rows]; a label is 0 or 1.
        rows: columns of [rows]; `time` names that of the transactions' times, `card` that of their cards.

    Returns:
        0 to 1; NaN without rows.
    """
    day, of_row = rows[time].astype("datetime64[D]"), rows[card]
    caught = np.unique(of_row[:0])
    shares = []
    for today in np.unique(day):
        mine = (day == today) & ~np.isin(of_row, caught)
        cards, row_card = np.unique(of_row[mine], return_inverse=True)
        suspicion, compromised = np.full(len(cards), -np.inf), np.zeros(len(cards), dtype=bool)
        np.maximum.at(suspicion, row_card, scores[mine])
        np.logical_or.at(compromised, row_card, labels[mine] != 0)
        looked_at = np.argsort(-suspicion, kind="stable")[:k]
        found = cards[looked_at[compromised[looked_at]]]
        caught = np.concatenate([caught, found])
        shares.append(len(found) / k)
    return float(np.mean(shares)) if shares else float("nan")
