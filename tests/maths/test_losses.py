"""Losses against numbers worked by hand, invariances, and TRL's and stable-baselines3's own code."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from troupe.errors import ConfigError
from troupe.maths.losses import (
    POLICY_LOSSES,
    aggregate,
    cispo,
    entropy,
    gspo,
    kl,
    ppo_clip,
    stablemax_log,
    token_nll,
    truncated_importance_weights,
    value_loss,
)


def close(found: Tensor, expected: Any, tolerance: float = 1e-6) -> None:
    torch.testing.assert_close(found, torch.as_tensor(expected, dtype=found.dtype), rtol=0, atol=tolerance)


def row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float32)


def gradient(loss: Tensor, leaf: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), leaf)[0]


# --- ppo --------------------------------------------------------------------------------------------------------

RATIOS = (1.5, 1.5, 0.5, 0.5, 1.1, 4.0)
ADVANTAGES = row(2, -2, 2, -2, 1, -1)


def test_ppo_by_hand() -> None:
    # clip to [0.8, 1.3]; -min(w A, clip(w) A):
    #   w 1.5, A +2: min(3, 2.6) -> -2.6 clipped     w 1.5, A -2: min(-3, -2.6) -> 3
    #   w 0.5, A +2: min(1, 1.6) -> -1               w 0.5, A -2: min(-1, -1.6) -> 1.6 clipped
    #   w 1.1, A +1: -1.1                            w 4,   A -1: 4
    logprobs = row(*(math.log(w) for w in RATIOS)).requires_grad_()
    found = ppo_clip(logprobs, torch.zeros(1, 6), ADVANTAGES, clip_low=0.2, clip_high=0.3)
    close(found.loss, [[-2.6, 3, -1, 1.6, -1.1, 4]])
    assert found.clipped.tolist() == [[True, False, False, True, False, False]]
    close(gradient(found.loss, logprobs), [[0, 3, -1, 0, -1.1, 4]])  # d loss / d logp = -w A, 0 where clipped


def test_dual_clip_bounds_the_loss_of_bad_actions() -> None:
    # c = 2: w 4, A -1 would lose 4, now 2; w 1.5, A -2 loses 3 < 4 and is left alone.
    logprobs = row(*(math.log(w) for w in RATIOS)).requires_grad_()
    found = ppo_clip(logprobs, torch.zeros(1, 6), ADVANTAGES, clip_low=0.2, clip_high=0.3, dual_clip=2.0)
    close(found.loss, [[-2.6, 3, -1, 1.6, -1.1, 2]])
    assert found.clipped.tolist() == [[True, False, False, True, False, True]]
    assert gradient(found.loss, logprobs)[0, 5] == 0
    with pytest.raises(ConfigError, match="dual_clip must be above 1"):
        ppo_clip(logprobs, logprobs, ADVANTAGES, clip_low=0.2, clip_high=0.2, dual_clip=1.0)


def test_clip_fraction_is_over_masked_tokens() -> None:
    found = ppo_clip(row(math.log(2), 0, 0), row(0, 0, 0), row(1, 1, 1), row(1, 1, 0), clip_low=0.2, clip_high=0.2)
    assert found.clip_fraction(row(1, 1, 0)) == 0.5
    assert found.clip_fraction(row(0, 0, 0)) == 0.0


# --- gspo -------------------------------------------------------------------------------------------------------


def test_gspo_by_hand() -> None:
    # log ratios 0.3, -0.1 and one outside the mask: mean 0.1, s = e^0.1 = 1.105171 on both tokens, inside 1 +- 0.2.
    # A = 2: loss -2.210342 each; with weights 1/2 the gradient of log p_t is -s A / 2 on each token.
    logprobs = row(0.3, -0.1, 9.0).requires_grad_()
    mask = row(1, 1, 0)
    found = gspo(logprobs, torch.zeros(1, 3), row(2, 2, 2), mask, clip_low=0.2, clip_high=0.2)
    close(found.loss[:, :2], [[-2.210342, -2.210342]])
    loss = aggregate(found.loss, mask, "seq_mean_token_mean")
    close(gradient(loss, logprobs), [[-1.105171, -1.105171, 0]])


def test_gspo_clips_a_row_as_a_whole() -> None:
    # The first token alone is within the range, the row's mean (0.5) is not.
    found = gspo(row(0.1, 0.9), row(0, 0), row(1, 1), row(1, 1), clip_low=0.2, clip_high=0.2)
    assert found.clipped.all()
    assert found.clip_fraction(row(1, 1)) == 1.0


def test_gspo_keeps_each_tokens_own_advantage() -> None:
    # Two turns merged in a row, paid +1 and -1: a mean advantage of 0 would teach nothing.
    logprobs = row(0.0, 0.0).requires_grad_()
    found = gspo(logprobs, torch.zeros(1, 2), row(1, -1), row(1, 1), clip_low=0.1, clip_high=0.1)
    close(gradient(found.loss, logprobs), [[-1, 1]])


# --- cispo ------------------------------------------------------------------------------------------------------


def test_cispo_by_hand() -> None:
    # ratio e^1 = 2.718 is cut to 2, ratio 1 is not; -w A log p = -2 * 3 * -0.5 = 3 and -1 * 3 * -2 = 6.
    logprobs = row(-0.5, -2.0).requires_grad_()
    found = cispo(logprobs, row(-1.5, -2.0), row(3, 3), clip_low=1.0, clip_high=1.0)
    close(found.loss, [[3, 6]])
    assert found.clipped.tolist() == [[True, False]]
    close(gradient(found.loss, logprobs), [[-6, -3]])  # -w A: the clipped token still learns


# --- all policy losses ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", POLICY_LOSSES)
@pytest.mark.parametrize("poison", [math.inf, -math.inf, math.nan, 1e4])
def test_padding_never_reaches_the_gradient(name: str, poison: float) -> None:
    logprobs = row(-1.0, poison).requires_grad_()
    mask = row(1, 0)
    found = POLICY_LOSSES[name](logprobs, row(-1.1, 0.0), row(1, 1), mask, clip_low=0.2, clip_high=0.2)
    loss = aggregate(found.loss, mask, "token_mean")
    slope = gradient(loss, logprobs)
    assert torch.isfinite(loss) and torch.isfinite(slope[0, 0]) and slope[0, 0] != 0 and slope[0, 1] == 0
    assert not found.clipped[0, 1]


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_a_policy_far_away_gives_finite_gradients(name: str) -> None:
    logprobs = row(-1.0, -200.0).requires_grad_()
    found = POLICY_LOSSES[name](logprobs, row(-200.0, -1.0), row(1, -1), row(1, 1), clip_low=0.2, clip_high=0.2)
    assert torch.isfinite(found.loss).all() and torch.isfinite(gradient(found.loss, logprobs)).all()


@pytest.mark.parametrize("name", POLICY_LOSSES)
def test_on_policy_all_losses_have_the_policy_gradient(name: str) -> None:
    logprobs = row(-1.0, -2.0, -0.3).requires_grad_()
    found = POLICY_LOSSES[name](logprobs, logprobs, row(1, -2, 0.5), row(1, 1, 1), clip_low=0.2, clip_high=0.2)
    close(gradient(found.loss, logprobs), [[-1, 2, -0.5]])
    assert not found.clipped.any()


numbers = st.lists(st.floats(-3, 3, width=16), min_size=4, max_size=4)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(["ppo", "gspo"]), numbers, numbers, numbers, st.floats(-5, 5, width=16))
def test_only_the_difference_of_log_probs_matters(
    name: str, new: list[float], old: list[float], advantages: list[float], shift: float
) -> None:
    tensors = [torch.tensor([x], dtype=torch.float64) for x in (new, old, advantages)]
    arguments = {"mask": torch.ones(1, 4), "clip_low": 0.21, "clip_high": 0.31}  # off the half-float grid
    plain = POLICY_LOSSES[name](*tensors, **arguments)
    moved = POLICY_LOSSES[name](tensors[0] + shift, tensors[1] + shift, tensors[2], **arguments)
    close(moved.loss, plain.loss)


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(sorted(POLICY_LOSSES)), numbers, numbers, numbers, st.sampled_from([0.5, 4.0]))
def test_losses_scale_with_the_advantages(
    name: str, new: list[float], old: list[float], advantages: list[float], scale: float
) -> None:
    tensors = [torch.tensor([x], dtype=torch.float64) for x in (new, old, advantages)]
    arguments = {"mask": torch.ones(1, 4), "clip_low": 0.2, "clip_high": 0.3}
    plain = POLICY_LOSSES[name](*tensors, **arguments)
    scaled = POLICY_LOSSES[name](tensors[0], tensors[1], scale * tensors[2], **arguments)
    close(scaled.loss, scale * plain.loss)
    assert torch.equal(scaled.clipped, plain.clipped)


# --- value, kl, entropy, nll ------------------------------------------------------------------------------------


def test_value_loss_by_hand() -> None:
    # V 2, R 1, V_old 0.5, clip 0.2: V_clip 0.7.  plain 0.5 * 1;  clipped 0.5 * 0.09 = 0.045;  pessimistic the larger
    # V 2, R 3: plain 0.5 * 1;  clipped 0.5 * (0.7 - 3)^2 = 2.645
    values, returns, old = row(2, 2), row(1, 3), row(0.5, 0.5)
    close(value_loss(values, returns), [[0.5, 0.5]])
    close(value_loss(values, returns, old, clip=0.2), [[0.5, 2.645]])
    close(value_loss(values, returns, old, clip=0.2, pessimistic=False), [[0.045, 2.645]])
    with pytest.raises(ConfigError, match="needs old_values"):
        value_loss(values, returns, clip=0.2)


def test_kl_by_hand() -> None:
    # d = 0.5: k1 0.5, k2 0.125, k3 e^-0.5 - 1 + 0.5 = 0.106531
    for estimator, expected in (("k1", 0.5), ("k2", 0.125), ("k3", 0.106531)):
        close(kl(row(-1.0), row(-1.5), estimator), [[expected]])
    with pytest.raises(ConfigError, match="unknown KL estimator 'k4'"):
        kl(row(0), row(0), "k4")


def test_k1_and_k3_are_unbiased_and_k2_has_the_right_gradient() -> None:
    """Expectations over a whole small vocabulary, no sampling: exact."""
    generator = torch.Generator().manual_seed(0)
    logits, reference = (torch.randn(6, generator=generator, dtype=torch.float64) for _ in range(2))
    logits.requires_grad_()
    logp, logq = logits.log_softmax(-1), reference.log_softmax(-1)
    exact = (logp.exp() * (logp - logq)).sum()
    for estimator in ("k1", "k3"):
        close((logp.exp() * kl(logp, logq, estimator)).sum(), exact.item())
    weights = logp.exp().detach()  # samples carry no gradient
    right = gradient(exact, logits)
    k1, k2, k3 = (gradient(weights * kl(logits.log_softmax(-1), logq, name), logits) for name in ("k1", "k2", "k3"))
    close(k2, right)
    close(k1, torch.zeros(6))
    # k3's is that of KL(reference || policy), whose gradient in the logits is p - q
    close(k3, weights - logq.exp())
    assert (k3 - right).abs().max() > 0.01
    logp = logits.log_softmax(-1)
    close(gradient(weights * (logp - logp.detach()).exp() * kl(logp, logq, "k3"), logits), right)


def test_k3_keeps_its_digits_where_policies_nearly_agree() -> None:
    close(kl(row(1e-3), row(0.0), "k3") / (0.5e-6), [[1.0]], tolerance=1e-3)  # d^2 / 2; exp(-d) - 1 + d misses by 1e-2


def test_entropy_by_hand() -> None:
    close(entropy(torch.tensor([[0.0, 0.0, 0.0, 0.0], [0.0, 0.0, -math.inf, -math.inf]])), [math.log(4), math.log(2)])


def test_forbidden_actions_do_not_poison_the_entropys_gradient() -> None:
    logits = torch.tensor([0.3, -math.inf, 0.1], requires_grad=True)
    allowed = torch.tensor([0.3, 0.1], requires_grad=True)
    close(gradient(entropy(logits), logits)[[0, 2]], gradient(entropy(allowed), allowed))


def test_token_nll_by_hand() -> None:
    # p = 1/4, 3/4: -log 1/4 = 1.386294, -log 3/4 = 0.287682
    logits = torch.tensor([[[0.0, math.log(3)], [0.0, math.log(3)]]])
    close(token_nll(logits, torch.tensor([[0, 1]])), [[1.386294, 0.287682]])


# --- engine mismatch --------------------------------------------------------------------------------------------


def test_truncated_importance_weights_by_hand() -> None:
    # differences log 2, log 5, (masked), log 0.5;  capped at 3: 2, 3, 0.5;  product of the three 5, capped: 3
    train = row(math.log(2), math.log(5), 7.0, math.log(0.5)).requires_grad_()
    mask = row(1, 1, 0, 1)
    arguments = (train, torch.zeros(1, 4), 3.0)
    tokens = truncated_importance_weights(*arguments, "token", mask)
    close(tokens, [[2, 3, 0, 0.5]])
    close(truncated_importance_weights(*arguments, "sequence", mask), [[3, 3, 0, 3]])
    close(truncated_importance_weights(train, torch.zeros(1, 4), 10.0, "sequence", mask), [[5, 5, 0, 5]])
    assert not tokens.requires_grad
    with pytest.raises(ConfigError, match=r"'tokens'.*did you mean 'token'"):
        truncated_importance_weights(*arguments, "tokens", mask)
    with pytest.raises(ConfigError, match="cap must be positive"):
        truncated_importance_weights(train, train, 0.0, "token", mask)


def test_importance_weights_never_overflow() -> None:
    huge = truncated_importance_weights(
        torch.full((1, 50), 90.0), torch.zeros(1, 50), 2.0, "sequence", torch.ones(1, 50)
    )
    close(huge, torch.full((1, 50), 2.0))


# --- oracles: TRL -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def grpo_trainer(trl_trainer: Callable[..., SimpleNamespace]) -> Any:
    trainer = trl_trainer("GRPO").trainer
    trainer.model.eval()  # in training TRL also divides by the gradient accumulation steps
    return trainer


def minibatch(seed: int = 0) -> SimpleNamespace:
    """Three answers of up to five tokens, off-policy enough that every clip is active somewhere."""
    generator = torch.Generator().manual_seed(seed)
    old = -2 * torch.rand(3, 5, generator=generator)
    return SimpleNamespace(
        logprobs=(old + 0.5 * torch.randn(3, 5, generator=generator)).requires_grad_(),
        old=old,
        ref=old + 0.3 * torch.randn(3, 5, generator=generator),
        advantages=torch.tensor([1.3, -0.7, 0.4]),
        mask=torch.tensor([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0], [1, 0, 1, 1, 0]]),
    )


def trl_loss(trainer: Any, batch: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, **attributes: Any) -> Tensor:
    """TRL's own `_compute_loss`, with the model's log-probs replaced by the batch's."""
    for name, value in {"beta": 0.0, "epsilon_low": 0.2, "epsilon_high": 0.3, **attributes}.items():
        monkeypatch.setattr(trainer.args if name in ("delta", "use_bias_correction_kl") else trainer, name, value)
    answer = (batch.logprobs, torch.zeros(3, 5), None)
    monkeypatch.setattr(trainer, "_get_per_token_logps_and_entropies", lambda *_, **__: answer)
    inputs = {
        "prompt_ids": torch.ones(3, 1, dtype=torch.int64),
        "prompt_mask": torch.ones(3, 1, dtype=torch.int64),
        "completion_ids": torch.ones(3, 5, dtype=torch.int64),
        "completion_mask": torch.ones(3, 5, dtype=torch.int64),
        "tool_mask": batch.mask,  # TRL multiplies both masks; this one may have holes, as tool calls make them
        "advantages": batch.advantages,
        "old_per_token_logps": batch.old,
        "ref_per_token_logps": batch.ref,
        "num_items_in_batch": batch.mask.sum(),
    }
    return trainer._compute_loss(trainer.model, inputs)


