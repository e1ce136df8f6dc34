"""Pays mathematical answers: right or not, by exact comparison with the task's answer.

What pays is fixed so that no wrong answer can pay: the text must commit to one answer (marked, standing alone, or its
only number), the answer must be worked out, and anything that cannot be compared is wrong.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.protocols import Reward
from troupe.rewards.answers import answers_equal, candidates, extract_answer
from troupe.rewards.equivalence import UndecidedError

__all__ = ["RewardConfig", "answers_equal", "extract_answer", "math_reward_fn"]


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """What answers are worth. Raises ConfigError unless a correct one is worth most."""

    correct_reward: float = 1.0
    incorrect_reward: float = 0.0  # one answer, and it is wrong
    format_error_reward: float = 0.0  # no answer, or several different ones

    def __post_init__(self) -> None:
        values = (self.correct_reward, self.incorrect_reward, self.format_error_reward)
        if not all(math.isfinite(value) for value in values) or self.correct_reward <= max(values[1:]):
            raise ConfigError(f"rewards are {values!r}; correct_reward must be finite and the largest of the three")


DEFAULT_REWARDS = RewardConfig()

_ASKS_PERCENT = re.compile(r"\b(?:what|which|how many)\b[^.?!]{0,40}\bpercent", re.IGNORECASE)


def math_reward_fn(task: Task, answer: str | None, config: RewardConfig = DEFAULT_REWARDS) -> Reward:
    r"""Pays `answer`, a final answer or the text that ends with one, against `task.answer`.

    `metadata` holds `extracted`, and `error` (`no_answer`, `several_answers`, `undecided`) where it was not compared.
    Of a text without a mark only a single number counts: ask for `<ans>`, `\boxed{}` or `####` in the prompt. Where
    the question asks for a percentage, `60%` also meets the truth `60`. Raises DataError for a task without an answer.
    """
    if task.answer is None or not str(task.answer).strip():
        raise DataError(f"task {task.id} has no answer to compare with; it cannot be rewarded")
    own_words = (answer or "").replace(task.prompt or "\0", " ")  # an echoed prompt puts no answer forward
    found = list(dict.fromkeys(candidates(own_words)))
    if len(found) != 1:
        error = "several_answers" if found else "no_answer"
        return Reward(config.format_error_reward, False, {"extracted": None, "error": error})
    try:
        correct = _meets(found[0], task)
    except UndecidedError:
        return Reward(config.incorrect_reward, False, {"extracted": found[0], "error": "undecided"})
    return Reward(config.correct_reward if correct else config.incorrect_reward, correct, {"extracted": found[0]})


def _meets(given: str, task: Task) -> bool:
    truth, data = str(task.answer), task.data
    unknowns: Any = data.get("unknowns", ()) if isinstance(data, Mapping) else ()
    if answers_equal(given, truth, unknowns=unknowns):
        return True
    bare = given.strip().rstrip("%").rstrip("\\ ")
    return bare != given.strip() and _ASKS_PERCENT.search(task.prompt) is not None and answers_equal(bare, truth)
