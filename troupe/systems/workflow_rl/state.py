"""What a run must remember to continue exactly: weights, optimisers, counters, baselines, snapshots, byte offsets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from troupe.stores import run_config
from troupe.stores.atomic import publish_folder, staged_folder
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.training.evaluation import Report

if TYPE_CHECKING:
    from troupe.models.language import LanguageModel
    from troupe.systems.workflow_rl.trainer import AgentTrainer

__all__ = ["remember_config", "restore", "save", "save_start"]

_MAY_CHANGE = tuple(
    f"trainer.{key}"
    for key in (
        "total_epochs", "total_steps", "save_freq", "keep_last", "logger", "resume", "default_local_dir", "val_only",
    )
)  # fmt: skip
"""Keys that a continued run may set anew; any other change would make it another run."""


def remember_config(folder: Path, config: WorkflowRLConfig) -> None:
    """Writes config.json; refuses a folder that was begun with another config (StorageError names the first key)."""
    run_config.remember_config(
        folder, config.model_dump(mode="json"), WorkflowRLConfig().model_dump(mode="json"), _MAY_CHANGE
    )


def save_start(model: LanguageModel, folder: Path) -> None:
    """The model that RL starts from, as Hugging Face files; whole or not at all."""
    with staged_folder(folder.parent, folder.name) as staged:
        model.save(staged)
        publish_folder(staged, folder)


def save(run: AgentTrainer, metrics: Mapping[str, float]) -> None:
    """A checkpoint of the run as it stands between two updates."""
    tensors = {f"policy_{name}": policy.state() for name, policy in run.policies.items()}
    tensors |= {f"critic_{name}": dict(critic.state_dict()) for name, critic in run.critics.items()}
    tensors |= {f"frozen_{name}": policy.state() for name, policy in run.frozen.items()}
    latest = run.reports.get(max(run.reports, default=-1))
    scored = {} if latest is None else {"val/pass@1": latest.success().mean}
    run.store.save(
        run.update,
        tensors,
        {
            "update": run.update,
            "phase": run.phase,
            "cursor": run.collector.cursor,
            "learner": run.learner.state_dict(),
            "baselines": run.baselines,
            "versions": {name: policy.version for name, policy in run.policies.items()},
            "frozen_versions": {name: policy.version for name, policy in run.frozen.items()},
            "episodes": run.episodes.offset,
            "tracker": run.tracker.offset,
            "reports": {str(update): report.to_dict() for update, report in run.reports.items()},
        },
        {**{k: v for k, v in metrics.items() if k.startswith("reward/")}, **scored},
    )


def restore(run: AgentTrainer) -> bool:
    """Continues from the latest checkpoint; drops what the stores hold beyond it. False where there is none."""
    if run.store.latest() is None:
        run.episodes.truncate(0)
        run.tracker.truncate(0, 0)
        return False
    checkpoint = run.store.load("latest")
    stored = checkpoint.state
    for name, policy in run.policies.items():
        policy.load_state(checkpoint.tensors[f"policy_{name}"])
        policy.version = stored["versions"][name]
    for name, critic in run.critics.items():
        critic.load_state_dict(checkpoint.tensors[f"critic_{name}"])
    run.learner.load_state_dict(stored["learner"])
    run.update, run.phase, run.baselines = stored["update"], stored["phase"], stored["baselines"]
    run.collector.cursor = stored["cursor"]
    frozen = {}
    for group in checkpoint.tensors:
        if group.startswith("frozen_"):
            name = group.removeprefix("frozen_")
            frozen[name] = run.policies[name].snapshot(f"{name}@frozen")
            frozen[name].load_state(checkpoint.tensors[group])
            frozen[name].version = stored["frozen_versions"][name]
    if run.phase >= 0:
        run.enter_phase(frozen)
    run.episodes.truncate(stored["episodes"])
    run.tracker.truncate(stored["tracker"], run.update)
    run.reports = {int(update): Report.from_dict(report) for update, report in stored["reports"].items()}
    return True