def same(ours: Tensor, theirs: Tensor, batch: SimpleNamespace) -> None:
    """Equal loss and equal gradient."""
    close(ours, theirs.detach())
    close(gradient(ours, batch.logprobs), gradient(theirs, batch.logprobs))


AGGREGATIONS = {
    # TRL's name -> ours. `grpo` averages over all rows there, over rows with a token here: all rows have one.
    "grpo": ("seq_mean_token_mean", {}),
    "bnpo": ("token_mean", {}),
    "dapo": ("token_mean", {}),  # over the tokens of the whole generation batch, which is this one
    "dr_grpo": ("constant", {"constant": 3.0 * 5}),  # rows times max_completion_length
    "luspo": ("seq_mean_token_sum", {}),
}


@pytest.mark.oracle
@pytest.mark.parametrize("loss_type", AGGREGATIONS)
@pytest.mark.parametrize("dual_clip", [None, 1.4])
def test_ppo_and_aggregations_are_those_of_trl(
    grpo_trainer: Any, monkeypatch: pytest.MonkeyPatch, loss_type: str, dual_clip: float | None
) -> None:
    batch = minibatch()
    theirs = trl_loss(grpo_trainer, batch, monkeypatch, loss_type=loss_type, delta=dual_clip)
    policy = ppo_clip(
        batch.logprobs,
        batch.old,
        batch.advantages[:, None],
        batch.mask,
        clip_low=0.2,
        clip_high=0.3,
        dual_clip=dual_clip,
    )
    mode, options = AGGREGATIONS[loss_type]
    same(aggregate(policy.loss, batch.mask, mode, **options), theirs, batch)
    if dual_clip is None:  # TRL does not count tokens that delta stopped
        reported = grpo_trainer._metrics["eval"]["clip_ratio/region_mean"][-1]
        assert policy.clip_fraction(batch.mask) == pytest.approx(reported, abs=1e-6) and reported > 0


