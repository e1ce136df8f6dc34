"""Reports and the gate: may this candidate replace the incumbent?

Evaluation fails closed: no tasks, tasks that do not match, a score that is missing or not finite, each is a *failed*
check with its reason, never a promotion.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from troupe.episode import Episode, Outcome, Task
from troupe.errors import DataError
from troupe.maths.ratings import Pairs, Sprt, elo_of
from troupe.maths.statistics import Interval, mean_interval, paired_difference, pass_at_k, wilson

__all__ = ["Decision", "Gate", "MatchGate", "Report", "TaskScore"]


@dataclass(frozen=True, slots=True)
class TaskScore:
    """How often a task was solved, and whether the answer given most often is right (None: episodes name none)."""

    task: str
    kind: str
    successes: int
    attempts: int
    majority: bool | None = None

    @property
    def rate(self) -> float:
        return self.successes / self.attempts


@dataclass(frozen=True)
class Report:
    """Scores on held-out tasks, sampled or greedy, and metrics averaged over the episodes."""

    name: str
    scores: tuple[TaskScore, ...]
    metrics: Mapping[str, float] = field(default_factory=dict)

    @classmethod
    def of(cls, name: str, tasks: Sequence[Task], episodes: Sequence[Episode], metrics: Mapping[str, float]) -> Report:
        """Counts each task's successes. A task without an episode is a DataError: silence is not a score."""
        found: dict[str, list[Episode]] = {}
        for episode in episodes:
            found.setdefault(episode.task_id, []).append(episode)
        scores = []
        for task in tasks:
            if task.id not in found:
                raise DataError(f"report {name!r}: task {task.id!r} was never attempted")
            attempts = found[task.id]
            solved = sum(episode.outcome is Outcome.SUCCESS for episode in attempts)
            scores.append(TaskScore(task.id, task.kind, solved, len(attempts), _majority(attempts)))
        return cls(name, tuple(scores), dict(metrics))

    def kinds(self) -> list[str]:
        return sorted({score.kind for score in self.scores})

    def success(self, kinds: Sequence[str] | None = None, confidence: float = 0.95) -> Interval:
        """pass@1: mean over tasks of the share of attempts that succeeded. Wilson's interval for single attempts,
        Student's over task means otherwise. Raises DataError for an empty selection."""
        return _interval([score.rate for score in self._chosen(kinds)], confidence)

    def pass_at(self, k: int, kinds: Sequence[str] | None = None, confidence: float = 0.95) -> Interval:
        """Unbiased pass@k over tasks, with an interval; every task needs at least k attempts."""
        return _interval([pass_at_k(s.attempts, s.successes, k) for s in self._chosen(kinds)], confidence)

    def majority(self, kinds: Sequence[str] | None = None, confidence: float = 0.95) -> Interval:
        """maj@k (self-consistency, Wang et al. 2023, arXiv:2203.11171): the share of tasks whose most frequent answer
        over all attempts is right. Raises DataError where a task's episodes name no answer."""
        chosen = self._chosen(kinds)
        for score in chosen:
            if score.majority is None:
                raise DataError(f"report {self.name!r}: the attempts at task {score.task!r} name no answer to vote on")
        return _interval([float(bool(score.majority)) for score in chosen], confidence)

    def _chosen(self, kinds: Sequence[str] | None) -> list[TaskScore]:
        chosen = [score for score in self.scores if kinds is None or score.kind in kinds]
        if not chosen:
            raise DataError(f"report {self.name!r} holds no task{'' if kinds is None else f' of kinds {list(kinds)}'}")
        for score in chosen:
            if score.attempts < 1:
                raise DataError(f"report {self.name!r}: task {score.task!r} was scored without an attempt")
        return chosen

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Report:
        return cls(record["name"], tuple(TaskScore(**row) for row in record["scores"]), record["metrics"])


def _majority(attempts: Sequence[Episode]) -> bool | None:
    """Whether the most frequent `metadata["answer"]` is right; the one given first wins a tie, and no answer loses."""
    if not any("answer" in episode.metadata for episode in attempts):
        return None
    votes = Counter(str(a) for episode in attempts if (a := episode.metadata.get("answer")) is not None)
    if not votes:
        return False
    ((winner, _),) = votes.most_common(1)
    return any(
        episode.outcome is Outcome.SUCCESS for episode in attempts if str(episode.metadata.get("answer")) == winner
    )


def _interval(rates: Sequence[float], confidence: float) -> Interval:
    """Wilson's where every rate is 0 or 1: there Student's is too short, and of no width where all agree."""
    if all(rate in (0.0, 1.0) for rate in rates):
        return wilson(round(sum(rates)), len(rates), confidence)
    return mean_interval(rates, confidence)


