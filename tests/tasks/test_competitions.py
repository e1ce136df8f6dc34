"""Competition mathematics: MATH, AIME and DeepScaleR in the shapes in which they are published."""

from __future__ import annotations

import gzip
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.hub import hub
from troupe.episode import Task
from troupe.errors import DataError, MissingExtra
from troupe.protocols import Reward
from troupe.rewards.math import math_reward_fn
from troupe.tasks.competitions import final_box, prepare_aime, prepare_deepscaler, prepare_math
from troupe.tasks.datasets import DatasetRegistry

PREPARERS = {"hendrycks_math": prepare_math, "deepscaler_math": prepare_deepscaler, "aime": prepare_aime}


def math_row(number: int = 1, answer: str = r"\frac{1}{2}", **more: Any) -> dict[str, Any]:
    return {
        "problem": f"What is ${number}x$ where $x$ is a half of one?",
        "level": "Level 3",
        "type": "Algebra",
        "solution": rf"First, $\boxed{{7}}$ is not it. So $\boxed{{{answer}}}$.",
        **more,
    }


def aime_row(number: int, year: int = 2024, **more: Any) -> dict[str, Any]:
    return {"problem": f"Find the remainder of {number}.", "answer": f"{number:03}", "year": str(year), **more}


def lines(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def prepared(
    name: str, source: Path | None, folder: Path, held_out: float = 0.5, reward: Any = math_reward_fn
) -> tuple[dict[str, int], DatasetRegistry]:
    registry = DatasetRegistry(folder / "data")
    counts = PREPARERS[name](source, registry, seed=0, held_out=held_out, reward_function=reward)
    return counts, registry


def stored(registry: DatasetRegistry, name: str) -> list[Task]:
    return [task for split in registry.splits(name) for task in registry.load_dataset(name, split)]


# ---------------------------------------------------------------------------------------------- answers


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"so $\boxed{3}$.", "3"),
        (r"$\boxed{1}$, then $\boxed{\frac{1}{2}}$", r"\frac{1}{2}"),
        (r"\boxed{\left\{ \frac{a_{1}}{b} \right\}}.", r"\left\{ \frac{a_{1}}{b} \right\}"),
        (r"\boxed {x^{2^{3}}} and {more}", "x^{2^{3}}"),
        (r"\fbox{A}", "A"),
        (r"it is $\boxed 5$", "5"),
        (r"\boxed{\text{a \} b}}", r"\text{a \} b}"),
        (r"\boxed{1} and then \boxed{\frac{1}{2}", None),
        (r"\boxed{}", None),
        ("no box", None),
    ],
)
def test_the_last_box_with_its_braces(solution: str, answer: str | None) -> None:
    assert final_box(solution) == answer


def test_a_row_of_math_becomes_a_task(tmp_path: Path) -> None:
    counts, registry = prepared("hendrycks_math", lines(tmp_path / "a.jsonl", *map(math_row, range(4))), tmp_path)
    assert counts == {"rows": 4, "left_out": 0, "hendrycks_math/train": 2, "hendrycks_math/held_out": 2}
    task = next(t for t in stored(registry, "hendrycks_math") if "$2x$" in t.prompt)
    assert (task.kind, task.answer, task.difficulty, task.data) == (
        "math",
        r"\frac{1}{2}",
        0.6,
        {"subject": "Algebra"},
    )
    assert task.solution == {"text": math_row()["solution"]}
    assert r"\frac" not in json.dumps([task.problem.prompt, dict(task.problem.data)])
    assert math_reward_fn(task, r"<ans>0.5</ans>").is_correct and not math_reward_fn(task, "<ans>7</ans>").is_correct


def test_answers_that_do_not_verify_are_counted_and_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    bad = [math_row(8, solution="no box"), math_row(9, answer="é"), {"problem": "?", "answer": None}]
    counts, registry = prepared("hendrycks_math", lines(tmp_path / "a.jsonl", *map(math_row, range(4)), *bad), tmp_path)
    assert counts["rows"] == 7 and counts["left_out"] == 3 and len(stored(registry, "hendrycks_math")) == 4
    assert "math: 3 of 7 rows are left out; the first: " in caplog.text and "a.jsonl:5: no final answer" in caplog.text


