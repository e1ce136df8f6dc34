"""Deep supervision against numbers worked by hand: slots, losses, halting, averaged weights."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from troupe.training.learner import Learner, adamw
from troupe.training.recursion import (
    IGNORED,
    Fresh,
    MovingAverage,
    Slots,
    advance,
    cell_losses,
    fill,
    least_steps,
    solved,
    supervision,
)


class Carry(NamedTuple):
    high: Tensor
    low: Tensor


class Segment(NamedTuple):
    carry: Carry
    logits: Tensor
    q_halt: Tensor
    q_continue: Tensor | None


class Counting(nn.Module):
    """Two cells, three tokens. Its carry counts segments, and its logits say token `steps` with the weight's size."""

    def __init__(self, halt: Tensor, proceed: Tensor | None = None) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(2.0))
        self.halt, self.proceed = halt, proceed
        self.identities: list[Any] = []

    def initial_carry(self, n: int) -> Carry:
        return Carry(torch.zeros(1).expand(n), torch.full((n,), 7.0))

    def forward(self, carry: Carry, tokens: Tensor, identities: Tensor | None = None) -> Segment:
        self.identities.append(identities)
        says = carry.high.long() % 3
        logits = self.weight * torch.nn.functional.one_hot(says, 3).float()[:, None].expand(-1, 2, -1)
        proceed = None if self.proceed is None else self.proceed + carry.high
        after = Carry((carry.high + 1).detach(), carry.low)
        return Segment(after, logits, self.halt + carry.high + 0 * self.weight, proceed)


LOSS = cell_losses(lambda logits: torch.log_softmax(logits, -1))


def fresh(*tokens: int, least: int = 1) -> Fresh:
    column = torch.tensor(tokens)
    return Fresh(
        column[:, None].repeat(1, 2), torch.zeros(len(tokens), 2).long(), column, torch.full((len(tokens),), least)
    )


def started(net: Any, n: int = 2, **options: Any) -> Slots:
    slots = Slots.empty(net, n, 2, **options)
    fill(slots, fresh(*range(n)), net)
    return slots


def test_only_free_slots_take_a_fresh_puzzle() -> None:
    net = Counting(torch.zeros(3))
    slots = started(net, 3)
    assert slots.tokens.tolist() == [[0, 0], [1, 1], [2, 2]] and not slots.free.any()
    slots.carry = Carry(torch.tensor([4.0, 5.0, 6.0]), torch.tensor([1.0, 2.0, 3.0]))
    slots.steps, slots.free = torch.tensor([4, 5, 6]), torch.tensor([True, False, True])
    fill(slots, fresh(8, 9, least=3), net)
    assert slots.tokens.tolist() == [[8, 8], [1, 1], [9, 9]] and slots.identities.tolist() == [8, 1, 9]
    assert slots.steps.tolist() == [0, 5, 0] and slots.least.tolist() == [3, 1, 3]
    assert slots.carry.high.tolist() == [0, 5, 0] and slots.carry.low.tolist() == [7, 2, 7]


def update(net: Any, slots: Slots, **options: Any) -> tuple[dict[str, float], dict[str, float]]:
    measured: dict[str, float] = {}
    (closure,) = supervision(net, slots, LOSS, measured, **{"most": 4, "halting": True} | options)
    return {name: loss.item() for name, loss in closure().items()}, measured


def test_the_losses_of_one_halting_logit() -> None:
    """Both say token 0 with logits (2, 0, 0). The first is right in both cells; of the second, one cell counts and is
    wrong. -log softmax: log(e^2 + 2) - 2 = 0.23954 for token 0, log(e^2 + 2) = 2.23954 for the others."""
    net = Counting(torch.tensor([1.0, -1.0]))
    slots = started(net)
    slots.labels = torch.tensor([[0, 0], [2, IGNORED]])
    losses, measured = update(net, slots)
    right = math.log(math.exp(2) + 2) - 2
    assert losses["answer"] == pytest.approx((right + right + 2) / 2, abs=1e-6)
    # -log sigmoid(1) for the one that is right, -log(1 - sigmoid(-1)) for the other: log(1 + e^-1) both
    assert losses["halt"] == pytest.approx(0.5 * math.log(1 + math.exp(-1)), abs=1e-6)
    assert set(losses) == {"answer", "halt"}
    assert measured == {"halt_right": 1.0, "cells": pytest.approx(2 / 3), "exact": 0.5}
    assert net.identities == [None]


