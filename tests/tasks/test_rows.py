"""Rows of JSON lines: where they stand, and what is said about those that cannot be used."""

from __future__ import annotations

import gzip
from pathlib import Path
from typing import Any

import pytest

from tests.tasks.hub import hub
from troupe.errors import DataError
from troupe.tasks.rows import file_rows, hub_rows, locate, objects, text, texts


def test_rows_know_their_line(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"a": 1}\n\n  \n[2]\n', encoding="utf-8")
    assert list(file_rows(path, "x")) == [(f"{path}:1", {"a": 1}), (f"{path}:4", [2])]
    with pytest.raises(DataError, match=r"a.jsonl:4: not a JSON object, but list"):
        list(objects(path, "x"))


def test_only_a_newline_ends_a_row(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl.gz"
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write('{"a": "one\u2028two"}\n{"a": "three"}')
    assert [row["a"] for _, row in objects(path, "x")] == ["one\u2028two", "three"]


def test_rows_of_the_hub_know_their_number(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = hub(monkeypatch, lambda *name: [{"a": 1}, {"a": 2}])
    rows = list(hub_rows("some/set", "main", split="train", what="Some Set"))
    assert rows == [("some/set/main, row 1", {"a": 1}), ("some/set/main, row 2", {"a": 2})]
    assert asked == [("some/set", "main", "train")]


def test_a_hub_that_cannot_be_reached_is_one_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(*name: str) -> Any:
        raise ConnectionError("Couldn't reach 'some/set' on the Hub")

    hub(monkeypatch, lost)
    with pytest.raises(DataError) as refused:
        list(hub_rows("some/set", "main", split="train", what="Some Set"))
    said = str(refused.value)
    assert said.startswith("Some Set cannot be fetched from the Hugging Face hub (Couldn't reach") and "--from" in said


def test_what_cannot_be_read_is_named(tmp_path: Path) -> None:
    bad = tmp_path / "bad.jsonl"
    bad.write_text('{"a": 1}\n{"a":\n')
    with pytest.raises(DataError, match=r"bad.jsonl:2: not a JSON object \(Expecting value\)"):
        list(file_rows(bad, "x"))
    bad.write_bytes(b'{"a": 1}\n\xff\xfe')
    with pytest.raises(DataError, match=r"the file is damaged"):
        list(file_rows(bad, "x"))
    with pytest.raises(DataError, match=r"does not exist; give a x file, or the folder that holds it"):
        list(file_rows(tmp_path / "nowhere", "x"))


def test_a_folder_is_searched_in_order(tmp_path: Path) -> None:
    (tmp_path / "b").touch()
    assert locate(tmp_path, "a", "b") == tmp_path / "b" and locate(tmp_path / "b", "a") == tmp_path / "b"
    with pytest.raises(DataError, match="has no a or c; it holds b"):
        locate(tmp_path, "a", "c")


def test_texts_are_checked() -> None:
    row = {"a": " x ", "b": ["y", " z"], "c": 3, "d": [""], "e": ""}
    assert text(row, "a", "f:1") == "x" and texts(row, "a", "f:1") == ["x"] and texts(row, "b", "f:1") == ["y", "z"]
    assert texts(row, "none", "f:1") == []
    for key in ("c", "e", "none"):
        with pytest.raises(DataError, match=f"f:1: no text under '{key}'"):
            text(row, key, "f:1")
    for key in ("c", "d"):
        with pytest.raises(DataError, match=f"f:1: '{key}' must be a text or a list of texts"):
            texts(row, key, "f:1")
