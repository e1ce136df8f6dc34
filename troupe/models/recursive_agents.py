"""HRM and TRM as players of any world: agents that give a policy and a value for rows of numbers.

    hrm_agent = create_hrm_agent(HRMConfig(h_dim=512, l_dim=256), device="cpu")
    trm_agent = create_trm_agent(TRMConfig(latent_dim=256), device="cpu")
    generator = SelfPlayEpisodeGenerator(hrm_agent=hrm_agent, trm_agent=trm_agent)

One agent meets worlds of different shapes. A row is cut into patches of numbers, one position each, behind a first
position that says how long rows of this world are and how many actions it has; the recursion runs over them, and the
first position answers: a logit per action by that action's query, and a value in (-1, 1).

In training, deep supervision is spread over the rows of a batch: row i is judged after segment 1 + (i mod steps), so
that the mean loss is that of all segments. Where a world lists candidates, whose logits are compared from row to row,
all rows are judged after the last. In play, the last segment answers, or that in which HRM's row halts.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from troupe.errors import ConfigError
from troupe.models.config import HRMConfig, HRMNetConfig, TRMConfig, TRMNetConfig
from troupe.models.hrm import HRMCore
from troupe.models.policy_value import HEAD_SCALE
from troupe.models.recursion import HALT_BIAS, Carry, detached, linear, truncated_normal
from troupe.models.trm import TRMCore

__all__ = ["AgentView", "RecursiveAgent", "create_hrm_agent", "create_trm_agent"]

_CODE = 32
"""Numbers that tell a world's size."""


class RecursiveAgent(nn.Module):
    """Built by `create_hrm_agent` and `create_trm_agent`.

    `steps` segments at most; `halt_threshold` None never stops earlier; `deep` as in the module's docstring.
    """

    def __init__(
        self,
        core: HRMCore | TRMCore,
        *,
        width: int,
        patch: int,
        max_actions: int,
        steps: int,
        deep: bool,
        halt_threshold: float | None,
        generator: torch.Generator,
    ) -> None:
        super().__init__()
        self.core, self.patch, self.max_actions = core, patch, max_actions
        self.steps, self.deep, self.halt_threshold = steps, deep, halt_threshold
        self.patches = linear(patch, width, generator)
        self.world = linear(_CODE, width, generator)
        self.ask = linear(width, width, generator)
        self.queries = nn.Parameter(truncated_normal((max_actions, width), HEAD_SCALE / math.sqrt(width), generator))
        self.worth = linear(width, 1, generator)
        self.worth.weight.data *= HEAD_SCALE
        self.halt: nn.Linear | None = None
        if halt_threshold is not None:
            self.halt = nn.utils.skip_init(nn.Linear, width, 1)
            nn.init.zeros_(self.halt.weight)
            nn.init.constant_(self.halt.bias, HALT_BIAS)

    def for_world(self, observation_shape: tuple[int, ...], actions: int) -> AgentView:
        """This agent as a network for one world. Raises ConfigError for more actions than it has queries."""
        if actions > self.max_actions:
            raise ConfigError(
                f"the world has {actions} actions, the agent has queries for {self.max_actions}; write max_actions: "
                f"{actions}"
            )
        return AgentView(self, tuple(observation_shape), actions)

    def forward(self, rows: Tensor, actions: int) -> tuple[Tensor, Tensor]:
        """float `[n, ...]` -> (logits `[n, actions]`, values `[n]`)."""
        x = self.embed(rows, actions)
        answer = self._spread(x) if self.training and self.deep and actions > 1 else self._last(x)
        logits = self.ask(answer) @ self.queries[:actions].T
        return logits, torch.tanh(self.worth(answer)).squeeze(-1)

    def embed(self, rows: Tensor, actions: int) -> Tensor:
        """`[n, 1 + patches, D]`: the world's size, then sign(v) log(1 + |v|) of the numbers, patch by patch."""
        flat = rows.float().flatten(1)
        code = self.world(_code(flat.shape[1], actions).to(flat.device)).expand(len(flat), 1, -1)
        squeezed = flat.sign() * flat.abs().log1p()
        cut = functional.pad(squeezed, (0, -flat.shape[1] % self.patch)).unflatten(1, (-1, self.patch))
        return torch.cat((code, self.patches(cut)), dim=1)

    def _last(self, x: Tensor) -> Tensor:
        """What the first position holds after the last segment or that in which a row halts, `[n, D]`."""
        carry = self.core.initial_carry(len(x), x.shape[1])
        answer, running = x.new_zeros(len(x), x.shape[2]), torch.arange(len(x), device=x.device)
        with torch.no_grad():
            for _ in range(self.steps - 1):
                carry = self.core(carry, x)
                stopped = self._stopped(carry)
                if stopped.any():
                    answer[running[stopped]] = carry.high[stopped, 0]
                    running, x, carry = running[~stopped], x[~stopped], _rows(carry, ~stopped)
                if not len(running):
                    return answer
        return answer.index_copy(0, running, self.core(carry, x).high[:, 0])

    def _stopped(self, carry: Carry) -> Tensor:
        """Which rows halt, bool `[n]`; none in training."""
        if self.halt is None or self.halt_threshold is None or self.training:
            return torch.zeros(len(carry.high), dtype=torch.bool, device=carry.high.device)
        return torch.sigmoid(self.halt(carry.high[:, 0]).squeeze(-1)) >= self.halt_threshold

    def _spread(self, x: Tensor) -> Tensor:
        """Row i after segment 1 + (i mod steps); rows that are done take no further part."""
        parts = [torch.arange(step, len(x), self.steps, device=x.device) for step in range(self.steps)]
        order = torch.cat(parts)
        x, carry, found = x[order], self.core.initial_carry(len(x), x.shape[1]), []
        for part in parts[: len(x)]:
            due, rest = slice(0, len(part)), slice(len(part), None)
            found.append(self.core(_rows(carry, due), x[due]).high[:, 0])
            x = x[rest]
            if len(x):
                with torch.no_grad():
                    carry = detached(self.core(_rows(carry, rest), x))
        answer = torch.cat(found)
        return torch.empty_like(answer).index_copy(0, order, answer)


