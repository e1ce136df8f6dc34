"""What a run would do, before it does it: `troupe train workflow --dry-run`. Nothing is trained, nothing is written."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby

from troupe.batch import Batch, pack
from troupe.engines.local import LocalEngine
from troupe.episode import Episode, Task
from troupe.models.language import LanguageModel, Policy
from troupe.systems.workflow_rl import setup, sft
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.systems.workflow_rl.trainer import AgentTrainer
from troupe.training.credit import CreditRow
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync

__all__ = ["Piece", "Preview", "PreviewRow", "memory_estimate", "preview"]


@dataclass(frozen=True, slots=True)
class Piece:
    """Text of consecutive tokens that are all trained on, or all not."""

    text: str
    trained: bool
    tokens: int


@dataclass(frozen=True, slots=True)
class PreviewRow:
    """One row of the batch: a conversation of one agent, as the model reads it."""

    agent: str
    policy: str
    pieces: tuple[Piece, ...]


@dataclass(frozen=True)
class Preview:
    """`spoken_by` is the teacher, or the policies where nobody can demonstrate."""

    credit: list[CreditRow]
    policies: dict[str, int]  # name -> parameters that its updates change
    tasks: tuple[int, int]  # training, held out
    updates: int
    task: Task
    spoken_by: str
    rows: list[PreviewRow]
    memory: dict[str, float]  # MiB


def preview(trainer: AgentTrainer) -> Preview:
    """Builds the team, runs one episode of the first training task, and packs it as an update would.

    Raises what the run's first seconds would raise for a config or team that does not fit.
    """
    config = trainer.config
    base = setup.base_model(config, trainer.train_tasks, None)
    team = setup.cast(config, trainer.make_workflow().agent_names, base)
    task = trainer.train_tasks[0]
    teacher = trainer.teacher_class
    if config.sft.steps > 0 and teacher is not None and teacher.can_teach(task):
        spoken_by = f"its teacher (noise {config.sft.noise:g})"
        speaker = Policy("base", base)
        demonstrator = teacher([task], noise=config.sft.noise, seed=config.seed)
        (episode,) = sft.demonstrate(
            [task], trainer.make_workflow, demonstrator, speaker, seed=config.seed,
            max_prompt=base.max_positions,
        )  # fmt: skip
    else:
        spoken_by = "its policies as they are now"
        engine = LocalEngine(team.policies, max_batch=config.rollout.max_batch)
        specs = team.specs(config, config.rollout.temperature)
        settings = RolloutSettings((config.seed, "preview"), "preview")
        (episode,) = run_episodes_sync([Job(task)], trainer.make_workflow, engine, specs, settings)
    parameters = {name: sum(p.numel() for _, p in policy.named_parameters()) for name, policy in team.policies.items()}
    size = min(config.data.train_batch_size, len(trainer.train_tasks))
    epochs = (config.trainer.total_epochs or 1) * (len(trainer.train_tasks) // size)
    return Preview(
        credit=trainer.credit_rows(),
        policies=parameters,
        tasks=(len(trainer.train_tasks), len(trainer.val_tasks)),
        updates=epochs if config.trainer.total_steps is None else config.trainer.total_steps,
        task=task,
        spoken_by=spoken_by,
        rows=_rows(episode, base),
        memory=memory_estimate(config, base, {name: parameters[name] for name in team.trained_policies}),
    )


def _rows(episode: Episode, model: LanguageModel) -> list[PreviewRow]:
    batch: Batch = pack([episode], pad_id=model.tokenizer.pad_token_id)
    found = []
    for i, row in enumerate(batch.rows):
        ids = batch.inputs["input_ids"][i, : row.length].tolist()
        trained = batch["mask"][i, : row.length].bool().tolist()
        pieces = []
        for flag, members in groupby(zip(ids, trained, strict=True), key=lambda pair: pair[1]):
            part = [token for token, _ in members]
            pieces.append(Piece(model.tokenizer.decode(part), flag, len(part)))
        found.append(PreviewRow(row.agent, row.policy, tuple(pieces)))
    return found


def memory_estimate(config: WorkflowRLConfig, model: LanguageModel, trained: dict[str, int]) -> dict[str, float]:
    """MiB by use, of the model that is there and the largest micro-batch that the config allows.

    Activations per layer and token are 34 h bytes at 16 bits (Korthikanti et al. 2022, arXiv:2205.05198, equation 1,
    without the attention matrix), twice that in float32, and only the layers' inputs with gradient checkpointing. An
    estimate: allocators, fragmentation and temporary buffers come on top.
    """
    mebi = 1 / (1 << 20)
    width = next(model.network.parameters()).element_size()
    weights = sum(p.numel() * p.element_size() for p in model.network.parameters())
    sizes = model.config
    tokens = config.trainer.micro_batch_tokens
    per_layer = 2 * sizes.hidden_size * width if config.model.gradient_checkpointing else 17 * width * sizes.hidden_size
    with_critic = any(config.algorithm.of(agent).adv_estimator == "gae" for agent in ("", *config.algorithm.agents))
    critics = sum(trained.values()) if with_critic else 0
    learned = sum(trained.values())
    references = learned * width if config.algorithm.kl_beta > 0 else 0
    return {
        "weights": weights * mebi,
        "gradients": (learned + critics) * width * mebi,
        "optimiser (two moments)": 2 * (learned + critics) * width * mebi,
        "critics": critics * width * mebi,
        "reference policies": references * mebi,
        "activations of a micro-batch": tokens * per_layer * sizes.num_hidden_layers * mebi,
        "its logits": 2 * tokens * sizes.vocab_size * 4 * mebi,
        "kept keys and values, at most": float(config.rollout.cache_mb),
    }
