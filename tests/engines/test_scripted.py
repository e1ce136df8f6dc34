"""Answers from a function, in the tokens of a chat format."""

from __future__ import annotations

import asyncio
from typing import Any

from troupe.engines.scripted import ScriptedEngine
from troupe.episode import FinishReason, Sampling, message
from troupe.protocols import GenerationRequest


def test_it_says_what_the_function_returns(tiny: Any) -> None:
    engine = ScriptedEngine(tiny.format, lambda request: f"{request.messages[-1]['content']} to {request.key[-1]}")
    requests = [
        GenerationRequest("team", (1,), Sampling(), (0, name), messages=(message("user", "hi"),)) for name in ("a", "b")
    ]
    answers = asyncio.run(engine.generate(requests))
    assert [tiny.format.decode(answer.response_ids) for answer in answers] == ["hi to a", "hi to b"]
    assert all(answer.response_ids[-1] == tiny.format.eos_id for answer in answers)
    assert [(answer.logprobs, answer.finish_reason) for answer in answers] == [(None, FinishReason.STOP)] * 2
    assert engine.exact_tokens is False and engine.chat_format("anyone") is tiny.format
