"""The network and the optimiser that a config asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from troupe.maths.losses import stablemax_log
from troupe.models.hrm import HRM
from troupe.models.trm import TRM, PlainTransformer
from troupe.systems.puzzles.config import PuzzleConfig, PuzzleLearningConfig
from troupe.training.adam_atan2 import adam_atan2
from troupe.training.learner import OptimizerGroup, adamw, cosine_with_warmup

__all__ = ["LOG_PROBABILITIES", "network", "optimizer_group"]

_NETWORKS: dict[str, Callable[..., nn.Module]] = {"hrm": HRM, "transformer": PlainTransformer, "trm": TRM}

_OPTIMIZERS: dict[str, Callable[..., OptimizerGroup]] = {"adam_atan2": adam_atan2, "adamw": adamw}


def _softmax_log(logits: Tensor) -> Tensor:
    return torch.log_softmax(logits.float(), -1)


LOG_PROBABILITIES: dict[str, Callable[[Tensor], Tensor]] = {"softmax": _softmax_log, "stablemax": stablemax_log}


def network(config: PuzzleConfig, *, vocabulary: int, length: int, tasks: int = 0) -> Any:
    """An untrained network for puzzles of `length` tokens, of `tasks` numbered tasks where there are such: an
    `nn.Module` that is `Recursive`. `config.seed` decides its weights.

    Raises ConfigError for sizes that do not fit together.
    """
    sizes, build = getattr(config.net, config.net.kind), _NETWORKS[config.net.kind]
    if tasks:
        sizes = sizes.model_copy(update={"identities": tasks})
    return build(sizes, vocabulary=vocabulary, length=length, outputs=vocabulary, seed=config.seed)


def optimizer_group(net: nn.Module, learning: PuzzleLearningConfig, steps: int) -> OptimizerGroup:
    """All parameters under one optimiser. The papers' sign descent for the embeddings of task numbers is left out."""
    named = dict(net.named_parameters())
    schedule = cosine_with_warmup(learning.warmup_steps, steps, learning.final_lr / learning.lr)
    build = _OPTIMIZERS[learning.optimizer]
    return build(
        named, lr=learning.lr, betas=learning.betas, weight_decay=learning.weight_decay, max_norm=learning.grad_clip,
        schedule=schedule,
    )  # fmt: skip
