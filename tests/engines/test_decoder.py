"""The functional decoder against the forward pass that learns: the same log-probs, whatever the policy."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from troupe.engines.decoder import FunctionalDecoder, supports
from troupe.engines.local import LocalEngine
from troupe.models.language import Policy
from troupe.models.scoring import score

NAMES = ("plain", "llama", "left", "right")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_sampled_logprobs_are_those_that_learning_sees(
    policies: Any, ask: Any, answers: Any, recorded: Any, name: str, temperature: float
) -> None:
    requests = ask(name, temperature=temperature)
    batch = recorded(requests, answers(LocalEngine(policies), requests))
    with torch.no_grad():
        again = score(policies[name], batch).logprobs
    assert int(batch["mask"].sum()) > 40
    assert ((again - batch["old_logprobs"]).abs() * batch["mask"]).max() < 1e-5


@pytest.mark.parametrize("name", NAMES)
def test_logits_are_the_models(policies: Any, name: str) -> None:
    """Three rows of unequal lengths in one call, then one more token each."""
    policy, decoder = policies[name], FunctionalDecoder(policies[name])
    rows = [[7, 8, 9, 10, 11], [20, 21], [30]]
    width = max(map(len, rows))
    ids, positions = torch.zeros(3, width, dtype=torch.long), torch.zeros(3, width, dtype=torch.long)
    visible = torch.zeros(3, width + 1, dtype=torch.bool)
    for i, row in enumerate(rows):
        ids[i, width - len(row) :] = torch.tensor(row)
        positions[i, width - len(row) :] = torch.arange(len(row))
        visible[i, width - len(row) :] = True
    cache = decoder.empty_cache(3, width + 1)
    with torch.no_grad():
        first = decoder.step(ids, positions, cache, 0, visible[:, :width])
        lengths = torch.tensor([[len(row)] for row in rows])
        second = decoder.step(torch.tensor([[40], [41], [42]]), lengths, cache, width, visible)
        for i, row in enumerate(rows):
            for found, said in ((first, row), (second, [*row, 40 + i])):
                with policy.model.using(policy.adapter):
                    expected = policy.model.network(torch.tensor([said])).logits[0, -1, : policy.model.vocabulary]
                assert (found[i] - expected).abs().max() < 1e-5


def test_it_reads_the_weights_again_only_when_told(tiny_model: Any) -> None:
    model = tiny_model(layers=1)
    decoder = FunctionalDecoder(Policy("p", model))

    def logits() -> torch.Tensor:
        with torch.no_grad():
            visible = torch.ones(1, 2, dtype=torch.bool)
            return decoder.step(torch.tensor([[7, 8]]), torch.tensor([[0, 1]]), decoder.empty_cache(1, 2), 0, visible)

    before = logits()
    with torch.no_grad():
        model.network.model.layers[0].self_attn.q_proj.weight.mul_(3.0)
    assert torch.equal(logits(), before)
    decoder.sync()
    assert not torch.equal(logits(), before)


def test_positions_beyond_the_table_are_rotated_too(policies: Any) -> None:
    decoder = FunctionalDecoder(policies["plain"])
    short = [table.clone() for table in decoder._rotation(4)]
    long = decoder._rotation(300)
    assert all(len(table) >= 300 for table in long)
    assert all(torch.equal(a[:4], b[:4]) for a, b in zip(short, long, strict=True))


def test_long_contexts_agree(policies: Any, ask: Any, answers: Any, recorded: Any) -> None:
    """Rotary positions past a hundred, where a wrong frequency would show."""
    requests = [r for r in ask("llama", n=2)]
    requests = [type(r)(r.policy, tuple(range(6, 226)), r.sampling, r.key) for r in requests]
    batch = recorded(requests, answers(LocalEngine(policies), requests))
    with torch.no_grad():
        again = score(policies["llama"], batch).logprobs
    assert ((again - batch["old_logprobs"]).abs() * batch["mask"]).max() < 2e-5


@pytest.mark.parametrize(
    ("change", "known"),
    [
        ({}, True),
        ({"model_type": "gpt2"}, False),
        ({"layer_types": ["sliding_attention", "full_attention"]}, False),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, False),
        ({"hidden_act": "gelu"}, False),
        ({"model_type": "llama", "attention_bias": True}, False),
        ({"model_type": "llama", "mlp_bias": True}, False),
        ({"head_dim": 16}, False),
        ({"head_dim": 8}, True),
    ],
)
def test_it_knows_what_it_does_not_know(change: dict[str, Any], known: bool) -> None:
    plain = {
        "model_type": "qwen2",
        "hidden_act": "silu",
        "hidden_size": 32,
        "num_attention_heads": 4,
        "layer_types": ["full_attention"],
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    }
    policy: Any = SimpleNamespace(model=SimpleNamespace(config=SimpleNamespace(**{**plain, **change})))
    assert supports(policy) is known
