"""Issues of real repositories: rows of SWE-bench and of R2E-Gym.

A row of SWE-bench (Jimenez et al. 2024, arXiv:2310.06770):

    {"instance_id": "astropy__astropy-12907", "repo": "astropy/astropy", "base_commit": "d16bfe05...",
     "patch": "diff --git ...", "test_patch": "diff --git ...", "problem_statement": "Modeling's ...",
     "FAIL_TO_PASS": ["astropy/modeling/tests/test_separable.py::test_a"], "PASS_TO_PASS": [...], ...}

and of R2E-Gym (Jain et al. 2025, arXiv:2504.07164), whose nested parts are JSON in text:

    {"repo_name": "tornado", "commit_hash": "7d91e3c9...", "docker_image": "...", "problem_statement": "...",
     "parsed_commit_content": '{"old_commit_hash": ..., "file_diffs": [{"header": {"file": {"path": ...}},
                                "old_file_content": ..., "new_file_content": ...}, ...]}',
     "execution_result_content": '{"test_file_names": [...], "test_file_codes": [...]}',
     "expected_output_json": '{"TestA.test_b": "PASSED"}'}

The rows hold no repository. Their tasks can be read, shown and asked about, but no tool can open a file and no test can
run before a checkout is added:

    task = with_checkout(task, "checkouts/astropy")   # a folder with the repository at the commit that the task names

`troupe data prepare swe` does that for every folder `checkouts/<task id>` beside the rows. A workflow or reward that
meets the task without one says so. Tests run in the sandbox's bare Python, without pytest and
without the repository's dependencies: parametrised tests and fixtures cannot run there, and are named.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from troupe.episode import Task
from troupe.errors import DataError
from troupe.sandbox.cases import Runs
from troupe.sandbox.patches import PatchError, Tree, apply_patch, changed_lines, make_patch, safe_path
from troupe.sandbox.trials import failures, run_tests
from troupe.tasks.rows import objects, text

__all__ = ["CheckoutError", "r2e_task", "read_r2e", "read_swebench", "swebench_task", "with_checkout"]

LARGEST_FILE = 1 << 20
LARGEST_TREE = 4 << 20
"""Bytes; larger files of a checkout are left out, a larger tree is refused: a run brings it into a folder of 16 MB,
once in its request and once as files, and where that does not fit every patch would count as wrong."""

R2E_TESTS = "r2e_tests"
"""The folder that R2E-Gym puts its tests into."""

_TEST_PATH = re.compile(r"(^|/)tests?(/|_[^/]*\.py$)|_test\.py$")


def read_swebench(path: str | Path) -> list[Task]:
    """The tasks of a `.jsonl[.gz]` file of SWE-bench rows. Raises DataError with `file:line` for a bad row."""
    return [swebench_task(row, where) for where, row in objects(Path(path), "SWE-bench")]


def read_r2e(path: str | Path) -> list[Task]:
    """The tasks of a `.jsonl[.gz]` file of R2E-Gym rows. Raises DataError with `file:line` for a bad row."""
    return [r2e_task(row, where) for where, row in objects(Path(path), "R2E-Gym")]


def swebench_task(row: Mapping[str, Any], where: str) -> Task:
    """The task of one row of SWE-bench; `where` names it in errors."""
    repository, commit = text(row, "repo", where), text(row, "base_commit", where)
    tests = {key.lower(): _names(row.get(key), key, where) for key in ("FAIL_TO_PASS", "PASS_TO_PASS")}
    if not tests["fail_to_pass"]:
        raise DataError(f"{where}: FAIL_TO_PASS names no test")
    patch = _diff(row, "patch", where)
    return _task(
        text(row, "instance_id", where), "swebench", text(row, "problem_statement", where), repository, commit, patch,
        {"test_patch": _diff(row, "test_patch", where), **tests}, {"version": str(row.get("version", ""))},
    )  # fmt: skip


def r2e_task(row: Mapping[str, Any], where: str) -> Task:
    """The task of one row of R2E-Gym; `where` names it in errors."""
    repository, commit = text(row, "repo_name", where), text(row, "commit_hash", where)
    content = _nested(row, "parsed_commit_content", where)
    executed = _nested(row, "execution_result_content", where)
    expected = _nested(row, "expected_output_json", where)
    before: dict[str, str] = {}
    after: dict[str, str] = {}
    for change in content.get("file_diffs") or ():
        try:
            path, old, new = change["header"]["file"]["path"], change["old_file_content"], change["new_file_content"]
        except (KeyError, TypeError) as error:
            raise DataError(f"{where}: an entry of file_diffs has no {error}") from error
        if not _TEST_PATH.search(path):
            before |= {path: old} if old else {}
            after |= {path: new} if new else {}
    patch = make_patch(before, after)
    if not patch:
        raise DataError(f"{where}: the commit changes no file but tests")
    files = dict(zip(executed.get("test_file_names") or (), executed.get("test_file_codes") or (), strict=False))
    modules = {f"{R2E_TESTS}/{Path(name).name}": str(code) for name, code in files.items()}
    tests = {"modules": modules, "passed": sorted(name for name, said in expected.items() if said == "PASSED")}
    if not modules or not tests["passed"]:
        raise DataError(f"{where}: the row has no test that should pass")
    base = str(content.get("old_commit_hash") or f"the parent of {commit}")
    return _task(
        f"{repository}__{commit}", "r2e", text(row, "problem_statement", where), repository, base, patch, tests,
        {"image": str(row.get("docker_image", ""))},
    )  # fmt: skip


def _task(
    identity: str,
    kind: str,
    statement: str,
    repository: str,
    commit: str,
    patch: str,
    tests: Mapping[str, Any],
    more: Mapping[str, str],
) -> Task:
    return Task(
        id=identity,
        kind=kind,
        prompt=statement,
        difficulty=min(1.0, len(changed_lines(patch)) / 20),
        data={"repository": f"{repository} at {commit}", "issue": statement, "key": identity, **more},
        answer={"fault": sorted([path, line] for path, line in changed_lines(patch)), **tests},
        solution={"patch": patch},
    )


def _diff(row: Mapping[str, Any], key: str, where: str) -> str:
    patch = str(row.get(key) or "")
    try:
        changed_lines(patch)
    except PatchError as error:
        raise DataError(f"{where}: {key!r} cannot be read: {error}") from error
    return patch


def _names(found: Any, key: str, where: str) -> list[str]:
    """Test names, as a list or as JSON in text (as the hub has them)."""
    try:
        names = json.loads(found) if isinstance(found, str) else found
    except ValueError as error:
        raise DataError(f"{where}: {key} is not JSON ({error})") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise DataError(f"{where}: {key} must be a list of test names")
    return names


def _nested(row: Mapping[str, Any], key: str, where: str) -> Mapping[str, Any]:
    try:
        found = json.loads(text(row, key, where))
    except ValueError as error:
        raise DataError(f"{where}: {key!r} is not JSON ({error})") from error
    if not isinstance(found, Mapping):
        raise DataError(f"{where}: {key!r} must hold a JSON object")
    return found


# ---------------------------------------------------------------------------------------------- checkouts


class CheckoutError(DataError):
    """A task that cannot be run with its checkout. `reason` says why in words that other tasks' reasons share."""

    def __init__(self, message: str, reason: str) -> None:
        super().__init__(message)
        self.reason = reason

    def __reduce__(self) -> tuple[Any, ...]:
        """A worker process sends its errors pickled; the message alone would not make one anew."""
        return type(self), (str(self), self.reason), self.__dict__


