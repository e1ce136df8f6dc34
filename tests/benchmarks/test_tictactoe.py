from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest

from benchmarks.tictactoe import exhaustive, kept
from tests.runs import ROOT
from troupe.envs import make_game
from troupe.systems.selfplay.players import Minimax, RandomPlayer


def test_perfect_play_loses_no_line_and_random_play_many() -> None:
    game, rng = make_game("tictactoe"), np.random.default_rng(0)
    perfect = Minimax(game, 9, rng)
    assert [exhaustive(game, perfect, side)[2] for side in (0, 1)] == [0, 0]
    assert sum(exhaustive(game, RandomPlayer(game, rng), side)[2] for side in (0, 1)) > 100


def test_perfect_play_keeps_every_value() -> None:
    game, rng = make_game("tictactoe"), np.random.default_rng(0)
    assert kept(game, Minimax(game, 9, rng)) == (4520, 4520)
    good, total = kept(game, RandomPlayer(game, rng))
    assert total == 4520 and good < 4000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_the_preset_loses_no_line_within_two_cpu_minutes() -> None:
    done = subprocess.run(
        [sys.executable, "benchmarks/tictactoe.py"], cwd=ROOT, capture_output=True, text=True, timeout=590
    )
    assert done.returncode == 0, done.stdout + done.stderr
