"""Chat templates: which may be encoded message by message, which extend exactly, which rewrite history."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from typing import Any

import pytest

from troupe.episode import Message, message
from troupe.models.chat import TAGS, TemplateFormat

QWEN = (
    "{%- if tools %}<|im_start|>system\n{{ messages[0].content if messages[0].role == 'system' else 'You are Qwen.' }}"
    "\n\n# Tools{% for t in tools %}\n{{ t | tojson }}{% endfor %}<|im_end|>\n"
    "{%- elif messages[0].role == 'system' %}<|im_start|>system\n{{ messages[0].content }}<|im_end|>\n"
    "{%- else %}<|im_start|>system\nYou are Qwen.<|im_end|>\n{% endif %}"
    "{%- for m in messages %}"
    "{%- if m.role == 'user' or (m.role == 'system' and not loop.first) %}"
    "<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n"
    "{%- elif m.role == 'assistant' %}<|im_start|>assistant\n{% generation %}{{ m.content }}"
    "{%- for c in m.tool_calls or [] %}\n<tool_call>{{ c.function.name }}</tool_call>{% endfor %}"
    "<|im_end|>{% endgeneration %}\n"
    "{%- elif m.role == 'tool' %}"
    "{%- if loop.first or messages[loop.index0 - 1].role != 'tool' %}<|im_start|>user{% endif %}"
    "\n<tool_response>\n{{ m.content }}\n</tool_response>"
    "{%- if loop.last or messages[loop.index0 + 1].role != 'tool' %}<|im_end|>\n{% endif %}"
    "{%- endif %}{% endfor %}"
    "{%- if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
"""Qwen2.5's: a default system prompt, tools in it, tool results grouped into a user turn, a line break after each
turn."""

FORGETS = (
    "{% for m in messages %}<|{{ m.role }}|>"
    "{{ m.content.split('</think>')[-1] if m.role == 'assistant' else m.content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""Reasoning of earlier turns is dropped, as in Qwen3 and DeepSeek-R1."""

TALK = [
    message("system", "be brief"),
    message("user", "3x + 5 = 20 "),
    message("assistant", " (20-5)/3\n"),
    message("tool", "5"),
    message("assistant", "<ans>5</ans>"),
    message("user", "and é?"),
]


class Calculator:
    name, description = "calculator", "computes"
    parameters = {"type": "object", "properties": {"expression": {"type": "string"}}}  # noqa: RUF012

    def __call__(self, expression: str) -> str:
        return expression


class Clock:
    name, description = "clock", "tells the time"
    parameters = {"type": "object", "properties": {}}  # noqa: RUF012

    def __call__(self) -> str:
        return "noon"


def with_template(tokenizer: Any, template: str, eos: str | None = None) -> TemplateFormat:
    changed = copy.deepcopy(tokenizer)
    changed.chat_template = template
    if eos is not None:
        changed.add_special_tokens({"additional_special_tokens": ["<|im_start|>"], "eos_token": eos})
    return TemplateFormat(changed)


@pytest.fixture(scope="module")
def embedded(tiny: Any) -> TemplateFormat:
    return tiny.format


@pytest.fixture(scope="module")
def qwen(tiny: Any) -> TemplateFormat:
    return with_template(tiny.tokenizer, QWEN, eos="<|im_end|>")


def rendered(layout: TemplateFormat, messages: Sequence[Message], tools: Sequence[Any] = ()) -> list[int]:
    """What transformers makes of it, in one go."""
    schemas = [{"name": t.name, "description": t.description, "parameters": t.parameters} for t in tools]
    text = layout.tokenizer.apply_chat_template(
        [dict(m) for m in messages],
        tools=[{"type": "function", "function": s} for s in schemas] or None,
        tokenize=False,
        add_generation_prompt=True,
    )
    return layout.tokenizer.encode(text, add_special_tokens=False)


# ---------------------------------------------------------------------------------------------- which way


def test_the_embedded_template_is_encoded_message_by_message(embedded: TemplateFormat) -> None:
    assert embedded.by_message and embedded.prefix_preserving
    for n in range(1, len(TALK) + 1):
        assert list(embedded.encode(TALK[:n])) == rendered(embedded, TALK[:n])


