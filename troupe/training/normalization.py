"""Running means and variances of observations and returns, so that networks read and predict numbers near 1."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

__all__ = ["ObservationScale", "ReturnScale", "RunningMoments"]


class RunningMoments:
    """Mean and (population) variance of all rows seen, `shape` each, in float64 (Chan, Golub and LeVeque 1979)."""

    def __init__(self, shape: tuple[int, ...] = (), device: torch.device | str = "cpu") -> None:
        self.count = 0
        self.mean = torch.zeros(shape, dtype=torch.float64, device=device)
        self.variance = torch.ones(shape, dtype=torch.float64, device=device)

    def add(self, rows: Tensor) -> None:
        """`rows` is `[n, *shape]`."""
        n, rows = len(rows), rows.double()
        total = self.count + n
        mean, variance = rows.mean(0), rows.var(0, correction=0)
        shift = mean - self.mean
        earlier = self.variance * self.count
        self.variance = (earlier + variance * n + shift**2 * (self.count * n / total)) / total
        self.mean = self.mean + shift * (n / total)
        self.count = total

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "mean": self.mean, "variance": self.variance}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.count = state["count"]
        self.mean, self.variance = (state[name].to(self.mean.device) for name in ("mean", "variance"))


class ObservationScale:
    """(observation - mean) / sqrt(variance + 1e-8) over all observations that training saw, clipped at +-`clip`."""

    def __init__(self, shape: tuple[int, ...], *, clip: float = 10.0, device: torch.device | str = "cpu") -> None:
        self.moments, self.clip = RunningMoments(shape, device), clip

    def __call__(self, observations: Tensor, *, learn: bool = False) -> Tensor:
        """float32 of the same shape; `learn` takes these observations into account first."""
        if learn:
            self.moments.add(observations)
        scale = torch.rsqrt(self.moments.variance + 1e-8)
        return ((observations - self.moments.mean) * scale).clamp(-self.clip, self.clip).float()


class ReturnScale:
    """Rewards divided by the standard deviation of the discounted returns so far, clipped at +-`clip`.

        G_t = gamma G_{t-1} (1 - ended_{t-1}) + r_t

    (the running return of OpenAI baselines' VecNormalize; it looks back, unlike the return that is learned). One scale
    holds for a whole rollout, whose own returns count.
    """

    def __init__(self, n: int, gamma: float, *, clip: float = 10.0, device: torch.device | str = "cpu") -> None:
        self.moments, self.gamma, self.clip = RunningMoments((), device), gamma, clip
        self.running = torch.zeros(n, dtype=torch.float64, device=device)

    def __call__(self, rewards: Tensor, ended: Tensor) -> Tensor:
        """`rewards` float and `ended` bool, both `[T, N]`; returns float32 `[T, N]`."""
        seen = []
        for reward, end in zip(rewards, ended, strict=True):
            self.running = self.gamma * self.running + reward
            seen.append(self.running)
            self.running = torch.where(end, 0.0, self.running)
        self.moments.add(torch.cat(seen))
        return (rewards * torch.rsqrt(self.moments.variance + 1e-8)).clamp(-self.clip, self.clip).float()

    def state_dict(self) -> dict[str, Any]:
        return {"moments": self.moments.state_dict(), "running": self.running}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.moments.load_state_dict(state["moments"])
        self.running = state["running"].to(self.running.device)
