"""Rows of SWE-bench and R2E-Gym: read, refused where they are bad, and run once a checkout is there."""

from __future__ import annotations

import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.errors import DataError
from troupe.rewards.swe import locates, swe_reward_fn
from troupe.sandbox.patches import make_patch
from troupe.tasks import swebench
from troupe.tasks.swebench import r2e_task, read_r2e, read_swebench, swebench_task, with_checkout

BEFORE = {"pack/__init__.py": "", "pack/a.py": "def f(x):\n    return x*3-2\n", "README.md": "A pack.\n"}
AFTER = {**BEFORE, "pack/a.py": "def f(x):\n    return x*3+2\n"}
TESTS = """import unittest
from pack.a import f

def test_zero():
    assert f(0) == 2

def test_type():
    assert f(1)
"""
MORE = """import pytest

@pytest.mark.parametrize('x', [1, 2])
def test_many(x):
    pass

def test_there(tmp_path):
    pass
"""
SWE = {
    "repo": "org/pack",
    "instance_id": "org__pack-1",
    "base_commit": "1f0a" * 10,
    "patch": make_patch(BEFORE, AFTER),
    "test_patch": make_patch(BEFORE, {**BEFORE, "tests/test_a.py": TESTS}),
    "problem_statement": "f(0) should be 2.",
    "FAIL_TO_PASS": ["tests/test_a.py::test_zero"],
    "PASS_TO_PASS": '["tests/test_a.py::test_type"]',  # as the hub has them
    "version": "1.0",
}


def change(path: str, old: str, new: str) -> dict[str, Any]:
    return {"header": {"file": {"path": path}}, "old_file_content": old, "new_file_content": new}


R2E = {
    "repo_name": "pack",
    "commit_hash": "7d91" * 10,
    "docker_image": "images/pack:7d91",
    "problem_statement": "f(0) should be 2.",
    "parsed_commit_content": json.dumps(
        {
            "old_commit_hash": "1f0a" * 10,
            "file_diffs": [
                change("pack/a.py", BEFORE["pack/a.py"], AFTER["pack/a.py"]),
                change("tests/test_old.py", "", "def test(): pass\n"),
            ],
        }
    ),
    "execution_result_content": json.dumps({"test_file_names": ["test_1.py"], "test_file_codes": [TESTS]}),
    "expected_output_json": json.dumps({"test_zero": "PASSED", "test_type": "PASSED", "test_other": "FAILED"}),
}


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    for path, text in BEFORE.items():
        (tmp_path / path).parent.mkdir(exist_ok=True)
        (tmp_path / path).write_text(text)
    (tmp_path / ".git").mkdir()
    (tmp_path / ".git" / "HEAD").write_text("ref: refs/heads/main\n")
    (tmp_path / "logo.png").write_bytes(b"\x89PNG\xff")
    (tmp_path / "outside").symlink_to("/etc/hostname")
    return tmp_path


# ---------------------------------------------------------------------------------------------- rows


def test_a_row_of_swe_bench_becomes_a_task() -> None:
    task = swebench_task(SWE, "here")
    assert (task.id, task.kind, task.prompt) == ("org__pack-1", "swebench", "f(0) should be 2.")
    assert task.data["repository"] == f"org/pack at {SWE['base_commit']}" and "files" not in task.data
    assert task.answer["fault"] == [["pack/a.py", 2]] and task.answer["pass_to_pass"] == ["tests/test_a.py::test_type"]
    assert task.solution == {"patch": SWE["patch"]}
    seen = json.dumps([task.prompt, dict(task.data)])
    assert "diff" not in seen and "test_zero" not in seen


