"""The Hierarchical Reasoning Model (Wang et al. 2025, arXiv:2506.21734): a slow network H that guides a fast one, L.

    net = HRM(HRMNetConfig(), vocabulary=11, length=81, outputs=11)
    carry = net.initial_carry(n)
    for _ in range(16):                 # each segment has its loss and its optimiser step
        segment = net(carry, tokens)
        carry = segment.carry

One segment, with x the embedded tokens, H_cycles = L_cycles = 2:

    repeat H_cycles times:
        repeat L_cycles times:  z_L <- L(z_L + z_H + x)
        z_H <- H(z_H + z_L)
    logits = W z_H,   (q_halt, q_continue) = W_q z_H[0] + b_q

All but the last update of L and the last of H run without gradient: near a fixed point the gradient through one step
stands for that through all. Where the widths differ, L sees `down(z_H + x)` and H sees `up(z_L)`.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError
from troupe.models.config import HRMNetConfig
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
    linear,
    rotary_tables,
    truncated_normal,
)

__all__ = ["HRM", "HRMCore"]


class HRMCore(nn.Module):
    """The two stacks and the states that they begin with, for any embedded input `[n, L, D]`."""

    begin_high: Tensor
    begin_low: Tensor

    def __init__(self, config: HRMNetConfig, generator: torch.Generator) -> None:
        super().__init__()
        self.config = config
        high, low = config.hidden, config.low_hidden or config.hidden
        self.h_level = Stack(_sizes(config, high), config.h_layers, generator)
        self.l_level = Stack(_sizes(config, low), config.l_layers, generator)
        self.down: nn.Module = nn.Identity() if high == low else linear(high, low, generator)
        self.up: nn.Module = nn.Identity() if high == low else linear(low, high, generator)
        self.register_buffer("begin_high", truncated_normal((high,), 1.0, generator))
        self.register_buffer("begin_low", truncated_normal((low,), 1.0, generator))

    def initial_carry(self, n: int, length: int) -> Carry:
        """The fixed states that every puzzle begins with."""
        return Carry(self.begin_high.expand(n, length, -1), self.begin_low.expand(n, length, -1))

    def forward(self, carry: Carry, x: Tensor, mask: Tensor | None = None) -> Carry:
        """One segment; the graph of the result reaches back through the last update of L and the last of H. `mask` bool
        `[n, 1, 1, L]`."""
        config = self.config
        high_context, low_context = self._context(x, self.begin_high, mask), self._context(x, self.begin_low, mask)
        z_h, z_l = carry
        updates = config.h_cycles * config.l_cycles
        with torch.no_grad():
            for update in range(1, updates):  # the last is made below
                z_l = self.l_level(z_l, self.down(z_h + x), low_context)
                if update % config.l_cycles == 0:
                    z_h = self.h_level(z_h, self.up(z_l), high_context)
        fresh_autocast()
        z_l = self.l_level(z_l, self.down(z_h + x), low_context)
        return Carry(self.h_level(z_h, self.up(z_l), high_context), z_l)

    def _context(self, x: Tensor, begin: Tensor, mask: Tensor | None) -> Context:
        if self.config.positions != "rope":
            return Context(None, mask)
        return Context(rotary_tables(x.shape[1], len(begin) // self.config.heads, x.device), mask)


class HRM(nn.Module):
    """Tokens to tokens of the same length, a segment at a time, with two halting logits.

    `prefix` positions stand in front, the first holding the puzzle's embedding. 27,262,976 parameters in the blocks at
    the published sizes. `seed` alone decides the weights.
    """

    def __init__(self, config: HRMNetConfig, *, vocabulary: int, length: int, outputs: int, seed: int = 0) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        self.config, self.length = config, length
        self.core = HRMCore(config, generator)
        self.embedding = TokenEmbedding(
            config.hidden,
            vocabulary=vocabulary,
            length=length,
            prefix=config.prefix,
            identities=config.identities,
            learned=config.positions == "learned",
            generator=generator,
        )
        self.readout = Readout(config.hidden, outputs, 2, config.prefix, generator)

    def initial_carry(self, n: int) -> Carry:
        """Of n puzzles; the states are `[n, prefix + length, D]`."""
        return self.core.initial_carry(n, self.config.prefix + self.length)

    def forward(self, carry: Carry, tokens: Tensor, identities: Tensor | None = None) -> Segment:
        """One segment on long `[n, length]`; `identities` long `[n]` are needed for puzzles with one of their own."""
        after = self.core(carry, self.embedding(tokens, identities))
        return self.readout(after, after.high)


def _sizes(config: HRMNetConfig, width: int) -> BlockSizes:
    if width % (2 * config.heads):
        raise ConfigError(f"a width of {width} does not split into {config.heads} heads of an even width; write heads")
    return BlockSizes(width, config.heads, feedforward_width(width, config.expansion, config.round_to))
