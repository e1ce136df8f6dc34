"""Bugs made by mutation: each is a bug, each fix is one, and no two sets share one."""

from __future__ import annotations

import json
import re
from collections import Counter
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.episode import Task
from troupe.errors import ConfigError
from troupe.sandbox.listings import listing
from troupe.sandbox.patches import apply_patch, changed_lines
from troupe.sandbox.trials import failures, run_tests
from troupe.tasks import GENERATORS, disjoint, fingerprint
from troupe.tasks.bugs import KINDS, BugGenerator

DIFFICULTIES = (0.0, 0.5, 0.6, 0.8, 1.0)


def test_a_function_that_is_called_is_imported_wherever_its_caller_stands() -> None:
    """Also where the caller is not the first function of its module."""
    later = 0
    for task in some(60, 1.0, seed=105):
        for path, text in task.data["files"].items():
            lines = text.split("\n")
            defined = {line[4] for line in lines if line.startswith("def ")}
            used = {name for line in lines for name in re.findall(r"\b([fghkpqrt])\(", line.partition("#")[0])}
            imported = [line for line in lines if "import" in line]
            assert imported == lines[: len(imported)] and len(imported) == len(used - defined), (path, text)
            later += bool(imported) and not re.search(r"\b[fghkpqrt]\(", lines[2])
    assert later


def some(n: int = 60, difficulty: float = 0.5, seed: int = 0, kinds: Any = None) -> list[Task]:
    return BugGenerator((difficulty, difficulty), seed, kinds).generate(n)


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_each_bug_fails_and_each_fix_passes_in_the_sandbox(sandbox: Any, difficulty: float) -> None:  # noqa: F811
    """The values were computed from the steps' meanings; here the programs themselves run."""
    for task in some(24, difficulty, seed=3):
        files, hidden = task.data["files"], task.answer["tests"]
        before = run_tests(sandbox, files, hidden)
        visible = run_tests(sandbox, files, task.data["tests"])
        assert not before[0].passed and not visible[0].passed
        assert task.data["issue"] == f"test_{task.data['tests']['calls'][0]['function']}: {visible[0].message}"
        fixed = apply_patch(files, task.solution["patch"])
        assert failures(run_tests(sandbox, fixed, hidden)) == []


@pytest.mark.parametrize("kind", KINDS)
def test_a_kind_is_what_was_mutated(kind: str) -> None:
    tokens = {
        "operator": "+-*/",
        "constant": "0123456789",
        "comparison": "<>=",
        "order": "ab",
        "index": "[]:-0123456789",
        "function": "sumlenmaxin",
    }
    for task in some(40, kinds=(kind,)):
        path, line = task.solution["path"], task.solution["line"]
        wrong, right = (
            text.partition("#")[0] for text in (task.data["files"][path].split("\n")[line - 1], task.solution["text"])
        )
        assert task.kind == kind and wrong != right
        assert sorted(set(wrong) ^ set(right)) == sorted(c for c in set(wrong) ^ set(right) if c in tokens[kind])


@pytest.mark.parametrize("difficulty", DIFFICULTIES)
def test_the_fault_is_one_line(difficulty: float) -> None:
    for task in some(difficulty=difficulty):
        path, line, text = (task.solution[key] for key in ("path", "line", "text"))
        assert task.answer["fault"] == [[path, line]]
        assert changed_lines(task.solution["patch"]) == {(path, line)}
        assert apply_patch(task.data["files"], task.solution["patch"])[path].split("\n")[line - 1] == text


def test_the_prompt_shows_the_files_and_the_failing_test() -> None:
    for task in some(difficulty=0.8):
        assert task.prompt == f"{listing(task.data['files'])}\n{task.data['issue']}"
        for path, text in task.data["files"].items():
            assert path in task.prompt and all(line in task.prompt for line in text.split("\n"))


