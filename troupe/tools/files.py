"""A working copy of a file tree, held in memory, and the tools that agents use on it.

    workspace = Workspace({"a.py": "def f(x):\\n return x-2\\n"}, tests, sandbox=sandbox)
    workspace["read"](path="a.py")                             # "1 def f(x):\\n2  return x-2"
    workspace["edit"](path="a.py", line=2, text=" return x+2")
    await workspace["run"]()                                   # "ok", or "f(4) is 2, not 6"
    workspace.patch()                                          # what was changed, as a unified diff

Nothing of it touches the disk. What runs, runs in the sandbox on a copy, with the tests that the task shows.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Mapping, Sequence
from typing import Any

from troupe.sandbox.cases import Runs
from troupe.sandbox.patches import PatchError, Tree, apply_patch, make_patch, safe_path
from troupe.sandbox.trials import failures, run_file, run_tests

__all__ = ["EditFile", "ReadFile", "RunFiles", "SearchFiles", "Workspace", "apply_patch"]

SHOWN_LINES = 200
"""Lines that one answer shows at most."""


class Workspace(Mapping[str, Any]):
    """A tree that tools change. As a mapping it holds those tools by name: read, search, edit, run.

    `tests` are visible tests as `troupe.sandbox.trials` has them; without any, `run` says so. Raises PatchError for
    a path that leaves the tree.
    """

    def __init__(self, files: Tree, tests: Mapping[str, Any] | None = None, *, sandbox: Runs) -> None:
        self.original: Tree = {safe_path(path): text for path, text in files.items()}
        self.files: dict[str, str] = dict(self.original)
        self.tests = tests
        self.sandbox = sandbox
        made = (ReadFile(self), SearchFiles(self), EditFile(self), RunFiles(self))
        self._tools: dict[str, Any] = {tool.name: tool for tool in made}

    def __getitem__(self, name: str) -> Any:
        return self._tools[name]

    def __iter__(self) -> Any:
        return iter(self._tools)

    def __len__(self) -> int:
        return len(self._tools)

    def apply(self, patch: str) -> None:
        """Applies a patch to the files as they are now. Raises PatchError and changes nothing where it does not fit."""
        self.files = apply_patch(self.files, patch)

    def patch(self) -> str:
        """All changes so far, as a unified diff; empty where there is none."""
        return make_patch(self.original, self.files)

    def check(self) -> str:
        """`ok` where the visible tests pass, else what the first failing one says."""
        if not self.tests:
            return "error: this task shows no test"
        failed = failures(run_tests(self.sandbox, self.files, self.tests))
        return failed[0].message if failed else "ok"


class _FileTool:
    """What the tools have in common: the workspace, and a schema of named arguments."""

    name = ""
    description = ""
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}

    def __init__(self, workspace: Workspace) -> None:
        self.workspace = workspace


class ReadFile(_FileTool):
    """Numbered lines of a file, or the paths of a folder."""

    name = "read"
    description = "Shows the numbered lines of a file; without a path, or with a folder's, the paths below it."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "path": {"type": "string", "description": "a path such as src/a.py"},
            "start": {"type": "integer", "description": "first line, from 1"},
            "end": {"type": "integer", "description": "last line"},
        },
    }

    def __call__(self, path: str = "", start: int = 1, end: int | None = None) -> str:
        files = self.workspace.files
        if not isinstance(path, str) or path not in files:
            return _listing(files, path)
        lines = files[path].split("\n")
        lines = lines[:-1] if lines[-1] == "" else lines
        if not _is_line(start) or not (end is None or _is_line(end)):
            return "error: start and end must be line numbers, counted from 1"
        last = min(len(lines), end or len(lines), start + SHOWN_LINES - 1)
        shown = [f"{number} {lines[number - 1]}" for number in range(start, last + 1)]
        if not shown:
            return f"error: {path} has {len(lines)} lines"
        rest = len(lines) - last if end is None else 0
        return "\n".join([*shown, f"({rest} more lines)"] if rest else shown)


class SearchFiles(_FileTool):
    """Lines that hold a text, in all files."""

    name = "search"
    description = "Finds the lines that hold a text, as path:line: text; `path` narrows it to a file or folder."
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {"text": {"type": "string"}, "path": {"type": "string"}},
        "required": ["text"],
    }

    def __call__(self, text: str, path: str = "") -> str:
        if not isinstance(text, str) or not text.strip() or not isinstance(path, str):
            return "error: 'text' must be the words to look for, and 'path' a file or folder"
        found = [
            f"{name}:{number}: {line.strip()}"
            for name, content in sorted(self.workspace.files.items())
            if name == path or name.startswith(_folder(path))
            for number, line in enumerate(content.split("\n"), start=1)
            if text in line
        ]
        if not found:
            return "nothing found"
        rest = len(found) - SHOWN_LINES
        return "\n".join([*found[:SHOWN_LINES], f"({rest} more lines)"] if rest > 0 else found)


class EditFile(_FileTool):
    """Replaces lines of a file."""

    name = "edit"
    description = (
        "Replaces the lines from `line` to `end` (default: that one line) with `text`; empty text deletes them. "
        "A line after the last one appends, and a new path makes a file."
    )
    parameters: Mapping[str, Any] = {
        "type": "object",
        "properties": {
            "path": {"type": "string"},
            "line": {"type": "integer", "description": "first line to replace, from 1"},
            "text": {"type": "string", "description": "what stands there instead, indentation included"},
            "end": {"type": "integer", "description": "last line to replace"},
        },
        "required": ["path", "line", "text"],
    }

    def __call__(self, path: str, line: int, text: str, end: int | None = None) -> str:
        files = self.workspace.files
        try:
            safe_path(path if _is_text(path) else "")
        except PatchError:
            return f"error: the path {str(path)[:80]!r} does not name a file inside of the tree"
        lines = files.get(path, "").split("\n")
        if lines[-1] == "":
            lines.pop()
        last = line if end is None else end
        if not (_is_line(line) and _is_line(last) and _is_text(text)):
            return "error: line and end must be line numbers, counted from 1, and text a string"
        if not line <= len(lines) + 1 or last < line:
            return f"error: {path} has {len(lines)} lines; write a line from 1 to {len(lines) + 1}"
        lines[line - 1 : last] = text.removesuffix("\n").split("\n") if text else []
        self.workspace.files[path] = "\n".join(lines) + "\n" if lines else ""
        return "ok"


class RunFiles(_FileTool):
    """Runs the visible tests, or a file, in the sandbox."""

    name = "run"
    description = "Runs the task's visible tests; with a path, that Python file, and shows what it prints."
    parameters: Mapping[str, Any] = {"type": "object", "properties": {"path": {"type": "string"}}}

    def __call__(self, path: str = "") -> Awaitable[str]:
        return asyncio.to_thread(self._run, path)

    def _run(self, path: str) -> str:
        workspace = self.workspace
        if not path:
            return workspace.check()
        if not isinstance(path, str) or path not in workspace.files:
            return _listing(workspace.files, path)
        ran = run_file(workspace.sandbox, workspace.files, path)
        output = re.sub(r"\n+\Z", "", ran.stdout + ran.stderr)[-4000:]
        return f"{ran.status}\n{output}" if output else str(ran.status)


def _listing(files: Tree, path: object) -> str:
    """The paths below a folder, the root by default; an error for a folder that is not there."""
    below = [name for name in sorted(files) if name.startswith(_folder(path))] if isinstance(path, str) else []
    if not below:
        return f"error: there is no {str(path)[:80]!r}; the tree holds {_some(sorted(files))}"
    return "\n".join([*below[:SHOWN_LINES], *([f"({len(below) - SHOWN_LINES} more)"] * (len(below) > SHOWN_LINES))])


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _folder(path: str) -> str:
    return f"{path.strip('/')}/" if path.strip("/.") else ""


def _is_text(text: object) -> bool:
    """A string that a file can hold; JSON can also spell half of a character."""
    return isinstance(text, str) and text == text.encode(errors="replace").decode()


def _is_line(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool) and number >= 1