@pytest.mark.oracle
def test_gspo_is_that_of_trl(grpo_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for high in (0.05, 1.0):  # the first clips a row with positive advantage, the second none
        batch = minibatch(seed=4)
        attributes = {"loss_type": "grpo", "importance_sampling_level": "sequence", "epsilon_high": high}
        theirs = trl_loss(grpo_trainer, batch, monkeypatch, **attributes)
        advantages = batch.advantages[:, None].expand(3, 5)
        policy = gspo(batch.logprobs, batch.old, advantages, batch.mask, clip_low=0.2, clip_high=high)
        assert bool(policy.clipped.any()) == (high == 0.05)
        same(aggregate(policy.loss, batch.mask, "seq_mean_token_mean"), theirs, batch)


@pytest.mark.oracle
def test_cispo_is_that_of_trl(grpo_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # TRL's epsilon_high is the bound itself, ours its distance from 1 as in the paper; TRL has no lower bound.
    batch = minibatch()
    theirs = trl_loss(grpo_trainer, batch, monkeypatch, loss_type="cispo", epsilon_high=1.5)
    policy = cispo(batch.logprobs, batch.old, batch.advantages[:, None], batch.mask, clip_low=1.0, clip_high=0.5)
    assert policy.clipped.any()
    same(aggregate(policy.loss, batch.mask, "token_mean"), theirs, batch)


@pytest.mark.oracle
def test_k3_is_that_of_trl(grpo_trainer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    batch = minibatch()
    # TRL multiplies k3 by the importance ratio unless told not to; plain k3 is ours, the product is the caller's.
    attributes = {"loss_type": "bnpo", "beta": 0.05, "use_bias_correction_kl": False}
    theirs = trl_loss(grpo_trainer, batch, monkeypatch, **attributes)
    policy = ppo_clip(batch.logprobs, batch.old, batch.advantages[:, None], batch.mask, clip_low=0.2, clip_high=0.3)
    ours = policy.loss + 0.05 * kl(batch.logprobs, batch.ref, "k3")
    same(aggregate(ours, batch.mask, "token_mean"), theirs, batch)
    reported = grpo_trainer._metrics["eval"]["kl"][-1]
    close(aggregate(kl(batch.logprobs, batch.ref), batch.mask, "token_mean").detach(), reported)


@pytest.mark.oracle
def test_entropy_and_nll_are_those_of_trl() -> None:
    utils = pytest.importorskip("trl.trainer.utils", reason="the TRL oracle needs the extra 'sft'")
    generator = torch.Generator().manual_seed(0)
    logits, targets = torch.randn(2, 3, 7, generator=generator), torch.tensor([[0, 3, 6], [1, 1, 2]])
    close(entropy(logits), utils.entropy_from_logits(logits))
    close(token_nll(logits, targets), -utils.selective_log_softmax(logits, targets))


# --- oracles: stable-baselines3 ---------------------------------------------------------------------------------


@pytest.mark.oracle
@pytest.mark.parametrize("clip_range_vf", [None, 0.1])
def test_ppo_is_that_of_stable_baselines3(sb3_ppo: Callable[..., Any], clip_range_vf: float | None) -> None:
    """Losses that `PPO.train` logs and the gradients that it leaves in every parameter, against ours."""
    ppo = sb3_ppo(clip_range=0.2, clip_range_vf=clip_range_vf, ent_coef=0.01, vf_coef=0.5)
    ppo.train()
    logged, parameters = ppo.logger.name_to_value, list(ppo.policy.parameters())
    theirs = [p.grad.clone() for p in parameters]

    data = next(ppo.rollout_buffer.get())  # the whole buffer: a mean does not mind the order
    values, logprobs, entropies = ppo.policy.evaluate_actions(data.observations, data.actions.long().flatten())
    mask = torch.ones(64, 1)
    policy = ppo_clip(
        logprobs[:, None], data.old_log_prob[:, None], data.advantages[:, None], mask, clip_low=0.2, clip_high=0.2
    )
    # No 0.5 there, and no maximum with the unclipped error (see value_loss).
    squared = 2 * value_loss(
        values, data.returns[:, None], data.old_values[:, None], clip=clip_range_vf, pessimistic=False
    )
    policy_loss, critic_loss, bonus = (
        aggregate(x, mask, "token_mean") for x in (policy.loss, squared, entropies[:, None])
    )
    assert policy_loss.item() == pytest.approx(logged["train/policy_gradient_loss"], rel=1e-6, abs=1e-6)
    assert critic_loss.item() == pytest.approx(logged["train/value_loss"], rel=1e-6)
    assert bonus.item() == pytest.approx(-logged["train/entropy_loss"], rel=1e-6)
    ours = torch.autograd.grad(policy_loss + 0.5 * critic_loss - 0.01 * bonus, parameters)
    for found, expected in zip(ours, theirs, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-6)
    # Its clip fraction counts |w - 1| > clip whatever the advantage: every token that ours counts, and more.
    outside = ((logprobs - data.old_log_prob).exp() - 1).abs() > 0.2
    assert float(outside.float().mean()) == pytest.approx(logged["train/clip_fraction"], abs=1e-6)
    assert 0 < policy.clip_fraction(mask) <= logged["train/clip_fraction"]
    assert not (policy.clipped[:, 0] & ~outside).any()


# --- stablemax -----------------------------------------------------------------------------------------------------


def test_stablemax_by_hand() -> None:
    # s(1) = 2, s(0) = 1, s(-1) = 1/2, s(-3) = 1/4; their sum is 3.75
    shares = stablemax_log(row(1.0, 0.0, -1.0, -3.0)).exp()
    assert shares.dtype == torch.float64
    close(shares, [[2 / 3.75, 1 / 3.75, 0.5 / 3.75, 0.25 / 3.75]], 1e-12)


def test_stablemax_grows_as_a_line_and_never_overflows() -> None:
    # s(999) = 1000 against s(-999) = 1/1000: 1 - p is 1e-6, where softmax has 0
    close(1 - stablemax_log(row(999.0, -999.0)).exp()[0, 0], 1e-6, 1e-9)
    logits = row(1e30, 0.0, -1e30).requires_grad_()
    (leaf,) = torch.autograd.grad(-stablemax_log(logits)[0, 2], logits)
    assert torch.isfinite(leaf).all()


def test_stablemax_has_a_gradient_at_zero_and_at_one() -> None:
    """Where a zero-initialised head begins: d/dx_i -log p_0 = s'(x_i)/sum(s) - [i = 0] s'(x_0)/s(x_0), s'(0) = 1."""
    logits = row(0.0, 0.0, 0.0, 1.0).requires_grad_()
    close(gradient(-stablemax_log(logits)[:, 0], logits), [[1 / 5 - 1, 1 / 5, 1 / 5, 1 / 5]])
    numbers = torch.tensor([[-2.0, -0.5, 0.25, 1.0, 3.0]], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(stablemax_log, (numbers,))
