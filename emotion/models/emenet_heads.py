"""EMENet's temporal heads: features [S, L, F] (S steps, L lanes that never meet) -> logits of every step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.nn.functional as F
from torch import Tensor, nn

HEADS = ("gru", "lstm", "rnn_tanh", "rnn_relu", "transformer")
CELLS = {"gru": nn.GRU, "lstm": nn.LSTM, "rnn_tanh": nn.RNN, "rnn_relu": nn.RNN}


class RecurrentHead(nn.Module):
    """GRU, LSTM or plain RNN, dropout, linear; `small`: the linear layer starts within 0.1, as in the VA variant."""

    def __init__(
        self, depth: int, hidden: int, outputs: int, layers: int, dropout: float, cell: str, small: bool = False
    ) -> None:
        super().__init__()
        kind = {"nonlinearity": cell.removeprefix("rnn_")} if cell.startswith("rnn_") else {}
        self.rnn = CELLS[cell](depth, hidden, layers, dropout=dropout if layers > 1 else 0.0, **kind)
        self.dropout = nn.Dropout(dropout)
        self.decoder = nn.Linear(hidden, outputs)
        if small:
            nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [S, L, outputs] and the state after the last step, [parts, L, hidden].

        Parts are the layers; an LSTM has twice as many (hidden states, then cells).
        """
        if isinstance(self.rnn, nn.LSTM):
            y, after = self.rnn(x, None if state is None else tuple(t.contiguous() for t in state.chunk(2)))
            after = torch.cat(after)
        else:
            y, after = self.rnn(x, None if state is None else state.contiguous())
        return self.decoder(self.dropout(y)), after


class TransformerHead(nn.Module):
    """Linear, sinusoidal positions, causal post-norm encoder layers, linear; it keeps no state."""

    def __init__(self, depth: int, hidden: int, outputs: int, layers: int, dropout: float, attention: int) -> None:
        super().__init__()
        self.linear = nn.Linear(depth, hidden)
        self.dropout = nn.Dropout(dropout)
        self.encoder = nn.ModuleList(
            nn.TransformerEncoderLayer(hidden, attention, hidden, dropout) for _ in range(layers)
        )
        self.decoder = nn.Linear(hidden, outputs)
        nn.init.uniform_(self.decoder.weight, -0.1, 0.1)

    def forward(self, x: Tensor, state: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Logits [S, L, outputs] and an empty state [0, L, hidden]."""
        y = F.relu(self.linear(x))
        steps, lanes, width = y.shape
        y = self.dropout(y * math.sqrt(width) + sinusoids(steps, width).to(y)[:, None])
        mask = nn.Transformer.generate_square_subsequent_mask(steps, device=y.device)
        for layer in self.encoder:
            y = layer(y, src_mask=mask)
        return self.decoder(y), y.new_zeros(0, lanes, width)


def sinusoids(steps: int, width: int) -> Tensor:
    """Position table [steps, width] of Vaswani et al. 2017: sine on even, cosine on odd channels."""
    rates = torch.exp(torch.arange(0, width, 2) * (-math.log(10000.0) / width))
    angles = torch.arange(steps)[:, None] * rates
    return torch.stack([angles.sin(), angles.cos()], dim=-1).flatten(1)


@contextmanager
def dropping(heads: nn.Module, seed: int) -> Iterator[None]:
    """Dropout at prediction time: heads in training mode, which to them means dropout alone, with masks from `seed`.

    A dropout layer drops the same units of all frames that it is given, which makes one thinned network of a pass: what
    is said of a frame depends neither on its batch nor on the device. (Attention weights, and what goes from one
    recurrent layer to the next, are dropped one by one.)
    """
    layers = [m for m in heads.modules() if isinstance(m, nn.Dropout)]
    hooks = [layer.register_forward_hook(_same_units) for layer in layers]
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        try:
            heads.train()
            for layer in layers:
                layer.eval()  # the hook drops in its place; its own draws depend on the number of frames
            yield
        finally:
            heads.eval()
            for hook in hooks:
                hook.remove()


def _same_units(layer: nn.Dropout, inputs: tuple[Tensor], _: Tensor) -> Tensor:
    x = inputs[0]
    kept = torch.rand(x.shape[-1]) >= layer.p
    return x * kept.to(x) / (1 - layer.p)
