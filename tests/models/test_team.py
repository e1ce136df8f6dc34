"""Actors that read one another, against the networks that they are made of."""

from __future__ import annotations

import pytest
import torch

from troupe.errors import ConfigError
from troupe.models.config import TeamConfig
from troupe.models.team import TeamActorCritic

VIEWS = {"meta": slice(0, 5), "a": slice(5, 9), "b": slice(9, 15)}
PARTS = {"meta": slice(0, 3), "a": slice(3, 5), "b": slice(5, 6)}
CONFIG = TeamConfig(meta_hidden=(7,), specialist_hidden=(6, 4))


def team(seed: int = 0, config: TeamConfig = CONFIG) -> TeamActorCritic:
    net = TeamActorCritic(config, VIEWS, PARTS, seed=seed)
    for net_of in (net.module(agent) for agent in net.agents):  # heads that say something
        net_of.policy.linear.weight.data.normal_(generator=torch.Generator().manual_seed(seed))
    return net


def observations(n: int = 6) -> torch.Tensor:
    return torch.randn(n, 15, generator=torch.Generator().manual_seed(1))


def test_each_agent_is_its_own_network_over_its_view() -> None:
    net, seen = team(), observations()
    played = net.act(seen, None)
    for agent in ("a", "b"):
        alone = net.module(agent).act(seen[:, VIEWS[agent]], None)
        torch.testing.assert_close(played.actions[:, PARTS[agent]], alone.actions)
        torch.testing.assert_close(played.logprobs[:, net.agents.index(agent)], alone.logprobs)
        torch.testing.assert_close(played.values[:, net.agents.index(agent)], alone.values)
    embeddings = torch.cat([net.module(n).towers(seen[:, VIEWS[n]])[0] for n in ("a", "b")], -1)
    torch.testing.assert_close(net.embeddings(seen), embeddings)
    led = net.module("meta").act(torch.cat([seen[:, :5], embeddings], -1), None)
    torch.testing.assert_close(played.actions[:, :3], led.actions)
    torch.testing.assert_close(played.values[:, 0], led.values)


def test_the_likeliest_actions_alone_are_those_of_act() -> None:
    net, seen = team(), observations()
    torch.testing.assert_close(net.likeliest(seen), net.act(seen, None).actions)


@pytest.mark.parametrize("meta_shared_trunk", [True, False])
def test_few_observations_and_many_are_answered_alike(meta_shared_trunk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """In NumPy, in torch outside the graph, and in the graph."""
    net, seen = team(config=CONFIG.model_copy(update={"meta_shared_trunk": meta_shared_trunk})), observations()
    net.module("a").policy.log_std.data[:] = torch.tensor([-0.3, 0.4])

    def answers() -> list[torch.Tensor]:
        drawn = net.act(seen, torch.Generator().manual_seed(0))
        return [*drawn, *net.act(seen, None), *net.specialists_likeliest(seen), net.likeliest(seen)]

    assert net.few(seen) and not net.few(seen.double())
    found = [answers()]
    monkeypatch.setattr("troupe.models.actor_critic.FEW", 0)
    found.append(answers())
    monkeypatch.setattr(TeamActorCritic, "compact", lambda self, observations: False)
    found.append(answers())
    for few, many, graph in zip(*found, strict=True):
        assert few.is_contiguous() and not few.requires_grad
        torch.testing.assert_close(few, graph, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(many, graph, rtol=1e-5, atol=1e-6)


def test_what_was_acted_is_evaluated_alike() -> None:
    net, seen = team(), observations(8)
    played = net.act(seen, torch.Generator().manual_seed(0))
    found = net.evaluate(seen, played.actions)
    torch.testing.assert_close(torch.stack([each.logprobs for each in found], -1), played.logprobs)
    torch.testing.assert_close(torch.stack([each.values for each in found], -1), played.values)
    assert all(each.entropies.shape == (8,) for each in found)
    assert played.actions.shape == (8, 6) and not torch.equal(played.actions, net.act(seen, None).actions)


def test_the_leads_gradient_reaches_encoders_and_no_head_of_a_specialist() -> None:
    net, seen = team(), observations()
    numbers, values = net(seen)
    loss = numbers[0].square().sum() + values[0].sum()
    for name in ("a", "b"):
        module = net.module(name)
        encoder = torch.autograd.grad(loss, list(module.towers.parameters()), retain_graph=True)
        assert all(bool(gradient.any()) for gradient in encoder)
        heads = [module.policy.linear.weight, module.value.weight]
        found = torch.autograd.grad(loss, heads, retain_graph=True, allow_unused=True)
        assert all(gradient is None or not bool(gradient.any()) for gradient in found)


def test_a_specialists_gradient_stays_within_it() -> None:
    net, seen = team(), observations()
    numbers, values = net(seen)
    loss = numbers[1].square().sum() + values[1].sum()  # a's
    others = [*net.module("b").parameters(), *net.module("meta").parameters()]
    assert not any(torch.autograd.grad(loss, others, allow_unused=True))  # it does not even run through them


def test_specialists_do_not_listen_before_they_learn_to() -> None:
    net, seen = team(), observations()
    told = seen.clone()
    told[:, 7:9] += 3.0  # the last two columns of a's view
    assert torch.equal(net.act(seen, None).actions, net.act(told, None).actions)
    told[:, 6] += 3.0
    assert not torch.equal(net.act(seen, None).actions, net.act(told, None).actions)


def test_the_leads_policy_and_value_may_have_layers_of_their_own() -> None:
    for shared, towers in ((True, 1), (False, 2)):
        net = team(config=CONFIG.model_copy(update={"meta_shared_trunk": shared}))
        assert net.module("meta").towers.count == towers and net.module("a").towers.count == 1
        torch.testing.assert_close(net.likeliest(observations()), net.act(observations(), None).actions)


def test_the_seed_alone_decides_the_weights() -> None:
    a, b, c = (TeamActorCritic(CONFIG, VIEWS, PARTS, seed=seed) for seed in (0, 0, 1))
    states = [net.state_dict() for net in (a, b, c)]
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    assert any(not torch.equal(states[0][name], states[2][name]) for name in states[0])
    first, second = (a.module(name).towers.weights[1] for name in ("a", "b"))
    assert not torch.equal(first, second)


def test_views_and_parts_must_name_the_same_agents() -> None:
    with pytest.raises(ConfigError, match="a lead and its specialists"):
        TeamActorCritic(CONFIG, VIEWS, {"meta": slice(0, 3), "b": slice(3, 6), "a": slice(6, 7)}, seed=0)
    with pytest.raises(ConfigError, match="a lead and its specialists"):
        TeamActorCritic(CONFIG, {"meta": slice(0, 5)}, {"meta": slice(0, 3)}, seed=0)