def test_qwen_goes_the_general_way(qwen: TemplateFormat) -> None:
    assert not qwen.by_message and qwen.prefix_preserving
    for n in range(1, len(TALK) + 1):
        assert list(qwen.encode(TALK[:n])) == rendered(qwen, TALK[:n])
    assert "You are Qwen." in qwen.decode(qwen.encode(TALK[1:]))


def test_tools_are_shown_to_the_model(qwen: TemplateFormat) -> None:
    assert list(qwen.encode(TALK, [Calculator()])) == rendered(qwen, TALK, [Calculator()])
    assert '"name": "calculator"' in qwen.decode(qwen.encode(TALK, [Calculator()]))


@pytest.mark.parametrize(
    ("template", "why"),
    [
        (FORGETS.replace(".split('</think>')[-1]", " | trim"), "strips white space"),
        ("<|system|>default<|end|>" + FORGETS, "has a default"),
        (FORGETS.replace("{{ m.content.split", "{{ loop.index }}{{ m.content.split"), "counts"),
        (FORGETS.replace("<|end|>{% endfor %}", "<|end|>{% endfor %}{{ tools or '' }}"), "shows tools"),
        (
            FORGETS.replace(
                "{% for m", "{% if messages[0].role != 'system' %}{{ raise_exception('no') }}{% endif %}{% for m"
            ),
            "refuses",
        ),
        (FORGETS.replace("{% if add_generation_prompt %}<|assistant|>{% endif %}", ""), "has no generation prompt"),
    ],
)
def test_templates_that_look_around_are_never_encoded_message_by_message(tiny: Any, template: str, why: str) -> None:
    layout = with_template(tiny.tokenizer, template)
    assert not layout.by_message, why
    assert list(layout.encode(TALK)) == rendered(layout, TALK)


# ---------------------------------------------------------------------------------------------- continuing


@pytest.mark.parametrize("way", ["embedded", "qwen"])
@pytest.mark.parametrize("ended", [True, False])
def test_extending_is_exact(way: str, ended: bool, request: pytest.FixtureRequest) -> None:
    """The prompt, the sampled ids and the extension are the ids of the whole conversation, as long as the sampled ones
    are how the tokenizer would have written that text."""
    layout: TemplateFormat = request.getfixturevalue(way)
    tools = [Calculator()] if way == "qwen" else []
    said = "<call>15/3</call>"
    response = layout.encode_response(said) if ended else layout.encode_response(said)[:-1]
    after = [layout.parse(said), message("tool", "5\n"), message("tool", "6"), message("user", "go on")]
    suffix = layout.extend(TALK, response, after, tools)
    assert suffix is not None
    whole = (*layout.encode(TALK, tools), *response, *suffix)
    assert whole == layout.encode([*TALK, *after], tools)
    assert (suffix[0] == layout.eos_id) is not ended


@pytest.mark.parametrize("way", ["embedded", "qwen"])
def test_extending_keeps_ids_that_the_tokenizer_would_not_choose(way: str, request: pytest.FixtureRequest) -> None:
    """Sampled letter by letter: the text is the same, the ids are not, and the extension does not care."""
    layout: TemplateFormat = request.getfixturevalue(way)
    letters = [i for c in "How many books" for i in layout.tokenizer.encode(c, add_special_tokens=False)]
    usual = layout.encode_response("How many books")
    assert layout.decode(letters) == layout.decode(usual) and len(letters) + 1 > len(usual)
    after = [layout.parse(layout.decode(letters)), message("user", "?")]
    assert layout.extend(TALK, (*letters, layout.eos_id), after) == layout.extend(TALK, usual, after)


def test_a_template_that_drops_reasoning_refuses(tiny: Any) -> None:
    layout = with_template(tiny.tokenizer, FORGETS)
    after = [message("assistant", "<think>12+5</think>17"), message("user", "and?")]
    assert layout.extend(TALK[:2], layout.encode_response(after[0]["content"]), after) is None
    plain = [message("assistant", "17"), message("user", "and?")]
    assert layout.extend(TALK[:2], layout.encode_response("17"), plain) is not None


def test_a_template_that_trims_refuses_what_it_would_change(tiny: Any) -> None:
    layout = with_template(tiny.tokenizer, FORGETS.replace(".split('</think>')[-1]", " | trim"))
    assert layout.extend(TALK[:2], layout.encode_response("17 "), [message("assistant", "17 "), TALK[1]]) is None
    assert layout.extend(TALK[:2], layout.encode_response("17"), [message("assistant", "17"), TALK[1]]) is not None


