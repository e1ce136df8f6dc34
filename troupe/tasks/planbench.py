"""PlanBench (Valmeekam et al. 2023, arXiv:2206.10498): blocksworld and logistics problems with plans, as tasks.

    {"instance_id": 70, "problem_pddl": "(define ...", "statement": "As initial conditions ...",
     "ground_truth_plan": ["(unstack orange blue)", "(stack orange yellow)"]}

Beside the rows stands `logistics_domain.pddl`. Statements and plans of the blocksworld call the blocks by colours; the
problems call them a, b, c.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.tasks.blocksworld import blocks_from_pddl, blocks_task
from troupe.tasks.pddl import Atom, parse_plan
from troupe.tasks.planning import plan_task
from troupe.tasks.rows import locate, objects, text, texts

__all__ = ["COLOURS", "named_as_in_pddl", "read_planbench"]

COLOURS = {
    "a": "red", "b": "blue", "c": "orange", "d": "yellow", "e": "white", "f": "magenta",
    "g": "black", "h": "cyan", "i": "green", "j": "violet", "k": "silver", "l": "gold",
}  # fmt: skip
"""Block -> how statements and plans of the blocksworld call it."""


def read_planbench(path: str | Path, kind: str) -> Iterator[Task]:
    """Tasks of kind `blocksworld` or `logistics` from the folder of the data, in the order of the file.

    The solution of a blocksworld task is a shortest plan, which A* finds; the budget also admits the data's own plan,
    which is no part of the task. That of a logistics task is the data's plan. Raises DataError for a kind that is not
    there, a row of another shape, or a plan that does not reach the goal.
    """
    path = Path(path)
    if kind not in ("blocksworld", "logistics"):
        raise DataError(f"PlanBench has no kind {kind!r}; write blocksworld or logistics")
    rows = objects(locate(path, f"{kind}.jsonl.gz", f"{kind}.jsonl"), "PlanBench")
    if kind == "blocksworld":
        return (_blocks(row, where) for where, row in rows)
    domain = _domain(path if path.is_dir() else path.parent)
    return (_logistics(row, where, domain) for where, row in rows)


def _domain(folder: Path) -> str:
    path = folder / "logistics_domain.pddl"
    try:
        return path.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist; put the domain beside the problems") from error


def named_as_in_pddl(plan: Sequence[str]) -> list[Atom]:
    """The steps of a blocksworld plan, its colours replaced by a, b, c. Raises DataError for another colour."""
    names = {colour: block for block, colour in COLOURS.items()}
    steps = parse_plan(plan)
    strange = [name for _, *blocks in steps or () for name in blocks if name not in names]
    if steps is None or strange:
        raise DataError(f"the plan {list(plan)} is not made of steps such as (stack red blue)")
    return [(action, *(names[name] for name in blocks)) for action, *blocks in steps]


def _blocks(row: Mapping[str, Any], where: str) -> Task:
    names, under, goal = blocks_from_pddl(text(row, "problem_pddl", where))
    plan = named_as_in_pddl(texts(row, "ground_truth_plan", where))
    own = blocks_task(names, under, goal, 0.0)
    slack = max(0, (len(plan) + 1) // 2 - own.data["budget"])
    task = blocks_task(names, under, goal, min(1.0, own.data["budget"] / 8), slack)
    return replace(task, data={**task.data, "instance": row.get("instance_id")})


def _logistics(row: Mapping[str, Any], where: str, domain: str) -> Task:
    problem, plan = text(row, "problem_pddl", where), texts(row, "ground_truth_plan", where)
    plain = re.sub(r"\s+", " ", problem).strip()
    data = {"domain": domain, "problem": plain, "budget": len(plan), "instance": row.get("instance_id")}
    statement = text(row, "statement", where).partition("\nMy plan")[0]
    prompt = (
        f"{statement}\nThe problem in PDDL:\n{plain}\nAnswer with a plan of at most {len(plan)} steps in PDDL, as in "
        "`(load-truck p0 t0 l0-0) (drive-truck t0 l0-0 l0-1 c0)`."
    )
    return plan_task("logistics", data, prompt, min(1.0, len(plan) / 40), plan)
