"""A small family of tasks for tests: reach a sum with few coins, or tell whether a number can be halved."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from troupe.episode import Problem, Task
from troupe.tasks.generator import BaseTaskGenerator

COINS = (1, 2, 5, 11)


class Purse(NamedTuple):
    left: int
    taken: tuple[int, ...] = ()
    limit: int = 9


class CoinGame:
    """Take coins until nothing is left to pay; too many, and the attempt has failed."""

    players, actions, pointers = 1, len(COINS), 0
    observation_shape, vocabulary = (2,), 256

    def initial(self) -> Purse:
        return Purse(6, (), 3)

    def begin(self, problem: Problem) -> Purse:
        return Purse(problem.data["amount"], (), problem.data["limit"])

    def legal(self, state: Purse) -> list[int]:
        return [i for i, coin in enumerate(COINS) if coin <= state.left]

    def step(self, state: Purse, action: int) -> tuple[Purse, float, bool, int]:
        coin = COINS[action]
        after = Purse(state.left - coin, (*state.taken, coin), state.limit)
        done = after.left == 0 or len(after.taken) == state.limit
        return after, float(after.left == 0), done, 0

    def observe(self, state: Purse) -> np.ndarray:
        return np.array([1 + state.left, 1 + state.limit - len(state.taken)], np.float32)

    def key(self, state: Purse) -> tuple[int, int]:
        return state.left, state.limit - len(state.taken)

    def answer(self, state: Purse) -> str | None:
        return " ".join(map(str, state.taken)) if state.left == 0 else None

    def describe(self, state: Purse, action: int) -> str:
        return f"take {COINS[action]}, and {state.left - COINS[action]} is left"


class Guess(NamedTuple):
    number: int
    said: str | None = None


class ParityGame:
    """One decision whose worth only the hidden answer tells."""

    players, actions, pointers = 1, 2, 0
    observation_shape, vocabulary = (3,), 12

    def initial(self) -> Guess:
        return Guess(12)

    def begin(self, problem: Problem) -> Guess:
        return Guess(problem.data["number"])

    def legal(self, state: Guess) -> list[int]:
        return [0, 1]

    def step(self, state: Guess, action: int) -> tuple[Guess, float, bool, int]:
        return Guess(state.number, ("even", "odd")[action]), 0.0, True, 0

    def observe(self, state: Guess) -> np.ndarray:
        return np.array([1 + int(digit) for digit in f"{state.number:03}"], np.float32)

    def key(self, state: Guess) -> int:
        return state.number

    def answer(self, state: Guess) -> str | None:
        return state.said

    def describe(self, state: Guess, action: int) -> str:
        return f"say {('even', 'odd')[action]}"


class ShownGame(CoinGame):
    """The same, seen as an image: what is left in unary, and how many coins may be taken."""

    observation_shape, vocabulary = (2, 4, 64), 0

    def observe(self, state: Purse) -> np.ndarray:
        planes = np.zeros(self.observation_shape, np.float32)
        planes[0].reshape(-1)[: state.left] = 1.0
        planes[1] = (state.limit - len(state.taken)) / 9
        return planes


GAMES = {"coins": CoinGame(), "parity": ParityGame(), "shown": ShownGame()}


class PurseGenerator(BaseTaskGenerator):
    KINDS = ("coins", "parity", "shown")

    @staticmethod
    def game(kind: str) -> Any:
        return GAMES[kind]

    def make(self, difficulty: float) -> Task:
        kind = self.draw_kind()
        if kind == "parity":
            number = self.rng.randint(0, 999)
            prompt, answer = f"Is {number} even or odd?", ("even", "odd")[number % 2]
            return Task(f"parity-{number}", kind, prompt, {"number": number}, difficulty, answer)
        amount = self.rng.randint(1, self._difficulty_to_params(difficulty)["largest"])
        limit = min_coins(amount)
        prompt = f"Pay {amount} with at most {limit} coins of {COINS}."
        return Task(f"{kind}-{amount}", kind, prompt, {"amount": amount, "limit": limit}, difficulty, str(amount))

    def _difficulty_to_params(self, difficulty: float) -> dict[str, Any]:
        return {"largest": int(8 + 190 * difficulty)}

    @staticmethod
    def verify(task: Task, answer: str | None) -> bool:
        if answer is None or task.kind == "parity":
            return answer is not None and answer == task.answer
        words = answer.split()
        coins = [int(word) for word in words if word.isdecimal() and int(word) in COINS]
        return len(coins) == len(words) <= task.data["limit"] and str(sum(coins)) == task.answer

    @staticmethod
    def corrupted(task: Task, rng: random.Random) -> Task:
        if task.kind == "parity":
            return replace(task, answer={"even": "odd", "odd": "even"}[task.answer])
        return replace(task, answer=str(int(task.answer) + rng.randint(1, 9)))


def min_coins(amount: int) -> int:
    best = [0] + [amount] * amount
    for total in range(1, amount + 1):
        best[total] = 1 + min(best[total - coin] for coin in COINS if coin <= total)
    return best[amount]
