"""An imperfect teacher of the SWE workflow: it knows where the fault is and spoils some of what it says.

Demonstrations are episodes of the same workflow, spoken by this teacher through a scripted engine. `noise` is the
chance that an analysis names another line, and that a patch has a wrong operator, number or function. In a small module
the analyzer reads the lines aloud and judges each, until it finds the one that it names: comparing a line with its
comment is learned where both have just been said. Where the analysis is wrong the writer is honest: it repairs the
fault if it is shown, and otherwise says that nothing is wrong. The validator is never spoiled: a team whose validator
is incompetent learns to ignore it.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from troupe.episode import Task
from troupe.protocols import GenerationRequest
from troupe.workflows.roles import keyed_random
from troupe.workflows.swe import RUN

__all__ = ["SWETeacher"]

MOST_CHECKS = 8
"""Lines that an analyzer reads aloud at most; in a larger module it only names the one at fault."""

_KEYS = ("path", "line", "text")
_PIECES = (
    re.compile(r"(?<=[\w)\]])(?://|[-+*])(?=\w)"),  # operators
    re.compile(r"[<>]=?"),
    re.compile(r"\d+"),
    re.compile(r"\b(?:max|min|sum|len)(?=\()"),
)
_INSTEAD = (("+", "-", "*", "//"), ("<", "<=", ">", ">="), tuple("0123456789"), ("max", "min", "sum", "len"))


class SWETeacher:
    """`respond(request)` for a `ScriptedEngine`; tasks need `solution` with `path`, `line` and `text`."""

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._noise = noise
        self._seed = seed

    @staticmethod
    def can_teach(task: Task) -> bool:
        """Whether the task says which one line is at fault, and what should stand there."""
        return isinstance(task.solution, Mapping) and all(task.solution.get(key) is not None for key in _KEYS)

    def __call__(self, request: GenerationRequest) -> str:
        *_, identity, _, agent, _ = request.key
        task = self._tasks[identity]
        rng = keyed_random(self._seed, *request.key)
        said = str(request.messages[-1]["content"])
        if agent == "analyzer":
            return self._analysis(task, rng)
        if agent == "writer":
            return f"<ans>{self._edit(task.solution, said, rng)}</ans>"
        if request.messages[-1]["role"] != "tool":
            return RUN
        return f"<ans>{'ok' if said == 'ok' else 'bad'}</ans>"

    def _analysis(self, task: Task, rng: random.Random) -> str:
        place = (str(task.solution["path"]), int(task.solution["line"]))
        steps = [
            (path, number, line.strip())
            for path, text in task.data["files"].items()
            for number, line in enumerate(text.split("\n"), start=1)
            if line.startswith(" ") or (path, number) == place
        ]
        others = [step[:2] for step in steps if step[:2] != place]
        if rng.random() < self._noise and others:
            place = rng.choice(others)
        aloud = _aloud(steps, place) if len(steps) <= MOST_CHECKS else ""
        return f"{aloud}<ans>{place[0]}:{place[1]}</ans>"

    def _edit(self, solution: Mapping[str, Any], asked: str, rng: random.Random) -> str:
        path, line, text = (solution[key] for key in _KEYS)
        place, *shown = asked.rpartition("\nFault: ")[2].split("\n")
        if place.rpartition(":")[0] != path or not any(part.startswith(f"{line} ") for part in shown):
            return "?"
        return f"{line}: {(_spoiled(text, rng) if rng.random() < self._noise else text).strip()}"


def _aloud(steps: Sequence[tuple[str, int, str]], place: tuple[str, int]) -> str:
    """`a.py 2 y=x*3 # times 3 ok 3 return y-2 # plus 2 bad`: every line up to the one that is named."""
    said: list[str] = []
    for i, (path, number, line) in enumerate(steps):
        said += [path] if i == 0 or steps[i - 1][0] != path else []
        said += [f"{number} {line}", "bad" if (path, number) == place else "ok"]
        if (path, number) == place:
            break
    return " ".join(said)


def _spoiled(text: str, rng: random.Random) -> str:
    """Another operator, comparison, number or function, in the code before the comment."""
    code, mark, comment = text.partition("#")
    pairs = zip(_PIECES, _INSTEAD, strict=True)
    places = [(match, instead) for piece, instead in pairs for match in piece.finditer(code)]
    if not places:
        return text
    match, instead = rng.choice(places)
    other = rng.choice([part for part in instead if part != match.group()])
    return code[: match.start()] + other + code[match.end() :] + mark + comment
