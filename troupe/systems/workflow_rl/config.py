"""The configuration of a workflow RL run; imports no torch."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field, model_validator

from troupe.config import Frozen, ReadWhen
from troupe.models.config import CriticConfig, ModelConfig
from troupe.training.config import AlgorithmConfig, OptimConfig, RolloutConfig, SftConfig, TrainerConfig

__all__ = ["ALIASES", "DataConfig", "PolicyConfig", "WorkflowConfig", "WorkflowRLConfig"]


class WorkflowConfig(Frozen):
    """Which team runs."""

    name: str = "math_tool"
    """A workflow of `troupe.workflows.WORKFLOWS`; a class given to AgentTrainer takes its place."""
    args: dict[str, Any] = Field(default_factory=dict)
    """Arguments of the workflow class, such as max_refinement_iterations."""
    n_parallel_tasks: int = Field(4096, ge=1)
    """Episodes in flight at once."""
    timeout: float | None = Field(3600.0, gt=0)
    """Wall-clock seconds per episode, waiting for other episodes' calls not counted, and again for its reward; an
    episode past it ends as `timeout` and is not trained on. null: none, and what hangs stops the run."""
    isolation: Literal["bubblewrap", "rlimits"] = "bubblewrap"
    """What stands between the programs that a team writes and this machine. `rlimits` is time and memory limits alone,
    where bubblewrap cannot be had: such programs can read and write what you can, use the network and signal your
    processes."""


class DataConfig(Frozen):
    """Tasks."""

    train: str = "math"
    """A generator of `troupe.tasks.GENERATORS` (such as `math`), or a data set prepared with `troupe data prepare`."""
    val: str | None = None
    """Held-out tasks; by default those held out from `train`."""
    root: str = "data"
    """Folder of prepared data sets."""
    train_size: int = Field(2048, ge=1)
    """Generated training tasks, or how many of a data set's rows are used at most."""
    val_size: int = Field(256, ge=1)
    """Held-out tasks, none of them in the training set."""
    train_batch_size: int = Field(16, ge=1)
    """Tasks per update."""
    kinds: dict[str, float] = Field(default_factory=dict)
    """Kinds of generated problems (of math: linear, word, quadratic, system) and their weights; empty: the generator's
    usual ones, alike."""
    difficulty: tuple[float, float] = (0.5, 0.5)
    """Range of the generator's difficulty, within 0 to 1."""
    max_prompt_length: int = Field(512, ge=1)
    """Tokens; a call whose prompt is longer ends its episode as `truncated`."""
    max_response_length: int = Field(64, ge=1)
    """Tokens of one response."""
    filter_overlong_prompts: bool = False
    """Drop tasks whose problem alone is longer than max_prompt_length (the count is printed)."""
    shuffle_answers: bool = False
    """Negative control: in RL every task has another one's answer (of its kind). Nothing can be learned from them."""
    shuffle_prompts: bool = False
    """Negative control: in RL every task shows another one's prompt (of its kind). What is learned is not the task."""


class PolicyConfig(Frozen):
    """Which weights speak for which agent."""

    weights: Literal["shared", "lora", "separate"] = "shared"
    """One set of weights for all, one LoRA adapter per agent on one base, or a full copy per agent."""
    agents: dict[str, str] = Field(default_factory=dict)
    """Agent to policy name; empty gives one policy (shared) or one per agent (lora, separate)."""
    train: list[str] | None = None
    """Agents that learn; all by default. The others act from their policies as they stand."""
    mode: Literal["joint", "separate"] = "joint"
    """`joint` updates with the rows of all trained agents; `separate` trains one agent per phase, at equal total
    budget, while the others act from a snapshot taken at the start of the phase."""


def _estimators(config: WorkflowRLConfig) -> set[str]:
    """Of the agents that learn."""
    return {_of(config, agent, "adv_estimator") for agent in _learners(config)}


