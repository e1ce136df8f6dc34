"""From per-token values to one number: the denominator is an algorithm of its own.

GRPO, DAPO and Dr. GRPO differ in little else. A minibatch that is too large for memory is cut into micro-batches by
rows; its denominators are computed once, from all of it, or short micro-batches would weigh too much:

    whole = normalizer(mask, "token_mean")
    for part in micro_batches:
        aggregate(loss[part], mask[part], "token_mean", normalizer=whole)   # these add up to the minibatch's loss
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from troupe.errors import ConfigError, CreditError, did_you_mean

__all__ = ["MODES", "Normalizer", "aggregate", "normalizer"]

MODES: dict[str, str] = {
    "token_mean": "sum / tokens of the batch: every token counts the same (DAPO); long answers weigh more",
    "seq_mean_token_sum": "sum / rows: every answer's log-likelihood counts the same; for sequence-level objectives",
    "seq_mean_token_mean": "mean over rows of token means (GRPO): a token of a long answer counts less",
    "constant": "sum / a given constant (Dr. GRPO): no length bias, one scale for the whole run",
    "per_episode": "mean over episodes of token means: an episode counts once, however many rows its agents filled",
}


@dataclass(frozen=True, slots=True, eq=False)
class Normalizer:
    """The denominators of one full minibatch. Micro-batches that share it add up to the minibatch's loss.

    Across data-parallel workers add up `divisor` (in all modes but `constant`): summed gradients are then one worker's.
    """

    mode: str
    divisor: float  # tokens, rows or episodes that count, or the constant
    episodes: Tensor | None = None  # int64 [E], sorted; `per_episode` only
    episode_tokens: Tensor | None = None  # int64 [E]


def normalizer(mask: Tensor, mode: str, episodes: Tensor | None = None, constant: float | None = None) -> Normalizer:
    """The denominators of `mode` for the full minibatch `mask[B, T]`; `episodes` int64 `[B]` names each row's episode.

    Rows and episodes without a masked token do not count. Raises ConfigError for an unknown mode and for a `constant`
    that is missing, not positive, or given to another mode; CreditError where `per_episode` gets no `episodes`.
    """
    if mode not in MODES:
        raise ConfigError(f"unknown aggregation mode {mode!r}{did_you_mean(mode, MODES)}")
    if (constant is not None) != (mode == "constant"):
        raise ConfigError(
            f"aggregation mode {mode!r} with constant={constant}: mode 'constant' needs one, others refuse it"
        )
    lengths = mask.bool().sum(dim=1)
    if constant is not None:
        if constant <= 0:
            raise ConfigError(f"constant must be positive, found {constant}")
        return Normalizer(mode, float(constant))
    if mode == "token_mean":
        return Normalizer(mode, float(lengths.sum()))
    if mode != "per_episode":
        return Normalizer(mode, float((lengths > 0).sum()))
    names, member_of = torch.unique(_episodes_of(mask, episodes), return_inverse=True)
    tokens = torch.zeros_like(names).index_add(0, member_of, lengths)
    return Normalizer(mode, float((tokens > 0).sum()), names, tokens)


def aggregate(
    values: Tensor,
    mask: Tensor,
    mode: str,
    *,
    normalizer: Normalizer | None = None,
    episodes: Tensor | None = None,
    constant: float | None = None,
) -> Tensor:
    """Adds per-token `values[B, T]` up to a scalar under `mask[B, T]`, in one of `MODES`.

    Without a `normalizer` the denominators are those of this batch; with the one of a full minibatch, the sum over its
    micro-batches (any split by rows) equals the minibatch's loss, and so do the gradients. An empty mask gives 0.
    Values outside the mask, NaN included, do not reach the sum. Errors as in `normalizer()`; also ConfigError where
    the given normalizer is of another mode, CreditError where it has not seen an episode of this batch.
    """
    if normalizer is None:
        normalizer = _normalizer_of(mask, mode, episodes, constant)
    elif normalizer.mode != mode or constant is not None:
        raise ConfigError(
            f"aggregate(mode={mode!r}, constant={constant}) was given a normalizer of mode {normalizer.mode!r}: "
            "pass the mode it was made for and leave its constant out"
        )
    kept = torch.where(mask.bool(), values, 0.0).to(torch.promote_types(values.dtype, torch.float32))
    if mode == "seq_mean_token_mean":
        kept = kept / mask.bool().sum(dim=1, keepdim=True).clamp(min=1)
    elif mode == "per_episode":
        kept = kept / _episode_tokens(normalizer, _episodes_of(mask, episodes))[:, None]
    return kept.sum() / (normalizer.divisor or 1.0)


_normalizer_of = normalizer  # `aggregate` has an argument of that name


def _episodes_of(mask: Tensor, episodes: Tensor | None) -> Tensor:
    if episodes is None or episodes.shape != mask.shape[:1]:
        found = None if episodes is None else list(episodes.shape)
        raise CreditError(f"mode 'per_episode' needs episodes [{mask.shape[0]}], one id per row, found {found}")
    return episodes


def _episode_tokens(whole: Normalizer, episodes: Tensor) -> Tensor:
    assert whole.episodes is not None and whole.episode_tokens is not None
    place = torch.searchsorted(whole.episodes, episodes).clamp(max=len(whole.episodes) - 1)
    unseen = torch.nonzero(whole.episodes[place] != episodes)
    if len(unseen):
        raise CreditError(
            f"episode {int(episodes[int(unseen[0])])} of this micro-batch is not in the normalizer: "
            "compute the normalizer from the full minibatch that the micro-batch was cut from"
        )
    return whole.episode_tokens[place].clamp(min=1)
