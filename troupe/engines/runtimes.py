"""What runs a policy-value network on arrays, one thread each on the CPU: torch, ONNX Runtime, OpenVINO.

The network is 95% and more of the time of self-play with a small tower, hence three ways to compute it. All take
batches of any size, since padding them to a few sizes was slower in each. `benchmarks/evaluators.py` compares them;
torch alone runs everywhere, on CUDA too.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np

from troupe.engines.onnx_graph import INPUT, onnx_graph
from troupe.errors import ConfigError, MissingExtra, did_you_mean
from troupe.models.policy_value import PolicyValueNet, folded

__all__ = [
    "RUNTIMES",
    "OnnxRuntime",
    "OpenVinoRuntime",
    "PrecisionName",
    "Runtime",
    "RuntimeName",
    "TorchRuntime",
    "bf16_supported",
    "choose",
]

PrecisionName = Literal["auto", "fp32", "bf16"]
RuntimeName = Literal["auto", "torch", "onnxruntime", "openvino"]
RUNTIMES: tuple[RuntimeName, ...] = ("openvino", "onnxruntime", "torch")
"""From the fastest on CPUs in batches to the slowest; `auto` takes the first that is installed."""

_CPU_INFO = Path("/proc/cpuinfo")
_BF16_FLAGS = {"avx512_bf16", "amx_bf16"}


class Runtime(Protocol):
    """A loaded network."""

    name: str
    precision: str

    def load(self, net: PolicyValueNet) -> None:
        """Takes a copy of the network's weights, in place of the last ones."""
        ...

    def run(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """float32 `[n, *observation_shape]`, n > 0 -> (logits float32 `[n, A]`, values float32 `[n]`).

        The array is contiguous and writeable, which these libraries want of memory that they share; none writes to it.
        """
        ...


class TorchRuntime:
    """Folded and channels last. In bf16 only the trunk is: the heads cost little, and a value near 1 would be cut to
    multiples of 1/256."""

    name = "torch"

    def __init__(self, precision: str, device: str = "cpu") -> None:
        import torch

        self.precision, self._device = precision, torch.device(device)
        self._dtype = torch.bfloat16 if precision == "bf16" else torch.float32

    def load(self, net: PolicyValueNet) -> None:
        import torch

        net = folded(net).to(self._device)
        net.trunk.to(self._dtype)
        self._format = torch.channels_last if net.config.kind == "conv" else torch.preserve_format
        self._net = torch.nn.utils.convert_conv2d_weight_memory_format(net, torch.channels_last)

    def run(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        import torch

        with torch.inference_mode():
            x = torch.from_numpy(observations).to(self._device, self._dtype, memory_format=self._format)
            features = self._net.trunk(x).float()
            values = self._net.value(features).squeeze(-1)
            return self._net.policy(features).cpu().numpy(), values.cpu().numpy()


class OnnxRuntime:
    """ONNX Runtime, fp32: its CPU kernels know no bf16."""

    name = "onnxruntime"
    precision = "fp32"

    def __init__(self) -> None:
        try:
            import onnxruntime
        except ImportError as error:
            raise MissingExtra("onnxruntime", "accel", "runtime='onnxruntime'") from error
        self._library = onnxruntime

    def load(self, net: PolicyValueNet) -> None:
        options = self._library.SessionOptions()
        options.intra_op_num_threads = options.inter_op_num_threads = 1
        self._session = self._library.InferenceSession(onnx_graph(net), options, providers=["CPUExecutionProvider"])

    def run(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        logits, values = self._session.run(None, {INPUT: observations})
        return logits, values[:, 0]


class OpenVinoRuntime:
    """OpenVINO, fp32 or bf16. A new network is compiled in some tens of milliseconds."""

    name = "openvino"

    def __init__(self, precision: str) -> None:
        # openvino reports each import to its makers by a forked process unless this package is absent; with None in its
        # place openvino takes a stub of its own that sends nothing.
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
        try:
            import openvino
        except ImportError as error:
            raise MissingExtra("openvino", "accel", "runtime='openvino'") from error
        self.precision = precision
        self._library, self._core = openvino, openvino.Core()

    def load(self, net: PolicyValueNet) -> None:
        hint = "bf16" if self.precision == "bf16" else "f32"
        options = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1}
        model = self._core.read_model(onnx_graph(net))
        self._request: Any = self._core.compile_model(model, "CPU", options).create_infer_request()

    def run(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        tensor = self._library.Tensor(observations, shared_memory=True)  # 50 microseconds less than an array takes
        logits, values = self._request.infer(tensor, share_inputs=True, share_outputs=True).to_tuple()
        return logits.copy(), values[:, 0].copy()  # the next call writes where these lie


def choose(runtime: RuntimeName, precision: PrecisionName, device: str) -> Runtime:
    """The runtime to `load` networks into. `auto` takes the first of `RUNTIMES` that is installed and computes in the
    given precision, torch on devices other than the CPU; the precision `auto` is bf16 where the device has it.

    Raises ConfigError for names that do not exist and for pairs that do not fit, MissingExtra for a named runtime that
    is not installed.
    """
    _check_names(runtime, precision)
    on_cpu = device == "cpu"
    if precision == "bf16" and not bf16_supported(device):
        raise ConfigError(f"precision='bf16' needs avx512_bf16 or AMX, which {device!r} lacks; write precision='auto'")
    if runtime == "auto":
        runtime = _fastest(precision) if on_cpu else "torch"
    if not on_cpu and runtime != "torch":
        raise ConfigError(f"runtime={runtime!r} runs on the CPU, not on {device!r}; write runtime='torch'")
    if runtime == "onnxruntime":
        if precision == "bf16":
            raise ConfigError("runtime='onnxruntime' computes in fp32 on the CPU; write precision='fp32' or 'auto'")
        return OnnxRuntime()
    found = ("bf16" if bf16_supported(device) else "fp32") if precision == "auto" else precision
    return OpenVinoRuntime(found) if runtime == "openvino" else TorchRuntime(found, device)


def bf16_supported(device: str = "cpu", cpu_info: Path = _CPU_INFO) -> bool:
    """Whether the device multiplies bf16 in hardware: avx512_bf16 or AMX on CPUs (as Linux tells), Ampere and newer
    on CUDA. Elsewhere bf16 is emulated and slower than fp32."""
    if device == "cpu":
        return cpu_info.is_file() and not _BF16_FLAGS.isdisjoint(cpu_info.read_text().split())
    import torch

    return device.startswith("cuda") and torch.cuda.get_device_capability(device) >= (8, 0)


def _fastest(precision: PrecisionName) -> RuntimeName:
    able = [name for name in RUNTIMES if not (precision == "bf16" and name == "onnxruntime")]
    return next(name for name in able if name == "torch" or _installed(name))


def _installed(runtime: str) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in (runtime, "onnx"))


def _check_names(runtime: str, precision: str) -> None:
    if runtime not in ("auto", *RUNTIMES):
        raise ConfigError(f"there is no runtime {runtime!r}{did_you_mean(runtime, ('auto', *RUNTIMES))}")
    if precision not in ("auto", "fp32", "bf16"):
        raise ConfigError(f"there is no precision {precision!r}{did_you_mean(precision, ('auto', 'fp32', 'bf16'))}")
