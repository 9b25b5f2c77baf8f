"""The MLP: what it learns, what it saves, what it refuses."""

import logging

import numpy as np
import pytest

from ml_platform.core.errors import SpecError
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers import Context, Labelled, trainer_named
from ml_platform.training.trainers.mlp import MLP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2_000, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int8)
PARAMS = {"hidden": [32], "epochs": 8, "lr": 0.01, "batch_size": 64}
BINARY = Context("binary_classification", 2, 1)


def fit(y: np.ndarray = Y, context: Context = BINARY, **params: object) -> MLP:
    return MLP.fit({**PARAMS, **params}, Labelled(X[:1500], y[:1500]), Labelled(X[1500:], y[1500:]), context)


def test_learns_what_no_linear_model_can() -> None:
    heard: list[dict[str, float]] = []
    model = fit(context=Context("binary_classification", 2, 1, on_epoch=lambda _, figures: heard.append(figures)))
    assert np.mean((model.predict(X[1500:]) > 0.5) == Y[1500:]) > 0.9
    assert len(heard) == 8
    assert heard[-1]["validation_loss"] < heard[0]["validation_loss"]


def test_several_classes_have_probabilities_that_sum_to_one() -> None:
    quadrant = Y + 2 * (X[:, 2] > 0)
    predicted = fit(quadrant, Context("multiclass_classification", 4, 1)).predict(X[1500:])
    assert predicted.shape == (500, 4)
    np.testing.assert_allclose(predicted.sum(axis=1), 1, rtol=1e-6)
    assert np.mean(predicted.argmax(axis=1) == quadrant[1500:]) > 0.85


def test_regression_predicts_in_the_units_of_its_target() -> None:
    target = 5_000 + 300 * X[:, 0] * X[:, 1]
    predicted = fit(target, Context("regression", 0, 1), dropout=0.0).predict(X[1500:])
    assert np.std(predicted - target[1500:]) < 0.4 * np.std(target[1500:])


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    assert fit().save() == fit().save()
    assert fit().save() != fit(context=Context("binary_classification", 2, 2)).save()


@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification", "regression"])
def test_saved_model_predicts_the_same_bits(task: str) -> None:
    model = fit(context=Context(task, 2, 1), epochs=1)  # type: ignore[arg-type]
    np.testing.assert_array_equal(MLP.load(model.save()).predict(X), model.predict(X))


def test_bundle_from_before_there_were_other_tasks_is_binary() -> None:
    files = fit(epochs=1).save()
    old = {**files, "model.json": b'{"features": 4, "hidden": [32], "dropout": 0.1}'}
    np.testing.assert_array_equal(MLP.load(old).predict(X), MLP.load(files).predict(X))


def test_options_that_change_no_result_on_a_cpu(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert fit(epochs=1, deterministic=True, precision="bfloat16").save() == fit(epochs=1).save()
    assert "there is none" in caplog.text


@pytest.mark.parametrize(
    ("params", "field"), [({"epoch": 3}, "epoch"), ({"dropout": 1.5}, "dropout"), ({"epochs": 0}, "epochs")]
)
def test_unknown_or_impossible_param_names_the_field(params: dict, field: str) -> None:
    with pytest.raises(SpecError, match=f"mend candidates.params.{field}"):
        fit(**params)


def test_unknown_trainer_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match="one of mlp"):
        trainer_named("mpl")


# --- embeddings -------------------------------------------------------------------------------------------------------

SHOPS = 30
CODED = Context("binary_classification", 2, 1, features=(Feature("shop", categories=SHOPS), Feature("amount")))


def sales(count: int, seed: int) -> Labelled:
    """Which shop it is decides, and nothing about the order of their codes does."""
    rng = np.random.default_rng(seed)
    bad = np.random.default_rng(0).permutation(SHOPS + 1)[: SHOPS // 2]
    shop = rng.integers(0, SHOPS + 1, count)
    return Labelled(
        np.column_stack([shop, rng.normal(size=count)]).astype(np.float32), np.isin(shop, bad).astype(np.int8)
    )


SALES, UNSEEN = sales(1_500, 1), sales(500, 2)


def sold(context: Context = CODED, **params: object) -> MLP:
    return MLP.fit({**PARAMS, "dropout": 0, **params}, SALES, UNSEEN, context)


def test_embeddings_learn_what_numbers_of_shops_hide() -> None:
    right = [np.mean((model.predict(UNSEEN.x) > 0.5) == UNSEEN.y) for model in (sold(), sold(BINARY))]
    assert right[0] > 0.99
    assert right[1] < 0.85


def test_embedding_has_the_width_that_params_say_or_one_by_the_number_of_categories() -> None:
    widths = [sold(epochs=1, embeddings=e).architecture.embeddings for e in ({}, {"shop": 3})]
    assert widths == [{0: (SHOPS + 1, 11)}, {0: (SHOPS + 1, 3)}]


def test_saved_embeddings_predict_the_same_bits() -> None:
    model = sold(epochs=1)
    np.testing.assert_array_equal(MLP.load(model.save()).predict(UNSEEN.x), model.predict(UNSEEN.x))


def test_code_that_training_never_saw_says_nothing() -> None:
    seen = SALES.x[:, 0] > 0
    model = MLP.fit({**PARAMS, "epochs": 2}, Labelled(SALES.x[seen], SALES.y[seen]), UNSEEN, CODED)
    assert model.network.state_dict()["0.tables.0.weight"][0].abs().max() == 0
