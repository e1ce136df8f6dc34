"""Unified diffs over a tree of files held in memory: applied strictly, made, and read.

A tree maps relative paths to texts. What tools, rewards and workflows all need stands below all of them.

    >>> before = {"a.py": "def f(x):\\n return x-1\\n"}
    >>> patch = make_patch(before, {"a.py": "def f(x):\\n return x+1\\n"})
    >>> apply_patch(before, patch)["a.py"]
    'def f(x):\\n return x+1\\n'
    >>> changed_lines(patch)
    {('a.py', 2)}

The format is that of GNU diff (https://www.gnu.org/software/diffutils/manual/html_node/Detailed-Unified.html) with the
headers of git for files that come and go. Strict means fuzz 0 and offset 0: every context and removed line must stand
exactly where the hunk says, or nothing is changed.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath

__all__ = ["FilePatch", "PatchError", "Tree", "apply_patch", "changed_lines", "make_patch", "read_patch", "safe_path"]

Tree = Mapping[str, str]
"""Relative path -> text."""

_HUNK = re.compile(r"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@")
_MODE = re.compile(r"(old|new|new file|deleted file) mode \d+")
_NO_NEWLINE = "\\ No newline at end of file"
_NOWHERE = "/dev/null"


class PatchError(ValueError):
    """A text that is no patch, or one that does not fit the tree. Its message is one line and fits a tool's answer."""


@dataclass(slots=True)
class _Hunk:
    start: int  # first line of the old text, counted from 1; 0 where the old text is empty
    old: list[str] = field(default_factory=list)  # with their line ends
    new: list[str] = field(default_factory=list)
    marks: list[str] = field(default_factory=list)  # ' ', '-' or '+', one per line of the hunk


@dataclass(slots=True)
class FilePatch:
    """What a patch does to one file. `creates` and `deletes` are never both true."""

    path: str
    creates: bool = False
    deletes: bool = False
    hunks: list[_Hunk] = field(default_factory=list)


def apply_patch(tree: Tree, patch: str) -> dict[str, str]:
    """The tree after the patch; `tree` itself is not changed.

    Raises PatchError where the patch cannot be read, its context does not match, a path is not in the tree or would
    leave it.
    """
    changed = dict(tree)
    for part in read_patch(patch):
        if part.creates:
            if part.path in changed:
                raise PatchError(f"the patch creates {part.path}, which exists")
            changed[part.path] = ""
        elif part.path not in changed:
            raise PatchError(f"the patch changes {part.path}, which does not exist")
        text = _applied(part, changed[part.path])
        if part.deletes:
            if text:
                raise PatchError(f"the patch deletes {part.path} but leaves {len(_lines(text))} of its lines")
            del changed[part.path]
        else:
            changed[part.path] = text
    return changed


def _applied(part: FilePatch, text: str) -> str:
    lines, out, at = _lines(text), [], 0
    for number, hunk in enumerate(part.hunks, start=1):
        where = f"hunk {number} of {part.path}"
        start = hunk.start - 1 if hunk.old else hunk.start  # an insertion names the line that it follows
        if start < at or (hunk.old and hunk.start == 0):
            raise PatchError(f"{where} overlaps the hunk before it or has no line to begin at")
        for i, expected in enumerate(hunk.old, start=start):
            if i >= len(lines):
                raise PatchError(f"{where} needs line {i + 1}, the file has {len(lines)}")
            if lines[i] != expected:
                raise PatchError(f"{where} does not match: line {i + 1} is {_short(lines[i])}, not {_short(expected)}")
        if start > len(lines):
            raise PatchError(f"{where} begins after line {start}, the file has {len(lines)}")
        out += lines[at:start] + hunk.new
        at = start + len(hunk.old)
    out += lines[at:]
    if any(not line.endswith("\n") for line in out[:-1]):
        raise PatchError(f"the patch leaves a line of {part.path} without its end before another line")
    return "".join(out)


