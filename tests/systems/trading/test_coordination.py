"""Where two objectives meet: projected or added, measured, clipped, and resumed."""

from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from troupe.errors import ConfigError, DataError, TrainingError
from troupe.models.config import TeamConfig
from troupe.models.team import TeamActorCritic
from troupe.stores.state import join_state, split_state
from troupe.systems.trading.coordination import GradientCoordinationSystem
from troupe.training.learner import Learner, OptimizerGroup

AGENTS = ("meta", "forex", "equity")
ENCODER = "specialists.forex.towers.weights.0"


def zeros(*shape: int) -> nn.Parameter:
    return nn.Parameter(torch.zeros(shape))


def few() -> dict[str, nn.Parameter]:
    """Encoders of two numbers each, of one and of two parameters, with others before and between them."""
    return {
        "meta.policy.weight": zeros(1),
        "specialists.forex.towers.weights.0": zeros(2),
        "specialists.forex.policy.weight": zeros(1),
        "specialists.equity.towers.weights.0": zeros(1),
        "specialists.equity.value.weight": zeros(1),
        "specialists.equity.towers.biases.0": zeros(1),
    }


def row(*numbers: Sequence[float]) -> list[Tensor]:
    return [torch.tensor(each, dtype=torch.float32) for each in numbers]


def numbers(gradient: Sequence[Tensor]) -> list[list[float]]:
    return [each.tolist() for each in gradient]


def conflict() -> dict[str, list[Tensor]]:
    # forex:  meta (1, 0), own (-1, 1): product -1, norms 1 and sqrt 2, cosine -1 / sqrt 2
    #         meta' = (1, 0) + 1/2 (-1, 1) = (0.5, 0.5)   own' = (-1, 1) + 1 (1, 0) = (0, 1)   together (0.5, 1.5)
    # equity: meta (3, 4), own (4, 3): product 24, cosine 24 / 25, together (7, 7)
    return {
        "meta": row([2], [1, 0], [0], [3], [0], [4]),
        "forex": row([0], [-1, 1], [5], [0], [0], [0]),
        "equity": row([0], [0, 0], [0], [4], [6], [3]),
    }


def test_by_hand_a_conflict_is_projected_and_what_agrees_is_added():
    coordination = GradientCoordinationSystem(few(), AGENTS)
    given = conflict()
    before = copy.deepcopy(given)
    assert numbers(coordination(given)) == [[2], [0.5, 1.5], [5], [7], [6], [7]]
    for agent in AGENTS:
        assert numbers(given[agent]) == numbers(before[agent])
    assert coordination.metrics() == pytest.approx({
        "coordination/cosine/forex": -(0.5**0.5), "coordination/conflicts/forex": 1.0,
        "coordination/cosine/equity": 0.96, "coordination/conflicts/equity": 0.0,
    })  # fmt: skip


def test_without_projection_all_is_added_and_the_conflict_is_measured_all_the_same():
    coordination = GradientCoordinationSystem(few(), AGENTS, projection=False)
    assert numbers(coordination(conflict())) == [[2], [0, 1], [5], [7], [6], [7]]
    projecting = GradientCoordinationSystem(few(), AGENTS)
    projecting(conflict())
    assert coordination.metrics() == projecting.metrics()


def test_a_third_agents_gradient_on_an_encoder_is_added_to_the_projected_pair():
    given = conflict()
    given["equity"][1] = torch.tensor([10.0, 20.0])
    assert numbers(GradientCoordinationSystem(few(), AGENTS)(given))[1] == [10.5, 21.5]


def test_metrics_are_means_since_the_last_call_over_gradients_that_have_a_direction():
    coordination = GradientCoordinationSystem(few(), AGENTS)
    assert coordination.metrics() == {}
    for meta, own in (([1, 0], [0, 1]), ([1, 0], [-2, 0]), ([1, 0], [0, 0]), ([1, 0], [math.nan, 0])):
        found = coordination(
            {**conflict(), "meta": row([2], meta, [0], [0], [0], [0]), "forex": row([0], own, [5], [0], [0], [0])}
        )
    assert math.isnan(found[1][0])  # which the learner's guard sees
    # forex counts twice, with cosines 0 and -1; equity never, as the meta-controller's gradient there is 0
    assert coordination.metrics() == {"coordination/cosine/forex": -0.5, "coordination/conflicts/forex": 0.5}
    assert coordination.metrics() == {}


