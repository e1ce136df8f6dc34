"""One episode in the terminal, agent by agent: `rich.print(conversation(episode))`."""

from __future__ import annotations

from typing import TYPE_CHECKING

from troupe.episode import Episode, Outcome
from troupe.monitoring.turns import Part, ToolCall, Turn, parts, problem_text

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.text import Text

__all__ = ["conversation"]

_COLOURS = ("blue", "dark_orange", "green", "magenta", "cyan", "yellow", "red", "white")
_OUTCOMES = {Outcome.SUCCESS: ("✓ solved", "bold green"), Outcome.FAILURE: ("✗ not solved", "bold red")}
_LONG = 2000
"""Characters of one message that are printed; a screen is no place for a whole document."""


def conversation(episode: Episode) -> RenderableType:
    """A renderable for rich: the problem, each agent's turns in a panel of its own with its reward, and the outcome.

    An episode that ran without answers (`metadata["unpaid"]`) has no outcome to show. Nothing that a user or a model
    wrote is read as console mark-up.
    """
    from rich.console import Group

    found = parts(episode)
    judged = [] if episode.metadata.get("unpaid") else [_closing(episode)]
    colours = {agent: _COLOURS[i % len(_COLOURS)] for i, agent in enumerate(dict.fromkeys(p.agent for p in found))}
    return Group(_opening(episode), *(_panel(part, colours[part.agent]) for part in found), *judged)


def _opening(episode: Episode) -> Text:
    from rich.text import Text

    text = Text()
    text.append(episode.task_id, style="dim")
    problem = problem_text(episode)
    if problem:
        text.append("\n" + _shortened(problem), style="bold")
    return text


def _panel(part: Part, colour: str) -> RenderableType:
    from rich.console import Group
    from rich.panel import Panel
    from rich.text import Text

    title = Text(part.agent, style=f"bold {colour}")
    if part.attempt > 1:
        title.append(f" · attempt {part.attempt}", style="not bold")
    paid = Text("no reward" if part.reward is None else f"reward {part.reward:.2f}", style="dim")
    if part.stopped:
        paid.append(f" · {part.stopped}", style="yellow")
    lines = [line for turn in part.turns for line in _turn(turn, colour)] or [Text("said nothing", style="dim")]
    return Panel(
        Group(*lines), title=title, title_align="left", subtitle=paid, subtitle_align="right", border_style=colour
    )


def _turn(turn: Turn, colour: str) -> list[Text]:
    from rich.text import Text

    lines = [Text(f"{role}: {_shortened(text)}", style="dim") for role, text in turn.told]
    if turn.said:
        lines.append(Text("» ", style=colour).append(_shortened(turn.said), style="default"))
    lines += [_call(call) for call in turn.calls]
    if turn.cut:
        lines.append(Text("  the length limit ended this answer", style="yellow"))
    if turn.reward is not None:
        lines.append(Text(f"  step reward {turn.reward:.2f}", style="dim"))
    return lines or [Text("» (an empty answer)", style="dim")]


def _call(call: ToolCall) -> Text:
    from rich.text import Text

    text = Text("  ⚙ ").append(f"{call.tool}({_shortened(call.arguments)})", style="italic")
    if call.result is None:
        return text.append(" was not run", style="yellow")
    return text.append(f" → {_shortened(call.result)}", style="red" if call.result.startswith("error") else "default")


def _closing(episode: Episode) -> Text:
    from rich.text import Text

    words, style = _OUTCOMES.get(episode.outcome, (str(episode.outcome), "bold yellow"))
    text = Text(words, style=style)
    for key, label in (("answer", "the team's answer"), ("error", "why")):
        if episode.metadata.get(key) is not None:
            text.append(f" · {label}: {_shortened(str(episode.metadata[key]))}", style="not bold default")
    return text


def _shortened(text: str) -> str:
    if len(text) <= _LONG:
        return text
    return f"{text[:_LONG]} … ({len(text) - _LONG} more characters)"