def with_checkout(task: Task, folder: str | Path, *, sandbox: Runs | None = None) -> Task:
    """The task with the files of its repository, and with those of its tests that the sandbox can run.

    Text files up to a mebibyte are read, `.git` is not. Raises CheckoutError where the folder is not at the commit that
    the task names (its reference fix does not apply), or a test that the fix must make pass needs pytest.
    `data["left_out"]` counts the other tests that do. With a sandbox the tests are run: those that the reference fix
    does not pass there are left out too, and a task is refused whose fix is not told from the files as they are.
    """
    files = _read(Path(folder))
    answer = dict(task.answer)
    try:
        apply_patch(files, task.solution["patch"])
        tested = apply_patch(files, answer["test_patch"]) if "test_patch" in answer else {}
    except PatchError as error:
        where = task.data.get("repository")
        message = f"{folder} is not a checkout of {where}, which task {task.id} needs: {error}"
        raise CheckoutError(message, "checkout of another commit") from error
    if "test_patch" in answer:
        required, other = list(answer["fail_to_pass"]), list(answer["pass_to_pass"])
        modules = {path: tested[path] for path in map(_path, [*required, *other]) if path in tested}
    else:
        modules = answer["modules"]
        required, other = [], _identities(modules, answer["passed"])
    known = {path: _tests_in(source) for path, source in modules.items()}
    missing = [name for name in required if not _runs(name, known)]
    if missing or not (required or other):
        named = f"its test {missing[0]} needs" if missing else "all of its tests need"
        raise CheckoutError(f"task {task.id}: {named} pytest, which cannot run in the sandbox", "tests need pytest")
    kept = [name for name in other if _runs(name, known)]
    if sandbox is not None:
        kept = _told(task, files, {"modules": modules, "names": required + kept}, required, sandbox)
    data = {**task.data, "files": files, "left_out": len(other) - len(kept)}
    return replace(task, data=data, answer={**answer, "tests": {"modules": modules, "names": required + kept}})


