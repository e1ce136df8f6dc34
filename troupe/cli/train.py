"""`troupe train workflow`."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.config import Resolved, load
from troupe.errors import ConfigError, did_you_mean
from troupe.systems.workflow_rl.config import ALIASES, WorkflowRLConfig

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["begin", "preset_path", "resolve_config", "show_end", "train_workflow", "use_threads"]

_PRESETS = Path(__file__).parent.parent / "configs"


def preset_path(name: str, system: str = "") -> Path:
    """The YAML file of a named preset; `system` is the folder of those of other systems than teams. Raises ConfigError
    with the names that exist."""
    folder = _PRESETS / system
    path = folder / f"{name}.yaml"
    if not path.exists():
        raise ConfigError(
            f"--preset {name!r} is not known{did_you_mean(name, [p.stem for p in folder.glob('*.yaml')])}"
        )
    return path


def resolve_config(preset: str, files: Sequence[str], overrides: Sequence[str]) -> Resolved[WorkflowRLConfig]:
    """Preset, files and overrides in one. `workflow=NAME` is short for `workflow.name=NAME`."""
    spelled = [f"workflow.name={o.partition('=')[2]}" if o.startswith("workflow=") else o for o in overrides]
    return load(WorkflowRLConfig, preset=preset_path(preset), files=files, overrides=spelled, aliases=ALIASES)


def use_threads(threads: int) -> None:
    """OpenMP reads its settings when torch is imported. A passive wait keeps idle threads off the other cores."""
    os.environ.setdefault("OMP_NUM_THREADS", str(threads))
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")


def begin(arguments: argparse.Namespace, resolved: Resolved[Any]) -> Console | None:
    """Where a run writes to, with its threads set. None where it was only to show its config, which is then shown."""
    if arguments.print_config:
        print(resolved.describe())
        return None
    use_threads(resolved.config.trainer.threads)
    from rich.console import Console

    return Console(highlight=False)


def show_end(console: Console, result: Any, report: Path) -> None:
    """The last lines of a run: what it cost, and where it lies."""
    console.print(f"{result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU-seconds in all processes of the run so far")
    last = f"report: {report}   run folder: {result.folder}   weights: {result.parameter_hash[:16]}"
    console.print(last, soft_wrap=True)


def train_workflow(arguments: argparse.Namespace) -> int:
    resolved = resolve_config(arguments.preset, arguments.config, arguments.overrides)
    if arguments.print_config:
        print(resolved.describe())
        return 0
    use_threads(resolved.config.trainer.threads)
    from troupe.cli.show import Display
    from troupe.systems.workflow_rl.trainer import AgentTrainer

    if arguments.dry_run:
        from troupe.cli.show import show_preview
        from troupe.systems.workflow_rl.preview import preview

        show_preview(preview(AgentTrainer(config=resolved.config)))
        return 0
    with Display() as display:
        trainer = AgentTrainer(config=resolved.config, progress=display)
        display.credit(trainer.credit_rows())
        result = trainer.train()
    display.reports(result.reports)
    display.say(f"run folder: {result.folder}   weights: {result.parameter_hash[:16]}")
    return 0
