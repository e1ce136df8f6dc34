"""Advantages against numbers worked by hand, invariances, and TRL's and stable-baselines3's own code."""

from __future__ import annotations

import json
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from troupe.errors import CreditError
from troupe.maths.advantages import (
    ESTIMATORS,
    dr_grpo,
    gae,
    gae_over_mask,
    grpo,
    rae,
    reinforce_pp,
    reinforce_pp_baseline,
    rloo,
)


def close(found: Tensor, expected: Any, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float32)


# --- gae --------------------------------------------------------------------------------------------------------


def test_gae_by_hand() -> None:
    # gamma 0.9, lambda 0.8, so gamma * lambda = 0.72.
    #   delta_0 = 1 + 0.9 * 1.0 - 0.5 = 1.4    delta_1 = 0 + 0.9 * 1.5 - 1 = 0.35    delta_2 = 2 - 1.5 = 0.5 (terminal)
    #   A_2 = 0.5    A_1 = 0.35 + 0.72 * 0.5 = 0.71    A_0 = 1.4 + 0.72 * 0.71 = 1.9112
    found = gae(row(1, 0, 2), row(0.5, 1, 1.5), row(1, 1.5, 3), row(0, 0, 1), row(0, 0, 0), gamma=0.9, lam=0.8)
    close(found, [[1.9112, 0.71, 0.5]])


def test_a_time_limit_bootstraps_and_ends_the_sum() -> None:
    # Truncated at t = 1: delta_1 = 0 + 0.9 * 4 - 1 = 2.6 uses the state reached (4), and A_2 = 0.5 stays out of A_1.
    #   A_1 = 2.6    A_0 = 1.4 + 0.72 * 2.6 = 3.272
    found = gae(row(1, 0, 2), row(0.5, 1, 1.5), row(1, 4, 3), row(0, 0, 1), row(0, 1, 0), gamma=0.9, lam=0.8)
    close(found, [[3.272, 2.6, 0.5]])


def test_lambda_one_is_the_monte_carlo_return_minus_the_value() -> None:
    rewards, values = row(1, 2, 3), row(0.3, -0.2, 0.7)
    found = gae(rewards, values, row(-0.2, 0.7, 9), row(0, 0, 1), row(0, 0, 0), gamma=1.0, lam=1.0)
    close(found + values, [[6, 5, 3]])


# --- gae over sampled tokens ------------------------------------------------------------------------------------


def test_tool_tokens_are_no_time_steps() -> None:
    # Columns: prompt, action, tool, tool, action, padding. The two actions see each other directly:
    #   delta_1 = 0 + 0.5 * 2 - 1 = 0    delta_4 = 3 - 2 = 1 (terminal)    A_4 = 1    A_1 = 0 + 0.5 * 0.5 * 1 = 0.25
    found = gae_over_mask(
        row(0, 0, 0, 0, 3, 0),
        row(9, 1, 9, 9, 2, 9),
        row(0, 1, 0, 0, 1, 0),
        row(0, 0, 0, 0, 1, 0),
        row(0, 0, 0, 0, 0, 0),
        torch.tensor([100.0]),
        gamma=0.5,
        lam=0.5,
    )
    close(found, [[0, 0.25, 0, 0, 1, 0]])


def test_the_last_token_of_an_open_row_bootstraps() -> None:
    # delta_1 = 0 + 0.5 * 10 - 2 = 3;  delta_0 = 1 + 0.5 * 2 - 1 = 1;  A_0 = 1 + 0.25 * 3 = 1.75
    arguments = (row(1, 0, 0), row(1, 2, 9), row(1, 1, 0), row(0, 0, 0))
    for truncated in (row(0, 0, 0), row(0, 1, 0)):  # cut by a limit or by the end of collection: the same bootstrap
        found = gae_over_mask(*arguments, truncated, torch.tensor([10.0]), gamma=0.5, lam=0.5)
        close(found, [[1.75, 3, 0]])


