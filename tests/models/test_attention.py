"""Attention in float64: sampled and recomputed log-probs of a sharp float32 model agree."""

from __future__ import annotations

import asyncio
from typing import Any

import torch

from troupe.engines.local import LocalEngine
from troupe.episode import Sampling
from troupe.models.language import Policy
from troupe.protocols import GenerationRequest


def sharpened(model: Any) -> Policy:
    """The tiny model with queries and keys so large that attention is nearly one-hot, as it is after copying was
    learned."""
    with torch.no_grad():
        for name, parameter in model.network.named_parameters():
            if "q_proj.weight" in name or "k_proj.weight" in name:
                parameter.mul_(60.0)
    return Policy("p", model)


def gap(policy: Policy) -> float:
    """Largest difference between the log-probs of 24 sampled responses and a plain forward pass over each."""
    requests = [GenerationRequest("p", (7, 8 + i, 9), Sampling(max_tokens=24), (0, i), id=str(i)) for i in range(24)]
    answers = asyncio.run(LocalEngine({"p": policy}).generate(requests))
    worst = 0.0
    for request, answer in zip(requests, answers, strict=True):
        ids = torch.tensor([[*request.prompt_ids, *answer.response_ids]])
        with torch.no_grad():
            logits = policy.model.network(input_ids=ids).logits[0, :, : policy.model.vocabulary].float()
        start = len(request.prompt_ids)
        logprobs = torch.log_softmax(logits[start - 1 : -1], -1)
        again = logprobs.gather(1, ids[0, start:, None])[:, 0]
        worst = max(worst, float((again - torch.tensor(answer.logprobs)).abs().max()))
    return worst


def test_float64_attention_closes_the_gap(tiny_model: Any) -> None:
    policy = sharpened(tiny_model(seed=3, layers=2))
    plain = gap(policy)
    policy.model.use_exact_attention(True)
    assert policy.model.exact_attention
    exact = gap(policy)
    assert exact < 1e-5
    assert exact < plain


def test_it_is_carried_by_snapshots_and_can_be_switched_off(tiny_model: Any) -> None:
    policy = Policy("p", tiny_model(seed=0))
    policy.model.use_exact_attention(True)
    assert policy.snapshot("q").model.exact_attention
    policy.model.use_exact_attention(False)
    assert not policy.model.exact_attention


def test_only_float32_models_use_it(tiny_model: Any) -> None:
    policy = Policy("p", tiny_model(seed=0))
    policy.model.network.to(torch.bfloat16)
    policy.model.use_exact_attention(True)
    assert not policy.model.exact_attention
