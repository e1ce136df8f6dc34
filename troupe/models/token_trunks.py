"""How networks of tokens read an observation: float `[n, L]` of ids, 0 for padding, to features `[n, 1 + P, D]`.

First the pooled state, then the tokens that actions point at.

Legend: n rows, L tokens, V vocabulary, D width, P tokens that actions point at, M <= L columns that hold a token.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from troupe.models.config import HRMNetConfig, TokenNetConfig, TRMNetConfig
from troupe.models.hrm import HRMCore
from troupe.models.recursion import (
    BlockSizes,
    Carry,
    Context,
    Stack,
    detached,
    feedforward_width,
    truncated_normal,
)
from troupe.models.trm import TRMCore

__all__ = ["BlockTrunk", "Embedding", "MlpTrunk", "Pooling", "RecursiveTrunk", "dense", "steps_of", "token_trunk"]

ROUND_TO = 32
"""Feed-forward layers are as wide as the next multiple of this."""


def token_trunk(
    config: TokenNetConfig, vocabulary: int, length: int, pointers: int, generator: torch.Generator
) -> nn.Module:
    """The trunk of `config.kind`."""
    made: type[MlpTrunk | BlockTrunk | RecursiveTrunk] = RecursiveTrunk
    if config.kind == "mlp":
        made = MlpTrunk
    elif config.kind in ("transformer", "mixer"):
        made = BlockTrunk
    return made(config, vocabulary, length, pointers, generator)


class MlpTrunk(nn.Module):
    """Hidden layers over the embeddings of all tokens side by side; a token that actions point at is told apart by its
    embedding, its position and the state around it: relu(W e_p + U h + b_p)."""

    def __init__(
        self, config: TokenNetConfig, vocabulary: int, length: int, pointers: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.pointers = pointers
        table = truncated_normal((vocabulary, config.embedding), 1.0, generator)
        table[0] = 0.0
        self.tokens = nn.Parameter(table)
        width = length * config.embedding
        self.layers = nn.Sequential()
        for _ in range(config.layers):
            self.layers.append(dense(width, config.hidden, generator)).append(nn.ReLU())
            width = config.hidden
        self.pointed: nn.Linear | None = None
        if pointers:
            self.pointed = dense(config.embedding, width, generator)
            self.around = dense(width, width, generator)
            self.places = nn.Parameter(torch.zeros(pointers, width))

    def forward(self, observations: Tensor) -> Tensor:
        """float `[n, L]` -> `[n, 1 + P, D]`."""
        embedded = functional.embedding(observations.long(), self.tokens, padding_idx=0)
        pooled = self.layers(embedded.flatten(1))[:, None]
        if self.pointed is None:
            return pooled
        tokens = self.pointed(embedded[:, : self.pointers]) + self.around(pooled) + self.places
        return torch.cat((pooled, torch.relu(tokens)), dim=1)


class Embedding(nn.Module):
    """E[token] + position, of unit variance, and which tokens are no padding.

    Columns behind the last token of a batch are left out, but for the first `least`: they would cost time and say
    nothing.
    """

    def __init__(self, vocabulary: int, length: int, width: int, least: int, generator: torch.Generator) -> None:
        super().__init__()
        self.least = max(1, least)
        self.tokens = nn.Parameter(truncated_normal((vocabulary, width), math.sqrt(0.5), generator))
        self.positions = nn.Parameter(truncated_normal((length, width), math.sqrt(0.5), generator))

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """float `[n, L]` -> (`[n, M, D]`, bool `[n, M]`), M <= L. The first position always counts: attention needs
        one."""
        ids = observations.long()
        filled = (ids > 0).any(0).nonzero()
        ids = ids[:, : max(self.least, int(filled[-1]) + 1 if len(filled) else 0)]
        held = ids > 0
        held[:, 0] = True
        return functional.embedding(ids, self.tokens) + self.positions[: ids.shape[1]], held


class Pooling(nn.Module):
    """relu(W [mean, max] + b) over the tokens that are no padding, put in front of those that actions point at."""

    def __init__(self, width: int, pointers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.pointers = pointers
        self.layer = dense(2 * width, width, generator)

    def forward(self, x: Tensor, held: Tensor) -> Tensor:
        """`[n, L, D]` and bool `[n, L]` -> `[n, 1 + P, D]`."""
        column = held[:, :, None]
        mean = (x * column).sum(1) / held.sum(1, keepdim=True)
        highest = x.masked_fill(~column, -torch.inf).amax(1)
        pooled = torch.relu(self.layer(torch.cat((mean.to(x.dtype), highest), dim=-1)))
        return torch.cat((pooled[:, None], x[:, : self.pointers]), dim=1)


class BlockTrunk(nn.Module):
    """Blocks of attention (`transformer`) or of layers along the positions (`mixer`), once through."""

    def __init__(
        self, config: TokenNetConfig, vocabulary: int, length: int, pointers: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        mixed = length if config.kind == "mixer" else 0
        self.embedding = Embedding(vocabulary, length, config.hidden, mixed or pointers, generator)
        sizes = BlockSizes(config.hidden, config.heads, _inner(config, config.hidden), mixed, _inner(config, length))
        self.blocks = Stack(sizes, config.layers, generator)
        self.pooling = Pooling(config.hidden, pointers, generator)

    def forward(self, observations: Tensor) -> Tensor:
        """float `[n, L]` -> `[n, 1 + P, D]`."""
        x, held = self.embedding(observations)
        return self.pooling(self.blocks(x, None, Context(mask=held[:, None, None])), held)


class RecursiveTrunk(nn.Module):
    """HRM or TRM for a fixed number of segments, without halting. Gradients reach the last segment only, as published;
    `steps` gives the features after each."""

    def __init__(
        self, config: TokenNetConfig, vocabulary: int, length: int, pointers: int, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.segments = config.segments
        self.embedding = Embedding(vocabulary, length, config.hidden, pointers, generator)
        self.core = _core(config, generator)
        self.pooling = Pooling(config.hidden, pointers, generator)

    def forward(self, observations: Tensor) -> Tensor:
        """float `[n, L]` -> `[n, 1 + P, D]` after the last segment."""
        x, held = self.embedding(observations)
        mask = held[:, None, None]
        carry = self.core.initial_carry(len(x), x.shape[1])
        with torch.no_grad():
            for _ in range(self.segments - 1):
                carry = self.core(carry, x, mask)
        return self.pooling(self.core(carry, x, mask).high, held)

    def steps(self, observations: Tensor) -> list[Tensor]:
        """`[n, 1 + P, D]` after each segment; the carry between them is detached."""
        x, held = self.embedding(observations)
        carry: Carry = self.core.initial_carry(len(x), x.shape[1])
        found = []
        for _ in range(self.segments):
            carry = self.core(carry, x, held[:, None, None])
            found.append(self.pooling(carry.high, held))
            carry = detached(carry)
        return found


def _core(config: TokenNetConfig, generator: torch.Generator) -> HRMCore | TRMCore:
    sizes: dict[str, Any] = {
        "hidden": config.hidden,
        "heads": config.heads,
        "expansion": config.expansion,
        "round_to": ROUND_TO,
        "positions": "learned",
    }
    if config.kind == "hrm":
        layers = {"h_layers": config.layers, "l_layers": config.layers}
        return HRMCore(HRMNetConfig(**sizes, **layers, h_cycles=config.cycles, l_cycles=config.updates), generator)
    return TRMCore(TRMNetConfig(**sizes, layers=config.layers, rounds=config.cycles, updates=config.updates), generator)


def steps_of(trunk: nn.Module, observations: Tensor) -> list[Tensor]:
    """The features after each segment; one where there is no recursion."""
    return trunk.steps(observations) if isinstance(trunk, RecursiveTrunk) else [trunk(observations)]


def dense(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """He et al. 2015 (arXiv:1502.01852), bias 0."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs)
    nn.init.normal_(layer.weight, std=math.sqrt(2.0 / inputs), generator=generator)
    nn.init.zeros_(layer.bias)
    return layer


def _inner(config: TokenNetConfig, width: int) -> int:
    return feedforward_width(width, config.expansion, ROUND_TO)
