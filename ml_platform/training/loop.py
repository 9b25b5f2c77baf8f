"""The training loop."""

import time
from collections.abc import Callable

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field
from torch import nn
from torch.nn.functional import binary_cross_entropy_with_logits


class LoopParams(BaseModel):
    model_config = ConfigDict(extra="forbid")
    epochs: int = Field(default=10, ge=1)
    batch_size: int = Field(default=512, ge=1)
    lr: float = Field(default=2e-3, gt=0, description="peak learning rate; falls to zero along a cosine")
    weight_decay: float = Field(default=1e-2, ge=0)
    clip_norm: float = Field(default=1.0, gt=0)


def train(
    network: nn.Module,
    params: LoopParams,
    x: np.ndarray,
    y: np.ndarray,
    validation: tuple[np.ndarray, np.ndarray],
    seed: int,
    device: torch.device,
    on_epoch: Callable[[int, dict[str, float]], None],
) -> None:
    """Fit `network` in place with AdamW; the same seed gives the same weights.

    Reports per epoch: train_loss, validation_loss, rows_per_second.
    """
    features = torch.from_numpy(x).to(device)
    labels = torch.from_numpy(y.astype(np.float32)).to(device)
    held_out = torch.from_numpy(validation[0]).to(device), torch.from_numpy(validation[1].astype(np.float32)).to(device)

    optimizer = torch.optim.AdamW(network.parameters(), lr=params.lr, weight_decay=params.weight_decay)
    steps = -(-len(features) // params.batch_size)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=params.epochs * steps)
    shuffle = torch.Generator().manual_seed(seed)

    for epoch in range(1, params.epochs + 1):
        began = time.perf_counter()
        network.train()
        total_loss = torch.zeros((), device=device)
        for batch in torch.randperm(len(features), generator=shuffle).to(device).split(params.batch_size):
            loss = binary_cross_entropy_with_logits(network(features[batch]), labels[batch])
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(network.parameters(), params.clip_norm)
            optimizer.step()
            schedule.step()
            total_loss += loss.detach() * len(batch)
        train_loss = total_loss.item() / len(features)
        rows_per_second = len(features) / (time.perf_counter() - began)

        network.eval()
        with torch.inference_mode():
            validation_loss = binary_cross_entropy_with_logits(network(held_out[0]), held_out[1]).item()
        on_epoch(
            epoch, {"train_loss": train_loss, "validation_loss": validation_loss, "rows_per_second": rows_per_second}
        )
