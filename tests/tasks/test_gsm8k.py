"""Reading GSM8K: small files written here, and the real one where TROUPE_DATA points at it."""

from __future__ import annotations

import gzip
import json
import os
import sys
from pathlib import Path

import pytest

from troupe.errors import DataError, MissingExtra
from troupe.maths.expressions import evaluate, steps
from troupe.tasks.gsm8k import read_gsm8k
from troupe.tasks.math import check_answer

NATALIA = {
    "question": "Natalia sold clips to 48 of her friends in April, and half as many in May. How many altogether?",
    "answer": "In May 48/2 = <<48/2=24>>24 clips.\nNatalia sold 48+24 = <<48+24=72>>72 clips.\n#### 72",
}


def written(folder: Path, *rows: object, name: str = "train.jsonl") -> Path:
    path = folder / name
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def row(answer: str, question: str = "How many?") -> dict[str, str]:
    return {"question": question, "answer": answer}


def test_a_row_becomes_a_task(tmp_path: Path) -> None:
    (task,) = read_gsm8k(written(tmp_path, NATALIA))
    assert (
        task.kind == "gsm8k" and task.prompt == NATALIA["question"] and task.answer == "72" and task.difficulty == 0.25
    )
    assert task.solution == {
        "text": "In May 48/2 = 24 clips.\nNatalia sold 48+24 = 72 clips.\n#### 72",
        "calls": ["48/2", "48+24"],
        "plan": ["48+(48/2)"],
        "check": ["48+(48/2)-{0}"],
    }
    assert check_answer(task, ["72"]) and not check_answer(task, ["73"])
    assert "72" not in json.dumps([task.prompt, dict(task.data)])


def test_calls_that_do_not_verify_are_left_out(tmp_path: Path) -> None:
    rows = [
        row("<<10/3=3.33>>3.33\n#### 3.33"),  # rounded
        row("<<2+2=5>>5\n#### 5"),
        row("<<7//2=3>>3\n#### 3"),
        row("no calculator\n#### 3"),
        row("<<2+2>>4\n#### 4"),  # no result stated
    ]
    for task in read_gsm8k(written(tmp_path, *rows)):
        assert set(task.solution) == {"text"}


def test_a_plan_needs_the_answer(tmp_path: Path) -> None:
    first, second = read_gsm8k(written(tmp_path, row("<<2+2=4>>4 and 4+1 = 5\n#### 5"), row("<<5=5>>\n#### 5")))
    assert first.solution["calls"] == ["2+2"] and "plan" not in first.solution
    assert "plan" not in second.solution  # a lone number computes nothing


def test_thousands_commas_leave_the_answer(tmp_path: Path) -> None:
    assert read_gsm8k(written(tmp_path, row("<<1000*5=5000>>\n#### 5,000")))[0].answer == "5000"


def test_folders_and_gzip(tmp_path: Path) -> None:
    with gzip.open(tmp_path / "train.jsonl.gz", "wt") as file:
        file.write(json.dumps(NATALIA) + "\n\n")
    assert read_gsm8k(tmp_path) == read_gsm8k(str(tmp_path / "train.jsonl.gz"))
    with pytest.raises(DataError, match=r"neither test.jsonl nor test.jsonl.gz; it holds train.jsonl.gz"):
        read_gsm8k(tmp_path, split="test")


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        ('{"question": "q", ', "train.jsonl:2: not a JSON object"),
        ("[1, 2]", "train.jsonl:2: no text under 'question'"),
        ('{"question": "q"}', "train.jsonl:2: no text under 'answer'"),
        ('{"question": "q", "answer": 5}', "train.jsonl:2: no text under 'answer'"),
        ('{"question": "q", "answer": "five"}', "train.jsonl:2: the answer has no '#### number'"),
        ('{"question": "q", "answer": "five ####"}', "train.jsonl:2: the answer has no '#### number'"),
    ],
)
def test_a_bad_line_is_named(tmp_path: Path, line: str, complaint: str) -> None:
    with pytest.raises(DataError, match=complaint):
        read_gsm8k(written(tmp_path, NATALIA, line))


def test_missing_empty_and_damaged_files(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_gsm8k(tmp_path / "nowhere.jsonl")
    with pytest.raises(DataError, match="holds no rows"):
        read_gsm8k(written(tmp_path))
    whole = gzip.compress((json.dumps(NATALIA) + "\n").encode() * 500)
    (tmp_path / "cut.jsonl.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match="damaged"):
        read_gsm8k(tmp_path / "cut.jsonl.gz")
    (tmp_path / "bytes.jsonl").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match="damaged"):
        read_gsm8k(tmp_path / "bytes.jsonl")


def test_without_a_path_the_hub_package_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(MissingExtra, match="datasets"):
        read_gsm8k()


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not point at the public data")
def test_the_real_training_set() -> None:
    tasks = read_gsm8k(Path(os.environ["TROUPE_DATA"]) / "gsm8k")
    assert len(tasks) == len({task.id for task in tasks}) == 7473
    assert sum("calls" in task.solution for task in tasks) == 7376
    planned = [task for task in tasks if "plan" in task.solution]
    assert len(planned) == 6878
    for task in planned:
        (plan,) = task.solution["plan"]
        assert evaluate(plan) == evaluate(task.answer) == evaluate(steps(plan)[-1])
    for task in planned[::20]:
        assert check_answer(task, [task.answer]) and not check_answer(task, [str(int(task.answer) + 1)])
