"""Actor and critic: where they begin, what they draw, and gradients that are written out against autograd's."""

from __future__ import annotations

import copy
import itertools
import math

import numpy as np
import pytest
import torch
from torch import Tensor

from troupe.errors import ConfigError
from troupe.models.actions import Box, Discrete, MultiBinary, MultiDiscrete, Space, space_of
from troupe.models.actor_critic import ActorCritic, tanh_forward, tanh_thought
from troupe.models.config import ActorCriticConfig

SPACES = (Discrete(3), Box((-2.0, 0.0), (2.0, 1.0)), MultiDiscrete((3, 2)), MultiBinary(2))


def net_of(space: Space = SPACES[0], *, seed: int = 0, moved: float = 0.0, **config: object) -> ActorCritic:
    """A network over four numbers; `moved` takes its weights away from where they begin."""
    net = ActorCritic(ActorCriticConfig(**config), (4,), space, seed=seed)
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += moved * torch.randn(parameter.shape, generator=generator)
    return net


def layer_by_layer(net: ActorCritic, x: Tensor) -> tuple[Tensor, Tensor]:
    features = net.towers(x)
    return net.policy(features[0]), net.value(features[-1]).squeeze(-1)


def observations(n: int, seed: int = 0) -> Tensor:
    return torch.randn(n, 4, generator=torch.Generator().manual_seed(seed))


# ---------------------------------------------------------------------------------------------- weights


def test_layers_begin_orthogonal_with_the_published_gains() -> None:
    net = net_of(Discrete(3), hidden=(32, 16))
    for layer, width in zip(net.towers.weights, (4, 16), strict=True):
        for weight in layer:  # columns or rows, whichever are fewer, are orthogonal and of length sqrt(2)
            small = weight.T @ weight if weight.shape[1] < weight.shape[0] else weight @ weight.T
            assert torch.allclose(small, 2 * torch.eye(width), atol=1e-5)
    head = net.policy.linear.weight
    assert torch.allclose(head @ head.T, 1e-4 * torch.eye(3), atol=1e-8)
    assert net.value.weight.norm().item() == pytest.approx(1.0)
    assert all(not tensor.any() for name, tensor in net.named_parameters() if "bias" in name)
    assert not torch.equal(net.towers.weights[0][0], net.towers.weights[0][1])


def test_the_seed_decides_the_weights_and_nothing_else_does() -> None:
    torch.manual_seed(1)
    before = torch.get_rng_state()
    a = net_of(seed=3).state_dict()
    torch.manual_seed(2)
    b, c = net_of(seed=3).state_dict(), net_of(seed=4).state_dict()
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert not torch.equal(a["towers.weights.0"], c["towers.weights.0"])
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("hidden", [(16,), (32, 16), (8, 8, 8)])
def test_the_written_out_network_is_the_network(shared: bool, hidden: tuple[int, ...]) -> None:
    """Outputs and all gradients, that of the inputs included, to 1e-6 of the largest."""
    net = net_of(moved=0.2, shared_trunk=shared, hidden=hidden)
    found = []
    for forward in (net, lambda x: layer_by_layer(net, x)):
        net.zero_grad()
        x = observations(50).requires_grad_()
        numbers, values = forward(x)
        (numbers.sin().sum() + (values**2).sum() + (numbers[:, 0] * values).sum()).backward()
        found.append([numbers, values, x.grad, *(p.grad for p in net.parameters())])
    for ours, theirs in zip(*found, strict=True):
        assert theirs is not None and ours is not None
        assert (ours - theirs).abs().max() <= 1e-6 * theirs.abs().max()
    assert sum(1 for p in net.parameters()) == len(found[0]) - 3


@pytest.mark.parametrize("activation", ["relu", "elu", "silu"])
def test_other_activations(activation: str) -> None:
    net = net_of(activation=activation, hidden=(8,))
    x = observations(5)
    z = torch.baddbmm(net.towers.biases[0], x.expand(2, 5, 4), net.towers.weights[0].mT)
    by_hand = {"relu": z.clamp(min=0), "elu": torch.where(z > 0, z, z.exp() - 1), "silu": z * z.sigmoid()}[activation]
    assert torch.allclose(net.towers(x), by_hand, atol=1e-6)
    assert torch.allclose(net(x)[1], by_hand[1] @ net.value.weight[0], atol=1e-6)


def test_a_copy_stands_alone() -> None:
    net = net_of()
    other = copy.deepcopy(net)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter += 1.0
    x = observations(3)
    assert torch.allclose(other(x)[1], layer_by_layer(other, x)[1], atol=1e-6)
    assert not torch.allclose(other(x)[1], net(x)[1])
    other.load_state_dict(net.state_dict())
    assert torch.equal(other(x)[1], net(x)[1])


