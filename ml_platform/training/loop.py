"""The training loop: alone, or with other ranks; from the beginning, or from a checkpoint.

Every rank has all rows and takes its share of each global batch, so that the number of ranks changes speed, not the batches.
"""

import logging
import math
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from zlib import crc32

import torch
from torch import nn

from ml_platform.core.errors import Interrupted, TrainingError
from ml_platform.core.spec.trainers import LoopParams
from ml_platform.training import checkpoint
from ml_platform.training.checkpoint import Progress, State
from ml_platform.training.ranks import Ranks
from ml_platform.training.trainers import Context, Labelled

LOG = logging.getLogger(__name__)
SUBJECT = "training"
EVALUATED_ROWS = 65_536  # rows that are put through the network at once where no gradient is needed

Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Rows:
    """Features and labels: on the device if they take less than half of its free memory, else moved batch by batch."""

    x: torch.Tensor
    y: torch.Tensor
    device: torch.device

    @classmethod
    def of(cls, labelled: Labelled, device: torch.device) -> "Rows":
        """Labels are float32, or int64 where they are class numbers of a network with several outputs."""
        x, y = torch.from_numpy(labelled.x), torch.from_numpy(labelled.y)
        if device.type == "cuda" and x.nbytes + y.nbytes > torch.cuda.mem_get_info(device)[0] // 2:
            return cls(x, y, device)
        return cls(x.to(device), y.to(device), device)

    def __len__(self) -> int:
        return len(self.x)

    def at(self, index: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x, y = self.x.index_select(0, index), self.y.index_select(0, index)
        if x.device == self.device:
            return x, y
        return tuple(part.pin_memory().to(self.device, non_blocking=True) for part in (x, y))  # type: ignore[return-value]

    def orders(self, seed: int, epoch: int) -> Iterator[torch.Tensor]:
        """Each epoch's order, from this epoch on. The next one is drawn while one trains: a fifth of an epoch on a fast device."""
        with ThreadPoolExecutor(1) as pool:
            drawn = pool.submit(self.shuffled, seed, epoch)
            while True:
                order, epoch = drawn.result(), epoch + 1
                drawn = pool.submit(self.shuffled, seed, epoch)
                yield order

    def shuffled(self, seed: int, epoch: int) -> torch.Tensor:
        """Row numbers in the epoch's order, the same at every rank."""
        order = torch.randperm(len(self), generator=torch.Generator().manual_seed(_seed(seed, epoch)))
        return order.to(self.x.device)


@dataclass(frozen=True)
class Step:
    """All that one optimizer step needs beside the state. `weights` are the network's parameters."""

    forward: Callable[[torch.Tensor], torch.Tensor]
    weights: list[nn.Parameter]
    loss: Loss
    rows: Rows
    params: LoopParams
    seed: int
    ranks: Ranks

    def take(self, state: State, batch: torch.Tensor, number: int, steps: int) -> torch.Tensor:
        """Step `number` of `steps` of the whole fit, on one global batch; returns the loss summed over this rank's rows."""
        for group in state.optimizer.param_groups:
            group["lr"] = learning_rate(self.params, number, steps)
        loss_sum = self.gradients(state, batch, number)
        self.ranks.sum_gradients(self.weights)
        nn.utils.clip_grad_norm_(self.weights, self.params.clip_norm)
        state.optimizer.step()
        return loss_sum

    def gradients(self, state: State, batch: torch.Tensor, number: int) -> torch.Tensor:
        """This rank's part of the gradient of the mean loss over the global batch; in smaller parts if memory runs out."""
        while True:
            try:
                return self.accumulated(state, batch, number)
            except torch.OutOfMemoryError as error:
                rows = state.progress.part_rows
                if rows == 1:
                    problem = "one row at once does not fit into the memory of the device"
                    raise TrainingError(SUBJECT, problem, "make candidates.params.hidden smaller") from error
            # Out of the except block, since the error keeps the tensors of the failed step alive.
            state.progress.part_rows = rows // 2
            state.progress.halvings += 1
            LOG.warning("out of memory with %d rows at once: going on with %d, same batch size", rows, rows // 2)
            if self.rows.device.type == "cuda":
                torch.cuda.empty_cache()

    def accumulated(self, state: State, batch: torch.Tensor, number: int) -> torch.Tensor:
        _seed_dropout(_seed(self.seed, number, self.ranks.rank), self.rows.device)
        state.optimizer.zero_grad(set_to_none=True)
        loss_sum = torch.zeros((), device=self.rows.device)
        share, at_once = self.ranks.share(batch), state.progress.part_rows
        for part in share.split(at_once) if len(share) > at_once else (share,):
            x, y = self.rows.at(part)
            with _autocast(self.params, self.rows.device):
                output = self.forward(x)
            loss = self.loss(output.float(), y)
            (loss / len(batch)).backward()
            loss_sum += loss.detach()
        return loss_sum


def train(
    network: nn.Module,
    loss: Loss,
    params: LoopParams,
    training: Labelled,
    validation: Labelled,
    context: Context,
    device: torch.device,
) -> None:
    """Fit `network` in place with AdamW; `loss` is (output, labels) -> sum over rows. The same seed gives the same weights.

    Reports per epoch, at the first rank: train_loss, validation_loss, rows_per_second, part_rows (rows that a rank puts through
    the network at once), halvings (how often memory ran out, which halved part_rows), epochs (how many there will be at
    most). A fit that goes on from a checkpoint reports the epochs before it again.

    Raises:
        TrainingError: if the loss is not a finite number.
        Interrupted: if `context.interrupted` said yes; there is a checkpoint then, if there is a place for one.
    """
    ranks, rows, held_out = Ranks.current(), Rows.of(training, device), Rows.of(validation, device)
    weights = list(network.parameters())
    # Fused: one pass over the weights; on a CPU a third of the time.
    optimizer = torch.optim.AdamW(weights, lr=params.lr, weight_decay=params.weight_decay, fused=True)
    state = State(network, optimizer, Progress(part_rows=-(-params.batch_size // ranks.size)))
    forward = torch.compile(network) if params.compile else network
    one_step = Step(forward, weights, loss, rows, params, context.seed, ranks)
    checkpoints = _Checkpointing(params, context, ranks, training, validation)
    checkpoints.resume(state)
    per_epoch = -(-len(rows) // params.batch_size)
    orders = rows.orders(context.seed, state.progress.epoch)

    while not _finished(params, state.progress):
        progress, began, loss_sum = state.progress, time.perf_counter(), torch.zeros((), device=device)
        rows_before = progress.step * params.batch_size
        network.train()
        for batch in next(orders).split(params.batch_size)[progress.step :]:
            number = (progress.epoch - 1) * per_epoch + progress.step
            loss_sum += one_step.take(state, batch, number, params.epochs * per_epoch)
            progress.step += 1
            checkpoints.after_step(state, loss_sum, number + 1)

        train_loss = _finite(progress.loss_sum + ranks.sum(loss_sum.item()), "training", progress) / len(rows)
        seconds = time.perf_counter() - began
        validation_loss = ranks.from_first(_mean_loss(network, loss, held_out, params) if ranks.is_first else 0.0)
        figures = {
            "train_loss": train_loss,
            "validation_loss": _finite(validation_loss, "validation", progress),
            "rows_per_second": max(0, len(rows) - rows_before) / seconds,
            "part_rows": float(progress.part_rows),
            "epochs": float(params.epochs),
            "halvings": float(progress.halvings),
        }
        if ranks.is_first:
            context.on_epoch(progress.epoch, figures)
        _end_epoch(state, figures, keep_best=params.patience is not None)
        checkpoints.after_epoch(state)

    if state.best:
        network.load_state_dict(state.best)


def learning_rate(params: LoopParams, number: int, steps: int) -> float:
    """The rate of step `number` (from 0): a linear rise over `warmup_steps`, then half a cosine to zero at `steps`."""
    if number < params.warmup_steps:
        return params.lr * (number + 1) / params.warmup_steps
    share = (number - params.warmup_steps) / max(1, steps - params.warmup_steps)
    return params.lr * (1 + math.cos(math.pi * share)) / 2


@contextmanager
def deterministic(wanted: bool) -> Iterator[None]:
    """Within the block torch refuses operations that may give other bits the next time. Not for threads: it is global."""
    before = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(wanted or before)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(before)


class _Checkpointing:
    """When a fit is saved, and how it is taken up again. Only the first rank reads and writes."""

    def __init__(
        self, params: LoopParams, context: Context, ranks: Ranks, training: Labelled, validation: Labelled
    ) -> None:
        self.every = params.checkpoint_every
        self.context = context
        self.ranks = ranks
        self.store = context.checkpoints if ranks.is_first else None
        self.fingerprint = checkpoint.fingerprint(params, training, validation, context) if self.store else ""

    def resume(self, state: State) -> None:
        files = self.store.load() if self.store else None
        if files is not None and checkpoint.fingerprint_of(files) != self.fingerprint:
            LOG.warning("the checkpoint is of another fit (other rows, params or seed): starting from the beginning")
            files = None
        files = self.ranks.files_from_first(files)
        if files is None:
            return
        checkpoint.restore(state, files)
        if not self.ranks.is_first:
            state.progress.loss_sum = 0.0  # it is over all ranks, and counted once
            return
        LOG.info("going on from the checkpoint in epoch %d after step %d", state.progress.epoch, state.progress.step)
        for epoch, figures in enumerate(state.progress.figures, 1):
            self.context.on_epoch(epoch, figures)

    def after_step(self, state: State, loss_sum: torch.Tensor, number: int) -> None:
        interrupted = self.ranks.any(self.context.interrupted())
        if interrupted or (self.every and number % self.every == 0):
            self._save(state, loss_sum)
        if interrupted:
            self.ranks.sum(0)  # nobody leaves before the checkpoint is there
            where = f"stopped in epoch {state.progress.epoch} after step {state.progress.step}"
            kept = "goes on from its checkpoint" if self.context.checkpoints else "starts from the beginning"
            raise Interrupted(SUBJECT, where, f"run it again: it {kept}")

    def after_epoch(self, state: State) -> None:
        if not self.every:
            self._save(state, torch.zeros(()))

    def _save(self, state: State, loss_sum: torch.Tensor) -> None:
        """`loss_sum` is of this rank's steps since the epoch began, or since it was taken up again."""
        total = state.progress.loss_sum + self.ranks.sum(loss_sum.item())
        if self.store:
            _finite(total, "training", state.progress)
            saved = State(
                state.network, state.optimizer, state.progress.model_copy(update={"loss_sum": total}), state.best
            )
            self.store.save(checkpoint.to_files(saved, self.fingerprint))


def _finished(params: LoopParams, progress: Progress) -> bool:
    stale = progress.epoch - 1 - progress.best_epoch
    return progress.epoch > params.epochs or (params.patience is not None and stale >= params.patience)


def _end_epoch(state: State, figures: dict[str, float], keep_best: bool) -> None:
    progress, loss = state.progress, figures["validation_loss"]
    if keep_best and (progress.best_loss is None or loss < progress.best_loss):
        progress.best_epoch, progress.best_loss = progress.epoch, loss
        state.best = {name: tensor.detach().clone() for name, tensor in state.network.state_dict().items()}
    progress.figures.append(figures)
    progress.epoch, progress.step, progress.loss_sum = progress.epoch + 1, 0, 0.0


def _mean_loss(network: nn.Module, loss: Loss, rows: Rows, params: LoopParams) -> float:
    network.eval()
    total = 0.0
    with torch.inference_mode(), _autocast(params, rows.device):
        for part in torch.arange(len(rows), device=rows.x.device).split(EVALUATED_ROWS):
            x, y = rows.at(part)
            total += loss(network(x).float(), y).item()
    return total / len(rows)


def _finite(loss: float, which: str, progress: Progress) -> float:
    if not math.isfinite(loss):
        problem = f"the {which} loss is {loss} in epoch {progress.epoch}"
        raise TrainingError(SUBJECT, problem, "lower candidates.params.lr, or look for values that are not finite")
    return loss


def _autocast(params: LoopParams, device: torch.device) -> torch.autocast | nullcontext[None]:
    mixed = params.precision == "bfloat16" and device.type == "cuda"
    return torch.autocast(device.type, torch.bfloat16) if mixed else nullcontext()


def _seed(*numbers: int) -> int:
    """One seed out of several numbers, 32 bits."""
    return crc32(" ".join(map(str, numbers)).encode())


def _seed_dropout(seed: int, device: torch.device) -> None:
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
