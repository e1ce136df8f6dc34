"""Preparing repair tasks: each format becomes a set under its own name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from tests.tasks.test_quixbugs import ADD
from tests.tasks.test_swebench import BEFORE, R2E, SWE
from troupe.errors import DataError, MissingExtra
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.swe import prepare_swe


@pytest.fixture
def registry(tmp_path: Path) -> DatasetRegistry:
    return DatasetRegistry(tmp_path / "data")


def write(path: Path, *rows: object) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def issues(n: int) -> list[dict[str, Any]]:
    return [{**SWE, "instance_id": f"org__pack-{i}"} for i in range(n)]


def commits(n: int) -> list[dict[str, Any]]:
    return [{**R2E, "commit_hash": f"{i:04d}"} for i in range(n)]


def test_each_format_becomes_a_set_of_its_own(tmp_path: Path, registry: DatasetRegistry) -> None:
    source = tmp_path / "downloads"
    write(source / "r2e_gym" / "rows.jsonl", *commits(10))
    write(source / "swebench_verified" / "test.jsonl", *issues(5))
    counts = prepare_swe(source, registry, seed=0, held_out=0.2)
    assert counts == {
        "R2E_Gym_Subset/train": 8,
        "R2E_Gym_Subset/held_out": 2,
        "R2E_Gym_Subset without checkout": 10,
        "SWE_Bench_Verified/train": 4,
        "SWE_Bench_Verified/held_out": 1,
        "SWE_Bench_Verified without checkout": 5,
    }
    assert registry.names() == ["R2E_Gym_Subset", "SWE_Bench_Verified"]
    train, rest = (registry.load_dataset("R2E_Gym_Subset", part) for part in ("train", "held_out"))
    assert {task.kind for task in train + rest} == {"r2e"} and not {t.id for t in train} & {t.id for t in rest}


@pytest.mark.parametrize(("file", "name"), [("swe-bench_lite.jsonl", "SWE_Bench_Lite"), ("dev.jsonl", "SWE_Bench")])
def test_a_set_of_swe_bench_goes_by_its_files_name(
    tmp_path: Path, registry: DatasetRegistry, file: str, name: str
) -> None:
    counts = prepare_swe(write(tmp_path / "rows" / file, *issues(4)), registry, seed=0, held_out=0.5)
    assert list(counts) == [f"{name}/train", f"{name}/held_out", f"{name} without checkout"]


def test_checkouts_beside_the_rows_are_added(
    tmp_path: Path,
    registry: DatasetRegistry,
    sandbox: Any,  # noqa: F811
) -> None:
    file = write(tmp_path / "rows" / "verified.jsonl", *issues(2))
    for path, text in BEFORE.items():
        target = tmp_path / "rows" / "checkouts" / "org__pack-1" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    counts = prepare_swe(file, registry, seed=0, held_out=0.5)
    assert counts["SWE_Bench_Verified without checkout"] == 1
    tasks = [t for part in ("train", "held_out") for t in registry.load_dataset("SWE_Bench_Verified", part)]
    assert {task.id: task.data.get("files") for task in tasks} == {"org__pack-0": None, "org__pack-1": BEFORE}


def test_quixbugs_is_run_as_it_is_read(tmp_path: Path, registry: DatasetRegistry, sandbox: Any) -> None:  # noqa: F811
    rows = [{**ADD, "name": name} for name in ("add", "plus")]
    counts = prepare_swe(write(tmp_path / "quixbugs" / "programs.jsonl", *rows).parent, registry, seed=0, held_out=0.5)
    assert counts == {"quixbugs/train": 1, "quixbugs/held_out": 1}
    (task,) = registry.load_dataset("quixbugs", "held_out")
    assert "A test fails: add(3,1) is 2, not 4" in task.prompt


@pytest.mark.parametrize(
    ("rows", "held_out", "why"),
    [
        (issues(2), 1.0, "held_out is 1.0; write a fraction"),
        (issues(1), 0.5, "SWE_Bench has 1 task; two are needed"),
        (issues(3), 0.01, "held_out=0.01 leaves no task of SWE_Bench for held_out"),
        ([*issues(2), {"question": "why?"}], 0.5, "rows.jsonl:3: not a repair task; a row has buggy (QuixBugs)"),
        ([*issues(2), [1]], 0.5, "rows.jsonl:3: not a JSON object"),
    ],
)
def test_what_cannot_be_prepared_is_refused(
    tmp_path: Path, registry: DatasetRegistry, rows: list[Any], held_out: float, why: str
) -> None:
    with pytest.raises(DataError) as refused:
        prepare_swe(write(tmp_path / "rows.jsonl", *rows), registry, seed=0, held_out=held_out)
    assert why in str(refused.value) and registry.names() == []


def test_a_source_without_rows_is_refused(tmp_path: Path, registry: DatasetRegistry) -> None:
    with pytest.raises(DataError, match="does not exist"):
        prepare_swe(tmp_path / "nowhere", registry, seed=0)
    with pytest.raises(DataError, match=r"holds no \.jsonl or \.jsonl\.gz file, nor does quixbugs"):
        prepare_swe(tmp_path, registry, seed=0)


def test_the_hub_needs_a_package(registry: DatasetRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="datasets"):
        prepare_swe(None, registry, seed=0)


def test_without_files_both_sets_come_from_the_hub(registry: DatasetRegistry, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    class Hub:
        @staticmethod
        def load_dataset(name: str, split: str, streaming: bool) -> list[dict[str, Any]]:
            asked.append((name, split))
            return commits(4) if name.startswith("R2E") else issues(4)

    monkeypatch.setitem(sys.modules, "datasets", Hub)
    prepare_swe(None, registry, seed=0, held_out=0.5)
    assert asked == [("R2E-Gym/R2E-Gym-Subset", "train"), ("princeton-nlp/SWE-bench_Verified", "test")]
    assert registry.names() == ["R2E_Gym_Subset", "SWE_Bench_Verified"]