# ---------------------------------------------------------------------------------------------- actions


def reference(net: ActorCritic, numbers: Tensor) -> list[torch.distributions.Distribution]:
    """torch's own distributions, whose log-probs and entropies add up."""
    match net.space:
        case Discrete():
            return [torch.distributions.Categorical(logits=numbers)]
        case MultiDiscrete(sizes=sizes):
            return [torch.distributions.Categorical(logits=part) for part in numbers.split(sizes, -1)]
        case MultiBinary():
            return [torch.distributions.Independent(torch.distributions.Bernoulli(logits=numbers), 1)]
        case Box():
            normal = torch.distributions.Normal(numbers, net.policy.log_std.exp().expand_as(numbers))
            return [torch.distributions.Independent(normal, 1)]


@pytest.mark.oracle
@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_log_probs_and_entropies_are_those_of_torch(space: Space) -> None:
    net = net_of(space, moved=0.5)
    x, generator = observations(64), torch.Generator().manual_seed(0)
    acted = net.act(x, generator)
    found = net.evaluate(x, acted.actions)
    distributions = reference(net, net(x)[0])
    parts = acted.actions.unbind(-1) if isinstance(space, MultiDiscrete) else [acted.actions]
    logprobs = sum(d.log_prob(part.to(torch.float32)) for d, part in zip(distributions, parts, strict=True))
    assert torch.allclose(found.logprobs, logprobs, atol=1e-5)
    assert torch.allclose(found.entropies, sum(d.entropy() for d in distributions), atol=1e-5)
    assert torch.allclose(acted.logprobs, found.logprobs, atol=1e-5)
    assert torch.allclose(acted.values, found.values, atol=1e-6) and not acted.logprobs.requires_grad
    assert acted.actions.dtype == (torch.float32 if isinstance(space, Box) else torch.int64)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_actions_are_drawn_as_often_as_they_should(space: Space) -> None:
    net = net_of(space, moved=0.5)
    x = observations(1).expand(40_000, 4)
    actions = net.act(x, torch.Generator().manual_seed(0)).actions.float()
    numbers = net(x[:1])[0][0]
    match space:
        case Discrete():
            shares = torch.bincount(actions.long(), minlength=3) / len(actions)
            assert torch.allclose(shares, numbers.softmax(-1), atol=0.015)
        case MultiDiscrete():
            assert actions[:, 1].mean().item() == pytest.approx(numbers[3:].softmax(-1)[1].item(), abs=0.015)
        case MultiBinary():
            assert torch.allclose(actions.mean(0), numbers.sigmoid(), atol=0.015)
        case Box():
            assert torch.allclose(actions.mean(0), numbers, atol=0.05)
            assert torch.allclose(actions.std(0), net.policy.log_std.exp(), rtol=0.02)


@pytest.mark.parametrize("space", SPACES, ids=lambda space: type(space).__name__)
def test_without_a_generator_the_likeliest_action_is_taken(space: Space) -> None:
    net, x = net_of(space, moved=0.5), observations(20)
    likeliest = net.act(x, None)
    again = net.act(x, None)
    assert torch.equal(likeliest.actions, again.actions)
    generator = torch.Generator().manual_seed(0)
    for _ in range(50):
        drawn = net.act(x, generator)
        assert (drawn.logprobs <= likeliest.logprobs + 1e-6).all()


def test_equal_generators_draw_equal_actions() -> None:
    net, x = net_of(moved=0.5), observations(100)
    a, b = (net.act(x, torch.Generator().manual_seed(7)).actions for _ in range(2))
    assert torch.equal(a, b) and not torch.equal(a, net.act(x, torch.Generator().manual_seed(8)).actions)


def test_rows_may_have_any_leading_shape() -> None:
    for space, tail in zip(SPACES, ((), (2,), (2,), (2,)), strict=True):
        net, x = net_of(space), observations(6)
        actions = net.act(x, None).actions
        flat = net.evaluate(x, actions)
        nested = net.evaluate(x.reshape(3, 2, 4), actions.reshape(3, 2, *tail))
        for a, b in zip(flat, nested, strict=True):
            assert b.shape == (3, 2) and torch.allclose(a, b.reshape(6), atol=1e-6)


def test_log_std_begins_where_the_config_says() -> None:
    net = net_of(Box((-1.0,), (1.0,)), log_std=-0.5)
    entropy = net.evaluate(observations(1), torch.zeros(1, 1)).entropies.item()
    assert entropy == pytest.approx(-0.5 + 0.5 * math.log(2 * math.pi * math.e), abs=1e-6)


