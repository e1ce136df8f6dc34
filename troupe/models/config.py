"""Configuration of language models, of the networks of self-play, puzzles, actors and critics; imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field, PositiveInt, model_validator

from troupe.config import Frozen

__all__ = ["ActorCriticConfig", "CriticConfig", "HRMConfig", "HRMNetConfig", "LoraSettings", "ModelConfig",
           "PlainConfig", "PolicyValueConfig", "TRMConfig", "TRMNetConfig", "TeamConfig", "TinyConfig",
           "TokenNetConfig"]  # fmt: skip


class TinyConfig(Frozen):
    """The embedded default: a Qwen2-type model small enough to train on two CPU cores."""

    hidden_size: int = Field(128, gt=0)
    """Width of the residual stream."""
    layers: int = Field(4, gt=0)
    """Transformer blocks."""
    heads: int = Field(4, gt=0)
    """Attention heads."""
    kv_heads: int = Field(2, gt=0)
    """Key-value heads (grouped-query attention)."""
    intermediate_size: int = Field(256, gt=0)
    """Width of the feed-forward layer."""
    vocab_size: int = Field(400, ge=300)
    """Upper bound on the byte-level BPE vocabulary; 256 bytes and the special tokens are always in it."""
    max_positions: int = Field(2048, gt=0)
    """Longest sequence."""


class LoraSettings(Frozen):
    """Low-rank adapters (Hu et al. 2021, arXiv:2106.09685), one per policy on one base."""

    rank: int = Field(16, gt=0)
    """Rank r of the update."""
    alpha: float = Field(32.0, gt=0)
    """The update is scaled by alpha / r."""
    targets: str | list[str] = "all-linear"
    """Module names, or `all-linear`."""


class CriticConfig(Frozen):
    """The value model of PPO: a copy of the policy's backbone with a zero-initialised head."""

    lr: float = Field(1e-3, gt=0)
    """Learning rate of backbone copy and head."""
    clip: float | None = Field(None, gt=0)
    """Value clipping range; none by default."""
    coefficient: float = Field(1.0, gt=0)
    """Weight of the value loss."""


class ModelConfig(Frozen):
    """Which model the policies stand on."""

    path: str | None = None
    """A Hugging Face model name or folder; none builds the embedded tiny model."""
    tiny: TinyConfig = TinyConfig()
    """Sizes of the embedded model (used where `path` is none)."""
    lora: LoraSettings = LoraSettings()
    """Adapters (used where `policies.weights` is `lora`)."""
    dtype: Literal["float32", "bfloat16", "float16"] = "float32"
    """Type of the weights."""
    device: str = "auto"
    """`auto` takes a CUDA GPU where there is one, else the CPU."""
    gradient_checkpointing: bool = False
    """Recompute activations in the backward pass: less memory, about a third more time."""
    compile: bool = False
    """Let torch.compile fuse the learner's forward and backward pass (decoding has its own code). Worth its minute of
    compilation for large models and long runs; on the CPU it needs a C++ compiler."""
    exact_attention: bool = True
    """Attention of float32 models on the CPU in float64, so that recomputed log-probs equal the sampled ones; off,
    decoding is faster by about a quarter and `trainer.logprob_tolerance` must be looser. Without effect elsewhere."""
    prefix_sharing: bool = True
    """Compute a prefix that several rows share once per update; the gradients are the same."""


class PolicyValueConfig(Frozen):
    """One network that gives a policy and a value, for games of fixed actions."""

    kind: Literal["conv", "mlp"] = "conv"
    """`conv`: a residual tower for boards, observations [C, H, W]; `mlp`: hidden layers over the flat observation."""
    blocks: int = Field(2, gt=0)
    """Residual blocks of two 3x3 convolutions each (conv)."""
    channels: int = Field(64, gt=0)
    """Channels of the tower (conv)."""
    policy_channels: int = Field(8, gt=0)
    """Channels of the 1x1 convolution before the policy's linear layer (conv)."""
    value_channels: int = Field(4, gt=0)
    """Channels of the 1x1 convolution before the value's hidden layer (conv)."""
    value_hidden: int = Field(64, gt=0)
    """Width of the value head's hidden layer (conv)."""
    hidden: tuple[PositiveInt, ...] = Field((128, 128), min_length=1)
    """Widths of the hidden layers, which both heads share (mlp)."""
    value_range: Literal["bounded", "unbounded"] = "bounded"
    """`bounded`: values in (-1, 1) by tanh, for games that are won or lost; `unbounded`: for returns of any size."""


