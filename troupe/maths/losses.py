"""What is minimised: policy, value, KL and entropy terms per token.

Legend: B rows, T columns, V vocabulary. Everything here is per token `[B, T]`; how tokens add up to one number is
`aggregation`, whose names can be imported from here too.

    policy = POLICY_LOSSES["ppo"](logprobs, old_logprobs, advantages, mask, clip_low=0.2, clip_high=0.28)
    loss = aggregate(policy.loss, mask, "token_mean") + 0.01 * aggregate(kl(logprobs, ref_logprobs), mask, "token_mean")
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from troupe.errors import ConfigError, did_you_mean
from troupe.maths.aggregation import MODES, Normalizer, aggregate, normalizer

__all__ = [
    "KL_ESTIMATORS",
    "MODES",
    "POLICY_LOSSES",
    "Normalizer",
    "PolicyLoss",
    "aggregate",
    "cispo",
    "entropy",
    "gspo",
    "kl",
    "normalizer",
    "ppo_clip",
    "stablemax_log",
    "token_nll",
    "truncated_importance_weights",
    "value_loss",
]

LOG_RATIO_LIMIT = 20.0
"""|log ratio| is cut here: exp(20) is 5e8 and finite, where exp(89) is inf in float32 and its gradient NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class PolicyLoss:
    """A policy loss before aggregation."""

    loss: Tensor  # [B, T], to be minimised
    clipped: Tensor  # bool [B, T]: the clip decided here, so that this token's ratio has no gradient

    def clip_fraction(self, mask: Tensor) -> float:
        """Share of the masked tokens that were clipped; 0 for an empty mask."""
        mask = mask.bool()
        return float((self.clipped & mask).sum() / mask.sum().clamp(min=1))


def ppo_clip(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    *,
    clip_low: float,
    clip_high: float,
    dual_clip: float | None = None,
) -> PolicyLoss:
    """PPO's clipped surrogate per token (Schulman et al. 2017, equation 7, arXiv:1707.06347).

        w = exp(logp - logp_old);  loss = -min(w A, clip(w, 1 - clip_low, 1 + clip_high) A)

    `clip_high > clip_low` is DAPO's clip-higher (arXiv:2503.14476, section 3.1). `dual_clip` c > 1 bounds the loss of
    a negative advantage by -c A (Ye et al. 2020, arXiv:1912.09729). All tensors `[B, T]`; `mask` keeps what stands in
    padding out of the exponential. `clipped` counts only tokens whose gradient vanished, as TRL does;
    stable-baselines3 counts every |w - 1| > clip.

    Right for a critic's or a step's own advantages. Wrong for long answers with one reward from mixture-of-experts
    models: token ratios drift with the routing, and `gspo` is steadier. Raises ConfigError for dual_clip <= 1.
    """
    if dual_clip is not None and dual_clip <= 1:
        raise ConfigError(f"dual_clip must be above 1, found {dual_clip}: at 1 it would clip unchanged policies")
    ratio = _log_ratio(logprobs, old_logprobs, mask).exp()
    return _clipped_surrogate(ratio, advantages, clip_low, clip_high, dual_clip)


def gspo(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip_low: float, clip_high: float
) -> PolicyLoss:
    """Group sequence policy optimisation (Zheng et al. 2025, arXiv:2507.18071), in its token form (section 4.3).

        s = exp(mean over the row's tokens of (logp - logp_old));  w_t = sg(s) * exp(logp_t) / sg(exp(logp_t))
        loss_t = -min(w_t A_t, clip(w_t, 1 - clip_low, 1 + clip_high) A_t)

    Every token of a row carries the row's ratio; with one advantage per row, value and gradient equal the plain
    sequence form, and with several (merged turns) each token keeps its own. Clip ranges are far smaller than PPO's: the
    paper uses 3e-4 and 4e-4. All tensors `[B, T]`. Use with `aggregate(mode="seq_mean_token_mean")`.

    Right for one reward per answer and for mixture-of-experts models. Wrong for a critic's advantages over long,
    merged conversations: one drifting turn clips them all.
    """
    log_ratio = _log_ratio(logprobs, old_logprobs, mask)
    mean = log_ratio.sum(dim=1, keepdim=True) / mask.bool().sum(dim=1, keepdim=True).clamp(min=1)
    logprobs = torch.where(mask.bool(), logprobs, 0.0)
    # The bracket is exactly 0 and has gradient 1; added in another order it would cost the mean its last digits, which
    # a clip range of 3e-4 needs.
    ratio = (mean.detach() + (logprobs - logprobs.detach())).exp()
    surrogate = _clipped_surrogate(ratio, advantages, clip_low, clip_high, None)
    return PolicyLoss(surrogate.loss, surrogate.clipped & mask.bool())


