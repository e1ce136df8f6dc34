"""After the last iteration: the registry, examples in words, the report."""

from __future__ import annotations

import json
import platform
import shlex
from pathlib import Path
from typing import Any

from troupe.monitoring.tasks_report import write_tasks_report
from troupe.stores.atomic import publish_folder, staged_folder, write_atomic
from troupe.stores.registry import Lineage, ModelRegistry
from troupe.stores.state import write_tensors
from troupe.systems.selfplay.verifiable.examples import write_examples
from troupe.systems.selfplay.verifiable.results import TaskResult
from troupe.systems.selfplay.verifiable.trainer import TaskTrainer

__all__ = ["finish"]


def finish(trainer: TaskTrainer, result: TaskResult) -> Path:
    """Registers a champion that solves more of the final tasks than the untrained networks do, and writes
    examples.json, summary.json and the report, whose path it returns."""
    registered = _register(trainer, result) if result.improved else None
    write_examples(trainer)
    final, folder = result.final, result.folder
    solver = f"from troupe import load_task_solver; solver = load_task_solver({json.dumps(str(folder))})"
    every = [decision for *_, decision in result.decisions]
    promotions = [decision for decision in every if decision.promote]
    deciding = promotions[-1:] if result.improved else every[-1:]  # what made the champion, or what was said last
    summary: dict[str, Any] = {
        "title": f"Tasks: {trainer.family.name}",
        "verdict": "improved" if result.improved else "not improved",
        "reasons": [reason for decision in deciding for reason in decision.reasons],
        "champion": result.champion,
        "final": final.to_dict(),
        "decisions": [[iteration, name, decision.to_dict()] for iteration, name, decision in result.decisions],
        "control": trainer.config.tasks.control,
        "seconds": result.seconds,
        "cpu_seconds": result.cpu_seconds,
        "machine": f"{platform.machine()}, Python {platform.python_version()}, CPU",
        "seed": trainer.config.seed,
        "registry": registered,
        "parameter_hash": result.parameter_hash,
        "commands": [f"python -i -c {shlex.quote(solver)}"],
    }
    write_atomic(folder / "summary.json", json.dumps(summary, indent=1).encode())
    return write_tasks_report(folder, summary)


def _register(trainer: TaskTrainer, result: TaskResult) -> str:
    """The champion as a version of its own, promoted once: a second call finds what is done."""
    name = trainer.family.name.replace(":", ".").replace(".", "_")
    registry = ModelRegistry(result.folder / "registry")
    versions = registry.versions(name) if name in registry.names() else []
    known = [n for n in versions if registry.describe(f"{name}@{n}")["lineage"]["data"]["champion"] == result.champion]
    if known:
        reference = f"{name}@{known[-1]}"
    else:
        bundle = result.folder / "champion"
        with staged_folder(bundle.parent, bundle.name) as staged:
            for kind, tensors in trainer.champion.items():
                write_tensors(staged / f"{kind}.safetensors", tensors)
            (staged / "config.json").write_text(json.dumps(trainer.config.model_dump(mode="json"), indent=1))
            publish_folder(staged, bundle)
        data = {"family": trainer.family.name, "seed": trainer.config.seed, "champion": result.champion}
        metrics = {"final/success": result.final.after.mean, "final/difference": result.difference.mean}
        lineage = Lineage(data, trainer.config.model_dump(mode="json"), metrics, None)
        reference = registry.register(name, bundle, lineage=lineage)
    if all(event["event"] != "promote" for event in registry.describe(reference)["history"]):
        registry.promote(reference)
    return reference