def make_patch(before: Tree, after: Tree, context: int = 3) -> str:
    """A patch that `apply_patch` takes from `before` to `after`; empty where they are equal."""
    out: list[str] = []
    for path in sorted({*before, *after}):
        old, new = before.get(path), after.get(path)
        if old == new:
            continue
        out.append(f"diff --git a/{path} b/{path}\n")
        out += [f"{mode} mode 100644\n" for mode, side in (("new file", old), ("deleted file", new)) if side is None]
        names = (_NOWHERE if old is None else f"a/{path}", _NOWHERE if new is None else f"b/{path}")
        for line in difflib.unified_diff(_lines(old or ""), _lines(new or ""), *names, n=context):
            out.append(line if line.endswith("\n") else f"{line}\n{_NO_NEWLINE}\n")
    return "".join(out)


def changed_lines(patch: str) -> set[tuple[str, int]]:
    """(path, line of the old text) wherever the patch removes or replaces a line.

    A pure insertion stands for the line that it follows and the one that it precedes. Raises PatchError as
    `read_patch` does.
    """
    found: set[tuple[str, int]] = set()
    for part in read_patch(patch):
        for hunk in part.hunks:
            line = hunk.start if hunk.old else hunk.start + 1
            for i, mark in enumerate(hunk.marks):
                if mark == "-":
                    found.add((part.path, line))
                if mark == "+" and "-" not in _run(hunk.marks, i):
                    found |= {(part.path, n) for n in (line - 1, line) if n > 0}
                line += mark != "+"
    return found


def _run(marks: Sequence[str], i: int) -> Sequence[str]:
    """The marks around position i up to the nearest context lines."""
    first = max((j + 1 for j in range(i) if marks[j] == " "), default=0)
    last = next((j for j in range(i, len(marks)) if marks[j] == " "), len(marks))
    return marks[first:last]


# ---------------------------------------------------------------------------------------------- reading


def read_patch(patch: str) -> list[FilePatch]:
    """The files that a patch changes. Raises PatchError, with the patch's own line number, for what is no patch."""
    parts = list(_Reader(patch).files())
    if not parts:
        raise PatchError("the patch changes no file")
    for i, part in enumerate(parts):
        if part.path in {earlier.path for earlier in parts[:i]}:
            raise PatchError(f"the patch changes {part.path} in two places; give each file one section")
    return parts


def safe_path(path: str) -> str:
    """The path, if it stays inside of the tree. Raises PatchError for one that does not, or that two spellings have."""
    pure = PurePosixPath(path)
    inside = path and not pure.is_absolute() and ".." not in pure.parts and str(pure) == path and path != "."
    inside = inside and path == path.strip()  # the headers of a patch do not keep blanks at the end
    if not inside or any(c in path for c in "\\\0\n\r\t:") or path.startswith("~"):
        raise PatchError(f"the path {path[:80]!r} does not name a file inside of the tree")
    return path


