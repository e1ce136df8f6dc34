from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from troupe.errors import ConfigError
from troupe.training.adam_atan2 import AdamATan2, adam_atan2
from troupe.training.learner import Learner


def weight(value: float = 1.0) -> nn.Parameter:
    return nn.Parameter(torch.tensor([value], dtype=torch.float64))


def step(optimizer: AdamATan2, parameter: nn.Parameter, gradient: float) -> float:
    parameter.grad = torch.tensor([gradient], dtype=torch.float64)
    optimizer.step()
    return float(parameter)


def test_two_steps_by_hand() -> None:
    # betas 0.9 and 0.5, lr 0.1, decay 0.2, from w = 1 with gradients 2 and -1:
    # t=1: m = 0.2, v = 2; corrected 2 and 4; atan2(2, 2) = pi/4;          w = 0.98 - 0.1 * 0.785398 = 0.901460
    # t=2: m = 0.08, v = 1.5; corrected 0.08/0.19 = 0.421053, 1.5/0.75 = 2; atan2(0.421053, 1.414214) = 0.289371
    #      w = 0.98 * 0.901460 - 0.0289371 = 0.854494
    w = weight()
    optimizer = AdamATan2([w], lr=0.1, betas=(0.9, 0.5), weight_decay=0.2)
    assert step(optimizer, w, 2.0) == pytest.approx(0.98 - 0.1 * math.pi / 4, abs=1e-9)
    assert step(optimizer, w, -1.0) == pytest.approx(0.854494, abs=1e-6)


def test_scaled_gradients_make_the_same_steps() -> None:
    ends = []
    for factor in (1.0, 1e-12, 1e12):
        w = weight()
        optimizer = AdamATan2([w], lr=0.01, weight_decay=0.0)
        ends.append([step(optimizer, w, factor * g) for g in (1.0, -3.0, 0.5, 0.25)][-1])
    assert ends[1:] == pytest.approx(ends[:1] * 2, abs=1e-12)


def test_a_small_mean_makes_adams_step() -> None:
    """tan is the line near 0: gradients that cancel make |m| much smaller than sqrt(v)."""
    ours, theirs = weight(), weight()
    first = AdamATan2([ours], lr=0.01, betas=(0.99, 0.999), weight_decay=0.0)
    second = torch.optim.Adam([theirs], lr=0.01, betas=(0.99, 0.999), eps=0.0)
    for i in range(200):
        gradient = 1.0 if i % 2 else -1.0
        before = float(ours), float(theirs)
        step(first, ours, gradient)
        theirs.grad = torch.tensor([gradient], dtype=torch.float64)
        second.step()
        if i > 100:
            assert float(ours) - before[0] == pytest.approx(float(theirs) - before[1], rel=1e-3)


def test_no_gradient_no_step_and_zero_gradients_only_decay() -> None:
    idle, zero = weight(), weight()
    optimizer = AdamATan2([idle, zero], lr=0.1, weight_decay=0.5)
    zero.grad = torch.zeros_like(zero)
    optimizer.step()
    assert (float(idle), float(zero)) == (1.0, 0.95)


def test_its_state_continues_exactly() -> None:
    def run(parameter: nn.Parameter, optimizer: AdamATan2, gradients: tuple[float, ...]) -> float:
        return [step(optimizer, parameter, g) for g in gradients][-1]

    whole = weight()
    expected = run(whole, AdamATan2([whole]), (1.0, 2.0, -0.5))
    half = weight()
    first = AdamATan2([half])
    run(half, first, (1.0, 2.0))
    second = AdamATan2([half])
    second.load_state_dict(first.state_dict())
    assert run(half, second, (-0.5,)) == expected


def test_the_learner_takes_it() -> None:
    layer = nn.Linear(3, 1)
    learner = Learner({"net": adam_atan2(dict(layer.named_parameters()), lr=0.01, betas=(0.9, 0.95), weight_decay=0.0)})
    rows = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    losses = [learner.update([lambda: {"mse": (layer(rows)[:, 0] - rows.sum(1)).square().mean()}]) for _ in range(300)]
    assert losses[-1]["loss/mse"] < 0.01 * losses[0]["loss/mse"]


@pytest.mark.parametrize("bad", [{"lr": -1.0}, {"weight_decay": -0.1}, {"scale": 0.0}, {"betas": (0.9, 1.0)}])
def test_numbers_out_of_range(bad: dict[str, object]) -> None:
    with pytest.raises(ConfigError, match="AdamATan2 needs"):
        AdamATan2([weight()], **bad)  # type: ignore[arg-type]
