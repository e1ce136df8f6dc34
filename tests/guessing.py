"""A letter-guessing game: a small environment, and the agent that plays it, for tests of single-agent training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from troupe.episode import Message, Problem, Task, message

__all__ = ["Guesser", "LetterGame", "words"]


class LetterGame:
    """A hidden word is guessed letter by letter: 1 for each letter that is new and in it, 0 otherwise."""

    def __init__(self, *, guesses: int = 6, pay: float = 1.0) -> None:
        self.left, self.pay = guesses, pay
        self.found: set[str] = set()

    def reset(self, task: Problem) -> str:
        self.word: str = task.data["word"]
        return self._board()

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        new = {letter for letter in action if letter in self.word} - self.found
        self.found |= new
        solved = self.found == set(self.word)
        return self._board(), self.pay * len(new), solved, not solved and self.left == 0, {"is_success": solved}

    def _board(self) -> str:
        return "".join(letter if letter in self.found else "_" for letter in self.word)


class Guesser:
    """Shows the board; its action is the first letter that the model says."""

    def __init__(self, *, system: str = "guess") -> None:
        self.opening: list[Message] = [message("system", system)]

    def observe(self, observation: str) -> Sequence[Message]:
        opening, self.opening = self.opening, []
        return [*opening, message("user", observation)]

    def act(self, text: str) -> str:
        return next((letter for letter in text if letter.isalpha()), "")


def words(*hidden: str, **more: Mapping[str, Any]) -> list[Task]:
    return [Task(f"word-{word}", "word", "Guess the word", data={"word": word}, **more) for word in hidden]  # type: ignore[arg-type]