def test_a_row_of_r2e_gym_becomes_a_task() -> None:
    task = r2e_task(R2E, "here")
    assert (task.id, task.kind) == (f"pack__{R2E['commit_hash']}", "r2e")
    assert task.data["repository"] == f"pack at {'1f0a' * 10}" and task.data["image"] == "images/pack:7d91"
    assert task.answer["fault"] == [["pack/a.py", 2]] and task.answer["passed"] == ["test_type", "test_zero"]
    assert list(task.answer["modules"]) == ["r2e_tests/test_1.py"]
    assert "tests/test_old.py" not in task.solution["patch"]  # the fix is that of the program


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"instance_id": None}, "no text under 'instance_id'"),
        ({"problem_statement": " "}, "no text under 'problem_statement'"),
        ({"patch": "see above"}, "'patch' cannot be read: line 1 is not part of a patch"),
        ({"test_patch": ""}, "'test_patch' cannot be read"),
        ({"FAIL_TO_PASS": []}, "FAIL_TO_PASS names no test"),
        ({"FAIL_TO_PASS": "test_zero"}, "FAIL_TO_PASS is not JSON"),
        ({"PASS_TO_PASS": {"a": 1}}, "PASS_TO_PASS must be a list"),
    ],
)
def test_a_bad_row_of_swe_bench_is_named(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(SWE) + "\n" + json.dumps({**SWE, **changed}) + "\n")
    with pytest.raises(DataError) as refused:
        read_swebench(file)
    assert str(refused.value).startswith(f"{file}:2: ") and why in str(refused.value)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"repo_name": ""}, "no text under 'repo_name'"),
        ({"parsed_commit_content": "{"}, "'parsed_commit_content' is not JSON"),
        ({"parsed_commit_content": "[]"}, "'parsed_commit_content' must hold a JSON object"),
        ({"parsed_commit_content": '{"file_diffs": [{"header": 1}]}'}, "an entry of file_diffs has no"),
        ({"parsed_commit_content": "{}"}, "the commit changes no file but tests"),
        ({"expected_output_json": '{"test_zero": "FAILED"}'}, "the row has no test that should pass"),
        ({"execution_result_content": "{}"}, "the row has no test that should pass"),
    ],
)
def test_a_bad_row_of_r2e_gym_is_named(tmp_path: Path, changed: dict[str, Any], why: str) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text(json.dumps(R2E) + "\n" + json.dumps({**R2E, **changed}) + "\n")
    with pytest.raises(DataError) as refused:
        read_r2e(file)
    assert str(refused.value).startswith(f"{file}:2: ") and why in str(refused.value)


def test_the_real_rows() -> None:
    if "TROUPE_DATA" not in os.environ:
        pytest.skip("TROUPE_DATA does not name the folder of data sets")
    tasks = read_swebench(Path(os.environ["TROUPE_DATA"]) / "swebench_lite" / "dev_part.jsonl.gz")
    assert len({task.id for task in tasks}) == len(tasks) == 200
    assert all(task.answer["fault"] and task.answer["fail_to_pass"] for task in tasks)


# ---------------------------------------------------------------------------------------------- checkouts


@pytest.mark.parametrize("task", [swebench_task(SWE, "here"), r2e_task(R2E, "here")], ids=["swe-bench", "r2e-gym"])
def test_with_a_checkout_the_tests_run(checkout: Path, sandbox: Any, task: Any) -> None:  # noqa: F811
    with pytest.raises(DataError, match=f"lacks a checkout of {task.data['repository']}"):
        swe_reward_fn(task, task.solution["patch"], sandbox=sandbox)
    ready = with_checkout(task, checkout)
    assert ready.data["files"] == BEFORE  # no binary file, no link, nothing of git
    assert swe_reward_fn(ready, ready.solution["patch"], sandbox=sandbox).metadata == {
        "applies": True,
        "passed": 2,
        "total": 2,
    }
    other = make_patch(BEFORE, {**BEFORE, "pack/a.py": "def f(x):\n    return 1\n"})
    assert swe_reward_fn(ready, other, sandbox=sandbox).reward == 0.0
    assert locates(ready, "pack/a.py", 2)


def test_with_a_sandbox_the_tests_are_seen_to_tell_the_fix(checkout: Path, sandbox: Any) -> None:  # noqa: F811
    """Else a team would be paid for nothing, or for no patch at all."""
    task = swebench_task(SWE, "here")
    ready = with_checkout(task, checkout, sandbox=sandbox)
    assert ready == with_checkout(task, checkout)
    lost = TESTS + "def test_numpy():\n    import numpy\n"
    rows = {**SWE, "test_patch": make_patch(BEFORE, {**BEFORE, "tests/test_a.py": lost})}
    lacks = "tests/test_a.py::test_numpy"
    some = with_checkout(swebench_task({**rows, "PASS_TO_PASS": [lacks]}, "here"), checkout, sandbox=sandbox)
    assert some.answer["tests"]["names"] == SWE["FAIL_TO_PASS"] and some.data["left_out"] == 1
    with pytest.raises(DataError, match="its reference fix fails in the sandbox, test_numpy: ModuleNotFoundError"):
        with_checkout(swebench_task({**rows, "FAIL_TO_PASS": [lacks]}, "here"), checkout, sandbox=sandbox)
    telling = {**R2E, "expected_output_json": '{"test_type": "PASSED"}'}  # passes before the fix, too
    with pytest.raises(DataError, match="no test that can run in the sandbox tells its reference fix from the fault"):
        with_checkout(r2e_task(telling, "here"), checkout, sandbox=sandbox)


