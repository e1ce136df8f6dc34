"""Credit: how much better than expected was each action?

Legend: B rows, T columns of a dense batch, L columns once only sampled tokens are kept, N flat samples.

    gae, gae_over_mask          need a critic; one advantage per step, of rewards that come at any step
    grpo, dr_grpo, rloo         need several samples of the same thing: the group's mean is the baseline
    reinforce_pp(_baseline)     need a large batch: the batch sets the scale, so easy groups do not shout
    rae                         needs neither: one running baseline per agent, for zero-sum games

Who is compared with whom is a group key (`groups.GROUP_KEYS`, importable from here too); which estimator then weighs
them is `ESTIMATORS`. Both are literal dicts: a new one is one function and one line. All functions are pure.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from troupe.errors import CreditError
from troupe.maths.groups import GROUP_KEYS, GroupSizes, Sample, group_ids, group_sizes
from troupe.maths.justify import Justified, left_justify, scatter_back

__all__ = [
    "ESTIMATORS",
    "GROUP_KEYS",
    "GroupSizes",
    "Justified",
    "Sample",
    "dr_grpo",
    "gae",
    "gae_over_mask",
    "group_ids",
    "group_sizes",
    "grpo",
    "left_justify",
    "rae",
    "reinforce_pp",
    "reinforce_pp_baseline",
    "rloo",
    "scatter_back",
]


def gae(
    rewards: Tensor,
    values: Tensor,
    next_values: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    *,
    gamma: float,
    lam: float,
) -> Tensor:
    """Generalised advantage estimation (Schulman et al. 2016, arXiv:1506.02438).

        delta_t = r_t + gamma * (1 - terminated_t) * V(s_{t+1}) - V(s_t)
        A_t     = delta_t + gamma * lam * (1 - terminated_t) * (1 - truncated_t) * A_{t+1}

    A time limit (`truncated`) still bootstraps from V(s_{t+1}) but ends the sum: the next
    column belongs to another episode. All tensors are float `[B, T]`; `next_values[:, t]` is V
    of the state reached by step t, before any reset. Returns `[B, T]`.

    Right where a critic predicts returns well and rewards arrive along the way (markets, long tool use). Wrong for a
    fresh critic on one terminal reward: its errors are the whole signal, and a group baseline needs no training.
    """
    deltas = rewards + gamma * (1 - terminated) * next_values - values
    carry = gamma * lam * (1 - terminated) * (1 - truncated)
    advantages = torch.zeros_like(rewards)
    running = torch.zeros_like(rewards[:, 0])
    for t in reversed(range(rewards.shape[1])):
        running = deltas[:, t] + carry[:, t] * running
        advantages[:, t] = running
    return advantages


# --- sampled tokens only ----------------------------------------------------------------------------------------


def gae_over_mask(
    rewards: Tensor,
    values: Tensor,
    mask: Tensor,
    terminated: Tensor,
    truncated: Tensor,
    bootstrap: Tensor,
    *,
    gamma: float,
    lam: float,
) -> Tensor:
    """`gae` over the sampled tokens of merged conversations; prompt and tool columns are no time steps.

    `rewards`, `values`, `mask`, `terminated`, `truncated` are `[B, T]`; `values[:, t]` is V of the state before action
    t. The state reached by a masked column is the state before the next masked column; that of the last one is worth
    `bootstrap`, `[B]`. A row may hold several conversations: `terminated` or `truncated` is set at each one's last
    sampled token. A conversation that is truncated in the middle of a row reached a state that no column shows:
    `bootstrap` is then `[B, T]`, read at truncated and at last columns. Returns `[B, T]`, zero outside the mask.

    Raises CreditError where a reward or an end lies outside the mask (no action would be paid for it), and where a
    truncation in the middle of a row has no value to bootstrap from.
    """
    mask = mask.bool()
    terminated, truncated = terminated.to(rewards.dtype), truncated.to(rewards.dtype)
    for name, tensor in (("rewards", rewards), ("terminated", terminated), ("truncated", truncated)):
        _refuse_outside(name, tensor, mask)
    wide = bootstrap if bootstrap.dim() == 2 else bootstrap[:, None].expand_as(values)
    packed = left_justify(mask, rewards, values, terminated, truncated, wide.to(values.dtype))
    r, v, end, cut, reached = packed.tensors
    last = packed.valid & ~torch.nn.functional.pad(packed.valid, (0, 1))[:, 1:]
    if bootstrap.dim() == 1 and bool(((cut > 0) & ~last).any()):
        raise CreditError(
            "truncated is set before the last sampled token of a row, but bootstrap is [B]: "
            "pass bootstrap as [B, T], the value of the state reached at each truncated column"
        )
    following = torch.nn.functional.pad(v, (0, 1))[:, 1:]
    next_values = torch.where(last | (cut > 0), reached, following)
    return scatter_back(gae(r, v, next_values, end, cut, gamma=gamma, lam=lam), packed)


def _refuse_outside(name: str, tensor: Tensor, mask: Tensor) -> None:
    stray = torch.nonzero((tensor != 0) & ~mask)
    if len(stray):
        row, column = stray[0].tolist()
        raise CreditError(
            f"{name}[{row}, {column}] is {float(tensor[row, column]):g} where the mask is 0: "
            "put it on the last sampled token before that column"
        )


# --- estimators over groups -------------------------------------------------------------------------------------


def grpo(rewards: Tensor, groups: Tensor, *, eps: float = 1e-6) -> Tensor:
    """Group-relative advantage (DeepSeekMath, Shao et al. 2024, section 4.1.2, arXiv:2402.03300).

        A_i = (r_i - mean(group)) / (std(group) + eps),  std unbiased (n - 1)

    `rewards` float `[N]`, `groups` int64 `[N]`; returns `[N]`. A group of one gets 0, as does a group of equal rewards.

    Right where reward scales differ between tasks. Wrong where difficulty matters: dividing by the standard deviation
    weighs a task that nearly always fails, or nearly always succeeds, more than one in the balance (see `dr_grpo`).
    """
    centred, member_of, counts = _centred(rewards, groups)
    _check_eps(eps)
    squares = torch.zeros_like(counts, dtype=rewards.dtype).index_add(0, member_of, centred**2)
    std = (squares / (counts - 1).clamp(min=1)).sqrt()
    return centred / (std[member_of] + eps)


def dr_grpo(rewards: Tensor, groups: Tensor) -> Tensor:
    """Group-relative advantage without the division (Dr. GRPO, Liu et al. 2025, section 3, arXiv:2503.20783).

        A_i = r_i - mean(group)

    Shapes as in `grpo`; a group of one gets 0. Right by default: no bias towards very easy and very hard tasks. Wrong
    where tasks pay on different scales: the loudest task owns the gradient. Goes with `aggregate(mode="constant")`.
    """
    return _centred(rewards, groups)[0]


def rloo(rewards: Tensor, groups: Tensor) -> Tensor:
    """Leave-one-out advantage (Ahmadian et al. 2024, arXiv:2402.14740; Kool et al. 2019).

        A_i = r_i - mean of the others of the group = n / (n - 1) * (r_i - mean(group))

    Shapes as in `grpo`; a group of one gets 0. Right for small groups: the baseline is independent of r_i, so the
    gradient is unbiased where a plain mean shrinks it by (n - 1) / n. Wrong where groups differ in scale, as `dr_grpo`.
    """
    centred, member_of, counts = _centred(rewards, groups)
    return centred * (counts / (counts - 1).clamp(min=1)).to(rewards.dtype)[member_of]


def reinforce_pp(rewards: Tensor, groups: Tensor, *, eps: float = 1e-6) -> Tensor:
    """REINFORCE++ (Hu et al. 2025, section 3.1, arXiv:2501.03262): one baseline and one scale for the whole batch.

        A_i = (r_i - mean(batch)) / (std(batch) + eps),  std unbiased

    Shapes as in `grpo`. `groups` is checked but not used: one sample per task is enough, which is what it is for (many
    prompts, one reward model). Whitens over the entries given; pass one per token to weigh long answers as the authors'
    code does. Wrong for verifiable tasks of mixed difficulty: every sample of an easy task is praised.
    """
    _check(rewards, groups)
    _check_eps(eps)
    return _whiten(rewards, eps)


def reinforce_pp_baseline(rewards: Tensor, groups: Tensor, *, eps: float = 1e-6) -> Tensor:
    """REINFORCE++ with baseline (Hu et al. 2025, section 3.2, arXiv:2501.03262).

        d_i = r_i - mean(group);  A_i = (d_i - mean(batch of d)) / (std(batch of d) + eps)

    Shapes as in `grpo`. Groups of one get 0 and stay out of the batch statistics. Right for several samples per task:
    difficulty is removed within the group, scale is set by the batch, so that a lone lucky success does not get the
    huge weight that `grpo` gives it. Wrong in batches of few groups, where the scale is noise.
    """
    centred, member_of, counts = _centred(rewards, groups)
    _check_eps(eps)
    compared = counts[member_of] > 1
    advantages = torch.zeros_like(centred)
    advantages[compared] = _whiten(centred[compared], eps)
    return advantages


def rae(
    rewards: Tensor, agents: Sequence[str], state: Mapping[str, float], *, decay: float
) -> tuple[Tensor, dict[str, float]]:
    """Role-conditioned advantage (SPIRAL, Liu et al. 2025, section 3, arXiv:2506.24119).

        A_i = r_i - b;  b <- decay * b + (1 - decay) * r_i,  one b per agent, 0 at first

    `rewards` float `[N]`; `agents` names the role of each (the paper: game and role, "kuhn/first"); samples are taken
    in the order given, and each is judged before it moves its own baseline. Returns `[N]` and the new state, JSON-able.

    Right for zero-sum self-play: there the mean over both sides is 0 whatever they do, and the edge of moving first
    would read as skill. Wrong for tasks of mixed difficulty: the baseline knows the agent but not the task.
    """
    if not 0 <= decay < 1:
        raise CreditError(f"decay must lie in [0, 1), found {decay}: at 1 the baseline never moves")
    if len(agents) != len(rewards):
        raise CreditError(
            f"agents names {len(agents)} samples but rewards holds {len(rewards)}: pass one name per reward"
        )
    _check_finite(rewards)
    baselines, advantages = dict(state), []
    for agent, reward in zip(agents, rewards.tolist(), strict=True):
        baseline = baselines.get(agent, 0.0)
        advantages.append(reward - baseline)
        baselines[agent] = decay * baseline + (1 - decay) * reward
    return rewards.new_tensor(advantages), baselines


ESTIMATORS: dict[str, Callable[..., Tensor]] = {
    "grpo": grpo,
    "dr_grpo": dr_grpo,
    "rloo": rloo,
    "reinforce_pp": reinforce_pp,
    "reinforce_pp_baseline": reinforce_pp_baseline,
}
"""Over groups, each called as `f(rewards, groups)`. `gae` needs values and `rae` a state: ask for those by name."""


def _centred(rewards: Tensor, groups: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Rewards minus the mean of their group `[N]`, the group's index `[N]` and the group sizes `[G]`."""
    _check(rewards, groups)
    _, member_of, counts = torch.unique(groups, return_inverse=True, return_counts=True)
    # Means are taken above the group's lowest reward: equal rewards then centre to exactly 0. A plain mean of
    # [0.1, 0.1, 0.1] is off by one ulp, and the division by a standard deviation would blow that up.
    lowest = rewards.new_full(counts.shape, torch.inf).scatter_reduce(0, member_of, rewards, "amin")
    above = rewards - lowest[member_of]
    mean = torch.zeros_like(lowest).index_add(0, member_of, above) / counts
    return above - mean[member_of], member_of, counts


def _whiten(values: Tensor, eps: float) -> Tensor:
    if values.numel() < 2:
        return torch.zeros_like(values)
    above = values - values.min()  # equal values whiten to exactly 0, see _centred
    centred = above - above.mean()
    return centred / (centred.square().sum().div(values.numel() - 1).sqrt() + eps)


def _check(rewards: Tensor, groups: Tensor) -> None:
    if rewards.dim() != 1 or rewards.shape != groups.shape:
        raise CreditError(
            f"rewards {list(rewards.shape)} and groups {list(groups.shape)} must both be [N]: one group id per reward"
        )
    if not rewards.is_floating_point():
        raise CreditError(f"rewards are {rewards.dtype}: convert them to a floating type first")
    _check_finite(rewards)


def _check_finite(rewards: Tensor) -> None:
    bad = torch.nonzero(~torch.isfinite(rewards))
    if len(bad):
        i = int(bad[0])
        raise CreditError(f"rewards[{i}] is {float(rewards[i])}: pay a finite number, or leave the sample out")


def _check_eps(eps: float) -> None:
    if eps <= 0:
        raise CreditError(f"eps must be positive, found {eps}: it keeps a group of equal rewards from dividing by 0")
