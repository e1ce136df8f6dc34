"""A few held-out puzzles with what the network answered after its first and its last supervision step."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from troupe.systems.puzzles.config import PuzzleConfig
from troupe.systems.puzzles.data import PuzzleSet
from troupe.systems.puzzles.evaluation import Outcome
from troupe.systems.puzzles.solving import alphabet, side
from troupe.tasks.sudoku import BOXES
from troupe.training.recursion import Recursive

__all__ = ["answers", "choose", "examples"]

SHOWN = 4


def examples(
    config: PuzzleConfig, net: Recursive, held_out: PuzzleSet, outcome: Outcome, tensors: tuple[Tensor, Tensor | None]
) -> dict[str, Any]:
    """What examples.json holds: the puzzles of `choose` as rows of letters, with the answers after the first
    supervision step and after the last. `tensors` are the tokens int64 `[n, L]` of all held-out puzzles, and their
    tasks' numbers or None."""
    numbers = choose(outcome)
    tokens, identities = tensors[0][numbers], None if tensors[1] is None else tensors[1][numbers]
    found = answers(net, tokens, identities, steps=config.segments)
    shown = [_record(config, held_out, n, {step: of[i] for step, of in found.items()}) for i, n in enumerate(numbers)]
    boxes = BOXES[side(config)] if config.data.name == "sudoku" else None
    return {"kind": config.data.name, "boxes": boxes, "puzzles": shown}


def choose(outcome: Outcome) -> list[int]:
    """At most `SHOWN` numbers: a puzzle that the first step solves, one that only later steps do, one that none does,
    where there are any; then more that later steps solve, and more of the others."""
    first, last = outcome.exact[0], outcome.exact[-1]
    at_once, later, never = (np.flatnonzero(mask).tolist() for mask in (first & last, ~first & last, ~last))
    ordered = dict.fromkeys([*later[:1], *at_once[:1], *never[:1], *later, *never, *at_once])
    return list(ordered)[:SHOWN]


@torch.inference_mode()
def answers(net: Recursive, tokens: Tensor, identities: Tensor | None, *, steps: int) -> dict[int, np.ndarray]:
    """Likeliest tokens uint8 `[k, L]` after the first and the last supervision step, by its number from 1."""
    carry, found = net.initial_carry(len(tokens)), {}
    for step in range(1, steps + 1):
        segment = net(carry, tokens, identities)
        carry = segment.carry
        if step in (1, steps):
            found[step] = segment.logits.argmax(-1).cpu().numpy().astype(np.uint8)
    return found


def _record(config: PuzzleConfig, held_out: PuzzleSet, number: int, found: dict[int, np.ndarray]) -> dict[str, Any]:
    """Cropped to what puzzle and solution fill: a small grid of ARC lies in the corner of a large one."""
    puzzle, solution = held_out.puzzles[number], held_out.answers[number]
    n = int(len(puzzle) ** 0.5)
    filled = ((puzzle != 0) | (solution != 0)).reshape(n, n)
    high, wide = int(filled.any(1).sum()), int(filled.any(0).sum())
    letters = alphabet(config)

    def rows(tokens: np.ndarray) -> list[str]:
        return ["".join(letters[token] for token in row[:wide]) for row in tokens.reshape(n, n)[:high]]

    steps = [{"step": step, "cells": rows(tokens)} for step, tokens in found.items()]
    return {"number": number, "given": rows(puzzle), "solution": rows(solution), "steps": steps}
