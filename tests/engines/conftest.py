"""Models and requests for engines."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch

from troupe.batch import Batch, pack
from troupe.episode import Episode, Sampling, Step, Tokens, Trajectory
from troupe.models.config import LoraSettings
from troupe.models.language import LanguageModel, Policy
from troupe.protocols import Generation, GenerationRequest


@pytest.fixture(scope="session")
def llama(tiny: LanguageModel) -> LanguageModel:
    """A random Llama with the embedded tokenizer: no biases, an embedding of its own for the output."""
    from transformers import LlamaConfig, LlamaForCausalLM

    config = LlamaConfig(
        vocab_size=tiny.config.vocab_size,
        hidden_size=32,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=1,
        intermediate_size=40,
        max_position_embeddings=256,
        rope_theta=500.0,
        initializer_range=0.1,
        tie_word_embeddings=False,
        pad_token_id=0,
        bos_token_id=None,
        eos_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        return LanguageModel(LlamaForCausalLM(config).eval(), tiny.tokenizer)


@pytest.fixture(scope="session")
def policies(tiny: LanguageModel, llama: LanguageModel, tiny_model: Callable[..., LanguageModel]) -> dict[str, Policy]:
    """`plain`, `llama`, and `left` and `right`: adapters on one base, both moved away from it."""
    pytest.importorskip("peft", reason="adapters need the extra 'lora'")
    adapted = tiny_model(seed=1)
    for name in ("left", "right"):
        adapted.add_adapter(name, LoraSettings(rank=2, alpha=4.0))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, parameter in adapted.network.named_parameters():
            if "lora_" in name:
                parameter.copy_(0.2 * torch.randn(parameter.shape, generator=generator))
    adapters = {name: Policy(name, adapted, name) for name in ("left", "right")}
    return {"plain": Policy("plain", tiny), "llama": Policy("llama", llama), **adapters}


@pytest.fixture(scope="session")
def ask() -> Callable[..., list[GenerationRequest]]:
    """`ask("plain", n=8)`: requests of unequal lengths, some with the same prompt."""

    def build(policy: str, n: int = 8, seed: int = 0, **sampling: Any) -> list[GenerationRequest]:
        rng = random.Random(seed)
        prompts = [tuple(rng.randrange(6, 300) for _ in range(rng.randint(1, 20))) for _ in range(max(1, n // 2))]
        settings = Sampling(**{"max_tokens": 10, **sampling})
        return [
            GenerationRequest(policy, prompts[i % len(prompts)], settings, (seed, i), id=f"{policy}/{seed}/{i}")
            for i in range(n)
        ]

    return build


@pytest.fixture(scope="session")
def answers() -> Callable[..., list[Generation]]:
    """`answers(engine, requests)`"""
    return lambda engine, requests: asyncio.run(engine.generate(requests))


@pytest.fixture(scope="session")
def recorded() -> Callable[..., Batch]:
    """The batch of some requests and their answers, log-probs included."""

    def build(requests: Sequence[GenerationRequest], generations: Sequence[Generation]) -> Batch:
        steps = [
            Step(
                f"solver/{i}",
                "solver",
                tokens=Tokens(
                    request.prompt_ids,
                    answer.response_ids,
                    answer.logprobs,
                    (1,) * len(answer.response_ids),
                    request.policy,
                    answer.policy_version,
                    request.sampling,
                ),
            )
            for i, (request, answer) in enumerate(zip(requests, generations, strict=True))
        ]
        return pack([Episode("e", "t", (Trajectory("solver", tuple(steps), 1.0),))])

    return build
