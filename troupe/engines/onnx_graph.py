"""The computation of a policy-value network as an ONNX model, which ONNX Runtime and OpenVINO read.

Written layer by layer, since tracing exporters take seconds and self-play exports after each update: this takes
milliseconds.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from torch import Tensor, nn

from troupe.errors import ConfigError, MissingExtra
from troupe.models.policy_value import Convolution, PolicyValueNet, ResidualBlock, folded

__all__ = ["INPUT", "onnx_graph"]

INPUT = "observations"
_OPSET, _IR = 17, 8  # of 2022, which every runtime of today reads


def onnx_graph(net: PolicyValueNet) -> bytes:
    """A serialised ONNX model: `observations` float32 `[n, *observation_shape]` -> logits `[n, A]`, values `[n, 1]`.

    Batch normalisation is folded and n is free. Raises MissingExtra without the package onnx.
    """
    graph = _Graph()
    net = folded(net).cpu()
    features = graph.add(net.trunk, INPUT)
    return graph.model(net, graph.add(net.policy, features), graph.add(net.value, features))


class _Graph:
    """Nodes and constants so far. A node's output is named after its place."""

    def __init__(self) -> None:
        try:
            import onnx
        except ImportError as error:
            raise MissingExtra("onnx", "accel", "a runtime other than torch") from error
        self._onnx = onnx
        self._nodes: list[Any] = []
        self._constants: list[Any] = []

    def add(self, module: nn.Module, x: str) -> str:
        """Appends what `module` computes from `x`; returns its output's name."""
        match module:
            case nn.Sequential():
                for part in module:
                    x = self.add(part, x)
                return x
            case Convolution():
                return self.add(module.norm, self.add(module.conv, x))
            case ResidualBlock():
                inner = self.add(module.second, self._node("Relu", self.add(module.first, x)))
                return self._node("Relu", self._node("Add", x, inner))
            case nn.Identity():
                return x
            case _:
                return self._layer(module, x)

    def model(self, net: PolicyValueNet, logits: str, values: str) -> bytes:
        """The finished model, serialised."""
        helper, float_ = self._onnx.helper, self._onnx.TensorProto.FLOAT
        inputs = [helper.make_tensor_value_info(INPUT, float_, ["n", *net.observation_shape])]
        outputs = [
            helper.make_tensor_value_info(logits, float_, ["n", net.actions]),
            helper.make_tensor_value_info(values, float_, ["n", 1]),
        ]
        graph = helper.make_graph(self._nodes, "policy_value", inputs, outputs, self._constants)
        opsets = [helper.make_opsetid("", _OPSET)]
        return helper.make_model(graph, opset_imports=opsets, ir_version=_IR).SerializeToString()

    def _layer(self, module: nn.Module, x: str) -> str:
        match module:
            case nn.Conv2d():
                padding = [int(side) for side in module.padding] * 2
                return self._node("Conv", x, *self._weights(module), pads=padding)
            case nn.Linear():
                return self._node("Gemm", x, *self._weights(module), transB=1)
            case nn.ReLU():
                return self._node("Relu", x)
            case nn.Flatten():
                return self._node("Flatten", x)
            case nn.Tanh():
                return self._node("Tanh", x)
        raise ConfigError(f"no ONNX operation is known for the layer {type(module).__name__}; write runtime='torch'")

    def _weights(self, module: nn.Conv2d | nn.Linear) -> list[str]:
        tensors = [module.weight] if module.bias is None else [module.weight, module.bias]
        return [self._constant(tensor) for tensor in tensors]

    def _constant(self, tensor: Tensor) -> str:
        name = f"constant_{len(self._constants)}"
        array = np.ascontiguousarray(tensor.detach().numpy(), np.float32)
        self._constants.append(self._onnx.numpy_helper.from_array(array, name))
        return name

    def _node(self, kind: str, *inputs: str, **attributes: Any) -> str:
        name = f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(self._onnx.helper.make_node(kind, list(inputs), [name], **attributes))
        return name
