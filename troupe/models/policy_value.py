"""Networks of self-play for games of fixed actions: a policy and a value from one observation.

    net = policy_value_net(PolicyValueConfig(), (2, 6, 7), actions=7, seed=0)
    logits, values = net(observations)  # [n, 2, 6, 7] -> [n, 7], [n]

`conv` is the residual tower of AlphaZero (Silver et al. 2018, doi:10.1126/science.aar6404) at small sizes: 163,268
parameters and 12.57 MFLOP per evaluation for Connect Four by default. The heads have no batch normalisation, since
their 1x1 convolutions are too small to need it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from troupe.errors import ConfigError, did_you_mean
from troupe.models.config import PolicyValueConfig

__all__ = ["Convolution", "PolicyValueNet", "ResidualBlock", "folded", "load_weights", "policy_value_net"]

HEAD_SCALE = 0.05
"""Size of an untrained network's logits and values: near the uniform policy and near 0, yet not without gradient."""


class Convolution(nn.Module):
    """A 3x3 convolution that keeps height and width, then batch normalisation (none after `folded`)."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, 3, padding=1, bias=False)
        self.norm: nn.Module = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        """[n, inputs, H, W] -> [n, outputs, H, W]."""
        return self.norm(self.conv(x))


class ResidualBlock(nn.Module):
    """relu(x + second(relu(first(x)))) (He et al. 2016, arXiv:1512.03385)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = Convolution(channels, channels)
        self.second = Convolution(channels, channels)

    def forward(self, x: Tensor) -> Tensor:
        """[n, channels, H, W] -> the same shape."""
        return torch.relu(x + self.second(torch.relu(self.first(x))))


class PolicyValueNet(nn.Module):
    """Trunk, policy head and value head; built by `policy_value_net`."""

    def __init__(self, config: PolicyValueConfig, observation_shape: tuple[int, ...], actions: int) -> None:
        super().__init__()
        self.config, self.observation_shape, self.actions = config, observation_shape, actions
        build = _tower if config.kind == "conv" else _layers
        self.trunk, self.policy, self.value = build(config, observation_shape, actions)
        if config.value_range == "bounded":
            self.value.append(nn.Tanh())

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """float `[n, *observation_shape]` -> (logits `[n, A]`, values `[n]`), values as the player to move expects."""
        features = self.trunk(observations)
        return self.policy(features), self.value(features).squeeze(-1)


def policy_value_net(
    config: PolicyValueConfig, observation_shape: tuple[int, ...], actions: int, *, seed: int
) -> PolicyValueNet:
    """The untrained network that belongs to `seed`, in training mode on the CPU; torch's own generator is left as it
    was. Raises ConfigError for an observation shape that `config.kind` cannot take."""
    _check(config, observation_shape, actions)
    with torch.random.fork_rng(devices=[]):  # the layers' constructors draw, and what they draw is replaced below
        net = PolicyValueNet(config, tuple(observation_shape), actions)
    generator = torch.Generator().manual_seed(seed)
    last = {_linear(net.policy), _linear(net.value)}
    for module in net.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            _initialise(module, generator, last=module in last)
    return net


def folded(net: PolicyValueNet) -> PolicyValueNet:
    """A copy for inference whose convolutions contain their batch normalisation: the same outputs as `net.eval()` to
    rounding, with a layer less per convolution. Later changes of `net` do not reach it."""
    net = copy.deepcopy(net).eval().requires_grad_(False)
    for part in net.modules():
        if isinstance(part, Convolution) and isinstance(part.norm, nn.BatchNorm2d):
            part.conv, part.norm = fuse_conv_bn_eval(part.conv, part.norm), nn.Identity()
    return net.requires_grad_(False)


def load_weights(net: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Copies `tensors` into the network, all of them or none.

    Raises ConfigError that names the first tensor which is missing, which the network does not have, or whose shape is
    another.
    """
    own = net.state_dict()
    for name, tensor in own.items():
        if name not in tensors:
            raise ConfigError(f"the weights lack the tensor {name!r}{did_you_mean(name, tensors)}; {_ADVICE}")
        if tensors[name].shape != tensor.shape:
            found, expected = list(tensors[name].shape), list(tensor.shape)
            raise ConfigError(f"the weights' {name!r} has shape {found}, the network's {expected}; {_ADVICE}")
    for name in tensors:
        if name not in own:
            raise ConfigError(f"the network has no tensor {name!r}{did_you_mean(name, own)}; {_ADVICE}")
    net.load_state_dict(dict(tensors))


_ADVICE = "build the network from the config and the game that these weights were saved with"


def _check(config: PolicyValueConfig, shape: tuple[int, ...], actions: int) -> None:
    if config.kind == "conv" and len(shape) != 3:
        raise ConfigError(
            f"kind 'conv' takes observations [channels, height, width], not {list(shape)}; write kind: mlp"
        )
    if not shape or min(shape) < 1:
        raise ConfigError(f"a network cannot take observations of shape {list(shape)}; every axis needs a length >= 1")
    if actions < 1:
        raise ConfigError(f"a network of fixed actions needs actions >= 1, not {actions}")


def _tower(
    config: PolicyValueConfig, shape: tuple[int, ...], actions: int
) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    planes, height, width = shape
    channels, cells = config.channels, height * width
    blocks = [ResidualBlock(channels) for _ in range(config.blocks)]
    policy = nn.Conv2d(channels, config.policy_channels, 1)
    value = nn.Conv2d(channels, config.value_channels, 1)
    hidden = nn.Linear(config.value_channels * cells, config.value_hidden)
    return (
        nn.Sequential(Convolution(planes, channels), nn.ReLU(), *blocks),
        nn.Sequential(policy, nn.ReLU(), nn.Flatten(), nn.Linear(config.policy_channels * cells, actions)),
        nn.Sequential(value, nn.ReLU(), nn.Flatten(), hidden, nn.ReLU(), nn.Linear(config.value_hidden, 1)),
    )


def _layers(
    config: PolicyValueConfig, shape: tuple[int, ...], actions: int
) -> tuple[nn.Sequential, nn.Sequential, nn.Sequential]:
    trunk = nn.Sequential(nn.Flatten())
    width = math.prod(shape)
    for hidden in config.hidden:
        trunk.append(nn.Linear(width, hidden)).append(nn.ReLU())
        width = hidden
    return trunk, nn.Sequential(nn.Linear(width, actions)), nn.Sequential(nn.Linear(width, 1))


def _linear(head: nn.Sequential) -> nn.Linear:
    """A head's last linear layer."""
    return [part for part in head if isinstance(part, nn.Linear)][-1]


def _initialise(module: nn.Conv2d | nn.Linear, generator: torch.Generator, *, last: bool) -> None:
    """He et al. 2015 (arXiv:1502.01852) before a ReLU; small in a head's last layer; biases 0."""
    fan_in = module.weight[0].numel()
    scale = HEAD_SCALE if last else math.sqrt(2.0)
    nn.init.normal_(module.weight, std=scale / math.sqrt(fan_in), generator=generator)
    if module.bias is not None:
        nn.init.zeros_(module.bias)
