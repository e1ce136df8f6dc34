from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from troupe.errors import ConfigError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import Convolution, PolicyValueNet, folded, load_weights, policy_value_net

CONNECT_FOUR = (2, 6, 7)
SMALL = PolicyValueConfig(blocks=1, channels=8)
MLP = PolicyValueConfig(kind="mlp", hidden=(16, 12))


def boards(n: int, shape: tuple[int, ...] = CONNECT_FOUR, seed: int = 0) -> torch.Tensor:
    return torch.rand((n, *shape), generator=torch.Generator().manual_seed(seed)).round()


def used(net: PolicyValueNet) -> PolicyValueNet:
    """As after some training: batch statistics and scales that are not 0 and 1, heads that have opinions."""
    generator = torch.Generator().manual_seed(1)
    for module in net.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.bias.data, module.running_mean, module.running_var):
                assert tensor is not None
                tensor.copy_(torch.rand(tensor.shape, generator=generator) + 0.2)
    for head in (net.policy, net.value):
        last = [part for part in head if isinstance(part, nn.Linear)][-1]
        last.weight.data *= 10
        last.bias.data.fill_(0.3)
    return net


# --- sizes ------------------------------------------------------------------------------------------------------


def test_parameters_of_the_default_by_hand() -> None:
    # tower: 2*64*9 + 4 * 64*64*9 = 148,608, its norms 5 * 2*64 = 640
    # policy: 64*8 + 8 + 8*42*7 + 7 = 2,879; value: 64*4 + 4 + 4*42*64 + 64 + 64 + 1 = 11,141
    net = policy_value_net(PolicyValueConfig(), CONNECT_FOUR, 7, seed=0)
    assert sum(parameter.numel() for parameter in net.parameters()) == 148_608 + 640 + 2_879 + 11_141 == 163_268


def test_operations_of_the_default_are_those_that_torch_counts() -> None:
    # 2 * (42 * (148,608 + 64*12) + 8*42*7 + 4*42*64 + 64) = 12,573,920
    net = policy_value_net(PolicyValueConfig(), CONNECT_FOUR, 7, seed=0).eval()
    with FlopCounterMode(display=False) as counter:
        net(boards(1))
    assert counter.get_total_flops() == 12_573_920


def test_mlp_by_hand() -> None:
    net = policy_value_net(PolicyValueConfig(kind="mlp", hidden=(2,)), (1, 2), 2, seed=0)
    hidden, policy, value = net.trunk[1], net.policy[0], net.value[0]
    for layer, weight, bias in (
        (hidden, [[1.0, -1.0], [2.0, 0.0]], [0.0, 1.0]),
        (policy, [[1.0, 0.0], [0.0, -1.0]], [0.5, 0.0]),
        (value, [[0.1, 0.2]], [0.0]),
    ):
        assert isinstance(layer, nn.Linear)
        layer.weight.data, layer.bias.data = torch.tensor(weight), torch.tensor(bias)
    # (3, 5): hidden = relu(-2, 7) = (0, 7); logits = (0.5, -7); value = tanh(1.4) = 0.885352
    logits, values = net(torch.tensor([[[3.0, 5.0]]]))
    assert logits.tolist() == [[0.5, -7.0]]
    assert values.tolist() == pytest.approx([0.885352], abs=1e-6)


@pytest.mark.parametrize("config", [SMALL, MLP])
def test_shapes(config: PolicyValueConfig) -> None:
    logits, values = policy_value_net(config, (3, 4, 5), 6, seed=0)(boards(7, (3, 4, 5)))
    assert (logits.shape, values.shape) == ((7, 6), (7,))


@pytest.mark.parametrize("kind", ["conv", "mlp"])
def test_values_are_bounded_unless_asked_otherwise(kind: str) -> None:
    for value_range, inside in (("bounded", True), ("unbounded", False)):
        config = PolicyValueConfig.model_validate({"kind": kind, "value_range": value_range, "channels": 8})
        net = policy_value_net(config, CONNECT_FOUR, 7, seed=0).eval()
        last = [part for part in net.value if isinstance(part, nn.Linear)][-1]
        last.bias.data.fill_(3.0)
        values = net(boards(4))[1]
        assert bool((values.abs() < 1).all()) is inside, value_range


# --- the untrained network --------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PolicyValueConfig(), PolicyValueConfig(kind="mlp")])
def test_untrained_is_near_uniform_and_near_zero_but_not_constant(config: PolicyValueConfig) -> None:
    net = policy_value_net(config, CONNECT_FOUR, 7, seed=0)
    for mode in (True, False):
        logits, values = net.train(mode)(boards(64))
        assert (logits.softmax(-1) - 1 / 7).abs().max() < 0.05
        assert values.abs().max() < 0.3
        assert logits.std(0).min() > 1e-4 and values.std() > 1e-4


def test_he_initialisation() -> None:
    net = policy_value_net(PolicyValueConfig(), CONNECT_FOUR, 7, seed=0)
    block = net.trunk[2].first
    assert isinstance(block, Convolution)
    assert block.conv.weight.std().item() == pytest.approx((2 / (64 * 9)) ** 0.5, rel=0.02)


def test_the_seed_decides_and_torch_keeps_its_own_generator() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, same, other = (policy_value_net(SMALL, CONNECT_FOUR, 7, seed=seed).state_dict() for seed in (3, 3, 4))
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["trunk.0.conv.weight"], other["trunk.0.conv.weight"])


