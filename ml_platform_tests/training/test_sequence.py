"""The sequence network: it reads events in their order, forgets nothing over a restart, and ignores what is not there."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from ml_platform.core.errors import Interrupted, SpecError
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers import Context, Labelled, trainer_named
from ml_platform.training.trainers.mlp import MLP
from ml_platform.training.trainers.sequence import Sequence

LENGTH = 8
PADDING = -2.5
FEATURES = (
    *(Feature(f"amounts_{n}", default=PADDING, vector="amounts") for n in range(1, LENGTH + 1)),
    *(Feature(f"days_{n}", default=PADDING, vector="days") for n in range(1, LENGTH + 1)),
    Feature("amount"),
    Feature("shop", categories=3),
)
CONTEXT = Context("binary_classification", 2, 1, features=FEATURES)
PARAMS: dict[str, Any] = {
    "steps": ["amounts", "days"], "width": 16, "hidden": [32], "dropout": 0.0, "epochs": 10, "batch_size": 64, "lr": 0.01,
}  # fmt: skip
CELLS = ("gru", "attention")
each_cell = pytest.mark.parametrize("cell", CELLS)


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Small networks are faster so, by far where other processes want the cores too."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def rows(count: int, seed: int) -> Labelled:
    """Customers with 2 to 8 events. The label: the largest of them came after the smallest, and by how much does not matter."""
    rng = np.random.default_rng(seed)
    events = rng.integers(2, LENGTH + 1, count)
    known = np.arange(LENGTH) < events[:, None]
    amounts = np.where(known, rng.normal(size=(count, LENGTH)), PADDING)
    days = np.where(known, np.cumsum(rng.exponential(0.2, (count, LENGTH)), axis=1) - 1, PADDING)
    newest_high = np.where(known, amounts, -np.inf).argmax(axis=1)
    newest_low = np.where(known, amounts, np.inf).argmin(axis=1)
    others = [rng.normal(size=count), rng.integers(0, 4, count)]
    return Labelled(
        np.column_stack([amounts, days, *others]).astype(np.float32), (newest_high < newest_low).astype(np.int8)
    )


TRAIN, VALIDATION = rows(3_000, 1), rows(500, 2)


def fit(context: Context = CONTEXT, **params: Any) -> Sequence:
    return Sequence.fit({**PARAMS, **params}, TRAIN, VALIDATION, context)


def accuracy(model: Any) -> float:
    return float(np.mean((model.predict(VALIDATION.x) > 0.5) == VALIDATION.y))


@each_cell
def test_learns_the_order_of_events_better_than_an_mlp_does(cell: str) -> None:
    flat = {name: value for name, value in PARAMS.items() if name not in ("steps", "width")}
    mlp = accuracy(MLP.fit(flat, TRAIN, VALIDATION, CONTEXT))
    assert accuracy(fit(cell=cell)) > max(0.9, mlp + 0.04)


@each_cell
@pytest.mark.parametrize("task", ["binary_classification", "multiclass_classification", "regression"])
def test_saved_model_predicts_the_same_bits(cell: str, task: Any) -> None:
    model = fit(replace(CONTEXT, task=task), cell=cell, epochs=1)
    assert not any(content.startswith(b"\x80") for content in model.save().values())  # no pickle
    loaded = trainer_named("sequence").load(model.save())
    np.testing.assert_array_equal(loaded.predict(VALIDATION.x), model.predict(VALIDATION.x))
    assert loaded.save() == model.save()


@each_cell
def test_same_seed_gives_the_same_bytes_and_another_seed_others(cell: str) -> None:
    once = fit(cell=cell, epochs=1, dropout=0.2).save()
    assert fit(cell=cell, epochs=1, dropout=0.2).save() == once
    assert fit(replace(CONTEXT, seed=2), cell=cell, epochs=1, dropout=0.2).save() != once


class Kept:
    """Checkpoints in memory."""

    files: Mapping[str, bytes] | None = None

    def load(self) -> Mapping[str, bytes] | None:
        return self.files

    def save(self, files: Mapping[str, bytes]) -> None:
        self.files = dict(files)


@each_cell
def test_interrupted_fit_goes_on_and_ends_with_the_same_bits(cell: str) -> None:
    options = {"cell": cell, "epochs": 2, "dropout": 0.2}
    whole = fit(**options).save()
    kept, asked = Kept(), iter([*[False] * 60, True])
    with pytest.raises(Interrupted):  # in the second epoch of 47 steps
        fit(replace(CONTEXT, checkpoints=kept, interrupted=lambda: next(asked)), **options)
    heard: list[int] = []
    again = replace(CONTEXT, checkpoints=kept, on_epoch=lambda epoch, _: heard.append(epoch))
    assert fit(again, **options).save() == whole
    assert heard == [1, 2]


def test_checkpoint_of_other_features_is_left_alone(caplog: pytest.LogCaptureFixture) -> None:
    kept = Kept()
    fit(replace(CONTEXT, checkpoints=kept), epochs=1)
    renamed = tuple(replace(f, vector={"amounts": "days", "days": "amounts"}.get(f.vector, "")) for f in FEATURES)
    other = replace(CONTEXT, features=renamed)
    assert fit(replace(other, checkpoints=kept), epochs=1).save() == fit(other, epochs=1).save()
    assert "of another fit" in caplog.text


@each_cell
def test_events_that_are_not_there_leave_no_trace(cell: str) -> None:
    """What a network of eight events says of one with three, it says of the three wherever padding lies."""
    model = fit(cell=cell, epochs=1)
    network: Any = model.network.cell
    events, known = torch.randn(50, LENGTH, 2), torch.arange(LENGTH).expand(50, -1) >= LENGTH - 3
    other = torch.where(known[..., None], events, torch.randn(50, LENGTH, 2))
    with torch.inference_mode():
        torch.testing.assert_close(network(events, known), network(other, known))
        assert not torch.allclose(network(events, known), network(events, torch.ones_like(known)))
        assert torch.isfinite(network(events, torch.zeros_like(known))).all()


def test_default_of_a_step_is_told_from_every_event() -> None:
    network: Any = fit(epochs=1).network
    padded, moved = VALIDATION.x[:200].copy(), VALIDATION.x[:200].copy()
    padded[:, : 2 * LENGTH] = PADDING
    moved[:, : 2 * LENGTH] = PADDING
    moved[:, LENGTH - 1] += 1e-3  # no event has exactly these values
    with torch.inference_mode():
        states = [
            network.cell(part[:, network.steps], known_of(network, part))
            for part in map(torch.from_numpy, (padded, moved))
        ]
    assert (states[0] == 0).all()
    assert (states[1] != 0).any(dim=1).all()


def known_of(network: Any, x: torch.Tensor) -> torch.Tensor:
    return ~torch.isclose(x[:, network.steps], network.padding, rtol=1e-6, atol=1e-6).all(dim=2)


@each_cell
def test_score_of_a_row_depends_on_no_other_row(cell: str) -> None:
    model, x = fit(cell=cell, epochs=1), VALIDATION.x[:40]
    alone = np.concatenate([model.predict(row[None]) for row in x])
    np.testing.assert_allclose(alone, model.predict(x), rtol=1e-5)


@each_cell
def test_no_rows_are_no_error(cell: str) -> None:
    """A rank's share of a small batch may be empty."""
    network = fit(cell=cell, epochs=1).network.train()
    network(torch.zeros(0, len(FEATURES))).sum().backward()
    assert all(parameter.grad is not None for parameter in network.parameters())


@pytest.mark.parametrize(
    ("params", "said"),
    [
        ({"steps": ["amonts"]}, "no vector feature 'amonts'; did you mean `amounts`"),
        ({"steps": []}, "steps"),
        ({"cell": "lstm"}, "cell"),
        ({"cell": "attention", "width": 6, "heads": 4}, r"width \(6\) is no multiple of heads \(4\)"),
        ({"embeddings": {"shops": 2}}, "no feature 'shops' with categories; did you mean `shop`"),
        ({"embeddings": {"amount": 2}}, "no feature 'amount' with categories"),
    ],
)
def test_impossible_params_are_refused(params: dict[str, Any], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        fit(**params)


def test_vectors_of_two_lengths_are_refused() -> None:
    context = replace(CONTEXT, features=(*FEATURES[:-3], replace(FEATURES[-3], vector=""), *FEATURES[-2:]))
    with pytest.raises(SpecError, match="vectors differ in length: amounts has 8, days has 7"):
        fit(context)
