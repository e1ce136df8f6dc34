"""Checkers for authors of games and of task families: each plays at random and compares what methods say with what they
promise."""

from troupe.testing.games import check_batch_game, check_game
from troupe.testing.tasks import check_generator

__all__ = ["check_batch_game", "check_game", "check_generator"]
