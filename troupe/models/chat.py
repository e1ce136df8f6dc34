"""Messages to token ids and back, by a model's own chat template.

The template is asked for text, never for ids, and sampled ids are never tokenised again. Two ways lead to the ids
of a prompt. A template that renders each message on its own between special tokens (checked once, on a sample
conversation) is encoded message by message from a cache; any other is rendered whole.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Any

from troupe.episode import Message, message
from troupe.protocols import Tool

__all__ = ["EMBEDDED_TEMPLATE", "SPECIAL_TOKENS", "TAGS", "TemplateFormat"]

EMBEDDED_TEMPLATE = (
    "{% for m in messages %}<|{{ m['role'] }}|>"
    "{% if m['role'] == 'assistant' %}{% generation %}{{ m['content'] }}<|end|>{% endgeneration %}"
    "{% else %}{{ m['content'] }}<|end|>{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""The embedded model's template: prefix-preserving by construction, with generation markers around what is trained."""

SPECIAL_TOKENS = ("<|pad|>", "<|end|>", "<|system|>", "<|user|>", "<|assistant|>", "<|tool|>")
TAGS = ("<call>", "</call>", "<ans>", "</ans>")
"""Single tokens, but not *special* ones: `skip_special_tokens=True` would hide them from a reward function."""

_CALL = re.compile(r"<call>(.*?)</call>", re.DOTALL)
_JSON_CALL = re.compile(r"<tool_call>\s*(\{.*?\})\s*</tool_call>", re.DOTALL)
_SAMPLE = (
    message("system", "be brief"),
    message("user", "3x + 5 = 20 "),
    message("assistant", " <think>so</think> (20-5)/3"),  # reasoning: some templates drop it
    message("tool", "5\n"),
    message("user", " and?"),
)


