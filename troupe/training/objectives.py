"""A minibatch and the policies in it, as closures for the learner.

Each closure computes one micro-batch and returns named scalars divided by the counts of the whole minibatch, so the
gradient does not depend on the cut. Rows of one policy make a forward pass together; rows that share a prefix share it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from troupe.batch import Batch
from troupe.errors import TrainingError
from troupe.maths.losses import (
    KL_ESTIMATORS,
    POLICY_LOSSES,
    Normalizer,
    aggregate,
    kl,
    normalizer,
    ppo_clip,
    value_loss,
)
from troupe.models.actor_critic import ActorCritic, Evaluated
from troupe.models.config import CriticConfig
from troupe.models.language import Policy, ValueModel
from troupe.models.prefix_tree import partition
from troupe.models.scoring import score, value
from troupe.models.team import TeamActorCritic
from troupe.training.compact import compact_ppo, fits
from troupe.training.compact_team import MEASURED, compact_team, fits_team, measures
from troupe.training.config import AlgorithmConfig, PPOConfig

__all__ = [
    "Meter",
    "Objective",
    "actor_critic",
    "critic_values",
    "language_policy",
    "policy_value",
    "recomputed_logprobs",
    "supervised",
    "team_actor_critic",
]

Closures = Iterator[Callable[[], dict[str, Tensor]]]

Objective = Callable[..., Callable[[], dict[str, Tensor]]]
"""(network, steps `[n, 1]`, PPOConfig, Meter, clip_range=) -> the closure of a minibatch, as `actor_critic`."""


@dataclass(slots=True)
class Meter:
    """Means over tokens, collected across micro-batches."""

    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, float] = field(default_factory=dict)
    last: dict[str, float] = field(default_factory=dict)  # by `add_means`: of the latest micro-batch

    def add(self, name: str, values: Tensor, mask: Tensor) -> None:
        self.sums[name] = self.sums.get(name, 0.0) + float((values * mask).sum())
        self.counts[name] = self.counts.get(name, 0.0) + float(mask.sum())

    def add_means(self, means: Mapping[str, float], count: int) -> None:
        """Means over `count` entries that are computed already."""
        for name, mean in means.items():
            self.sums[name] = self.sums.get(name, 0.0) + mean * count
            self.counts[name] = self.counts.get(name, 0.0) + count
            self.last[name] = mean

    def means(self) -> dict[str, float]:
        return {name: total / max(1.0, self.counts[name]) for name, total in self.sums.items()}


def _parts(
    batch: Batch, budget: int, at_least: int, share: bool, apart: Callable[[str], object] = lambda agent: None
) -> Iterator[tuple[str, Batch]]:
    """(policy, micro-batch): at most about `budget` tokens, and at least `at_least` parts where rows allow it. Agents
    for which `apart` differs share no part."""
    if at_least > 1:
        tokens = sum(row.length for row in batch.rows)
        budget = max(1, min(budget, -(-tokens // at_least)))
    for (policy, _), members in _members(batch, apart).items():
        lengths = [batch.rows[i].length for i in members]
        for part in partition(batch.inputs["input_ids"][members], lengths, budget, share=share):
            yield policy, batch.take([members[i] for i in part])


def language_policy(
    batch: Batch,
    policies: Mapping[str, Policy],
    critics: Mapping[str, ValueModel],
    algorithm: AlgorithmConfig,
    critic: CriticConfig,
    meter: Meter,
    *,
    budget: int,
    at_least: int = 1,
    share: bool = True,
) -> Closures:
    """PPO, GSPO or CISPO over sampled tokens, plus KL, entropy and value terms.

    The batch carries `advantages`, `old_logprobs` and, with a critic, `returns` and `values`; with `kl_beta`,
    `ref_logprobs`; with `importance`, its weights. Agents with an algorithm of their own have their own loss. Yields
    one closure per micro-batch.
    """
    ids = torch.tensor([row.episode for row in batch.rows])
    whole = normalizer(
        batch["mask"], algorithm.loss_agg_mode, ids if algorithm.loss_agg_mode == "per_episode" else None,
        algorithm.loss_constant,
    )  # fmt: skip
    for name, part in _parts(batch, budget, at_least, share, algorithm.of):

        def closure(name: str = name, part: Batch = part) -> dict[str, Tensor]:
            policy, own = policies[name], algorithm.of(part.rows[0].agent)
            part = part.to(policy.model.device)
            losses = _policy_terms(policy, part, own, whole, meter, share)
            if name in critics and own.adv_estimator == "gae":
                losses["value"] = critic.coefficient * _value_term(
                    critics[name], part, critic, whole, own, meter, share
                )
            return losses

        yield closure


def _policy_terms(
    policy: Policy, part: Batch, algorithm: AlgorithmConfig, whole: Normalizer, meter: Meter, share: bool
) -> dict[str, Tensor]:
    mask, old = part["mask"], part["old_logprobs"]
    scores = score(policy, part, share=share)
    options = {"dual_clip": algorithm.dual_clip} if algorithm.loss == "ppo" else {}
    surrogate = POLICY_LOSSES[algorithm.loss](
        scores.logprobs, old, part["advantages"], mask,
        clip_low=algorithm.eps_clip, clip_high=algorithm.eps_clip_high, **options,
    )  # fmt: skip
    add_up = _aggregator(part, algorithm, whole)
    weighted = surrogate.loss if algorithm.importance == "none" else surrogate.loss * part["importance"]
    losses = {"policy": add_up(weighted)}
    if algorithm.kl_beta > 0 and algorithm.kl_in == "loss":
        losses["kl"] = algorithm.kl_beta * add_up(kl(scores.logprobs, part["ref_logprobs"], algorithm.kl_estimator))
    if algorithm.entropy_coeff > 0:
        losses["entropy"] = -algorithm.entropy_coeff * add_up(scores.entropies)
    with torch.no_grad():
        clipped = surrogate.clipped.float()
        meter.add("actor/entropy", scores.entropies, mask)
        meter.add("actor/pg_clipfrac", clipped, mask)
        meter.add("actor/ppo_kl", KL_ESTIMATORS["k3"](old - scores.logprobs), mask)  # of samples of the old policy
        for agent in sorted({row.agent for row in part.rows}):
            said = mask * torch.tensor([[row.agent == agent] for row in part.rows], device=mask.device)
            meter.add(f"actor/entropy/{agent}", scores.entropies, said)
            meter.add(f"actor/pg_clipfrac/{agent}", clipped, said)
    return losses


def _value_term(
    critic: ValueModel,
    part: Batch,
    settings: CriticConfig,
    whole: Normalizer,
    algorithm: AlgorithmConfig,
    meter: Meter,
    share: bool,
) -> Tensor:
    predicted = value(critic, part, share=share)
    error = value_loss(predicted, part["returns"], part["values"], clip=settings.clip)
    with torch.no_grad():
        meter.add("critic/value_mean", predicted, part["mask"])
        meter.add("critic/squared_error", (predicted - part["returns"]) ** 2, part["mask"])
    return _aggregator(part, algorithm, whole)(error)


def _aggregator(part: Batch, algorithm: AlgorithmConfig, whole: Normalizer) -> Callable[[Tensor], Tensor]:
    episodes = torch.tensor([row.episode for row in part.rows], device=part["mask"].device)
    by_episode = episodes if algorithm.loss_agg_mode == "per_episode" else None

    def add_up(values: Tensor) -> Tensor:
        return aggregate(values, part["mask"], algorithm.loss_agg_mode, normalizer=whole, episodes=by_episode)

    return add_up


def supervised(
    batch: Batch, policies: Mapping[str, Policy], meter: Meter, *, budget: int, at_least: int = 1, share: bool = True
) -> Closures:
    """Negative log-likelihood of the masked tokens, mean over the minibatch's tokens (nats per token)."""
    whole = normalizer(batch["mask"], "token_mean")
    for name, part in _parts(batch, budget, at_least, share):

        def closure(name: str = name, part: Batch = part) -> dict[str, Tensor]:
            part = part.to(policies[name].model.device)
            nll = -score(policies[name], part, share=share).logprobs
            with torch.no_grad():
                meter.add("sft/nll", nll, part["mask"])
            return {"nll": aggregate(nll, part["mask"], "token_mean", normalizer=whole)}

        yield closure