def cispo(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor | None = None,
    *,
    clip_low: float,
    clip_high: float,
) -> PolicyLoss:
    """Clipped importance-sampling weights (MiniMax-M1, 2025, section 3.1, equation 4, arXiv:2506.13585).

        loss = -sg(clip(w, 1 - clip_low, 1 + clip_high)) * A * logp

    The weight is clipped, never the token: rare tokens that open a line of reasoning keep their gradient. The paper
    leaves the lower side open (`clip_low=1`) and tunes the upper one (well above PPO's; TRL's default is clip_high=4).
    All tensors `[B, T]`; `clipped` counts clipped weights.

    Right for long reasoning with few off-policy updates. Wrong where many epochs reuse a batch: nothing stops the
    policy from walking on, as PPO's vanishing gradient does.
    """
    weight = _log_ratio(logprobs, old_logprobs, mask).exp().detach()
    bounded = weight.clamp(1 - clip_low, 1 + clip_high)
    logprobs = logprobs if mask is None else torch.where(mask.bool(), logprobs, 0.0)
    return PolicyLoss(-bounded * advantages * logprobs, bounded != weight)


POLICY_LOSSES: dict[str, Callable[..., PolicyLoss]] = {"ppo": ppo_clip, "gspo": gspo, "cispo": cispo}
"""Each is called as `f(logprobs, old_logprobs, advantages, mask, clip_low=..., clip_high=...)`."""


def _clipped_surrogate(
    ratio: Tensor, advantages: Tensor, clip_low: float, clip_high: float, dual_clip: float | None
) -> PolicyLoss:
    loss = -torch.min(ratio * advantages, ratio.clamp(1 - clip_low, 1 + clip_high) * advantages)
    negative = advantages < 0
    clipped = ((ratio > 1 + clip_high) & (advantages > 0)) | ((ratio < 1 - clip_low) & negative)
    if dual_clip is not None:
        loss = torch.where(negative, torch.min(loss, -dual_clip * advantages), loss)
        clipped = clipped | ((ratio > dual_clip) & negative)
    return PolicyLoss(loss, clipped)


def _log_ratio(logprobs: Tensor, old_logprobs: Tensor, mask: Tensor | None) -> Tensor:
    difference = logprobs - old_logprobs.detach()
    if mask is not None:
        # Before exp, not after: where() around an overflowing exp still sends 0 * inf = NaN backwards, see
        # https://github.com/google-deepmind/rlax/blob/master/rlax/_src/policy_gradients.py
        difference = torch.where(mask.bool(), difference, 0.0)
    return difference.clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT)


def value_loss(
    values: Tensor,
    returns: Tensor,
    old_values: Tensor | None = None,
    *,
    clip: float | None = None,
    pessimistic: bool = True,
) -> Tensor:
    """Squared error of the critic per token, optionally clipped around its old prediction.

        plain        0.5 (V - R)^2
        pessimistic  0.5 max((V - R)^2, (V_clip - R)^2),  V_clip = V_old + clamp(V - V_old, -clip, clip)
        otherwise    0.5 (V_clip - R)^2

    The pessimistic form is that of OpenAI baselines' ppo2 and of TRL's PPO; the other one is stable-baselines3's, whose
    loss has no 0.5: its `vf_coef` c is our coefficient 2 c. The latter has no gradient for a value that has
    left the range, even towards the return. `clip` is in units of reward. Shapes `[B, T]` throughout. Right unclipped,
    unless the critic's jumps hurt (Andrychowicz et al. 2021, section 3.3, arXiv:2006.05990, finds no gain from
    clipping). Raises ConfigError where `clip` comes without `old_values`.
    """
    if clip is None:
        return 0.5 * (values - returns) ** 2
    if old_values is None:
        raise ConfigError(f"value_loss(clip={clip}) needs old_values, the predictions of the policy that sampled")
    bounded = old_values + (values - old_values).clamp(-clip, clip)
    error = (bounded - returns) ** 2
    return 0.5 * (torch.max((values - returns) ** 2, error) if pessimistic else error)


