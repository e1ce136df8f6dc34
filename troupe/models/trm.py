"""The Tiny Recursive Model (Jolicoeur-Martineau 2025, arXiv:2510.04871): one small network that thinks and answers.

    net = TRM(TRMNetConfig(mlp_t=True), vocabulary=11, length=81, outputs=11)
    carry = net.initial_carry(n)
    for _ in range(16):                 # each segment has its loss and its optimiser step
        segment = net(carry, tokens)
        carry = segment.carry

One segment, with x the embedded tokens, y the answer and z the latent, T = 3 rounds of n = 6 updates:

    repeat T times:
        repeat n times:  z <- net(z + y + x)
        y <- net(y + z)
    logits = W y,   q_halt = w_q y[0] + b_q,   which halts above 0

The first T - 1 rounds run without gradient; the gradient goes back through the whole of the last one.

`PlainTransformer` is the same blocks once through, with the same interface: the baseline.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError
from troupe.models.config import PlainConfig, TRMNetConfig
from troupe.models.recursion import (
    BlockSizes,
    Carry,
    Context,
    Readout,
    Segment,
    Stack,
    TokenEmbedding,
    feedforward_width,
    fresh_autocast,
    rotary_tables,
    truncated_normal,
)

__all__ = ["TRM", "PlainTransformer", "TRMCore"]


class TRMCore(nn.Module):
    """The one network and the states that it begins with, for any embedded input `[n, L, D]`. With `mlp_t`, L is
    `length` for ever."""

    begin_high: Tensor
    begin_low: Tensor

    def __init__(self, config: TRMNetConfig, generator: torch.Generator, length: int = 0) -> None:
        super().__init__()
        self.config = config
        self.level = Stack(_sizes(config, length, config.inner), config.layers, generator)
        self.register_buffer("begin_high", truncated_normal((config.hidden,), 1.0, generator))
        self.register_buffer("begin_low", truncated_normal((config.hidden,), 1.0, generator))

    def initial_carry(self, n: int, length: int) -> Carry:
        """The fixed states that every puzzle begins with."""
        return Carry(self.begin_high.expand(n, length, -1), self.begin_low.expand(n, length, -1))

    def forward(self, carry: Carry, x: Tensor, mask: Tensor | None = None) -> Carry:
        """One segment; the graph of the result reaches back through the last round. `mask` bool `[n, 1, 1, L]`."""
        context = _context(self.config, x, mask)
        with torch.no_grad():
            for _ in range(self.config.rounds - 1):
                carry = self._round(carry, x, context)
        fresh_autocast()
        return self._round(carry, x, context)

    def _round(self, carry: Carry, x: Tensor, context: Context) -> Carry:
        y, z = carry
        for _ in range(self.config.updates):
            z = self.level(z, y + x, context)
        return Carry(self.level(y, z, context), z)


class TRM(nn.Module):
    """Tokens to tokens of the same length, a segment at a time, with one halting logit.

    `prefix` positions stand in front, the first holding the puzzle's embedding. At the published sizes, for 81 + 16
    positions and 11 tokens: 5.03 million parameters with `mlp_t`, 6.83 million with attention. `seed` alone decides
    the weights.
    """

    def __init__(self, config: TRMNetConfig, *, vocabulary: int, length: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config, self.length = config, length
        self.core = TRMCore(config, generator, config.prefix + length)
        self.embedding = _embedding(config, vocabulary, length, generator)
        self.readout = Readout(config.hidden, outputs, 1, config.prefix, generator)

    def initial_carry(self, n: int) -> Carry:
        """Of n puzzles; the states are `[n, prefix + length, D]`."""
        return self.core.initial_carry(n, self.config.prefix + self.length)

    def forward(self, carry: Carry, tokens: Tensor, identities: Tensor | None = None) -> Segment:
        """One segment on long `[n, length]`; `identities` long `[n]` are needed for puzzles with one of their own."""
        after = self.core(carry, self.embedding(tokens, identities))
        return self.readout(after, after.high)


class PlainTransformer(nn.Module):
    """The blocks of TRM once through, without recursion: one segment says all that it has to say, its carry is empty
    and its halting logit stands for nothing."""

    def __init__(self, config: PlainConfig, *, vocabulary: int, length: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config, self.length = config, length
        self.level = Stack(_sizes(config, config.prefix + length), config.layers, generator)
        self.embedding = _embedding(config, vocabulary, length, generator)
        self.readout = Readout(config.hidden, outputs, 1, config.prefix, generator)

    def initial_carry(self, n: int) -> Carry:
        """Empty, `[n, 0, 0]`."""
        empty = self.embedding.tokens.new_zeros(n, 0, 0)
        return Carry(empty, empty)

    def forward(self, carry: Carry, tokens: Tensor, identities: Tensor | None = None) -> Segment:
        """The answer to long `[n, length]`."""
        x = self.embedding(tokens, identities)
        return self.readout(carry, self.level(x, None, _context(self.config, x, None)))


def _embedding(
    config: TRMNetConfig | PlainConfig, vocabulary: int, length: int, generator: torch.Generator
) -> TokenEmbedding:
    return TokenEmbedding(
        config.hidden,
        vocabulary=vocabulary,
        length=length,
        prefix=config.prefix,
        identities=config.identities,
        learned=config.positions == "learned",
        generator=generator,
    )


def _context(config: TRMNetConfig | PlainConfig, x: Tensor, mask: Tensor | None) -> Context:
    if config.mlp_t or config.positions != "rope":
        return Context(None, mask)
    return Context(rotary_tables(x.shape[1], config.hidden // config.heads, x.device), mask)


def _sizes(config: TRMNetConfig | PlainConfig, length: int, inner: int | None = None) -> BlockSizes:
    width, heads = config.hidden, config.heads
    inner = inner or feedforward_width(width, config.expansion, config.round_to)
    if config.mlp_t:
        if length < 1:
            raise ConfigError("mlp_t needs a fixed number of positions, and these have none; write mlp_t: false")
        return BlockSizes(width, heads, inner, length, feedforward_width(length, config.expansion, config.round_to))
    if width % (2 * heads):
        raise ConfigError(f"a width of {width} does not split into {heads} heads of an even width; write other heads")
    return BlockSizes(width, heads, inner)
