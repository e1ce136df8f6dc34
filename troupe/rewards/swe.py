"""Pays patches: 1 where the patched tree passes the hidden tests, else 0.

The patch goes onto the original tree, so that what an agent did to its working copy counts for nothing. It must apply
strictly and leave the tree's own test files alone. The hidden tests run in the sandbox and are judged outside of it
(see `troupe.sandbox.trials`); they are more than the visible one, so a patch which answers that one alone is wrong.

Calls cannot be tricked. Test modules, which the tasks of repositories and some of QuixBugs have, assert beside the
code: there an object whose `__eq__` says yes to everything is paid. Train on calls where that matters.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.protocols import Reward
from troupe.sandbox.cases import Runs
from troupe.sandbox.listings import read_listing
from troupe.sandbox.patches import PatchError, Tree, apply_patch
from troupe.sandbox.trials import run_tests

__all__ = ["locates", "swe_reward_fn"]

_TEST_FILE = re.compile(r"(^|/)(tests?/|test_[^/]*\.py$|[^/]*_test\.py$|conftest\.py$)")


def swe_reward_fn(task: Task, patch: str | None, *, sandbox: Runs | None = None) -> Reward:
    """Pays `patch`, a unified diff against the task's files, by the tests in `task.answer["tests"]`. The files are
    `task.data["files"]`, or those that the prompt shows.

    `metadata` holds `applies`, and `passed` and `total` tests, or an `error` that says why nothing ran. Without a
    sandbox one is made for this call. Raises DataError for a task without files or tests, which for the task of a
    repository means that its checkout is missing.
    """
    files, tests = _files(task), _tests(task)
    try:
        patched = _patched(files, patch, _at_fault(task))
    except PatchError as error:
        return Reward(0.0, False, {"applies": False, "error": str(error)})
    if sandbox is None:
        from troupe.sandbox import Sandbox

        with Sandbox() as own:
            trials = run_tests(own, patched, tests)
    else:
        trials = run_tests(sandbox, patched, tests)
    passed = sum(trial.passed for trial in trials)
    solved = passed == len(trials)
    return Reward(float(solved), solved, {"applies": True, "passed": passed, "total": len(trials)})


def locates(task: Task, path: str | None, line: int | None) -> bool:
    """Whether this line is one that the reference fix changes: `task.answer["fault"]`, pairs of path and line."""
    fault = _fault(task)
    if not fault:
        raise DataError(f"task {task.id} does not say which lines are at fault (answer['fault']: [[path, line], ...])")
    return [path, line] in fault


def _fault(task: Task) -> list[list[Any]]:
    answer: Any = task.answer
    return [list(place) for place in (answer.get("fault") if isinstance(answer, Mapping) else None) or ()]


def _at_fault(task: Task) -> set[str]:
    """Files that the reference fix changes: some projects keep code below `test/`, such as `django/test/client.py`."""
    return {path for path, _ in _fault(task)}


def _patched(files: Tree, patch: str | None, at_fault: Collection[str]) -> dict[str, str]:
    if patch is None or not patch.strip():
        raise PatchError("there is no patch")
    patched = apply_patch(files, patch)
    for path in sorted({*files, *patched}):
        if _TEST_FILE.search(path) and path not in at_fault and files.get(path) != patched.get(path):
            raise PatchError(f"the patch changes the test file {path}")
    return patched


def _files(task: Task) -> Tree:
    repository = task.data.get("repository")
    files = task.data.get("files") or (None if repository else read_listing(task.prompt)[0])
    if not isinstance(files, Mapping) or not files:
        missing = f"a checkout of {repository}; add one with with_checkout(task, folder)" if repository else "its files"
        raise DataError(f"task {task.id} lacks {missing}")
    return files


def _tests(task: Task) -> Mapping[str, Any]:
    answer: Any = task.answer
    if not isinstance(answer, Mapping) or not answer.get("tests"):
        raise DataError(f"task {task.id} has no hidden tests (answer['tests']); it cannot be rewarded")
    return answer["tests"]
