"""PPO's update: the compact gradient against autograd, the loss against stable-baselines3's, and when it stops."""

from __future__ import annotations

import copy
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from troupe.batch import Batch
from troupe.errors import ConfigError
from troupe.models.actions import Box, Discrete, MultiBinary, Space
from troupe.models.actor_critic import ActorCritic
from troupe.models.config import ActorCriticConfig
from troupe.training import objectives
from troupe.training.compact import compact_ppo, fits
from troupe.training.config import PPOConfig
from troupe.training.objectives import Meter, actor_critic
from troupe.training.ppo import explained_variance, ppo_learner, ppo_update

PLANE = Box((-1.0, -1.0), (1.0, 1.0))


def problem(
    space: Space, rows: int = 4, columns: int = 16, *, seed: int = 0, **config: Any
) -> tuple[ActorCritic, Batch]:
    """A network away from where it began, and a batch whose ratios lie on both sides of the clip."""
    generator = torch.Generator().manual_seed(seed)

    def noise(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator)

    net = ActorCritic(ActorCriticConfig(**{"hidden": (32, 16), **config}), (4,), space, seed=seed)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.1 * noise(*parameter.shape)
    x = noise(rows, columns, 4)
    acted = net.act(x.reshape(-1, 4), generator)
    columns_of = {
        "actions": acted.actions.reshape(rows, columns, *acted.actions.shape[1:]),
        "old_logprobs": acted.logprobs.reshape(rows, columns) + 0.3 * noise(rows, columns),
        "values": acted.values.reshape(rows, columns) + 0.3 * noise(rows, columns),
        "advantages": noise(rows, columns),
        "returns": noise(rows, columns),
        "mask": torch.ones(rows, columns),
    }
    return net, Batch({"observations": x}, columns_of)


def settings(**changed: Any) -> PPOConfig:
    return PPOConfig(**{"batch_size": 16, "n_steps": 16, "n_epochs": 2, **changed})


def gradients(net: ActorCritic, losses: dict[str, Tensor]) -> list[Tensor]:
    found = torch.autograd.grad(sum(losses.values()), list(net.parameters()))  # type: ignore[arg-type]
    return list(found)


# ---------------------------------------------------------------------------------------------- the compact gradient


@pytest.mark.parametrize("space", [Discrete(3), Discrete(2), PLANE], ids=["three", "two", "plane"])
@pytest.mark.parametrize("shared_trunk", [False, True])
@pytest.mark.parametrize("clip_range_vf", [None, 0.2])
@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_the_compact_gradient_is_autograds(
    space: Space, shared_trunk: bool, clip_range_vf: float | None, ent_coef: float, normalize_advantage: bool
) -> None:
    """To 4e-6 of each tensor's largest entry: that of float32 sums."""
    net, steps = problem(space, 64, 1, shared_trunk=shared_trunk)
    chosen = settings(clip_range_vf=clip_range_vf, ent_coef=ent_coef, normalize_advantage=normalize_advantage)
    assert fits(net, steps)
    ours, said = compact_ppo(net, steps, chosen, 0.2)
    theirs, expected = objectives._ppo_terms(net, steps, chosen, 0.2)
    assert ours.keys() == theirs.keys() == {"policy", "value"} | ({"entropy"} if ent_coef else set())
    for name in ours:
        assert ours[name].item() == pytest.approx(theirs[name].item(), rel=1e-6, abs=1e-7)
    assert said == pytest.approx(expected, rel=1e-5, abs=1e-6) and 0 < said["clip_fraction"] < 1
    for a, b in zip(gradients(net, ours), gradients(net, theirs), strict=True):
        assert (a - b).abs().max() <= 4e-6 * b.abs().max() and b.abs().max() > 0


def test_the_compact_gradient_is_that_of_differences() -> None:
    """Central differences of the loss itself, along random directions."""
    net, steps = problem(PLANE, 64, 1)
    chosen = settings(ent_coef=0.05)

    def loss() -> float:
        return float(sum(v.item() for v in compact_ppo(net, steps, chosen, 0.2)[0].values()))

    found = gradients(net, compact_ppo(net, steps, chosen, 0.2)[0])
    for seed, (parameter, gradient) in enumerate(zip(net.parameters(), found, strict=True)):
        way = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
        ends = []
        for step in (1e-3, -2e-3):
            with torch.no_grad():
                parameter += step * way
            ends.append(loss())
        with torch.no_grad():
            parameter += 1e-3 * way
        assert (ends[0] - ends[1]) / 2e-3 == pytest.approx((gradient * way).sum().item(), rel=2e-2, abs=2e-3)


