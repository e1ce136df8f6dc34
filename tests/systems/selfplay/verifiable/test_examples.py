from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.systems.selfplay.verifiable.test_trainer import trainer
from troupe.episode import Task
from troupe.systems.selfplay.verifiable.deploy import Solved
from troupe.systems.selfplay.verifiable.examples import Pair, choose, write_examples


def pair(kind: str, number: int, before: bool, after: bool) -> Pair:
    task = Task(id=f"{kind}-{number}", kind=kind, prompt="")
    return Solved(task, None, before, ()), Solved(task, None, after, ())


def ids(pairs: list[Pair]) -> list[str]:
    return [one.task.id for one, _ in pairs]


def test_what_changed_is_shown_first_and_failures_are_not_hidden() -> None:
    fresh = [pair(kind, i, False, True) for kind in ("coins", "parity") for i in range(3)]
    lost, failed, solved = pair("coins", 7, True, False), pair("parity", 8, False, False), pair("coins", 9, True, True)
    assert ids(choose([solved, failed, lost, *fresh])) == ["coins-0", "parity-0", "coins-7", "parity-8"]
    assert ids(choose([solved, *fresh])) == ["coins-0", "parity-0", "coins-1", "parity-1"]
    assert ids(choose([failed, solved])) == ["parity-8", "coins-9"]
    assert choose([]) == []


def test_examples_hold_both_attempts_in_the_words_of_the_game(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", trainer__iterations=2)
    run.train()
    write_examples(run)
    written = (tmp_path / "run" / "examples.json").read_bytes()
    final = {task.id: task for some in run.final_tasks.values() for task in some}
    found = json.loads(written)
    assert 0 < len(found) <= 4
    for entry in found:
        task = final[entry["task_id"]]
        assert entry["problem"] == task.prompt and entry["kind"] == task.kind
        names = [side["name"] for side in entry["sides"]]
        assert names[0] == "untrained" and ("champion" in names[1] or "not promoted" in names[1])
        for side in entry["sides"]:
            assert side["success"] == run.family.verdicts([(task, side["answer"])])[0]
            assert all(isinstance(step, str) and step for step in side["steps"])
    write_examples(run)
    assert (tmp_path / "run" / "examples.json").read_bytes() == written


@pytest.mark.parametrize(
    ("name", "told"), [("untrained", "not promoted"), ("iteration 2", "the champion, iteration 2")]
)
def test_the_last_candidate_stands_in_where_none_was_promoted(tmp_path: Path, name: str, told: str) -> None:
    run = trainer(tmp_path / "run", trainer__iterations=2)
    run.train()
    run.champion_name = name
    write_examples(run)
    assert told in json.loads((tmp_path / "run" / "examples.json").read_text())[0]["sides"][1]["name"]