@dataclass(frozen=True, slots=True)
class Decision:
    """The gate's answer. `difference` is candidate minus incumbent over tasks; None where it could not be measured."""

    promote: bool
    reasons: tuple[str, ...]
    difference: Interval | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Decision:
        gap = record["difference"]
        return cls(record["promote"], tuple(record["reasons"]), None if gap is None else Interval(**gap))


@dataclass(frozen=True, slots=True)
class Gate:
    """Promotes where the paired interval of the difference lies above `margin`, over the same held-out tasks.

    Fewer than `min_tasks` tasks promote nothing: on two of them two equal differences have an interval of no width.
    `floors` are lowest acceptable values of metrics of the candidate's report; a metric that is missing or not finite
    fails. `kinds` restricts the comparison to some kinds of tasks.
    """

    margin: float = 0.0
    confidence: float = 0.95
    kinds: tuple[str, ...] | None = None
    floors: Mapping[str, float] = field(default_factory=dict)
    min_tasks: int = 10

    def decide(self, candidate: Report, incumbent: Report) -> Decision:
        """Never raises for what evaluation data may hold: a broken report is a refused promotion."""
        reasons = []
        for name, floor in self.floors.items():
            found = candidate.metrics.get(name)
            if found is None or not math.isfinite(found):
                reasons.append(f"the metric {name!r} is missing from the report of {candidate.name!r}")
            elif found < floor:
                reasons.append(f"{name} is {found:.4g}, below {floor:.4g}")
        try:
            difference = self._difference(candidate, incumbent)
        except DataError as error:
            return Decision(False, (*reasons, str(error)))
        return self._verdict(difference, reasons, "tasks")

    def decide_scores(
        self, candidate: Sequence[float], incumbent: Sequence[float], unit: str = "episodes"
    ) -> Decision:  # fmt: skip
        """The same for one number per episode, both sides on the same episodes in the same order. A score that is
        missing or not finite is a refused promotion."""
        try:
            difference = paired_difference(candidate, incumbent, self.confidence)
        except DataError as error:
            return Decision(False, (str(error),))
        return self._verdict(difference, [], unit)

    def _verdict(self, difference: Interval, reasons: list[str], unit: str) -> Decision:
        gap = f"{difference.mean:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] over {difference.n} {unit}"
        if not difference.low > self.margin:
            reasons.append(f"no improvement shown: {gap}, the lower bound must exceed {self.margin:+.3f}")
        if difference.n < self.min_tasks:
            reasons.append(f"only {difference.n} {unit} were compared, {self.min_tasks} are needed")
        if reasons:
            return Decision(False, tuple(reasons), difference)
        return Decision(True, (f"improved by {gap}",), difference)

    def _difference(self, candidate: Report, incumbent: Report) -> Interval:
        ours = {s.task: s for s in candidate.scores if self.kinds is None or s.kind in self.kinds}
        theirs = {s.task: s for s in incumbent.scores if self.kinds is None or s.kind in self.kinds}
        if not ours or not theirs:
            raise DataError("the test set is empty: nothing was compared")
        if set(ours) != set(theirs):
            odd = sorted(set(ours) ^ set(theirs))[0]
            raise DataError(f"candidate and incumbent were scored on different tasks; first difference: {odd!r}")
        if any(s.attempts < 1 for s in (*ours.values(), *theirs.values())):
            raise DataError("a task was scored without an attempt")
        order = sorted(ours)
        return paired_difference([ours[t].rate for t in order], [theirs[t].rate for t in order], self.confidence)


@dataclass(frozen=True, slots=True)
class MatchGate:
    """Promotes by matches instead of tasks: a sequential test on pairs of games against the incumbent.

    Undecided keeps the incumbent, and so does a match that was not played. The test takes pairs for independent: count
    none whose games could only repeat those of another. `difference` is in Elo, and too large on
    average where the test stopped early: whoever was lucky stops first. Matches of fixed length measure strength.
    """

    test: Sprt = field(default_factory=Sprt)

    def is_decided(self, pairs: Pairs) -> bool:
        """Whether more games would change nothing."""
        return self.test.decide(pairs) != "continue"

    def decide(self, pairs: Pairs, shortage: str | None = None) -> Decision:
        """`shortage` says why there were no more pairs to play; it is a reason where these decided nothing."""
        if not pairs.games:
            return Decision(False, ("no game was played: nothing was compared",))
        verdict, gap = self.test.decide(pairs), elo_of(pairs)
        found = f"{gap.mean:+.0f} Elo [{gap.low:+.0f}, {gap.high:+.0f}] over {gap.n} games"
        bounds = f"LLR {self.test.llr(pairs):+.2f} of {self.test.lower:+.2f} and {self.test.upper:+.2f}"
        if verdict == "accept":
            return Decision(True, (f"improved by {found} ({bounds})",), gap)
        if verdict == "reject":
            return Decision(False, (f"not stronger: {found} ({bounds})",), gap)
        said = f"undecided, so the incumbent stays: {found} ({bounds})"
        return Decision(False, (said,) if shortage is None else (said, shortage), gap)
