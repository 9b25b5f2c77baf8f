"""An ensemble is the mean of its members, also after it was stored."""

from typing import Any

import numpy as np
import pytest

from ml_platform.core.errors import SpecError
from ml_platform.training.trainers import Context, Labelled, trainer_named
from ml_platform.training.trainers.ensemble import Ensemble

SMALL = {"hidden": [8], "epochs": 2, "batch_size": 128}
MEMBERS = [{"trainer": "mlp", "seeds": 2, "params": SMALL}, {"trainer": "linear"}]


def rows(seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(500, 4)).astype(np.float32)
    return Labelled(x, np.digitize(x[:, 0], [-0.5, 0.5]))


def context(seed: int = 1, heard: list[Any] | None = None) -> Context:
    told = [] if heard is None else heard
    return Context("multiclass_classification", 3, seed, lambda epoch, figures: told.append(figures))


@pytest.fixture(scope="module")
def fitted() -> Ensemble:
    return Ensemble.fit({"members": MEMBERS}, rows(1), rows(2), context())


def test_score_is_the_mean_of_those_of_fits_by_themselves(fitted: Ensemble) -> None:
    alone = [("mlp", SMALL, 1), ("mlp", SMALL, 2), ("linear", {}, 3)]
    scores = [trainer_named(n).fit(p, rows(1), rows(2), context(s)).predict(rows(3).x) for n, p, s in alone]
    assert not np.array_equal(scores[0], scores[1])
    np.testing.assert_allclose(fitted.predict(rows(3).x), np.mean(scores, axis=0), rtol=1e-12)


def test_saved_and_loaded_predicts_the_same_bits(fitted: Ensemble) -> None:
    files = fitted.save()
    assert all(name.startswith("model.") for name in files)
    loaded = trainer_named("ensemble").load(files)
    np.testing.assert_array_equal(loaded.predict(rows(3).x), fitted.predict(rows(3).x))
    assert loaded.save() == files


def test_files_of_more_than_nine_members_keep_apart() -> None:
    many = Ensemble.fit({"members": [{"trainer": "mlp", "seeds": 11, "params": SMALL}]}, rows(1), rows(2), context())
    loaded = Ensemble.load(many.save())
    assert len(loaded.members) == 11
    np.testing.assert_array_equal(loaded.predict(rows(3).x), many.predict(rows(3).x))


def test_figures_say_which_member_they_are_of() -> None:
    heard: list[dict[str, float]] = []
    Ensemble.fit({"members": MEMBERS}, rows(1), rows(2), context(heard=heard))
    names = {name for figures in heard for name in figures}
    assert {"member_1_validation_loss", "member_2_validation_loss", "member_3_validation_loss"} <= names


@pytest.mark.parametrize("params", [{}, {"members": []}])
def test_it_has_members(params: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="members"):
        Ensemble.fit(params, rows(1), rows(2), context())
