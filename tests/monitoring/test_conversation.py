from __future__ import annotations

from dataclasses import replace

from rich.console import Console

from troupe.episode import Episode, Outcome, Step, StopReason, Trajectory, message
from troupe.monitoring.conversation import conversation


def printed(episode: Episode, width: int = 80) -> str:
    console = Console(width=width, record=True, file=open("/dev/null", "w"), legacy_windows=False)  # noqa: SIM115
    console.print(conversation(episode))
    return console.export_text()


def team(said: str = "<ans>16</ans>") -> Episode:
    call = {"id": "call_0", "function": {"name": "calculator", "arguments": '{"expression": "64/4"}'}}
    asking = {"role": "assistant", "content": "<call>64/4</call>", "tool_calls": [call]}
    plan = Step("analyzer/0", "analyzer", None, [message("user", "Solve 4x = 64")], message("assistant", "64/4"))
    work = (
        Step("executor/0", "executor", None, [message("user", "Plan: 64/4")], asking),
        Step("executor/1", "executor", "executor/0", [message("tool", "16")], message("assistant", said)),
    )
    again = Step("analyzer/1", "analyzer", "analyzer/0", [message("user", "Rejected: 16")], asking)
    trajectories = (
        Trajectory("analyzer", (plan,), 1.0, StopReason.DONE),
        Trajectory("executor", work, 0.7, StopReason.DONE),
        Trajectory("analyzer", (again,), None, StopReason.MAX_TURNS),
    )
    return Episode("e", "linear-1", trajectories, Outcome.SUCCESS, metadata={"answer": "16"})


def test_the_turns_are_printed_agent_by_agent_in_order() -> None:
    text = printed(team())
    places = [
        text.index(t)
        for t in ("linear-1", "Solve 4x = 64", "» 64/4", "Plan: 64/4", "⚙ calculator(64/4) → 16", "» <ans>16</ans>")
    ]
    assert places == sorted(places)
    assert "analyzer" in text and "executor" in text and "analyzer · attempt 2" in text
    assert "reward 1.00" in text and "reward 0.70" in text and "no reward · used up its turns" in text
    assert "was not run" in text
    assert text.rstrip().endswith("✓ solved · the team's answer: 16")


def test_what_a_model_wrote_is_never_markup() -> None:
    text = printed(team("[bold red]16[/bold red] [link=http://x]y[/link] [/"))
    assert "[bold red]16[/bold red] [link=http://x]y[/link] [/" in text


def test_failures_and_errors_are_told_apart() -> None:
    assert "✗ not solved" in printed(replace(team(), outcome=Outcome.FAILURE))
    broken = replace(
        team(), outcome=Outcome.ERROR, metadata={"error": "ZeroDivisionError: division by zero (team.py:3)"}
    )
    assert "error · why: ZeroDivisionError: division by zero (team.py:3)" in printed(broken)


def test_long_messages_are_cut_and_say_so() -> None:
    text = printed(team("9" * 5000), width=200)
    assert "… (3000 more characters)" in text
    assert text.count("9") < 2200


def test_an_agent_that_said_nothing_and_an_empty_episode_still_print() -> None:
    silent = Episode("e", "t", (Trajectory("solver"), Trajectory("judge", (Step("j/0", "judge"),))), Outcome.TIMEOUT)
    text = printed(silent)
    assert "said nothing" in text and "(an empty answer)" in text and text.rstrip().endswith("timeout")
    assert printed(Episode("e", "t")).split() == ["t", "✗", "not", "solved"]


def test_an_episode_that_nobody_judged_shows_no_outcome() -> None:
    text = printed(replace(team(), outcome=Outcome.FAILURE, metadata={**team().metadata, "unpaid": True}))
    assert "solved" not in text
