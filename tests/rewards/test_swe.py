"""Pay for patches: the reference fix gets all of it, and no trick gets any."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.episode import Task
from troupe.errors import DataError
from troupe.rewards import REWARDS
from troupe.rewards.swe import locates, swe_reward_fn
from troupe.sandbox.patches import make_patch
from troupe.tasks.bugs import BugGenerator

FILES = {
    "a.py": "def f(x):\n return x*3-2\n",
    "b.py": "from a import f\ndef g(x):\n return f(x)+1\n",
    "tests/test_a.py": "from a import f\ndef test_f():\n assert f(4) == 14\n",
}
CALLS = [{"module": "a", "function": "f", "args": [x], "value": 3 * x + 2} for x in (4, 0, 7)]
CALLS += [{"module": "b", "function": "g", "args": [1], "value": 6}]
MODULE = "from a import f\ndef test_f():\n assert f(4) == 14\ndef test_zero():\n assert f(0) == 2\n"
NAMES = ["tests/test_a.py::test_f", "tests/test_a.py::test_zero"]
TASK = Task(
    id="t",
    kind="bug",
    prompt="f(4) is 10, not 14",
    data={"files": FILES, "tests": {"calls": CALLS[:1]}},
    answer={"tests": {"calls": CALLS}, "fault": [["a.py", 2]]},
)
IN_MODULES = replace(TASK, answer={**TASK.answer, "tests": {"modules": {"tests/test_a.py": MODULE}, "names": NAMES}})


@pytest.fixture
def pay(sandbox: Any) -> Any:  # noqa: F811
    def judged(changed: Mapping[str, str | None] | str | None, task: Task = TASK) -> Any:
        if isinstance(changed, Mapping):
            after = {path: text for path, text in {**FILES, **changed}.items() if text is not None}
            changed = make_patch(FILES, after)
        return swe_reward_fn(task, changed, sandbox=sandbox)

    return judged


def a(body: str) -> dict[str, str | None]:
    """The tree with another module `a`."""
    return {"a.py": body}


@pytest.mark.parametrize("task", [TASK, IN_MODULES])
@pytest.mark.parametrize(
    "changed",
    [
        a("def f(x):\n return x*3+2\n"),
        a("def f(x):\n print('working')\n y = x*3\n return 2 + y\n"),
        {"a.py": "from c import two\ndef f(x):\n return x*3+two\n", "c.py": "two = 2\n"},
    ],
)
def test_a_right_patch_is_paid(pay: Any, task: Task, changed: Any) -> None:
    reward = pay(changed, task)
    assert (reward.reward, reward.is_correct) == (1.0, True)
    assert reward.metadata == {"applies": True, "passed": (n := 4 if task is TASK else 2), "total": n}


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        (None, "there is no patch"),
        ("  \n", "there is no patch"),
        ("return x*3+2", "line 1 is not part of a patch"),
        ("--- a/a.py\n+++ b/a.py\n@@ -3 +3 @@\n- return x*3-2\n+ return x*3+2\n", "hunk 1 of a.py needs line 3"),
        ("--- a/../a.py\n+++ b/../a.py\n@@ -2 +2 @@\n- return x*3-2\n+ return x*3+2\n", "does not name a file inside"),
    ],
)
def test_a_patch_that_does_not_apply_is_paid_nothing_and_says_why(pay: Any, patch: str | None, why: str) -> None:
    reward = pay(patch)
    assert (reward.reward, reward.is_correct) == (0.0, False) and not reward.metadata["applies"]
    assert why in reward.metadata["error"]


def test_code_below_a_folder_of_tests_may_be_repaired_where_the_fault_is_there(pay: Any) -> None:
    """Some projects keep code below `test/`. What is no part of the reference fix stays closed."""
    files = {"pack/test/client.py": "def f(x):\n return x-2\n", "pack/test/other.py": "y = 1\n"}
    call = {"module": "pack.test.client", "function": "f", "args": [4], "value": 6}
    answer = {"tests": {"calls": [call]}, "fault": [["pack/test/client.py", 2]]}
    task = replace(TASK, data={"files": files}, answer=answer)
    fixed = {**files, "pack/test/client.py": "def f(x):\n return x+2\n"}
    assert pay(make_patch(files, fixed), task).reward == 1.0
    assert pay(make_patch(files, {**fixed, "pack/test/other.py": "y = 2\n"}), task).reward == 0.0


def test_a_wrong_patch_is_paid_nothing_and_says_how_far_it_came(pay: Any) -> None:
    reward = pay(a("def f(x):\n return 14 if x == 4 else x*3-2\n"))  # answers the visible test, and that alone
    assert (reward.reward, reward.is_correct) == (0.0, False)
    assert reward.metadata == {"applies": True, "passed": 1, "total": 4}


TRICKS: dict[str, dict[str, str | None]] = {
    "answers the visible test": a("def f(x):\n return {4: 14}[x]\n"),
    "breaks a neighbour": {**a("def f(x):\n return x*3+2\n"), "b.py": "def g(x):\n return 0\n"},
    "exits": a("import os\nos._exit(0)\n"),
    "exits politely": a("import sys\nsys.exit(0)\n"),
    "exits when called": a("import os\ndef f(x):\n os._exit(0)\n"),
    "prints success": a("print('ok')\nprint('4 passed')\ndef f(x):\n return 0\n"),
    "patches unittest": a("import unittest\nunittest.TestCase.run = lambda *a: None\ndef f(x):\n return 0\n"),
    "patches builtins": a("import builtins\nbuiltins.getattr = lambda *a: (lambda: 0)\ndef f(x):\n return 0\n"),
    "equals everything": a("class A(int):\n def __eq__(self, other):\n  return True\ndef f(x):\n return A(0)\n"),
    "edits the tests": {"tests/test_a.py": "def test_f():\n pass\n"},
    "deletes the tests": {"tests/test_a.py": None},
    "adds a conftest": {"conftest.py": "import os\nos._exit(0)\n"},
    "repairs, but edits the tests": {**a("def f(x):\n return x*3+2\n"), "tests/test_a.py": "def test_f():\n pass\n"},
    "shadows the harness": {"json.py": "def dumps(*a):\n return '14'\n", "inspect.py": "x = 1\n"},
    "deletes the module": {"a.py": None},
}


@pytest.mark.parametrize("trick", TRICKS)
def test_no_trick_is_paid_by_calls(pay: Any, trick: str) -> None:
    assert pay(TRICKS[trick]).reward == 0.0


@pytest.mark.parametrize("trick", [name for name in TRICKS if name not in ("equals everything", "breaks a neighbour")])
def test_no_trick_is_paid_by_modules(pay: Any, trick: str) -> None:
    """Assertions beside the code cannot tell an object that claims to equal everything: calls are for that."""
    assert pay(TRICKS[trick], IN_MODULES).reward == 0.0


def test_the_best_wrong_answer_stays_below_the_plainest_right_one(pay: Any) -> None:
    wrong = max(pay(changed).reward for changed in TRICKS.values())
    assert wrong < pay(a("def f(x):\n return x*3+2\n")).reward


def test_generated_bugs_pay_their_fix_and_nothing_else(sandbox: Any) -> None:  # noqa: F811
    first, second = BugGenerator((0.5, 0.5), 7).generate(2)
    assert swe_reward_fn(first, first.solution["patch"], sandbox=sandbox).reward == 1.0
    assert swe_reward_fn(first, second.solution["patch"], sandbox=sandbox).reward == 0.0
    permuted = replace(first, answer=second.answer)  # the negative control: another task's tests
    assert swe_reward_fn(permuted, first.solution["patch"], sandbox=sandbox).reward == 0.0


def test_without_a_sandbox_one_is_made(sandbox: Any) -> None:  # noqa: F811
    patch = make_patch(FILES, {**FILES, "a.py": "def f(x):\n return x*3+2\n"})
    assert swe_reward_fn(TASK, patch).is_correct and REWARDS["swe"] is swe_reward_fn


# ---------------------------------------------------------------------------------------------- locations and tasks


def test_a_location_is_right_where_the_fix_changes_something() -> None:
    assert locates(TASK, "a.py", 2)
    assert not locates(TASK, "a.py", 1) and not locates(TASK, "b.py", 2) and not locates(TASK, None, None)


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        ({"data": {}}, "task t lacks its files"),
        ({"data": {"repository": "org/repo at 1f0a"}}, "task t lacks a checkout of org/repo at 1f0a"),
        ({"answer": None}, "has no hidden tests"),
        ({"answer": {"fault": [["a.py", 2]]}}, "has no hidden tests"),
        ({"answer": {"tests": {"calls": [{}]}}}, "test call 0 has no 'module'"),
    ],
)
def test_a_task_that_cannot_be_judged_is_an_error(pay: Any, changed: dict[str, Any], why: str) -> None:
    patch = make_patch(FILES, {**FILES, "a.py": ""})
    with pytest.raises(DataError, match=why):
        pay(patch, replace(TASK, **changed))
    if "answer" in changed:
        with pytest.raises(DataError, match="which lines are at fault"):
            locates(replace(TASK, answer=None), "a.py", 2)
