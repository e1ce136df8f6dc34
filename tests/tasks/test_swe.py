"""Preparing repair tasks: each format becomes a set under its own name."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from tests.tasks.hub import documented, hub
from tests.tasks.test_quixbugs import ADD
from tests.tasks.test_swebench import BEFORE, MORE, R2E, SWE, TESTS
from troupe.errors import DataError, MissingExtra
from troupe.sandbox.patches import make_patch
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


def checkout(source: Path, task: str) -> None:
    """The repository of a task, beside the rows."""
    for path, text in BEFORE.items():
        target = source / "checkouts" / task / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)


def test_each_format_becomes_a_set_of_its_own(
    tmp_path: Path,
    registry: DatasetRegistry,
    sandbox: Any,  # noqa: F811
) -> None:
    source = tmp_path / "downloads"
    write(source / "r2e_gym" / "rows.jsonl", *commits(10))
    write(source / "swebench_verified" / "test.jsonl", *issues(5))
    for task in [*(f"pack__{i:04d}" for i in range(10)), *(f"org__pack-{i}" for i in range(5))]:
        checkout(source, task)
    counts = prepare_swe(source, registry, seed=0, held_out=0.2)
    assert counts == {"R2E_Gym_Subset/train": 8, "R2E_Gym_Subset/held_out": 2, "SWE_Bench_Verified/held_out": 5}
    assert registry.names() == ["R2E_Gym_Subset", "SWE_Bench_Verified"]
    train, rest = (registry.load_dataset("R2E_Gym_Subset", part) for part in ("train", "held_out"))
    assert {task.kind for task in train + rest} == {"r2e"} and not {t.id for t in train} & {t.id for t in rest}
    assert all(task.data["files"] == BEFORE for task in train + rest)


def test_tasks_without_a_checkout_are_not_for_training(tmp_path: Path, registry: DatasetRegistry) -> None:
    source = write(tmp_path / "rows" / "r2e.jsonl", *commits(3))
    assert prepare_swe(source, registry, seed=0) == {"R2E_Gym_Subset/without_checkout": 3}
    assert len(registry.load_dataset("R2E_Gym_Subset", "without_checkout")) == 3
    with pytest.raises(DataError) as refused:
        registry.load_dataset("R2E_Gym_Subset", "train")
    said = str(refused.value)
    assert "tasks that lack a checkout of their repository: 3; put each one's" in said
    assert f"{tmp_path}/rows/checkouts/pack__0000 for pack at 1f0a" in said and f"--from {source}" in said


def test_a_set_that_was_prepared_with_other_splits_loses_them(
    tmp_path: Path,
    registry: DatasetRegistry,
    sandbox: Any,  # noqa: F811
) -> None:
    source = write(tmp_path / "rows" / "r2e.jsonl", *commits(3)).parent
    prepare_swe(source, registry, seed=0)
    for number in range(3):
        checkout(source, f"pack__{number:04d}")
    counts = prepare_swe(source, registry, seed=0, held_out=0.4)
    assert counts == {"R2E_Gym_Subset/train": 2, "R2E_Gym_Subset/held_out": 1}
    assert registry.splits("R2E_Gym_Subset") == ["held_out", "train"]


def test_tasks_that_cannot_be_run_are_left_out_and_counted(
    tmp_path: Path,
    registry: DatasetRegistry,
    monkeypatch: pytest.MonkeyPatch,
    sandbox: Any,  # noqa: F811
) -> None:
    """One of thousands must not end the preparation of the others."""
    lacking = TESTS + "def test_numpy():\n    import numpy\n"
    rows = commits(6)
    rows[1]["execution_result_content"] = json.dumps({"test_file_names": ["test_1.py"], "test_file_codes": [MORE]})
    rows[1]["expected_output_json"] = json.dumps({"test_there": "PASSED"})
    rows[2] |= {
        "execution_result_content": json.dumps({"test_file_names": ["test_1.py"], "test_file_codes": [lacking]}),
        "expected_output_json": json.dumps({"test_numpy": "PASSED"}),
    }
    source = write(tmp_path / "rows" / "r2e.jsonl", *rows).parent
    parametrised = {
        "test_patch": make_patch(BEFORE, {**BEFORE, "tests/test_b.py": MORE}),
        "FAIL_TO_PASS": ["tests/test_b.py::test_many[1]"],
    }
    write(source / "verified.jsonl", *issues(1), {**issues(2)[1], **parametrised})
    for task in [*(f"pack__{number:04d}" for number in range(6)), "org__pack-0", "org__pack-1"]:
        checkout(source, task)
    (source / "checkouts" / "pack__0003" / "pack" / "a.py").write_text("def g(): pass\n")
    monkeypatch.setattr("troupe.tasks.swebench.LARGEST_TREE", 1 << 20)
    (source / "checkouts" / "pack__0004" / "large.txt").write_text("a" * (1 << 20))
    counts = prepare_swe(source, registry, seed=0, held_out=0.5)
    assert counts == {
        "R2E_Gym_Subset/train": 1,
        "R2E_Gym_Subset/held_out": 1,
        "R2E_Gym_Subset left out, checkout of another commit": 1,
        "R2E_Gym_Subset left out, checkout of more than 1 MiB of text": 1,
        "R2E_Gym_Subset left out, reference fix fails in the sandbox": 1,
        "R2E_Gym_Subset left out, no test in the sandbox tells the fix": 1,
        "SWE_Bench_Verified/held_out": 1,
        "SWE_Bench_Verified left out, tests need pytest": 1,
    }
    kept = [t.id for part in ("train", "held_out") for t in registry.load_dataset("R2E_Gym_Subset", part)]
    assert sorted(kept) == ["pack__0000", "pack__0005"]
    left_out = registry.manifest("R2E_Gym_Subset", "train")["metadata"]["left_out"]
    assert sorted(left_out) == [f"pack__{number:04d}" for number in (1, 2, 3, 4)]
    assert "ModuleNotFoundError" in left_out["pack__0002"] and "remove what is not source" in left_out["pack__0004"]


def test_a_set_without_a_task_that_can_be_run_is_refused(
    tmp_path: Path,
    registry: DatasetRegistry,
    sandbox: Any,  # noqa: F811
) -> None:
    source = write(tmp_path / "rows" / "verified.jsonl", *issues(2)).parent
    for number in range(2):
        (source / "checkouts" / f"org__pack-{number}").mkdir(parents=True)
    with pytest.raises(
        DataError, match=r"SWE_Bench_Verified has no task that can be run; of those left out, the first"
    ):
        prepare_swe(source, registry, seed=0)
    write(tmp_path / "rows" / "verified.jsonl", *commits(2))
    checkout(source, "pack__0001")
    with pytest.raises(DataError, match="R2E_Gym_Subset has 1 task that can be run; two are needed to hold one out"):
        prepare_swe(source, registry, seed=0)
    assert registry.names() == []


@pytest.mark.parametrize(("file", "name"), [("swe-bench_lite.jsonl", "SWE_Bench_Lite"), ("dev.jsonl", "SWE_Bench")])
def test_a_set_of_swe_bench_goes_by_its_files_name(
    tmp_path: Path, registry: DatasetRegistry, file: str, name: str
) -> None:
    counts = prepare_swe(write(tmp_path / "rows" / file, *issues(4)), registry, seed=0, held_out=0.5)
    assert counts == {f"{name}/without_checkout": 4}


def test_checkouts_beside_the_rows_are_added(
    tmp_path: Path,
    registry: DatasetRegistry,
    sandbox: Any,  # noqa: F811
) -> None:
    file = write(tmp_path / "rows" / "verified.jsonl", *issues(2))
    checkout(file.parent, "org__pack-1")
    counts = prepare_swe(file, registry, seed=0, held_out=0.5)
    assert counts == {"SWE_Bench_Verified/held_out": 1, "SWE_Bench_Verified/without_checkout": 1}
    tasks = [t for part in ("held_out", "without_checkout") for t in registry.load_dataset("SWE_Bench_Verified", part)]
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


@pytest.mark.parametrize(
    ("names", "held_out", "why"),
    [
        (["add"], 0.5, "quixbugs has 1 task that can be run; two are needed to hold one out"),
        (["add", "plus", "sum"], 0.01, "held_out=0.01 leaves no task of quixbugs for held_out"),
    ],
)
def test_too_few_tasks_are_refused(
    tmp_path: Path,
    registry: DatasetRegistry,
    sandbox: Any,  # noqa: F811
    names: list[str],
    held_out: float,
    why: str,
) -> None:
    rows = write(tmp_path / "rows.jsonl", *({**ADD, "name": name} for name in names))
    with pytest.raises(DataError, match=why):
        prepare_swe(rows, registry, seed=0, held_out=held_out)
    assert registry.names() == []


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
    asked = hub(monkeypatch, documented)
    counts = prepare_swe(None, registry, seed=0, held_out=0.5)
    assert counts == {"R2E_Gym_Subset/without_checkout": 20, "SWE_Bench_Verified/without_checkout": 5}
    assert asked == [("R2E-Gym/R2E-Gym-Subset", "train"), ("princeton-nlp/SWE-bench_Verified", "test")]
    remedy = registry.manifest("R2E_Gym_Subset", "without_checkout")["metadata"]["remedy"]
    assert "DIR/checkouts/pack__0000 for pack at 1f0a" in remedy and remedy.endswith("--from DIR")


def test_a_folder_with_checkouts_alone_takes_its_rows_from_the_hub(
    tmp_path: Path,
    registry: DatasetRegistry,
    monkeypatch: pytest.MonkeyPatch,
    sandbox: Any,  # noqa: F811
) -> None:
    """So that the remedy which the hub's rows come with can be followed."""
    hub(monkeypatch, documented)
    for task in ("pack__0000", "pack__0001", "org__pack-3"):
        checkout(tmp_path / "DIR", task)
    assert prepare_swe(tmp_path / "DIR", registry, seed=0, held_out=0.5) == {
        "R2E_Gym_Subset/train": 1,
        "R2E_Gym_Subset/held_out": 1,
        "R2E_Gym_Subset/without_checkout": 18,
        "SWE_Bench_Verified/held_out": 1,
        "SWE_Bench_Verified/without_checkout": 4,
    }
