"""What a step is worth to whoever learns. All pay what prices did; none is a constant per step.

Legend: N accounts, S sectors. `gain` is the simple return of the equity in the bar, after costs.
"""

from __future__ import annotations

from typing import Any, Literal, NamedTuple

from pydantic import ConfigDict, Field

from troupe.config import Frozen, ReadWhen

__all__ = ["Bar", "RewardRules", "RewardState", "begin_reward", "left_out", "pay", "reward_read_when"]


_SMALLEST = 0.01
"""Variance of an account, in units of the ordinary one, that counts at least."""


class RewardRules(Frozen):
    """Which reward."""

    model_config = ConfigDict(allow_inf_nan=False)

    kind: Literal["return", "log_return", "mean_variance", "differential_sharpe", "portfolio"] = "return"
    """`return` and `log_return` of the equity; `mean_variance`: gain - aversion / 2 gain^2; `differential_sharpe`: what
    the bar added to a moving Sharpe ratio (Moody and Saffell 2001); `portfolio`: that, drawdown and diversification, as
    document 002 weighs them."""
    aversion: float = Field(1.0, ge=0)
    """Of `mean_variance`."""
    decay: float = Field(0.01, gt=0, lt=1)
    """Of `differential_sharpe` and `portfolio`: share of the newest bar in the moving moments."""
    scale: float = Field(100.0, gt=0)
    """Factor on the reward, so that a learner meets numbers near 1."""

    risk_penalty_weight: float = Field(1.0, ge=0)
    """Of `portfolio`: how often the part of a loss counts again that deepens a drawdown beyond its target."""
    transaction_cost_weight: float = Field(1.0, ge=0)
    """Of `portfolio`: how often costs count; once is what the account pays."""
    diversification_bonus_weight: float = Field(0.5, ge=0)
    """Of `portfolio`: points of annual Sharpe ratio for sectors that cancel each other's moves, against none for ones
    that are not correlated; as many are taken for two that move as one. Needs two sectors or more."""
    sharpe_target: float | None = Field(2.0, gt=0)
    """Of `portfolio`: annual Sharpe ratio beyond which more is worth nothing, as far as a moving ratio can tell; null
    sets none."""
    max_drawdown_target: float | None = Field(0.15, ge=0, lt=1)
    """Of `portfolio`: drawdown that costs nothing; null lets any go free."""
    risk_free_rate: float = Field(0.02, gt=-1, lt=1)
    """Of `portfolio`: what money in positions must earn in a year before it counts; the rest lies in cash, which earns
    that without anybody's doing."""
    downside_volatility_weight: float = Field(1.0, gt=0)
    """Of `portfolio`: how often the square of a loss counts in the volatility."""


class RewardState(NamedTuple):
    """Moving moments of each account's returns, and the variance below which their ratio is not believed."""

    mean: Any  # float64 [N]
    square: Any  # float64 [N]
    floor: Any  # float64 [N]
    apart: Any  # float64 [N]: sum of the sectors' mean squares
    together: Any  # float64 [N]: mean square of their sum


def begin_reward(xp: Any, typical_square: float, accounts: Any) -> RewardState:
    """`typical_square` is a squared return of ordinary size: without it the first bars' ratio would divide by almost
    nothing. `accounts` `[N]` gives type and place."""
    full = xp.full_like(accounts, typical_square)
    return RewardState(xp.zeros_like(accounts), full, _SMALLEST * full, full, full)


class Bar(NamedTuple):
    """What one bar brought, as far as a reward looks at it. Only `portfolio` looks at more than the gain."""

    gain: Any  # float64 [N]
    gains: Any = None  # float64 [N, S]: by sector, as shares of the equity before; together the gain
    costs: Any = None  # float64 [N, S]: costs and swap, which the gains are after, as shares of the equity before
    exposures: Any = None  # float64 [N, S]: sum of |weights| held at the bar's close
    equity: Any = None  # float64 [N]: before the bar
    peak: Any = None  # float64 [N]: before the bar
    periods_per_year: float = 1.0


def left_out(bar: Bar, others: Any) -> Bar:
    """The bar as it would have been for S portfolios, each without one of the sectors: arrays `[S, N]` and `[S, N, S]`,
    which `pay` takes as well. `others` `[S, 1, S]` is 0 for the sector that is left out, else 1."""
    without = bar._replace(gain=bar.gain - bar.gains.T)
    if bar.costs is None:
        return without
    return without._replace(gains=bar.gains * others, costs=bar.costs * others, exposures=bar.exposures * others)


