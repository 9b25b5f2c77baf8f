"""Models whose scores depend on more than the row are found out."""

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest

from ml_platform.evaluation.soundness import TOLERANCE, findings

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
