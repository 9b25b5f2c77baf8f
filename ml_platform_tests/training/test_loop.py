"""The loop: early stopping, going on from a checkpoint, and what can go wrong. Several ranks: workloads/test_train.py."""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from ml_platform.core.errors import Interrupted, TrainingError
from ml_platform.core.spec.trainers import LoopParams
from ml_platform.training.loop import learning_rate, train
from ml_platform.training.trainers import Context, Labelled

RNG = np.random.default_rng(0)
X = RNG.normal(size=(203, 3)).astype(np.float32)
ROWS = Labelled(X, (X[:, 0] + RNG.normal(size=203)).astype(np.float32))
TRAIN, HELD_OUT = Labelled(ROWS.x[:150], ROWS.y[:150]), Labelled(ROWS.x[150:], ROWS.y[150:])
PARAMS = LoopParams(epochs=3, batch_size=16, lr=0.01)
STEPS = 10  # per epoch


@dataclass
class Memory:
    """Checkpoints in memory; after `fatal` saves the process is gone."""

    saved: list[Mapping[str, bytes]] = field(default_factory=list)
    fatal: int | None = None

    def load(self) -> Mapping[str, bytes] | None:
        return self.saved[-1] if self.saved else None

    def save(self, files: Mapping[str, bytes]) -> None:
        self.saved.append(files)
        if len(self.saved) == self.fatal:
            raise KeyboardInterrupt


class Network(nn.Sequential):
    def __init__(self) -> None:
        torch.manual_seed(0)
        super().__init__(nn.Linear(3, 8), nn.SiLU(), nn.Dropout(0.3), nn.Linear(8, 1), nn.Flatten(0))


def summed(output: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    return mse_loss(output, labels, reduction="sum")


def fit(
    params: LoopParams = PARAMS, network: nn.Module | None = None, train_rows: Labelled = TRAIN, **context: object
) -> dict[str, torch.Tensor]:
    network = network or Network()
    whole = replace(Context("regression", 0, 5), **context)  # type: ignore[arg-type]
    train(network, summed, params, train_rows, HELD_OUT, whole, torch.device("cpu"))
    return {name: tensor.detach().clone() for name, tensor in network.state_dict().items()}


def same_bits(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("every", [None, 7])
@pytest.mark.parametrize("saves", [1, 2, 3])
def test_killed_after_a_checkpoint_goes_on_to_the_same_bits(every: int | None, saves: int) -> None:
    params = PARAMS.model_copy(update={"checkpoint_every": every, "patience": 2})
    store = Memory(fatal=saves)
    with pytest.raises(KeyboardInterrupt):
        fit(params, checkpoints=store)
    heard: list[int] = []
    store.fatal = None
    resumed = fit(params, checkpoints=store, on_epoch=lambda epoch, _: heard.append(epoch))
    assert same_bits(resumed, fit(params))
    assert heard == [1, 2, 3]


def test_figures_of_an_epoch_that_was_interrupted_are_those_of_the_whole_epoch() -> None:
    heard: list[list[float]] = [[], []]
    fit(on_epoch=lambda _, figures: heard[0].append(figures["train_loss"]))
    params = PARAMS.model_copy(update={"checkpoint_every": 4})
    store = Memory(fatal=4)
    with pytest.raises(KeyboardInterrupt):
        fit(params, checkpoints=store)
    store.fatal = None
    fit(params, checkpoints=store, on_epoch=lambda _, figures: heard[1].append(figures["train_loss"]))
    assert heard[1] == pytest.approx(heard[0], rel=1e-5)


@pytest.mark.parametrize("after", [1, STEPS, STEPS + 3])
def test_interrupted_between_steps_saves_and_goes_on_to_the_same_bits(after: int) -> None:
    store = Memory()
    asked = iter([False] * (after - 1) + [True])
    with pytest.raises(Interrupted, match="goes on from its checkpoint"):
        fit(checkpoints=store, interrupted=lambda: next(asked))
    assert same_bits(fit(checkpoints=store), fit())


def test_interrupted_without_a_place_for_checkpoints_says_so() -> None:
    with pytest.raises(Interrupted, match="starts from the beginning"):
        fit(interrupted=lambda: True)


def test_finished_fit_is_not_fitted_again() -> None:
    store = Memory()
    first = fit(checkpoints=store)
    number = len(store.saved)
    assert same_bits(fit(checkpoints=store), first)
    assert len(store.saved) == number


def test_checkpoint_of_another_fit_is_ignored_with_a_word(caplog: pytest.LogCaptureFixture) -> None:
    store = Memory()
    fit(checkpoints=store)
    changed = Labelled(TRAIN.x + np.float32(1), TRAIN.y)
    with caplog.at_level(logging.WARNING):
        assert same_bits(fit(train_rows=changed, checkpoints=store), fit(train_rows=changed))
    assert "of another fit" in caplog.text


def test_early_stopping_restores_the_best_weights() -> None:
    heard: list[float] = []
    params = PARAMS.model_copy(update={"epochs": 60, "lr": 0.05, "patience": 3, "weight_decay": 0.0})
    network = Network()
    fit(params, network, on_epoch=lambda _, figures: heard.append(figures["validation_loss"]))
    assert len(heard) < 60
    assert heard.index(min(heard)) == len(heard) - 1 - 3
    with torch.inference_mode():
        loss = summed(network.eval()(torch.from_numpy(HELD_OUT.x)), torch.from_numpy(HELD_OUT.y)).item() / 53
    assert loss == pytest.approx(min(heard), rel=1e-6)


def test_loss_that_is_not_finite_names_the_epoch_and_lr() -> None:
    poisoned = Labelled(TRAIN.x, np.where(np.arange(150) == 3, np.nan, TRAIN.y).astype(np.float32))
    with pytest.raises(TrainingError, match=r"training loss is nan in epoch 1.*lower candidates.params.lr"):
        fit(train_rows=poisoned)


class Greedy(Network):
    """Runs out of memory with more than `fits` rows at once."""

    fits = 5

    def forward(self, input: torch.Tensor) -> torch.Tensor:
        if self.training and len(input) > self.fits:
            raise torch.OutOfMemoryError("faked")
        return super().forward(input)


def test_out_of_memory_halves_what_is_computed_at_once_not_the_batch(caplog: pytest.LogCaptureFixture) -> None:
    heard: list[float] = []
    greedy, usual = Greedy(), Network()
    greedy[2], usual[2] = nn.Identity(), nn.Identity()  # dropout draws other numbers for other parts
    with caplog.at_level(logging.WARNING):
        halved = fit(network=greedy, on_epoch=lambda _, figures: heard.append(figures["part_rows"]))
    whole = fit(network=usual)
    assert heard == [4, 4, 4]
    assert [record.message.split(":")[1] for record in caplog.records] == [
        " going on with 8, same batch size",
        " going on with 4, same batch size",
    ]
    for name in whole:
        torch.testing.assert_close(halved[name], whole[name], rtol=1e-4, atol=1e-6)


def test_one_row_that_does_not_fit_is_an_error() -> None:
    greedy = Greedy()
    greedy.fits = 0
    with pytest.raises(TrainingError, match="one row at once does not fit"):
        fit(network=greedy)


def test_learning_rate_rises_then_falls_to_zero() -> None:
    params = LoopParams(lr=1.0, warmup_steps=4)
    rates = [learning_rate(params, number, 20) for number in range(20)]
    assert rates[:5] == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert rates[4:] == sorted(rates[4:], reverse=True)
    assert learning_rate(params, 20, 20) == pytest.approx(0)
