"""Tools over a tree in memory: they show, change and run the working copy, and answer errors in one line."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

import pytest

from tests.sandboxes import sandbox  # noqa: F401  (fixture)
from troupe.sandbox.patches import PatchError, apply_patch
from troupe.tools import files as files_module
from troupe.tools.files import Workspace

FILES = {
    "a.py": "def f(x):\n return x-2\n",
    "src/b.py": "from a import f\n\ndef g(x):\n return f(x)*2\n",
    "src/notes.txt": "f is wrong\n",
}
TESTS = {"calls": [{"module": "a", "function": "f", "args": [4], "value": 6}]}


class NoSandbox:
    """Whoever calls it has run what only reads."""

    def python(self, *args: Any, **kwargs: Any) -> Any:
        raise AssertionError("nothing should run")


def workspace(**changed: Any) -> Workspace:
    return Workspace(**{"files": FILES, "tests": TESTS, "sandbox": NoSandbox(), **changed})


def use(space: Workspace, tool: str, **arguments: Any) -> str:
    answer = space[tool](**arguments)
    return asyncio.run(answer) if tool == "run" else answer


def test_every_tool_describes_itself() -> None:
    space = workspace()
    assert list(space) == ["read", "search", "edit", "run"] and len(space) == 4
    for name, tool in space.items():
        assert tool.name == name and tool.description and tool.parameters["type"] == "object"
        assert all("type" in schema for schema in tool.parameters["properties"].values())


# ---------------------------------------------------------------------------------------------- reading


def test_read() -> None:
    space = workspace()
    assert use(space, "read", path="a.py") == "1 def f(x):\n2  return x-2"
    assert use(space, "read", path="src/b.py", start=3, end=3) == "3 def g(x):"
    assert use(space, "read") == "a.py\nsrc/b.py\nsrc/notes.txt"
    assert use(space, "read", path="src") == "src/b.py\nsrc/notes.txt"


def test_long_files_are_shown_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files_module, "SHOWN_LINES", 3)
    space = workspace(files={"a.py": "".join(f"{n}\n" for n in range(1, 8))})
    assert use(space, "read", path="a.py") == "1 1\n2 2\n3 3\n(4 more lines)"
    assert use(space, "read", path="a.py", start=6) == "6 6\n7 7"
    assert use(space, "read", path="a.py", start=2, end=7) == "2 2\n3 3\n4 4"
    many = workspace(files={f"{n}.py": "x\n" for n in range(5)})
    assert use(many, "read") == "0.py\n1.py\n2.py\n(2 more)"
    assert use(many, "search", text="x").endswith("(2 more lines)")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"path": "c.py"}, "error: there is no 'c.py'; the tree holds a.py, src/b.py, src/notes.txt"),
        ({"path": "../a.py"}, "error: there is no '../a.py'"),
        ({"path": ["a.py"]}, "error: there is no"),
        ({"path": "a.py", "start": 3}, "error: a.py has 2 lines"),
        ({"path": "a.py", "start": 0}, "error: start and end must be line numbers"),
        ({"path": "a.py", "start": "1"}, "error: start and end must be line numbers"),
    ],
)
def test_read_says_what_is_wrong(arguments: Mapping[str, Any], why: str) -> None:
    assert use(workspace(), "read", **arguments).startswith(why)


def test_search() -> None:
    space = workspace()
    assert use(space, "search", text="f(x)") == "a.py:1: def f(x):\nsrc/b.py:4: return f(x)*2"
    assert use(space, "search", text="f", path="src/notes.txt") == "src/notes.txt:1: f is wrong"
    assert use(space, "search", text="return", path="src/") == "src/b.py:4: return f(x)*2"
    assert use(space, "search", text="h(x)") == "nothing found"
    assert use(space, "search", text=" ").startswith("error: 'text' must be")
    assert use(space, "search", text="f", path=3).startswith("error: 'text' must be")


# ---------------------------------------------------------------------------------------------- changing


def test_edits_become_a_patch() -> None:
    space = workspace()
    assert space.patch() == ""
    assert use(space, "edit", path="a.py", line=2, text=" return x+2\n") == "ok"
    assert use(space, "edit", path="src/b.py", line=3, end=4, text="def g(x): return 2*f(x)") == "ok"
    assert use(space, "edit", path="src/b.py", line=2, text="") == "ok"  # deleted
    assert use(space, "edit", path="new.py", line=1, text="y = 1\nz = 2") == "ok"
    assert use(space, "edit", path="new.py", line=3, text="w = 3") == "ok"  # appended
    after = {
        "a.py": "def f(x):\n return x+2\n",
        "src/b.py": "from a import f\ndef g(x): return 2*f(x)\n",
        "src/notes.txt": "f is wrong\n",
        "new.py": "y = 1\nz = 2\nw = 3\n",
    }
    assert space.files == after and apply_patch(FILES, space.patch()) == after
    assert use(space, "read", path="a.py").endswith("return x+2")
    assert FILES["a.py"].endswith("return x-2\n")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        ({"path": "../a.py", "line": 1, "text": ""}, "error: the path '../a.py' does not name a file inside"),
        ({"path": "/etc/hosts", "line": 1, "text": ""}, "error: the path '/etc/hosts' does not name a file inside"),
        ({"path": "b.py ", "line": 1, "text": "x"}, "error: the path 'b.py ' does not name a file inside"),
        ({"path": "b.py\x1f", "line": 1, "text": "x"}, "error: the path 'b.py\\x1f' does not name a file inside"),
        ({"path": "\ud800", "line": 1, "text": "x"}, "error: the path '\\ud800' does not name a file inside"),
        ({"path": 3, "line": 1, "text": "x"}, "error: the path '3' does not name a file inside"),
        ({"path": "a.py", "line": 1, "text": "\ud800"}, "error: line and end must be line numbers"),
        ({"path": "a.py", "line": 4, "text": "x"}, "error: a.py has 2 lines; write a line from 1 to 3"),
        ({"path": "a.py", "line": 2, "end": 1, "text": "x"}, "error: a.py has 2 lines"),
        ({"path": "a.py", "line": 0, "text": "x"}, "error: line and end must be line numbers"),
        ({"path": "a.py", "line": True, "text": "x"}, "error: line and end must be line numbers"),
        ({"path": "a.py", "line": 1, "text": 5}, "error: line and end must be line numbers"),
    ],
)
def test_edit_says_what_is_wrong_and_changes_nothing(arguments: Mapping[str, Any], why: str) -> None:
    space = workspace()
    assert use(space, "edit", **arguments).startswith(why) and space.patch() == ""


def test_a_patch_is_applied_whole_or_not_at_all() -> None:
    space = workspace()
    patch = "--- a/a.py\n+++ b/a.py\n@@ -2 +2 @@\n- return x-2\n+ return x+2\n"
    space.apply(patch)
    assert space.files["a.py"].endswith("x+2\n")
    with pytest.raises(PatchError, match="does not match"):
        space.apply(patch)
    assert space.files["a.py"].endswith("x+2\n")


def test_a_tree_has_no_path_that_leaves_it() -> None:
    with pytest.raises(PatchError):
        workspace(files={"../a.py": ""})


# ---------------------------------------------------------------------------------------------- running


def test_run_shows_the_visible_test_on_the_working_copy(sandbox: Any) -> None:  # noqa: F811
    space = workspace(sandbox=sandbox)
    assert use(space, "run") == "f(4) is 2, not 6"
    use(space, "edit", path="a.py", line=2, text=" return x+2")
    assert use(space, "run") == "ok"
    use(space, "edit", path="a.py", line=2, text=" return x+")
    assert use(space, "run").startswith("f(4): SyntaxError")


def test_run_shows_what_a_file_prints(sandbox: Any) -> None:  # noqa: F811
    space = workspace(
        sandbox=sandbox, files={"a.py": "print('hello')\n", "b.py": "import a\nraise KeyError(1)\n", "c.py": ""}
    )
    assert use(space, "run", path="a.py") == "ok\nhello"
    answer = use(space, "run", path="b.py")
    assert answer.startswith("error\nhello\nTraceback") and answer.endswith("KeyError: 1")
    assert use(space, "run", path="c.py") == "ok"


def test_run_without_anything_to_run() -> None:
    assert use(workspace(tests=None), "run") == "error: this task shows no test"
    assert use(workspace(), "run", path="c.py").startswith("error: there is no 'c.py'")
