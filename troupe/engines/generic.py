"""Decoding of any Hugging Face causal LM through its own forward pass."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch

from troupe.engines.sampling import COMPACT_BELOW, Draft, noise_of, sample

if TYPE_CHECKING:
    from troupe.models.language import Policy

__all__ = ["decode_generic"]


def decode_generic(policy: Policy, drafts: Sequence[Draft], advance: Callable[..., None]) -> None:
    """Decodes the drafts of one wave; `advance(policy, drafts, ids, logprobs)` records each step.

    Left-padded, key-value cache of transformers, distinct prompts computed once, finished rows dropped.
    """
    from transformers import DynamicCache

    model = policy.model
    prompts = list(dict.fromkeys(draft.request.prompt_ids for draft in drafts))
    where = {prompt: i for i, prompt in enumerate(prompts)}
    width = max(map(len, prompts))
    device = model.device
    ids = torch.full((len(prompts), width), model.tokenizer.pad_token_id, device=device)
    seen = torch.zeros((len(prompts), width), dtype=torch.long, device=device)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt, device=device)
        seen[row, width - len(prompt) :] = 1
    cache = DynamicCache(config=model.config)
    noise, temperature = noise_of(drafts, device)
    with model.using(policy.adapter):
        positions = (seen.cumsum(1) - 1).clamp_min(0)
        output = model.network(
            input_ids=ids, attention_mask=seen, position_ids=positions, past_key_values=cache, use_cache=True,
            logits_to_keep=1,
        )  # fmt: skip
        rows = torch.tensor([where[draft.request.prompt_ids] for draft in drafts], device=device)
        cache.batch_select_indices(rows)
        seen, positions = seen[rows], positions[rows, -1]
        logits = output.logits[rows, -1, : model.vocabulary].float()
        live = list(range(len(drafts)))
        t = 0
        while True:
            chosen = torch.tensor(live, device=device)
            new, logprobs = sample(logits, temperature[chosen], noise[chosen, t])
            advance(policy, [drafts[i] for i in live], new.tolist(), logprobs.tolist())
            t += 1
            going = [k for k, i in enumerate(live) if drafts[i].finish is None]
            if not going:
                return
            if len(going) < COMPACT_BELOW * len(live):
                keep = torch.tensor(going, device=device)
                cache.batch_select_indices(keep)
                seen, positions, new = seen[keep], positions[keep], new[keep]
                live = [live[k] for k in going]
            seen = torch.cat([seen, seen.new_ones(len(live), 1)], 1)
            positions = positions + 1
            output = model.network(
                input_ids=new[:, None], attention_mask=seen, position_ids=positions[:, None], past_key_values=cache,
                use_cache=True,
            )  # fmt: skip
            logits = output.logits[:, -1, : model.vocabulary].float()