def test_merged_conversations_equal_separate_ones() -> None:
    generator = torch.Generator().manual_seed(0)
    rewards, values = (torch.randn(2, 5, generator=generator) for _ in range(2))
    mask = torch.tensor([[1, 0, 1, 1, 0], [0, 1, 0, 0, 1]])
    rewards = rewards * mask
    ends = torch.tensor([[0, 0, 0, 1, 0], [0, 0, 0, 0, 1]])
    for name in ("terminated", "truncated"):
        flags = {"terminated": torch.zeros_like(ends), "truncated": torch.zeros_like(ends), name: ends}
        wide = torch.full((2, 5), 0.7)
        apart = gae_over_mask(rewards, values, mask, bootstrap=torch.full((2,), 0.7), gamma=0.9, lam=0.8, **flags)
        merged = gae_over_mask(
            rewards.reshape(1, 10),
            values.reshape(1, 10),
            mask.reshape(1, 10),
            bootstrap=wide.reshape(1, 10),
            gamma=0.9,
            lam=0.8,
            **{key: value.reshape(1, 10) for key, value in flags.items()},
        )
        close(merged.reshape(2, 5), apart)


def test_a_truncation_inside_a_row_needs_the_value_reached() -> None:
    ones, zeros = torch.ones(1, 3), torch.zeros(1, 3)
    with pytest.raises(CreditError, match=r"bootstrap as \[B, T\]"):
        gae_over_mask(zeros, zeros, ones, zeros, row(0, 1, 0), torch.zeros(1), gamma=1.0, lam=1.0)


def test_a_reward_outside_the_mask_is_refused() -> None:
    zeros = torch.zeros(1, 3)
    with pytest.raises(CreditError, match=r"rewards\[0, 2\] is 5"):
        gae_over_mask(row(0, 0, 5), zeros, row(1, 1, 0), zeros, zeros, torch.zeros(1), gamma=1.0, lam=1.0)


def test_a_full_mask_is_plain_gae() -> None:
    generator = torch.Generator().manual_seed(3)
    rewards, values = (torch.randn(3, 6, generator=generator) for _ in range(2))
    terminated = (torch.rand(3, 6, generator=generator) < 0.3).float()
    bootstrap = torch.randn(3, generator=generator)
    zeros = torch.zeros(3, 6)
    next_values = torch.cat([values[:, 1:], bootstrap[:, None]], dim=1)
    close(
        gae_over_mask(rewards, values, torch.ones(3, 6), terminated, zeros, bootstrap, gamma=0.9, lam=0.95),
        gae(rewards, values, next_values, terminated, zeros, gamma=0.9, lam=0.95),
    )


# --- groups, by hand --------------------------------------------------------------------------------------------

TWO_GROUPS_AND_A_LONER = torch.tensor([5, 8, 5, 8, 8, 2])
REWARDS = torch.tensor([3.0, 1.0, 1.0, 2.0, 6.0, 4.0])
# group 5: 3, 1     mean 2  deviations +1, -1       unbiased std sqrt(2 / 1) = 1.414214
# group 8: 1, 2, 6  mean 3  deviations -2, -1, +3   unbiased std sqrt(14 / 2) = 2.645751
# group 2: 4        alone: 0


def test_grpo_by_hand() -> None:
    # +-1 / 1.414214 = +-0.707107;   -2, -1, 3 over 2.645751 = -0.755929, -0.377964, 1.133893
    found = grpo(REWARDS, TWO_GROUPS_AND_A_LONER, eps=1e-9)
    close(found, [0.707107, -0.755929, -0.707107, -0.377964, 1.133893, 0])


def test_eps_stands_outside_the_root() -> None:
    close(grpo(torch.tensor([1.0, -1.0]), torch.tensor([0, 0]), eps=0.5), [1 / (2**0.5 + 0.5), -1 / (2**0.5 + 0.5)])


def test_dr_grpo_by_hand() -> None:
    close(dr_grpo(REWARDS, TWO_GROUPS_AND_A_LONER), [1, -2, -1, -1, 3, 0])


