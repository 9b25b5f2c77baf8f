"""A network that reads an entity's last events in their order, beside features of the moment.

The events are columns like all others: vectors of one length, the newest event first. A recurrent cell (K. Cho et al.,
"Learning Phrase Representations using RNN Encoder-Decoder", 2014) or attention (A. Vaswani et al., "Attention Is All You
Need", 2017) makes one vector of them, which joins the other features before the hidden layers.
"""

import collections.abc
from itertools import chain
from typing import Any, Literal

import torch
from torch import nn

from ml_platform.core.errors import SpecError
from ml_platform.core.mistakes import nearest
from ml_platform.core.spec.trainers import SequenceParams
from ml_platform.features.transforms import Feature
from ml_platform.training.trainers.network import Architecture, Inputs, NetworkTrainer

SAME = 1e-6  # how near a float32 must be to the default to be it: another processor may round the transforms otherwise


class SequenceArchitecture(Architecture):
    """`steps` has the positions of each event's features, [events][features], the oldest event first; `padding` the values
    that all of them have where there is no such event."""

    steps: tuple[tuple[int, ...], ...]
    padding: tuple[float, ...]
    cell: Literal["gru", "attention"]
    width: int
    heads: int

    def build(self) -> nn.Module:
        return Network(self)


class Sequence(NetworkTrainer):
    """A GRU or attention over events, then linear layers with SiLU and dropout."""

    name = "sequence"
    params = SequenceParams
    architecture_class = SequenceArchitecture

    @classmethod
    def arranged(cls, params: SequenceParams, features: collections.abc.Sequence[Feature]) -> dict[str, Any]:
        columns = {name: [at for at, f in enumerate(features) if f.vector == name] for name in params.steps}
        if unknown := [name for name, positions in columns.items() if not positions]:
            hint = nearest(unknown[0], {feature.vector for feature in features})
            raise _refused(f"no vector feature {unknown[0]!r}{hint}")
        lengths = {name: len(positions) for name, positions in columns.items()}
        if len(set(lengths.values())) > 1:
            raise _refused(f"vectors differ in length: {', '.join(f'{n} has {k}' for n, k in lengths.items())}")
        return {
            "steps": tuple(zip(*(reversed(positions) for positions in columns.values()), strict=True)),
            "padding": tuple(features[positions[0]].default for positions in columns.values()),
            "cell": params.cell,
            "width": params.width,
            "heads": params.heads,
        }


class Network(nn.Module):
    def __init__(self, architecture: SequenceArchitecture) -> None:
        super().__init__()
        self.steps: torch.Tensor
        self.padding: torch.Tensor
        self.register_buffer("steps", torch.tensor(architecture.steps), persistent=False)
        self.register_buffer("padding", torch.tensor(architecture.padding), persistent=False)
        read = set(chain.from_iterable(architecture.steps))
        others = [position for position in range(architecture.features) if position not in read]
        self.inputs = Inputs(others, architecture.embeddings)
        self.cell = (Recurrent if architecture.cell == "gru" else Attention)(architecture)
        self.layers = architecture.layers(architecture.width + self.inputs.width)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        events = x[:, self.steps]
        known = ~torch.isclose(events, self.padding, rtol=SAME, atol=SAME).all(dim=2)
        return self.layers(torch.cat([self.cell(events, known), self.inputs(x)], dim=1))


class Recurrent(nn.Module):
    """events [rows, events, features], known [rows, events] -> [rows, width]. What is not known leaves no trace."""

    def __init__(self, architecture: SequenceArchitecture) -> None:
        super().__init__()
        self.cell = nn.GRUCell(len(architecture.padding), architecture.width)

    def forward(self, events: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        state = events.new_zeros(len(events), self.cell.hidden_size)
        for event, is_known in zip(events.unbind(1), known.unbind(1), strict=True):
            state = torch.where(is_known[:, None], self.cell(event, state), state)
        return state


class Attention(nn.Module):
    """The same by one layer of self-attention; a token that is always known stands for the whole."""

    def __init__(self, architecture: SequenceArchitecture) -> None:
        super().__init__()
        width = architecture.width
        self.lift = nn.Linear(len(architecture.padding), width)
        self.whole = nn.Parameter(torch.zeros(1, 1, width))
        self.position = nn.Parameter(torch.randn(len(architecture.steps), width) * 0.1)
        self.layer = nn.TransformerEncoderLayer(
            width, architecture.heads, 2 * width, architecture.dropout, batch_first=True, norm_first=True
        )

    def forward(self, events: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        if not len(events):  # a rank's share of a small batch may be empty, and attention needs a row
            return self(events.new_zeros(1, *events.shape[1:]), known.new_zeros(1, *known.shape[1:]))[:0]
        tokens = torch.cat([self.whole.expand(len(events), -1, -1), self.lift(events) + self.position], dim=1)
        unknown = torch.cat([known.new_zeros(len(events), 1), ~known], dim=1)
        return self.layer(tokens, src_key_padding_mask=unknown)[:, 0]


def _refused(problem: str) -> SpecError:
    return SpecError("trainer sequence", f"steps: {problem}", "mend candidates.params.steps")
