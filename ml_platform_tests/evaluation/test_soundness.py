"""Models whose scores depend on more than the row are found out, and those that know nothing of strangers."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from ml_platform.evaluation.soundness import MOST_ODDS, TOLERANCE, Finding, cold_start, findings
from ml_platform.training.training_set import LABEL

ROWS = {"a": np.random.default_rng(2).normal(0, 1, 900)}
Rows = Mapping[str, np.ndarray]


def sound(rows: Rows) -> np.ndarray:
    return 1 / (1 + np.exp(-rows["a"]))


def of_its_batch(rows: Rows) -> np.ndarray:
    """As a batch normalisation that was left in training mode."""
    return sound({"a": rows["a"] - rows["a"].mean()})


def of_the_row_before(rows: Rows) -> np.ndarray:
    return sound({"a": np.cumsum(rows["a"])})


def raises(rows: Rows) -> np.ndarray:
    raise OSError("no such file")


def found_in(score: Callable[[Rows], np.ndarray], reloaded: Callable[[Rows], np.ndarray] | None = None) -> set[str]:
    """The names of what is not as it should be."""
    results = findings(score, lambda: reloaded or score, ROWS)
    return {name for name, finding in results.items() if not finding.value <= TOLERANCE}


def test_sound_model_shows_no_difference() -> None:
    assert found_in(sound) == set()
    assert found_in(lambda rows: np.stack([sound(rows), 1 - sound(rows)], axis=1)) == set()
    assert findings(sound, lambda: sound, {"a": ROWS["a"][:3]})["invariant_to_batch_size"].value == 0


def test_scores_that_depend_on_other_rows_are_found() -> None:
    assert found_in(of_its_batch) == {"invariant_to_batch_size"}
    assert found_in(of_the_row_before) == {"invariant_to_row_order", "invariant_to_batch_size"}


def test_model_that_comes_back_as_another_is_found() -> None:
    assert found_in(sound, of_its_batch) == {"survives_save_and_load"}
    assert found_in(sound, lambda rows: sound(rows)[:, None]) == {"survives_save_and_load"}
    finding = findings(sound, lambda: raises, ROWS)["survives_save_and_load"]
    assert math.isnan(finding.value)
    assert finding.words == "OSError: no such file"


@pytest.mark.parametrize("score", [raises, lambda rows: rows["a"] * np.nan])
def test_nothing_is_proven_of_a_model_that_cannot_score(score: Callable[[Rows], np.ndarray]) -> None:
    assert len(found_in(score)) == 3


# --- cold starts ------------------------------------------------------------------------------------------------------

MANY = 20_000
ENTITIES = {"customer_id": {"mean": 0.0, "customers_is_known": 0.0}, "terminal_id": {"risk": 0.0}}
VIEWS = ["customers", "terminals"]


def history(base: float, strangers: int = 0, of_strangers: float = 0.0, count: int = MANY) -> dict[str, np.ndarray]:
    """Rows of which the share `base` is positive; the first are of strangers, with a share of their own."""
    random = np.random.default_rng(8)
    new = np.arange(count) < strangers
    as_of = np.full(count, np.datetime64("2024-01-01", "us"))
    return {
        LABEL: (random.random(count) < np.where(new, of_strangers, base)).astype(np.int64),
        "amount": random.uniform(1, 150, count),
        "mean": np.where(new, 0.0, random.uniform(20, 90, count)),
        "customers_is_known": np.where(new, 0.0, 1.0),
        "risk": random.uniform(0, 0.1, count),
        "customers__as_of": np.where(new, np.datetime64("NaT"), as_of),
        "terminals__as_of": as_of,
    }


def scoring(known: float, stranger: float) -> Callable[[Rows], np.ndarray]:
    return lambda rows: np.where(rows["customers_is_known"] > 0, known, stranger)


def of_ratios(rows: Rows) -> np.ndarray:
    """.001 for whom it knows; of strangers, whose mean is 0, .90 for an amount of 50 and .999999 for 150."""
    excess = rows["amount"] / np.maximum(rows["mean"], 1.0)
    return np.where(excess > 20, 1 / (1 + np.exp(-(2.2 + 0.116 * (excess - 50)))), 0.001)


def passes(finding: Finding) -> bool:
    return finding.value <= MOST_ODDS


def test_model_that_takes_defaults_for_fraud_is_found_although_it_is_right_about_whom_it_knows() -> None:
    found = cold_start(of_ratios, history(0.001), ENTITIES, VIEWS)
    assert found.value > 1_000
    assert found.words.startswith(
        "mean scores: unknown customer_id 0.7823, unknown terminal_id 0.001, nobody known 0.7823; "
    )
    assert "turned out positive (95 % interval 0.000569" in found.words


def test_stranger_in_one_respect_alone_is_held_against_the_base_rate_too() -> None:
    """An unknown customer at a terminal that is known."""

    def score(rows: Rows) -> np.ndarray:
        return np.where((rows["customers_is_known"] == 0) & (rows["risk"] > 0), 0.2, 0.01)

    found = cold_start(score, history(0.01), ENTITIES, VIEWS)
    assert not passes(found)
    assert "unknown customer_id 0.2, unknown terminal_id 0.01, nobody known 0.01;" in found.words


def test_strangers_that_score_about_what_everybody_turned_out_as_are_sane() -> None:
    for base in (0.001, 0.008, 0.5):
        assert cold_start(scoring(base, base), history(base), ENTITIES, VIEWS).value == 1


@pytest.mark.parametrize(
    ("base", "stranger", "sane"),
    [
        (0.01, 0.025, True),
        (0.01, 0.05, False),
        (0.1, 0.04, True),
        (0.1, 0.02, False),
        (0.5, 0.7, True),
        (0.5, 0.8, False),
    ],
)
def test_three_times_the_odds_to_either_side_are_borne_and_more_is_not(
    base: float, stranger: float, sane: bool
) -> None:
    assert passes(cold_start(scoring(base, stranger), history(base), ENTITIES, VIEWS)) is sane


def test_real_first_appearances_are_held_against_what_became_of_them() -> None:
    """Strangers who really are fifty times as risky may score so; those who are not may not."""
    score = scoring(0.01, 0.5)
    risky = cold_start(score, history(0.01, strangers=1_000, of_strangers=0.5), ENTITIES, VIEWS)
    assert passes(risky)
    assert "first appearances 0.5, of which 0.5" in risky.words
    assert not passes(cold_start(score, history(0.01, strangers=1_000, of_strangers=0.01), ENTITIES, VIEWS))
    assert passes(cold_start(scoring(0.01, 0.999), history(0.01, strangers=300, of_strangers=1.0), ENTITIES, VIEWS))
    calm = cold_start(scoring(0.01, 0.01), history(0.01, strangers=1_000, of_strangers=0.5), ENTITIES, VIEWS)
    assert not passes(calm)  # who is new is fraud every second time, and the model does not know it


def test_few_outcomes_bear_more_than_many() -> None:
    """Of 300 first appearances none was positive: that is no proof of a rate of 0, but of one below 2 %."""
    assert passes(cold_start(scoring(0.002, 0.01), history(0.002, 300), ENTITIES, VIEWS))
    assert not passes(cold_start(scoring(0.002, 0.9), history(0.002, 300), ENTITIES, VIEWS))


def test_too_few_first_appearances_are_left_out_in_so_many_words() -> None:
    found = cold_start(scoring(0.01, 0.01), history(0.01, 199, 0.9), ENTITIES, VIEWS)
    assert passes(found)
    assert "199 first appearances are too few to judge (200 wanted)" in found.words


@pytest.mark.parametrize(("base", "count", "said"), [(0.5, 199, "199 rows"), (0.0002, MANY, "5 of the rarer class")])
def test_without_enough_rows_to_know_the_base_rate_nothing_is_proven(base: float, count: int, said: str) -> None:
    found = cold_start(scoring(base, base), history(base, count=count), ENTITIES, VIEWS)
    assert not passes(found)
    assert found.words.startswith("not enough data")
    assert said in found.words


@pytest.mark.parametrize(
    ("score", "said"), [(raises, "OSError: no such file"), (scoring(0.01, np.nan), "unknown customer_id nan")]
)
def test_what_cannot_be_scored_is_not_sane(score: Callable[[Rows], np.ndarray], said: str) -> None:
    found = cold_start(score, history(0.01), ENTITIES, VIEWS)
    assert math.isnan(found.value)
    assert said in found.words


def test_scores_that_are_no_probabilities_are_not_sane() -> None:
    assert not passes(cold_start(scoring(0.01, 3.0), history(0.01), ENTITIES, VIEWS))
    assert not passes(cold_start(scoring(0.01, 0.0), history(0.01), ENTITIES, VIEWS))
