"""A trained team at work: loaded from a run, a checkpoint or a registry entry; asked, evaluated, exported.

A *bundle* is what a team needs to run: `config.json`, `inputs.json`, `start/` (the model the policies stand on) and one
`checkpoint_<update>/`. A run folder is one; so is what the registry holds.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError

from troupe.agents import AgentSpec
from troupe.batch import pack
from troupe.engines.local import LocalEngine
from troupe.episode import Episode, Task
from troupe.errors import StorageError
from troupe.protocols import Workflow
from troupe.stores.atomic import publish_folder, staged_folder
from troupe.stores.checkpoints import CheckpointStore, resolve
from troupe.systems.workflow_rl import inputs, setup, sft
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.systems.workflow_rl.inputs import Inputs
from troupe.training.credit import episode_metrics
from troupe.training.evaluation import Report
from troupe.training.objectives import recomputed_logprobs
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync

__all__ = ["LoadedTeam", "bundle", "export", "load_team"]


@dataclass(frozen=True)
class LoadedTeam:
    """A team that can run. `source` is the checkpoint folder, or the start folder where nothing was trained yet;
    `has_tasks` says whether its config names its held-out tasks (they may have been given in code)."""

    config: WorkflowRLConfig
    cast: setup.Cast
    engine: LocalEngine
    make_workflow: Callable[[], Workflow]
    source: Path
    has_tasks: bool = True

    def attempt(
        self, tasks: Sequence[Task], n: int = 1, *, temperature: float, purpose: str, seed: int
    ) -> list[Episode]:
        """`n` episodes per task, in order. The noise is keyed by (seed, purpose, task, attempt)."""
        jobs = [Job(task, k) for task in tasks for k in range(n)]
        settings = RolloutSettings(
            key=(seed, purpose),
            purpose=purpose,
            parallel=self.config.workflow.n_parallel_tasks,
            timeout=self.config.workflow.timeout,
        )
        specs: dict[str, AgentSpec] = self.cast.specs(self.config, temperature)
        return run_episodes_sync(jobs, self.make_workflow, self.engine, specs, settings)

    def answer(self, task: Task, *, temperature: float = 0.0, seed: int = 0) -> Episode:
        """One run on a task whose answer nobody knows: nothing is paid. The answer stands in `metadata["answer"]`."""
        settings = RolloutSettings(key=(seed, "answer"), purpose="answer")
        specs = self.cast.specs(self.config, temperature)
        return run_episodes_sync([Job(task)], self.make_workflow, self.engine, specs, settings, pay=False)[0]

    def demonstration_nll(self, tasks: Sequence[Task]) -> float | None:
        """Nats per token of noise-free demonstrations of the tasks under the team; None where none can be taught."""
        teacher = setup.teacher_class(self.config.workflow.name)
        teachable = [task for task in tasks if teacher is not None and teacher.can_teach(task)]
        if teacher is None or not teachable:
            return None
        speaker = next(iter(self.cast.policies.values()))
        episodes = sft.demonstrate(
            teachable, self.make_workflow, teacher(teachable, noise=0.0, seed=0), speaker, seed=0,
            max_prompt=speaker.model.max_positions,
        )  # fmt: skip
        batch = pack(episodes, pad_id=speaker.model.tokenizer.pad_token_id)
        rows = tuple(replace(row, policy=self.cast.agents[row.agent]) for row in batch.rows)
        trainer = self.config.trainer
        logprobs = recomputed_logprobs(
            replace(batch, rows=rows), self.cast.policies, budget=trainer.micro_batch_tokens,
            share=self.config.model.prefix_sharing,
        )  # fmt: skip
        return float(-(logprobs * batch["mask"]).sum() / batch["mask"].sum())

    def evaluate(self, tasks: Sequence[Task], n: int = 1, *, temperature: float = 1.0, seed: int = 0) -> Report:
        """Scores on tasks that have answers. Raises DataError for none."""
        episodes = self.attempt(tasks, n, temperature=temperature, purpose="evaluate", seed=seed)
        return Report.of(str(self.source), tasks, episodes, episode_metrics(episodes))


def load_team(
    path: str | Path,
    workflow_class: Callable[..., Workflow] | None = None,
    workflow_args: Mapping[str, Any] | None = None,
) -> LoadedTeam:
    """The team of a run folder (its latest checkpoint), a `checkpoint_<step>` folder, `.../best_model.pt`, a bundle, or
    `.../start`, the team before RL.

    A class and arguments that `AgentTrainer` was given must be given again, since a run folder holds no code. Raises
    StorageError where there is no team, and ConfigError for another class or other arguments than it was trained with.
    """
    path = Path(path)
    root, checkpoint = _locate(path)
    try:
        config = WorkflowRLConfig.model_validate_json((root / "config.json").read_text())
    except ValidationError as error:
        first = error.errors()[0]
        why = ": ".join([*filter(None, [".".join(map(str, first["loc"]))]), first["msg"]])
        raise StorageError(f"{root / 'config.json'} is not the config of a workflow run ({why})") from error
    torch.set_num_threads(config.trainer.threads)
    given = workflow_args or {}
    built_in = setup.workflow_class_of(config.workflow.name)
    own = None if workflow_class in (None, built_in) else workflow_class
    trained_with = Inputs.read(root)
    trained_with.check(Inputs.of(own, given), root)
    make_workflow = setup.make_workflow_factory(
        own or built_in,
        {**config.workflow.args, **given},
        None if own else config.workflow.name,
        isolation=config.workflow.isolation,
    )
    model = setup.base_model(config, (), root / "start")
    team = setup.cast(config, make_workflow().agent_names, model)
    if checkpoint is not None:
        stored = CheckpointStore(checkpoint.parent).load(checkpoint)
        for policy_name, policy in team.policies.items():
            policy.load_state(stored.tensors[f"policy_{policy_name}"])
            policy.version = stored.state["versions"][policy_name]
    engine = LocalEngine(team.policies, max_batch=config.rollout.max_batch, cache_bytes=config.rollout.cache_mb << 20)
    source = checkpoint or root / "start"
    return LoadedTeam(config, team, engine, make_workflow, source, has_tasks=trained_with.val is None)


def _locate(path: Path) -> tuple[Path, Path | None]:
    """(folder with config.json and start/, checkpoint folder or None)."""
    if (path / "config.json").exists() and (path / "start").exists():
        found = CheckpointStore(path).latest()
        return path, None if found is None else path / f"checkpoint_{found}"
    if path.name == "start" and (path.parent / "config.json").exists() and path.exists():
        return path.parent, None
    checkpoint = resolve(path)
    if not (checkpoint.parent / "config.json").exists() or not (checkpoint.parent / "start").exists():
        raise StorageError(f"{path} is not the folder of a workflow run; give the folder that holds its config.json")
    return checkpoint.parent, checkpoint


def bundle(run: Path, checkpoint: Path | None, target: Path) -> Path:
    """Copies what a team needs out of a run folder into `target`, whole or not at all; replaces an old one.

    Without a checkpoint it is the team that RL started from.
    """
    with staged_folder(target.parent, target.name) as staged:
        for name in ("config.json", inputs.NAME):
            shutil.copy(run / name, staged / name)
        shutil.copytree(run / "start", staged / "start")
        if checkpoint is not None:
            shutil.copytree(checkpoint, staged / checkpoint.name)
        publish_folder(staged, target)
    return target


def export(team: LoadedTeam, folder: Path) -> list[Path]:
    """Each policy as an ordinary Hugging Face model with merged weights, and `agents.json` (agent -> folder)."""
    written = []
    for name, policy in team.cast.policies.items():
        policy.export(folder / name)
        written.append(folder / name)
    (folder / "agents.json").write_text(json.dumps(team.cast.agents, indent=2))
    return written
