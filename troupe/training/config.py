"""Configuration of learning; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from troupe.config import Frozen

__all__ = [
    "AgentAlgorithm",
    "AlgorithmConfig",
    "OptimConfig",
    "PPOConfig",
    "RolloutConfig",
    "SftConfig",
    "TrainerConfig",
]

Estimator = Literal["gae", "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "rae"]
Group = Literal["by_task", "by_agent", "by_agent_turn", "by_prompt"]
Loss = Literal["ppo", "gspo", "cispo"]


class RolloutConfig(Frozen):
    """How episodes are sampled."""

    n: int = Field(8, ge=1)
    """Attempts per task and update: the group of the group estimators."""
    temperature: float = Field(1.0, gt=0)
    """Sampling temperature while training; log-probs are those of the tempered distribution."""
    max_batch: int = Field(512, ge=1)
    """Most sequences that decode together."""
    cache_mb: int = Field(1024, ge=0)
    """Memory for the keys and values of conversations that may continue; 0 computes every prompt anew."""
    mode: Literal["sync", "async"] = "sync"
    """`sync`: every update waits for its episodes, and resumes exactly. `async`: attempts start as others end and go
    on while the weights move; each token keeps its log-prob and version; a resume begins them anew."""
    oversample: float = Field(1.0, ge=1)
    """Tasks attempted per update (sync) or at once (async), as a multiple of data.train_batch_size."""
    filter_groups: bool = False
    """Dynamic sampling (DAPO, arXiv:2503.14476, section 3.2): tasks whose attempts are all paid alike are replaced by
    others."""
    max_rounds: int = Field(4, ge=1)
    """Rounds of attempts per update that filter_groups may take (sync)."""
    max_staleness: int = Field(1, ge=0)
    """Updates that may lie between an episode's first token and its use (async)."""
    stale: Literal["drop", "weight"] = "drop"
    """What happens to older episodes: dropped, or kept under algorithm.importance. Both are counted."""

    @model_validator(mode="after")
    def _fits(self) -> RolloutConfig:
        if self.mode == "sync" and (self.max_staleness != 1 or self.stale != "drop"):
            raise ValueError("max_staleness and stale belong to rollout.mode=async; sync would ignore them")
        if self.max_rounds != 4 and (self.mode == "async" or not self.filter_groups):
            raise ValueError("max_rounds belongs to filter_groups=true with rollout.mode=sync; it would be ignored")
        if self.mode == "sync" and self.oversample > 1 and not self.filter_groups:
            raise ValueError("oversample in rollout.mode=sync chooses among groups; write filter_groups=true, too")
        return self


class AgentAlgorithm(Frozen):
    """What one agent does differently; null keeps the algorithm's value. Keys as in AlgorithmConfig."""

    adv_estimator: Estimator | None = None
    """Who is compared with whom, and how."""
    group: Group | None = None
    """The group key."""
    gamma: float | None = Field(None, ge=0, le=1)
    """Discount."""
    lam: float | None = Field(None, ge=0, le=1)
    """GAE's lambda."""
    loss: Loss | None = None
    """Policy loss."""
    eps_clip: float | None = Field(None, gt=0)
    """Lower clip range."""
    eps_clip_high: float | None = Field(None, gt=0)
    """Upper clip range."""
    dual_clip: float | None = Field(None, gt=1)
    """Bound on the loss of negative advantages."""
    entropy_coeff: float | None = Field(None, ge=0)
    """Weight of the entropy bonus."""