def test_what_a_team_sees_does_not_hold_the_hidden_tests() -> None:
    for task in some():
        seen = json.dumps([task.prompt, dict(task.data)])
        assert not any(f'"{key}"' in seen for key in ("patch", "fault", "text", "solution"))
        assert task.data["tests"]["calls"] == task.answer["tests"]["calls"][:1]
        assert len(task.answer["tests"]["calls"]) > 3


def test_hidden_tests_tell_the_fix_from_every_other_constant(sandbox: Any) -> None:  # noqa: F811
    """A patch that passes the visible test alone, or is off by one, fails."""
    told = 0
    for task in some(12, kinds=("constant",), seed=5):
        path, line, text = (task.solution[key] for key in ("path", "line", "text"))
        code, _, comment = text.partition("#")
        constant = comment.rstrip().split()[-1]
        if not constant.isdigit() or code.count(constant) != 1:
            continue
        for other in {str(int(constant) + 1), str(int(constant) - 1)} - {"1", "0", "10"}:
            lines = task.data["files"][path].split("\n")
            lines[line - 1] = code.replace(constant, other)
            wrong = {**task.data["files"], path: "\n".join(lines)}
            assert failures(run_tests(sandbox, wrong, task.answer["tests"])), (task.prompt, lines[line - 1])
            told += 1
    assert told > 8


def test_difficulty_is_how_much_there_is_to_read() -> None:
    sizes = [sum(len(task.prompt) for task in some(difficulty=d)) for d in (0.0, 0.5, 1.0)]
    assert sizes == sorted(sizes) and sizes[0] * 2 < sizes[2]
    assert all(len(task.data["files"]) == 1 for task in some(difficulty=0.0))
    assert all(len(task.data["files"]) == 2 for task in some(difficulty=0.5))
    linked = [task for task in some(difficulty=0.8) if "import" in task.prompt]
    assert len(linked) > 20
    elsewhere = [t for t in linked if f"{t.data['tests']['calls'][0]['module']}.py" != t.solution["path"]]
    assert elsewhere  # the failing test is of a function that calls the faulty one


def test_prompts_of_the_usual_difficulty_are_short() -> None:
    assert max(len(task.prompt) for task in some(200)) < 260


# ---------------------------------------------------------------------------------------------- streams and sets


def test_the_same_seed_gives_the_same_bugs_however_they_are_asked_for() -> None:
    one, other = BugGenerator(seed=4), BugGenerator(seed=4)
    assert one.generate(2) + one.generate(3) == other.generate(5)
    assert some(5, seed=4) != some(5, seed=5)


def test_tasks_are_json() -> None:
    for task in some(20, 0.8):
        assert Task.from_dict(json.loads(json.dumps(task.to_dict()))) == task


def test_all_kinds_alike_unless_weighed() -> None:
    counts = Counter(task.kind for task in some(600))
    assert set(counts) == set(KINDS) and min(counts.values()) > 60
    weighed = BugGenerator((0.5, 0.5), 0, ("index", "order"), (3, 1)).generate(200)
    counts = Counter(task.kind for task in weighed)
    assert set(counts) == {"index", "order"} and counts["index"] > 2 * counts["order"]
    with pytest.raises(ConfigError, match="did you mean 'index'"):
        BugGenerator(kinds=("indx",))


def test_sets_share_no_bug_not_even_under_other_names() -> None:
    train, test = disjoint(BugGenerator((0.5, 0.5)), (400, 100))
    assert not {fingerprint(task) for task in train} & {fingerprint(task) for task in test}
    assert not {_nameless(task) for task in train} & {_nameless(task) for task in test}


def _nameless(task: Task) -> tuple[str, ...]:
    """The faulty function and its fix without its name."""
    lines = task.data["files"][task.solution["path"]].split("\n")
    start = max(i for i in range(task.solution["line"]) if lines[i].startswith("def"))
    end = next(i for i in range(start + 1, len(lines)) if not lines[i].startswith(" "))
    return (lines[start].partition("(")[2], *lines[start + 1 : end], task.solution["text"])


def test_the_registry_of_generators_knows_it() -> None:
    assert GENERATORS["bugs"] is BugGenerator
