"""Programs that share a run, the cases that they are asked, and what they print."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from troupe.sandbox.cases import Case
from troupe.sandbox.program import Limits

__all__ = ["CALL_SECONDS", "Answers", "Job", "read_answers", "shared_limits"]

CALL_SECONDS = 1.0
"""Of one call in Node and Java, of all calls in Python."""


@dataclass(frozen=True, slots=True)
class Job:
    """A program, what it defines (a function, a class, in Java also "Class.method"), and the cases to judge it on."""

    program: str
    entry: str
    cases: tuple[Case, ...]


Answers = list[list[Mapping[str, Any]]]
"""For each job and case {"value": ...} or {"error": ...}, or {"lost": ...} where a neighbour may be to blame."""


def read_answers(text: str, jobs: Sequence[Job], why: str) -> Answers:
    """What programs have printed: one line for each job that ended, in order, a list of answers for each case or an
    error for all of them. Where there is anything else, nobody knows who wrote it, and nothing of it counts."""
    nothing: Answers = [[{"lost": why}] * len(job.cases) for job in jobs]
    try:
        lines = [json.loads(line) for line in text.split("\n")[:-1]]
    except (ValueError, RecursionError):
        return nothing
    if len(lines) > len(jobs):
        return nothing
    for place, (line, job) in enumerate(zip(lines, jobs, strict=False)):
        answers = [line] * len(job.cases) if isinstance(line, dict) else line
        sound = isinstance(answers, list) and len(answers) == len(job.cases)
        if not sound or not all(
            isinstance(a, dict) and len(a) == 1 and a.keys() <= {"value", "error", "lost"} for a in answers
        ):
            return nothing
        nothing[place] = answers
    return nothing


def shared_limits(seconds: float, memory_mb: int) -> Limits:
    """Both run-time systems reserve more memory than they use, start a dozen threads, and open many files."""
    return Limits(
        wall_seconds=4 * seconds, cpu_seconds=seconds, memory_mb=memory_mb, processes=48, output_bytes=2**21,
        file_mb=64, open_files=256,
    )  # fmt: skip
