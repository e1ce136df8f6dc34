from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from torch import Tensor

from troupe.engines.evaluator import NetworkEvaluator
from troupe.errors import ConfigError
from troupe.models.config import TokenNetConfig
from troupe.models.policy_value import load_weights
from troupe.models.token_net import PolicyAndValue, TokenNet, token_net
from troupe.models.token_trunks import RecursiveTrunk
from troupe.training.learner import Learner, adamw

KINDS = ("mlp", "transformer", "mixer", "hrm", "trm")
SIZES = {"vocabulary": 9, "length": 6, "actions": 8}


def config(kind: str, **changes: object) -> TokenNetConfig:
    return TokenNetConfig.model_validate({"kind": kind, "hidden": 16, "heads": 2, **changes})


def net(kind: str, pointers: int = 4, seed: int = 0, **changes: object) -> TokenNet:
    return token_net(config(kind, **changes), **SIZES, pointers=pointers, seed=seed)


def boards(n: int = 5, seed: int = 0) -> Tensor:
    return torch.randint(1, 9, (n, 6), generator=torch.Generator().manual_seed(seed)).float()


class FakePositions:
    """n positions with two illegal actions each."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.legal = np.ones((len(rows), 8), bool)
        self.legal[:, 2:4] = False
        self.to_play = np.zeros(len(rows), np.int8)

    def __len__(self) -> int:
        return len(self.rows)

    def observations(self) -> np.ndarray:
        return self.rows.numpy()

    def keys(self) -> None:
        return None

    def candidates(self) -> None:
        return None


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pointers", [0, 4])
def test_an_untrained_network_has_next_to_no_opinion(kind: str, pointers: int) -> None:
    logits, values = net(kind, pointers)(boards(200))
    assert logits.shape == (200, 8) and values.shape == (200,)
    shares = logits.softmax(-1)
    assert (shares - 1 / 8).abs().max() < 0.05
    assert (values - 0.5).abs().max() < 0.15
    assert logits.std() > 1e-3  # and yet it is not blind


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pointers", [0, 4])
def test_every_parameter_learns(kind: str, pointers: int) -> None:
    model = net(kind, pointers)
    logits, values = model(boards())
    (logits.square().sum() + values.square().sum()).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", KINDS)
def test_padding_is_invisible(kind: str) -> None:
    """What an embedding of padding is does not matter; what a token is does."""
    model, rows = net(kind), boards()
    rows[:, 4:] = 0
    before = model(rows)
    table = next(p for name, p in model.named_parameters() if name in ("trunk.tokens", "trunk.embedding.tokens"))
    if kind == "mlp":
        assert torch.equal(table[0], torch.zeros(16))
        (before[0].sum() + before[1].sum()).backward()
        assert table.grad is not None and table.grad[0].abs().sum() == 0  # and so it stays
        return
    with torch.no_grad():
        table[0] += 5.0
        after = model(rows)
    torch.testing.assert_close(before[0], after[0])
    torch.testing.assert_close(before[1], after[1])
    rows[:, 3] = (rows[:, 3] % 8) + 1
    assert not torch.allclose(model(rows)[0], after[0])


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("pointers", [0, 4])
def test_who_is_judged_beside_it_changes_nothing(kind: str, pointers: int) -> None:
    """Columns that are padding in all rows of a batch are left out, and that must not be seen."""
    model, rows = net(kind, pointers), boards()
    rows[0, 2:], rows[1, 5:] = 0, 0
    together, alone = model(rows), model(rows[:1])
    torch.testing.assert_close(alone[0], together[0][:1])
    torch.testing.assert_close(alone[1], together[1][:1])


@pytest.mark.parametrize("kind", KINDS)
def test_a_row_of_padding_is_no_catastrophe(kind: str) -> None:
    logits, values = net(kind)(torch.zeros(2, 6))
    assert torch.isfinite(logits).all() and torch.isfinite(values).all()


def test_pointed_logits_stand_at_their_positions() -> None:
    """Action p * K + j is the j-th output of the token at p: with a head that copies features it can be read off."""
    model = net("transformer", pointers=4)
    features = model.trunk(boards())
    assert features.shape == (5, 5, 16)
    head = model.policy.layer  # type: ignore[union-attr]
    head.weight.data.zero_()
    head.weight.data[0, 3], head.weight.data[1, 7] = 1.0, 1.0
    logits, _ = model(boards())
    for p in range(4):
        torch.testing.assert_close(logits[:, 2 * p], features[:, 1 + p, 3])
        torch.testing.assert_close(logits[:, 2 * p + 1], features[:, 1 + p, 7])


def test_values_keep_to_their_range() -> None:
    for value_range, low, high in (("unit", 0.0, 1.0), ("bounded", -1.0, 1.0), ("unbounded", -9e9, 9e9)):
        model = net("mlp", value_range=value_range)
        last = [part for part in model.value if isinstance(part, torch.nn.Linear)][-1]
        last.weight.data *= 2_000
        values = model(boards(100))[1]
        assert low <= values.min() and values.max() <= high
        if value_range == "unbounded":
            assert values.abs().max() > 1.0


@pytest.mark.parametrize("kind", ["hrm", "trm"])
def test_segments_end_where_forward_does(kind: str) -> None:
    model = net(kind, segments=3)
    found = model.segments(boards())
    assert len(found) == 3
    torch.testing.assert_close(found[-1][0], model(boards())[0])
    torch.testing.assert_close(found[-1][1], model(boards())[1])
    assert not torch.allclose(found[0][0], found[-1][0])
    one = net(kind, segments=1)
    torch.testing.assert_close(one(boards())[0], found[0][0])  # the first segment does not know how many follow


@pytest.mark.parametrize("kind", ["hrm", "trm"])
def test_segments_have_graphs_of_their_own(kind: str) -> None:
    model = net(kind, segments=2)
    assert isinstance(model.trunk, RecursiveTrunk)
    model.segments(boards())[-1][0].square().sum().backward()
    of_last = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad()
    model(boards())[0].square().sum().backward()
    for name, p in model.named_parameters():
        if name in of_last:
            assert p.grad is not None
            torch.testing.assert_close(p.grad, of_last[name])


def test_sizes_of_the_recursion_act() -> None:
    reference = net("trm")(boards())[0]
    for changes in ({"cycles": 2}, {"updates": 1}, {"layers": 1}, {"expansion": 6.0}, {"segments": 1}):
        assert not torch.allclose(net("trm", **changes)(boards())[0], reference), changes


def test_the_seed_alone_decides() -> None:
    before = torch.random.get_rng_state()
    first, second, third = net("transformer", seed=1), net("transformer", seed=1), net("transformer", seed=2)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert torch.equal(first(boards())[0], second(boards())[0])
    assert not torch.equal(first(boards())[0], third(boards())[0])


@pytest.mark.parametrize("kind", KINDS)
def test_the_evaluator_runs_it(kind: str) -> None:
    model, positions = net(kind), FakePositions(boards())
    evaluator = NetworkEvaluator(model, runtime="torch", precision="fp32", cache=0)  # type: ignore[arg-type]
    priors, values = evaluator.evaluate(positions)  # type: ignore[arg-type]
    logits, expected = model(boards())
    wanted = logits.masked_fill(~torch.from_numpy(positions.legal), -torch.inf).softmax(-1)
    np.testing.assert_allclose(priors, wanted.detach().numpy(), atol=1e-6)
    np.testing.assert_allclose(values, expected.detach().numpy(), atol=1e-6)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05
    evaluator.refresh(model)  # type: ignore[arg-type]
    assert not np.allclose(evaluator.evaluate(positions)[0], priors)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", KINDS)
def test_a_trunk_in_bf16_says_about_the_same(kind: str) -> None:
    model = net(kind)
    half = copy.deepcopy(model)
    half.trunk.to(torch.bfloat16)
    with torch.inference_mode():
        features = half.trunk(boards().to(torch.bfloat16)).float()
        logits, values = half.policy(features), half.value(features)[:, 0]
        full = model(boards())
    torch.testing.assert_close(logits, full[0], atol=0.02, rtol=0)
    torch.testing.assert_close(values, full[1], atol=0.02, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_each_kind_learns_to_point(kind: str) -> None:
    """At the one token of id 8, with its position for a value, seen by rows that training did not see."""
    model, generator = net(kind, pointers=4, layers=1), torch.Generator().manual_seed(0)
    learner = Learner({"net": adamw(dict(model.named_parameters()), lr=0.01, betas=(0.9, 0.999), weight_decay=0.0)})

    def rows(n: int) -> tuple[Tensor, Tensor]:
        found, where = torch.randint(1, 8, (n, 6), generator=generator).float(), torch.arange(n) % 4
        found[torch.arange(n), where] = 8
        return found, where

    def closure() -> dict[str, Tensor]:
        given, where = rows(64)
        steps = model.segments(given)
        policy = sum(torch.nn.functional.cross_entropy(logits, 2 * where) for logits, _ in steps)
        return {"policy": policy, "value": sum((values - where / 3).square().mean() for _, values in steps)}  # type: ignore[dict-item]

    for _ in range(120):
        learner.update([closure])
    given, where = rows(200)
    with torch.no_grad():
        logits, values = model(given)
    assert (logits.argmax(-1) == 2 * where).float().mean() > 0.95
    assert (values - where / 3).square().mean() < 0.05  # 0.139 for who always says the mean


# --- two networks as one -------------------------------------------------------------------------------------------


def test_logits_of_one_and_values_of_the_other() -> None:
    policy, value = net("hrm", seed=1, hidden=32), net("trm", seed=2)
    both = PolicyAndValue(policy, value)
    logits, values = both(boards())
    torch.testing.assert_close(logits, policy(boards())[0])
    torch.testing.assert_close(values, value(boards())[1])
    assert (both.calls.policy, both.calls.value) == (1, 1)
    (logits.sum() + values.sum()).backward()
    assert all(p.grad is None for p in value.policy.parameters())
    assert all(p.grad is not None for p in policy.trunk.parameters())


def test_calls_are_counted_through_the_evaluators_copy() -> None:
    both = PolicyAndValue(net("hrm"), net("trm", seed=1))
    evaluator = NetworkEvaluator(both, runtime="torch", precision="fp32", cache=0)  # type: ignore[arg-type]
    for _ in range(3):
        evaluator.evaluate(FakePositions(boards()))  # type: ignore[arg-type]
    assert (both.calls.policy, both.calls.value) == (3, 3)


def test_segments_of_unequal_number_are_paired_evenly() -> None:
    policy, value = net("hrm", segments=2), net("trm", segments=4)
    both = PolicyAndValue(policy, value)
    pairs, of_policy, of_value = (module.segments(boards()) for module in (both, policy, value))
    assert len(pairs) == 4
    for i, (logits, values) in enumerate(pairs):
        torch.testing.assert_close(logits, of_policy[i // 2][0])
        torch.testing.assert_close(values, of_value[i][1])


def test_its_weights_can_be_stored_and_loaded() -> None:
    first, second = PolicyAndValue(net("hrm"), net("trm")), PolicyAndValue(net("hrm", seed=5), net("trm", seed=6))
    tensors = {name: tensor.clone() for name, tensor in first.state_dict().items()}
    assert len({tensor.data_ptr() for tensor in first.state_dict().values()}) == len(tensors)  # each tensor once
    load_weights(second, tensors)
    torch.testing.assert_close(second(boards())[0], first(boards())[0])


# --- bad input -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"pointers": 3}, "8 actions cannot be shared among 3 tokens"),
        ({"pointers": 7}, "point at 0 to 6 tokens, not 7"),
        ({"vocabulary": 1}, "vocabulary >= 2"),
    ],
)
def test_sizes_that_do_not_fit(changes: dict[str, int], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        token_net(config("mlp"), **{**SIZES, "pointers": 0, **changes})


def test_heads_that_do_not_fit() -> None:
    with pytest.raises(ConfigError, match="does not split into 3 heads"):
        net("transformer", heads=3)


def test_networks_of_different_tasks_are_no_pair() -> None:
    other = token_net(config("mlp"), vocabulary=9, length=6, actions=4, pointers=4)
    with pytest.raises(ConfigError, match="actions 8, the value's 4"):
        PolicyAndValue(net("mlp"), other)