class AlgorithmConfig(Frozen):
    """Who is compared with whom, and what is minimised."""

    adv_estimator: Estimator = "gae"
    """`gae` needs a critic (PPO); the others compare attempts."""
    group: Group = "by_agent"
    """Samples that share this key share a baseline (unused by gae and rae)."""
    gamma: float = Field(1.0, ge=0, le=1)
    """Discount per step (group estimators) or per sampled token (gae); 0 where every turn stands alone."""
    lam: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    rae_decay: float = Field(0.95, ge=0, lt=1)
    """Decay of the running baseline per agent (rae)."""
    normalize_advantages: bool = True
    """Give the batch's GAE advantages mean 0 and standard deviation 1."""
    loss: Loss = "ppo"
    """Policy loss."""
    eps_clip: float = Field(0.2, gt=0)
    """Lower clip range of the ratio."""
    eps_clip_high: float = Field(0.28, gt=0)
    """Upper clip range (DAPO's clip-higher)."""
    dual_clip: float | None = Field(None, gt=1)
    """Bound on the loss of negative advantages (ppo only)."""
    loss_agg_mode: Literal["token_mean", "seq_mean_token_sum", "seq_mean_token_mean", "constant", "per_episode"] = (
        "token_mean"
    )
    """How tokens add up to one number."""
    loss_constant: float | None = Field(None, gt=0)
    """The divisor of `loss_agg_mode=constant`."""
    kl_beta: float = Field(0.0, ge=0)
    """Weight of the KL penalty towards the starting policy; 0 keeps no reference model."""
    kl_estimator: Literal["k1", "k2", "k3"] = "k3"
    """Estimator of that KL (as a loss k1 has no gradient in expectation)."""
    kl_in: Literal["loss", "reward"] = "loss"
    """Where the penalty stands: in the loss, or taken from the reward of every sampled token."""
    importance: Literal["none", "token", "sequence"] = "none"
    """Truncated importance weights between the weights as an update finds them and those that sampled: for stale
    episodes, and for engines that round otherwise. Costs a forward pass."""
    importance_cap: float = Field(2.0, gt=0)
    """Largest such weight."""
    entropy_coeff: float = Field(0.0, ge=0)
    """Weight of the entropy bonus."""
    ppo_epochs: int = Field(1, ge=1)
    """Passes over each batch."""
    mini_batch_size: int = Field(256, ge=1)
    """Rows per optimiser step."""
    agents: dict[str, AgentAlgorithm] = Field(default_factory=dict)
    """Agent to what it does differently, such as {verifier: {adv_estimator: rloo, loss: cispo}}."""

    def of(self, agent: str) -> AlgorithmConfig:
        """The algorithm of one agent."""
        own = self.agents.get(agent)
        if own is None:
            return self
        found = {name: getattr(own, name) for name in AgentAlgorithm.model_fields}
        changed = {name: value for name, value in found.items() if value is not None}
        return self.model_copy(update={**changed, "agents": {}})

    @model_validator(mode="after")
    def _fits(self) -> AlgorithmConfig:
        for agent in self.agents:
            mine = self.of(agent)
            if mine.dual_clip is not None and mine.loss != "ppo":
                raise ValueError(f"agents.{agent}: dual_clip belongs to loss=ppo; loss={mine.loss} would ignore it")
        if self.importance == "none" and self.importance_cap != 2.0:
            raise ValueError("importance_cap goes with importance=token or sequence; none would ignore it")
        if (self.loss_constant is not None) != (self.loss_agg_mode == "constant"):
            raise ValueError("loss_constant goes with loss_agg_mode=constant, and only with it")
        if self.dual_clip is not None and self.loss != "ppo":
            raise ValueError(f"dual_clip belongs to loss=ppo; loss={self.loss} would ignore it")
        if self.kl_beta > 0 and self.kl_estimator == "k1" and self.kl_in == "loss":
            raise ValueError("kl_estimator=k1 has no gradient in expectation as a loss; write k2, k3, or kl_in=reward")
        return self


class OptimConfig(Frozen):
    """AdamW of the policies."""

    lr: float = Field(1e-5, gt=0)
    """Learning rate."""
    betas: tuple[float, float] = (0.9, 0.99)
    """Decay of the moment estimates."""
    weight_decay: float = Field(0.0, ge=0)
    """Decoupled weight decay."""
    grad_clip: float | None = Field(1.0, gt=0)
    """Global norm at which gradients are clipped."""
    warmup_steps: int = Field(0, ge=0)
    """Optimiser steps of linear warm-up."""


class SftConfig(Frozen):
    """Supervised fine-tuning on demonstrations before RL."""

    steps: int = Field(0, ge=0)
    """Optimiser steps; 0 starts RL from the model as it is."""
    batch_size: int = Field(64, ge=1)
    """Demonstration episodes per step."""
    lr: float = Field(3e-3, gt=0)
    """Peak learning rate (3e-3 suits the embedded model from scratch; pretrained models want 1e-5)."""
    optimizer: Literal["adamw", "muon"] = "adamw"
    """`muon` orthogonalises the updates of hidden matrices (the rest stays under AdamW): from random weights it needs
    fewer steps (docs/lab_book.md)."""
    betas: tuple[float, float] = (0.9, 0.98)
    """Decay of the moment estimates."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay."""
    warmup_steps: int = Field(40, ge=0)
    """Linear warm-up; a cosine to a tenth of the peak follows."""
    save_freq: int = Field(50, ge=1)
    """Steps between checkpoints."""
    noise: float = Field(0.0, ge=0, le=1)
    """Chance that a generated demonstration's plan or call is corrupted: what leaves RL something to learn."""


