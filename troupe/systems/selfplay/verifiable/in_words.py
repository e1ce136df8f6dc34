"""Tasks attempted by the asynchronous driver over chains: by a language model that proposes the actions, or by anybody
else who judges states.

    game = ToldGame(MathProblemGenerator.game("equation"))
    solved = await solve_in_words(MathProblemGenerator, game, LanguageProposer(policy, game), tasks, search)
    write_chains("chains.jsonl", solved)        # of what it solved, to be tuned on in its turn
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import numpy as np

from troupe.engines.proposing import ToldGame
from troupe.episode import Task
from troupe.protocols import Evaluator, Proposer
from troupe.search.asynchronous import Ticker
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.verifiable.attempts import RETURNS
from troupe.systems.selfplay.verifiable.deploy import Solved

__all__ = ["solve_in_words"]


async def solve_in_words(
    generator: Any,
    game: ToldGame,
    evaluator: Evaluator | Proposer,
    tasks: Sequence[Task],
    search: SearchConfig,
    *,
    slots: int = 64,
    seed: int = 0,
) -> list[Solved]:
    """An attempt at each task of the game's kind, without exploration: `slots` at a time, their leaves judged together.

    `generator` is the class that the tasks came from; its `verify` is asked at the end, and nobody sees an answer
    before. Raises DataError for a task that the game cannot hold, and whatever the evaluator raises.
    """
    ticker = Ticker(
        evaluator, search, slots=slots, generator=np.random.default_rng(seed), explore=False, returns=RETURNS
    )
    turns = asyncio.Semaphore(slots)  # whoever has begun goes on, so that its states are still remembered
    attempts = [asyncio.ensure_future(_attempt(generator, game, ticker, task, turns)) for task in tasks]
    try:
        return list(await asyncio.gather(*attempts))
    finally:  # where one failed, nobody goes on alone
        for attempt in attempts:
            attempt.cancel()


async def _attempt(generator: Any, game: ToldGame, ticker: Ticker, task: Task, turns: asyncio.Semaphore) -> Solved:
    async with turns:
        state, done = game.begin(task.problem), False
        while not done:
            found = await ticker.search(game, state)
            state, _, done, _ = game.step(state, found.action)
    answer = game.answer(state)
    return Solved(task, answer, answer is not None and bool(generator.verify(task, answer)), state.lines)
