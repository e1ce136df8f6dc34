from __future__ import annotations

import pytest

from troupe.episode import Episode, FinishReason, Step, StopReason, Tokens, Trajectory, message
from troupe.monitoring.turns import ToolCall, Turn, parts, problem_text


def of(*steps: Step, reward: float | None = None, reason: StopReason = StopReason.DONE) -> Episode:
    return Episode("e", "t", (Trajectory("solver", steps, reward, reason),))


def calls(*functions: tuple[str, object]) -> dict[str, object]:
    return {
        "role": "assistant",
        "content": "Let me see. <call>1+1</call>",
        "tool_calls": [
            {"id": f"call_{i}", "function": {"name": n, "arguments": a}} for i, (n, a) in enumerate(functions)
        ],
    }


def test_a_tool_result_stands_beside_its_call_and_not_among_what_was_told() -> None:
    asked = Step("solver/0", "solver", None, [message("user", "1+1?")], calls(("calculator", '{"expression": "1+1"}')))
    heard = [message("tool", "2", tool_call_id="call_0")]
    [part] = parts(of(asked, Step("solver/1", "solver", "solver/0", heard, message("assistant", "It is 2."))))
    assert part.turns == (
        Turn((("user", "1+1?"),), "Let me see.", (ToolCall("calculator", "1+1", "2"),), None, False),
        Turn((), "It is 2.", (), None, False),
    )


def test_results_are_matched_in_order_and_a_call_that_never_ran_has_none() -> None:
    several = calls(("add", '{"a": 1, "b": "x"}'), ("search", "not json"), ("", "{}"))
    heard = [message("tool", "first"), message("tool", "second")]
    [part] = parts(of(Step("s/0", "solver", None, [], several), Step("s/1", "solver", "s/0", heard, "done")))
    assert part.turns[0].calls == (
        ToolCall("add", 'a=1, b="x"', "first"),
        ToolCall("search", "not json", "second"),
        ToolCall("unreadable call", "", None),
    )
    assert part.turns[1].said == "done"


def test_results_are_found_across_trajectories_of_one_lineage() -> None:
    first = Trajectory("solver", (Step("s/0", "solver", None, [], calls(("t", "{}"))),))
    second = Trajectory(
        "solver", (Step("s/1", "solver", "s/0", [message("tool", "r"), message("user", "again")], "x"),)
    )
    found = parts(Episode("e", "t", (first, second)))
    assert [part.attempt for part in found] == [1, 2]
    assert found[0].turns[0].calls[0].result == "r"
    assert found[1].turns[0].told == (("user", "again"),)


def test_rewards_and_early_ends_are_told() -> None:
    paid = Step("s/0", "solver", None, [], "a", reward=0.5)
    [part] = parts(of(paid, reward=1.0, reason=StopReason.MAX_TURNS))
    assert (part.reward, part.stopped, part.turns[0].reward) == (1.5, "used up its turns", 0.5)
    assert parts(of(Step("s/0", "solver", None, [], "a")))[0].reward is None


@pytest.mark.parametrize("reason", StopReason)
def test_every_stop_reason_has_words(reason: StopReason) -> None:
    assert isinstance(parts(of(reason=reason))[0].stopped, str)


def test_an_answer_that_was_cut_off_says_so() -> None:
    tokens = Tokens((1,), (2,), (-0.1,), (1,), "p", finish_reason=FinishReason.LENGTH)
    [part] = parts(of(Step("s/0", "solver", None, [], "half an ans", tokens=tokens)))
    assert part.turns[0].cut


def test_pieces_arrays_and_nothing_are_readable() -> None:
    pieces = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    episode = of(Step("s/0", "solver", None, [message("user", pieces)], 3), Step("s/1", "solver", None, [[0, 1]], None))  # type: ignore[arg-type]
    first, second = parts(episode)[0].turns
    assert (first.told, first.said) == ((("user", "one\ntwo"),), "3")
    assert (second.told, second.said) == ((("observation", "[[0, 1]]"),), "")
    assert problem_text(episode) == "one\ntwo"
    assert problem_text(Episode("e", "t")) is None