def test_test_modules_stand_in_the_order_of_their_tests(checkout: Path) -> None:
    """The same on every run: a set of paths would not be."""
    paths = [f"tests/test_{letter}.py" for letter in "hbgadfce"]
    patch = make_patch(BEFORE, {**BEFORE, **dict.fromkeys(paths, TESTS)})
    names = [f"{path}::test_zero" for path in paths]
    ready = with_checkout(swebench_task({**SWE, "test_patch": patch, "FAIL_TO_PASS": names}, "here"), checkout)
    assert list(ready.answer["tests"]["modules"]) == [*paths, "tests/test_a.py"][:8]


def test_a_name_that_no_patch_can_hold_is_left_out(checkout: Path) -> None:
    (checkout / "a:b.txt").write_text("x\n")
    assert with_checkout(swebench_task(SWE, "here"), checkout).data["files"] == BEFORE


def test_another_commit_is_refused(checkout: Path) -> None:
    (checkout / "pack" / "a.py").write_text("def f(x):\n    return 3*x-2\n")
    with pytest.raises(DataError, match=r"is not a checkout of org/pack at 1f0a.*which task org__pack-1 needs: hunk 1"):
        with_checkout(swebench_task(SWE, "here"), checkout)
    with pytest.raises(DataError, match="is no folder"):
        with_checkout(swebench_task(SWE, "here"), checkout / "elsewhere")


def test_tests_that_need_pytest_are_left_out_or_refused(checkout: Path) -> None:
    patch = make_patch(BEFORE, {**BEFORE, "tests/test_a.py": TESTS, "tests/test_b.py": MORE})
    many = ["tests/test_b.py::test_many[1]", "tests/test_b.py::test_there", "tests/gone.py::test"]
    ready = with_checkout(swebench_task({**SWE, "test_patch": patch, "PASS_TO_PASS": many}, "here"), checkout)
    assert ready.data["left_out"] == 3 and ready.answer["tests"]["names"] == SWE["FAIL_TO_PASS"]
    with pytest.raises(DataError, match=r"test_many\[1\] needs pytest, which cannot run in the sandbox"):
        with_checkout(swebench_task({**SWE, "test_patch": patch, "FAIL_TO_PASS": many}, "here"), checkout)
    nothing = replace(r2e_task(R2E, "here"), answer={**r2e_task(R2E, "here").answer, "passed": []})
    with pytest.raises(DataError, match="all of its tests need pytest"):
        with_checkout(nothing, checkout)


def test_the_largest_checkout_can_be_run(checkout: Path, sandbox: Any) -> None:  # noqa: F811
    size, line = 1 << 18, "\tx = 'a'\n"
    for number in range(swebench.LARGEST_TREE // size - 1):
        (checkout / f"{number}.txt").write_text(line * (size // len(line)))
    ready = with_checkout(swebench_task(SWE, "here"), checkout)
    assert sum(map(len, ready.data["files"].values())) > 0.9 * swebench.LARGEST_TREE
    assert swe_reward_fn(ready, ready.solution["patch"], sandbox=sandbox).is_correct


def test_a_checkout_that_is_too_large_is_refused(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(swebench, "LARGEST_TREE", 10)
    with pytest.raises(DataError, match="MiB of text"):
        with_checkout(swebench_task(SWE, "here"), checkout)
    monkeypatch.setattr(swebench, "LARGEST_TREE", 1 << 20)
    monkeypatch.setattr(swebench, "LARGEST_FILE", 10)
    with pytest.raises(DataError, match="is not a checkout"):  # the file to repair is too large
        with_checkout(swebench_task(SWE, "here"), checkout)