def test_rloo_by_hand() -> None:
    # 3 - 1, 1 - 3;   1 - (2 + 6) / 2 = -3,  2 - (1 + 6) / 2 = -1.5,  6 - (1 + 2) / 2 = 4.5
    close(rloo(REWARDS, TWO_GROUPS_AND_A_LONER), [2, -3, -2, -1.5, 4.5, 0])


def test_reinforce_pp_by_hand() -> None:
    # mean 3.5, deviations -2.5, 0.5, 2 (of 1, 4, 5.5), squares 6.25 + 0.25 + 4 = 10.5, std sqrt(10.5 / 2) = 2.291288
    found = reinforce_pp(torch.tensor([1.0, 4.0, 5.5]), torch.tensor([0, 1, 2]), eps=1e-9)
    close(found, [-2.5 / 2.291288, 0.5 / 2.291288, 2 / 2.291288])


def test_reinforce_pp_baseline_by_hand() -> None:
    # deviations within groups 1, -2, -1, -1, 3 (the loner is out): mean 0, squares 16, std sqrt(16 / 4) = 2
    found = reinforce_pp_baseline(REWARDS, TWO_GROUPS_AND_A_LONER, eps=1e-9)
    close(found, [0.5, -1, -0.5, -0.5, 1.5, 0])


@pytest.mark.parametrize("name", ["grpo", "dr_grpo", "rloo", "reinforce_pp_baseline"])
def test_nobody_to_compare_with_means_no_credit(name: str) -> None:
    assert ESTIMATORS[name](torch.tensor([0.3, 7.1]), torch.tensor([0, 1])).tolist() == [0, 0]


@pytest.mark.parametrize("name", ESTIMATORS)
def test_equal_rewards_give_exactly_zero(name: str) -> None:
    # 0.1 has no exact float32; its plain mean over seven is off by an ulp, which std + eps would turn into 1e-2.
    assert ESTIMATORS[name](torch.full((7,), 0.1), torch.zeros(7, dtype=torch.int64)).tolist() == [0.0] * 7


@pytest.mark.parametrize("name", ESTIMATORS)
def test_what_estimators_refuse(name: str) -> None:
    estimator, groups = ESTIMATORS[name], torch.tensor([0, 0])
    with pytest.raises(CreditError, match=r"rewards\[1\] is nan"):
        estimator(torch.tensor([1.0, torch.nan]), groups)
    with pytest.raises(CreditError, match=r"rewards \[3\] and groups \[2\]"):
        estimator(torch.zeros(3), groups)
    with pytest.raises(CreditError, match="floating type"):
        estimator(torch.tensor([1, 0]), groups)


@pytest.mark.parametrize("name", ["grpo", "reinforce_pp", "reinforce_pp_baseline"])
def test_eps_must_be_positive(name: str) -> None:
    with pytest.raises(CreditError, match="eps must be positive"):
        ESTIMATORS[name](torch.zeros(2), torch.tensor([0, 0]), eps=0.0)


# --- groups, invariances ----------------------------------------------------------------------------------------

samples = st.lists(
    st.tuples(st.floats(-8, 8, width=16), st.integers(0, 3)),  # half floats: sums of theirs are exact in double
    min_size=2,
    max_size=12,
)


def unpack(pairs: list[tuple[float, int]]) -> tuple[Tensor, Tensor]:
    rewards, groups = zip(*pairs, strict=True)
    return torch.tensor(rewards, dtype=torch.float64), torch.tensor(groups)


@settings(max_examples=60, deadline=None)
@given(samples, st.sampled_from(sorted(ESTIMATORS)), st.floats(-64, 64, width=16))
def test_a_constant_added_to_all_rewards_changes_nothing(
    pairs: list[tuple[float, int]], name: str, shift: float
) -> None:
    rewards, groups = unpack(pairs)
    close(ESTIMATORS[name](rewards + shift, groups), ESTIMATORS[name](rewards, groups))