@pytest.mark.parametrize("config", [SMALL, MLP])
def test_it_learns_what_it_is_shown(config: PolicyValueConfig) -> None:
    net = policy_value_net(config, CONNECT_FOUR, 7, seed=0)
    observations, actions = boards(8), torch.arange(8) % 7
    returns = torch.tensor([0.9, -0.9] * 4)
    optimiser = torch.optim.Adam(net.parameters(), lr=0.01)
    for _ in range(150):
        logits, values = net(observations)
        loss = nn.functional.cross_entropy(logits, actions) + nn.functional.mse_loss(values, returns)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    logits, values = net(observations)
    assert torch.equal(logits.argmax(-1), actions)
    assert (values - returns).abs().max() < 0.2


# --- folding ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("config", [PolicyValueConfig(), MLP])
def test_folded_is_eval_mode(config: PolicyValueConfig) -> None:
    net = used(policy_value_net(config, CONNECT_FOUR, 7, seed=0))
    fast = folded(net)
    assert net.training and not fast.training
    assert not any(isinstance(module, nn.BatchNorm2d) for module in fast.modules())
    assert not any(parameter.requires_grad for parameter in fast.parameters())
    for found, expected in zip(fast(boards(32)), net.eval()(boards(32)), strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-5)


def test_folded_by_hand() -> None:
    net = policy_value_net(PolicyValueConfig(blocks=1, channels=1), (1, 1, 1), 2, seed=0)
    first = net.trunk[0]
    assert isinstance(first, Convolution) and isinstance(first.norm, nn.BatchNorm2d)
    first.conv.weight.data.fill_(2.0)
    first.norm.weight.data.fill_(3.0)
    first.norm.bias.data.fill_(1.0)
    assert first.norm.running_mean is not None and first.norm.running_var is not None
    first.norm.running_mean.fill_(5.0)
    first.norm.running_var.fill_(4.0 - first.norm.eps)
    # weight 2 * 3 / sqrt 4 = 3, bias 1 - 5 * 3 / 2 = -6.5
    conv = folded(net).trunk[0].conv
    assert conv.weight.flatten().tolist() == pytest.approx([3.0] * 9)
    assert conv.bias.tolist() == pytest.approx([-6.5])


def test_folded_is_a_copy_and_can_be_folded_again() -> None:
    net = used(policy_value_net(SMALL, CONNECT_FOUR, 7, seed=0))
    fast = folded(net)
    before = fast(boards(4))[0]
    for parameter in net.parameters():
        parameter.data.zero_()
    assert torch.equal(fast(boards(4))[0], before)
    assert torch.equal(folded(fast)(boards(4))[0], before)


# --- errors -----------------------------------------------------------------------------------------------------


def test_observations_that_a_kind_cannot_take() -> None:
    with pytest.raises(ConfigError, match=r"\[channels, height, width\], not \[10\]; write kind: mlp"):
        policy_value_net(SMALL, (10,), 3, seed=0)
    with pytest.raises(ConfigError, match=r"shape \[2, 0, 7\]"):
        policy_value_net(SMALL, (2, 0, 7), 3, seed=0)
    with pytest.raises(ConfigError, match=r"shape \[\]"):
        policy_value_net(MLP, (), 3, seed=0)
    with pytest.raises(ConfigError, match="actions >= 1, not 0"):
        policy_value_net(MLP, (4,), 0, seed=0)
    assert policy_value_net(MLP, (4,), 3, seed=0)(torch.zeros(2, 4))[0].shape == (2, 3)


def test_load_weights() -> None:
    net, other = (used(policy_value_net(SMALL, CONNECT_FOUR, 7, seed=seed)) for seed in (0, 1))
    load_weights(net, other.state_dict())
    assert torch.equal(net.eval()(boards(4))[0], other.eval()(boards(4))[0])


def test_weights_that_do_not_fit_are_named_and_nothing_is_loaded() -> None:
    net = policy_value_net(SMALL, CONNECT_FOUR, 7, seed=0)
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    wide = policy_value_net(PolicyValueConfig(blocks=1, channels=16), CONNECT_FOUR, 7, seed=0).state_dict()
    with pytest.raises(ConfigError, match=r"'trunk.0.conv.weight' has shape \[16, 2, 3, 3\], .* \[8, 2, 3, 3\]"):
        load_weights(net, wide)
    wider_game = policy_value_net(SMALL, CONNECT_FOUR, 9, seed=1).state_dict()
    with pytest.raises(ConfigError, match=r"'policy.3.weight' has shape \[9, 336\], the network's \[7, 336\]"):
        load_weights(net, wider_game)
    other = policy_value_net(SMALL, CONNECT_FOUR, 7, seed=1).state_dict()
    with pytest.raises(ConfigError, match=r"lack the tensor 'value.5.bias'"):
        load_weights(net, {name: tensor for name, tensor in other.items() if name != "value.5.bias"})
    with pytest.raises(ConfigError, match=r"no tensor 'value.7.bias' \(did you mean 'value.5.bias'\?\)"):
        load_weights(net, {**other, "value.7.bias": torch.zeros(1)})
    assert all(torch.equal(tensor, before[name]) for name, tensor in net.state_dict().items())


def test_config() -> None:
    assert PolicyValueConfig.model_validate({"kind": "mlp", "hidden": [4, 5]}).hidden == (4, 5)
    for wrong in ({"hidden": []}, {"hidden": [0]}, {"blocks": 0}, {"kind": "transformer"}):
        with pytest.raises(ValueError):
            PolicyValueConfig.model_validate(wrong)