def drawn(seed: int, parameters: Mapping[str, nn.Parameter], agents: Sequence[str]) -> dict[str, list[Tensor]]:
    generator = torch.Generator().manual_seed(seed)
    return {agent: [torch.randn(p.shape, generator=generator) for p in parameters.values()] for agent in agents}


def projected_pair(a: Tensor, b: Tensor) -> Tensor:
    """PCGrad of two in the paper's words."""
    if (dot := a @ b) >= 0:
        return a + b
    return (a - dot / (b @ b) * b) + (b - dot / (a @ a) * a)


@pytest.mark.oracle
@pytest.mark.parametrize("seed", range(6))
def test_each_encoder_is_pcgrad_of_its_pair(seed: int):
    named = {f"meta.{i}": zeros(3, 2) for i in range(2)}
    for agent in AGENTS[1:]:
        named |= {f"specialists.{agent}.towers.weights.{i}": zeros(4, 3) for i in range(2)}
        named |= {f"specialists.{agent}.towers.biases.0": zeros(3), f"specialists.{agent}.policy.weight": zeros(2, 3)}
    given = drawn(seed, named, AGENTS)
    found = dict(zip(named, GradientCoordinationSystem(named, AGENTS)(given), strict=True))
    for agent, other in (("forex", "equity"), ("equity", "forex")):
        places = [i for i, name in enumerate(named) if name.startswith(f"specialists.{agent}.towers.")]
        flat = {who: torch.cat([given[who][i].flatten() for i in places]).double() for who in AGENTS}
        expected = projected_pair(flat["meta"], flat[agent]) + flat[other]
        actual = torch.cat([found[list(named)[i]].flatten() for i in places])
        torch.testing.assert_close(actual.double(), expected, rtol=1e-5, atol=1e-5)
    for i, name in enumerate(named):
        if ".towers." not in name:
            torch.testing.assert_close(found[name], sum(given[who][i] for who in AGENTS))


# ---------------------------------------------------------------------------------------------- in a learner


