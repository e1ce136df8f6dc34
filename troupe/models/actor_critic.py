"""A small network that acts and judges: hidden layers, a head for actions, a head for values.

    net = ActorCritic(ActorCriticConfig(), (4,), Discrete(2), seed=0)
    actions, logprobs, values = net.act(observations, generator)
    logprobs, entropies, values = net.evaluate(observations, actions)

Legend: n rows, I inputs, W width of a layer, P numbers that describe a policy, G towers of hidden layers: 2 where
policy and value have their own, 1 where they share them. The towers' weights are stacked, `[G, W, I]`, so that a layer
of both is one product.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

from troupe.errors import ConfigError
from troupe.models.actions import Space, action_head, orthogonal_
from troupe.models.config import ActorCriticConfig

__all__ = [
    "Acted",
    "ActorCritic",
    "Evaluated",
    "Thought",
    "Towers",
    "layers_backward",
    "layers_forward",
    "tanh_backward",
    "tanh_forward",
    "tanh_thought",
]

FEW = 2**18
"""A product of matrices up to so many multiplications is NumPy's: where the environment computes in NumPy, too, a step
takes two thirds of the time. In larger ones NumPy would use threads that nobody asked for."""

ACTIVATIONS = {"tanh": torch.tanh, "relu": torch.relu, "elu": nn.functional.elu, "silu": nn.functional.silu}


class Acted(NamedTuple):
    """What a policy did in n states, and what it thinks of them."""

    actions: Tensor  # long [n] or [n, A], float [n, A]
    logprobs: Tensor  # [n]
    values: Tensor  # [n]


class Evaluated(NamedTuple):
    """What a policy thinks of actions that were taken."""

    logprobs: Tensor
    entropies: Tensor
    values: Tensor


class Thought(NamedTuple):
    """What a network makes of n observations, outside any graph."""

    numbers: np.ndarray  # [n, P]
    values: np.ndarray  # [n]
    features: np.ndarray  # [n, W]: of the policy's last hidden layer


class Towers(nn.Module):
    """G stacks of hidden layers side by side: `[n, I]` -> features `[G, n, W]`. Orthogonal weights, biases 0."""

    def __init__(
        self, inputs: int, widths: tuple[int, ...], count: int, activation: str, generator: torch.Generator
    ) -> None:
        super().__init__()
        self.count, self.activation = count, activation
        self.features = widths[-1]
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for width in widths:
            layers = [orthogonal_(torch.empty(width, inputs), math.sqrt(2.0), generator) for _ in range(count)]
            self.weights.append(nn.Parameter(torch.stack(layers)))
            self.biases.append(nn.Parameter(torch.zeros(count, 1, width)))
            inputs = width

    def forward(self, x: Tensor) -> Tensor:
        act = ACTIVATIONS[self.activation]
        features = x.expand(self.count, *x.shape)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            features = act(torch.baddbmm(bias, features, weight.mT))
        return features


class ActorCritic(nn.Module):
    """Policy and value of one agent. Observations are `[..., *observation_shape]`, whatever stands before.

    Starts as PPO's reference implementations do: orthogonal layers with gains sqrt(2), 0.01 (policy) and 1 (value),
    biases 0 (Huang et al. 2022, "The 37 implementation details of proximal policy optimization"). `seed` alone decides
    the weights.
    """

    def __init__(
        self, config: ActorCriticConfig, observation_shape: tuple[int, ...], space: Space, *, seed: int
    ) -> None:
        super().__init__()
        if 0 in observation_shape:
            raise ConfigError(
                f"a network cannot read observations of shape {list(observation_shape)}: there is nothing"
            )
        self.config, self.observation_shape, self.space = config, tuple(observation_shape), space
        generator = torch.Generator().manual_seed(seed)
        inputs, count = math.prod(observation_shape), 1 if config.shared_trunk else 2
        self.towers = Towers(inputs, config.hidden, count, config.activation, generator)
        self.policy = action_head(space, self.towers.features, generator, log_std=config.log_std)
        self.value = nn.utils.skip_init(nn.Linear, self.towers.features, 1)
        orthogonal_(self.value.weight.data, 1.0, generator)
        nn.init.zeros_(self.value.bias)
        self._weights = _tanh_weights(self.towers, self.policy.linear, self.value)
        self._inputs, self._largest = inputs, max(weight[0].numel() for weight in self.towers.weights)
        self._flat: tuple[Tensor, ...] = ()  # in a tuple: it is no parameter of its own

    def forward(self, observations: Tensor) -> tuple[Tensor, Tensor]:
        """(numbers that describe the policies `[..., P]`, values `[...]`)."""
        leading = observations.shape[: observations.ndim - len(self.observation_shape)]
        x = observations.reshape(-1, self._inputs)
        if self.compact(x):
            numbers, values = _TanhNetwork.apply(x, *self._weights)
        else:
            features = self.towers(x)
            numbers, values = self.policy(features[0]), self.value(features[-1]).squeeze(-1)
        if len(leading) == 1:
            return numbers, values
        return numbers.reshape(*leading, -1), values.reshape(leading)

    def read(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """(numbers `[n, P]`, values `[n]`, what the policy's last hidden layer gives `[n, W]`) of flat observations."""
        if self.compact(x) and self.towers.count == 1:
            return _TanhTrunk.apply(x, *self._weights)  # type: ignore[return-value]
        features = self.towers(x)
        return self.policy(features[0]), self.value(features[-1]).squeeze(-1), features[0]

    @property
    def weights(self) -> tuple[Tensor, ...]:
        """In the order of `tanh_forward` and `tanh_backward`."""
        return self._weights

    @property
    def trained(self) -> dict[str, nn.Parameter]:
        """All parameters by name: the `weights` in their order, then those of the policy besides."""
        names = {id(parameter): name for name, parameter in self.named_parameters()}
        first = {names[id(weight)]: weight for weight in self._weights}
        return {**first, **dict(self.named_parameters())}  # type: ignore[dict-item]

    @property
    def leaves(self) -> tuple[Tensor, ...]:
        """What a gradient that is written out belongs to: `trained`, or the one piece of memory that they share."""
        if self._flat and self._flat[0].data_ptr() == self._weights[0].data_ptr():  # a copy does not share it
            return self._flat
        return tuple(self.trained.values())

    def share(self, flat: Tensor) -> None:
        """Says that `trained` lie in `flat`, one after the other, so that one gradient is enough for all."""
        self._flat = (flat,)

    def compact(self, x: Tensor) -> bool:
        """Whether `tanh_forward` and `tanh_backward` are this network, for these inputs: not in mixed precision."""
        exact = x.device.type == "cpu" and x.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
        return self.config.activation == "tanh" and exact

    def few(self, observations: Tensor) -> bool:
        """Whether `tanh_thought` is this network, and the observations are few enough for it."""
        return self.compact(observations) and len(observations) * self._largest <= FEW

    @torch.no_grad()
    def act(self, observations: Tensor, generator: torch.Generator | None) -> Acted:
        """Actions for `[n, *observation_shape]`; without a generator the likeliest ones."""
        if self.few(observations):
            thought = tanh_thought(observations.reshape(-1, self._inputs).numpy(), self._weights)
            numbers, values = torch.from_numpy(thought.numbers), torch.from_numpy(thought.values)
        elif self.compact(observations):
            numbers, values, _ = tanh_forward(observations.reshape(-1, self._inputs), self._weights)
        else:
            numbers, values = self(observations)
        return Acted(*self.policy.draw(numbers, generator), values)

    def evaluate(self, observations: Tensor, actions: Tensor) -> Evaluated:
        """Log-probs and entropies in nats, and values, all `[...]`, of actions that were taken in these states."""
        numbers, values = self(observations)
        return Evaluated(*self.policy.score(numbers, actions), values)

    @torch.no_grad()
    def values(self, observations: Tensor) -> Tensor:
        """`[...]`."""
        return self(observations)[1]


def _tanh_weights(towers: Towers, policy: nn.Linear, value: nn.Linear) -> tuple[Tensor, ...]:
    """In the order of `tanh_forward` and `tanh_backward`: P, p, v, c, then W_l, b_l of each layer."""
    layers = [tensor for pair in zip(towers.weights, towers.biases, strict=True) for tensor in pair]
    return policy.weight, policy.bias, value.weight, value.bias, *layers


def tanh_forward(x: Tensor, weights: Sequence[Tensor]) -> tuple[Tensor, Tensor, list[Tensor]]:
    """(numbers `[n, P]`, values `[n]`, features h_0 to h_L `[G, n, W]`), outside the graph.

    h_0 = x;  h_l = tanh(h_{l-1} W_l' + b_l);  numbers = h_L[0] P' + p;  values = h_L[-1] v' + c
    """
    policy, policy_bias, value, value_bias, *layers = weights
    passed = layers_forward(x, layers)
    features = passed[-1]
    numbers = torch.addmm(policy_bias, features[0], policy.T)
    return numbers, torch.addmm(value_bias, features[-1], value.T)[:, 0], passed


def layers_forward(x: Tensor, layers: Sequence[Tensor]) -> list[Tensor]:
    """The hidden layers alone, W_l and b_l of each: h_0 to h_L `[G, n, W]`."""
    features = x.expand(layers[0].shape[0], *x.shape)
    passed = [features]
    for weight, bias in zip(layers[::2], layers[1::2], strict=True):
        features = torch.baddbmm(bias, features, weight.mT)
        array = features.numpy()
        np.tanh(array, out=array)
        passed.append(features)
    return passed


def tanh_thought(x: np.ndarray, weights: Sequence[Tensor]) -> Thought:
    """The same as `tanh_forward` in NumPy alone, for few observations `[n, I]`."""
    policy, policy_bias, value, value_bias, *layers = (weight.detach().numpy() for weight in weights)
    towers = []
    for tower in range(len(layers[0])):
        features = x
        for weight, bias in zip(layers[::2], layers[1::2], strict=True):
            features = features @ weight[tower].T
            features += bias[tower]
            np.tanh(features, out=features)
        towers.append(features)
    return Thought(towers[0] @ policy.T + policy_bias, (towers[-1] @ value.T + value_bias)[:, 0], towers[0])


def tanh_backward(
    d_numbers: Tensor, d_values: Tensor, weights: Sequence[Tensor], passed: Sequence[Tensor], *, into_x: bool
) -> tuple[Tensor | None, ...]:
    """Gradients of x (None unless `into_x`) and of the weights, from those of the outputs.

    With dh the gradient of h_l:  dz = dh (1 - h_l^2),  dW_l = dz' h_{l-1},  db_l = sum_n dz,  dh <- dz W_l
    """
    policy, _, value, _, *layers = weights
    features, column = passed[-1], d_values[:, None]
    heads = (d_numbers.T @ features[0], d_numbers.sum(0), column.T @ features[-1], column.sum(0))
    gradient = torch.empty_like(features)
    torch.mm(d_numbers, policy, out=gradient[0])
    if len(gradient) == 1:
        gradient[0].addmm_(column, value)
    else:
        torch.mm(column, value, out=gradient[1])
    into, found = layers_backward(gradient, layers, passed, into_x=into_x)
    return into, *heads, *found


def layers_backward(
    gradient: Tensor, layers: Sequence[Tensor], passed: Sequence[Tensor], *, into_x: bool
) -> tuple[Tensor | None, list[Tensor]]:
    """Gradients of x and of the hidden layers' weights, from that of the last layer's features `[G, n, W]`."""
    found: list[Tensor] = []
    for layer in reversed(range(len(passed) - 1)):
        gradient = torch.ops.aten.tanh_backward(gradient, passed[layer + 1])
        found += [gradient.sum(1, keepdim=True), _outer(gradient, passed[layer])]
        if layer or into_x:
            gradient = torch.bmm(gradient, layers[2 * layer])
    return gradient.sum(0) if into_x else None, found[::-1]


def _outer(gradient: Tensor, features: Tensor) -> Tensor:
    """`[G, W, I]`, the sum over rows of products. A narrow product takes five times as long the other way round."""
    if features.shape[-1] < gradient.shape[-1] // 2:
        return torch.bmm(features.mT, gradient).mT.contiguous()
    return torch.bmm(gradient.mT, features)


class _TanhNetwork(torch.autograd.Function):
    """With tanh, in float32 on the CPU: the same numbers and gradients as layer by layer, in a third of the time.

    Layers this small cost less than what surrounds them: graph nodes, and torch's tanh, which takes several times as
    long as NumPy's. So the whole network is one node of the graph, with its backward pass written out.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor]:
        numbers, values, passed = tanh_forward(x, weights)
        ctx.save_for_backward(*weights, *passed)
        ctx.count = len(weights)
        return numbers, values

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, d_numbers: Tensor, d_values: Tensor) -> tuple[Tensor | None, ...]:
        weights, passed = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        return tanh_backward(d_numbers, d_values, weights, passed, into_x=ctx.needs_input_grad[0])


class _TanhTrunk(torch.autograd.Function):
    """The same for a network of one tower that others read: its features are an output, too. A gradient that comes
    through them alone, as another agent's does, leaves the heads out."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *weights: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        numbers, values, passed = tanh_forward(x, weights)
        ctx.save_for_backward(*weights, *passed)
        ctx.count = len(weights)
        ctx.set_materialize_grads(False)
        return numbers, values, passed[-1][0]

    @staticmethod
    @once_differentiable
    def backward(
        ctx: Any, d_numbers: Tensor | None, d_values: Tensor | None, d_features: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        weights, passed = ctx.saved_tensors[: ctx.count], ctx.saved_tensors[ctx.count :]
        policy, _, value, _, *layers = weights
        features = passed[-1][0]
        gradient = torch.zeros_like(features) if d_features is None else d_features.clone()
        heads: list[Tensor | None] = [None] * 4
        if d_numbers is not None:
            gradient.addmm_(d_numbers, policy)
            heads[:2] = d_numbers.T @ features, d_numbers.sum(0)
        if d_values is not None:
            column = d_values[:, None]
            gradient.addmm_(column, value)
            heads[2:] = column.T @ features, column.sum(0)
        into, found = layers_backward(gradient[None], layers, passed, into_x=ctx.needs_input_grad[0])
        return into, *heads, *found