def test_the_reward_function_decides(tmp_path: Path) -> None:
    def refuses(task: Task, answer: str | None) -> Reward:
        return Reward(0.0, "$2x$" in task.prompt, {})

    rows = [*map(math_row, range(4)), math_row(2, type="Geometry")]
    with pytest.raises(DataError, match=r"held_out=0.5 leaves none of the 1 problems of hendrycks_math"):
        prepared("hendrycks_math", lines(tmp_path / "a.jsonl", *rows), tmp_path, reward=refuses)


# ---------------------------------------------------------------------------------------------- files


def test_math_as_published_leaves_its_test_set_alone(tmp_path: Path) -> None:
    for number in range(6):
        lines(tmp_path / "MATH" / ("test" if number > 3 else "train") / "algebra" / f"{number}.json", math_row(number))
    counts, _ = prepared("hendrycks_math", tmp_path / "MATH", tmp_path / "a")
    assert counts["rows"] == 4 == prepared("hendrycks_math", tmp_path, tmp_path / "b")[0]["rows"]
    assert prepared("hendrycks_math", tmp_path / "MATH" / "test", tmp_path / "c")[0]["rows"] == 2


def test_every_format_gives_the_same_tasks(tmp_path: Path) -> None:
    import pyarrow
    import pyarrow.parquet

    rows = [{"problem": f"Add {n}.", "answer": str(n), "solution": f"{n}. Done"} for n in range(6)]
    (tmp_path / "list.json").write_text(json.dumps(rows, indent=1))
    lines(tmp_path / "lines.json", *rows)
    lines(tmp_path / "lines.jsonl", *rows)
    with gzip.open(tmp_path / "lines.jsonl.gz", "wt") as file:
        file.write("".join(json.dumps(row) + "\n" for row in rows))
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(rows), tmp_path / "table.parquet")
    read = {}
    for path in sorted(tmp_path.iterdir()):
        counts, registry = prepared("deepscaler_math", path, tmp_path / f"of-{path.name}")
        assert counts == {"rows": 6, "left_out": 0, "deepscaler_math/train": 3, "deepscaler_math/held_out": 3}
        read[path.name] = stored(registry, "deepscaler_math")
    assert len(read) == 5 and all(tasks == read["list.json"] for tasks in read.values())
    assert {task.answer for task in read["list.json"]} == {"0", "1", "2", "3", "4", "5"}


def test_sets_beside_one_another_do_not_mix(tmp_path: Path) -> None:
    lines(tmp_path / "in" / "deepscaler" / "rows.jsonl", *({"problem": f"Add {n}.", "answer": n} for n in range(4)))
    lines(tmp_path / "in" / "aime" / "rows.jsonl", *map(aime_row, range(3)))
    assert prepared("deepscaler_math", tmp_path / "in", tmp_path)[0]["rows"] == 4
    assert prepared("aime", tmp_path / "in", tmp_path)[0] == {"rows": 3, "left_out": 0, "aime2024/held_out": 3}
    lines(tmp_path / "flat" / "aime.jsonl", aime_row(1))
    with pytest.raises(DataError, match="holds no file of problems"):
        prepared("deepscaler_math", tmp_path / "flat", tmp_path)
    lines(tmp_path / "flat" / "amc.jsonl", aime_row(2))
    assert prepared("aime", tmp_path / "flat", tmp_path)[0]["rows"] == 1


def test_a_problem_has_one_id_in_all_sets(tmp_path: Path) -> None:
    rows = [{"problem": f"Add {n}.", "answer": n, "solution": ""} for n in range(4)]
    path = lines(tmp_path / "rows.jsonl", *rows, rows[0])
    ids = [{task.id for task in stored(prepared(name, path, tmp_path)[1], name)} for name in PREPARERS]
    assert len(ids[0]) == 4 and ids[0] == ids[1] == ids[2]


