"""A trained network at work: one puzzle in, its answer out.

solver = load_puzzle_solver("runs/sudoku4")
solver.solve("3... ..2. .1.. ...4").text      # '3241\n4123\n...'
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from troupe.errors import ConfigError, DataError, StorageError
from troupe.stores.checkpoints import CheckpointStore, resolve
from troupe.systems.puzzles import labyrinths
from troupe.systems.puzzles.config import PuzzleConfig
from troupe.systems.puzzles.networks import network

__all__ = ["Solution", "Solver", "alphabet", "load_puzzle_solver", "side"]

_MAZE = ".#SG"
"""Letters of tokens 1 to 4; 5, the way, is written with a star."""


@dataclass(frozen=True)
class Solution:
    """The network's answer. `keeps_givens`: whether it repeats what was given; `stopped`: the supervision step after
    which the network was sure of it, None if it never was; `text`: as lines."""

    tokens: np.ndarray
    keeps_givens: bool
    stopped: int | None
    text: str


class Solver:
    """Solves puzzles of the kind that its network was trained on; always runs all supervision steps."""

    def __init__(self, config: PuzzleConfig, net: Any) -> None:
        self.config, self.net = config, net.eval()

    @torch.inference_mode()
    def solve(self, puzzle: str) -> Solution:
        """`puzzle`: rows of digits with `.` for an empty cell, or of a maze with `.#SG`; spaces and line breaks do not
        count. Raises DataError for another text."""
        tokens = self._tokens("".join(puzzle.split()))
        rows = torch.from_numpy(tokens.astype(np.int64))[None]
        carry, stopped = self.net.initial_carry(1), None
        for step in range(1, self.config.segments + 1):
            segment = self.net(carry, rows)
            carry = segment.carry
            bar = 0.0 if segment.q_continue is None else float(segment.q_continue)
            if stopped is None and float(segment.q_halt) > bar:
                stopped = step
        answer = segment.logits.argmax(-1)[0].numpy().astype(np.uint8)
        free = tokens == 1
        return Solution(answer, bool((answer == tokens)[~free].all()), stopped, self._text(answer))

    def _tokens(self, letters: str) -> np.ndarray:
        size, maze = side(self.config), self.config.data.name == "maze"
        known = _MAZE if maze else "." + "".join(str(d) for d in range(1, size + 1))
        if len(letters) != size * size or not set(letters) <= set(known):
            raise DataError(f"the puzzle is {letters[:24]!r}...; write {size * size} letters, each one of {known!r}")
        return np.array([known.index(letter) + 1 for letter in letters], np.uint8)

    def _text(self, tokens: np.ndarray) -> str:
        size, known = side(self.config), alphabet(self.config)
        return "\n".join("".join(known[token] for token in row) for row in tokens.reshape(size, size))


def alphabet(config: PuzzleConfig) -> str:
    """The letter of each token: digits and `.` for an empty cell, `.#SG*` of a maze and its way, colours of ARC and `|`
    for a grid's end; first that of padding."""
    if config.data.name == "arc":
        return " |0123456789"
    return f"?{_MAZE}*" if config.data.name == "maze" else "?." + "".join(str(d) for d in range(1, side(config) + 1))


def side(config: PuzzleConfig) -> int:
    """Rows of the puzzles of a config."""
    return config.data.size or 9


def load_puzzle_solver(run: str | Path) -> Solver:
    """The averaged weights of a run on sudokus or mazes, or of one of its checkpoints.

    Raises StorageError where there is none, ConfigError for a run on ARC, where a puzzle alone does not say what is
    asked.
    """
    where = resolve(run)
    checkpoint = CheckpointStore(where.parent).load(where)
    config = PuzzleConfig.model_validate(_stored(where.parent))
    if config.data.name == "arc":
        raise ConfigError(f"{run} was trained on ARC, where a puzzle alone does not say which task it is of")
    size = side(config)
    vocabulary = labyrinths.VOCABULARY if config.data.name == "maze" else size + 2
    net = network(config, vocabulary=vocabulary, length=size * size)
    net.load_state_dict(checkpoint.tensors["averaged"])
    return Solver(config, net)


def _stored(folder: Path) -> Any:
    """The config of a run. Raises StorageError for a folder without one, or with that of another system."""
    try:
        found = json.loads((folder / "config.json").read_bytes())
    except (OSError, ValueError) as error:
        raise StorageError(
            f"{folder} has no config.json to read ({error}); give the folder of a run on puzzles"
        ) from error
    if not isinstance(found, dict) or set(found) != set(PuzzleConfig.model_fields):
        raise StorageError(f"{folder} is no run on puzzles; give the folder of one")
    return found