def _learners(config: WorkflowRLConfig) -> list[str]:
    """As far as the config names them; the empty name stands for all others."""
    return ["", *config.algorithm.agents] if config.policies.train is None else config.policies.train


def _of(config: WorkflowRLConfig, agent: str, key: str) -> Any:
    own = config.algorithm.agents.get(agent)
    found = None if own is None else getattr(own, key)
    return getattr(config.algorithm, key) if found is None else found


def _grouped(config: WorkflowRLConfig) -> bool:
    """Whether some agent's baseline is that of a group by algorithm.group."""
    own = config.algorithm.agents
    return any(
        _of(config, agent, "adv_estimator") in COMPARING and (agent not in own or own[agent].group is None)
        for agent in _learners(config)
    )


def _generated(config: WorkflowRLConfig) -> bool:
    from troupe.tasks import GENERATORS

    return config.data.train in GENERATORS or config.data.val in GENERATORS


def _compared_exactly(config: WorkflowRLConfig) -> bool:
    return config.model.dtype == "float32" and config.model.device.startswith(("auto", "cpu"))


COMPARING = ("grpo", "dr_grpo", "rloo", "reinforce_pp_baseline")
"""Estimators with groups of attempts."""

READ_WHEN = (
    ReadWhen(
        ("data.kinds", "data.difficulty"),
        _generated,
        "is for generated tasks, and data.train={data.train} is a prepared data set; leave it out, or write the name "
        "of a generator such as data.train=math",
    ),
    ReadWhen(
        ("model.tiny",),
        lambda config: config.model.path is None,
        "is for the embedded model, and model.path={model.path} takes its place; write model.path=null, or leave it "
        "out",
    ),
    ReadWhen(
        ("model.lora",),
        lambda config: config.policies.weights == "lora",
        "is for adapters, and policies.weights={policies.weights} has none; write policies.weights=lora, or leave it "
        "out",
    ),
    ReadWhen(
        ("trainer.logprob_tolerance",),
        _compared_exactly,
        "is for float32 models on the CPU, and this is model.dtype={model.dtype} on model.device={model.device}; leave "
        "it out",
    ),
    ReadWhen(
        ("rollout.max_rounds",),
        lambda config: config.rollout.filter_groups and config.rollout.mode == "sync",
        "is for rollout.filter_groups=true with rollout.mode=sync; write both, or leave it out",
    ),
    ReadWhen(
        ("rollout.max_staleness", "rollout.stale"),
        lambda config: config.rollout.mode == "async",
        "is for episodes that go on between updates; write rollout.mode=async, or leave it out",
    ),
    ReadWhen(
        ("algorithm.group",),
        _grouped,
        "is for estimators that compare attempts, and nobody who learns has one; write algorithm.adv_estimator=grpo in "
        "place of {algorithm.adv_estimator}, or leave it out",
    ),
    ReadWhen(
        ("algorithm.agents.*.group",),
        lambda config, agent: _of(config, agent, "adv_estimator") in COMPARING,
        "is for estimators that compare attempts; write algorithm.agents.{0}.adv_estimator=grpo, or leave it out",
    ),
    ReadWhen(
        ("algorithm.lam", "algorithm.normalize_advantages", "critic"),
        lambda config: "gae" in _estimators(config),
        "is for a critic, and nobody who learns has one; write algorithm.adv_estimator=gae in place of "
        "{algorithm.adv_estimator}, or leave it out",
    ),
    ReadWhen(
        ("algorithm.agents.*.lam",),
        lambda config, agent: _of(config, agent, "adv_estimator") == "gae",
        "is for a critic; write algorithm.agents.{0}.adv_estimator=gae, or leave it out",
    ),
    ReadWhen(
        ("algorithm.agents.*",),
        lambda config, agent: config.policies.train is None or agent in config.policies.train,
        "is for an agent that learns, and policies.train does not name {0}; name it there, or leave it out",
    ),
    ReadWhen(
        ("algorithm.rae_decay",),
        lambda config: "rae" in _estimators(config),
        "is for the running baseline of rae, and nobody who learns has one; write algorithm.adv_estimator=rae in place "
        "of {algorithm.adv_estimator}, or leave it out",
    ),
    ReadWhen(
        ("algorithm.kl_estimator", "algorithm.kl_in"),
        lambda config: config.algorithm.kl_beta > 0,
        "is for the KL penalty, and algorithm.kl_beta=0 takes none; write algorithm.kl_beta=0.01, or leave it out",
    ),
    ReadWhen(
        ("algorithm.importance_cap",),
        lambda config: config.algorithm.importance != "none",
        "is for importance weights; write algorithm.importance=token or sequence, or leave it out",
    ),
    ReadWhen(
        ("sft",),
        lambda config: config.sft.steps > 0,
        "is for fine-tuning before RL, and there is none; write sft.steps=400, or leave it out",
        switch="sft.steps",
    ),
    ReadWhen(
        ("trainer.amp_dtype",),
        lambda config: config.trainer.use_amp,
        "is for mixed precision; write trainer.use_amp=true, or leave it out",
    ),
)
"""Keys that not every run reads. One that the user wrote and their run would not read is an error; presets and stored
configs may hold it."""