@pytest.mark.parametrize(
    "row",
    [
        {"Problem": "p", "Answer": 204, "ID": "2024-I-1"},
        {"problem": "p", "answer": "204", "id": 60, "url": "https://example.org/2024_AIME_I_Problems/Problem_1"},
        {"problem": "p", "answer": 204.0, "year": 2024},
    ],
)
def test_aime_2024_is_a_test_set(tmp_path: Path, row: Mapping[str, Any]) -> None:
    path = lines(tmp_path / "rows.jsonl", row, *(aime_row(n, 1983 + n) for n in range(4)))
    counts, registry = prepared("aime", path, tmp_path)
    assert counts == {"rows": 5, "left_out": 0, "aime/held_out": 2, "aime/train": 2, "aime2024/held_out": 1}
    (task,) = registry.load_dataset("aime2024", "held_out")
    assert task.answer == "204" and task.data == {"year": 2024} and registry.splits("aime2024") == ["held_out"]
    assert math_reward_fn(task, "<ans>204</ans>").is_correct
    early = stored(registry, "aime")[0]
    assert early.answer.startswith("00") and math_reward_fn(early, f"<ans>{int(early.answer)}</ans>").is_correct


@pytest.mark.parametrize(
    ("name", "content", "complaint"),
    [
        ("a.jsonl", json.dumps(math_row()) + '\n{"problem": "q', r"a\.jsonl:2: not a JSON object"),
        ("a.jsonl", "[1]", r"a\.jsonl:1: not a JSON object, but list"),
        ("a.jsonl", '{"problem": " ", "answer": "1"}', r"a\.jsonl:1: no text under 'problem'"),
        ("a.jsonl", '{"problem": "p"}', r"a\.jsonl:1: neither answer nor solution"),
        ("a.json", '[\n{"problem": "p", "answer": 1},\n{"problem"]', r"a\.json:3: not JSON"),
        ("a.json", '[{"problem": "p", "answer": 1}, 2]', r"a\.json, row 2: not a JSON object, but int"),
        ("a.json", '{"problem": "p", "answer": 1}\n{"problem"', r"a\.json:2: not a JSON object"),
        ("a.parquet", "PAR1", r"a\.parquet: not a Parquet file"),
        ("a.jsonl", "", r"a\.jsonl holds no problem with an answer that verifies \(0 rows\)"),
    ],
)
def test_bad_files_are_named_and_nothing_is_stored(tmp_path: Path, name: str, content: str, complaint: str) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(DataError, match=complaint):
        prepared("hendrycks_math", tmp_path / name, tmp_path)
    assert not (tmp_path / "data").exists()


def test_places_and_shares_that_do_not_exist(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nowhere does not exist"):
        prepared("aime", tmp_path / "nowhere", tmp_path)
    path = lines(tmp_path / "rows.jsonl", *map(math_row, range(4)))
    with pytest.raises(DataError, match=r"held_out is 1\.5; write a fraction"):
        prepared("hendrycks_math", path, tmp_path, held_out=1.5)


# ---------------------------------------------------------------------------------------------- the hub


def test_without_files_the_hub_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, lambda *name: [math_row(len(asked) * 10 + n) for n in range(2)])
    assert prepared("hendrycks_math", None, tmp_path)[0]["rows"] == 14
    assert asked[0] == ("EleutherAI/hendrycks_math", "algebra", "train") and len(set(asked)) == 7
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="datasets"):
        prepared("aime", None, tmp_path)


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA names no folder of public data")
@pytest.mark.parametrize(
    ("name", "folder", "counts"),
    [
        ("hendrycks_math", "math", {"rows": 7465, "left_out": 4}),
        ("aime", "aime_amc", {"rows": 969, "left_out": 0, "aime/train": 872, "aime/held_out": 97}),
    ],
)
def test_the_public_rows(tmp_path: Path, name: str, folder: str, counts: dict[str, int]) -> None:
    found, _ = prepared(name, Path(os.environ["TROUPE_DATA"]) / folder, tmp_path, held_out=0.1)
    assert found | counts == found
