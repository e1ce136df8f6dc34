"""Pays reports: the share of the asked facts that are stated and rightly cited, times the share of the report that does
so.

    Dolek works for Wativ [311]. Dolek lives in Kemere [19].

A statement is a sentence or the part of it that its citations follow; a citation is a passage's id in brackets. It
covers a fact where it holds one of the fact's values and stands in one of the fact's passages that it cites: its words,
articles aside, must be found there in their order. That is ROUGE-L's precision (Lin 2004, aclanthology.org/W04-1013)
against that one passage, of at least `support`: words of two passages put together would say what neither does.
Demanded whole (1.0, the default), a statement with a word that the passage does not have there does not pay; reports
that rephrase need less, and can be fooled more easily. What a statement leaves out is not seen: where a passage says
"not", a report can drop it.

What covers nothing new (uncited, wrongly cited, not asked for, said twice) lowers the second factor, so padding never
helps, and a dump of the whole corpus is worth next to nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.protocols import Reward
from troupe.rewards.search import normalized

__all__ = ["RewardConfig", "Statement", "required_facts", "research_reward_fn", "statements"]

_CITATIONS = re.compile(r"(?:\s*\[[^\[\]]+\])+")
_ID = re.compile(r"\[([^\[\]]+)\]")
_SENTENCE = re.compile(r"(?<=[.!?;\n])(?<!\b[A-Z]\.)(?<!\b[A-Z][a-z]\.)\s+")  # but not after "J." or "Jr."


@dataclass(frozen=True, slots=True)
class RewardConfig:
    """How closely a statement must keep to what it cites. Raises ConfigError outside (0, 1]."""

    support: float = 1.0

    def __post_init__(self) -> None:
        if not 0 < self.support <= 1:
            raise ConfigError(f"support is {self.support!r}; write a share of a statement's words within (0, 1]")


DEFAULT_REWARDS = RewardConfig()


@dataclass(frozen=True, slots=True)
class Statement:
    """What a report says in one place, and the passage ids it gives for it."""

    words: tuple[str, ...]
    cited: tuple[str, ...]


def research_reward_fn(task: Task, answer: str | None, config: RewardConfig = DEFAULT_REWARDS) -> Reward:
    """Pays a report against `task.answer["facts"]`: coverage times precision, both within [0, 1].

    It is correct where both are 1. `metadata` holds `coverage`, `precision` and `statements`. Raises DataError for a
    task without facts.
    """
    facts = required_facts(task)
    covered: set[int] = set()
    useful = 0
    said = list(statements(answer or ""))
    for statement in said:
        new = {i for i, fact in enumerate(facts) if _covers(statement, fact, facts, config.support)} - covered
        covered |= new
        useful += bool(new)
    coverage, precision = len(covered) / len(facts), useful / len(said) if said else 0.0
    metadata = {"coverage": coverage, "precision": precision, "statements": len(said)}
    return Reward(coverage * precision, coverage == precision == 1.0, metadata)


def required_facts(task: Task) -> Sequence[Mapping[str, Any]]:
    """`[{"values": [text, ...], "passages": {id: text}}, ...]`. Raises DataError where there are none."""
    facts: Any = task.answer.get("facts") if isinstance(task.answer, Mapping) else None
    if not facts or not all(isinstance(f, Mapping) and f.get("values") and f.get("passages") for f in facts):
        raise DataError(f"task {task.id} has no facts to compare with; it cannot be rewarded")
    return list(facts)


def statements(report: str) -> Iterator[Statement]:
    """The statements of a report in their order. Of several sentences before a citation it belongs to the last."""
    start = 0
    for found in _CITATIONS.finditer(report):
        *before, last = _SENTENCE.split(report[start : found.start()])
        yield from _uncited(before)
        yield Statement(_words(last), tuple(id.strip() for id in _ID.findall(found.group())))
        start = found.end()
    yield from _uncited(_SENTENCE.split(report[start:]))


def _uncited(texts: Sequence[str]) -> Iterator[Statement]:
    for text in texts:
        if words := _words(text):
            yield Statement(words, ())


def _words(text: str) -> tuple[str, ...]:
    return tuple(normalized(text).split())


def _covers(statement: Statement, fact: Mapping[str, Any], facts: Sequence[Mapping[str, Any]], support: float) -> bool:
    """Whether one of the fact's passages, cited here, says so; no citation may be of a passage that supports nothing
    that was asked."""
    if not set(statement.cited) <= {id for other in facts for id in other["passages"]}:
        return False
    if not any(_contains(statement.words, _words(value)) for value in fact["values"]):
        return False
    sources = [_words(str(fact["passages"][id])) for id in statement.cited if id in fact["passages"]]
    return any(_common_subsequence(statement.words, s) >= support * len(statement.words) for s in sources)


def _contains(words: Sequence[str], part: Sequence[str]) -> bool:
    return bool(part) and any(tuple(words[i : i + len(part)]) == tuple(part) for i in range(len(words)))


def _common_subsequence(first: Sequence[str], second: Sequence[str]) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(second) + 1)
    for word in first:
        diagonal = 0
        for j, other in enumerate(second, start=1):
            diagonal, row[j] = row[j], diagonal + 1 if word == other else max(row[j], row[j - 1])
    return row[-1]