class HRMNetConfig(Frozen):
    """The Hierarchical Reasoning Model (arXiv:2506.21734); the defaults are the published sizes."""

    hidden: int = Field(512, gt=0)
    """Width of the slow stack H."""
    low_hidden: PositiveInt | None = None
    """Width of the fast stack L; none makes it that of H, as published. Unequal widths are projected."""
    heads: int = Field(8, gt=0)
    """Attention heads."""
    h_layers: int = Field(4, gt=0)
    """Blocks of H."""
    l_layers: int = Field(4, gt=0)
    """Blocks of L."""
    h_cycles: int = Field(2, gt=0)
    """Updates of H per segment."""
    l_cycles: int = Field(2, gt=0)
    """Updates of L before each of H."""
    expansion: float = Field(4.0, gt=0)
    """A feed-forward layer's width is 2/3 of this times the width."""
    round_to: int = Field(256, gt=0)
    """It is rounded up to a multiple of this; 32 suits small networks."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary positions, or learned ones that are added."""
    prefix: int = Field(1, ge=0)
    """Positions in front that hold the embedding of the puzzle's identity; 0: none."""
    identities: int = Field(1, gt=0)
    """How many puzzles have an identity of their own (ARC); 1 where all are of one kind."""


class TRMNetConfig(Frozen):
    """The Tiny Recursive Model (arXiv:2510.04871); the defaults are the published sizes."""

    hidden: int = Field(512, gt=0)
    """Width of answer and latent."""
    heads: int = Field(8, gt=0)
    """Attention heads; without effect with `mlp_t`."""
    layers: int = Field(2, gt=0)
    """Blocks of the one network."""
    rounds: int = Field(3, gt=0)
    """T: rounds per segment; gradients flow through the last."""
    updates: int = Field(6, gt=0)
    """n: updates of the latent before each of the answer."""
    mlp_t: bool = False
    """Mix positions by SwiGLU along them in place of attention: better on small grids of fixed size (9x9 sudoku)."""
    expansion: float = Field(4.0, gt=0)
    """A feed-forward layer's width is 2/3 of this times the width."""
    round_to: int = Field(256, gt=0)
    """It is rounded up to a multiple of this; 32 suits small networks."""
    inner: PositiveInt | None = None
    """The feed-forward layer's width itself, in place of the two keys above."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary positions, which only attention sees, or learned ones that are added."""
    prefix: int = Field(16, ge=0)
    """Positions in front: the embedding of the puzzle's identity, then working space; 0: none."""
    identities: int = Field(1, gt=0)
    """How many puzzles have an identity of their own (ARC); 1 where all are of one kind."""


class PlainConfig(Frozen):
    """The same blocks without recursion: what recursive networks are compared with."""

    hidden: int = Field(512, gt=0)
    """Width."""
    heads: int = Field(8, gt=0)
    """Attention heads; without effect with `mlp_t`."""
    layers: int = Field(2, gt=0)
    """Blocks; as many as TRM has makes the parameters equal."""
    mlp_t: bool = False
    """Mix positions by SwiGLU along them in place of attention."""
    expansion: float = Field(4.0, gt=0)
    """A feed-forward layer's width is 2/3 of this times the width."""
    round_to: int = Field(256, gt=0)
    """It is rounded up to a multiple of this; 32 suits small networks."""
    positions: Literal["rope", "learned"] = "rope"
    """Rotary positions, which only attention sees, or learned ones that are added."""
    prefix: int = Field(0, ge=0)
    """Positions in front that hold the embedding of the puzzle's identity; 0: none."""
    identities: int = Field(1, gt=0)
    """How many puzzles have an identity of their own (ARC); 1 where all are of one kind."""


class HRMConfig(Frozen):
    """`create_hrm_agent`: HRM as a player of any world, with document 001's names for the sizes."""

    refused: ClassVar[dict[str, str]] = {
        "dropout": "HRM has no dropout",
        "ponder_epsilon": "halting is a learned logit, not a sum of probabilities; write halt_threshold",
        "max_ponder_steps": "write max_outer_steps",
        "ponder_weight": "halting costs nothing here; write max_outer_steps",
        "consistency_weight": "an agent has no loss of its own",
        "use_augmentation": "augmentation belongs to the tasks",
    }
    h_dim: int = Field(512, gt=0)
    """Width of the slow stack H."""
    l_dim: int = Field(256, gt=0)
    """Width of the fast stack L. Where it is not that of H, the states are projected."""
    num_h_layers: int = Field(2, gt=0)
    """Blocks of H."""
    num_l_layers: int = Field(4, gt=0)
    """Blocks of L."""
    max_outer_steps: int = Field(10, gt=0)
    """Segments at most. In training each row is judged after one of them, in turn (deep supervision)."""
    halt_threshold: float = Field(0.95, ge=0, le=1)
    """In play, a row stops after the segment where its probability of halting reaches this. The halting head begins at
    0.007 and no loss of self-play moves it, so that all segments are run unless something else trains it."""
    heads: int = Field(8, gt=0)
    """Attention heads of both stacks."""
    h_cycles: int = Field(2, gt=0)
    """Updates of H per segment."""
    l_cycles: int = Field(2, gt=0)
    """Updates of L before each of H."""
    patch: int = Field(16, gt=0)
    """Numbers of an observation that make one position."""
    max_actions: int = Field(512, gt=0)
    """Actions of the largest world that it can play."""
    seed: int = Field(0, ge=0)
    """Decides the untrained weights."""

    @model_validator(mode="before")
    @classmethod
    def _say_why_not(cls, given: Any) -> Any:
        return _without(given, cls.refused, "HRMConfig")