@settings(max_examples=60, deadline=None)
@given(samples, st.sampled_from([0.25, 3.0, 100.0]))
def test_scaling_rewards(pairs: list[tuple[float, int]], scale: float) -> None:
    rewards, groups = unpack(pairs)
    for name in ("dr_grpo", "rloo"):  # scale with the rewards
        close(ESTIMATORS[name](scale * rewards, groups), scale * ESTIMATORS[name](rewards, groups))
    for name in ("grpo", "reinforce_pp", "reinforce_pp_baseline"):  # do not, once eps is scaled too
        scaled = ESTIMATORS[name](scale * rewards, groups, eps=scale * 1e-6)
        close(scaled, ESTIMATORS[name](rewards, groups, eps=1e-6))


@settings(max_examples=60, deadline=None)
@given(samples, st.sampled_from(["grpo", "dr_grpo", "rloo", "reinforce_pp_baseline"]))
def test_groups_sum_to_zero_and_names_and_order_do_not_matter(pairs: list[tuple[float, int]], name: str) -> None:
    rewards, groups = unpack(pairs)
    found = ESTIMATORS[name](rewards, groups)
    close(torch.zeros(4, dtype=torch.float64).index_add(0, groups, found), torch.zeros(4))
    close(ESTIMATORS[name](rewards, 1000 - 7 * groups), found)
    close(ESTIMATORS[name](rewards.flip(0), groups.flip(0)).flip(0), found)


@settings(max_examples=30, deadline=None)
@given(samples)
def test_one_group_makes_both_reinforce_pp_and_grpo_the_same(pairs: list[tuple[float, int]]) -> None:
    rewards, groups = unpack(pairs)
    together = torch.zeros_like(groups)
    close(reinforce_pp_baseline(rewards, together), reinforce_pp(rewards, groups))
    close(grpo(rewards, together), reinforce_pp(rewards, groups))


# --- rae --------------------------------------------------------------------------------------------------------


def test_rae_by_hand() -> None:
    # decay 0.5.  white: 1 - 0 = 1, b = 0.5;  black: -1 - 0 = -1, b = -0.5;  white: 1 - 0.5 = 0.5, b = 0.75
    found, state = rae(torch.tensor([1.0, -1.0, 1.0]), ["white", "black", "white"], {}, decay=0.5)
    close(found, [1, -1, 0.5])
    assert state == {"white": 0.75, "black": -0.5}


def test_rae_goes_on_from_its_state_and_leaves_it_alone() -> None:
    rewards, agents = torch.tensor([1.0, 0.0, 1.0, 1.0]), ["a", "b", "a", "b"]
    whole, end = rae(rewards, agents, {}, decay=0.9)
    first, middle = rae(rewards[:2], agents[:2], {}, decay=0.9)
    kept = dict(middle)
    second, resumed = rae(rewards[2:], agents[2:], json.loads(json.dumps(middle)), decay=0.9)
    assert torch.equal(torch.cat([first, second]), whole) and resumed == end and middle == kept


def test_rae_sees_skill_where_a_group_mean_sees_the_first_move() -> None:
    # A structural edge: the first mover always wins. A group mean pays it for ever, a baseline per role stops.
    rewards, agents = torch.tensor([1.0, -1.0] * 50), ["first", "second"] * 50
    found, _ = rae(rewards, agents, {}, decay=0.8)
    assert found[-2:].abs().max() < 1e-3
    assert dr_grpo(rewards[-2:], torch.tensor([0, 0])).abs().min() == 1


def test_what_rae_refuses() -> None:
    with pytest.raises(CreditError, match="decay must lie"):
        rae(torch.zeros(1), ["a"], {}, decay=1.0)
    with pytest.raises(CreditError, match="names 1 samples but rewards holds 2"):
        rae(torch.zeros(2), ["a"], {}, decay=0.9)
    with pytest.raises(CreditError, match=r"rewards\[0\] is inf"):
        rae(torch.tensor([torch.inf]), ["a"], {}, decay=0.9)


