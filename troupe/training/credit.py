"""From episodes to advantages: who is paid what, and compared with whom.

The unit of comparison is the trajectory where it alone is paid, and the step where steps have rewards of their own.
A trajectory that nobody paid is counted and teaches nothing. `gae` runs along the sampled tokens of a trajectory in
the order in which they were sampled, whichever rows they stand in: rows are how tokens are stored, not how time passes.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from troupe.batch import Batch, Span
from troupe.episode import Episode, Outcome, Trajectory
from troupe.errors import CreditError
from troupe.maths.advantages import ESTIMATORS, Sample, gae, group_ids, group_sizes, rae
from troupe.maths.losses import kl
from troupe.training.config import AlgorithmConfig

__all__ = ["CreditRow", "Credited", "assign", "credit_table", "episode_metrics", "trainable"]


@dataclass(frozen=True, slots=True)
class CreditRow:
    """One line of the credit table that every run prints once."""

    agent: str
    policy: str
    trained: bool
    reward: str  # where the agent's reward comes from, in a sentence
    group: str
    estimator: str


def credit_table(
    agents: Mapping[str, str],
    trained: Sequence[str],
    rewards: Mapping[str, str],
    algorithm: AlgorithmConfig,
) -> list[CreditRow]:
    """agent -> policy -> trained? -> reward source -> group -> estimator."""
    unused = {"gae": "-", "rae": "(running mean per agent)", "reinforce_pp": "(batch)"}
    rows = []
    for agent, policy in agents.items():
        own, learns = algorithm.of(agent), agent in trained
        reward = rewards.get(agent, "not stated by the workflow")
        group = unused.get(own.adv_estimator, own.group) if learns else "-"
        rows.append(CreditRow(agent, policy, learns, reward, group, own.adv_estimator if learns else "-"))
    return rows


def trainable(episodes: Sequence[Episode]) -> list[Episode]:
    """Episodes that may teach: all but those that raised or ran out of wall-clock time (no policy's fault)."""
    return [episode for episode in episodes if episode.outcome not in (Outcome.ERROR, Outcome.TIMEOUT)]


@dataclass(frozen=True, slots=True)
class Credited:
    """A batch with `advantages` (and `returns` for a critic), metrics, and the state of running baselines."""

    batch: Batch
    metrics: dict[str, float]
    baselines: dict[str, Any]


def assign(
    episodes: Sequence[Episode],
    batch: Batch,
    algorithm: AlgorithmConfig,
    *,
    values: Tensor | None = None,
    baselines: Mapping[str, Any] | None = None,
) -> Credited:
    """Adds advantages to a batch that was packed from `episodes`; agents with an algorithm of their own have it.

    `values [B, T]` are the critic's (adv_estimator=gae needs them); `ref_logprobs` must stand in the batch where
    `kl_in=reward` takes the penalty from the rewards. Raises CreditError where values are missing.
    """
    unpaid = _unpaid(episodes, batch)
    metrics = {"credit/unpaid_trajectories": float(len(unpaid))}
    advantages = torch.zeros(batch["mask"].shape)
    groups = torch.full(batch["mask"].shape, -1, dtype=torch.long)
    returns = None if values is None else values.clone()
    state = dict(baselines or {})
    penalties = _penalties(batch, algorithm)
    paid = _by_settings(batch, algorithm, unpaid)
    for settings, spans in paid:
        if settings.adv_estimator == "gae":
            if values is None or returns is None:
                raise CreditError(
                    "adv_estimator=gae needs a critic's values; use grpo or another group estimator without one"
                )
            advantages += _along_trajectories(episodes, spans, values, returns, penalties, settings)
        else:
            first = int(groups.max()) + 1
            scores, numbers, state = _by_group(episodes, batch, spans, penalties, settings, state, metrics)
            advantages += scores
            groups = torch.where(numbers >= 0, numbers + first, groups)
    if paid:
        metrics |= _advantage_metrics(batch, advantages)
    if algorithm.normalize_advantages:
        advantages = _normalised(advantages, paid)
    columns = {"advantages": advantages, "group": groups}
    return Credited(batch.with_columns(**columns, **({} if returns is None else {"returns": returns})), metrics, state)


def _by_settings(
    batch: Batch, algorithm: AlgorithmConfig, unpaid: set[tuple[int, int]]
) -> list[tuple[AlgorithmConfig, list[Span]]]:
    """The paid spans of the agents that share an algorithm, for each of them."""
    found: list[tuple[AlgorithmConfig, list[Span]]] = []
    spans_of: dict[str, list[Span]] = {}  # by agent
    for span in batch.spans:
        if (span.episode, span.trajectory) in unpaid:
            continue
        agent = batch.rows[span.row].agent
        if agent not in spans_of:
            settings = algorithm.of(agent)
            same = next((spans for known, spans in found if known == settings), None)
            if same is None:
                found.append((settings, same := []))
            spans_of[agent] = same
        spans_of[agent].append(span)
    return found


def _penalties(batch: Batch, algorithm: AlgorithmConfig) -> Tensor:
    """`[B, T]`: what the KL towards the reference takes from the reward of each sampled token."""
    if algorithm.kl_beta == 0 or algorithm.kl_in == "loss":
        return torch.zeros(batch["mask"].shape)
    distance = kl(batch["old_logprobs"], batch["ref_logprobs"], algorithm.kl_estimator)
    return algorithm.kl_beta * distance * batch["mask"]


def _normalised(advantages: Tensor, paid: Sequence[tuple[AlgorithmConfig, Sequence[Span]]]) -> Tensor:
    """GAE advantages with mean 0 and standard deviation 1 over the tokens of the agents that share an algorithm."""
    for settings, spans in paid:
        if settings.adv_estimator != "gae":
            continue
        tokens = torch.zeros(advantages.shape, dtype=torch.bool)
        for span in spans:
            tokens[span.row, span.start : span.start + span.length] = True
        kept = advantages[tokens]
        if len(kept):
            scale = kept.std() + 1e-8 if len(kept) > 1 else torch.ones(())
            advantages = torch.where(tokens, (advantages - kept.mean()) / scale, advantages)
    return advantages


def _unpaid(episodes: Sequence[Episode], batch: Batch) -> set[tuple[int, int]]:
    """(episode, trajectory) of what nobody paid."""
    found = {(span.episode, span.trajectory) for span in batch.spans}
    return {(e, t) for e, t in found if not episodes[e].trajectories[t].is_paid}


# ---------------------------------------------------------------------------------------------- group estimators


def _by_group(
    episodes: Sequence[Episode],
    batch: Batch,
    spans: Sequence[Span],
    penalties: Tensor,
    algorithm: AlgorithmConfig,
    baselines: dict[str, Any],
    metrics: dict[str, float],
) -> tuple[Tensor, Tensor, dict[str, Any]]:
    """`[B, T]` advantages, `[B, T]` group numbers (-1: none), and the running baselines; counts groups in `metrics`."""
    units: dict[tuple[int, int, int], int] = {}  # (episode, trajectory, step or -1) -> unit
    samples: list[Sample] = []
    rewards: list[float] = []
    where = torch.zeros(batch["mask"].shape, dtype=torch.long)  # unit + 1 of each sampled token; 0: none
    for span in spans:
        episode, trajectory = episodes[span.episode], episodes[span.episode].trajectories[span.trajectory]
        step = span.step if trajectory.has_step_rewards else -1
        unit = units.get((span.episode, span.trajectory, step))
        if unit is None:
            unit = units[span.episode, span.trajectory, step] = len(samples)
            prompt = batch.inputs["input_ids"][span.row, : span.start]
            samples.append(_sample(episode, trajectory, max(step, 0), prompt))
            rewards.append(trajectory.returns(algorithm.gamma)[max(step, 0)])
        where[span.row, span.start : span.start + span.length] = unit + 1
        rewards[unit] -= float(penalties[span.row, span.start : span.start + span.length].sum())
    groups = group_ids(samples, algorithm.group)
    pay = torch.tensor(rewards, dtype=torch.float32)
    if algorithm.adv_estimator == "rae":
        ids = [sample.agent for sample in samples]
        scores, baselines = rae(pay, ids, baselines, decay=algorithm.rae_decay)
        count, singletons = len(set(ids)), 0
    else:
        scores = ESTIMATORS[algorithm.adv_estimator](pay, groups)
        count, singletons = int(groups.max()) + 1, int(group_sizes(groups).singleton.sum())
        metrics["groups/singletons"] = metrics.get("groups/singletons", 0.0) + singletons
    metrics["groups/num_groups"] = metrics.get("groups/num_groups", 0.0) + count
    padded = torch.cat([torch.zeros(1), scores.float()])
    number = torch.cat([torch.tensor([-1]), groups])
    return padded[where] * batch["mask"], number[where], baselines


def _sample(episode: Episode, trajectory: Trajectory, step: int, prompt: Tensor) -> Sample:
    turn = sum(len(t.steps) for t in episode.of(trajectory.agent)[: _attempt(episode, trajectory)]) + step
    return Sample(
        task=episode.group or episode.task_id,
        agent=trajectory.agent,
        turn=turn,
        prompt_hash=hashlib.blake2b(prompt.cpu().numpy().tobytes(), digest_size=8).hexdigest(),
    )


def _attempt(episode: Episode, trajectory: Trajectory) -> int:
    """Which of the agent's trajectories this is."""
    return next(i for i, other in enumerate(episode.of(trajectory.agent)) if other is trajectory)


# ---------------------------------------------------------------------------------------------- along trajectories


def _along_trajectories(
    episodes: Sequence[Episode],
    paid: Sequence[Span],
    values: Tensor,
    returns: Tensor,
    penalties: Tensor,
    algorithm: AlgorithmConfig,
) -> Tensor:
    """GAE along each paid trajectory's sampled tokens: `[B, T]` advantages; writes the targets into `returns`.

    What was not paid keeps its value as its return, so that the critic learns nothing from it either.
    """
    by_trajectory: dict[tuple[int, int], list[Span]] = {}
    for span in paid:
        by_trajectory.setdefault((span.episode, span.trajectory), []).append(span)
    spans = [part for part in by_trajectory.values() if any(span.length for span in part)]
    width = max((sum(s.length for s in part) for part in spans), default=1)
    rows = torch.zeros(len(spans), width, dtype=torch.long)
    columns = torch.zeros(len(spans), width, dtype=torch.long)
    valid = torch.zeros(len(spans), width, dtype=torch.bool)
    rewards = torch.zeros(len(spans), width)
    ends = torch.zeros(len(spans), width)
    for i, part in enumerate(spans):
        trajectory = episodes[part[0].episode].trajectories[part[0].trajectory]
        at = 0
        for span in part:
            rows[i, at : at + span.length] = span.row
            columns[i, at : at + span.length] = torch.arange(span.start, span.start + span.length)
            at += span.length
            if at:  # a step that sampled nothing was led to by the token before it, if there was one
                rewards[i, at - 1] += trajectory.steps[span.step].reward or 0.0
        rewards[i, at - 1] += trajectory.reward or 0.0
        ends[i, at - 1] = 1.0
        valid[i, :at] = True
    rewards -= penalties[rows, columns] * valid
    dense = values[rows, columns] * valid
    following = torch.nn.functional.pad(dense, (0, 1))[:, 1:]
    scores = gae(rewards, dense, following, ends, torch.zeros_like(ends), gamma=algorithm.gamma, lam=algorithm.lam)
    advantages = torch.zeros_like(values)
    advantages[rows[valid], columns[valid]] = scores[valid]
    returns[rows[valid], columns[valid]] = (scores + dense)[valid]
    return advantages


# ---------------------------------------------------------------------------------------------- metrics


def _advantage_metrics(batch: Batch, advantages: Tensor) -> dict[str, float]:
    """`advantage/{agent}/mean|std|fraction_zero` over sampled tokens."""
    metrics = {}
    for agent in sorted({row.agent for row in batch.rows}):
        chosen = torch.tensor([row.agent == agent for row in batch.rows])
        kept = advantages[chosen][batch["mask"][chosen].bool()]
        if len(kept):
            metrics[f"advantage/{agent}/mean"] = float(kept.mean())
            metrics[f"advantage/{agent}/std"] = float(kept.std(unbiased=False))
            metrics[f"advantage/{agent}/fraction_zero"] = float((kept == 0).float().mean())
    return metrics


def episode_metrics(episodes: Sequence[Episode]) -> dict[str, float]:
    """What document 004 tracks: workflow metrics, rewards per agent, outcomes, tasks solved by all, none or some."""
    metrics: dict[str, float] = {}
    n = max(1, len(episodes))
    outcomes = Counter(str(episode.outcome) for episode in episodes)
    for outcome in Outcome:
        metrics[f"episode/outcome/{outcome}"] = outcomes[outcome] / n
    by_agent: dict[str, list[Trajectory]] = {}
    sampled = 0
    for episode in episodes:
        for trajectory in episode.trajectories:
            by_agent.setdefault(trajectory.agent, []).append(trajectory)
    reasons = Counter(str(t.stop_reason) for ts in by_agent.values() for t in ts)
    for reason, count in reasons.items():
        metrics[f"episode/termination_reason/{reason}"] = count / max(1, sum(reasons.values()))
    for agent, trajectories in by_agent.items():
        paid = [t.total_reward for t in trajectories if t.is_paid]
        if paid:  # what nobody paid was not worth nothing
            pay = torch.tensor(paid)
            metrics[f"reward/{agent}/mean"] = float(pay.mean())
            metrics[f"reward/{agent}/std"] = float(pay.std(unbiased=False))
            metrics[f"reward/{agent}/min"], metrics[f"reward/{agent}/max"] = float(pay.min()), float(pay.max())
        lengths = [len(s.tokens.response_ids) for t in trajectories for s in t.steps if s.tokens]
        metrics[f"response_length/{agent}/mean"] = sum(lengths) / max(1, len(lengths))
        sampled += sum(lengths)
    metrics["episode/sampled_tokens"] = sampled / n
    names = sorted({name for episode in episodes for name in episode.metrics})
    for name in names:
        found = [episode.metrics[name] for episode in episodes if name in episode.metrics]
        metrics[f"workflow/{name}"] = sum(found) / len(found)
    solved: dict[str, list[bool]] = {}
    for episode in episodes:
        solved.setdefault(episode.group, []).append(episode.outcome is Outcome.SUCCESS)
    tasks = max(1, len(solved))
    metrics["batch/solve_all"] = sum(all(s) for s in solved.values()) / tasks
    metrics["batch/solve_none"] = sum(not any(s) for s in solved.values()) / tasks
    metrics["batch/solve_partial"] = sum(any(s) and not all(s) for s in solved.values()) / tasks
    return metrics