KL_ESTIMATORS: dict[str, Callable[[Tensor], Tensor]] = {
    "k1": lambda d: d,
    "k2": lambda d: 0.5 * d**2,
    "k3": lambda d: torch.expm1(-d) + d,  # expm1: exp(-d) - 1 loses all digits where policies nearly agree
}


def kl(logprobs: Tensor, ref_logprobs: Tensor, estimator: str = "k3") -> Tensor:
    """Per-token estimate of KL(policy || reference) from the policy's own samples.

        d = logp - logp_ref;   k1 = d,   k2 = d^2 / 2,   k3 = exp(-d) - 1 + d

    John Schulman, "Approximating KL divergence", http://joschu.net/blog/kl-approx.html. `[B, T]` to `[B, T]`.
    Right: k1 as a penalty inside the reward (unbiased; as a loss its expected gradient is zero); k2 as a
    loss (its gradient is the reverse KL's); k3 to watch, and as GRPO's loss term (never negative; its gradient is the
    forward KL's; times exp(logp - logp_old), TRL's default, it is the reverse KL's: DeepSeek-V3.2, arXiv:2512.02556).
    Raises ConfigError for another name.
    """
    if estimator not in KL_ESTIMATORS:
        raise ConfigError(f"unknown KL estimator {estimator!r}{did_you_mean(estimator, KL_ESTIMATORS)}")
    return KL_ESTIMATORS[estimator]((logprobs - ref_logprobs).clamp(-LOG_RATIO_LIMIT, LOG_RATIO_LIMIT))


def entropy(logits: Tensor) -> Tensor:
    """Entropy in nats of softmax(logits), `[..., V]` to `[...]`. A logit of -inf is an action that is not allowed."""
    logp = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    # 0 * log 0 is 0, forwards and backwards: replace -inf before it is multiplied.
    return -(logp.exp() * torch.where(torch.isfinite(logp), logp, 0.0)).sum(dim=-1)


def token_nll(logits: Tensor, targets: Tensor) -> Tensor:
    """Negative log-likelihood in nats of `targets` int64 `[B, T]` under `logits` `[B, T, V]`. Returns `[B, T]`."""
    logp = torch.log_softmax(logits.to(torch.promote_types(logits.dtype, torch.float32)), dim=-1)
    return -logp.gather(-1, targets.unsqueeze(-1)).squeeze(-1)


def stablemax_log(logits: Tensor) -> Tensor:
    """log of stablemax (Prieto et al. 2025, arXiv:2501.04697), float64 `[..., V]` to `[..., V]`.

        p_i = s(x_i) / sum_j s(x_j),    s(x) = x + 1 where x >= 0, 1 / (1 - x) elsewhere

    It grows as a line where softmax grows exponentially, so that a network which is sure of all its answers still gets
    gradients: what HRM and TRM are trained with. Their loss is `-stablemax_log(logits).gather(-1, target)`.
    """
    logits = logits.double()
    # Not sign(x) log(1 + |x|): its derivative at 0 would be 0 in place of 1, and a network may begin at 0.
    log_s = torch.where(logits >= 0, logits.clamp(min=0).log1p(), -(-logits).clamp(min=0).log1p())
    return log_s - torch.logsumexp(log_s, dim=-1, keepdim=True)


def truncated_importance_weights(
    logprobs_train: Tensor, logprobs_rollout: Tensor, cap: float, level: str, mask: Tensor
) -> Tensor:
    """Weights that correct for an engine whose log-probs differ from the trainer's for the same weights.

        token     min(exp(logp_train - logp_rollout), cap)
        sequence  min(exp(sum over the row's tokens of that difference), cap), on each token

    Yao et al. 2025, "Your efficient RL framework secretly brings you off-policy RL training"; truncation after
    Ionides 2008. All tensors `[B, T]`; returns `[B, T]` without gradient, 0 outside the mask. Multiply the per-token
    loss by it. Right: `token` by default (low variance, small bias), `sequence` for short answers (unbiased below the
    cap, its variance grows with length). Useless in process: one set of weights, every ratio 1.
    """
    if cap <= 0:
        raise ConfigError(f"cap must be positive, found {cap}: it is the largest weight a token can get")
    mask = mask.bool()
    log_weight = torch.where(mask, logprobs_train - logprobs_rollout, 0.0).detach()
    if level == "sequence":
        log_weight = log_weight.sum(dim=1, keepdim=True).expand_as(mask)
    elif level != "token":
        raise ConfigError(f"unknown level {level!r}{did_you_mean(level, ('token', 'sequence'))}")
    return log_weight.clamp(max=math.log(cap)).exp() * mask
