"""`troupe demo`: tasks and imperfect demonstrations -> SFT -> RL with one reward per agent -> gate -> registry ->
report.

Run again after an interruption, it continues; run again after its end, it decides and reports again without training.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.cli.train import resolve_config, use_threads
from troupe.errors import ConfigError

if TYPE_CHECKING:
    from troupe.cli.show import Display
    from troupe.systems.workflow_rl.trainer import AgentTrainer, TrainResult
    from troupe.training.evaluation import Decision, Report

__all__ = ["GATED_KINDS", "demo"]

GATED_KINDS = ("linear", "word")
"""The gate compares these kinds; the others are trained and reported apart."""

MODEL = "math_team"


def demo(arguments: argparse.Namespace) -> int:
    """Exit code 0 where the team improved and was promoted, 3 where it was not."""
    folder = Path(arguments.run_dir or ("runs/demo-shuffled" if arguments.shuffle_answers else "runs/demo"))
    forced = [f"trainer.default_local_dir={json.dumps(str(folder))}", f"seed={arguments.seed}"]
    if arguments.shuffle_answers:
        forced.append("data.shuffle_answers=true")
    config = resolve_config("demo", [], [*arguments.overrides, *forced]).config
    use_threads(config.trainer.threads)
    began = time.time(), time.process_time()
    from troupe.cli.show import Display
    from troupe.systems.workflow_rl.trainer import AgentTrainer

    continued = (folder / "start" / "config.json").exists() or (folder / "sft").exists()
    with Display() as display:
        _announce(display, folder, arguments.shuffle_answers, continued)
        trainer = AgentTrainer(config=config, progress=display)
        display.credit(trainer.credit_rows())
        result = trainer.train()
    before, after = _reports(result)
    decision, promoted = _decide(folder, result, before, after)
    summary = _summary(trainer, result, before, after, decision, promoted)
    if not continued:  # nobody clocked the processes that came before
        summary |= {"seconds": time.time() - began[0], "cpu_seconds": time.process_time() - began[1]}
    _show(display, folder, summary)
    return 0 if decision.promote else 3


def _announce(display: Display, folder: Path, shuffled: bool, continued: bool) -> None:
    display.say(
        f"[bold]{'Continuing' if continued else 'Training'} a team of three agents[/bold] "
        f"(analyzer, executor with a calculator, verifier) in {folder}"
    )
    display.say("random weights -> imitation of an imperfect teacher -> reinforcement learning -> held-out comparison")
    display.say("It takes two to five minutes on two cores. Ctrl-C is safe: the same command continues.")
    if shuffled:
        display.say(
            "[yellow]Negative control: training answers are permuted, so nothing can be learned from rewards.[/yellow]"
        )


def _reports(result: TrainResult) -> tuple[Report, Report]:
    if 0 not in result.reports or result.updates not in result.reports:
        raise ConfigError("the demo compares before with after; keep trainer.val_before_train and trainer.test_freq on")
    return result.reports[0], result.reports[result.updates]


def _decide(folder: Path, result: TrainResult, before: Report, after: Report) -> tuple[Decision, str]:
    """The gate's word, and what is in production. The incumbent is registered first, so there is always one to keep.

    Killed anywhere and run again, it does what is left to do, and no step twice.
    """
    from troupe.stores.registry import Lineage, ModelRegistry
    from troupe.systems.workflow_rl.deploy import bundle
    from troupe.training.evaluation import Gate

    decision = Gate(kinds=GATED_KINDS).decide(after, before)
    registry = ModelRegistry(folder / "registry")
    config = json.loads((folder / "config.json").read_text())
    versions = registry.versions(MODEL) if MODEL in registry.names() else []
    entries = ((0, None, before), (result.updates, folder / f"checkpoint_{result.updates}", after))
    for number, (update, checkpoint, report) in enumerate(entries, start=1):
        ref = f"{MODEL}@{number}"
        if number not in versions:
            data = {"source": config["data"]["train"], "seed": config["seed"], "update": update}
            metrics = {"val/pass@1": report.success(GATED_KINDS).mean}
            lineage = Lineage(data, config, metrics, f"{MODEL}@1" if number > 1 else None)
            registry.register(MODEL, bundle(folder, checkpoint, folder / "bundle"), lineage=lineage)
        promoted = any(event["alias"] == "production" for event in registry.describe(ref)["history"])
        if not promoted and (number == 1 or decision.promote):
            registry.promote(ref)
    return decision, f"{MODEL}@{registry.describe(f'{MODEL}@production')['version']}"


def _summary(
    trainer: AgentTrainer,
    result: TrainResult,
    before: Report,
    after: Report,
    decision: Decision,
    production: str,
) -> dict[str, Any]:
    return {
        "title": "Troupe demo: three agents, one calculator",
        "verdict": "promoted" if decision.promote else "not promoted",
        "reasons": list(decision.reasons),
        "credit_table": [asdict(row) for row in trainer.credit_rows()],
        "before": asdict(before.success(GATED_KINDS)),
        "after": asdict(after.success(GATED_KINDS)),
        "difference": None if decision.difference is None else asdict(decision.difference),
        "by_kind": [
            {
                "kind": kind,
                "gated": kind in GATED_KINDS,
                "before": asdict(before.success([kind])),
                "after": asdict(after.success([kind])),
            }
            for kind in after.kinds()
        ],
        "machine": f"{platform.machine()}, Python {platform.python_version()}, CPU, 1 thread",
        "seed": trainer.config.seed,
        "registry": production,
        "parameter_hash": result.parameter_hash,
        "commands": _commands(result.folder),
    }


def _commands(folder: Path) -> list[str]:
    return [
        f'.venv/bin/troupe ask {folder} "3x + 5 = 20"',
        f".venv/bin/troupe evaluate --checkpoint {folder} -n 8",
        ".venv/bin/troupe train workflow --preset demo trainer.default_local_dir=runs/mine optim.lr=1e-4",
    ]


def _show(display: Display, folder: Path, summary: Mapping[str, Any]) -> None:
    from rich.table import Table

    from troupe.cli.show import percent
    from troupe.maths.statistics import Interval
    from troupe.monitoring.conversation import conversation
    from troupe.monitoring.report import write_report
    from troupe.stores.atomic import write_atomic

    for name, episode in _one_task(folder):
        display.say(f"\n[bold]{name}[/bold]")
        display.say(conversation(episode))
    table = Table("kind", "in the gate", "before RL", "after RL", title="Sampled held-out success, 95 % intervals")
    rows = [{"kind": "all gated", "gated": True, **{k: summary[k] for k in ("before", "after")}}, *summary["by_kind"]]
    for row in rows:
        cells = [percent(Interval(**row[key])) for key in ("before", "after")]
        table.add_row(row["kind"], "yes" if row["gated"] else "no", *cells)
    display.say(table)
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1).encode())
    report = write_report(folder, summary)
    promoted = summary["verdict"] == "promoted"
    colour = "green" if promoted else "red"
    headline = "The team improved and was promoted" if promoted else "The team did not improve; nothing was promoted"
    display.say(f"[bold {colour}]{headline}.[/bold {colour}] {' '.join(summary['reasons'])}")
    display.say(f"in production: {summary['registry']}   report: {report}")
    display.say("\nNext:")
    for command in summary["commands"]:
        display.console.print(f"  {command}", soft_wrap=True)


def _one_task(folder: Path) -> Sequence[tuple[str, Any]]:
    """One held-out task before and after: the first that went from failure to success, else the first."""
    from troupe.episode import Outcome
    from troupe.stores.episodes import EpisodeStore

    last = max(int(p.stem.rpartition("_")[2]) for p in (folder / "val").glob("episodes_*.jsonl"))
    before = list(EpisodeStore(folder / "val" / "episodes_0.jsonl", mode="r"))
    after = {e.task_id: e for e in EpisodeStore(folder / "val" / f"episodes_{last}.jsonl", mode="r")}
    pairs = [(e, after[e.task_id]) for e in before if e.task_id in after]
    turned = [p for p in pairs if p[0].outcome is Outcome.FAILURE and p[1].outcome is Outcome.SUCCESS]
    chosen = (turned or pairs)[:1]
    return [(f"{when} RL", e) for pair in chosen for when, e in zip(("before", "after"), pair, strict=True)]
