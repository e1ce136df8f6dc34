"""A team's losses and gradients that are written out, against autograd's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from troupe.batch import Batch
from troupe.errors import TrainingError
from troupe.models.config import TeamConfig
from troupe.models.team import TeamActorCritic
from troupe.training import objectives
from troupe.training.compact_team import compact_team, fits_team
from troupe.training.config import PPOConfig
from troupe.training.learner import flattened

VIEWS = {"meta": slice(0, 5), "a": slice(5, 9), "b": slice(9, 15)}
PARTS = {"meta": slice(0, 3), "a": slice(3, 5), "b": slice(5, 6)}
CONFIG = TeamConfig(meta_hidden=(7, 6), specialist_hidden=(6, 4))


def problem(config: TeamConfig = CONFIG, n: int = 64) -> tuple[TeamActorCritic, Batch]:
    """A team that says something, and steps of a policy a little beside its own."""
    net, draws = TeamActorCritic(config, VIEWS, PARTS, seed=0), torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 0.3 * torch.randn(parameter.shape, generator=draws)

    def noise(scale: float) -> Tensor:
        return scale * torch.randn(n, 3, generator=draws)

    seen = torch.randn(n, 15, generator=draws)
    played = net.act(seen, draws)
    columns = {
        "actions": played.actions, "old_logprobs": played.logprobs + noise(0.2), "advantages": noise(1.0) + 0.5,
        "returns": noise(1.0), "values": played.values + noise(0.3), "mask": torch.ones(n),
    }  # fmt: skip
    return net, Batch({"observations": seen[:, None]}, {name: column[:, None] for name, column in columns.items()})


def settings(**changed: object) -> PPOConfig:
    return PPOConfig(**{"batch_size": 64, "n_steps": 64, **changed})


def gradients(net: TeamActorCritic, loss: Tensor) -> list[Tensor | None]:
    return list(torch.autograd.grad(loss, list(net.parameters()), retain_graph=True, allow_unused=True))


@pytest.mark.parametrize("meta_shared_trunk", [True, False])
@pytest.mark.parametrize("clip_range_vf", [None, 0.2])
@pytest.mark.parametrize("ent_coef", [0.0, 0.05])
@pytest.mark.parametrize("normalize_advantage", [True, False])
def test_every_agents_gradient_is_autograds(
    meta_shared_trunk: bool, clip_range_vf: float | None, ent_coef: float, normalize_advantage: bool
) -> None:
    """To 5e-6 of each tensor's largest entry, and on nothing that an agent's loss does not reach."""
    net, steps = problem(CONFIG.model_copy(update={"meta_shared_trunk": meta_shared_trunk}))
    chosen = settings(clip_range_vf=clip_range_vf, ent_coef=ent_coef, normalize_advantage=normalize_advantage)
    assert fits_team(net, steps)
    ours, said = compact_team(net, steps, chosen, 0.2)
    theirs, expected = objectives._team_terms(net, steps, chosen, 0.2)
    assert list(ours) == list(theirs) == ["meta", "a", "b"]
    assert said == pytest.approx(expected, rel=1e-5, abs=1e-6) and 0 < said["clip_fraction/a"] < 1
    for agent in ours:
        assert ours[agent].item() == pytest.approx(theirs[agent].item(), rel=1e-5)
        reached = 0
        for a, b in zip(gradients(net, ours[agent]), gradients(net, theirs[agent]), strict=True):
            if a is None:
                assert b is None or not b.any()
            else:
                assert b is not None and (a - b).abs().max() <= 5e-6 * b.abs().max() and b.abs().max() > 0
                reached += 1
        assert reached == (17 if agent == "meta" else 9)  # 9 of its own, and two encoders of 4


def test_weighed_losses_have_the_sum_of_weighed_gradients() -> None:
    net, steps = problem()
    losses, _ = compact_team(net, steps, settings(), 0.2)
    apart = {agent: gradients(net, loss) for agent, loss in losses.items()}
    found = gradients(net, 2.0 * losses["meta"] - 0.5 * losses["a"])
    for whole, meta, own in zip(found, apart["meta"], apart["a"], strict=True):
        expected = [factor * each for factor, each in ((2.0, meta), (-0.5, own)) if each is not None]
        assert (whole is None) == (not expected)
        if whole is not None:
            torch.testing.assert_close(whole, sum(expected))


def test_parameters_that_share_their_memory_have_two_gradients() -> None:
    """Those of the encoder in one piece, those of the heads in another, in the order of the parameters."""
    net, steps = problem()
    named = {agent: list(net.module(agent).parameters()) for agent in net.agents}
    losses, _ = compact_team(net, steps, settings(), 0.2)
    apart = {name: torch.autograd.grad(losses[name], named[name], retain_graph=True) for name in net.agents}
    led = torch.autograd.grad(losses["meta"], named["b"][:4])
    pieces = {agent: net.share(agent, flattened(own)) for agent, own in named.items()}
    losses, _ = compact_team(net, steps, settings(), 0.2)
    for agent in net.agents:
        found = torch.autograd.grad(losses[agent], pieces[agent], retain_graph=True)
        whole = torch.cat([each.reshape(-1) for each in apart[agent]])
        torch.testing.assert_close(torch.cat(found), whole, rtol=1e-5, atol=1e-6)
        assert found[0].numel() == sum(parameter.numel() for parameter in named[agent][:4])
    encoder, heads = torch.autograd.grad(losses["meta"], pieces["b"], allow_unused=True)
    assert heads is None
    torch.testing.assert_close(encoder, torch.cat([each.reshape(-1) for each in led]), rtol=1e-5, atol=1e-6)


def test_parameters_that_left_their_memory_are_noticed() -> None:
    net, steps = problem()
    for agent in net.agents:
        net.share(agent, flattened(net.module(agent).parameters()))
    flattened(net.module("a").parameters())
    with pytest.raises(TrainingError, match="moved or flattened again"):
        compact_team(net, steps, settings(), 0.2)


def test_what_does_not_fit_is_left_to_autograd() -> None:
    net, steps = problem()
    with torch.autocast("cpu", torch.bfloat16):
        assert not fits_team(net, steps)
    net.module("b").value.weight.requires_grad_(False)
    assert not fits_team(net, steps)
    relu, steps = problem(CONFIG.model_copy(update={"activation": "relu"}))
    assert not fits_team(relu, steps)
    losses = objectives.team_actor_critic(relu, steps, settings(), objectives.Meter())()
    assert all(loss.requires_grad for loss in losses.values())
    net, steps = problem()
    net.compiled = True
    assert not fits_team(net, steps)