# --- oracles ----------------------------------------------------------------------------------------------------

PAID = [0.1, 0.9, 0.4, 0.4, 2.0, -1.0, 0.0, 0.3]  # two prompts, four generations each
PROMPT_OF = torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])


def trl_advantages(handle: SimpleNamespace) -> Tensor:
    """Lets TRL generate completions for two prompts, pays them `PAID`, and returns its advantages."""
    handle.rewards = PAID
    handle.trainer.model.train()
    torch.manual_seed(0)
    inputs = [{"prompt": "a b"}] * 4 + [{"prompt": "c"}] * 4
    return handle.trainer._generate_and_score_completions(inputs)["advantages"]


@pytest.mark.oracle
def test_grpo_and_dr_grpo_are_those_of_trl(trl_trainer: Callable[..., SimpleNamespace]) -> None:
    handle = trl_trainer("GRPO", scale_rewards="group")
    # TRL's standard deviation is unbiased too (nanstd), and its eps, outside the root, is 1e-4.
    close(grpo(torch.tensor(PAID), PROMPT_OF, eps=1e-4), trl_advantages(handle))
    handle.trainer.scale_rewards = "none"  # what TRL's documentation recommends for Dr. GRPO
    close(dr_grpo(torch.tensor(PAID), PROMPT_OF), trl_advantages(handle))


@pytest.mark.oracle
def test_rloo_and_reinforce_pp_baseline_are_those_of_trl(trl_trainer: Callable[..., SimpleNamespace]) -> None:
    handle = trl_trainer("RLOO", beta=0.0)
    close(rloo(torch.tensor(PAID), PROMPT_OF), trl_advantages(handle))
    # With equal group sizes n the leave-one-out advantage is n / (n - 1) times the centred reward, so TRL's batch
    # normalisation of it (eps 1e-4) is REINFORCE++ with baseline, its eps shrunk by the same factor.
    handle.trainer.normalize_advantages = True
    close(reinforce_pp_baseline(torch.tensor(PAID), PROMPT_OF, eps=1e-4 * 3 / 4), trl_advantages(handle))


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(3))
def test_gae_is_that_of_stable_baselines3(seed: int) -> None:
    buffers = pytest.importorskip("stable_baselines3.common.buffers")
    spaces = pytest.importorskip("gymnasium.spaces")
    generator = np.random.default_rng(seed)
    steps, envs, gamma, lam = 20, 3, 0.97, 0.9
    rewards, values, reached = (generator.normal(0, 0.2, (steps, envs)).astype(np.float32) for _ in range(3))
    ended = generator.random((steps, envs)) < 0.2
    truncated = ended & (generator.random((steps, envs)) < 0.5)
    last_values = generator.normal(0, 0.2, envs).astype(np.float32)

    buffer = buffers.RolloutBuffer(
        steps, spaces.Box(-1, 1, (1,)), spaces.Discrete(2), device="cpu", gae_lambda=lam, gamma=gamma, n_envs=envs
    )
    # Both kinds of end are `dones` there; its collect_rollouts adds gamma * V(state reached) to a truncated reward.
    paid = rewards + gamma * reached * truncated
    starts = np.concatenate([np.ones((1, envs)), ended[:-1]]).astype(np.float32)
    for t in range(steps):
        nothing = np.zeros((envs, 1), dtype=np.float32)
        buffer.add(nothing, nothing, paid[t], starts[t], torch.tensor(values[t]), torch.zeros(envs))
    buffer.compute_returns_and_advantage(torch.tensor(last_values), ended[-1])

    next_values = np.where(truncated, reached, np.concatenate([values[1:], last_values[None]]))
    arrays = (rewards, values, next_values, ended & ~truncated, truncated)
    found = gae(*(torch.tensor(a, dtype=torch.float32).T for a in arrays), gamma=gamma, lam=lam)
    close(found.T, buffer.advantages)
