"""What a run on verifiable tasks ended with, and whether anything was gained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.maths.statistics import Interval, mcnemar, paired_proportions, wilson
from troupe.systems.selfplay.verifiable.attempts import Attempts
from troupe.training.evaluation import Decision

__all__ = ["FinalResult", "KindResult", "TaskResult", "final_result"]


@dataclass(frozen=True, slots=True)
class KindResult:
    """Shares of the final tasks of a kind that were solved, before and after learning, by the same search."""

    kind: str
    before: Interval
    after: Interval
    difference: Interval


@dataclass(frozen=True, slots=True)
class FinalResult:
    """The champion beside the network that the run began with, on the final held-out tasks, by the same search.

    `p` is McNemar's. `uniform` is that search without any network (uniform priors, values in the middle of the returns)
    and `over_uniform` the champion's difference from it: an untrained network's noise may be worse than none, and is
    soon unlearned. `evaluated` counts the positions that the champion's networks judged."""

    kinds: tuple[KindResult, ...]
    before: Interval
    after: Interval
    difference: Interval
    p: float
    uniform: Interval
    over_uniform: Interval
    evaluated: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> FinalResult:
        kinds = tuple(KindResult(row["kind"], *_intervals(row)) for row in record["kinds"])
        before, after, difference = _intervals(record)
        uniform, over = Interval(**record["uniform"]), Interval(**record["over_uniform"])
        return cls(kinds, before, after, difference, record["p"], uniform, over, record["evaluated"])


def _intervals(record: Mapping[str, Any]) -> tuple[Interval, Interval, Interval]:
    return Interval(**record["before"]), Interval(**record["after"]), Interval(**record["difference"])


@dataclass(frozen=True)
class TaskResult:
    """What a run ended with. `promoted`: whether any candidate passed the gate. `improved`: whether the champion solves
    more of the final tasks than the untrained networks, and more than a search without networks, by paired intervals.

    `seconds` and `cpu_seconds` (of trainer and workers) are sums over all processes that worked on the run.
    """

    folder: Path
    iterations: int
    champion: str
    promoted: bool
    decisions: Sequence[tuple[int, str, Decision]]
    final: FinalResult
    parameter_hash: str
    seconds: float
    cpu_seconds: float

    @property
    def improved(self) -> bool:
        return min(self.final.difference.low, self.final.over_uniform.low) > 0

    @property
    def difference(self) -> Interval:
        return self.final.difference


def final_result(
    tasks: Mapping[str, Sequence[Task]],
    before: Mapping[str, Attempts],
    after: Mapping[str, Attempts],
    uniform: Mapping[str, Attempts],
    confidence: float,
) -> FinalResult:
    """All on the same tasks. Raises DataError where a task was not attempted: silence is not a score."""
    kinds, all_before, all_after, all_uniform = [], [], [], []
    for kind, some in tasks.items():
        if not some:
            continue
        if any(kind not in attempts for attempts in (before, after, uniform)):
            raise DataError(f"the final tasks of kind {kind!r} were never attempted")
        one, other, third = (attempts[kind].successes.tolist() for attempts in (before, after, uniform))
        if not len(one) == len(other) == len(third) == len(some):
            counts = f"{len(one)}, {len(other)} and {len(third)}"
            raise DataError(f"of {len(some)} final tasks of kind {kind!r} {counts} were attempted")
        n = len(some)
        kinds.append(
            KindResult(
                kind,
                wilson(sum(one), n, confidence),
                wilson(sum(other), n, confidence),
                paired_proportions(other, one, confidence),
            )
        )
        all_before += one
        all_after += other
        all_uniform += third
    n = len(all_before)
    evaluated = sum(int(attempts.chunk.counts.get("evaluated", 0)) for attempts in after.values())
    return FinalResult(
        tuple(kinds), wilson(sum(all_before), n, confidence), wilson(sum(all_after), n, confidence),
        paired_proportions(all_after, all_before, confidence), mcnemar(all_after, all_before),
        wilson(sum(all_uniform), n, confidence), paired_proportions(all_after, all_uniform, confidence), evaluated,
    )  # fmt: skip