class TrainerConfig(Frozen):
    """The run."""

    total_epochs: int | None = Field(None, ge=1)
    """Passes over the training tasks; without it and total_steps, one."""
    total_steps: int | None = Field(None, ge=0)
    """Updates, instead of total_epochs."""
    save_freq: int = Field(10, ge=1)
    """Updates between checkpoints."""
    keep_last: int = Field(2, ge=1)
    """Checkpoints kept besides the best."""
    test_freq: int = Field(10, ge=0)
    """Updates between validations; 0 never."""
    val_before_train: bool = True
    """Validate before the first update."""
    val_only: bool = False
    """Validate, report and stop."""
    val_n: int = Field(1, ge=1)
    """Attempts per validation task; pass@k is reported for k up to it."""
    val_temperature: float = Field(1.0, ge=0)
    """Sampling temperature of validation; 0 is greedy."""
    use_amp: bool = False
    """Mixed precision in the learner."""
    amp_dtype: Literal["bf16", "fp16"] = "bf16"
    """Its type; fp16 scales the loss (older GPUs)."""
    gradient_accumulation_steps: int = Field(1, ge=1)
    """Each minibatch is cut into at least this many micro-batches; the gradient stays that of the whole."""
    micro_batch_tokens: int = Field(8192, ge=1)
    """Most tokens in one forward pass of the learner."""
    logprob_tolerance: float = Field(1e-5, gt=0)
    """Largest difference between sampled and recomputed log-probs in a CPU run's first update."""
    logger: tuple[Literal["jsonl", "tensorboard", "wandb", "mlflow", "console"], ...] = ("jsonl", "tensorboard")
    """Trackers."""
    project_name: str = "troupe"
    """Project in the trackers."""
    experiment_name: str = "workflow"
    """Run name in the trackers."""
    default_local_dir: str = "runs/workflow"
    """The run folder: checkpoints, episodes, metrics, logs."""
    resume: Literal["auto", "never"] = "auto"
    """`auto` continues the run that the folder holds; `never` refuses a folder that holds one."""
    threads: int = Field(1, ge=1)
    """Torch threads; more than one makes small models slower and results differ in the last bits."""

    @model_validator(mode="after")
    def _one_length(self) -> TrainerConfig:
        if self.total_epochs is not None and self.total_steps is not None:
            raise ValueError(
                f"total_steps={self.total_steps} leaves total_epochs={self.total_epochs} without effect; write "
                "total_steps=null"
            )
        return self


class PPOConfig(Frozen):
    """PPO where a policy acts at every step (environments, markets); names and meanings as in stable-baselines3."""

    n_steps: int = Field(256, ge=1)
    """Steps of each environment per rollout."""
    batch_size: int = Field(256, ge=2)
    """Steps per minibatch; a rollout is a whole number of minibatches."""
    n_epochs: int = Field(10, ge=1)
    """Times that a rollout is learned from."""
    gamma: float = Field(0.99, ge=0, le=1)
    """Discount per step."""
    gae_lambda: float = Field(0.95, ge=0, le=1)
    """GAE's lambda."""
    clip_range: float = Field(0.2, gt=0)
    """The ratio of new to old probability counts within 1 +- this."""
    clip_range_vf: float | None = Field(None, gt=0)
    """Values count within this of the old ones, in units of reward; none by default."""
    normalize_advantage: bool = True
    """Mean 0 and standard deviation 1 of the advantages in each minibatch."""
    ent_coef: float = Field(0.0, ge=0)
    """Weight of the entropy bonus."""
    vf_coef: float = Field(0.5, gt=0)
    """Weight of the value loss, which is the mean squared error."""
    max_grad_norm: float | None = Field(0.5, gt=0)
    """Global norm at which gradients are clipped."""
    learning_rate: float = Field(3e-4, gt=0)
    """Of Adam (epsilon 1e-5)."""
    schedule: tuple[Literal["learning_rate", "clip_range"], ...] = ()
    """What falls linearly to 0 over the run."""
    target_kl: float | None = Field(None, gt=0)
    """Learning from a rollout stops before a step of a minibatch on which the policy has moved further than 1.5 times
    this (KL divergence from the policy that acted)."""
