"""Decoding through transformers: the same tokens under the same keys as the functional path."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from troupe.engines.local import LocalEngine
from troupe.models.language import LanguageModel, Policy
from troupe.models.scoring import score


@pytest.mark.parametrize("name", ["plain", "llama", "left"])
def test_both_paths_sample_the_same(policies: Any, ask: Any, answers: Any, name: str) -> None:
    requests = ask(name, n=10, seed=3)
    requests = [replace(r, sampling=replace(r.sampling, max_tokens=3 + i)) for i, r in enumerate(requests)]
    fast = answers(LocalEngine(policies), requests)
    slow = answers(LocalEngine(policies, functional=False), requests)
    assert [a.response_ids for a in fast] == [a.response_ids for a in slow]
    assert [a.finish_reason for a in fast] == [a.finish_reason for a in slow]
    for a, b in zip(fast, slow, strict=True):
        assert a.logprobs == pytest.approx(b.logprobs, abs=1e-5)


def test_greedy_is_what_transformers_generates(policies: Any, ask: Any, answers: Any) -> None:
    model = policies["plain"].model
    requests = ask("plain", n=4, temperature=0.0)
    for functional in (True, False):
        for request, answer in zip(
            requests, answers(LocalEngine(policies, functional=functional), requests), strict=True
        ):
            ids = torch.tensor([request.prompt_ids])
            said = model.network.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=10, do_sample=False)
            expected = said[0, ids.shape[1] :].tolist()
            assert list(answer.response_ids) == expected


def test_another_architecture_decodes_and_trains(tiny: LanguageModel, ask: Any, answers: Any, recorded: Any) -> None:
    """GPT-2: learned positions, no grouped heads; the functional decoder does not know it."""
    from transformers import GPT2Config, GPT2LMHeadModel

    config = GPT2Config(
        vocab_size=tiny.config.vocab_size,
        n_embd=16,
        n_layer=1,
        n_head=2,
        n_positions=64,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LanguageModel(GPT2LMHeadModel(config).eval(), tiny.tokenizer)
    policy = Policy("gpt", model)
    requests = ask("gpt", n=6, temperature=0.8)
    batch = recorded(requests, answers(LocalEngine({"gpt": policy}), requests))
    with torch.no_grad():
        again = score(policy, batch).logprobs
    assert ((again - batch["old_logprobs"]).abs() * batch["mask"]).max() < 1e-5