def test_the_bootstrapped_loss_of_two_halting_logits() -> None:
    """The next segment has q_halt 1 + 1 = 2 and q_continue 3 + 1 = 4: max 4, but 2 for the puzzle in its last step."""
    net = Counting(torch.tensor([1.0, 1.0]), torch.tensor([3.0, 3.0]))
    slots = started(net)
    slots.steps = torch.tensor([0, 3])
    losses, _ = update(net, slots)

    def bce(logit: float, target: float) -> float:
        p = 1 / (1 + math.exp(-logit))
        return -target * math.log(p) - (1 - target) * math.log(1 - p)

    expected = [bce(3, 1 / (1 + math.exp(-goal))) for goal in (4, 2)]
    assert losses["continue"] == pytest.approx(0.5 * sum(expected) / 2, abs=1e-5)
    assert set(update(net, slots, halting=False)[0]) == {"answer"}


def test_the_network_is_told_identities_where_puzzles_have_them() -> None:
    net = Counting(torch.zeros(2))
    update(net, started(net, identified=True))
    assert net.identities[0].tolist() == [0, 1]


def test_puzzles_leave_when_the_network_is_sure_but_not_before_their_least_step() -> None:
    net = Counting(torch.tensor([0.5, 0.5, -5.0]))
    slots = started(net, 3)
    slots.least = torch.tensor([1, 3, 1])
    freed = []
    for _ in range(4):
        update(net, slots)
        advance(slots, most=4, halting=True)
        freed.append(slots.free.tolist())
    # q_halt is 0.5 + steps before; the third's is -5, -4, -3, -2 and it has to take all four
    assert freed == [[True, False, False], [True, False, False], [True, True, False], [True, True, True]]
    assert slots.carry.high.tolist() == [4, 4, 4] and slots.steps.tolist() == [4, 4, 4] and slots.segment is None


def test_with_two_logits_the_larger_decides_and_without_halting_none() -> None:
    for halting, expected in ((True, [True, False]), (False, [False, False])):
        net = Counting(torch.tensor([1.0, 1.0]), torch.tensor([0.5, 1.5]))
        slots = started(net)
        update(net, slots, halting=halting)
        advance(slots, most=4, halting=halting)
        assert slots.free.tolist() == expected


def test_no_gradient_passes_from_one_segment_to_the_next() -> None:
    net = Counting(torch.zeros(2))
    slots = started(net)
    learner = Learner({"net": adamw(dict(net.named_parameters()), lr=0.1, betas=(0.9, 0.999), weight_decay=0.0)})
    for _ in range(3):
        before = net.weight.item()
        assert "loss/answer" in learner.update(supervision(net, slots, LOSS, {}, most=9, halting=False))
        assert net.weight.item() != before
        advance(slots, most=9, halting=False)
        assert not any(tensor.requires_grad for tensor in slots.carry)


def test_slots_come_back_as_they_were() -> None:
    net = Counting(torch.zeros(3))
    slots = started(net, 3)
    update(net, slots)
    advance(slots, most=4, halting=True)
    other = Slots.empty(net, 3, 2)
    other.load_state_dict(slots.state_dict())
    for name, value in slots.state_dict().items():
        found = other.state_dict()[name]
        pairs = zip(value, found, strict=True) if name == "carry" else [(value, found)]
        assert all(torch.equal(a, b) for a, b in pairs)
    assert isinstance(other.carry, Carry)


def test_exploration() -> None:
    rng = np.random.default_rng(0)
    found = least_steps(40_000, 5, 0.2, rng)
    shares = np.bincount(found, minlength=6) / len(found)
    assert shares[0] == 0 and shares[1] == pytest.approx(0.8, abs=0.01)
    assert shares[2:] == pytest.approx(np.full(4, 0.05), abs=0.005)
    assert set(least_steps(100, 1, 1.0, rng)) == {1} and set(least_steps(100, 9, 0.0, rng)) == {1}


def test_solved_asks_only_where_there_is_a_label() -> None:
    logits = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]])
    assert solved(logits, torch.tensor([[1, 0]])).tolist() == [True]
    assert solved(logits, torch.tensor([[1, 1]])).tolist() == [False]
    assert solved(logits, torch.tensor([[1, IGNORED]])).tolist() == [True]


def test_averaged_weights() -> None:
    module = nn.Linear(1, 1, bias=False)
    module.register_buffer("seen", torch.tensor(0))
    nn.init.constant_(module.weight, 1.0)
    average = MovingAverage(module, 0.5)
    nn.init.constant_(module.weight, 2.0)
    module.seen += 3
    average.update(module, 1)  # decay min(0.5, 2/11): 1 + (1 - 2/11) * 1
    assert average.module.weight.item() == pytest.approx(2 - 2 / 11) and average.module.seen == 3
    average.update(module, 100)  # decay 0.5
    assert average.module.weight.item() == pytest.approx(2 - 1 / 11)
    last = MovingAverage(module, 0.0)
    nn.init.constant_(module.weight, 5.0)
    last.update(module, 7)
    assert last.module.weight.item() == 5.0 and not last.module.weight.requires_grad
