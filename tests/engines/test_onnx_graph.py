from __future__ import annotations

import sys

import numpy as np
import pytest
import torch
from torch import nn

from troupe.engines.onnx_graph import INPUT, onnx_graph
from troupe.errors import ConfigError, MissingExtra
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import PolicyValueNet, policy_value_net

CONV = PolicyValueConfig(blocks=2, channels=8)
MLP = PolicyValueConfig(kind="mlp", hidden=(16, 12), value_range="unbounded")


def trained(config: PolicyValueConfig) -> PolicyValueNet:
    """Batch statistics that matter: two batches were seen in training mode."""
    net = policy_value_net(config, (2, 3, 4), 5, seed=0)
    for _ in range(2):
        net(torch.rand(16, 2, 3, 4, generator=torch.Generator().manual_seed(2)) * 3)
    return net


@pytest.mark.oracle
@pytest.mark.parametrize("config", [CONV, MLP])
def test_it_computes_what_the_network_computes(config: PolicyValueConfig) -> None:
    onnx = pytest.importorskip("onnx")
    from onnx.reference import ReferenceEvaluator

    net = trained(config)
    model = onnx.load_from_string(onnx_graph(net))
    onnx.checker.check_model(model, full_check=True)
    observations = np.random.default_rng(0).random((3, 2, 3, 4)).astype(np.float32)
    logits, values = ReferenceEvaluator(model).run(None, {INPUT: observations})
    expected = net.eval()(torch.from_numpy(observations))
    np.testing.assert_allclose(logits, expected[0].detach().numpy(), rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(values[:, 0], expected[1].detach().numpy(), rtol=1e-4, atol=1e-5)


def test_layers_that_it_does_not_know_are_named() -> None:
    pytest.importorskip("onnx")
    net = trained(MLP)
    net.trunk.append(nn.GELU())
    with pytest.raises(ConfigError, match="the layer GELU; write runtime='torch'"):
        onnx_graph(net)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingExtra, match=r"'onnx', which is not installed: pip install 'troupe-train\[accel\]'"):
        onnx_graph(trained(MLP))
