"""GSM8K (Cobbe et al. 2021, arXiv:2110.14168): grade-school word problems whose solutions carry calculator calls.

One row, as published:

    {"question": "Natalia sold clips to 48 of her friends in April, and then ... altogether in April and May?",
     "answer": "Natalia sold 48/2 = <<48/2=24>>24 clips in May.\\nNatalia sold 48+24 = <<48+24=72>>72 ...\\n#### 72"}

and the task read from it:

    Task(id="gsm8k-5b9d3ea1c2f4", kind="gsm8k", prompt="Natalia sold clips ...", answer="72", difficulty=0.25,
         solution={"text": "Natalia sold 48/2 = 24 clips in May.\\n...\\n#### 72", "calls": ["48/2", "48+24"],
                   "plan": ["48+(48/2)"], "check": ["48+(48/2)-{0}"]})

`calls` is there only where every annotation is exactly right: 7,376 of the 7,473 training rows, 95 have none and two
use `//`. `plan` and `check` are there where the calls, nested into one expression, give the row's answer (6,878).
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from fractions import Fraction
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.maths.expressions import MAX_LENGTH, ExpressionError, evaluate, steps
from troupe.tasks.rows import file_rows, hub_rows
from troupe.tasks.splits import content_id

__all__ = ["read_gsm8k"]

HUB_NAME = "openai/gsm8k"
MANY_CALLS = 8
"""Calls at which a problem counts as of difficulty 1; the longest published solutions have eight."""

_ANNOTATION = re.compile(r"<<([^<>]*)>>")
_NUMBER = re.compile(r"(?<![0-9.])(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)")


def read_gsm8k(path: str | Path | None = None, *, split: str = "train") -> list[Task]:
    """The tasks of a GSM8K file (`.jsonl` or `.jsonl.gz`), or of `<split>.jsonl[.gz]` in a folder.

    Without a path the split is fetched from the Hugging Face hub, which needs the package `datasets`. Raises DataError
    with `file:line` for a row that cannot be read, and for a file that is missing, damaged or empty.
    """
    rows = (
        hub_rows(HUB_NAME, "main", split=split, what="GSM8K")
        if path is None
        else file_rows(_locate(Path(path), split), "GSM8K")
    )
    tasks = [_task(row, where) for where, row in rows]
    if not tasks:
        raise DataError(f"{path} holds no rows; GSM8K has one JSON object with question and answer on each line")
    return tasks


def _locate(path: Path, split: str) -> Path:
    if not path.is_dir():
        return path
    for name in (f"{split}.jsonl", f"{split}.jsonl.gz"):
        if (path / name).exists():
            return path / name
    found = ", ".join(sorted(entry.name for entry in path.iterdir())) or "nothing"
    raise DataError(f"{path} has neither {split}.jsonl nor {split}.jsonl.gz; it holds {found}")


def _task(row: Any, where: str) -> Task:
    for key in ("question", "answer"):
        if not isinstance(row, Mapping) or not isinstance(row.get(key), str):
            raise DataError(f"{where}: no text under {key!r}; a row is {{'question': ..., 'answer': ...}}")
    solution, mark, last = row["answer"].rpartition("####")
    answer = last.strip().replace(",", "")
    if not mark or not answer:
        raise DataError(f"{where}: the answer has no '#### number' at its end")
    annotations = _ANNOTATION.findall(solution)
    return Task(
        id=content_id("gsm8k", row["question"]),
        kind="gsm8k",
        prompt=row["question"].strip(),
        difficulty=min(1.0, len(annotations) / MANY_CALLS),
        answer=answer,
        solution={"text": _ANNOTATION.sub("", row["answer"]), **_worked(annotations, answer)},
    )


def _worked(annotations: list[str], answer: str) -> dict[str, Any]:
    """`calls`, `plan` and `check`, as far as they verify."""
    try:
        calls = [_verified(annotation) for annotation in annotations]
        target = evaluate(answer)
    except ExpressionError:
        return {}
    if not calls:
        return {}
    expressions = [expression for expression, _ in calls]
    plan = _composed(calls)
    if plan is None or not steps(plan) or evaluate(plan) != target:
        return {"calls": expressions}
    return {"calls": expressions, "plan": [plan], "check": [f"{plan}-{{0}}"]}


def _verified(annotation: str) -> tuple[str, Fraction]:
    """The expression of `48/2=24` and its value; ExpressionError unless every side of every `=` has that value."""
    sides = annotation.split("=")
    values = [evaluate(side) for side in sides]
    if len(sides) < 2 or any(value != values[0] for value in values) or not isinstance(values[0], Fraction):
        raise ExpressionError(f"{annotation} is not right")
    return re.sub(r"\s", "", sides[0]), values[0]


def _composed(calls: list[tuple[str, Fraction]]) -> str | None:
    """The last call with earlier results replaced by the expressions they came from; None where it grows too long.

    A number counts as the latest earlier result of its value. Where it only happens to equal one, the nested
    expression has the same value still.
    """
    nested: dict[Fraction, str] = {}
    expression = ""
    for call, value in calls:
        expression = _NUMBER.sub(lambda number: _operand(number[0], nested), call)
        if len(expression) > MAX_LENGTH - 10:
            return None
        nested[value] = expression
    return expression


def _operand(number: str, nested: Mapping[Fraction, str]) -> str:
    earlier = nested.get(Fraction(number))
    if earlier is None:
        return number
    return earlier if _NUMBER.fullmatch(earlier) else f"({earlier})"
