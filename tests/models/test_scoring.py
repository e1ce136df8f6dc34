"""Log-probs, entropies and gradients: prefix trees against a plain Hugging Face forward over padded rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from troupe.batch import Batch
from troupe.models.language import LanguageModel, Policy
from troupe.models.scoring import Scores, score

TEMPERATURES = (1.0, 0.5, 1.7)


def plainly(model: LanguageModel, batch: Batch) -> Scores:
    """What transformers says about right-padded rows."""
    ids = batch["actions"]
    seen = torch.zeros_like(ids)
    for i, row in enumerate(batch.rows):
        seen[i, : row.length] = 1
    logits = model.network(input_ids=ids, attention_mask=seen).logits[..., : model.vocabulary].float()
    before = torch.cat([torch.zeros_like(logits[:, :1]), logits[:, :-1]], 1) / batch["temperature"][..., None]
    everything = torch.log_softmax(before, -1)
    picked = everything.gather(-1, ids[..., None])[..., 0]
    entropy = -(everything.exp() * everything).sum(-1)
    return Scores(picked * batch["mask"], entropy * batch["mask"])


def gradients(model: LanguageModel, batch: Batch, compute: Callable[[], Scores]) -> list[Tensor]:
    model.network.zero_grad(set_to_none=True)
    scores = compute()
    (scores.logprobs * batch["advantages"] + 0.1 * scores.entropies).sum().backward()
    found = [p.grad.clone() for p in model.network.parameters() if p.grad is not None]
    model.network.zero_grad(set_to_none=True)
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("share", [True, False])
def test_the_tree_changes_how_not_what(
    tiny: LanguageModel, random_rows: Any, make_batch: Any, seed: int, share: bool
) -> None:
    batch = make_batch(random_rows(seed), temperatures=TEMPERATURES if seed % 2 else (1.0,), seed=seed)
    expected = plainly(tiny, batch)
    found = score(Policy("team", tiny), batch, share=share)
    assert (found.logprobs - expected.logprobs).abs().max() < 1e-5
    assert (found.entropies - expected.entropies).abs().max() < 1e-5
    assert not bool((found.logprobs * (1 - batch["mask"])).any() or (found.entropies * (1 - batch["mask"])).any())


@pytest.mark.parametrize("temperatures", [(1.0,), TEMPERATURES])
def test_gradients_are_those_of_the_plain_rows(
    tiny: LanguageModel, random_rows: Any, make_batch: Any, temperatures: tuple[float, ...]
) -> None:
    batch = make_batch(random_rows(7), temperatures=temperatures)
    policy = Policy("team", tiny)
    expected = gradients(tiny, batch, lambda: plainly(tiny, batch))
    for share in (True, False):
        found = gradients(tiny, batch, lambda share=share: score(policy, batch, share=share))
        scale = max(float(g.abs().max()) for g in expected)
        assert len(found) == len(expected)
        assert max(float((a - b).abs().max()) for a, b in zip(found, expected, strict=True)) < 1e-6 * max(1.0, scale)


def test_double_precision_agrees_to_the_last_digits(tiny_model: Any, random_rows: Any, make_batch: Any) -> None:
    """In float64 nothing is left to rounding: a wrong mask or position could not hide."""
    model = tiny_model(seed=3)
    model.network.double()
    model.logits = lambda hidden: model.network.lm_head(hidden)[..., : model.vocabulary]  # without the cast to float32
    batch = make_batch(random_rows(11))
    found = score(Policy("team", model), batch).logprobs
    ids = batch["actions"]
    logits = model.network(input_ids=ids).logits[..., : model.vocabulary]
    expected = torch.log_softmax(logits[:, :-1], -1).gather(-1, ids[:, 1:, None])[..., 0] * batch["mask"][:, 1:]
    assert found.dtype == torch.float64
    assert (found[:, 1:] - expected).abs().max() < 1e-12


def test_a_prompt_sampled_at_two_temperatures_is_scored_at_both(tiny: LanguageModel, make_batch: Any) -> None:
    batch = make_batch([([5, 6, 7, 8], [9]), ([5, 6, 7, 8], [9])], temperatures=(1.0, 0.5))
    with torch.no_grad():
        found = score(Policy("team", tiny), batch).logprobs[:, 4]
        logits = tiny.network(torch.tensor([[5, 6, 7, 8]])).logits[0, -1, : tiny.vocabulary]
    expected = [float(torch.log_softmax(logits / t, -1)[9]) for t in (1.0, 0.5)]
    assert found.tolist() == pytest.approx(expected, abs=1e-5) and expected[0] != pytest.approx(expected[1], abs=1e-3)
