from __future__ import annotations

import numpy as np
import pytest
import torch

from troupe.training.normalization import ObservationScale, ReturnScale, RunningMoments


def test_moments_of_parts_are_those_of_the_whole() -> None:
    rows = torch.randn(100, 3, generator=torch.Generator().manual_seed(0)) * 5 + 2
    moments = RunningMoments((3,))
    for part in rows.split([1, 9, 50, 40]):
        moments.add(part)
    whole = rows.double()
    assert torch.allclose(moments.mean, whole.mean(0)) and torch.allclose(moments.variance, whole.var(0, correction=0))
    again = RunningMoments((3,))
    again.load_state_dict(moments.state_dict())
    assert torch.equal(again.mean, moments.mean) and again.count == 100


def test_observations_by_hand() -> None:
    """1 and 3: mean 2, variance 1; 2 + 20 deviations are cut to 10."""
    scale = ObservationScale((1,))
    assert scale(torch.tensor([[1.0], [3.0]]), learn=True).flatten().tolist() == pytest.approx([-1.0, 1.0])
    assert scale(torch.tensor([[22.0], [2.5]])).flatten().tolist() == pytest.approx([10.0, 0.5])
    assert scale.moments.count == 2


def test_rewards_by_hand() -> None:
    """gamma 1/2, rewards 1, 2 and, after the end, 4: running returns 1, 2.5, 4; mean 2.5, variance 1.5."""
    scale = ReturnScale(1, 0.5)
    scaled = scale(torch.tensor([[1.0], [2.0], [4.0]]).double(), torch.tensor([[False], [True], [False]]))
    assert scaled.flatten().tolist() == pytest.approx((np.array([1, 2, 4]) / np.sqrt(1.5)).tolist())
    assert scale.running.tolist() == [4.0]
    state = scale.state_dict()
    other = ReturnScale(1, 0.5)
    other.load_state_dict(state)
    last = torch.tensor([[0.0]]).double(), torch.tensor([[False]])
    assert torch.equal(other(*last), scale(*last)) and other.running.tolist() == [2.0]


@pytest.mark.oracle
def test_running_returns_are_those_of_vec_normalize() -> None:
    """stable-baselines3 scales step by step, we a rollout at once: after it, the moments agree."""
    from stable_baselines3.common.running_mean_std import RunningMeanStd

    generator = np.random.default_rng(0)
    rewards, ended = generator.normal(size=(50, 4)), generator.random((50, 4)) < 0.1
    theirs, running = RunningMeanStd(epsilon=0.0, shape=()), np.zeros(4)
    for reward, end in zip(rewards, ended, strict=True):
        running = running * 0.9 + reward
        theirs.update(running)
        running[end] = 0
    ours = ReturnScale(4, 0.9)
    ours(torch.from_numpy(rewards), torch.from_numpy(ended))
    assert ours.moments.mean.item() == pytest.approx(float(theirs.mean))
    assert ours.moments.variance.item() == pytest.approx(float(theirs.var))
