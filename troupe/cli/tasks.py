"""`troupe train tasks`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from troupe.cli.train import begin, preset_path, show_end
from troupe.config import Resolved, load
from troupe.systems.selfplay.verifiable.config import ALIASES, VerifiableConfig

if TYPE_CHECKING:
    from troupe.systems.selfplay.verifiable.results import TaskResult

__all__ = ["resolve_tasks", "train_tasks"]

DEFAULT_FAMILY = "math"
PRESETS = ("code", "math", "picture", "reasoning", "search")
"""Families with a preset of their own, in `troupe/configs/tasks/`."""


def resolve_tasks(
    preset: str | None, files: Sequence[str], overrides: Sequence[str], *, tenth: bool = False
) -> Resolved[VerifiableConfig]:
    """Preset, files and overrides in one. `family=NAME` brings the family's preset along where there is one and no
    other is named; `tenth` makes a tenth of it."""
    families = [o.partition("=")[2] for o in overrides if o.startswith(("family=", "tasks.family="))]
    path = None
    if preset is not None:
        path = preset_path(preset, "tasks")
    elif not files and (families[-1:] or [DEFAULT_FAMILY])[0] in PRESETS:
        path = preset_path(families[-1] if families else DEFAULT_FAMILY, "tasks")
    shorter = [str(preset_path("tenth", "tasks"))] if tenth else []
    return load(VerifiableConfig, preset=path, files=[*shorter, *files], overrides=overrides, aliases=ALIASES)


def train_tasks(arguments: argparse.Namespace) -> int:
    """Exit code 3 where the champion does not solve more of the final tasks than the untrained networks do, and than a
    search without any network."""
    resolved = resolve_tasks(arguments.preset, arguments.config, arguments.overrides, tenth=arguments.tenth)
    console = begin(arguments, resolved)
    if console is None:
        return 0
    from troupe.systems.selfplay.verifiable.finish import finish
    from troupe.systems.selfplay.verifiable.trainer import TaskTrainer

    trainer = TaskTrainer(resolved.config, progress=_Lines(console))
    result = trainer.train()
    report = finish(trainer, result)
    _show(console, result)
    show_end(console, result, report)
    return 0 if result.improved else 3


class _Lines:
    """A progress callback: one line per iteration."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._began = time.monotonic()

    def __call__(self, phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        parts = [
            f"{time.monotonic() - self._began:6.0f} s",
            f"iteration {step}/{total}",
            f"{metrics['tasks/success']:.0%} of {metrics['tasks/attempts']:.0f} attempts solved",
        ]
        if "gate/success" in metrics:
            verdict = "[bold]promoted[/bold]" if metrics["gate/promoted"] else "not promoted"
            parts.append(f"{metrics['gate/success']:.0%} of the gate's tasks, {verdict}")
        self._console.print("   ".join(parts), soft_wrap=True)


def _show(console: Any, result: TaskResult) -> None:
    from rich.table import Table

    from troupe.cli.show import percent

    final = result.final
    table = Table("kind", "tasks", "untrained", "champion", "difference", title="Final held-out tasks (95 % intervals)")
    rows = [("all", final.before, final.after, final.difference)]
    rows += [(own.kind, own.before, own.after, own.difference) for own in final.kinds]
    for name, before, after, gap in rows:
        told = f"{100 * gap.mean:+.1f} [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}] points"
        table.add_row(name, str(gap.n), percent(before), percent(after), told)
    console.print(table)
    over = final.over_uniform
    told = f"{100 * over.mean:+.1f} [{100 * over.low:+.1f}, {100 * over.high:+.1f}] points"
    console.print(
        f"A search without any network solves {percent(final.uniform)} of them: champion {told}", soft_wrap=True
    )
    for iteration, incumbent, decision in result.decisions:
        console.print(f"iteration {iteration} against {incumbent}: {decision.reasons[0]}", soft_wrap=True)
    if result.improved:
        console.print(f"[bold]Improved: {result.champion} (McNemar's p = {final.p:.2g}).[/bold]")
    else:
        why = "no candidate passed the gate" if not result.promoted else "the final tasks show no gain"
        console.print(f"[bold]Nothing improved: {why}.[/bold]")
