"""YAML files: the core schema of YAML 1.2, lines, includes, and files that are broken."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from troupe.config.documents import read
from troupe.config.problems import Problem
from troupe.config.tree import find, plain


def parse(folder: Path, text: str | bytes) -> tuple[Any, list[str]]:
    """Values and problems of a file, its folder left out of them."""
    path = folder / "my.yaml"
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    problems: list[Problem] = []
    values = plain(read(path, problems))
    return values, [str(problem).replace(f"{folder}/", "") for problem in problems]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("2e-5", 2e-5),
        ("1e6", 1e6),
        ("1.", 1.0),
        (".5", 0.5),
        ("-3.25E+2", -325.0),
        ("12", 12),
        ("+12", 12),
        ("010", 10),
        ("0o17", 15),
        ("0xff", 255),
        (".inf", math.inf),
        ("-.INF", -math.inf),
        ("true", True),
        ("False", False),
        ("null", None),
        ("~", None),
        ("", None),
        ("yes", "yes"),
        ("no", "no"),
        ("on", "on"),
        ("off", "off"),
        ("y", "y"),
        ("tRue", "tRue"),
        ("12:30:00", "12:30:00"),
        ("2024-01-31", "2024-01-31"),
        ("1_000", "1_000"),
        ("'12'", "12"),
        ('"true"', "true"),
        ("!!str 12", "12"),
        ("[1, [a, 2.5]]", [1, ["a", 2.5]]),
        ("{a: {b: 1}}", {"a": {"b": 1}}),
        ("|\n  two\n  lines\n", "two\nlines\n"),
    ],
)
def test_scalars_follow_yaml_1_2(tmp_path: Path, text: str, value: Any) -> None:
    values, problems = parse(tmp_path, f"key: {text}")
    assert problems == []
    assert values == {"key": value}
    assert type(values["key"]) is type(value)


def test_nan_is_a_float(tmp_path: Path) -> None:
    values, _ = parse(tmp_path, "key: .nan")
    assert math.isnan(values["key"])


def test_every_node_knows_its_line(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("# top\na:\n  b: 1\n  c:\n    - x\n    - {d: 2}\n")
    tree = read(tmp_path / "my.yaml", [])
    lines = {path: find(tree, tuple(path.split("."))) for path in ("a", "a.b", "a.c", "a.c.0", "a.c.1.d")}
    ends = {path: node.origin.rpartition(":")[2] for path, node in lines.items() if node}
    assert ends == {"a": "2", "a.b": "3", "a.c": "4", "a.c.0": "5", "a.c.1.d": "6"}


@pytest.mark.parametrize("text", ["", "# only a comment\n", "---\n"])
def test_an_empty_file_holds_nothing(tmp_path: Path, text: str) -> None:
    assert parse(tmp_path, text) == ({}, [])


def test_a_byte_order_mark_is_no_part_of_the_first_key(tmp_path: Path) -> None:
    assert parse(tmp_path, b"\xef\xbb\xbfseed: 1") == ({"seed": 1}, [])


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: 2\na: 3\n", "my.yaml:3: a: is given twice, first on line 1; keep one"),
        ("x:\n  a: 1\n  a: 1\n", "my.yaml:3: x.a: is given twice, first on line 2; keep one"),
        ("- 1\n- 2\n", "my.yaml:1: a config file is a mapping such as 'key: value', not a list or a word"),
        ("just words", "my.yaml:1: a config file is a mapping such as 'key: value', not a list or a word"),
        ("a: 1\n? [b]\n: 2\n", "my.yaml:2: a key must be a word, not a list or a mapping"),
        (b"a: 1\nb: \xff\n", "my.yaml:2: is not UTF-8 text; save the file as UTF-8"),
        ("a: &x [*x]", "my.yaml:1: a.0: is an anchor that contains itself"),
        ("a: !!python/name:os.system x", "a: cannot read 'x' as tag:yaml.org,2002:python/name:os.system"),
        ("a: !!int x", "my.yaml:1: a: cannot read 'x' as tag:yaml.org,2002:int"),
        ("a: 1\nb: [1\nc: 2\n", "is not valid YAML"),
        ("a: 1\n\tb: 2\n", "my.yaml:2: is not valid YAML"),
        ("a: 1\nb: \x00\n", "my.yaml:2: is not valid YAML"),
        ("a: 1\n---\nb: 2\n", "is not valid YAML: but found another document"),
        ("a: *nowhere", "my.yaml:1: is not valid YAML: found undefined alias"),
        ("a: " + "[" * 3000, "my.yaml"),
    ],
)
def test_a_broken_file_is_one_sentence_with_its_line(tmp_path: Path, text: str | bytes, problem: str) -> None:
    _, problems = parse(tmp_path, text)
    assert len(problems) == 1
    assert problem in problems[0]
    assert "\n" not in problems[0]


def test_folders_and_absent_files_are_sentences(tmp_path: Path) -> None:
    problems: list[Problem] = []
    read(tmp_path, problems)
    read(tmp_path / "absent.yaml", problems)
    assert "Is a directory" in str(problems[0])
    assert "No such file" in str(problems[1])


def test_merge_keys_and_anchors(tmp_path: Path) -> None:
    values, problems = parse(tmp_path, "a: &a {x: 1, y: 1}\nb:\n  <<: *a\n  y: 2\n")
    assert (values["b"], problems) == ({"x": 1, "y": 2}, [])
    assert parse(tmp_path, "b:\n  <<: 3\n")[1] == ["my.yaml:2: b.<<: expected a mapping to merge, such as *anchor"]


def test_extends_merges_underneath_in_order(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub/one.yaml").write_text("extends: two.yaml\na: 1\nd: {x: 1, y: 1}\n")
    (tmp_path / "sub/two.yaml").write_text("a: 2\nb: 2\n")
    (tmp_path / "three.yaml").write_text("b: 3\nc: 3\n")
    values, problems = parse(tmp_path, "extends: [sub/one.yaml, three.yaml]\nc: 0\nd: {y: 0}\n")
    assert problems == []
    assert values == {"a": 1, "b": 3, "c": 0, "d": {"x": 1, "y": 0}}
    tree = read(tmp_path / "my.yaml", [])
    node = find(tree, ("d", "x"))
    assert node is not None
    assert node.origin == f"{tmp_path}/sub/one.yaml:3"


def test_extends_in_a_circle_and_into_nothing(tmp_path: Path) -> None:
    (tmp_path / "other.yaml").write_text("seed: 1\nextends: my.yaml\n")
    _, problems = parse(tmp_path, "extends: [other.yaml, absent.yaml, 3]\n")
    assert problems == [
        "other.yaml:2: extends: goes in a circle: my.yaml -> other.yaml -> my.yaml",
        "my.yaml:1: extends: cannot read absent.yaml (No such file or directory); write the path of a YAML file",
        "my.yaml:1: extends: expected the path of a YAML file, or a list of such paths",
    ]
