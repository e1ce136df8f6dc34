"""`AgentTrainer`: collect, give credit, learn, validate, save."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from troupe.batch import Batch, minibatches, pack
from troupe.config import load
from troupe.engines.local import LocalEngine
from troupe.episode import Episode, Task
from troupe.errors import ConfigError, CreditError, TrainingError
from troupe.maths.losses import KL_ESTIMATORS, truncated_importance_weights
from troupe.models.language import Policy, ValueModel
from troupe.stores.atomic import write_atomic
from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.episodes import EpisodeStore
from troupe.stores.run_config import make_run_folder
from troupe.stores.state import parameter_hash
from troupe.stores.tracking import Tracker
from troupe.systems.workflow_rl import setup, sft, state
from troupe.systems.workflow_rl.alarms import alarms
from troupe.systems.workflow_rl.collect import Collector
from troupe.systems.workflow_rl.config import ALIASES, WorkflowRLConfig
from troupe.systems.workflow_rl.inputs import Inputs
from troupe.systems.workflow_rl.tasks import load_tasks, practised, without_overlong
from troupe.training.credit import CreditRow, assign, episode_metrics, trainable
from troupe.training.evaluation import Report
from troupe.training.learner import Learner, OptimizerGroup, adamw, cosine_with_warmup
from troupe.training.objectives import Meter, critic_values, language_policy, recomputed_logprobs
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows.single_agent import SingleAgentWorkflow

__all__ = ["AgentTrainer", "TrainResult"]

log = logging.getLogger(__name__)

Progress = Callable[[str, int, int, Mapping[str, float]], None]


@dataclass(frozen=True)
class TrainResult:
    """What a run ended with. `reports` maps the update to its validation report (0: before the first update)."""

    folder: Path
    updates: int
    parameter_hash: str
    reports: dict[int, Report] = field(default_factory=dict)
    metrics: dict[str, float] = field(default_factory=dict)


class AgentTrainer:
    """Trains a team (document 004). Every argument has a default in the config.

    `config` is a `WorkflowRLConfig`, a mapping, or a YAML file; datasets are lists of `Task`. `teacher_class(tasks,
    noise=, seed=)` demonstrates a workflow of one's own for supervised fine-tuning: called with a `GenerationRequest`
    it returns what the agent says, and its `can_teach(task)` says which tasks it knows. The folder
    `trainer.default_local_dir` holds the whole run and is what a second call continues.

    `agent_class` and `env_class`, with `agent_args` and `env_args`, train a single agent in an environment (see
    `troupe.SingleAgentWorkflow`, which such a run is loaded with) in place of a workflow class. Raises ConfigError for
    one without the other, and for both ways at once.
    """

    def __init__(
        self,
        workflow_class: type[Any] | None = None,
        workflow_args: Mapping[str, Any] | None = None,
        config: WorkflowRLConfig | Mapping[str, Any] | str | Path | None = None,
        train_dataset: Sequence[Task] | None = None,
        val_dataset: Sequence[Task] | None = None,
        *,
        agent_class: Callable[..., Any] | None = None,
        env_class: Callable[..., Any] | None = None,
        agent_args: Mapping[str, Any] | None = None,
        env_args: Mapping[str, Any] | None = None,
        teacher_class: type[Any] | None = None,
        progress: Progress | None = None,
    ) -> None:
        single = {"agent_class": agent_class, "env_class": env_class, "agent_args": agent_args, "env_args": env_args}
        if any(part is not None for part in single.values()):
            workflow_class, workflow_args = _single_agent(workflow_class, workflow_args, single)
        self.config = _as_config(config)
        torch.set_num_threads(self.config.trainer.threads)
        self.folder = Path(self.config.trainer.default_local_dir)
        name = self.config.workflow.name
        self.workflow_class = workflow_class or setup.workflow_class_of(name)
        known = name if self.workflow_class is setup.WORKFLOWS.get(name) else None
        self.teacher_class = teacher_class or (None if known is None else setup.teacher_class(known))
        self.make_workflow = setup.make_workflow_factory(
            self.workflow_class,
            {**self.config.workflow.args, **(workflow_args or {})},
            known,
            isolation=self.config.workflow.isolation,
        )
        own = None if known else self.workflow_class
        self.inputs = Inputs.of(own, workflow_args or {}, train_dataset, val_dataset, teacher_class)
        train, val = (
            load_tasks(self.config.data, self.config.seed) if train_dataset is None or val_dataset is None else ([], [])
        )
        self.train_tasks = list(train_dataset) if train_dataset is not None else train
        self.val_tasks = list(val_dataset) if val_dataset is not None else val
        if not self.train_tasks or not self.val_tasks:
            raise ConfigError("the training or validation data set is empty; nothing could be learned or measured")
        self.progress: Progress = progress or (lambda phase, step, total, metrics: None)
        self.update = 0  # updates done
        self.phase = -1  # of mode=separate
        self.baselines: dict[str, Any] = {}  # running means per agent (rae)
        self.reports: dict[int, Report] = {}
        self.frozen: dict[str, Policy] = {}  # snapshots that act in the present phase

    def credit_rows(self) -> list[CreditRow]:
        """agent -> policy -> trained? -> reward -> group -> estimator: what `troupe train` prints once."""
        return setup.credit_rows(self.config, self.make_workflow())

    # ------------------------------------------------------------------------------------------ the run

    def train(self) -> TrainResult:
        """Runs to the end of the budget, from wherever the run folder stands. Raises TrainingError, StorageError."""
        self._open()
        with ExitStack() as opened:
            self._start(opened)
            return self._trained()

    def _trained(self) -> TrainResult:
        if self.config.trainer.val_only:
            return self._result({self.update: self.validate(self.update)})
        while self.update < self.total_updates:
            self._phase()
            metrics = self._one_update()
            self.tracker.log(metrics, self.update)
            self.progress("rl", self.update, self.total_updates, metrics)
            if self._due(self.config.trainer.test_freq):
                self.reports[self.update] = self.validate(self.update)
            if self._due(self.config.trainer.save_freq):
                self._save(metrics)
        return self._result(self.reports)

    def _due(self, period: int) -> bool:
        return period > 0 and (self.update % period == 0 or self.update == self.total_updates)

    def _one_update(self) -> dict[str, float]:
        """Collect -> credit -> learn. One screen, as the textbook has it."""
        began = time.perf_counter(), time.process_time()
        versions = {name: self.policies[name].version for name in self._learning_policies()}
        specs = self.acting.specs(self.config, self.config.rollout.temperature)
        found = self.collector.collect(self.update, specs, self.learning, versions)
        collected = time.perf_counter(), time.process_time()
        made = [*found.kept, *found.left_out]
        metrics = episode_metrics(made) | found.counts
        self.episodes.append(made)
        kept = trainable(found.kept)
        metrics["rollout/not_trained_on"] = float(len(made) - len(kept))
        batch = self._credited(kept, metrics)
        if batch is not None:
            metrics = self._learn(batch) | metrics
        for name in self._learning_policies():
            self.policies[name].version += 1
        self.engine.forget()
        self.update += 1
        for warning in alarms(metrics, self.learning):
            log.warning("update %d: %s", self.update, warning)
        ended = time.perf_counter(), time.process_time()
        timing = {"time/rollout_s": collected[0] - began[0], "time/update_s": ended[0] - collected[0]}
        timing |= {"cpu/rollout_s": collected[1] - began[1], "cpu/update_s": ended[1] - collected[1]}
        self.tracker.log_timing(timing, self.update)
        return metrics

    def _credited(self, episodes: Sequence[Episode], metrics: dict[str, float]) -> Batch | None:
        """The update's batch with advantages, or None where there is no signal to learn from."""
        config = self.config
        if not any(step.tokens and step.agent in self.learning for episode in episodes for step in episode.steps()):
            return None
        batch = pack(episodes, agents=self.learning, pad_id=self._pad)
        metrics["rollout/forked_steps"] = float(batch.forks)
        if self.update == 0:
            self._check_logprobs(batch, metrics)
        budget, share = config.trainer.micro_batch_tokens, config.model.prefix_sharing
        values = critic_values(batch, self.critics, budget=budget, share=share) if self.critics else None
        if config.algorithm.importance != "none":
            batch = self._weighted(batch, metrics)
        if config.algorithm.kl_beta > 0:
            reference = recomputed_logprobs(batch, self.references, budget=budget, share=share)
            batch = batch.with_columns(ref_logprobs=reference)
        credited = assign(episodes, batch, config.algorithm, values=values, baselines=self.baselines)
        self.baselines = credited.baselines
        metrics |= credited.metrics
        batch = credited.batch if values is None else credited.batch.with_columns(values=values)
        return self._with_signal(batch, metrics)

    def _weighted(self, batch: Batch, metrics: dict[str, float]) -> Batch:
        """Decoupled ratios (Hilton et al. 2022, arXiv:2110.00641): the clip is around the weights as the update finds
        them, and a truncated weight corrects for those that sampled."""
        algorithm, trainer = self.config.algorithm, self.config.trainer
        sampled, mask = batch["old_logprobs"], batch["mask"]
        now = recomputed_logprobs(
            batch, self.policies, budget=trainer.micro_batch_tokens, share=self.config.model.prefix_sharing
        )
        weights = truncated_importance_weights(now, sampled, algorithm.importance_cap, algorithm.importance, mask)
        tokens = mask.sum().clamp(min=1)
        metrics["training/mismatch_kl"] = float((KL_ESTIMATORS["k3"](now - sampled) * mask).sum() / tokens)
        metrics["training/importance_mean"] = float(weights.sum() / tokens)
        capped = (weights >= algorithm.importance_cap * (1 - 1e-6)) & mask.bool()
        metrics["training/importance_truncated"] = float(capped.sum() / tokens)
        return batch.with_columns(old_logprobs=now, importance=weights)

    def _with_signal(self, batch: Batch, metrics: dict[str, float]) -> Batch | None:
        """Without a critic, rows whose advantages are all zero have no gradient unless a penalty gives them one."""
        algorithm = self.config.algorithm
        metrics["rollout/rows"] = float(len(batch))
        in_loss = algorithm.kl_beta > 0 and algorithm.kl_in == "loss"
        if self.critics or in_loss or any(algorithm.of(agent).entropy_coeff > 0 for agent in self.learning):
            return batch
        keep = torch.nonzero((batch["advantages"] != 0).any(1))[:, 0]
        metrics["rollout/rows_without_signal"] = float(len(batch) - len(keep))
        return batch.take(keep) if len(keep) else None

    def _learn(self, batch: Batch) -> dict[str, float]:
        config, meter = self.config, Meter()
        together = [self._first_prompt(batch, i) for i in range(len(batch))] if config.model.prefix_sharing else None
        metrics: dict[str, float] = {}
        mismatch: float | None = None
        for epoch in range(config.algorithm.ppo_epochs):
            generator = torch.Generator().manual_seed((config.seed * 1_000_003 + self.update) * 101 + epoch)
            size = config.algorithm.mini_batch_size
            for part in minibatches(batch, size, generator=generator, together=together):
                closures = language_policy(
                    part, self.policies, self.critics, config.algorithm, config.critic, meter,
                    budget=config.trainer.micro_batch_tokens,
                    at_least=config.trainer.gradient_accumulation_steps,
                    share=config.model.prefix_sharing,
                )  # fmt: skip
                metrics = self.learner.update(closures)
                if mismatch is None:  # the weights were still those that sampled
                    mismatch = meter.means()["actor/ppo_kl"]
        found = {f"actor/{name}": value for name, value in metrics.items()} | meter.means()
        return found if mismatch is None else found | {"training/mismatch_kl": mismatch}

    @staticmethod
    def _first_prompt(batch: Batch, row: int) -> int:
        """Rows with this number equal begin with the same prompt."""
        until = int(batch["mask"][row].argmax())
        return hash(tuple(batch.inputs["input_ids"][row, :until].tolist()))

    def _check_logprobs(self, batch: Batch, metrics: dict[str, float]) -> None:
        """Recomputed log-probs must equal the sampled ones: otherwise every ratio is wrong from the first update on."""
        trainer = self.config.trainer
        again = recomputed_logprobs(
            batch, self.policies, budget=trainer.micro_batch_tokens, share=self.config.model.prefix_sharing
        )
        gap = float(((again - batch["old_logprobs"]).abs() * batch["mask"]).max())
        metrics["training/rollout_logprob_diff_max"] = gap
        on_cpu = next(iter(self.policies.values())).model.device.type == "cpu"
        if on_cpu and self.config.model.dtype == "float32" and gap >= trainer.logprob_tolerance:
            raise TrainingError(
                f"recomputed log-probs differ from the sampled ones by {gap:.2e}; trainer.logprob_tolerance is "
                f"{trainer.logprob_tolerance:.0e}"
            )

    # ------------------------------------------------------------------------------------------ validation

    def validate(self, update: int) -> Report:
        """The live team on the held-out tasks. The same noise keys each time, so that reports are paired."""
        config = self.config
        jobs = [Job(task, k) for task in self.val_tasks for k in range(config.trainer.val_n)]
        settings = RolloutSettings(
            key=(config.seed, "val"),
            purpose=f"val{update}",
            parallel=config.workflow.n_parallel_tasks,
            timeout=config.workflow.timeout,
        )
        specs = self.team.specs(config, config.trainer.val_temperature)
        episodes = run_episodes_sync(jobs, self.make_workflow, self.engine, specs, settings)
        self.engine.forget()
        report = Report.of(f"update {update}", self.val_tasks, episodes, episode_metrics(episodes))
        self._record(update, report, episodes)
        return report

    def _record(self, update: int, report: Report, episodes: Sequence[Episode]) -> None:
        folder = self.folder / "val"
        folder.mkdir(exist_ok=True)
        write_atomic(folder / f"report_{update}.json", json.dumps(report.to_dict(), sort_keys=True).encode())
        shown = folder / f"episodes_{update}.jsonl"
        shown.unlink(missing_ok=True)
        EpisodeStore(shown).append(episodes[: 64 * self.config.trainer.val_n])
        metrics = {f"val/{name}": value for name, value in report.metrics.items()}
        most = self.config.trainer.val_n
        for k in sorted({2**power for power in range(most.bit_length())} | {most}):
            metrics[f"val/pass@{k}"] = report.pass_at(k).mean
            metrics |= {f"val/{kind}/pass@{k}": report.pass_at(k, [kind]).mean for kind in report.kinds()}
        self.tracker.log(metrics, update)
        self.progress("val", update, self.total_updates, metrics)

    # ------------------------------------------------------------------------------------------ start and resume

    def _open(self) -> None:
        """The run folder and its stores. Raises StorageError where it cannot be written or must not be continued."""
        trainer = self.config.trainer
        self.store = CheckpointStore(self.folder, keep_last=trainer.keep_last, metric="val/pass@1")
        begun = self.store.latest() is not None or (self.folder / "start").exists()
        make_run_folder(self.folder, "trainer.default_local_dir", begun=begun, resume=trainer.resume)
        self.inputs.remember(self.folder)
        state.remember_config(self.folder, self.config)
        self.episodes = EpisodeStore(self.folder / "episodes.jsonl")

    def _start(self, opened: ExitStack) -> None:
        """Model, SFT, policies, learner; then the latest checkpoint over them. What must be closed is left to
        `opened`."""
        config = self.config
        names = self.make_workflow().agent_names
        base = setup.base_model(config, self.train_tasks, self.folder / "start")
        if config.model.compile:
            setup.compile_for_learning(base)
        if config.data.filter_overlong_prompts:
            self._drop_overlong(base)
        self.practice = practised(self.train_tasks, config.data, config.seed)
        if not (self.folder / "start" / "config.json").exists():
            self._fine_tune(base)
            state.save_start(base, self.folder / "start")
        self.team = setup.cast(config, names, base)
        for policy in self.team.policies.values():  # some may have weights of their own
            policy.model.compiled = base.compiled
        self.acting, self.learning = self.team, self.team.trained
        self.policies = dict(self.team.policies)
        self._pad = base.tokenizer.pad_token_id
        self.engine = LocalEngine(
            self.policies, max_batch=config.rollout.max_batch, cache_bytes=config.rollout.cache_mb << 20
        )
        if not self.engine.exact_tokens:
            raise CreditError("the trained policies stand on an engine that returns no token ids")
        self._make_learner()
        self.references = (
            {name: self.policies[name].snapshot(name) for name in self.team.trained_policies}
            if config.algorithm.kl_beta > 0
            else {}
        )
        self.collector = Collector(config, self.practice, self.make_workflow, self.engine)
        opened.callback(self.collector.close)
        epochs = (config.trainer.total_epochs or 1) * self.collector.updates_per_epoch
        self.total_updates = config.trainer.total_steps if config.trainer.total_steps is not None else epochs
        tracker = Tracker(
            self.folder, config.trainer.logger, project=config.trainer.project_name,
            name=config.trainer.experiment_name, config=config.model_dump(mode="json"),
        )  # fmt: skip
        self.tracker = opened.enter_context(tracker)
        if not state.restore(self) and config.trainer.val_before_train and not config.trainer.val_only:
            self.reports[0] = self.validate(0)
            self._save({})

    def _drop_overlong(self, base: Any) -> None:
        """data.filter_overlong_prompts, for the training and the held-out tasks alike."""
        limit, counts = self.config.data.max_prompt_length, (len(self.train_tasks), len(self.val_tasks))
        self.train_tasks = without_overlong(self.train_tasks, base.tokenizer, limit)
        self.val_tasks = without_overlong(self.val_tasks, base.tokenizer, limit)
        dropped = (counts[0] - len(self.train_tasks), counts[1] - len(self.val_tasks))
        if any(dropped):
            log.warning(
                "data.filter_overlong_prompts: %d of %d training and %d of %d held-out tasks are longer than %d tokens",
                dropped[0], counts[0], dropped[1], counts[1], limit,
            )  # fmt: skip
        if not self.train_tasks or not self.val_tasks:
            raise ConfigError(f"no task is left within data.max_prompt_length={limit}; write a larger one")

    def _fine_tune(self, base: Any) -> None:
        config = self.config
        if config.sft.steps == 0:
            if config.model.path is None and self.teacher_class is not None:
                log.warning(
                    "the embedded model starts from random weights and sft.steps=0 shows it nothing: it will hardly "
                    "ever be paid; name a model (model.path), or write sft.steps=400 or --preset demo"
                )
            return
        teacher_class = self.teacher_class
        if teacher_class is None:
            raise ConfigError(
                f"workflow {self.workflow_class.__name__!r} has no teacher; write sft.steps=0, or give AgentTrainer a "
                "teacher_class"
            )
        teachable = [task for task in self.train_tasks if teacher_class.can_teach(task)]
        if not teachable:
            raise ConfigError("no training task comes with a worked solution; write sft.steps=0")
        policy = Policy("base", base)
        teacher = teacher_class(teachable, noise=config.sft.noise, seed=config.seed)
        episodes = sft.demonstrate(
            teachable, self.make_workflow, teacher, policy, seed=config.seed, max_prompt=base.max_positions
        )
        sft.fine_tune(
            policy, episodes, config.sft, config.trainer, self.folder / "sft", seed=config.seed,
            share=config.model.prefix_sharing, progress=self.progress,
        )  # fmt: skip

    def _make_learner(self) -> None:
        config = self.config
        schedule = cosine_with_warmup(config.optim.warmup_steps, 1, floor=1.0)
        options: dict[str, Any] = {"betas": config.optim.betas, "max_norm": config.optim.grad_clip}
        groups: dict[str, OptimizerGroup] = {}
        self.critics: dict[str, ValueModel] = {}
        valued = {self.team.agents[a] for a in self.team.trained if config.algorithm.of(a).adv_estimator == "gae"}
        for name in self.team.trained_policies:
            policy = self.policies[name]
            groups[name] = adamw(
                dict(policy.named_parameters()), lr=config.optim.lr, weight_decay=config.optim.weight_decay,
                schedule=schedule, **options,
            )  # fmt: skip
            if name in valued:
                self.critics[name] = ValueModel(policy).eval()
                critic = dict(self.critics[name].named_parameters())
                groups[f"critic_{name}"] = adamw(critic, lr=config.critic.lr, weight_decay=0.0, **options)
        self.learner = Learner(groups, amp=config.trainer.amp_dtype if config.trainer.use_amp else None)

    def _phase(self) -> None:
        """mode=separate: one agent learns per phase, the others act from a snapshot taken at its start."""
        if self.config.policies.mode == "joint":
            return
        trained = self.team.trained
        phase = min(len(trained) - 1, self.update * len(trained) // max(1, self.total_updates))
        if phase != self.phase:
            self.phase = phase
            self.enter_phase(
                {name: self.policies[name].snapshot(f"{name}@frozen") for name in self._shared_with(phase)}
            )

    def _shared_with(self, phase: int) -> list[str]:
        """Policies that the phase's agent shares with others: those others need a snapshot."""
        learner = self.team.trained[phase]
        policy = self.team.agents[learner]
        return [policy] if any(p == policy for a, p in self.team.agents.items() if a != learner) else []

    def enter_phase(self, frozen: Mapping[str, Policy]) -> None:
        """The phase's agent learns; agents that share its policy act from the given snapshots."""
        learner = self.team.trained[self.phase]
        self.learning = (learner,)
        self.frozen = dict(frozen)
        changed = {
            agent: f"{policy}@frozen"
            for agent, policy in self.team.agents.items()
            if agent != learner and policy in frozen
        }
        self.acting = self.team.with_agents(changed, {p.name: p for p in frozen.values()})
        self.engine.policies = {**self.policies, **{p.name: p for p in frozen.values()}}

    def _learning_policies(self) -> list[str]:
        return list(dict.fromkeys(self.team.agents[agent] for agent in self.learning))

    def _save(self, metrics: Mapping[str, float]) -> None:
        state.save(self, metrics)

    def _result(self, reports: dict[int, Report]) -> TrainResult:
        tensors = {f"{name}.{key}": value for name, p in self.policies.items() for key, value in p.state().items()}
        return TrainResult(self.folder, self.update, parameter_hash(tensors), reports)


def _single_agent(
    workflow_class: type[Any] | None, workflow_args: Mapping[str, Any] | None, parts: Mapping[str, Any]
) -> tuple[type[Any], dict[str, Any]]:
    """The workflow class and arguments that an agent class and an environment class stand for."""
    missing = [name for name in ("agent_class", "env_class") if parts[name] is None]
    if missing:
        given = next(name for name, part in parts.items() if part is not None)
        raise ConfigError(f"AgentTrainer was given {given} without {missing[0]}; a single agent needs both classes")
    if workflow_class is not None:
        raise ConfigError(
            "AgentTrainer was given workflow_class and agent_class; pass workflow_class for a team, or agent_class "
            "with env_class for a single agent"
        )
    return SingleAgentWorkflow, {**(workflow_args or {}), **{name: part for name, part in parts.items() if part}}


def _as_config(config: Any) -> WorkflowRLConfig:
    if isinstance(config, WorkflowRLConfig):
        return config
    if config is None:
        return WorkflowRLConfig()
    if isinstance(config, Mapping):
        return load(WorkflowRLConfig, preset=config, aliases=ALIASES).config
    return load(WorkflowRLConfig, files=[config], aliases=ALIASES).config
