"""Accuracy per supervision step, and comparisons puzzle by puzzle."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from torch import Tensor

from troupe.errors import DataError
from troupe.systems.puzzles.evaluation import compare, evaluate, stored_outcome
from troupe.training.recursion import IGNORED


class Carry(NamedTuple):
    steps: Tensor


class Segment(NamedTuple):
    carry: Carry
    logits: Tensor
    q_halt: Tensor
    q_continue: Tensor | None


class Slow:
    """Knows that every cell repeats its token, but of puzzle i only after i + 1 segments; until then it says 0. It
    would stop after two segments."""

    def initial_carry(self, n: int) -> Carry:
        return Carry(torch.zeros(n))

    def __call__(self, carry: Carry, tokens: Tensor, identities: Tensor | None = None) -> Segment:
        number = tokens[:, 0] if identities is None else identities
        knows = carry.steps >= number
        answer = torch.where(knows[:, None], tokens, 0)
        logits = torch.nn.functional.one_hot(answer, 9).float()
        return Segment(Carry(carry.steps + 1), logits, carry.steps - 0.5, None)


def test_every_supervision_step_counts() -> None:
    tokens = torch.tensor([[1, 5], [2, 5], [3, 0]])
    outcome = evaluate(Slow(), tokens, tokens, steps=4)
    assert outcome.exact.T.tolist() == [[False, True, True, True], [False, False, True, True], [False] * 3 + [True]]
    assert outcome.cells.T.tolist() == [[0, 1, 1, 1], [0, 0, 1, 1], [0.5, 0.5, 0.5, 1]]
    assert outcome.halts.T.tolist() == [[False, True, True, True]] * 3
    assert [interval.mean for interval in outcome.intervals()] == pytest.approx([0, 1 / 3, 2 / 3, 1])
    metrics = outcome.metrics()
    assert metrics["eval/exact"] == 1.0 and metrics["eval/exact/2"] == pytest.approx(1 / 3)
    assert metrics["eval/halt_right"] == pytest.approx(9 / 12) and metrics["eval/exact_low"] < 1


def test_labels_and_identities() -> None:
    tokens = torch.tensor([[8, 5], [8, 5]])
    labels = torch.tensor([[IGNORED, 5], [IGNORED, 5]])
    outcome = evaluate(Slow(), tokens, labels, steps=1, identities=torch.tensor([0, 1]))
    assert outcome.exact.tolist() == [[True, False]] and outcome.cells.tolist() == [[1, 0]]


def test_large_sets_go_in_parts() -> None:
    tokens = torch.ones(1300, 1, dtype=torch.int64)
    outcome = evaluate(Slow(), tokens, tokens, steps=2)
    assert outcome.exact.shape == (2, 1300) and outcome.solved.all() and not outcome.exact[0].any()


def test_no_puzzles_no_accuracy() -> None:
    with pytest.raises(DataError, match="no puzzles to evaluate"):
        evaluate(Slow(), torch.zeros(0, 2).long(), torch.zeros(0, 2).long(), steps=1)


def outcome_of(word: str) -> np.ndarray:
    return np.array([letter == "1" for letter in word])


def test_more_puzzles_beyond_chance() -> None:
    """Eight solved by the first alone, none by the other: p = 2 / 2^8."""
    found = compare(outcome_of("1" * 8 + "110"), outcome_of("0" * 8 + "110"))
    assert (found.ours, found.theirs, found.both, found.difference.n) == (8, 0, 2, 11)
    assert found.p == pytest.approx(2 / 256) and found.better
    assert found.sentence("B").startswith("solves more puzzles than B: 10 against 2 of 11, +72.7 points")
    other = compare(outcome_of("0" * 8 + "110"), outcome_of("1" * 8 + "110"))
    assert not other.better and other.sentence("B").startswith("solves fewer puzzles than B: 2 against 10")


def test_what_could_be_chance_is_not_more() -> None:
    found = compare(outcome_of("1111110"), outcome_of("0000001"))  # 6 against 1: p = 2 (1 + 7) / 2^7
    assert found.p == pytest.approx(16 / 128) and not found.better
    assert "was not shown to solve more" in found.sentence("B")
    assert compare(outcome_of("10"), outcome_of("10")).p == 1.0


def test_comparisons_need_the_same_puzzles() -> None:
    with pytest.raises(DataError):
        compare(outcome_of("10"), outcome_of("1"))
    record: dict[str, Any] = {"puzzles": "abc", "solved": [1, 0]}
    assert stored_outcome(record, "abc", "runs/a").tolist() == [True, False]
    with pytest.raises(DataError, match="runs/a was judged by other held-out puzzles"):
        stored_outcome(record, "abd", "runs/a")