class WorkflowRLConfig(Frozen):
    """Everything a run depends on. The defaults are PPO with a critic; the preset `agent_ppo_trainer` is that with one
    attempt per task (`rollout.n=1`) at 128 tasks per update, where the defaults make 8 attempts at 16."""

    read_when = READ_WHEN

    seed: int = 0
    """Seeds tasks, weights, demonstrations, sampling and shuffling."""
    workflow: WorkflowConfig = WorkflowConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    policies: PolicyConfig = PolicyConfig()
    rollout: RolloutConfig = RolloutConfig()
    algorithm: AlgorithmConfig = AlgorithmConfig()
    optim: OptimConfig = OptimConfig()
    critic: CriticConfig = CriticConfig()
    sft: SftConfig = SftConfig()
    trainer: TrainerConfig = TrainerConfig()

    @model_validator(mode="after")
    def _credit_fits(self) -> WorkflowRLConfig:
        for agent in ("", *self.algorithm.agents):
            own = self.algorithm.of(agent)
            if own.adv_estimator in COMPARING and self.rollout.n == 1 and own.group != "by_task":
                where = f"algorithm.agents.{agent}" if agent else "algorithm"
                raise ValueError(
                    f"{where}.adv_estimator={own.adv_estimator} compares attempts, but rollout.n=1 gives "
                    "every group one member; write rollout.n=8, or adv_estimator=gae"
                )
        if self.rollout.filter_groups and self.rollout.n == 1:
            raise ValueError("rollout.filter_groups compares attempts, but rollout.n=1 gives every group one member")
        if self.rollout.mode == "async" and self.policies.mode == "separate":
            raise ValueError("rollout.mode=async goes with policies.mode=joint: phases would cut the stream")
        if self.rollout.stale == "weight" and self.algorithm.importance == "none":
            raise ValueError("rollout.stale=weight needs algorithm.importance=token or sequence")
        for control in ("shuffle_answers", "shuffle_prompts"):
            if getattr(self.data, control) and self.trainer.val_only:
                raise ValueError(f"data.{control} changes training only; trainer.val_only would ignore it")
        return self


ALIASES = {
    "actor_rollout_ref.actor.optim.lr": "optim.lr",
    "actor_rollout_ref.model.path": "model.path",
    "actor_rollout_ref.rollout.n": "rollout.n",
    "actor_rollout_ref.rollout.temperature": "rollout.temperature",
    "actor_rollout_ref.model.enable_gradient_checkpointing": "model.gradient_checkpointing",
    "critic.optim.lr": "critic.lr",
    "n_parallel_agents": "workflow.n_parallel_tasks",
    "workflow.n_parallel_agents": "workflow.n_parallel_tasks",
}
"""Keys as document 004 and the code it documents spell them."""