class _Reader:
    """Reads a patch line by line."""

    def __init__(self, patch: str) -> None:
        self.lines = patch.removesuffix("\n").split("\n") if patch.strip() else []
        self.at = 0

    def files(self) -> Iterator[FilePatch]:
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if line.startswith("diff --git "):
                yield self._git()
            elif line.startswith("--- "):
                part = self._section(FilePatch(""))
                if not part.hunks:
                    raise PatchError(f"line {self.at}: the section of {part.path} has no hunk")
                yield part
            elif line.strip():
                raise PatchError(f"line {self.at + 1} is not part of a patch: {line[:60]!r}")
            else:
                self.at += 1

    def _git(self) -> FilePatch:
        head = self.lines[self.at]
        match = re.fullmatch(r"diff --git a/(.+) b/\1", head)
        if match is None:
            raise PatchError(f"line {self.at + 1}: renames are not supported: {head[:80]!r}")
        part = FilePatch(safe_path(match[1]))
        self.at += 1
        while self.at < len(self.lines):
            line = self.lines[self.at]
            if mode := _MODE.fullmatch(line):
                part.creates |= mode[1] == "new file"
                part.deletes |= mode[1] == "deleted file"
            elif not line.startswith("index "):
                break
            self.at += 1
        if self.at < len(self.lines) and self.lines[self.at].startswith("--- "):
            return self._section(part)
        if not part.creates and not part.deletes:
            raise PatchError(f"the section of {part.path} changes no line")
        return part

    def _section(self, part: FilePatch) -> FilePatch:
        old = self._name("--- ", "a/")
        new = self._name("+++ ", "b/")
        if old is None and new is None:
            raise PatchError(f"line {self.at}: a patch cannot lead from {_NOWHERE} to {_NOWHERE}")
        if None not in (old, new) and old != new:
            raise PatchError(f"line {self.at}: renames are not supported: {old} to {new}")
        path = safe_path(str(old if new is None else new))
        if part.path and part.path != path:
            raise PatchError(f"line {self.at}: the section of {part.path} names {path}")
        part.path, part.creates, part.deletes = path, old is None, new is None
        while self.at < len(self.lines) and self.lines[self.at].startswith("@@"):
            part.hunks.append(self._hunk())
        return part

    def _name(self, mark: str, prefix: str) -> str | None:
        line = self.lines[self.at] if self.at < len(self.lines) else ""
        if not line.startswith(mark):
            raise PatchError(f"line {self.at + 1} must begin with {mark.strip()!r} and a path, found {line[:60]!r}")
        self.at += 1
        name = line[len(mark) :].split("\t")[0].rstrip()
        return None if name == _NOWHERE else name.removeprefix(prefix)

    def _hunk(self) -> _Hunk:
        match = _HUNK.match(self.lines[self.at])
        if match is None:
            raise PatchError(
                f"line {self.at + 1}: a hunk begins like '@@ -3,7 +3,8 @@', found {self.lines[self.at][:60]!r}"
            )
        head = self.at + 1
        self.at += 1
        sizes = [int(match[2] or 1), int(match[4] or 1)]
        hunk = _Hunk(int(match[1]))
        while (len(hunk.old), len(hunk.new)) != tuple(sizes):
            line = self.lines[self.at] if self.at < len(self.lines) else None
            if line is None or (line and line[0] not in " +-"):
                raise PatchError(
                    f"the hunk at line {head} says {sizes[0]} old and {sizes[1]} new lines and has "
                    f"{len(hunk.old)} and {len(hunk.new)}"
                )
            mark, text = (line or " ")[0], line[1:] + "\n"  # an empty line is context whose blank was trimmed
            hunk.marks.append(mark)
            if mark in " -":
                hunk.old.append(text)
            if mark in " +":
                hunk.new.append(text)
            if len(hunk.old) > sizes[0] or len(hunk.new) > sizes[1]:
                raise PatchError(f"the hunk at line {head} has more lines than it says")
            self.at += 1
            self._no_newline(hunk)
        return hunk

    def _no_newline(self, hunk: _Hunk) -> None:
        if self.at < len(self.lines) and self.lines[self.at] == _NO_NEWLINE:
            mark = hunk.marks[-1]
            for side in ([hunk.old] if mark in " -" else []) + ([hunk.new] if mark in " +" else []):
                side[-1] = side[-1].removesuffix("\n")
            self.at += 1


def _lines(text: str) -> list[str]:
    """Lines with their ends. Only a line feed ends a line: a form feed or U+2028 inside of one does not."""
    parts = text.split("\n")
    return [part + "\n" for part in parts[:-1]] + ([parts[-1]] if parts[-1] else [])


def _short(line: str) -> str:
    return repr(line.rstrip("\n")[:60]) + ("" if line.endswith("\n") else " without a line end")