def policy_value(
    net: Callable[[Tensor], tuple[Tensor, Tensor]],
    positions: Mapping[str, Tensor],
    meter: Meter,
    *,
    value_weight: float = 1.0,
    at_least: int = 1,
) -> Closures:
    """AlphaZero's loss over searched positions (Silver et al. 2018): weighted means over the minibatch.

        policy  -sum_a pi_a log p_a over the legal actions,    value  value_weight (v - z)^2

    `positions` has `observations` `[n, ...]`, `legal` bool `[n, A]`, `policy` `[n, A]` (pi), `value` `[n]` (z, as the
    player to move sees it) and `weight` `[n]`, in whose place `policy_weight` `[n]` may weigh the policy. Cut into
    `at_least` micro-batches; networks with batch normalisation see each part's own statistics.
    """
    n, weights = len(positions["value"]), positions["weight"]
    taught = positions.get("policy_weight", weights)
    whole, whole_policy = weights.sum().clamp(min=1e-8), taught.sum().clamp(min=1e-8)
    for rows in torch.arange(n).tensor_split(at_least):

        def closure(rows: Tensor = rows) -> dict[str, Tensor]:
            part = {name: column[rows] for name, column in positions.items()}
            logits, values = net(part["observations"])
            logprobs = torch.log_softmax(logits.float().masked_fill(~part["legal"], -torch.inf), -1)
            wrong = -(part["policy"] * logprobs.masked_fill(~part["legal"], 0.0)).sum(-1)
            error = (values.float() - part["value"]) ** 2
            with torch.no_grad():
                certain = torch.special.xlogy(part["policy"], part["policy"]).sum(-1)
                meter.add("policy/cross_entropy", wrong, taught[rows])
                meter.add("policy/kl", wrong + certain, taught[rows])
                meter.add("value/squared_error", error, part["weight"])
            return {
                "policy": (wrong * taught[rows]).sum() / whole_policy,
                "value": value_weight * (error * part["weight"]).sum() / whole,
            }

        yield closure


