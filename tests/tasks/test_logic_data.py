"""ProntoQA, ProofWriter and LogicalDeduction: sentences by hand, and the real files of TROUPE_DATA."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path

import pytest

from troupe.errors import DataError
from troupe.tasks.deduction import solves_deduction
from troupe.tasks.logic_data import (
    prontoqa_theory,
    proofwriter_theory,
    read_logical_deduction,
    read_prontoqa,
    read_proofwriter,
    solve_order,
    solves_order,
)

real = pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not point at the public data")

BIRDS = (
    "Three objects.\n\nOn a branch, there are three birds: a robin, an owl, and a hawk. The robin is to the right of "
    "the hawk. The owl is the leftmost."
)
OPTIONS = ["A) The robin is the rightmost.", "B) The owl is the rightmost.", "C) The hawk is the rightmost."]
ROW = {
    "id": "P_1",
    "context": "Each wumpus is a jompus. Jompuses are not opaque. Polly is a wumpus.",
    "question": "Is the following statement true or false? Polly is opaque.",
    "options": ["A) True", "B) False"],
    "answer": "B",
}


def written(folder: Path, name: str, *rows: object) -> Path:
    (folder / name).write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_prontoqa_sentences() -> None:
    facts, rules, ask = prontoqa_theory(ROW["context"], "Polly is opaque.")  # type: ignore[arg-type]
    assert facts == ["Polly is wumpus"] and ask == "Polly is opaque"
    assert rules == [
        (("Polly is wumpus",), "Polly is jompus"),
        (("Polly is jompus",), "not Polly is opaque"),
    ]


def test_proofwriter_sentences() -> None:
    facts, rules, ask = proofwriter_theory(
        "The bald eagle is big. The cow does not see the bald eagle. Big, kind things are not red. "
        "If something sees the cow and it is not kind then the cow likes it. If the cow is big and not red then the "
        "cow chases the bald eagle.",
        "The cow is not red.",
    )
    assert facts == ["bald_eagle is big", "not cow sees bald_eagle"] and ask == "not cow is red"
    assert rules == [
        (("bald_eagle is big", "bald_eagle is kind"), "not bald_eagle is red"),
        (("cow is big", "cow is kind"), "not cow is red"),
        (("bald_eagle sees cow", "not bald_eagle is kind"), "cow likes bald_eagle"),
        (("cow sees cow", "not cow is kind"), "cow likes cow"),
        (("cow is big", "not cow is red"), "cow chases bald_eagle"),
    ]


def test_a_row_becomes_a_task(tmp_path: Path) -> None:
    (task,) = read_prontoqa(written(tmp_path, "prontoqa.jsonl", ROW))
    assert (task.kind, task.answer, task.solution, task.data["row"]) == ("deduction", "false", "1 2: false", "P_1")
    assert task.prompt.startswith("Each wumpus") and "1. If Polly is wumpus, then Polly is jompus." in task.prompt


def test_orders_of_birds() -> None:
    assert solve_order(BIRDS, OPTIONS) == ["A"]  # owl, hawk, robin
    assert solve_order(BIRDS.replace(" The owl is the leftmost.", ""), OPTIONS) == []
    assert solve_order(
        BIRDS, ["A) The hawk is the second from the left.", "B) The hawk is the second from the right."]
    ) == [
        "A",
        "B",
    ]
    with pytest.raises(DataError, match="permit no order"):
        solve_order(BIRDS + " The robin is the leftmost.", OPTIONS)
    with pytest.raises(DataError, match="begins with none of"):
        solve_order(BIRDS + " The crow is the leftmost.", OPTIONS)
    with pytest.raises(DataError, match="neither an end"):
        solve_order(BIRDS + " The robin is the greenest.", OPTIONS)


def test_orders_of_golfers_count_from_the_top() -> None:
    context = (
        "Five.\n\nThere were three golfers: Rob, Ada, and Dan. Ada finished above Rob. Dan finished second-to-last."
    )
    assert solve_order(context, ["A) Ada finished first.", "B) Rob finished first.", "C) Dan finished third."]) == ["A"]


def test_verdicts_on_orders(tmp_path: Path) -> None:
    row = {"id": "b", "context": BIRDS, "question": "Which is true?", "options": OPTIONS, "answer": "A"}
    (task,) = read_logical_deduction(written(tmp_path, "logical_deduction.jsonl", row))
    assert solves_order(task, "A") and solves_order(task, "a)")
    assert not any(solves_order(task, wrong) for wrong in ("B", "", "AB", None))
    with pytest.raises(DataError, match=r"its answer is B, but what follows is \['A'\]"):
        list(read_logical_deduction(written(tmp_path, "logical_deduction.jsonl", {**row, "answer": "B"})))


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"answer": "A"}, "its answer is A, but 'Polly is opaque' is false"),
        ({"context": "Wumpuses love jompuses."}, "is not read"),
        ({"context": ""}, "no text under 'context'"),
    ],
)
def test_rows_that_are_wrong(tmp_path: Path, change: dict[str, str], why: str) -> None:
    with pytest.raises(DataError, match=f"prontoqa.jsonl:1: .*{why}"):
        list(read_prontoqa(written(tmp_path, "prontoqa.jsonl", {**ROW, **change})))


@real
@pytest.mark.slow
def test_every_real_theory_is_read_and_agrees_with_its_answer() -> None:
    folder = Path(os.environ["TROUPE_DATA"]) / "logic"
    tasks = list(read_prontoqa(folder))
    assert Counter(task.answer for task in tasks) == {"true": 175, "false": 175}
    assert all(solves_deduction(task, task.solution) for task in tasks)
    tasks = list(read_proofwriter(folder))
    assert Counter(task.answer for task in tasks) == {"true": 492, "false": 507, "unknown": 501}
    assert all(solves_deduction(task, task.solution) for task in tasks)


@real
def test_every_real_order_is_read_and_agrees_with_its_answer() -> None:
    tasks = list(read_logical_deduction(Path(os.environ["TROUPE_DATA"]) / "logic"))
    assert len(tasks) == 492 and all(solves_order(task, task.answer) for task in tasks[:30])