class Pair(nn.Module):
    """A meta-controller that reads the embedding of one specialist."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.meta = nn.Linear(3, 1)
        self.specialists = nn.ModuleDict(
            {"forex": nn.ModuleDict({"towers": nn.Linear(2, 3), "policy": nn.Linear(3, 1)})}
        )

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        forex = self.specialists["forex"]
        seen = torch.tanh(forex["towers"](x))
        return {"meta": ((self.meta(seen) - 1) ** 2).mean(), "forex": ((forex["policy"](seen) + 1) ** 2).mean()}


def joint(net: Pair, *, lr: float = 0.1, **options: Any) -> tuple[Learner, GradientCoordinationSystem]:
    named = {
        "meta": {n: p for n, p in net.named_parameters() if n.startswith("meta.")},
        "forex": {n: p for n, p in net.named_parameters() if n.startswith("specialists.forex.")},
    }
    coordination = GradientCoordinationSystem({**named["meta"], **named["forex"]}, ("meta", "forex"), **options)
    groups = {
        name: OptimizerGroup(
            parameters, torch.optim.Adam(parameters.values(), lr=lr), period={"meta": 1, "forex": 5}[name],
            schedule=lambda step, name=name: coordination.factors[name],
        )
        for name, parameters in named.items()
    }  # fmt: skip
    return Learner(groups, combine=coordination), coordination


def inputs(update: int) -> Tensor:
    return torch.randn(8, 2, generator=torch.Generator().manual_seed(update))


def test_in_a_learner_the_specialist_steps_at_every_fifth_update_on_the_mean_of_combined_gradients():
    net = Pair()
    learner, coordination = joint(net)
    seen: list[list[Tensor]] = []

    def listening(apart: Mapping[str, Sequence[Tensor]]) -> list[Tensor]:
        found = coordination(apart)
        seen.append([gradient.clone() for gradient in found])
        return found

    learner.combine = listening
    start = copy.deepcopy(net.state_dict())
    for update in range(1, 6):
        before = copy.deepcopy(net.state_dict())
        metrics = learner.update([lambda update=update: net.losses(inputs(update))])
        for name, value in net.state_dict().items():
            moved = not torch.equal(value, before[name])
            assert moved == (name.startswith("meta.") or update == 5), (name, update)
    mean = [sum(gradients) / 5 for gradients in zip(*(each[2:] for each in seen), strict=True)]
    assert metrics["grad_norm/forex"] == pytest.approx(float(torch.cat([g.flatten() for g in mean]).norm()), rel=1e-5)
    # Adam's first step is the sign of the gradient times the learning rate.
    moved = net.specialists["forex"]["towers"].weight - start["specialists.forex.towers.weight"]
    torch.testing.assert_close(moved, -0.1 * torch.sign(mean[0]), rtol=1e-3, atol=1e-4)
    assert set(coordination.metrics()) == {"coordination/cosine/forex", "coordination/conflicts/forex"}


def test_projection_changes_what_is_learned_and_seeds_do_not():
    found = []
    for options in ({"projection": True}, {"projection": False}, {"projection": True, "seed": 7}):
        net = Pair()
        learner, coordination = joint(net, **options)
        for update in range(10):
            learner.update([lambda update=update, net=net: net.losses(inputs(update))])
        assert coordination.metrics()["coordination/conflicts/forex"] > 0
        found.append(net.specialists["forex"]["towers"].weight.detach().clone())
    assert not torch.equal(found[0], found[1]) and torch.equal(found[0], found[2])


def test_resume_is_exact_in_the_middle_of_a_slow_groups_period():
    def go(net: Pair, learner: Learner, coordination: GradientCoordinationSystem, updates: range) -> None:
        for update in updates:
            learner.update([lambda update=update: net.losses(inputs(update))])
            coordination.adaptive_learning_rates({"approx_kl/forex": 0.001 * update})

    net = Pair()
    learner, coordination = joint(net)
    go(net, learner, coordination, range(7))
    tensors, encoded = split_state({"learner": learner.state_dict(), "coordination": coordination.state_dict()})
    stored, weights = join_state({n: t.clone() for n, t in tensors.items()}, encoded), copy.deepcopy(net.state_dict())
    go(net, learner, coordination, range(7, 23))

    other = Pair()
    other.load_state_dict(weights)
    again, resumed = joint(other, seed=99)
    again.load_state_dict(stored["learner"])
    resumed.load_state_dict(stored["coordination"])
    go(other, again, resumed, range(7, 23))
    assert all(torch.equal(a, b) for a, b in zip(net.state_dict().values(), other.state_dict().values(), strict=True))
    assert resumed.factors == coordination.factors != {"meta": 1.0, "forex": 1.0}
    assert torch.equal(resumed.state_dict()["generator"], coordination.state_dict()["generator"])
    assert resumed.metrics() == coordination.metrics()


def test_the_state_of_other_agents_is_refused():
    state = GradientCoordinationSystem(few(), AGENTS).state_dict()
    with pytest.raises(TrainingError, match=r"stored coordination is of \['meta', 'forex', 'equity'\]"):
        joint(Pair())[1].load_state_dict(state)


def test_the_networks_of_phase_3_have_these_names_and_meet_on_their_encoders():
    views = {"meta": slice(0, 4), "forex": slice(4, 9), "equity": slice(9, 13)}
    parts = {"meta": slice(0, 3), "forex": slice(3, 5), "equity": slice(5, 6)}
    net = TeamActorCritic(TeamConfig(meta_hidden=(4,), specialist_hidden=(4,)), views, parts, seed=0)
    groups = {}
    for agent in AGENTS:
        prefix = "meta." if agent == "meta" else f"specialists.{agent}."
        own = {name: p for name, p in net.named_parameters() if name.startswith(prefix)}
        groups[agent] = OptimizerGroup(own, torch.optim.SGD(own.values(), lr=0.01))
    named = {name: p for group in groups.values() for name, p in group.parameters.items()}
    coordination = GradientCoordinationSystem(named, AGENTS)
    observations = torch.randn(16, 13, generator=torch.Generator().manual_seed(0))
    actions = net.act(observations, torch.Generator().manual_seed(1)).actions

    def losses() -> dict[str, Tensor]:
        found = net.evaluate(observations, actions)
        return {name: (each.values**2 - each.logprobs).mean() for name, each in zip(AGENTS, found, strict=True)}

    Learner(groups, combine=coordination).update([losses])
    assert set(coordination.metrics()) == {
        f"coordination/{what}/{agent}" for what in ("cosine", "conflicts") for agent in ("forex", "equity")
    }


# ---------------------------------------------------------------------------------------------- documented methods


def test_coordinate_updates_is_the_same_by_name():
    given = conflict()
    named = {agent: dict(zip(few(), gradients, strict=True)) for agent, gradients in given.items()}
    owned = {
        agent: {n: g for n, g in each.items() if (agent == "meta" and "value" not in n) or f".{agent}." in n}
        for agent, each in named.items()
    }
    coordination = GradientCoordinationSystem(few(), AGENTS)
    found = coordination.coordinate_updates(owned.pop("meta"), owned)
    assert {name: gradient.tolist() for name, gradient in found.items()} == dict(
        zip(few(), [[2], [0.5, 1.5], [5], [7], [6], [7]], strict=True)
    )
    alone = coordination.coordinate_updates({ENCODER: torch.ones(2)}, {"forex": {}, "equity": {}})
    assert list(alone) == [ENCODER] and alone[ENCODER].tolist() == [1, 1]


def test_clipping_returns_gradients_and_not_their_norm():
    """The public code put the norm into the gradient: ones(5) in, tensor(0.) out."""
    coordination = GradientCoordinationSystem(few(), AGENTS)
    ones = torch.ones(5)
    found = coordination.gradient_clipping({"w": ones})
    assert found["w"].shape == (5,) and float(found["w"].norm()) == pytest.approx(1.0, rel=1e-5)
    assert torch.equal(ones, torch.ones(5)) and torch.equal(coordination.gradient_clipping([ones], 10.0)[0], ones)
    # (3) and (4) have the norm 5 together: both are divided by 2.5
    both = coordination.gradient_clipping([torch.tensor([3.0]), torch.tensor([[4.0]])], max_norm=2.0)
    assert [float(each) for each in both] == pytest.approx([1.2, 1.6], rel=1e-5) and both[1].shape == (1, 1)


def test_max_norm_clips_each_agent_before_they_meet():
    # forex: own (-1, 1) beside (5): norm sqrt 27; meta: (2), (1, 0), (3), (4): norm sqrt 30; equity (4), (6), (3): 61
    found = GradientCoordinationSystem(few(), AGENTS, max_norm=1.0)(conflict())
    m, f, e = 30**-0.5, 27**-0.5, 61**-0.5
    # Lengths do not change who conflicts: meta' = m (1/2, 1/2), own' = f (0, 1)
    expected = [[2 * m], [m / 2, m / 2 + f], [5 * f], [3 * m + 4 * e], [6 * e], [4 * m + 3 * e]]
    for gradient, numbers_ in zip(found, expected, strict=True):
        assert gradient.tolist() == pytest.approx(numbers_, rel=1e-5)


def test_learning_rates_follow_the_kl_and_stay_within_bounds():
    coordination = GradientCoordinationSystem(few(), AGENTS, target_kl=0.01)
    found = coordination.adaptive_learning_rates(
        {"meta": {"approx_kl": 0.021, "entropy": 1.0}, "forex": {"approx_kl": 0.0049}}
    )
    assert found == pytest.approx({"meta": 1 / 1.5, "forex": 1.5, "equity": 1.0})
    flat = {
        "approx_kl": 0.5,
        "loss/meta": 3.0,
        "approx_kl/meta": 0.01,
        "approx_kl/forex": 0.005,
        "approx_kl/equity": 0.02,
    }
    assert coordination.adaptive_learning_rates(flat) == found  # within [target / 2, 2 target] nothing changes
    for _ in range(20):
        coordination.adaptive_learning_rates({"approx_kl/meta": 1.0, "approx_kl/forex": 0.0})
    assert coordination.factors == {"meta": 0.1, "forex": 10.0, "equity": 1.0}


def test_a_learner_scheduled_by_the_factors_steps_with_them():
    """In the public code the factors reach no optimiser."""
    net = Pair()
    learner, coordination = joint(net, lr=0.1)
    assert learner.update([lambda: net.losses(inputs(0))])["lr/meta"] == 0.1
    coordination.adaptive_learning_rates({"approx_kl/meta": 1.0})
    assert learner.update([lambda: net.losses(inputs(1))])["lr/meta"] == pytest.approx(0.1 / 1.5)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("agents", "options", "what"),
    [
        (("meta",), {}, "one or more different specialists"),
        (("meta", "forex", "forex"), {}, "different specialists"),
        (("meta", "forex", "equities"), {}, r"a specialist 'equity' \(did you mean 'equities'\?\)"),
        (("meta", "forex", "equity", "bonds"), {}, "encoder of 'bonds'.*'specialists.bonds.towers.'"),
        (AGENTS, {"max_norm": 0.0}, "max_norm=0.0"),
        (AGENTS, {"target_kl": math.nan}, "target_kl=nan"),
    ],
)
def test_names_and_numbers_that_do_not_fit(agents: tuple[str, ...], options: dict[str, Any], what: str):
    with pytest.raises(ConfigError, match=what):
        GradientCoordinationSystem(few(), agents, **options)


def short(given: dict[str, list[Tensor]]) -> None:
    given["forex"].pop()


def missing(given: dict[str, list[Tensor]]) -> None:
    del given["equity"]


def unknown(given: dict[str, list[Tensor]]) -> None:
    given["fores"] = given.pop("forex")


def misshapen(given: dict[str, list[Tensor]]) -> None:
    given["forex"][1] = torch.zeros(7)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        (short, "'forex' has 5 tensors; .* made for 6"),
        (missing, r"lack \['equity'\]"),
        (unknown, r"agent 'fores' \(did you mean 'forex'\?\)"),
        (misshapen, r"gradient of 'forex' .* shape \[7\]"),
    ],
)
def test_gradients_that_do_not_fit(change: Callable[[dict[str, list[Tensor]]], None], what: str):
    given = conflict()
    change(given)
    with pytest.raises(TrainingError, match=what):
        GradientCoordinationSystem(few(), AGENTS)(given)


def test_named_gradients_that_do_not_fit():
    coordination = GradientCoordinationSystem(few(), AGENTS)
    both = {"forex": {}, "equity": {}}
    with pytest.raises(TrainingError, match=r"'meta' name a parameter .* \(did you mean 'specialists.forex.towers"):
        coordination.coordinate_updates({"specialists.forex.tower.weights.0": torch.ones(2)}, both)
    with pytest.raises(TrainingError, match=r"shape \[3\], the parameter \[2\]"):
        coordination.coordinate_updates({ENCODER: torch.ones(3)}, both)
    with pytest.raises(TrainingError, match=r"lack \['equity'\]"):
        coordination.coordinate_updates({}, {"forex": {}})


@pytest.mark.parametrize(
    ("metrics", "what"),
    [
        ({}, "no agent's 'approx_kl'"),
        ({"forex": {"entropy": 1.0}}, "no agent's 'approx_kl'"),
        ({"approx_kl/forexx": 0.1}, r"'forexx' \(did you mean 'forex'\?\)"),
        ({"forex": {"approx_kl": math.nan}}, "KL of 'forex' is nan"),
    ],
)
def test_performance_that_says_nothing(metrics: dict[str, Any], what: str):
    coordination = GradientCoordinationSystem(few(), AGENTS)
    with pytest.raises(DataError, match=what):
        coordination.adaptive_learning_rates(metrics)
    with pytest.raises(ConfigError, match="norm 0"):
        coordination.gradient_clipping([torch.ones(1)], 0)


def test_it_costs_little_beside_an_update():
    """Ten times what it takes here, so that a busy machine passes and a loop over numbers does not."""
    named = {f"meta.{i}": zeros(64, 64) for i in range(4)}
    for agent in AGENTS[1:]:
        named |= {f"specialists.{agent}.towers.weights.{i}": zeros(64, 64) for i in range(2)}
        named |= {f"specialists.{agent}.policy.{i}": zeros(64) for i in range(4)}
    coordination, given = GradientCoordinationSystem(named, AGENTS), drawn(0, named, AGENTS)
    coordination(given)
    began = time.process_time()
    for _ in range(50):
        coordination(given)
    assert (time.process_time() - began) / 50 < 3e-3
