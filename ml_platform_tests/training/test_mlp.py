import numpy as np
import pytest

from ml_platform.core.errors import SpecError
from ml_platform.training.trainers import trainer_named
from ml_platform.training.trainers.mlp import MLP

RNG = np.random.default_rng(0)
X = RNG.normal(size=(2_000, 4)).astype(np.float32)
Y = (X[:, 0] * X[:, 1] > 0).astype(np.int8)
PARAMS = {"hidden": [32], "epochs": 8, "lr": 0.01, "batch_size": 64}


def fit(seed: int = 1, **params: object) -> tuple[MLP, list[dict[str, float]]]:
    heard: list[dict[str, float]] = []
    model = MLP.fit(
        {**PARAMS, **params}, X[:1500], Y[:1500], (X[1500:], Y[1500:]), seed, lambda _, figures: heard.append(figures)
    )
    return model, heard


def test_learns_what_no_linear_model_can() -> None:
    model, heard = fit()
    assert np.mean((model.predict(X[1500:]) > 0.5) == Y[1500:]) > 0.9
    assert len(heard) == 8
    assert heard[-1]["validation_loss"] < heard[0]["validation_loss"]


def test_same_seed_gives_the_same_weights_and_another_seed_others() -> None:
    assert fit(1)[0].save() == fit(1)[0].save()
    assert fit(1)[0].save() != fit(2)[0].save()


def test_saved_model_predicts_the_same_bits() -> None:
    model, _ = fit()
    np.testing.assert_array_equal(MLP.load(model.save()).predict(X), model.predict(X))


@pytest.mark.parametrize(
    ("params", "field"), [({"epoch": 3}, "epoch"), ({"dropout": 1.5}, "dropout"), ({"epochs": 0}, "epochs")]
)
def test_unknown_or_impossible_param_names_the_field(params: dict, field: str) -> None:
    with pytest.raises(SpecError, match=f"mend candidates.params.{field}"):
        fit(**params)


def test_unknown_trainer_names_the_known_ones() -> None:
    with pytest.raises(SpecError, match="one of mlp"):
        trainer_named("mpl")