# ---------------------------------------------------------------------------------------------- spaces


def test_spaces_of_gymnasium() -> None:
    from gymnasium import spaces

    assert space_of(spaces.Discrete(3, start=2)) == Discrete(3, 2)
    assert space_of(spaces.MultiDiscrete([3, 2])) == MultiDiscrete((3, 2))
    assert space_of(spaces.MultiBinary(5)) == MultiBinary(5)
    assert space_of(spaces.Box(-1.0, 2.0, (2, 2))) == Box((-1.0,) * 4, (2.0,) * 4, (2, 2))
    assert space_of(Discrete(2)) == Discrete(2)
    for refused in (spaces.Dict(a=spaces.Discrete(2)), spaces.MultiBinary([2, 2]), spaces.Text(3)):
        with pytest.raises(ConfigError, match="no policy for the action space"):
            space_of(refused)


def test_nonsense_is_refused() -> None:
    for low, high in itertools.product([(0.0,), (1.0, 0.0)], [(0.0,)]):
        with pytest.raises(ConfigError, match="upper bounds"):
            Box(low, high)
    with pytest.raises(ConfigError, match="cannot read observations"):
        ActorCritic(ActorCriticConfig(), (3, 0), Discrete(2), seed=0)


@pytest.mark.parametrize("used", [(True, True, True), (False, False, True), (True, False, False), (False, True, True)])
def test_a_trunk_that_others_read_has_autograds_gradients(used: tuple[bool, bool, bool]) -> None:
    """Through any of its outputs: numbers, values, features."""
    net = ActorCritic(ActorCriticConfig(hidden=(6, 5), shared_trunk=True), (7,), Box((-1.0,) * 3, (1.0,) * 3), seed=0)
    x = torch.randn(9, 7, generator=torch.Generator().manual_seed(0), requires_grad=True)
    parameters = [x, *(p for name, p in net.named_parameters() if name != "policy.log_std")]
    features = net.towers(x)
    plain = net.policy(features[0]), net.value(features[-1]).squeeze(-1), features[0]
    for ours, theirs in zip(net.read(x), plain, strict=True):
        torch.testing.assert_close(ours, theirs)
    found = []
    for outputs in (net.read(x), plain):
        loss = sum((out.sin() * (k + 1)).sum() for k, out in enumerate(outputs) if used[k])
        found.append(torch.autograd.grad(loss, parameters, allow_unused=True))
    for ours, theirs in zip(*found, strict=True):
        if theirs is None:
            assert ours is None
        else:
            torch.testing.assert_close(ours, theirs)


# ---------------------------------------------------------------------------------------------- few observations


@pytest.mark.parametrize("shared_trunk", [True, False])
def test_few_observations_are_answered_as_many_are(shared_trunk: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = ActorCriticConfig(hidden=(7, 5), shared_trunk=shared_trunk)
    net = ActorCritic(config, (6,), Box((-1.0,) * 2, (1.0,) * 2), seed=0)
    net.policy.linear.weight.data.normal_(generator=torch.Generator().manual_seed(0))
    seen = torch.randn(9, 6, generator=torch.Generator().manual_seed(1))
    assert net.few(seen)
    with torch.no_grad():
        numbers, values, passed = tanh_forward(seen, net.weights)
    thought = tanh_thought(seen.numpy(), net.weights)
    for ours, theirs in zip(thought, (numbers, values, passed[-1][0]), strict=True):
        torch.testing.assert_close(torch.from_numpy(ours), theirs)
    few = net.act(seen, torch.Generator().manual_seed(2))
    monkeypatch.setattr("troupe.models.actor_critic.FEW", 9 * 42 - 1)
    assert not net.few(seen) and net.few(seen[:8])
    for ours, theirs in zip(few, net.act(seen, torch.Generator().manual_seed(2)), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_few_observations_are_answered_alike_wherever_they_lie_in_memory() -> None:
    """To the bit: a run that goes on from a checkpoint has its arrays elsewhere."""
    net = ActorCritic(ActorCriticConfig(), (37,), Box((-1.0,) * 3, (1.0,) * 3), seed=0)
    for n in (1, 8):
        seen, found = np.random.default_rng(0).normal(size=(n, 41)).astype(np.float32), set()
        for shift in range(16):
            room = np.empty(n * 41 + 16, dtype=np.float32)
            moved = room[shift : shift + n * 41].reshape(n, 41)
            moved[:] = seen
            found.add(b"".join(each.tobytes() for each in tanh_thought(moved[:, 3:40], net.weights)))
        assert len(found) == 1