def pay(xp: Any, rules: RewardRules, state: RewardState, bar: Bar) -> tuple[Any, RewardState]:
    """(rewards `[N]`, moments after the bar).

    `differential_sharpe` pays, with A and B the moving mean and mean square before the bar,

        D = (B dA - A dB / 2) / (B - A^2)^(3/2),  dA = R - A,  dB = R^2 - B

    (Moody and Saffell 2001, equation 7), times `decay`: the change of the moving Sharpe ratio to first order.

    `portfolio` pays `scale` times what the bar added to W, the worth of where an account stands:

        x = gain - (transaction_cost_weight - 1) cost - risk_free_rate / periods_per_year * exposure
        A <- A + decay (x - A),   B <- B + decay (c x^2 - B),   c = downside_volatility_weight where x < 0, else 1
        P <- P + decay (sum_k g_k^2 - P),   Q <- Q + decay ((sum_k g_k)^2 - Q)         g_k: gain of sector k

        S = min(A / sqrt(max(B - A^2, floor)), sharpe_target / sqrt(periods_per_year) + 2 sqrt(decay / (2 - decay)))
        D = (P - Q) / max(P, floor) / sqrt(periods_per_year)
        E = max(0, 1 - equity / peak - max_drawdown_target) / s
        W = S + diversification_bonus_weight D - risk_penalty_weight decay E

    S is a Sharpe ratio per bar; the root at its limit is the standard error of such a moving ratio. The factor of the
    weight in D's term is 1 where sectors cancel, 0 where they are uncorrelated, below 0 where they move together. s is
    the deviation of an ordinary bar's return: to first order a return x moves S by decay * x / s, as E is scaled.

    Nothing is a constant per step: the rewards of an episode add up to W at its end; discounted, to a mean of W
    on the way. Two wrong answers must not win. To do nothing: an account that never traded has S = D = E = 0 and gets
    exactly 0 at every bar, for which the risk-free rate is asked of what is in positions (taken from A, it would let S
    of such an account fall tenfold while B falls); and without the standard errors, a limit that luck alone reaches
    would cost whoever trades with an edge more than the edge brings. To hedge without any edge: D is bounded, which a
    price on each bar's products g_j g_k would not be.
    """
    if rules.kind == "portfolio":
        return _portfolio(xp, rules, state, bar)
    gain = bar.gain
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
    after = state._replace(mean=state.mean + rules.decay * moved, square=state.square + rules.decay * spread)
    return rules.scale * rules.decay * found, after


def _portfolio(xp: Any, rules: RewardRules, state: RewardState, bar: Bar) -> tuple[Any, RewardState]:
    after, periods = _moved(xp, rules, state, bar), bar.periods_per_year
    fallen = 1.0 - bar.equity / bar.peak
    falls = 1.0 - bar.equity * (1.0 + bar.gain) / bar.peak  # below 0 at a new peak, which is beyond no target
    gained = _worth(xp, rules, after, falls, periods) - _worth(xp, rules, state, fallen, periods)
    return rules.scale * gained, after


def _moved(xp: Any, rules: RewardRules, state: RewardState, bar: Bar) -> RewardState:
    """The moments after the bar."""
    again, rate = rules.transaction_cost_weight - 1.0, rules.risk_free_rate / bar.periods_per_year
    counted = bar.gain - xp.sum(again * bar.costs + rate * bar.exposures, axis=-1)
    square, whole = counted * counted, xp.sum(bar.gains, axis=-1)
    square = xp.where(counted < 0, rules.downside_volatility_weight * square, square)
    apart, together = xp.sum(bar.gains * bar.gains, axis=-1), whole * whole
    return RewardState(
        state.mean + rules.decay * (counted - state.mean), state.square + rules.decay * (square - state.square),
        state.floor, state.apart + rules.decay * (apart - state.apart),
        state.together + rules.decay * (together - state.together),
    )  # fmt: skip


def _worth(xp: Any, rules: RewardRules, state: RewardState, drawdown: Any, periods_per_year: float) -> Any:
    """W of `pay`."""
    worth = state.mean / xp.maximum(state.square - state.mean * state.mean, state.floor) ** 0.5
    if rules.sharpe_target is not None:
        error = (rules.decay / (2.0 - rules.decay)) ** 0.5
        worth = xp.clip(worth, None, rules.sharpe_target / periods_per_year**0.5 + 2.0 * error)
    bonus = rules.diversification_bonus_weight / periods_per_year**0.5
    worth = worth + bonus * (state.apart - state.together) / xp.maximum(state.apart, state.floor)
    if rules.max_drawdown_target is None:
        return worth
    beyond = (drawdown - rules.max_drawdown_target).clip(0.0) / (state.floor / _SMALLEST) ** 0.5
    return worth - rules.risk_penalty_weight * rules.decay * beyond


_OF_KIND = {"aversion": ("mean_variance",), "decay": ("differential_sharpe", "portfolio")} | dict.fromkeys(
    (
        "risk_penalty_weight", "transaction_cost_weight", "diversification_bonus_weight", "sharpe_target",
        "max_drawdown_target", "risk_free_rate", "downside_volatility_weight",
    ),
    ("portfolio",),
)  # fmt: skip
"""Key -> the kinds that read it."""


def reward_read_when(prefix: str) -> tuple[ReadWhen, ...]:
    """Which keys of a reward at the dotted `prefix` depend on others (see `troupe.config.ReadWhen`)."""

    def reward(config: Any) -> Any:
        for name in prefix.split("."):
            config = getattr(config, name)
        return config

    kinds = (
        ReadWhen(
            (f"{prefix}.{key}",), lambda config, kinds=kinds: str(reward(config).kind) in kinds,
            f"is for {prefix}.kind={' or '.join(kinds)}; write that, or leave it out",
        )
        for key, kinds in _OF_KIND.items()
    )  # fmt: skip
    target = ReadWhen(
        (f"{prefix}.risk_penalty_weight",), lambda config: reward(config).max_drawdown_target is not None,
        f"is for {prefix}.max_drawdown_target; write one, or leave it out",
    )  # fmt: skip
    return (*kinds, target)