# ---------------------------------------------------------------------------------------------- text


def test_text_is_trimmed_after_the_first_stop_string(embedded: TemplateFormat) -> None:
    """A stop string may end inside a token: the ids are not touched, the text ends with the string."""
    ids = embedded.encode_response("Solve 3x, and more")
    assert embedded.decode(ids) == "Solve 3x, and more"
    assert embedded.decode(ids, ["ol"]) == "Sol"  # the tokenizer has merged over it
    assert len(embedded.tokenizer.encode("Solve", add_special_tokens=False)) < 5
    assert embedded.decode(ids, ["and", "3x"]) == "Solve 3x"
    assert embedded.decode(ids, ["absent"]) == "Solve 3x, and more"


def test_tags_are_single_tokens_that_survive_skipping_special_ones(tiny: Any) -> None:
    for tag in TAGS:
        ids = tiny.tokenizer.encode(tag, add_special_tokens=False)
        assert len(ids) == 1
        assert tiny.tokenizer.decode(ids, skip_special_tokens=True) == tag


def test_any_text_survives(embedded: TemplateFormat) -> None:
    for text in ("héllo ☃ 中文 \t\n", "0123456789", "<call>1</call>", " leading", ""):
        assert embedded.decode(embedded.encode_response(text)) == text


def test_calls_are_parsed_into_openais_shape(embedded: TemplateFormat) -> None:
    said = embedded.parse("so <call> 15/3 </call> and <call>2*2</call>", [Calculator()])
    assert said["role"] == "assistant" and said["content"] == "so <call> 15/3 </call> and <call>2*2</call>"
    assert said["tool_calls"][0] == {
        "id": "call_0",
        "type": "function",
        "function": {"name": "calculator", "arguments": '{"expression": "15/3"}'},
    }
    assert [json.loads(c["function"]["arguments"])["expression"] for c in said["tool_calls"]] == ["15/3", "2*2"]
    assert "tool_calls" not in embedded.parse("no <call>", [Calculator()])


def test_a_call_without_a_name_is_for_the_first_tool_offered(embedded: TemplateFormat) -> None:
    [call] = embedded.parse("<call>now</call>", [Clock(), Calculator()])["tool_calls"]
    assert call["function"] == {"name": "clock", "arguments": "{}"}  # which takes no arguments
    assert "tool_calls" not in embedded.parse("<call>now</call>")  # nothing was offered: these are words


def test_json_calls_are_parsed(embedded: TemplateFormat) -> None:
    found = embedded.parse('<tool_call>\n{"name": "search", "arguments": {"q": {"deep": 1}}}\n</tool_call>')[
        "tool_calls"
    ]
    assert (found[0]["function"]["name"], json.loads(found[0]["function"]["arguments"])) == (
        "search",
        {"q": {"deep": 1}},
    )
    bare = embedded.parse('<tool_call>{"name": "now"}</tool_call>')["tool_calls"][0]["function"]
    assert bare == {"name": "now", "arguments": "{}"}


@pytest.mark.parametrize(
    "broken", ["{nonsense}", '{"arguments": {}}', "{}", '{"name": ' + '{"a": ' * 5000 + "1" + "}" * 5001]
)
def test_a_broken_call_is_left_for_the_recorder_to_answer(embedded: TemplateFormat, broken: str) -> None:
    [call] = embedded.parse(f"<tool_call>{broken}</tool_call>")["tool_calls"]
    assert call["function"] == {"name": "", "arguments": broken}


# ---------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize("way", ["embedded", "qwen"])
def test_the_assistant_mask_is_transformers(way: str, request: pytest.FixtureRequest) -> None:
    """TRL trains on `assistant_masks` of `apply_chat_template`; ours ends with the last assistant turn."""
    layout: TemplateFormat = request.getfixturevalue(way)
    ids, mask = layout.mask(TALK)
    theirs = layout.tokenizer.apply_chat_template(
        TALK[:5], return_assistant_tokens_mask=True, return_dict=True, tokenize=True
    )
    assert list(ids) == theirs["input_ids"][: len(ids)]
    assert list(mask) == theirs["assistant_masks"][: len(ids)]
    assert sum(mask) == sum(theirs["assistant_masks"]) > 8