class AgentView(nn.Module):
    """An agent in one world: float `[n, *observation_shape]` -> (logits `[n, actions]`, values `[n]`)."""

    def __init__(self, agent: RecursiveAgent, observation_shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        self.agent, self.observation_shape, self.actions = agent, observation_shape, actions

    def forward(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        return self.agent(rows, self.actions)


def create_hrm_agent(config: HRMConfig, device: str | torch.device = "cpu") -> RecursiveAgent:
    """The untrained HRM agent that belongs to `config.seed`. Raises ConfigError where the widths do not split into the
    heads."""
    generator = torch.Generator().manual_seed(config.seed)
    sizes = HRMNetConfig(
        hidden=config.h_dim,
        low_hidden=config.l_dim,
        heads=config.heads,
        h_layers=config.num_h_layers,
        l_layers=config.num_l_layers,
        h_cycles=config.h_cycles,
        l_cycles=config.l_cycles,
        round_to=_ROUND_TO,
    )
    return RecursiveAgent(
        HRMCore(sizes, generator),
        width=config.h_dim,
        patch=config.patch,
        max_actions=config.max_actions,
        steps=config.max_outer_steps,
        deep=True,
        halt_threshold=config.halt_threshold,
        generator=generator,
    ).to(device)


def create_trm_agent(
    config: TRMConfig, output_dim: int | str | torch.device | None = None, device: str | torch.device = "cpu"
) -> RecursiveAgent:
    """The untrained TRM agent that belongs to `config.seed`.

    `create_trm_agent(config, device)` and `create_trm_agent(config, output_dim, device)` both work: an `output_dim` is
    the number of actions of the largest world, in place of `config.max_actions`. Raises ConfigError where the width
    does not split into the heads.
    """
    actions = output_dim if isinstance(output_dim, int) else config.max_actions
    if output_dim is not None and not isinstance(output_dim, int):
        device = output_dim
    generator = torch.Generator().manual_seed(config.seed)
    sizes = TRMNetConfig(
        hidden=config.latent_dim,
        inner=config.hidden_dim,
        heads=config.heads,
        layers=config.layers,
        rounds=config.rounds,
        updates=config.updates,
    )
    return RecursiveAgent(
        TRMCore(sizes, generator),
        width=config.latent_dim,
        patch=config.patch,
        max_actions=actions,
        steps=config.num_recursions,
        deep=config.deep_supervision,
        halt_threshold=None,
        generator=generator,
    ).to(device)


_ROUND_TO = 32


def _rows(carry: Carry, which: Tensor | slice) -> Carry:
    return Carry(carry.high[which], carry.low[which])


def _code(length: int, actions: int) -> Tensor:
    """`[1, 1, _CODE]`: sines and cosines of multiples of the logarithms of both sizes."""
    logs = torch.tensor([length, actions], dtype=torch.float32).log1p()
    angles = torch.outer(logs, torch.arange(1, _CODE // 4 + 1, dtype=torch.float32)).flatten()
    return torch.cat((angles.sin(), angles.cos()))[None, None]
