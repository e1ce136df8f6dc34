"""What the current weights say about recorded actions: log-probs, entropies and values of a batch's sampled tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from troupe.batch import Batch
from troupe.models.language import Policy, ValueModel
from troupe.models.prefix_tree import TreeLayout, tree_layout

__all__ = ["Scores", "layout_of", "score", "value"]


@dataclass(frozen=True, slots=True)
class Scores:
    """`logprobs [B, T]` and `entropies [B, T]`, natural logs, zero where `mask` is zero."""

    logprobs: Tensor
    entropies: Tensor


def layout_of(batch: Batch, *, share: bool = True) -> TreeLayout:
    """The rows of a batch as prefix trees, ready for a forward pass."""
    lengths = [row.length for row in batch.rows]
    return tree_layout(batch.inputs["input_ids"], batch["mask"], lengths, share=share)


def score(policy: Policy, batch: Batch, *, share: bool = True) -> Scores:
    """Log-probs of the recorded tokens under the policy's live weights, at the temperatures they were sampled with.

    All rows must belong to this policy: adapters are switched per forward pass, not per row.
    """
    model = policy.model
    layout = layout_of(batch, share=share).to(model.device)
    with model.using(policy.adapter):
        hidden = model.hidden(layout.input_ids, layout.position_ids, layout.attention_mask)
    nodes, back = torch.unique(layout.before, return_inverse=True)  # answers to one prompt share its last node
    logits = model.logits(hidden.flatten(0, 1)[nodes])
    temperature = batch["temperature"].to(logits.device)[layout.row, layout.column]
    if bool((temperature == 1).all()):
        everything = torch.log_softmax(logits, -1)
    else:  # one prompt may have been sampled at several temperatures
        everything, back = torch.log_softmax(logits[back] / temperature[:, None], -1), torch.arange(len(back))
    targets = batch["actions"].to(logits.device)[layout.row, layout.column]
    picked = everything[back, targets]
    entropy = -(everything.exp() * everything).sum(-1)[back]
    return Scores(_scatter(batch, layout, picked), _scatter(batch, layout, entropy))


def value(critic: ValueModel, batch: Batch, *, share: bool = True) -> Tensor:
    """V(state before each sampled token) `[B, T]`, zero where `mask` is zero."""
    layout = layout_of(batch, share=share).to(critic.head.weight.device)
    hidden = critic.hidden(layout.input_ids, layout.position_ids, layout.attention_mask)
    nodes, back = torch.unique(layout.before, return_inverse=True)
    return _scatter(batch, layout, critic.values(hidden.flatten(0, 1)[nodes])[back])


def _scatter(batch: Batch, layout: TreeLayout, picked: Tensor) -> Tensor:
    out = torch.zeros(batch["mask"].shape, dtype=picked.dtype, device=picked.device)
    return out.index_put((layout.row, layout.column), picked)
