"""The processes that fit one model together: one alone, or as many as torchrun started, on one node or several."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import nn

from ml_platform.training.packing import pack, unpack


@dataclass(frozen=True)
class Ranks:
    """This process's place among them. Every method that talks must be called by all of them, in the same order."""

    rank: int
    size: int

    @classmethod
    def current(cls) -> "Ranks":
        return cls(dist.get_rank(), dist.get_world_size()) if dist.is_initialized() else cls(0, 1)

    @property
    def is_first(self) -> bool:
        return self.rank == 0

    def share(self, batch: torch.Tensor) -> torch.Tensor:
        """This rank's rows of a global batch; shares differ by one row at most, and may be empty."""
        return batch.tensor_split(self.size)[self.rank] if self.size > 1 else batch

    def sum_gradients(self, weights: Iterable[nn.Parameter]) -> None:
        """Replace every gradient by its sum over all ranks, in one message."""
        if self.size == 1:
            return
        gradients = [parameter.grad for parameter in weights if parameter.grad is not None]
        flat = torch.cat([gradient.reshape(-1) for gradient in gradients])
        dist.all_reduce(flat)
        for gradient, summed in zip(gradients, flat.split([gradient.numel() for gradient in gradients]), strict=True):
            gradient.copy_(summed.view_as(gradient))

    def sum(self, value: float) -> float:
        if self.size == 1:
            return value
        shared = torch.tensor(value, dtype=torch.float64)
        dist.all_reduce(shared)
        return shared.item()

    def any(self, flag: bool) -> bool:
        return self.sum(float(flag)) > 0

    def from_first(self, value: float) -> float:
        """The first rank's value, at all of them."""
        return self.sum(value if self.is_first else 0.0)

    def files_from_first(self, files: Mapping[str, bytes] | None) -> Mapping[str, bytes] | None:
        """The first rank's files, at all of them; as plain bytes, since torch's own way to send objects is pickle."""
        if self.size == 1:
            return files
        packed = pack(files) if self.is_first and files is not None else b""
        length = int(self.from_first(len(packed)))
        if length == 0:
            return None
        message = torch.frombuffer(bytearray(packed) if self.is_first else bytearray(length), dtype=torch.uint8)
        dist.broadcast(message, src=0)
        return unpack(message.numpy().tobytes())
