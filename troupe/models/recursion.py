"""What recursive networks are made of: blocks without causality, embeddings of tokens, and states that are carried on.

The parts are those of HRM (Wang et al. 2025, arXiv:2506.21734) and TRM (Jolicoeur-Martineau 2025, arXiv:2510.04871):
residuals that are normalised after the sum, norms and linear layers without parameters of their own to shift or scale,
SwiGLU (Shazeer 2020, arXiv:2002.05202), rotary positions (Su et al. 2021, arXiv:2104.09864).

Legend: n rows, L positions (those of the prefix included), D width, V tokens.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from troupe.errors import ConfigError

__all__ = ["Attention", "Block", "BlockSizes", "Carry", "Context", "Readout", "Segment", "Stack", "SwiGLU",
           "TokenEmbedding", "block_parameters", "detached", "feedforward_width", "fresh_autocast", "linear",
           "restarted", "rms_norm", "rotary_tables", "truncated_normal"]  # fmt: skip

NORM_EPSILON = 1e-5
ROTARY_BASE = 10_000.0
HALT_BIAS = -5.0
"""A halting head begins almost certain that there is more to do."""

_TRUNCATED_STD = 0.8796256610342398
"""Standard deviation of a standard normal that is cut at -2 and 2."""


class Carry(NamedTuple):
    """What a segment hands to the next: `[n, L, D]` each."""

    high: Tensor  # z_H of HRM, the answer y of TRM
    low: Tensor  # z_L of HRM, the latent z of TRM


class Segment(NamedTuple):
    """What one supervision step says."""

    carry: Carry  # detached
    logits: Tensor  # [n, L - prefix, outputs]
    q_halt: Tensor  # [n]
    q_continue: Tensor | None  # [n]; None where there is one logit only, which halts above 0


class Context(NamedTuple):
    """What blocks are told besides their input."""

    rotary: tuple[Tensor, Tensor] | None = None  # cosines and sines, [L, D / heads]
    mask: Tensor | None = None  # bool [n, 1, 1, L]: which positions hold something


class BlockSizes(NamedTuple):
    """Of one block; `length` L makes it mix positions by SwiGLU along them, 0 by attention."""

    width: int
    heads: int
    inner: int
    length: int = 0
    length_inner: int = 0


def detached(carry: Carry) -> Carry:
    """Without the graph behind it."""
    return Carry(carry.high.detach(), carry.low.detach())


def restarted(carry: Carry, begin: Carry, where: Tensor) -> Carry:
    """`begin` in the rows of bool `[n]` `where`, `carry` in the others: fresh puzzles in place of finished ones."""
    rows = where[:, None, None]
    return Carry(torch.where(rows, begin.high, carry.high), torch.where(rows, begin.low, carry.low))


def rms_norm(x: Tensor) -> Tensor:
    """x / sqrt(mean(x^2) + 1e-5) along the last axis, computed in float32."""
    return functional.rms_norm(x.float(), (x.shape[-1],), eps=NORM_EPSILON).to(x.dtype)


def feedforward_width(width: int, expansion: float, round_to: int) -> int:
    """2/3 expansion times the width, rounded up to a multiple: SwiGLU's three matrices then weigh what two would."""
    return -(-round(expansion * width * 2 / 3) // round_to) * round_to


def truncated_normal(shape: Sequence[int], std: float, generator: torch.Generator) -> Tensor:
    """A normal cut at two sigmas, wide enough to have this standard deviation after the cut."""
    sigma = std / _TRUNCATED_STD
    return nn.init.trunc_normal_(torch.empty(*shape), std=sigma, a=-2 * sigma, b=2 * sigma, generator=generator)


def linear(inputs: int, outputs: int, generator: torch.Generator) -> nn.Linear:
    """Without bias; weights of standard deviation 1 / sqrt(inputs)."""
    layer = nn.utils.skip_init(nn.Linear, inputs, outputs, bias=False)
    layer.weight.data = truncated_normal((outputs, inputs), 1 / math.sqrt(inputs), generator)
    return layer


def rotary_tables(length: int, width: int, device: torch.device | None = None) -> tuple[Tensor, Tensor]:
    """Cosines and sines `[length, width]` of the angles t * base^(-2i / width), each angle at i and i + width / 2."""
    frequencies = ROTARY_BASE ** (-torch.arange(0, width, 2, dtype=torch.float32, device=device) / width)
    angles = torch.outer(torch.arange(length, dtype=torch.float32, device=device), frequencies).repeat(1, 2)
    return angles.cos(), angles.sin()


def _rotated(x: Tensor, tables: tuple[Tensor, Tensor]) -> Tensor:
    cosines, sines = tables
    first, second = x.chunk(2, dim=-1)
    return x * cosines.to(x.dtype) + torch.cat((-second, first), dim=-1) * sines.to(x.dtype)


class SwiGLU(nn.Module):
    """W_down (silu(W_gate x) * W_up x)."""

    def __init__(self, width: int, inner: int, generator: torch.Generator) -> None:
        super().__init__()
        self.gate_up = linear(width, 2 * inner, generator)
        self.down = linear(inner, width, generator)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_up(x).chunk(2, dim=-1)
        return self.down(functional.silu(gate) * up)


class Attention(nn.Module):
    """All positions look at all others that hold something."""

    def __init__(self, width: int, heads: int, generator: torch.Generator) -> None:
        super().__init__()
        self.heads = heads
        self.qkv = linear(width, 3 * width, generator)
        self.out = linear(width, width, generator)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        n, length, width = x.shape
        parts = self.qkv(x).view(n, length, 3 * self.heads, width // self.heads).transpose(1, 2)
        query, key, value = parts.chunk(3, dim=1)
        if context.rotary is not None:
            query, key = _rotated(query, context.rotary), _rotated(key, context.rotary)
        mixed = functional.scaled_dot_product_attention(query, key, value, attn_mask=context.mask)
        return self.out(mixed.transpose(1, 2).reshape(n, length, width))


class Block(nn.Module):
    """x <- norm(x + mix(x)), then x <- norm(x + feedforward(x)).

    `mix` is attention; or, as TRM's `mlp_t` for a fixed number of positions, SwiGLU along them, with its sum normalised
    along them too.
    """

    def __init__(self, sizes: BlockSizes, generator: torch.Generator) -> None:
        super().__init__()
        self.attention: Attention | None = None
        self.positions: SwiGLU | None = None
        if sizes.length:
            self.positions = SwiGLU(sizes.length, sizes.length_inner, generator)
        else:
            self.attention = Attention(sizes.width, sizes.heads, generator)
        self.feedforward = SwiGLU(sizes.width, sizes.inner, generator)

    def forward(self, x: Tensor, context: Context) -> Tensor:
        """`[n, L, D]` -> the same shape."""
        if self.attention is not None:
            x = rms_norm(x + self.attention(x, context))
        elif self.positions is not None:
            turned = x.mT if context.mask is None else x.mT * context.mask[:, 0]
            x = rms_norm(turned + self.positions(turned)).mT
        return rms_norm(x + self.feedforward(x))


class Stack(nn.Module):
    """Blocks over a state, or over the sum of a state and what is injected into it."""

    def __init__(self, sizes: BlockSizes, layers: int, generator: torch.Generator) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(sizes, generator) for _ in range(layers))

    def forward(self, state: Tensor, injected: Tensor | None, context: Context) -> Tensor:
        x = state if injected is None else state + injected
        for block in self.blocks:
            x = block(x, context)
        return x


class TokenEmbedding(nn.Module):
    """sqrt(D) E[token], behind a prefix that says which puzzle it is where `prefix` positions are kept for that.

    Learned positions are added, and the sum divided by sqrt(2); rotary ones are the attention's affair. The puzzle's
    embedding begins at 0 and fills the first position of the prefix; the others hold 0 and serve as working space.
    """

    def __init__(
        self,
        width: int,
        *,
        vocabulary: int,
        length: int,
        prefix: int,
        identities: int,
        learned: bool,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.length, self.prefix, self.width, self.vocabulary = length, prefix, width, vocabulary
        std = 1 / math.sqrt(width)
        self.tokens = nn.Parameter(truncated_normal((vocabulary, width), std, generator))
        self.identities = nn.Parameter(torch.zeros(identities, width)) if prefix else None
        shape = (prefix + length, width)
        self.positions = nn.Parameter(truncated_normal(shape, std, generator)) if learned else None

    def forward(self, tokens: Tensor, identities: Tensor | None = None) -> Tensor:
        """long `[n, L]` -> `[n, prefix + L, D]`; `identities` long `[n]` says which puzzle each is, the first if left
        out. Raises ConfigError for sequences of another length, and for identities where none are kept."""
        n, length = tokens.shape
        if length != self.length:
            raise ConfigError(f"this network is for sequences of {self.length} tokens, found {length}; build another")
        x = functional.embedding(tokens, self.tokens)
        if self.identities is None:
            if identities is not None:
                raise ConfigError("this network keeps no prefix for the identity of a puzzle; write prefix: 1")
        else:
            which = tokens.new_zeros(n) if identities is None else identities
            first = functional.embedding(which, self.identities)[:, None]
            x = torch.cat((functional.pad(first, (0, 0, 0, self.prefix - 1)), x), dim=1)
        if self.positions is not None:
            x = math.sqrt(0.5) * (x + self.positions)
        return math.sqrt(self.width) * x


class Readout(nn.Module):
    """Logits of every position behind the prefix, and halting logits from the first position."""

    def __init__(self, width: int, outputs: int, halts: int, prefix: int, generator: torch.Generator) -> None:
        super().__init__()
        self.prefix = prefix
        self.outputs = linear(width, outputs, generator)
        self.halt = nn.utils.skip_init(nn.Linear, width, halts)
        nn.init.zeros_(self.halt.weight)
        nn.init.constant_(self.halt.bias, HALT_BIAS)

    def forward(self, carry: Carry, answer: Tensor) -> Segment:
        """What the answer `[n, L, D]` says, with the carry for the next segment."""
        q = self.halt(answer[:, 0]).float()
        q_continue = q[:, 1] if q.shape[1] > 1 else None
        return Segment(detached(carry), self.outputs(answer[:, self.prefix :]), q[:, 0], q_continue)


def fresh_autocast() -> None:
    """Between steps without gradients and the steps with them: forgets the weights that autocast has cast.

    Up to torch 2.9 a weight that is cast under no_grad is remembered without its way back, and the gradient would be
    lost without a word (https://github.com/pytorch/pytorch/pull/165068).
    """
    if torch.is_autocast_enabled("cpu") or torch.is_autocast_enabled("cuda"):
        torch.clear_autocast_cache()


def block_parameters(net: nn.Module) -> int:
    """Parameters in the blocks: without embeddings, heads and what else depends on the task."""
    blocks = [module for module in net.modules() if isinstance(module, Block)]
    return sum(parameter.numel() for block in blocks for parameter in block.parameters())
