"""Which held-out tasks the report shows before and after training: changes first, and failures are not hidden."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from troupe.episode import Episode, Outcome

__all__ = ["Change", "Example", "choose", "count_changes"]

Change = Literal["newly solved", "lost", "solved both times", "failed both times"]

_SHOWN_AS: tuple[Change, ...] = ("newly solved", "lost", "failed both times", "solved both times")


@dataclass(frozen=True, slots=True)
class Example:
    """One task, attempted before and after."""

    task_id: str
    change: Change
    before: Episode
    after: Episode


def choose(before: Sequence[Episode], after: Sequence[Episode], count: int = 5) -> list[Example]:
    """`count` tasks that both sides attempted: newly solved ones, and one lost and one still failing if there are any.

    Deterministic: the first tasks of each kind in the order in which they were stored.
    """
    pairs = _pairs(before, after)
    chosen = [next((e for e in pairs if e.change == kind), None) for kind in ("failed both times", "lost")]
    picked = [example for example in chosen if example is not None][:count]
    for kind in ("newly solved", "failed both times", "lost", "solved both times"):
        rest = [example for example in pairs if example.change == kind and example not in picked]
        picked += rest[: count - len(picked)]
    return sorted(picked, key=lambda example: _SHOWN_AS.index(example.change))


def count_changes(before: Sequence[Episode], after: Sequence[Episode]) -> dict[Change, int]:
    """How many of the tasks that both sides attempted changed in which way."""
    counts = Counter(example.change for example in _pairs(before, after))
    return {change: counts[change] for change in _SHOWN_AS}


def _pairs(before: Sequence[Episode], after: Sequence[Episode]) -> list[Example]:
    """The first attempts of each task, in the order of `before`."""
    earlier, later = _first_attempts(before), _first_attempts(after)
    return [Example(t, _change(e, later[t]), e, later[t]) for t, e in earlier.items() if t in later]


def _first_attempts(episodes: Sequence[Episode]) -> dict[str, Episode]:
    found: dict[str, Episode] = {}
    for episode in episodes:
        found.setdefault(episode.task_id, episode)
    return found


def _change(before: Episode, after: Episode) -> Change:
    solved = before.outcome is Outcome.SUCCESS, after.outcome is Outcome.SUCCESS
    if solved[0] and solved[1]:
        return "solved both times"
    if solved[0]:
        return "lost"
    return "newly solved" if solved[1] else "failed both times"
