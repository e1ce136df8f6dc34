"""Unified diffs: what was made applies, what does not fit changes nothing, and no path leaves the tree."""

from __future__ import annotations

import difflib
import gzip
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.sandbox.patches import PatchError, apply_patch, changed_lines, make_patch, read_patch, safe_path

TEN = "".join(f"{n}\n" for n in range(1, 11))
LINES = st.lists(st.sampled_from(["a", "b", "", " c", "-d", "+e", "@@ -1 +1 @@", "--- x", "\\ z", "f\r", "u\u2028v"]))
TEXTS = st.builds(
    lambda lines, end: "".join(f"{line}\n" for line in lines) + end, LINES, st.sampled_from(["", "", "end"])
)
TREES = st.dictionaries(st.sampled_from(["a.py", "b/c.py", "d e.txt"]), TEXTS, max_size=3)


def hunk(old: str, new: str, at: int = 5, path: str = "a.py") -> str:
    """A patch that replaces one line of `TEN`."""
    return f"--- a/{path}\n+++ b/{path}\n@@ -{at},1 +{at},1 @@\n-{old}\n+{new}\n"


# ---------------------------------------------------------------------------------------------- applying


@given(TREES, TREES, st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_what_was_made_leads_from_one_tree_to_the_other(before: dict[str, str], after: dict[str, str], n: int) -> None:
    patch = make_patch(before, after, context=n)
    if before == after:
        assert patch == ""
    else:
        kept = dict(before)
        assert apply_patch(before, patch) == after and before == kept


@given(TEXTS, TEXTS, st.integers(0, 4))
@settings(max_examples=300, deadline=None)
def test_patches_of_difflib_apply(old: str, new: str, n: int) -> None:
    """difflib cannot say that a last line has no end, so both texts are given one; it knows other line ends as well."""
    old, new = (text + "\n" if text and not text.endswith("\n") else text for text in (old, new))
    pair = [[part + "\n" for part in text.split("\n")[:-1]] for text in (old, new)]
    patch = "".join(difflib.unified_diff(*pair, "a/a.py", "b/a.py", n=n))
    if old != new:
        assert apply_patch({"a.py": old}, patch) == {"a.py": new}


@given(TEXTS, TEXTS, TEXTS)
@settings(max_examples=300, deadline=None)
def test_on_another_text_a_patch_fails_or_does_just_what_it_says(old: str, new: str, other: str) -> None:
    patch = make_patch({"a.py": old}, {"a.py": new})
    if not patch:
        return
    try:
        changed = apply_patch({"a.py": other}, patch)["a.py"]
    except PatchError:
        return
    assert apply_patch({"a.py": changed}, make_patch({"a.py": changed}, {"a.py": other}))["a.py"] == other
    removed = [line for part in read_patch(patch) for h in part.hunks for line in h.old]
    assert all(line in other for line in removed)


@pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")
@given(before=TREES, after=TREES)
@settings(max_examples=15, deadline=None)
def test_git_agrees(tmp_path_factory: pytest.TempPathFactory, before: dict[str, str], after: dict[str, str]) -> None:
    folder = tmp_path_factory.mktemp("tree")
    patch = make_patch(before, after)
    for path, text in before.items():
        (folder / path).parent.mkdir(exist_ok=True)
        (folder / path).write_bytes(text.encode())
    if not patch:
        return
    ran = subprocess.run(
        ["git", "apply", "--whitespace=nowarn", "-"], input=patch.encode(), cwd=folder, capture_output=True, text=False
    )
    assert ran.returncode == 0, ran.stderr
    found = {str(p.relative_to(folder)): p.read_bytes().decode() for p in folder.rglob("*") if p.is_file()}
    assert found == after


def test_several_hunks_and_files() -> None:
    before = {"a.py": TEN, "b.py": "x\n", "c.py": "gone\n"}
    after = {"a.py": TEN.replace("2\n", "two\n").replace("9\n", ""), "b.py": "x\ny\n", "d.py": "new\n"}
    assert apply_patch(before, make_patch(before, after, context=1)) == after


def test_a_blank_context_line_may_have_lost_its_space() -> None:
    patch = "--- a/a.py\n+++ b/a.py\n@@ -1,3 +1,3 @@\n x\n\n-y\n+z\n"
    assert apply_patch({"a.py": "x\n\ny\n"}, patch) == {"a.py": "x\n\nz\n"}


def test_names_may_stand_without_prefix_and_with_a_date() -> None:
    patch = hunk("5", "five").replace("a/a.py", "a.py\t2026-01-31 10:00:00").replace("b/a.py", "a.py")
    assert apply_patch({"a.py": TEN}, patch)["a.py"] == TEN.replace("5", "five")


# ---------------------------------------------------------------------------------------------- refusing


@pytest.mark.parametrize(
    ("patch", "why"),
    [
        ("", "the patch changes no file"),
        ("please change line 5", "line 1 is not part of a patch: 'please change line 5'"),
        (hunk("6", "six"), "hunk 1 of a.py does not match: line 5 is '5', not '6'"),
        (hunk("5", "five", at=6), "hunk 1 of a.py does not match: line 6 is '6', not '5'"),  # no offset
        (hunk("5 ", "five"), "hunk 1 of a.py does not match: line 5 is '5', not '5 '"),  # no fuzz
        (hunk("11", "x", at=11), "hunk 1 of a.py needs line 11, the file has 10"),
        (hunk("5", "five", path="b.py"), "the patch changes b.py, which does not exist"),
        ("--- a/a.py\n+++ b/a.py\n", "the section of a.py has no hunk"),
        ("--- a/a.py\n@@ -1 +1 @@\n", "must begin with '+++' and a path"),
        ("--- a/a.py\n+++ b/b.py\n", "renames are not supported: a.py to b.py"),
        ("diff --git a/a.py b/c.py\n", "renames are not supported"),
        ("diff --git a/a.py b/a.py\nindex 1..2\n", "the section of a.py changes no line"),
        ("--- /dev/null\n+++ b/a.py\n@@ -0,0 +1 @@\n+x\n", "the patch creates a.py, which exists"),
        ("--- a/a.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-1\n", "the patch deletes a.py but leaves 9 of its lines"),
        ("--- /dev/null\n+++ /dev/null\n", "a patch cannot lead from /dev/null to /dev/null"),
        ("--- a/a.py\n+++ b/a.py\n@@ -5 @@\n", "a hunk begins like '@@ -3,7 +3,8 @@'"),
        (f"--- a/a.py\n+++ b/a.py\n@@ -{'9' * 5000} +1 @@\n-5\n+five\n", "a hunk begins like '@@ -3,7 +3,8 @@'"),
        ("--- a/a.py\n+++ b/a.py\n@@ -5,2 +5,1 @@\n-5\n+five\n", "says 2 old and 1 new lines and has 1 and 1"),
        ("--- a/a.py\n+++ b/a.py\n@@ -5,0 +5,1 @@\n 5\n", "has more lines than it says"),
        (hunk("5", "five") + hunk("6", "six", at=6), "the patch changes a.py in two places"),
        (hunk("5", "x") + "@@ -4 +4 @@\n-4\n+y\n", "hunk 2 of a.py overlaps the hunk before it"),
        ("--- a/a.py\n+++ b/a.py\n@@ -0,1 +0,1 @@\n-1\n+x\n", "has no line to begin at"),
        ("--- a/a.py\n+++ b/a.py\n@@ -12,0 +12 @@\n+x\n", "begins after line 12, the file has 10"),
        (hunk("5", "five") + "\\ No newline at end of file\n", "leaves a line of a.py without its end"),
        ("GIT binary patch\nliteral 3\n", "line 1 is not part of a patch"),
    ],
)
def test_a_patch_that_does_not_fit_says_why_in_one_line(patch: str, why: str) -> None:
    with pytest.raises(PatchError) as refused:
        apply_patch({"a.py": TEN}, patch)
    assert why in str(refused.value) and "\n" not in str(refused.value)


@pytest.mark.parametrize("path", ["b.py ", " b.py", "b.py\u2028"])
def test_a_name_has_no_blanks_at_its_ends(path: str) -> None:
    """The headers of a patch lose them: a file of that name could be made, but never patched."""
    with pytest.raises(PatchError, match="does not name a file inside of the tree"):
        safe_path(path)


@pytest.mark.parametrize(
    "path",
    [
        "../a.py",
        "/etc/passwd",
        "b/../../a.py",
        "b/../a.py",
        "./a.py",
        "b//c.py",
        "b/",
        "..",
        ".",
        "~/a.py",
        "b\\c.py",
        "",
    ],
)
def test_paths_cannot_leave_the_tree(path: str) -> None:
    with pytest.raises(PatchError, match="does not name a file inside of the tree"):
        safe_path(path)
    for patch in (hunk("5", "five", path=path), f"--- /dev/null\n+++ b/{path}\n@@ -0,0 +1 @@\n+x\n"):
        with pytest.raises(PatchError):
            apply_patch({"a.py": TEN, path: TEN}, patch)


# ---------------------------------------------------------------------------------------------- reading


def test_changed_lines_are_those_of_the_old_text() -> None:
    before = {"a.py": TEN, "b.py": "x\ny\n", "c.py": "gone\n"}
    after = {"a.py": TEN.replace("2\n", "two\n").replace("7\n", "7\nseven and a half\n"), "b.py": "new\nx\ny\n"}
    found = changed_lines(make_patch(before, after))
    assert found == {("a.py", 2), ("a.py", 7), ("a.py", 8), ("b.py", 1), ("c.py", 1)}


def test_lines_that_stand_for_others_are_no_insertion() -> None:
    before, after = {"a.py": TEN}, {"a.py": TEN.replace("4\n5\n", "four\nfour and a half\nfive\n")}
    assert changed_lines(make_patch(before, after)) == {("a.py", 4), ("a.py", 5)}


def test_every_patch_of_swe_bench_can_be_read() -> None:
    if "TROUPE_DATA" not in os.environ:
        pytest.skip("TROUPE_DATA does not name the folder of data sets")
    path = Path(os.environ["TROUPE_DATA"]) / "swebench_lite" / "dev_part.jsonl.gz"
    with gzip.open(path, "rt", encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    for row in rows:
        for key in ("patch", "test_patch"):
            assert all(part.hunks for part in read_patch(row[key])) and changed_lines(row[key])
    assert len(rows) == 200