class TemplateFormat:
    """`ChatFormat` of one tokenizer."""

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        self.eos_id: int = tokenizer.eos_token_id
        self._eos: str = tokenizer.eos_token
        self._message_ids = lru_cache(maxsize=65536)(self._render_one)
        self._decode = lru_cache(maxsize=65536)(self._decode_ids)
        self.prefix_preserving = self._preserves_prefixes()
        self._generation_ids: tuple[int, ...] = ()
        self._wrappings: dict[str, tuple[str, str]] = {}
        self.by_message = self._renders_by_message()

    def encode(self, messages: Sequence[Message], tools: Sequence[Tool] = ()) -> tuple[int, ...]:
        if self.by_message:
            return self._concatenate(messages)
        return self._ids(self._render(messages, tools))

    def encode_response(self, text: str) -> tuple[int, ...]:
        """Ids of an assistant turn that says `text` and ends there: a demonstration's response."""
        return (*self._ids(text), self.eos_id)

    def extend(
        self,
        before: Sequence[Message],
        response_ids: Sequence[int],
        after: Sequence[Message],
        tools: Sequence[Tool] = (),
    ) -> tuple[int, ...] | None:
        ended = bool(response_ids) and response_ids[-1] == self.eos_id
        if self.by_message:
            rest = self._concatenate(after[1:])
            return rest if ended else (self.eos_id, *rest)
        # The sampled text is compared as it was said: tool calls stay inside the content (see `_plain`).
        head = self._render(before, tools)
        full = self._render([*before, *after], tools)
        said = str(after[0].get("content") or "")
        if not full.startswith(head + said):
            return None
        rest_text = full[len(head) + len(said) :]
        if ended:
            if not rest_text.startswith(self._eos):
                return None
            rest_text = rest_text[len(self._eos) :]
        return self._ids(rest_text)

    def decode(self, response_ids: Sequence[int], stop: Sequence[str] = ()) -> str:
        text = self._decode(tuple(response_ids))
        ends = [text.find(s) + len(s) for s in stop if s in text]
        return text[: min(ends)] if ends else text

    def parse(self, text: str, tools: Sequence[Tool] = ()) -> dict[str, Any]:
        parsed = [_bare_call(found.strip(), tools[0]) for found in _CALL.findall(text)] if tools else []
        for found in _JSON_CALL.findall(text):
            try:
                body = json.loads(found)
                parsed.append((str(body["name"]), json.dumps(body.get("arguments", {}))))
            except (ValueError, KeyError, TypeError, RecursionError):
                parsed.append(("", found))  # answered by the recorder with an error that the model can read
        said = message("assistant", text)
        if parsed:
            said["tool_calls"] = [
                {"id": f"call_{i}", "type": "function", "function": {"name": name, "arguments": arguments}}
                for i, (name, arguments) in enumerate(parsed)
            ]
        return said

    def mask(self, messages: Sequence[Message]) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Ids of a whole conversation and 1 where the assistant speaks (its end-of-turn token included)."""
        ids: list[int] = []
        mask: list[int] = []
        for i, said in enumerate(messages):
            if said["role"] != "assistant":
                continue
            prompt, response = self.encode(messages[:i]), self.encode_response(str(said["content"]))
            mask += [0] * (len(prompt) - len(ids)) + [1] * len(response)
            ids = [*prompt, *response]
        return tuple(ids), tuple(mask)

    # ------------------------------------------------------------------------------------------ text and ids

    def _ids(self, text: str) -> tuple[int, ...]:
        backend = getattr(self.tokenizer, "backend_tokenizer", None)
        if backend is None:  # a tokenizer in Python
            return tuple(self.tokenizer.encode(text, add_special_tokens=False))
        return tuple(backend.encode(text, add_special_tokens=False).ids)  # the wrapper around it takes ten times longer

    def _decode_ids(self, ids: tuple[int, ...]) -> str:
        if ids and ids[-1] == self.eos_id:
            ids = ids[:-1]
        return str(self.tokenizer.decode(ids, skip_special_tokens=False))

    def _render(self, messages: Sequence[Message], tools: Sequence[Tool] = (), generate: bool = True) -> str:
        schemas = [
            {"type": "function", "function": {"name": t.name, "description": t.description, "parameters": t.parameters}}
            for t in tools
        ]
        return str(
            self.tokenizer.apply_chat_template(
                [_plain(m) for m in messages],
                tools=schemas or None,
                tokenize=False,
                add_generation_prompt=generate,
            )
        )

    def _wrapping(self, role: str) -> tuple[str, str]:
        """What the template puts before and after a message's content."""
        before, _, after = self._render([message(role, "\0")], generate=False).partition("\0")
        return before, after

    def _render_one(self, role: str, content: str) -> tuple[int, ...]:
        if role not in self._wrappings:
            self._wrappings[role] = self._wrapping(role)
        before, after = self._wrappings[role]
        return self._ids(f"{before}{content}{after}")

    def _concatenate(self, messages: Sequence[Message]) -> tuple[int, ...]:
        ids: list[int] = []
        for said in messages:
            ids += self._message_ids(said["role"], str(said.get("content") or ""))
        return (*ids, *self._generation_ids)

    # ------------------------------------------------------------------------------------------ what the template does

    def _preserves_prefixes(self) -> bool:
        """Whether a conversation renders as a prefix of its continuation, assistant turns included."""
        try:
            whole = self._render(_SAMPLE, generate=False)
            return all(whole.startswith(self._render(_SAMPLE[:n], generate=False)) for n in range(2, len(_SAMPLE)))
        except Exception:  # templates raise Jinja errors of their own for role orders that they do not allow
            return False

    def _renders_by_message(self) -> bool:
        """Whether ids of the whole equal the concatenated ids of its messages, with a constant generation prompt.

        Only then may a conversation be encoded message by message. Fails for templates that add a default
        system prompt, strip white space or look at neighbouring messages, and for tokenizers that merge across them.
        """
        try:
            parts = [self._render([m], generate=False) for m in _SAMPLE]
            text = "".join(parts)
            full = self._render(_SAMPLE)
            tools_matter = self._render(_SAMPLE, [_SampleTool()]) != full
            wrapped = all(
                part == str(m["content"]).join(self._wrapping(m["role"]))
                for part, m in zip(parts, _SAMPLE, strict=True)
            )
        except Exception:  # as above: some templates refuse single messages
            return False
        prompt = full[len(text) :]
        if tools_matter or not wrapped or not prompt or full != text + prompt:
            return False
        self._generation_ids = self._ids(prompt)
        ids = [i for part in parts for i in self._ids(part)]
        turn = self._render([message("assistant", "x")], generate=False)
        return self._ids(full) == (*ids, *self._generation_ids) and turn == f"{prompt}x{self._eos}"


class _SampleTool:
    """A tool schema to see whether a template shows tools to the model."""

    name, description = "probe", "probe"
    parameters: Mapping[str, Any] = {"type": "object", "properties": {}}

    def __call__(self, **arguments: Any) -> str:
        return ""


def _bare_call(text: str, tool: Tool) -> tuple[str, str]:
    """`<call>text</call>` names no tool: it is for this one, and the text is its first argument, if it takes any."""
    parameters = list(tool.parameters.get("properties", {}))
    return tool.name, json.dumps({parameters[0]: text} if parameters else {})


def _plain(said: Message) -> dict[str, Any]:
    """Assistant messages keep tool calls inside their content, as they were sampled; templates must not add them
    twice."""
    plain = dict(said)
    if plain.get("content") and plain.get("role") == "assistant":
        plain.pop("tool_calls", None)
    return plain
