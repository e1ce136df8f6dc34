"""Inversion of the cumulative distribution: the right distribution, the right log-probs, nothing but the key's
noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from troupe.agents import keyed_uniforms
from troupe.engines.sampling import Draft, noise_of, sample
from troupe.episode import Sampling
from troupe.protocols import GenerationRequest


def logits_of(seed: int, size: int) -> torch.Tensor:
    return 1.5 * torch.randn(size, generator=torch.Generator().manual_seed(seed))


@pytest.mark.oracle
@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0])
def test_drawn_ids_follow_the_categorical_distribution(temperature: float) -> None:
    """Pearson's chi-square over 12 ids and 20,000 draws; fixed seeds."""
    from scipy import stats

    n, logits = 20_000, logits_of(0, 12)
    uniforms = torch.from_numpy(keyed_uniforms(("chi", temperature), n))
    ids, logprobs = sample(logits.expand(n, -1), torch.full((n,), temperature), uniforms)
    expected = torch.distributions.Categorical(logits=logits / temperature)
    counts = torch.bincount(ids, minlength=12).double()
    assert (
        stats.chisquare(counts.numpy(), (expected.probs.double() / expected.probs.double().sum() * n).numpy()).pvalue
        > 0.01
    )
    assert torch.allclose(logprobs, expected.log_prob(ids), atol=1e-6)


def test_the_control_another_distribution_is_told_apart() -> None:
    """The same test must see a distribution that is a little off: temperature 1.1 in place of 1."""
    from scipy import stats

    n, logits = 20_000, logits_of(0, 12)
    ids, _ = sample(logits.expand(n, -1), torch.full((n,), 1.1), torch.from_numpy(keyed_uniforms(("chi", 1.0), n)))
    probs = torch.softmax(logits.double(), -1)
    counts = torch.bincount(ids, minlength=12).double()
    assert stats.chisquare(counts.numpy(), (probs / probs.sum() * n).numpy()).pvalue < 1e-4


def test_greedy_takes_the_most_probable() -> None:
    logits = torch.stack([logits_of(seed, 50) for seed in range(6)])
    ids, logprobs = sample(logits, torch.zeros(6), torch.rand(6, generator=torch.Generator().manual_seed(0)).double())
    assert ids.tolist() == logits.argmax(-1).tolist()
    assert torch.allclose(logprobs, torch.log_softmax(logits, -1).max(-1).values)


def test_rows_have_temperatures_of_their_own() -> None:
    logits = logits_of(1, 30).expand(3, -1)
    uniforms = torch.full((3,), 0.4, dtype=torch.float64)
    ids, logprobs = sample(logits, torch.tensor([0.0, 1.0, 0.3]), uniforms)
    assert int(ids[0]) == int(logits[0].argmax())
    for row, temperature in ((1, 1.0), (2, 0.3)):
        assert float(logprobs[row]) == pytest.approx(float(torch.log_softmax(logits[0] / temperature, -1)[ids[row]]))


@pytest.mark.parametrize("uniform", [0.0, float(np.nextafter(1.0, 0.0))])
def test_the_ends_of_the_interval_are_ids_with_probability(uniform: float) -> None:
    """Ids with no mass stand first and last: 0 must not draw the first, nor almost-1 the last."""
    logits = torch.tensor([[-torch.inf, 0.0, 1.0, -torch.inf]])
    ids, logprobs = sample(logits, torch.ones(1), torch.tensor([uniform], dtype=torch.float64))
    assert int(ids) == (1 if uniform == 0 else 2) and bool(torch.isfinite(logprobs).all())


def test_a_large_vocabulary_still_resolves() -> None:
    """150,000 equal ids: every one of the first and last hundred is hit by the middle of its own interval."""
    size = 150_000
    wanted = torch.cat([torch.arange(100), torch.arange(size - 100, size)])
    uniforms = (wanted.double() + 0.5) / size
    ids, _ = sample(torch.zeros(1, size).expand(200, -1), torch.ones(200), uniforms)
    assert ids.tolist() == wanted.tolist()


def test_noise_belongs_to_the_call() -> None:
    def draft(number: int, length: int, temperature: float = 1.0) -> Any:
        return Draft(GenerationRequest("team", (1,), Sampling(length, temperature), (0, number)))

    noise, temperatures = noise_of([draft(0, 3), draft(1, 7, 0.5)], torch.device("cpu"))
    assert tuple(noise.shape) == (2, 7) and noise.dtype == torch.float64
    assert noise[0].tolist() == keyed_uniforms((0, 0), 7).tolist()
    assert noise_of([draft(1, 4)], torch.device("cpu"))[0][0].tolist() == noise[1, :4].tolist()
    assert temperatures.tolist() == [1.0, 0.5]