class TRMConfig(Frozen):
    """`create_trm_agent`: TRM as a player of any world, with document 001's names for the sizes."""

    refused: ClassVar[dict[str, str]] = {
        "dropout": "TRM has no dropout",
        "use_layer_norm": "TRM normalises by root mean squares, always",
        "convergence_threshold": "all num_recursions steps are run, as in the publication",
        "min_recursions": "all num_recursions steps are run, as in the publication",
        "supervision_weight_decay": "every supervised step weighs the same; write deep_supervision",
    }
    latent_dim: int = Field(256, gt=0)
    """Width of answer y and latent z."""
    hidden_dim: int = Field(512, gt=0)
    """Width of the feed-forward layers inside the one network."""
    num_recursions: int = Field(16, gt=0)
    """Supervision steps: segments of `rounds` rounds each (N_sup of the publication, not its n)."""
    deep_supervision: bool = True
    """In training each row is judged after one of the segments, in turn; off, each after the last."""
    layers: int = Field(2, gt=0)
    """Blocks of the one network."""
    rounds: int = Field(3, gt=0)
    """T: rounds per segment; gradients flow through the last."""
    updates: int = Field(6, gt=0)
    """n: updates of z before each of y."""
    heads: int = Field(8, gt=0)
    """Attention heads."""
    patch: int = Field(16, gt=0)
    """Numbers of an observation that make one position."""
    max_actions: int = Field(512, gt=0)
    """Actions of the largest world that it can play."""
    seed: int = Field(0, ge=0)
    """Decides the untrained weights."""

    @model_validator(mode="before")
    @classmethod
    def _say_why_not(cls, given: Any) -> Any:
        return _without(given, cls.refused, "TRMConfig")


def _without(given: Any, refused: Mapping[str, str], section: str) -> Any:
    """Raises ValueError for the first key that other implementations know and this one does not."""
    for key in given if isinstance(given, Mapping) else ():
        if key in refused:
            raise ValueError(f"{section} has no {key}: {refused[key]}")
    return given


class TokenNetConfig(Frozen):
    """One network that gives a policy and a value for observations that are token ids."""

    kind: Literal["mlp", "transformer", "mixer", "hrm", "trm"] = "transformer"
    """`mlp`: hidden layers over all embeddings side by side, the fastest; `transformer`: attention; `mixer`: layers
    along the positions in place of attention; `hrm`, `trm`: recursive, a fixed number of segments."""
    hidden: int = Field(64, gt=0)
    """Width."""
    layers: int = Field(2, gt=0)
    """Hidden layers (mlp), blocks (transformer, mixer, trm), blocks of each stack (hrm)."""
    heads: int = Field(4, gt=0)
    """Attention heads (transformer, hrm, trm)."""
    expansion: float = Field(3.0, gt=0)
    """A feed-forward layer's width is 2/3 of this times the width, rounded up to a multiple of 32 (all but mlp)."""
    embedding: int = Field(16, gt=0)
    """Width of a token's embedding (mlp)."""
    segments: int = Field(2, gt=0)
    """Segments of one evaluation; the last one's answer counts (hrm, trm)."""
    cycles: int = Field(1, gt=0)
    """Updates of H per segment (hrm), rounds (trm)."""
    updates: int = Field(2, gt=0)
    """Updates of L before each of H (hrm), of the latent before each of the answer (trm)."""
    value_range: Literal["unit", "bounded", "unbounded"] = "unit"
    """`unit`: values in (0, 1) by a sigmoid, for tasks that pay at most 1; `bounded`: in (-1, 1) by tanh; `unbounded`:
    for returns of any size."""


class ActorCriticConfig(Frozen):
    """A policy and a value over flat observations, for environments and markets."""

    hidden: tuple[PositiveInt, ...] = Field((64, 64), min_length=1)
    """Widths of the hidden layers."""
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    """After each hidden layer. On the CPU, tanh is the fastest."""
    shared_trunk: bool = False
    """Whether policy and value share the hidden layers, or each has its own."""
    log_std: float = Field(0.0, ge=-10, le=3)
    """Logarithm of the standard deviations that continuous actions begin with."""


class TeamConfig(Frozen):
    """A meta-controller and its specialists."""

    meta_hidden: tuple[PositiveInt, ...] = Field((64, 64), min_length=1)
    """Widths of the meta-controller's hidden layers."""
    meta_shared_trunk: bool = True
    """Whether its policy and value share them, as document 002 has it, or each has its own."""
    specialist_hidden: tuple[PositiveInt, ...] = Field((64, 64), min_length=1)
    """Widths of each specialist's hidden layers; the last is that of its embedding."""
    activation: Literal["tanh", "relu", "elu", "silu"] = "tanh"
    """After each hidden layer."""
    log_std: float = Field(-0.5, ge=-10, le=3)
    """Logarithm of the standard deviations that actions begin with."""
