"""Configuration of language models, of the networks of self-play and of actor and critic; imports no torch."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, PositiveInt

from troupe.config import Frozen

__all__ = ["ActorCriticConfig", "CriticConfig", "LoraSettings", "ModelConfig", "PolicyValueConfig", "TeamConfig",
           "TinyConfig"]  # fmt: skip


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
