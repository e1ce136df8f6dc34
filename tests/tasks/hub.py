"""A stand-in for the package `datasets`: the rows of a few sets, as the Hugging Face hub has them."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

Rows = list[dict[str, Any]]


def hub(monkeypatch: pytest.MonkeyPatch, rows: Callable[..., Rows]) -> list[tuple[str, ...]]:
    """Puts `rows(name, [configuration,] split)` in the hub's place. Returns the list of what will be asked for."""
    asked: list[tuple[str, ...]] = []

    def load_dataset(*name: str, split: str, streaming: bool = False) -> Rows:
        asked.append((*name, split))
        return rows(*name, split)

    stand_in = ModuleType("datasets")
    stand_in.load_dataset = load_dataset  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", stand_in)
    return asked


def documented(name: str, *rest: str) -> Rows:
    """A few rows of every set that document 004 trains or scores on."""
    from tests.tasks.test_swe import commits, issues  # they import this module

    return {
        "google-research-datasets/mbpp": lambda: [mbpp(10 * len(rest[-1]) + n) for n in range(8)],
        "hotpotqa/hotpot_qa": lambda: [hotpot(n) for n in range(20)],
        "agentica-org/DeepScaleR-Preview-Dataset": lambda: [
            {"problem": f"Add {n} and {n}.", "answer": str(2 * n), "solution": ""} for n in range(20)
        ],
        "HuggingFaceH4/aime_2024": lambda: [
            {"id": n, "problem": f"Find {n}.", "answer": f"{n:03}", "solution": "", "year": "2024"} for n in range(3)
        ],
        "R2E-Gym/R2E-Gym-Subset": lambda: commits(20),
        "princeton-nlp/SWE-bench_Verified": lambda: issues(5),
    }[name]()


def mbpp(number: int) -> dict[str, Any]:
    return {
        "task_id": number,
        "text": f"Write a function that adds {number}.",
        "code": f"def add(x): return x+{number}",
        "test_list": [f"assert add({x}) == {x + number}" for x in range(3)],
        "test_setup_code": "",
        "challenge_test_list": [],
    }


def hotpot(number: int) -> dict[str, Any]:
    """The hub keeps lists of pairs as two columns."""
    return {
        "id": str(number),
        "question": f"Which river drives mill {number}?",
        "answer": "the Duby",
        "type": "bridge",
        "level": "easy",
        "supporting_facts": {"title": ["Ham", "Mill", "Ham"], "sent_id": [0, 1, 1]},
        "context": {
            "title": ["Ham", "Mill", "Sea"],
            "sentences": [
                ["Ham is a village.", " It has one mill."],
                ["The mill is old.", "The Duby drives it."],
                ["The sea is far."],
            ],
        },
    }
