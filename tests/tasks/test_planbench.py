"""PlanBench: rows written here, and the real ones where TROUPE_DATA points at them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from troupe.errors import DataError
from troupe.tasks.pddl import written
from troupe.tasks.planbench import named_as_in_pddl, read_planbench
from troupe.tasks.planning import LOGISTICS
from troupe.tasks.reasoning import MultiStepReasoningGenerator
from troupe.tasks.rows import locate, objects

ROW = {
    "instance_id": 70,
    "problem_pddl": "(define (problem BW-rand-4) (:domain blocksworld-4ops) (:objects a b c d) (:init (handempty) "
    "(ontable a) (on b a) (on c b) (ontable d) (clear c) (clear d)) (:goal (and (on c d))))",
    "statement": "As initial conditions I have that, ...",
    "ground_truth_plan": ["(unstack orange blue)", "(stack orange yellow)"],
}
PARCEL = {
    "instance_id": 1,
    "problem_pddl": "(define (problem p) (:domain logistics-strips) (:objects p t l0 l1 c) (:init (OBJ p) (TRUCK t) "
    "(LOCATION l0) (LOCATION l1) (CITY c) (in-city l0 c) (in-city l1 c) (at p l0) (at t l0)) (:goal (and (at p l1))))",
    "statement": "A parcel.\nMy plan is as follows:\n\n[PLAN]",
    "ground_truth_plan": ["(load-truck p t l0)", "(drive-truck t l0 l1 c)", "(unload-truck p t l1)"],
}


def folder_of(folder: Path, kind: str, row: object) -> Path:
    (folder / f"{kind}.jsonl").write_text(json.dumps(row) + "\n")
    (folder / "logistics_domain.pddl").write_text(LOGISTICS)
    return folder


def test_a_row_of_blocks_becomes_a_task(tmp_path: Path) -> None:
    (task,) = read_planbench(folder_of(tmp_path, "blocksworld", ROW), "blocksworld")
    assert task.data["under"] == [-1, 0, 1, -1] and task.data["goal"] == [-2, -2, 3, -2] and task.data["budget"] == 1
    assert task.solution == "(unstack c b) (stack c d)" and task.answer == "(on c d)" and task.data["instance"] == 70
    assert task.solution not in str(task.data)  # who is asked sees the data
    plan = " ".join(map(written, named_as_in_pddl(ROW["ground_truth_plan"])))
    assert plan == task.solution and MultiStepReasoningGenerator.verify(task, plan)
    game = MultiStepReasoningGenerator.game("blocksworld")
    state, reward, done, _ = game.step(game.begin(task.problem), 2 * (game.most + 1) + 3)
    assert (reward, done, game.answer(state)) == (1.0, True, task.solution)


def test_a_row_of_parcels_becomes_a_task(tmp_path: Path) -> None:
    (task,) = read_planbench(folder_of(tmp_path, "logistics", PARCEL), "logistics")
    assert task.answer == "(at p l1)" and task.data["budget"] == 3 and "My plan" not in task.prompt
    assert MultiStepReasoningGenerator.verify(task, task.solution)


def test_errors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no kind 'depots'"):
        read_planbench(tmp_path, "depots")
    with pytest.raises(DataError, match="not made of steps"):
        named_as_in_pddl(["(unstack pink blue)"])
    broken = {**PARCEL, "ground_truth_plan": ["(load-truck p t l0)"]}
    with pytest.raises(DataError, match="does not reach the goal"):
        list(read_planbench(folder_of(tmp_path, "logistics", broken), "logistics"))
    (tmp_path / "logistics_domain.pddl").unlink()
    with pytest.raises(DataError, match="put the domain beside"):
        read_planbench(tmp_path, "logistics")


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not point at the public data")
@pytest.mark.parametrize(("kind", "count"), [("blocksworld", 400), ("logistics", 225)])
def test_every_real_problem_is_playable_and_its_plan_valid(kind: str, count: int) -> None:
    folder = Path(os.environ["TROUPE_DATA"]) / "planbench"
    tasks, rows = list(read_planbench(folder, kind)), objects(locate(folder, f"{kind}.jsonl.gz", f"{kind}.jsonl"), kind)
    assert len(tasks) == count
    game = MultiStepReasoningGenerator.game(kind)
    for task, (_, row) in zip(tasks, rows, strict=True):
        plan = row["ground_truth_plan"]
        steps = map(written, named_as_in_pddl(plan)) if kind == "blocksworld" else plan
        assert MultiStepReasoningGenerator.verify(task, " ".join(steps))
        assert MultiStepReasoningGenerator.verify(task, task.solution)
        state = game.begin(task.problem)
        assert game.legal(state) and game.observe(state).max() < game.vocabulary
