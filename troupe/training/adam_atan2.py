"""Adam without epsilon: what HRM and TRM are trained with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError
from troupe.training.learner import OptimizerGroup

__all__ = ["AdamATan2", "adam_atan2"]


class AdamATan2(torch.optim.Optimizer):
    """Adam with atan2 in place of the division (Everett et al. 2024, section 4.3, arXiv:2407.05872).

        m <- b1 m + (1 - b1) g        v <- b2 v + (1 - b2) g^2
        w <- (1 - lr * decay) w - lr * scale * atan2(m / (1 - b1^t), sqrt(v / (1 - b2^t)))

    An update does not change when all gradients are scaled, however small they are, and a step is never larger than
    lr * scale * pi / 2. Where |m| is well below sqrt(v) it is Adam's. `scale` 4 / pi makes a step lr where the gradient
    never changes, as Adam's is; 1, the default, is what HRM and TRM were trained with.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-4,
        betas: tuple[float, float] = (0.9, 0.95),
        weight_decay: float = 0.1,
        scale: float = 1.0,
    ) -> None:
        """Raises ConfigError for numbers outside their ranges."""
        if not (lr >= 0 and weight_decay >= 0 and scale > 0):
            raise ConfigError(
                f"AdamATan2 needs lr >= 0, weight_decay >= 0 and scale > 0, not {lr}, {weight_decay}, {scale}"
            )
        if not all(0 <= beta < 1 for beta in betas):
            raise ConfigError(f"AdamATan2 needs betas in [0, 1), not {betas}")
        super().__init__(params, {"lr": lr, "betas": betas, "weight_decay": weight_decay, "scale": scale})

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:  # type: ignore[override]
        """One update of all parameters that have a gradient."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._move(parameter, parameter.grad, group)
        return loss

    def _move(self, parameter: Tensor, gradient: Tensor, group: Mapping[str, Any]) -> None:
        state = self.state[parameter]
        if not state:
            state["step"] = 0
            state["exp_avg"], state["exp_avg_sq"] = torch.zeros_like(parameter), torch.zeros_like(parameter)
        state["step"] += 1
        (b1, b2), lr, mean, square = group["betas"], group["lr"], state["exp_avg"], state["exp_avg_sq"]
        mean.lerp_(gradient, 1 - b1)
        square.mul_(b2).addcmul_(gradient, gradient, value=1 - b2)
        # atan2(a m, b) = atan2(m, b / a): one correction, on one of the two.
        spread = square.sqrt().mul_((1 - b1 ** state["step"]) / (1 - b2 ** state["step"]) ** 0.5)
        parameter.mul_(1 - lr * group["weight_decay"])
        parameter.sub_(torch.atan2(mean, spread), alpha=lr * group["scale"])


def adam_atan2(
    parameters: Mapping[str, nn.Parameter],
    *,
    lr: float,
    betas: tuple[float, float],
    weight_decay: float,
    **options: Any,
) -> OptimizerGroup:
    """A group under AdamATan2; `options` as `OptimizerGroup`."""
    named = dict(parameters)
    return OptimizerGroup(named, AdamATan2(list(named.values()), lr, betas, weight_decay), **options)
