"""Several formats prepared as one data set."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.hub import documented, hub, mbpp
from troupe.errors import DataError, MissingExtra
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.deepcoder import prepare_deepcoder

CHECK = "def check(candidate):\n assert candidate(2) == 4\n assert candidate(3) == 9\n"
HUMANEVAL = {
    "task_id": "HumanEval/0", "prompt": "def sq(x):\n", "entry_point": "sq", "canonical_solution": " return x*x",
    "test": CHECK,
}  # fmt: skip
STDIN = {"id": "s", "prompt": "Echo.", "inputs": ["a", "b"], "outputs": ["a", "b"]}


def write(path: Path, *rows: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_folders_of_several_formats(tmp_path: Path) -> None:
    write(tmp_path / "in" / "mbpp" / "a.jsonl", *map(mbpp, range(20)), mbpp(3))
    write(tmp_path / "in" / "humaneval" / "b.jsonl", HUMANEVAL, {**HUMANEVAL, "test": CHECK + " x = 1\n"})
    write(tmp_path / "in" / "code_stdin" / "c.jsonl", STDIN)
    write(tmp_path / "in" / "other" / "d.jsonl", {"not": "read"})
    registry = DatasetRegistry(tmp_path / "data")
    counts = prepare_deepcoder(tmp_path / "in", registry, seed=0, held_out=0.25)
    assert counts == {"humaneval": 1, "mbpp": 20, "stdin": 1, "left_out": 1, "train": 16, "held_out": 6}
    train, rest = (registry.load_dataset("deepcoder", split) for split in ("train", "held_out"))
    assert len({task.id for task in train + rest}) == 22
    again = DatasetRegistry(tmp_path / "again")
    assert prepare_deepcoder(tmp_path / "in", again, seed=0, held_out=0.25) == counts
    assert again.load_dataset("deepcoder", "train") == train


def test_twins_do_not_stand_on_both_sides(tmp_path: Path) -> None:
    """The same question in other words: the same program under other names, or the same tests."""

    def renamed(number: int) -> dict[str, Any]:
        row = {**mbpp(number), "task_id": 100 + number, "text": f"Return the sum of {number} and another number."}
        return row | {
            "code": f"def plus(y):\n    # {number}\n    return y+{number}",
            "test_list": [f"assert plus({x}) == {x + number}" for x in (7, 9)],
        }

    def rewritten(number: int) -> dict[str, Any]:
        row = {**mbpp(number), "task_id": 200 + number, "text": f"Add {number}."}
        return row | {"code": f"def add(x): return sum([x, {number}])"}

    rows = [row for n in range(12) for row in (mbpp(n), renamed(n), rewritten(n))]
    for seed, order in ((0, 1), (0, -1), (1, 1)):
        registry = DatasetRegistry(tmp_path / f"{seed}{order}")
        prepare_deepcoder(write(tmp_path / "rows.jsonl", *rows[::order]), registry, seed=seed, held_out=0.25)
        train, rest = (registry.load_dataset("deepcoder", split) for split in ("train", "held_out"))
        numbers = [{int(task.id.rpartition("-")[2]) % 100 for task in part} for part in (train, rest)]
        assert not numbers[0] & numbers[1] and len(train) == 27 and len(rest) == 3


def test_twins_of_two_formats_do_not_stand_on_both_sides(tmp_path: Path) -> None:
    def other(number: int) -> dict[str, Any]:
        check = "".join(f"    assert candidate({x}) == {x + number}\n" for x in range(3))
        return {
            "task_id": f"HumanEval/{number}", "prompt": f'def add(x):\n    """Adds {number}."""\n',
            "entry_point": "add",
            "canonical_solution": f"    return x+{number}\n", "test": f"def check(candidate):\n{check}",
        }  # fmt: skip

    write(tmp_path / "in" / "mbpp" / "a.jsonl", *map(mbpp, range(12)))
    write(tmp_path / "in" / "humaneval" / "b.jsonl", *map(other, range(12)))
    registry = DatasetRegistry(tmp_path / "data")
    prepare_deepcoder(tmp_path / "in", registry, seed=0, held_out=0.25)
    train, rest = (registry.load_dataset("deepcoder", part) for part in ("train", "held_out"))
    assert {task.kind for task in train} == {"mbpp", "humaneval"}
    assert len(rest) == 3 and not {t.data["key"] for t in train} & {t.data["key"] for t in rest}


def test_a_single_file(tmp_path: Path) -> None:
    path = write(tmp_path / "rows.jsonl", mbpp(1), mbpp(2), STDIN)
    counts = prepare_deepcoder(path, DatasetRegistry(tmp_path / "data"), seed=0, held_out=0.4)
    assert counts == {"mbpp": 2, "stdin": 1, "left_out": 0, "train": 2, "held_out": 1}


@pytest.mark.parametrize(
    ("rows", "complaint"),
    [
        ([mbpp(1), {"question": "?"}], r"rows.jsonl:2: not a problem; a row has test_list \(MBPP\)"),
        ([mbpp(1), {**mbpp(2), "code": 3}], "rows.jsonl:2: no text under 'code'"),
        ([mbpp(1)], "holds 1 usable problems; two are needed"),
        ([], "holds 0 usable problems"),
    ],
)
def test_bad_input_stores_nothing(tmp_path: Path, rows: list[Any], complaint: str) -> None:
    registry = DatasetRegistry(tmp_path / "data")
    with pytest.raises(DataError, match=complaint):
        prepare_deepcoder(write(tmp_path / "rows.jsonl", *rows), registry, seed=0)
    assert registry.names() == []


def test_where_there_is_nothing_to_read(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path / "data")
    with pytest.raises(DataError, match="does not exist"):
        prepare_deepcoder(tmp_path / "no", registry, seed=0)
    with pytest.raises(DataError, match=r"holds no .jsonl or .jsonl.gz file, nor does mbpp or humaneval or code_stdin"):
        prepare_deepcoder(tmp_path, registry, seed=0)
    with pytest.raises(DataError, match="held_out is 2"):
        prepare_deepcoder(tmp_path, registry, seed=0, held_out=2)


def test_without_files_mbpp_comes_from_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, documented)
    registry = DatasetRegistry(tmp_path)
    counts = prepare_deepcoder(None, registry, seed=0, held_out=0.25)
    assert counts == {"mbpp": 24, "left_out": 0, "train": 18, "held_out": 6}
    name = ("google-research-datasets/mbpp", "full")
    assert asked == [(*name, part) for part in ("train", "validation", "prompt")]  # and nothing of `test`
    assert registry.manifest("deepcoder", "train")["metadata"]["source"] == "hub"
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="reading MBPP without files needs the package 'datasets'"):
        prepare_deepcoder(None, registry, seed=0)


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not point at the public data")
def test_the_public_data(tmp_path: Path) -> None:
    counts = prepare_deepcoder(os.environ["TROUPE_DATA"], DatasetRegistry(tmp_path), seed=0, held_out=0.1)
    assert counts == {"mbpp": 462, "stdin": 3, "left_out": 11, "train": 420, "held_out": 45}
