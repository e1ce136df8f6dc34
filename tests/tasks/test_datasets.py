"""The registry of prepared sets."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from troupe.episode import Task
from troupe.errors import DataError, StorageError
from troupe.tasks.datasets import DatasetRegistry, prepare_gsm8k
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.splits import fingerprint

TASKS = MathProblemGenerator(seed=1).generate(20)


def test_what_is_registered_is_loaded(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    registry.register_dataset("algebra", TASKS, "train", seed=1)
    registry.register_dataset("algebra", TASKS[:3], "test")
    registry.register_dataset("other", [replace(TASKS[0], prompt="line\u2028separator\n\u00e9")], "train")
    assert DatasetRegistry(str(tmp_path)).load_dataset("algebra", "train") == TASKS
    assert registry.load_dataset("other", "train")[0].prompt == "line\u2028separator\n\u00e9"
    assert registry.names() == ["algebra", "other"] and registry.splits("algebra") == ["test", "train"]
    assert registry.manifest("algebra", "train")["metadata"] == {"seed": 1}
    assert registry.manifest("algebra", "train")["rows"] == 20


def test_registering_again_replaces(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    registry.register_dataset("algebra", TASKS, "train")
    registry.register_dataset("algebra", TASKS[:5], "train")
    assert registry.load_dataset("algebra", "train") == TASKS[:5]
    assert len(list((tmp_path / "algebra").iterdir())) == 2  # one file, one manifest


def test_a_set_without_its_manifest_does_not_exist(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    registry.register_dataset("algebra", TASKS, "train").unlink()
    assert registry.names() == []


def test_unknown_names_list_what_exists(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    registry.register_dataset("algebra", TASKS, "train")
    registry.register_dataset("algebra", TASKS, "validation")
    with pytest.raises(DataError, match="did you mean 'algebra'"):
        registry.load_dataset("algbra", "train")
    with pytest.raises(DataError, match=r"no split 'zzz' \(known: train, validation\)"):
        registry.load_dataset("algebra", "zzz")


def test_bad_input_is_refused_and_stores_nothing(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    for name, split in [("../up", "train"), ("a/b", "train"), ("", "train"), (".hidden", "train"), ("a", "x y")]:
        with pytest.raises(DataError, match="cannot name"):
            registry.register_dataset(name, TASKS, split)
    with pytest.raises(DataError, match="empty"):
        registry.register_dataset("a", [], "train")
    for data in ({"x": {1, 2}}, {"x": float("nan")}):
        with pytest.raises(DataError, match="task t cannot be stored"):
            registry.register_dataset("a", [Task("t", "k", "p", data)], "train")
    assert registry.names() == []


def test_a_set_can_be_removed(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    for part in ("train", "held_out"):
        registry.register_dataset("algebra", TASKS, part)
    registry.remove_dataset("algebra", "train")
    assert registry.splits("algebra") == ["held_out"] and registry.load_dataset("algebra", "held_out") == TASKS
    assert len(list((tmp_path / "algebra").iterdir())) == 2
    with pytest.raises(DataError, match="no split 'train'"):
        registry.remove_dataset("algebra", "train")


def test_a_split_that_is_not_there_for_a_reason(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    registry.register_dataset("repairs", TASKS, "waiting", remedy="add the repositories")
    with pytest.raises(DataError, match=r"repairs has no split 'train' \(known: waiting\); add the repositories$"):
        registry.load_dataset("repairs", "train")


def test_damage_is_noticed(tmp_path: Path) -> None:
    registry = DatasetRegistry(tmp_path)
    path = registry.register_dataset("algebra", TASKS, "train")
    file = path.parent / json.loads(path.read_text())["file"]
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(DataError, match="prepare the dataset again"):
        registry.load_dataset("algebra", "train")
    file.unlink()
    with pytest.raises(DataError, match="prepare the dataset again"):
        registry.load_dataset("algebra", "train")
    path.write_text("{")
    with pytest.raises(DataError, match="not a dataset manifest"):
        registry.load_dataset("algebra", "train")


def test_a_root_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    with pytest.raises(StorageError):
        DatasetRegistry(tmp_path / "data").register_dataset("algebra", TASKS, "train")


def gsm8k_rows(n: int) -> list[str]:
    return [
        json.dumps({"question": f"Ann has {i} pens and buys 2.", "answer": f"{i}+2=<<{i}+2={i + 2}>>\n#### {i + 2}"})
        for i in range(n)
    ]


def test_prepare_gsm8k_splits_the_same_whatever_the_order(tmp_path: Path) -> None:
    rows = gsm8k_rows(50)
    (tmp_path / "a.jsonl").write_text("\n".join(rows))
    (tmp_path / "b.jsonl").write_text("\n".join(reversed(rows)))
    first, second, third = (DatasetRegistry(tmp_path / name) for name in "xyz")
    counts = prepare_gsm8k(tmp_path / "a.jsonl", first, seed=3, held_out=0.2)
    assert counts == {"rows": 50, "calls": 50, "plans": 50, "train": 40, "held_out": 10}
    prepare_gsm8k(tmp_path / "b.jsonl", second, seed=3, held_out=0.2)
    prepare_gsm8k(tmp_path / "a.jsonl", third, seed=4, held_out=0.2)
    held = [{fingerprint(t) for t in r.load_dataset("gsm8k", "held_out")} for r in (first, second, third)]
    assert held[0] == held[1] != held[2]
    assert not held[0] & {fingerprint(t) for t in first.load_dataset("gsm8k", "train")}
    with pytest.raises(DataError, match="held_out"):
        prepare_gsm8k(tmp_path / "a.jsonl", first, seed=3, held_out=1.0)
