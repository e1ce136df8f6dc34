"""What a step is worth to whoever learns. All pay what prices did; none is a constant per step.

Legend: N accounts. `gain` is the simple return of the equity in the bar, after costs.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from troupe.config import Frozen, ReadWhen

__all__ = ["RewardRules", "RewardState", "begin_reward", "pay", "reward_read_when"]


_SMALLEST = 0.01
"""Variance of an account, in units of the ordinary one, that counts at least."""


class RewardRules(Frozen):
    """Which reward."""

    model_config = ConfigDict(allow_inf_nan=False)

    kind: Literal["return", "log_return", "mean_variance", "differential_sharpe"] = "return"
    """`return` and `log_return` of the equity; `mean_variance`: gain - aversion / 2 gain^2; `differential_sharpe`: what
    the bar added to a moving Sharpe ratio (Moody and Saffell 2001)."""
    aversion: float = Field(1.0, ge=0)
    """Of `mean_variance`."""
    decay: float = Field(0.01, gt=0, lt=1)
    """Of `differential_sharpe`: share of the newest bar in the moving moments."""
    scale: float = Field(100.0, gt=0)
    """Factor on the reward, so that a learner meets numbers near 1."""


class RewardState(NamedTuple):
    """Moving moments of each account's returns, and the variance below which their ratio is not believed."""

    mean: Any  # float64 [N]
    square: Any  # float64 [N]
    floor: Any  # float64 [N]


def begin_reward(xp: Any, typical_square: float, accounts: Any) -> RewardState:
    """`typical_square` is a squared return of ordinary size: without it the first bars' ratio would divide by almost
    nothing. `accounts` `[N]` gives type and place."""
    full = xp.full_like(accounts, typical_square)
    return RewardState(xp.zeros_like(accounts), full, _SMALLEST * full)


def pay(xp: Any, rules: RewardRules, state: RewardState, gain: Any) -> tuple[Any, RewardState]:
    """(rewards `[N]`, moments after the bar).

        differential Sharpe:  D = (B dA - A dB / 2) / (B - A^2)^(3/2),  dA = R - A,  dB = R^2 - B

    with A and B the moving mean and mean square before the bar (Moody and Saffell 2001, equation 7); D times `decay` is
    the change of the moving Sharpe ratio to first order.
    """
    if rules.kind == "return":
        return rules.scale * gain, state
    if rules.kind == "log_return":
        return rules.scale * xp.log(xp.clip(1.0 + gain, 1e-6, None)), state
    if rules.kind == "mean_variance":
        return rules.scale * (gain - 0.5 * rules.aversion * gain * gain), state
    moved, spread = gain - state.mean, gain * gain - state.square
    variance = state.square - state.mean * state.mean
    # Whoever did nothing for long has a variance of almost 0, and would be paid a fortune for the next trade.
    found = (state.square * moved - 0.5 * state.mean * spread) / xp.maximum(variance, state.floor) ** 1.5
    after = RewardState(state.mean + rules.decay * moved, state.square + rules.decay * spread, state.floor)
    return rules.scale * rules.decay * found, after


def reward_read_when(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of a reward at the dotted `prefix` depend on its kind (see `troupe.config.ReadWhen`)."""

    def kind(config: Any) -> str:
        for name in prefix.split("."):
            config = getattr(config, name)
        return str(config.kind)

    return tuple(
        ReadWhen(
            (f"{prefix}.{key}",), lambda config, only=only: kind(config) == only,
            f"is for {prefix}.kind={only}; write that, or leave it out",
        )
        for key, only in (("aversion", "mean_variance"), ("decay", "differential_sharpe"))
    )  # fmt: skip
