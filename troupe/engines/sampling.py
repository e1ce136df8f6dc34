"""Drawing tokens: one uniform per position, keyed by the call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from troupe.agents import keyed_uniforms
from troupe.episode import FinishReason
from troupe.protocols import GenerationRequest

__all__ = ["COMPACT_BELOW", "Draft", "noise_of", "sample"]

COMPACT_BELOW = 0.75
"""Finished rows are dropped once fewer than this share of the batch still decodes: copying the cache has a cost."""


def sample(logits: Tensor, temperature: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Draws one id per row by inverting the cumulative distribution at `uniforms [B]`.

    `logits [B, V]` float32, `temperature [B]` (0: the most probable id). Returns ids `[B]` and the log-probs `[B]` of
    the distribution that was drawn from. Inversion needs one uniform per token, so noise can be keyed per position; the
    cumulative sum runs in float64, where 150,000 entries still resolve.
    """
    greedy = temperature <= 0
    logprobs = torch.log_softmax(logits / torch.where(greedy, 1.0, temperature)[:, None], -1)
    cumulative = logprobs.exp().cumsum(-1, dtype=torch.float64)
    drawn = torch.searchsorted(cumulative, (uniforms * cumulative[:, -1])[:, None], right=True)[:, 0]
    ids = drawn.clamp_max(logits.shape[-1] - 1)
    if bool(greedy.any()):
        ids = torch.where(greedy, logits.argmax(-1), ids)
    return ids, logprobs.gather(1, ids[:, None])[:, 0]


@dataclass(slots=True)
class Draft:
    """A response under construction."""

    request: GenerationRequest
    ids: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)
    finish: FinishReason | None = None


def noise_of(drafts: Sequence[Draft], device: torch.device) -> tuple[Tensor, Tensor]:
    """Uniforms `[B, max_tokens]` (float64) and temperatures `[B]`."""
    longest = max(draft.request.sampling.max_tokens for draft in drafts)
    noise = torch.stack([torch.from_numpy(keyed_uniforms(draft.request.key, longest)) for draft in drafts])
    return noise.to(device), torch.tensor([draft.request.sampling.temperature for draft in drafts], device=device)
