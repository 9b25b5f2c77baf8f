"""Card precision: against a plain loop over cards, and by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ml_platform.examples.fraud.metrics import card_precision

ROWS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 4), st.sampled_from([0.1, 0.2, 0.5, 0.9]), st.booleans()), min_size=1
)


def of(rows: list[tuple], k: int) -> float:
    day, card, score, label = (np.array(column) for column in zip(*rows, strict=True))
    return card_precision(label.astype(np.int8), score, {"at": day, "card": card}, "at", "card", k)


@given(ROWS, st.integers(1, 4))
def test_it_is_what_a_plain_loop_finds(rows: list[tuple], k: int) -> None:
    caught: set[int] = set()
    shares = []
    for today in sorted({day for day, *_ in rows}):
        cards: dict[int, tuple[float, bool]] = {}
        for day, card, score, label in rows:
            if day == today and card not in caught:
                most, compromised = cards.get(card, (0.0, False))
                cards[card] = max(most, score), compromised or label
        first = sorted(cards, key=lambda card: (-cards[card][0], card))[:k]
        found = {card for card in first if cards[card][1]}
        caught |= found
        shares.append(len(found) / k)
    assert of(rows, k) == pytest.approx(sum(shares) / len(shares))


def test_a_card_is_looked_at_once_a_day_however_many_suspicious_transactions_it_has() -> None:
    rows = [(0, 1, 0.9, True), (0, 1, 0.8, True), (0, 2, 0.7, True), (0, 3, 0.1, False)]
    assert of(rows, k=2) == 1.0


def test_a_caught_card_does_not_count_again_and_one_that_was_missed_does() -> None:
    missed = [(0, 1, 0.1, True), (0, 2, 0.9, False), (1, 1, 0.9, True), (1, 2, 0.1, False)]
    assert of(missed, k=1) == 0.5
    caught = [(0, 1, 0.9, True), (0, 2, 0.1, False), (1, 1, 0.9, True), (1, 2, 0.1, False)]
    assert of(caught, k=1) == 0.5


def test_cards_may_be_of_any_type_with_an_order() -> None:
    days = np.array(["2018-08-08", "2018-08-09"], dtype="datetime64[D]")
    rows = {"at": days, "card": np.array(["a", "b"])}
    assert card_precision(np.array([1, 1]), np.array([0.5, 0.5]), rows, "at", "card", k=2) == 0.5


def test_it_has_no_value_without_rows() -> None:
    nothing = np.zeros(0)
    assert math.isnan(card_precision(nothing, nothing, {"at": nothing, "card": nothing}, "at", "card"))