def test_losses_can_be_weighed_apart() -> None:
    """Each loss has its own gradient, as rules that combine gradients need."""
    net, steps = problem(Discrete(3), 64, 1)
    chosen = settings(ent_coef=0.05)
    ours, theirs = (f(net, steps, chosen, 0.2)[0] for f in (compact_ppo, objectives._ppo_terms))
    parameters = list(net.parameters())
    for name in ours:
        a, b = (torch.autograd.grad(x[name], parameters, retain_graph=True, allow_unused=True) for x in (ours, theirs))
        for p, q in zip(a, b, strict=True):
            assert torch.allclose(p, torch.zeros_like(p) if q is None else q, atol=1e-6)


def test_what_does_not_fit_goes_by_autograd() -> None:
    for net, steps in (problem(Discrete(2), 8, 1, activation="relu"), problem(MultiBinary(2), 8, 1)):
        assert not fits(net, steps)
        assert actor_critic(net, steps, settings(), Meter())()["policy"].requires_grad
    assert not fits(*problem(Discrete(2), 8, 2))
    net, steps = problem(Discrete(2), 8, 1)
    net.value.weight.requires_grad_(False)
    assert not fits(net, steps)


# ---------------------------------------------------------------------------------------------- the update


def sb3_losses(net: ActorCritic, steps: Batch, chosen: PPOConfig) -> dict[str, float]:
    """stable-baselines3's own `train`, for one minibatch, with our network in the place of its policy."""
    from gymnasium import spaces
    from stable_baselines3 import PPO

    model = PPO(
        "MlpPolicy", "CartPole-v1", n_steps=len(steps), batch_size=len(steps), n_epochs=1, ent_coef=chosen.ent_coef,
        vf_coef=chosen.vf_coef, clip_range=chosen.clip_range, clip_range_vf=chosen.clip_range_vf, device="cpu",
    )  # fmt: skip
    flat = {name: column[:, 0] for name, column in steps.columns.items()}
    data = SimpleNamespace(
        observations=steps.inputs["observations"][:, 0], actions=flat["actions"], old_values=flat["values"],
        old_log_prob=flat["old_logprobs"], advantages=flat["advantages"], returns=flat["returns"],
    )  # fmt: skip
    model.rollout_buffer = SimpleNamespace(get=lambda size: [data], values=np.ones(2), returns=np.ones(2))  # type: ignore[assignment]
    found = SimpleNamespace()

    def evaluate_actions(observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        logprobs, entropies, values = net.evaluate(observations, actions)
        return values, logprobs, entropies

    optimizer = torch.optim.SGD(net.parameters(), lr=0.0)
    model.policy = SimpleNamespace(  # type: ignore[assignment]
        evaluate_actions=evaluate_actions,
        optimizer=optimizer,
        parameters=net.parameters,
        set_training_mode=lambda on: on,
    )
    model.action_space = spaces.Discrete(3)
    model.max_grad_norm = 1e9
    model._logger = SimpleNamespace(record=lambda name, value, **_: setattr(found, name.split("/")[1], value))
    model.train()
    found.gradient = [p.grad.clone() for p in net.parameters()]
    return vars(found)


@pytest.mark.oracle
@pytest.mark.parametrize("changed", [{}, {"ent_coef": 0.05, "vf_coef": 0.3}, {"clip_range_vf": 0.2}])
def test_loss_and_gradient_are_stable_baselines3s(changed: dict[str, Any]) -> None:
    net, steps = problem(Discrete(3), 64, 1)
    chosen = settings(**changed)
    meter = Meter()
    ours = actor_critic(net, steps, chosen, meter)()
    found = gradients(net, ours)
    theirs = sb3_losses(net, steps, chosen)  # takes a step
    assert ours["policy"].item() == pytest.approx(theirs["policy_gradient_loss"], rel=1e-5)
    assert ours["value"].item() == pytest.approx(chosen.vf_coef * theirs["value_loss"], rel=1e-5)
    assert sum(ours.values()).item() == pytest.approx(theirs["loss"], rel=1e-5)  # type: ignore[union-attr]
    assert meter.means()["approx_kl"] == pytest.approx(float(theirs["approx_kl"]), rel=1e-3)
    assert -meter.means()["entropy"] == pytest.approx(theirs["entropy_loss"], rel=1e-5)
    for a, b in zip(found, theirs["gradient"], strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-6)


def learner_of(net: ActorCritic, chosen: PPOConfig, remaining: float = 1.0) -> Any:
    return ppo_learner(net, chosen, lambda: remaining)


def test_every_step_is_learned_from_once_per_epoch() -> None:
    net, batch = problem(Discrete(3), 4, 15)
    batch["mask"][0, :12] = 0.0  # 48 steps are left: three minibatches
    batch.columns["returns"][:] = torch.arange(60.0).reshape(4, 15)
    seen: list[list[float]] = []

    def watching(net: Any, steps: Batch, *rest: Any, **options: Any) -> Any:
        seen.append(steps["returns"][:, 0].tolist())
        return actor_critic(net, steps, *rest, **options)

    chosen, draws = settings(batch_size=16, n_epochs=2), torch.Generator().manual_seed(0)
    metrics = ppo_update(net, batch, learner_of(net, chosen), chosen, generator=draws, objective=watching)
    assert [len(part) for part in seen] == [16] * 6 and metrics["steps"] == 6
    epochs = [[r for part in parts for r in part] for parts in (seen[:3], seen[3:])]
    assert sorted(epochs[0]) == sorted(epochs[1]) == [float(i) for i in range(60) if i >= 12]
    assert epochs[0] != epochs[1]


def test_an_update_goes_uphill_and_reports() -> None:
    net, batch = problem(Discrete(3))
    chosen = settings(n_epochs=20, learning_rate=3e-3, ent_coef=0.01)
    x = batch.inputs["observations"]
    before = net.evaluate(x, batch["actions"])
    metrics = ppo_update(net, batch, learner_of(net, chosen), chosen, generator=torch.Generator().manual_seed(0))
    after = net.evaluate(x, batch["actions"])
    better = (after.logprobs - before.logprobs)[batch["advantages"] > 0.5].mean()
    worse = (after.logprobs - before.logprobs)[batch["advantages"] < -0.5].mean()
    assert better > 0 > worse
    assert ((after.values - batch["returns"]) ** 2).mean() < ((before.values - batch["returns"]) ** 2).mean()
    assert {
        "loss/policy",
        "loss/value",
        "loss/entropy",
        "grad_norm/net",
        "lr/net",
        "approx_kl",
        "clip_fraction",
    } <= set(metrics)
    assert metrics["lr/net"] == 3e-3 and metrics["skipped_updates"] == 0


def test_target_kl_stops_before_the_step_that_would_go_on() -> None:
    """The policy that is learned from differs at once: with old log-probs of 0.3 apart nothing is learned."""
    net, batch = problem(Discrete(3))
    weights = [p.clone() for p in net.parameters()]
    chosen = settings(target_kl=0.01)
    metrics = ppo_update(net, batch, learner_of(net, chosen), chosen, generator=torch.Generator().manual_seed(0))
    assert metrics["steps"] == 0 and metrics["approx_kl"] > 0.015
    assert all(torch.equal(a, b) for a, b in zip(weights, net.parameters(), strict=True))
    chosen = settings(target_kl=10.0)
    metrics = ppo_update(net, batch, learner_of(net, chosen), chosen, generator=torch.Generator().manual_seed(0))
    assert metrics["steps"] == 8


def test_what_falls_over_the_run() -> None:
    net, batch = problem(Discrete(3))
    rates, clips = [], []
    for remaining in (1.0, 0.5):
        chosen = settings(schedule=("learning_rate", "clip_range"), n_epochs=1, learning_rate=1e-8)
        metrics = ppo_update(
            net, batch, learner_of(net, chosen, remaining), chosen, generator=torch.Generator().manual_seed(0),
            remaining=remaining,
        )  # fmt: skip
        rates.append(metrics["lr/net"])
        clips.append(metrics["clip_fraction"])
    assert rates == [1e-8, 0.5e-8] and clips[1] > clips[0]


def test_a_rollout_smaller_than_a_minibatch_is_refused() -> None:
    net, batch = problem(Discrete(3))
    chosen = settings(batch_size=65)
    with pytest.raises(ConfigError, match="a rollout of 64 steps is smaller than one minibatch"):
        ppo_update(net, batch, learner_of(net, chosen), chosen, generator=torch.Generator())


def test_explained_variance_by_hand() -> None:
    """Returns 0, 2, 4 (variance 8/3), errors 0, 1, -1 (variance 2/3): a quarter is left."""
    columns = {
        "returns": torch.tensor([[0.0, 2.0, 4.0, 99.0]]),
        "values": torch.tensor([[0.0, 1.0, 5.0, 0.0]]),
        "mask": torch.tensor([[1.0, 1.0, 1.0, 0.0]]),
    }
    assert explained_variance(Batch({}, columns)) == pytest.approx(0.75)
    assert explained_variance(Batch({}, columns | {"returns": torch.ones(1, 4)})) == 0.0


@pytest.mark.parametrize("space", [Discrete(3), PLANE], ids=["three", "plane"])
def test_parameters_that_share_their_memory_have_one_gradient(space: Space) -> None:
    """The one gradient is all of theirs, in order; a copy, which shares nothing, has its own again."""
    net, steps = problem(space, 64, 1)
    names = list(net.trained)
    apart = torch.autograd.grad(sum(compact_ppo(net, steps, settings(), 0.2)[0].values()), list(net.trained.values()))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    learner_of(net, settings())
    assert sorted(names) == sorted(net.state_dict()) and len(net.leaves) == 1
    assert all(torch.equal(before[name], tensor) for name, tensor in net.state_dict().items())
    (whole,) = torch.autograd.grad(sum(compact_ppo(net, steps, settings(), 0.2)[0].values()), list(net.leaves))
    assert torch.equal(whole, torch.cat([gradient.reshape(-1) for gradient in apart]))
    other = copy.deepcopy(net)
    sum(compact_ppo(other, steps, settings(), 0.2)[0].values()).backward()
    assert all(parameter.grad is not None for parameter in other.parameters())


def test_both_ways_of_computing_make_the_same_step(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for by_hand in (True, False):
        net, batch = problem(Discrete(3))
        if not by_hand:
            monkeypatch.setattr(objectives, "fits", lambda net, steps: False)
        chosen = settings(n_epochs=3, ent_coef=0.01)
        ppo_update(net, batch, learner_of(net, chosen), chosen, generator=torch.Generator().manual_seed(0))
        ends.append([p.detach().clone() for p in net.parameters()])
    for a, b in zip(*ends, strict=True):
        assert torch.allclose(a, b, atol=1e-5)


# ---------------------------------------------------------------------------------------------- teams


def test_a_teams_losses_are_those_of_its_agents_alone() -> None:
    """One scalar per agent, equal to PPO's loss of that agent's network, and so are the gradients of its heads."""
    from troupe.models.config import TeamConfig
    from troupe.models.team import TeamActorCritic

    views, parts = {"meta": slice(0, 3), "a": slice(3, 7)}, {"meta": slice(0, 2), "a": slice(2, 3)}
    net = TeamActorCritic(TeamConfig(meta_hidden=(6,), specialist_hidden=(5,)), views, parts, seed=0)
    generator = torch.Generator().manual_seed(0)
    seen = torch.randn(24, 7, generator=generator)
    played = net.act(seen, generator)
    columns = {
        "actions": played.actions, "old_logprobs": played.logprobs + 0.1 * torch.randn(24, 2, generator=generator),
        "advantages": torch.randn(24, 2, generator=generator), "returns": torch.randn(24, 2, generator=generator),
        "values": played.values,
    }  # fmt: skip
    mask = torch.ones(24, 1)
    steps = Batch({"observations": seen[:, None]}, {n: c[:, None] for n, c in columns.items()} | {"mask": mask})
    chosen, meter = settings(ent_coef=0.01), Meter()
    losses = objectives.team_actor_critic(net, steps, chosen, meter)()
    assert list(losses) == ["meta", "a"]
    inputs = {"meta": torch.cat([seen[:, :3], net.embeddings(seen)], -1), "a": seen[:, 3:]}
    for place, agent in enumerate(net.agents):
        alone = Batch(
            {"observations": inputs[agent][:, None]},
            {
                name: column[:, None, parts[agent]] if name == "actions" else column[:, place : place + 1]
                for name, column in columns.items()
            }
            | {"mask": mask},
        )
        own = Meter()
        terms = actor_critic(net.module(agent), alone, chosen, own)()
        torch.testing.assert_close(losses[agent], sum(terms.values()))
        assert own.means()["approx_kl"] == pytest.approx(meter.means()[f"approx_kl/{agent}"], rel=1e-4)
        head = [net.module(agent).policy.linear.weight]
        torch.testing.assert_close(
            torch.autograd.grad(losses[agent], head, retain_graph=True),
            torch.autograd.grad(sum(terms.values()), head, retain_graph=True),
        )
