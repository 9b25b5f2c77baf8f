"""Every family on every task: it learns, keeps what it learned, and gives the same again."""

import sys
from collections.abc import Iterator
from functools import cache
from typing import Any

import numpy as np
import pytest

from ml_platform.core.errors import Interrupted, SpecError
from ml_platform.core.tasks import Task
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers import Context, Labelled, Trainer, trainer_named

FAMILIES = ("linear", "forest", "xgboost", "lightgbm")
TASKS: dict[Task, int] = {"binary_classification": 2, "multiclass_classification": 3, "regression": 0}
PARAMS: dict[str, dict[str, Any]] = {"forest": {"n_estimators": 20}, "xgboost": {"subsample": 0.8}, "lightgbm": {"subsample": 0.8}}  # fmt: skip

each_family = pytest.mark.parametrize("family", FAMILIES)
each_task = pytest.mark.parametrize("task", TASKS)


@cache
def rows(task: Task, seed: int) -> Labelled:
    """1,000 rows whose first feature says much of the label, with noise."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(1_000, 5)).astype(np.float32)
    value = 2 * x[:, 0] + 0.3 * rng.normal(size=len(x))
    if task == "regression":
        return Labelled(x, 50 + 10 * value)
    return Labelled(x, np.digitize(value, [0.0] if task == "binary_classification" else [-1.0, 1.0]))


def fit(family: str, task: Task, seed: int = 1, heard: list[Any] | None = None, **params: Any) -> Trainer:
    told = [] if heard is None else heard
    context = Context(task, TASKS[task], seed, lambda epoch, figures: told.append((epoch, figures)))
    return trainer_named(family).fit({**PARAMS.get(family, {}), **params}, rows(task, 1), rows(task, 2), context)


@cache
def fitted(family: str, task: Task) -> Trainer:
    return fit(family, task)


@each_family
@each_task
def test_learns_far_better_than_chance(family: str, task: Task) -> None:
    unseen = rows(task, 3)
    scores = fitted(family, task).predict(unseen.x)
    assert scores.dtype == np.float64
    assert np.isfinite(scores).all()
    if task == "regression":
        assert scores.shape == unseen.y.shape
        assert np.mean((scores - unseen.y) ** 2) < 0.1 * unseen.y.var()
        return
    assert scores.shape == ((1_000, 3) if task == "multiclass_classification" else (1_000,))
    decided = scores.argmax(axis=1) if scores.ndim == 2 else scores > 0.5
    assert np.mean(decided == unseen.y) > 0.85
    assert (scores >= 0).all()
    assert (scores <= 1).all()
    if scores.ndim == 2:
        np.testing.assert_allclose(scores.sum(axis=1), 1.0, atol=1e-12)


@each_family
@each_task
def test_saved_and_loaded_predicts_the_same_bits(family: str, task: Task) -> None:
    model, x = fitted(family, task), rows(task, 3).x
    loaded = trainer_named(family).load(model.save())
    np.testing.assert_array_equal(loaded.predict(x), model.predict(x))
    assert loaded.save() == model.save()


@each_family
@each_task
def test_same_seed_gives_the_same_bytes(family: str, task: Task) -> None:
    assert fit(family, task).save() == fitted(family, task).save()


@pytest.mark.parametrize("family", ["forest", "xgboost", "lightgbm"])
def test_another_seed_gives_another_model(family: str) -> None:
    assert fit(family, "binary_classification", seed=2).save() != fitted(family, "binary_classification").save()


@each_family
@each_task
def test_score_of_a_row_depends_on_no_other_row(family: str, task: Task) -> None:
    model, x = fitted(family, task), rows(task, 3).x[:50]
    together = model.predict(x)
    np.testing.assert_allclose(np.concatenate([model.predict(row[None]) for row in x]), together, rtol=1e-12)
    np.testing.assert_allclose(model.predict(x[::-1].copy())[::-1], together, rtol=1e-12)


@each_family
@each_task
def test_validation_loss_is_heard_of_and_falls_where_there_are_rounds(family: str, task: Task) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    fit(family, task, heard=heard)
    losses = [figures["validation_loss"] for _, figures in heard]
    assert heard[0][0] == 1
    assert np.isfinite(losses).all()
    if family in ("xgboost", "lightgbm"):
        assert len(losses) > 1
        assert min(losses[1:]) < 0.8 * losses[0]


@pytest.mark.parametrize("family", ["xgboost", "lightgbm"])
def test_boosting_stops_early_and_keeps_the_best_round(family: str) -> None:
    heard: list[tuple[int, dict[str, float]]] = []
    model = fit(family, "binary_classification", heard=heard, n_estimators=2_000, early_stopping_rounds=5)
    assert heard[-1][0] < 500
    booster: Any = model.booster  # type: ignore[attr-defined]
    trees = booster.num_trees() if family == "lightgbm" else booster.num_boosted_rounds()
    assert heard[-1][0] - 15 <= trees < heard[-1][0] + 10


@pytest.mark.parametrize("family", ["xgboost", "lightgbm"])
def test_boosting_stops_between_rounds_when_it_is_asked_to(family: str) -> None:
    asked = iter([False, False, True])
    context = Context("binary_classification", 2, 1, interrupted=lambda: next(asked))
    some = rows("binary_classification", 1)
    with pytest.raises(Interrupted, match="stopped after round 3"):
        trainer_named(family).fit({}, some, some, context)


@each_family
def test_unknown_param_is_named(family: str) -> None:
    with pytest.raises(SpecError, match=f"trainer {family}: .*mend candidates.params.learning_rat$"):
        fit(family, "regression", learning_rat=1)


@pytest.mark.parametrize(
    ("family", "param"),
    [("linear", "alpha"), ("forest", "n_estimators"), ("xgboost", "max_depth"), ("lightgbm", "num_leaves")],
)
def test_impossible_value_is_named(family: str, param: str) -> None:
    with pytest.raises(SpecError, match=f"mend candidates.params.{param}"):
        trainer_named(family).fit({param: 0}, rows("regression", 1), rows("regression", 2), Context("regression", 0, 1))


@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification"])
def test_forest_predicts_what_scikit_learn_does(task: Task) -> None:
    from sklearn.ensemble import RandomForestClassifier

    train, x = rows(task, 1), np.concatenate([rows(task, seed).x for seed in range(3, 13)])  # more than one chunk
    theirs = RandomForestClassifier(20, max_depth=16, min_samples_leaf=5, random_state=1).fit(train.x, train.y)
    expected = theirs.predict_proba(x)
    ours = fitted("forest", task).predict(x)
    np.testing.assert_allclose(ours, expected if ours.ndim == 2 else expected[:, 1], atol=1e-14)


def test_forest_of_values_predicts_what_scikit_learn_does() -> None:
    from sklearn.ensemble import RandomForestRegressor

    train, x = rows("regression", 1), rows("regression", 3).x
    theirs = RandomForestRegressor(20, max_depth=16, min_samples_leaf=5, max_features="sqrt", random_state=1)  # type: ignore[arg-type]  # the stubs forget it
    expected = theirs.fit(train.x, train.y).predict(x)
    np.testing.assert_allclose(fitted("forest", "regression").predict(x), expected, rtol=1e-14)


@pytest.fixture
def without_library(monkeypatch: pytest.MonkeyPatch) -> Iterator[pytest.MonkeyPatch]:
    for family in ("xgboost", "lightgbm"):
        monkeypatch.setitem(sys.modules, family, None)
        monkeypatch.delitem(sys.modules, f"ml_platform.training.trainers.{family}", raising=False)
    yield monkeypatch
    for family in ("xgboost", "lightgbm"):
        sys.modules.pop(f"ml_platform.training.trainers.{family}", None)


@pytest.mark.parametrize("family", ["xgboost", "lightgbm"])
@pytest.mark.usefixtures("without_library")
def test_missing_library_is_said_with_the_command_that_installs_it(family: str) -> None:
    with pytest.raises(SpecError, match=rf"not installed\. Next: pip install 'ml-platform\[{family}\]'"):
        trainer_named(family)


@pytest.mark.parametrize("family", ["linear", "forest"])
def test_loading_needs_no_scikit_learn(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    files, x = fitted(family, "regression").save(), rows("regression", 3).x
    for name in [name for name in sys.modules if name.split(".")[0] == "sklearn"]:
        monkeypatch.setitem(sys.modules, name, None)
    assert np.isfinite(trainer_named(family).load(files).predict(x)).all()


@each_family
@pytest.mark.parametrize("share", [0.3, 0.9])
def test_truncated_file_is_refused(family: str, share: float) -> None:
    files = fitted(family, "multiclass_classification").save()
    for name, content in files.items():
        with pytest.raises(Exception):  # noqa: B017, PT011  # each library has its own; unpack makes a BundleError of any
            trainer_named(family).load({**files, name: content[: int(len(content) * share)]})


def test_trainers_that_are_none_are_refused() -> None:
    with pytest.raises(
        SpecError, match="one of mlp, sequence, xgboost, lightgbm, linear, forest, ensemble, or an import path"
    ):
        trainer_named("mpl")
    with pytest.raises(SpecError, match="has no fit, predict, save, load"):
        trainer_named("pathlib.Path")
    with pytest.raises(SpecError, match="cannot be imported"):
        trainer_named("pathlib.Pfad")


SHOPS = (Feature("shop", categories=20), Feature("amount"))


def sales(seed: int) -> Labelled:
    rng = np.random.default_rng(seed)
    shop = rng.integers(0, 21, 2_000)
    x = np.column_stack([shop, rng.normal(size=len(shop))]).astype(np.float32)
    return Labelled(x, (np.isin(shop, [1, 3, 7, 11, 16, 19])).astype(np.int64))


@each_family
def test_codes_of_categories_are_learned_by_every_family(family: str) -> None:
    context = Context("binary_classification", 2, 1, features=SHOPS)
    model = trainer_named(family).fit(PARAMS.get(family, {}), sales(1), sales(2), context)
    x = sales(3).x
    assert np.mean((model.predict(x) > 0.5) == sales(3).y) > 0.97
    np.testing.assert_array_equal(trainer_named(family).load(model.save()).predict(x), model.predict(x))


def test_linear_refuses_more_categories_than_it_should_have_coefficients() -> None:
    context = Context("binary_classification", 2, 1, features=(Feature("shop", categories=101), Feature("amount")))
    with pytest.raises(SpecError, match="shop has 101 categories, and linear takes 100 at most"):
        trainer_named("linear").fit({}, sales(1), sales(2), context)


def test_linear_model_from_before_there_were_categories_loads() -> None:
    model = fitted("linear", "regression")
    old = {**model.save(), "model.json": b'{"task": "regression"}'}
    x = rows("regression", 3).x
    np.testing.assert_array_equal(trainer_named("linear").load(old).predict(x), model.predict(x))