def actor_critic(
    net: ActorCritic, steps: Batch, settings: PPOConfig, meter: Meter, *, clip_range: float | None = None
) -> Callable[[], dict[str, Tensor]]:
    """PPO's loss over single steps, as one closure: means over the minibatch.

        policy  ppo_clip,    value  vf_coef (V - R)^2,    entropy  -ent_coef H

    `steps` is `[n, 1]`, from `minibatches(unit="step")`: every step counts. `clip_range` takes the place of the
    settings' own where it falls over the run. With `clip_range_vf` the value loss is stable-baselines3's. The closure
    adds `approx_kl` (k3 of the old policy against the new one), `clip_fraction` (of steps whose gradient vanished) and
    `entropy` to the meter.
    """
    clip = settings.clip_range if clip_range is None else clip_range

    def closure() -> dict[str, Tensor]:
        if fits(net, steps):
            losses, measured = compact_ppo(net, steps, settings, clip)
        else:
            losses, measured = _ppo_terms(net, steps, settings, clip)
        meter.add_means(measured, len(steps))
        return losses

    return closure


def _ppo_terms(
    net: ActorCritic, steps: Batch, settings: PPOConfig, clip: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    found = net.evaluate(steps.inputs["observations"], steps["actions"])
    losses, means = _terms(found, [steps[name] for name in _TOLD], settings, clip)
    return losses, dict(zip(MEASURED, means.tolist(), strict=True))


_TOLD = ("old_logprobs", "advantages", "returns", "values")


def _terms(
    found: Evaluated, told: Sequence[Tensor], settings: PPOConfig, clip: float
) -> tuple[dict[str, Tensor], Tensor]:
    """(losses of one agent, the means of `MEASURED`), from the columns `_TOLD`."""
    old, advantages, returns, values = told
    if settings.normalize_advantage and len(advantages) > 1:
        deviation, mean = torch.std_mean(advantages)
        advantages = (advantages - mean) / (deviation + 1e-8)
    surrogate = ppo_clip(found.logprobs, old, advantages, clip_low=clip, clip_high=clip)
    error = value_loss(found.values, returns, values, clip=settings.clip_range_vf, pessimistic=False)
    losses = {"policy": surrogate.loss.mean(), "value": 2 * settings.vf_coef * error.mean()}
    if settings.ent_coef > 0:
        losses["entropy"] = -settings.ent_coef * found.entropies.mean()
    with torch.no_grad():
        moved = KL_ESTIMATORS["k3"](old - found.logprobs).mean()  # of samples of the old policy
        return losses, torch.stack([moved, surrogate.clipped.float().mean(), found.entropies.mean()])


def team_actor_critic(
    net: TeamActorCritic, steps: Batch, settings: PPOConfig, meter: Meter, *, clip_range: float | None = None
) -> Callable[[], dict[str, Tensor]]:
    """PPO's loss of K agents that act together, one scalar for each: its policy, value and entropy terms as in
    `actor_critic`, over columns `[n, 1, K]`. What agents share gets a gradient of each, for the learner's `combine`."""
    clip = settings.clip_range if clip_range is None else clip_range

    def closure() -> dict[str, Tensor]:
        if fits_team(net, steps):
            losses, measured = compact_team(net, steps, settings, clip)
        elif net.shared:
            raise TrainingError("the learner was made for gradients that are written out, and these are autograd's")
        else:
            losses, measured = _team_terms(net, steps, settings, clip)
        meter.add_means(measured, len(steps))
        return losses

    return closure


def _team_terms(
    net: TeamActorCritic, steps: Batch, settings: PPOConfig, clip: float
) -> tuple[dict[str, Tensor], dict[str, float]]:
    found = net.evaluate(steps.inputs["observations"][:, 0], steps["actions"][:, 0])
    columns = [steps[name][:, 0].unbind(-1) for name in _TOLD]
    losses, rows = {}, []
    for agent, own, *told in zip(net.agents, found, *columns, strict=True):
        terms, means = _terms(own, told, settings, clip)
        losses[agent] = torch.stack(list(terms.values())).sum()
        rows.append(means)
    return losses, measures(net.agents, torch.stack(rows, 1).tolist())


@torch.no_grad()
def recomputed_logprobs(batch: Batch, policies: Mapping[str, Policy], *, budget: int, share: bool = True) -> Tensor:
    """Log-probs `[B, T]` of the recorded tokens under `policies` as they are now."""
    return _gathered(batch, budget, share, lambda name, part: score(policies[name], part, share=share).logprobs)


@torch.no_grad()
def critic_values(batch: Batch, critics: Mapping[str, ValueModel], *, budget: int, share: bool = True) -> Tensor:
    """Values `[B, T]` of the states before the recorded tokens."""
    return _gathered(batch, budget, share, lambda name, part: value(critics[name], part, share=share))


def _gathered(batch: Batch, budget: int, share: bool, compute: Callable[[str, Batch], Tensor]) -> Tensor:
    out = torch.zeros(batch["mask"].shape)
    for (name, _), members in _members(batch).items():
        lengths = [batch.rows[i].length for i in members]
        for part in partition(batch.inputs["input_ids"][members], lengths, budget, share=share):
            rows = [members[i] for i in part]
            found = compute(name, batch.take(rows)).cpu()
            out[rows, : found.shape[1]] = found.float()
    return out


def _members(batch: Batch, apart: Callable[[str], object] = lambda agent: None) -> dict[tuple[str, int], list[int]]:
    """Rows by policy, and within it by what `apart` says of their agents."""
    settings: list[object] = []
    numbers: dict[str, int] = {}
    found: dict[tuple[str, int], list[int]] = {}
    for i, row in enumerate(batch.rows):
        if row.agent not in numbers:
            setting = apart(row.agent)
            if setting not in settings:
                settings.append(setting)
            numbers[row.agent] = settings.index(setting)
        found.setdefault((row.policy, numbers[row.agent]), []).append(i)
    return found
