"""An engine whose answers come from a function: demonstrations, baselines written by hand, tests."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from troupe.episode import FinishReason
from troupe.models.chat import TemplateFormat
from troupe.protocols import ChatFormat, Generation, GenerationRequest

__all__ = ["ScriptedEngine"]


class ScriptedEngine:
    """Says `respond(request)` as the tokens of one chat format. It samples nothing, so it cannot be trained
    on-policy."""

    exact_tokens = False

    def __init__(self, layout: TemplateFormat, respond: Callable[[GenerationRequest], str]) -> None:
        self._layout = layout
        self._respond = respond

    def chat_format(self, policy: str) -> ChatFormat:
        return self._layout

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        return [
            Generation(self._layout.encode_response(self._respond(request)), None, FinishReason.STOP)
            for request in requests
        ]