def _told(task: Task, files: Tree, tests: Mapping[str, Any], required: Sequence[str], sandbox: Runs) -> list[str]:
    """The tests beside the required ones that the reference fix passes."""
    trials = run_tests(sandbox, apply_patch(files, task.solution["patch"]), tests) if tests["names"] else []
    lost = [trial for trial in trials if not trial.passed]
    needed = [trial for trial in lost if trial.name in required] or (lost if len(lost) == len(trials) else [])
    if needed:
        message = f"task {task.id}: its reference fix fails in the sandbox, {needed[0].message}"
        raise CheckoutError(message, "reference fix fails in the sandbox")
    names = [trial.name for trial in trials if trial.passed]
    if not names or not failures(run_tests(sandbox, files, {**tests, "names": names})):
        message = f"task {task.id}: no test that can run in the sandbox tells its reference fix from the fault"
        raise CheckoutError(message, "no test in the sandbox tells the fix")
    return [name for name in names if name not in required]


def _read(folder: Path) -> dict[str, str]:
    if not folder.is_dir():
        raise DataError(f"{folder} is no folder; give one that holds the repository")
    files: dict[str, str] = {}
    total = 0
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if inside.parts[0] == ".git" or path.is_symlink() or not path.is_file() or path.stat().st_size > LARGEST_FILE:
            continue
        try:
            files[safe_path(inside.as_posix())] = path.read_bytes().decode()
        except (UnicodeDecodeError, PatchError):
            continue  # an image, a compiled file, a name that no patch can hold: nothing to repair
        total += path.stat().st_size
        if total > LARGEST_TREE:
            size = f"more than {LARGEST_TREE >> 20} MiB of text"
            raise CheckoutError(f"{folder} holds {size}; remove what is not source", f"checkout of {size}")
    return files


def _path(name: str) -> str:
    return name.split("::")[0]


def _tests_in(source: str) -> set[str]:
    """`test_a` and `TestB::test_c` of a module, without those that ask for fixtures or parameters."""
    try:
        body = ast.parse(source).body
    except SyntaxError:
        return set()
    functions = (ast.FunctionDef, ast.AsyncFunctionDef)
    names = {part.name for part in body if isinstance(part, functions) and _is_plain(part, 0)}
    for part in body:
        if isinstance(part, ast.ClassDef):
            names |= {f"{part.name}::{f.name}" for f in part.body if isinstance(f, functions) and _is_plain(f, 1)}
    return names


def _is_plain(function: ast.FunctionDef | ast.AsyncFunctionDef, implied: int) -> bool:
    asked = len(function.args.args) - implied - len(function.args.defaults)
    return asked <= 0 and not any("pytest" in ast.unparse(decorator) for decorator in function.decorator_list)


def _runs(name: str, known: Mapping[str, set[str]]) -> bool:
    path, _, rest = name.partition("::")
    return rest in known.get(path, set())


def _identities(modules: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """R2E-Gym's `TestA.test_b` as `path::TestA::test_b`; a name that no module has keeps its own spelling."""
    known = {name: path for path, source in modules.items() for name in _tests_in(source)}
    spelled = [name.replace(".", "::") for name in names]
    return [f"{known[name]}::{name}" if name in known else name for name in spelled]
