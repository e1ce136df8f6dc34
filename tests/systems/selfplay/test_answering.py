from __future__ import annotations

import numpy as np
import pytest

from troupe.systems.selfplay.answering import KEEP, AnswerWorld
from troupe.tasks.math import MathProblemGenerator

BOOKS = "Ann has 12 books and buys 5 more. How many books?"


def test_what_is_read_off_a_problem() -> None:
    assert AnswerWorld("Solve 3x + 5 = 20").initial().table == ("3", "5", "20")
    assert AnswerWorld("It costs $1,250 or 2.50, on v2 of 7.").initial().table == ("1250", "2.5", "7")
    world = AnswerWorld(BOOKS)
    assert world.legal(world.initial())[:6] == ("12+5", "12-5", "12*5", "12/5", "5-12", "5/12")
    assert {"answer 12", "answer 5", "answer ann", "answer books"} <= set(world.legal(world.initial()))


def test_arithmetic_is_exact() -> None:
    world = AnswerWorld("Share 7 by 3")
    state, *_ = world.step(world.initial(), "7/3")
    assert state.table == ("7", "3", "7/3") and state.made == ("7/3=7/3",)
    state, reward, done, _ = world.step(state, "(7/3)*3")
    assert state.table[-1] == "7" and (reward, done) == (0.0, False)
    assert "7/0" not in AnswerWorld("7 of 0").legal(AnswerWorld("7 of 0").initial())


def test_what_is_on_the_table_is_not_made_again_and_the_table_has_an_end() -> None:
    world = AnswerWorld("2 and 2 and 4")
    assert "2+2" not in world.legal(world.initial())
    state = world.initial()
    for action in ("2-4", "2/4", "2+4"):
        assert action in world.legal(state)
        state, *_ = world.step(state, action)
    assert all(action.startswith("answer ") for action in world.legal(state))


def test_an_answer_stays_and_pays_nothing() -> None:
    world = AnswerWorld(BOOKS)
    state, reward, done, _ = world.step(world.initial(), "answer 17")
    assert world.answer(world.initial()) is None and world.answer(state) == "17" and (reward, done) == (0.0, False)
    assert world.legal(state) == (KEEP,) and world.step(state, KEEP) == (state, 0.0, False, 0)


@pytest.mark.parametrize("words", ["let me think", "sqrt(2)", "12 +", "1/0"])
def test_a_proposers_own_words_are_noted(words: str) -> None:
    world = AnswerWorld(BOOKS)
    state, *_ = world.step(world.initial(), words)
    assert state.made == (words,) and state.table == ("12", "5")
    assert not world.encode(world.initial(), words).any()


def test_the_largest_quantities_can_be_seen() -> None:
    """2^1024 - 1, which a proposer may write, is a Fraction that has no float."""
    world = AnswerWorld(BOOKS)
    for text in ("2^1023-1+2^1023", "-2^1023+1-2^1023"):
        for action in (text, f"answer {text}"):
            state, *_ = world.step(world.initial(), action)
            assert np.isfinite(world.observe(state)).all()


def test_features_tell_states_and_candidates_apart() -> None:
    for task in MathProblemGenerator(seed=4).generate(10):
        world = AnswerWorld(task.prompt)
        state = world.initial()
        actions = world.legal(state)
        codes = np.stack([world.encode(state, action) for action in actions])
        assert codes.shape == (len(actions), world.encoding) and codes.dtype == np.float32
        numbers = [code.tobytes() for code, action in zip(codes, actions, strict=True) if "answer" not in action]
        assert len(set(numbers)) == len(numbers)
        after = [world.step(state, action)[0] for action in actions if "answer" not in action]
        assert len({world.observe(s).tobytes() for s in after}) == len({s.table for s in after})
        assert world.observe(state).shape == world.observation_shape


def test_a_problem_without_anything_to_say_has_an_action() -> None:
    assert AnswerWorld("?").legal(AnswerWorld("?").initial()) == ("answer nothing",)
