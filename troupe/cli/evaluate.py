"""`troupe evaluate`, `troupe ask`, `troupe export`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from troupe.episode import Task
from troupe.errors import ConfigError

__all__ = ["ask", "evaluate", "export"]


def evaluate(arguments: argparse.Namespace) -> int:
    """pass@1, pass@k and maj@k with intervals, overall and by kind; tool-call validity where the team calls tools."""
    if arguments.n < 1 or arguments.size < 1:
        raise ConfigError(f"-n {arguments.n} and --size {arguments.size} must be at least 1")
    from rich.console import Console
    from rich.table import Table

    from troupe.cli.show import percent
    from troupe.systems.workflow_rl.deploy import load_team
    from troupe.systems.workflow_rl.tasks import load_tasks
    from troupe.tasks import GENERATORS
    from troupe.tasks.datasets import DatasetRegistry

    team = load_team(arguments.checkpoint)
    _expect(team.config.workflow.name, arguments.workflow, arguments.checkpoint)
    if arguments.data is None and not team.has_tasks:
        raise ConfigError(f"{arguments.checkpoint} was validated on tasks given in code; name a data set with --data")
    data = team.config.data
    name = arguments.data or data.val or data.train
    if name in GENERATORS:
        weights = data.kinds if name == data.train else {}
        tasks = load_tasks(data.model_copy(update={"train": name, "val": None, "kinds": weights}), team.config.seed)[1]
    else:
        tasks = DatasetRegistry(Path(arguments.data_root or data.root)).load_dataset(name, arguments.split)
    tasks = tasks[: arguments.size]
    report = team.evaluate(tasks, arguments.n, temperature=arguments.temperature, seed=arguments.seed)
    ks = sorted({1, arguments.n} | {k for k in (2, 4, 8, 16, 32) if k < arguments.n})
    voted = [f"maj@{arguments.n}"] if arguments.n > 1 and all(s.majority is not None for s in report.scores) else []
    table = Table(
        "tasks", "n", *(f"pass@{k}" for k in ks), *voted, title=f"{team.source} on {name} (95 % intervals over tasks)"
    )
    for kinds in [None, *([kind] for kind in report.kinds())]:
        chosen = [s for s in report.scores if kinds is None or s.kind in kinds]
        cells = [percent(report.success(kinds) if k == 1 else report.pass_at(k, kinds)) for k in ks]
        cells += [percent(report.majority(kinds)) for _ in voted]
        table.add_row("all" if kinds is None else kinds[0], str(len(chosen)), *cells)
    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # a pipe has no width of its own
    console.print(table)
    for metric, value in report.metrics.items():
        if metric.startswith(("workflow/", "episode/outcome/", "episode/sampled_tokens")):
            console.print(f"  {metric:<40} {value:.4f}")
    nll = team.demonstration_nll(tasks)
    if nll is not None:
        console.print(f"  {'demonstration NLL (nats per token)':<40} {nll:.4f}")
    if arguments.json:
        Path(arguments.json).write_text(json.dumps(report.to_dict(), indent=1))
    return 0


def _expect(found: str, wanted: str | None, path: str) -> None:
    if wanted is not None and found != wanted:
        raise ConfigError(f"{path} holds a team of the workflow {found!r}, not {wanted!r}")


def ask(arguments: argparse.Namespace) -> int:
    """Shows the team at work on a problem whose answer nobody told it. Exit code 0 whatever it answers."""
    from rich.console import Console

    from troupe.monitoring.conversation import conversation
    from troupe.systems.workflow_rl.deploy import load_team

    if not arguments.problem.strip():
        raise ConfigError('the problem is empty; write one in quotes, such as "3x + 5 = 20"')
    team = load_team(arguments.run)
    _expect(team.config.workflow.name, arguments.workflow, arguments.run)
    episode = team.answer(
        Task("asked", "asked", arguments.problem), temperature=arguments.temperature, seed=arguments.seed
    )
    console = Console(highlight=False)
    console.print(conversation(episode))
    verdicts = {1.0: "   (accepted by the verifier)", 0.0: "   (not accepted by the verifier)"}
    verdict = verdicts.get(episode.metrics.get("accepted", -1.0), "")
    console.print(f"answer: [bold]{episode.metadata.get('answer')}[/bold]{verdict}")
    return 0


def export(arguments: argparse.Namespace) -> int:
    from troupe.systems.workflow_rl.deploy import export as write
    from troupe.systems.workflow_rl.deploy import load_team

    for folder in write(load_team(arguments.run), Path(arguments.folder)):
        print(folder)
    return 0
