from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from troupe.batch import pack
from troupe.episode import Outcome
from troupe.errors import DataError, StorageError
from troupe.models.language import LanguageModel, Policy
from troupe.training.conversations import demonstrations, read_conversations


def said(*turns: str) -> list[dict[str, str]]:
    return [{"role": "assistant" if i % 2 else "user", "content": text} for i, text in enumerate(turns)]


ROWS: list[dict[str, Any]] = [
    {"task_id": "one", "messages": said("Solve 3x + 5 = 20", "subtract 5: 3x = 15\nAnswer: 5")},
    {"messages": [{"role": "system", "content": "Plan: "}, *said("Ann has 12 books", "12", "and buys 5", "17")]},
]


def test_conversations_become_steps_in_the_models_own_tokens(tiny: LanguageModel) -> None:
    policy = Policy("solver", tiny)
    one, two = demonstrations(policy, ROWS)
    assert (one.task_id, two.task_id, one.outcome) == ("one", "conversation-1", Outcome.SUCCESS)
    assert [len(list(episode.steps())) for episode in (one, two)] == [1, 2]
    for episode, row in zip((one, two), ROWS, strict=True):
        turns = [i for i, m in enumerate(row["messages"]) if m["role"] == "assistant"]
        for step, i in zip(episode.steps(), turns, strict=True):
            assert step.tokens is not None and step.tokens.logprobs is None and all(step.tokens.mask)
            assert step.tokens.prompt_ids == tiny.format.encode(row["messages"][:i])
            assert (
                tiny.format.decode(step.tokens.response_ids) == row["messages"][i]["content"] == step.action["content"]
            )
            assert step.tokens.response_ids[-1] == tiny.format.eos_id


def test_only_what_the_assistant_says_is_learned(tiny: LanguageModel) -> None:
    """As the template's own mask of a whole conversation has it."""
    batch = pack(demonstrations(Policy("solver", tiny), ROWS))
    ids, mask = tiny.format.mask(ROWS[1]["messages"])
    rows = [i for i, row in enumerate(batch.rows) if row.episode == 1]
    learned = [token for i in rows for token in batch["actions"][i][batch["mask"][i] > 0].tolist()]
    assert learned == [token for token, counts in zip(ids, mask, strict=True) if counts]
    assert len(batch) == 3 and {row.policy for row in batch.rows} == {"solver"}


def test_a_file_is_read_as_it_was_written(tmp_path: Path) -> None:
    path = tmp_path / "chains.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS) + "\n")
    assert read_conversations(path) == ROWS
    with pytest.raises(StorageError, match="cannot be read"):
        read_conversations(tmp_path / "none.jsonl")


@pytest.mark.parametrize(
    "row",
    [
        [], {}, {"messages": "hello"}, {"messages": []}, {"messages": said("only asked")},
        {"messages": [{"role": "assistant", "content": "unasked"}]}, {"messages": [{"role": "user"}, "answer"]},
        {"messages": [*said("a"), {"role": "assistant", "content": None}]},
    ],
)  # fmt: skip
def test_what_is_no_conversation(tmp_path: Path, row: Any, tiny: LanguageModel) -> None:
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps(ROWS[0]) + "\n" + json.dumps(row) + "\n")
    with pytest.raises(DataError, match="line 2: no conversation"):
        read_conversations(path)
    with pytest.raises(DataError, match="conversation 1 has no"):
        demonstrations(Policy("solver", tiny), [ROWS[0], row])


def test_broken_json_and_turns_that_do_not_fit(tmp_path: Path, tiny_model: Callable[..., LanguageModel]) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": ')
    with pytest.raises(DataError, match="line 1: not JSON"):
        read_conversations(tmp_path / "rows.jsonl")
    with pytest.raises(DataError, match="the model has 16 positions"):
        demonstrations(Policy("solver", tiny_model(max_positions=16)), ROWS)


def test_turns_without_text_are_read_and_not_learned(tiny: LanguageModel, tmp_path: Path) -> None:
    """A tool call has no text; a separator of lines within a text ends no row."""
    call = {"role": "assistant", "content": None, "tool_calls": []}
    messages = [*said("How many?"), call, {"role": "tool", "content": "12"}, {"role": "assistant", "content": "12"}]
    (episode,) = demonstrations(
        Policy("solver", tiny), [{"messages": [{"role": "assistant", "content": "Hi"}, *messages]}]
    )
    assert len(list(episode.steps())) == 1
    path = tmp_path / "rows.jsonl"
    path.write_text(json.dumps({"messages": said("a\u2028b", "c")}, ensure_ascii=False) + "\n", encoding="utf-8")
    assert len(read_conversations(path)) == 1
