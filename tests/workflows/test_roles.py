"""What the teams share: words that verdicts are made of, prompts by name, keyed randomness."""

from __future__ import annotations

import pytest

from troupe.errors import ConfigError
from troupe.workflows.roles import keyed_random, system_prompts, word_of


@pytest.mark.parametrize("said", ["ok", "OK", "Ok.", ' "ok" ', "`OK`!", "\nok\n"])
def test_a_verdict_is_a_word_however_it_is_written(said: str) -> None:
    assert word_of(said) == "ok"


@pytest.mark.parametrize("said", ["not ok", "ok, but", "o k", "", "okay"])
def test_no_other_words_are_that_word(said: str) -> None:
    assert word_of(said) != "ok"


def test_no_answer_is_no_word() -> None:
    assert word_of(None) is None


def test_prompts_by_name_or_one_per_agent() -> None:
    known = {"compact": {"a": "do", "b": "check"}}
    assert system_prompts("compact", known, ("a", "b")) == known["compact"]
    assert system_prompts({"a": "x", "b": "y"}, known, ("a", "b"))["b"] == "y"
    with pytest.raises(ConfigError, match="did you mean 'compact'"):
        system_prompts("compcat", known, ("a", "b"))
    with pytest.raises(ConfigError, match="no system prompt for the agent 'b'"):
        system_prompts({"a": "x"}, known, ("a", "b"))


def test_keyed_random_depends_on_the_whole_key_and_on_nothing_else() -> None:
    assert keyed_random(1, "a", 2).random() == keyed_random(1, "a", 2).random()
    assert len({keyed_random(*key).random() for key in [(1, "a"), (1, "b"), (2, "a"), (1, "a", 0)]}) == 4
