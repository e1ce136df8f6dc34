from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from troupe.engines import runtimes
from troupe.engines.runtimes import PrecisionName, RuntimeName, bf16_supported, choose
from troupe.errors import ConfigError, MissingExtra
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import PolicyValueNet, policy_value_net

CONV = PolicyValueConfig(blocks=2, channels=16)
MLP = PolicyValueConfig(kind="mlp", hidden=(32, 24))
ALL: list[tuple[RuntimeName, PrecisionName]] = [
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
]


def present(runtime: str, precision: str) -> None:
    """Skips what this machine lacks."""
    if runtime != "torch":
        pytest.importorskip(runtime)
        pytest.importorskip("onnx")
    if precision == "bf16" and not bf16_supported():
        pytest.skip("this CPU has no bf16")


def opinionated(config: PolicyValueConfig, seed: int = 0) -> PolicyValueNet:
    net = policy_value_net(config, (2, 6, 7), 7, seed=seed)
    for head in (net.policy, net.value):
        [part for part in head if isinstance(part, nn.Linear)][-1].weight.data *= 20
    return net


def boards(n: int, seed: int = 0) -> np.ndarray:
    return (np.random.default_rng(seed).random((n, 2, 6, 7)) < 0.3).astype(np.float32)


def answer(net: PolicyValueNet, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    with torch.inference_mode():
        logits, values = net.eval()(torch.from_numpy(observations))
    return logits.numpy(), values.numpy()


@pytest.mark.parametrize("config", [CONV, MLP], ids=["conv", "mlp"])
@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_every_runtime_computes_the_network(
    runtime: RuntimeName, precision: PrecisionName, config: PolicyValueConfig
) -> None:
    present(runtime, precision)
    loaded = choose(runtime, precision, "cpu")
    assert (loaded.name, loaded.precision) == (runtime, precision)
    tolerance = 1e-5 if precision == "fp32" else 0.05
    for seed in (0, 1):  # the second network takes the first one's place
        net = opinionated(config, seed)
        loaded.load(net)
        for n in (1, 5, 64, 3):  # any size, in any order
            found, expected = loaded.run(boards(n, n)), answer(net, boards(n, n))
            assert [part.dtype for part in found] == [np.float32, np.float32]
            np.testing.assert_allclose(found[0], expected[0], atol=tolerance, rtol=tolerance)
            np.testing.assert_allclose(found[1], expected[1], atol=tolerance, rtol=tolerance)
    assert np.ptp(answer(opinionated(config), boards(64))[0]) > 1  # the tolerance is small beside what is computed


@pytest.mark.parametrize(("runtime", "precision"), ALL)
def test_rows_ignore_their_neighbours_calls_repeat_and_answers_stay(
    runtime: RuntimeName, precision: PrecisionName
) -> None:
    present(runtime, precision)
    loaded, twin = choose(runtime, precision, "cpu"), choose(runtime, precision, "cpu")
    for one in (loaded, twin):
        one.load(opinionated(CONV))
    together = loaded.run(boards(32))
    kept = [part.copy() for part in together]
    tolerance = 1e-5 if precision == "fp32" else 0.05
    for row in (0, 31):
        alone = loaded.run(boards(32)[row : row + 1])
        np.testing.assert_allclose(together[0][row], alone[0][0], atol=tolerance)
        np.testing.assert_allclose(together[1][row], alone[1][0], atol=tolerance)
    for first, again, before in zip(twin.run(boards(32)), together, kept, strict=True):
        np.testing.assert_array_equal(first, again)
        np.testing.assert_array_equal(before, again)


def test_a_loaded_network_is_a_copy() -> None:
    net = opinionated(CONV)
    loaded = choose("torch", "fp32", "cpu")
    loaded.load(net)
    before = loaded.run(boards(4))[0]
    for parameter in net.parameters():
        parameter.data.zero_()
    np.testing.assert_array_equal(loaded.run(boards(4))[0], before)


# --- choosing ---------------------------------------------------------------------------------------------------


def test_bf16_where_the_cpu_has_it(tmp_path: Path) -> None:
    cpu_info = tmp_path / "cpuinfo"
    assert not bf16_supported("cpu", cpu_info)  # no such file: not Linux
    for flags, expected in (
        ("fpu avx512f avx512_vnni", False),
        ("fpu avx512_bf16 amx", True),
        ("fpu amx_bf16", True),
        ("fpu xavx512_bf16x", False),
    ):
        cpu_info.write_text(f"processor : 0\nflags\t\t: {flags}\nbogomips : 5192\n")
        assert bf16_supported("cpu", cpu_info) is expected, flags


def test_auto_takes_the_first_that_is_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "bf16_supported", lambda device: True)
    for package in ("openvino", "onnxruntime", "onnx"):
        pytest.importorskip(package)
    assert choose("auto", "auto", "cpu").name == "openvino"
    monkeypatch.setitem(sys.modules, "openvino", None)
    assert (choose("auto", "auto", "cpu").name, choose("auto", "auto", "cpu").precision) == ("onnxruntime", "fp32")
    assert (choose("auto", "bf16", "cpu").name, choose("auto", "bf16", "cpu").precision) == ("torch", "bf16")
    monkeypatch.setitem(sys.modules, "onnx", None)
    assert (choose("auto", "auto", "cpu").name, choose("auto", "auto", "cpu").precision) == ("torch", "bf16")
    monkeypatch.setattr(runtimes, "bf16_supported", lambda device: False)
    assert choose("auto", "auto", "cpu").precision == "fp32"


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_named_runtime_must_be_installed(runtime: RuntimeName, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, runtime, None)
    with pytest.raises(MissingExtra, match=rf"runtime='{runtime}' needs .* 'troupe-train\[accel\]'"):
        choose(runtime, "fp32", "cpu")


def test_what_does_not_fit_together(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "bf16_supported", lambda device: True)
    with pytest.raises(ConfigError, match="write precision='fp32' or 'auto'"):
        choose("onnxruntime", "bf16", "cpu")
    with pytest.raises(ConfigError, match="runs on the CPU, not on 'cuda'; write runtime='torch'"):
        choose("openvino", "fp32", "cuda")
    monkeypatch.setattr(runtimes, "bf16_supported", lambda device: False)
    with pytest.raises(ConfigError, match="precision='bf16' needs"):
        choose("torch", "bf16", "cpu")
    with pytest.raises(ConfigError, match=r"no runtime 'openvin' \(did you mean 'openvino'\?\)"):
        choose("openvin", "fp32", "cpu")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"no precision 'bf61' \(did you mean 'bf16'\?\)"):
        choose("torch", "bf61", "cpu")  # type: ignore[arg-type]


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_cuda(precision: PrecisionName) -> None:
    if not torch.cuda.is_available():
        pytest.skip("no NVIDIA GPU")
    loaded = choose("auto", precision, "cuda")
    net = opinionated(CONV)
    loaded.load(net)
    tolerance = 2e-3 if precision == "fp32" else 0.05  # convolutions may use TF32
    for found, expected in zip(loaded.run(boards(64)), answer(net, boards(64)), strict=True):
        np.testing.assert_allclose(found, expected, atol=tolerance, rtol=tolerance)


def test_openvino_reports_to_nobody() -> None:
    """Importing it would otherwise fork a process that sends a message to its makers."""
    pytest.importorskip("openvino")
    code = """
import os, sys

def refuse(*_):
    raise SystemExit("a process was forked")

os.fork = refuse
from troupe.engines.runtimes import OpenVinoRuntime
OpenVinoRuntime("fp32")
assert sys.modules["openvino_telemetry"] is None
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
