"""What evaluating positions costs: evaluations per CPU-second of one thread, for each runtime and precision present.

    OMP_NUM_THREADS=1 python benchmarks/evaluators.py --seconds 1 --rounds 3

The network has Connect Four's shapes (`--kind conv`: 2 blocks of 64 channels, 12.57 MFLOP per evaluation); its
positions are random boards. A row is `NetworkEvaluator.evaluate` as a search calls it, priors included, with the cache
off; the rows take turns and the median of the rounds is shown. "refresh" is how long new weights take, in milliseconds
of CPU time. The last rows are the evaluator's own cost in microseconds of CPU time per position: with a cache that
knows every position, with one that knows none (the runtime left out), and without a network.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from troupe.engines.evaluator import NetworkEvaluator, UniformEvaluator
from troupe.engines.runtimes import PrecisionName, RuntimeName
from troupe.errors import UserError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import PolicyValueNet, policy_value_net
from troupe.protocols import Symmetry

SHAPE, ACTIONS = (2, 6, 7), 7
ARMS: list[tuple[RuntimeName, PrecisionName]] = [
    ("torch", "fp32"),
    ("torch", "bf16"),
    ("onnxruntime", "fp32"),
    ("openvino", "fp32"),
    ("openvino", "bf16"),
]


@dataclass(frozen=True, eq=False)
class Boards:
    """Random boards, each with its own key, or with the canonical key of its mirror pair."""

    planes: np.ndarray
    legal: np.ndarray
    first_key: int = 0
    mirrored: bool = False

    @property
    def to_play(self) -> np.ndarray:
        return np.zeros(len(self.planes), np.int8)

    def __len__(self) -> int:
        return len(self.planes)

    def observations(self) -> np.ndarray:
        return self.planes

    def keys(self) -> tuple[Sequence[Hashable], np.ndarray | None]:
        which = np.arange(len(self)) % 2 if self.mirrored else None
        return range(self.first_key, self.first_key + len(self)), which

    def symmetries(self) -> Sequence[Symmetry]:
        cells = np.arange(84).reshape(SHAPE)
        pairs = [(cells, np.arange(7)), (cells[..., ::-1], np.arange(7)[::-1])]
        return [Symmetry(cells.reshape(-1), actions) for cells, actions in pairs]

    def states(self) -> Sequence[Any]:
        return list(self.planes)

    def candidates(self) -> None:
        return None

    def take(self, indices: np.ndarray) -> Boards:
        return Boards(self.planes[indices], self.legal[indices], self.first_key, self.mirrored)


def boards(size: int, **fields: Any) -> Boards:
    """`size` of them, the same ones each time."""
    generator = np.random.default_rng(size)
    return Boards((generator.random((size, *SHAPE)) < 0.3).astype(np.float32), np.ones((size, ACTIONS), bool), **fields)


def cpu_seconds(action: Callable[[], object], seconds: float) -> float:
    """CPU-seconds of one call, the mean over about `seconds` of them."""
    action()
    began, calls = time.process_time(), 0
    while time.process_time() - began < seconds:
        action()
        calls += 1
    return (time.process_time() - began) / calls


def evaluators(net: PolicyValueNet) -> Iterator[tuple[str, NetworkEvaluator | str]]:
    """Each arm's name, with its evaluator or why there is none."""
    for runtime, precision in ARMS:
        try:
            yield f"{runtime} {precision}", NetworkEvaluator(net, runtime=runtime, precision=precision, cache=0)
        except UserError as error:
            yield f"{runtime} {precision}", str(error)


def speeds(net: PolicyValueNet, batches: Sequence[int], seconds: float, rounds: int) -> None:
    """Prints the table of the runtimes."""
    print(
        f"{'evaluations per CPU-second':30}" + "".join(f"{f'B={size}':>10}" for size in batches) + f"{'refresh ms':>12}"
    )
    arms = dict(evaluators(net))
    present = {name: arm for name, arm in arms.items() if isinstance(arm, NetworkEvaluator)}
    rates: dict[tuple[str, int], list[float]] = {}
    for _ in range(rounds):
        for size in batches:
            positions = boards(size)
            for name, arm in present.items():
                cost = cpu_seconds(lambda arm=arm, positions=positions: arm.evaluate(positions), seconds)
                rates.setdefault((name, size), []).append(size / cost)
    for name, arm in arms.items():
        if isinstance(arm, str):
            print(f"{name:30}{arm}")
            continue
        refresh = 1e3 * cpu_seconds(lambda arm=arm: arm.refresh(net), 0.2)
        cells = "".join(f"{statistics.median(rates[name, size]):10,.0f}" for size in batches)
        print(f"{name:30}{cells}{refresh:12.1f}")
    automatic = NetworkEvaluator(net)
    print(f"`auto` is {automatic.runtime} {automatic.precision} here")


def overheads(net: PolicyValueNet, batches: Sequence[int], seconds: float) -> None:
    """Prints what the evaluator itself costs per position."""
    print(f"\n{'microseconds per position':30}" + "".join(f"{f'B={size}':>10}" for size in batches))
    rows: dict[str, list[float]] = {}
    for size in batches:
        uniform = UniformEvaluator()
        plain, turned = boards(size), boards(size, mirrored=True)
        for name, positions in (("all hits", plain), ("all hits, mirrored", turned)):
            known = NetworkEvaluator(net)
            cost = cpu_seconds(lambda known=known, positions=positions: known.evaluate(positions), seconds)
            rows.setdefault(name, []).append(1e6 * cost / size)
        rows.setdefault("all misses, without network", []).append(1e6 * misses(net, plain, seconds) / size)
        cost = cpu_seconds(lambda uniform=uniform, plain=plain: uniform.evaluate(plain), seconds)
        rows.setdefault("UniformEvaluator", []).append(1e6 * cost / size)
    for name, costs in rows.items():
        print(f"{name:30}" + "".join(f"{cost:10.2f}" for cost in costs))


def misses(net: PolicyValueNet, positions: Boards, seconds: float) -> float:
    """CPU-seconds of a call whose keys are all new, less those of the runtime. Once full, the cache replaces."""
    evaluator = NetworkEvaluator(net, cache=2**16)
    runtime = evaluator._runtime
    answer = runtime.run(positions.planes)
    runtime.run = lambda observations: answer  # type: ignore[method-assign]
    following = iter(range(0, 2**62, len(positions)))
    return cpu_seconds(lambda: evaluator.evaluate(Boards(positions.planes, positions.legal, next(following))), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kind", choices=["conv", "mlp"], default="conv")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 64, 256])
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per row, batch size and round")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    config = PolicyValueConfig(kind=arguments.kind, hidden=(256, 256))
    net = policy_value_net(config, SHAPE, ACTIONS, seed=0)
    parameters = sum(parameter.numel() for parameter in net.parameters())
    print(f"{arguments.kind}, {parameters:,} parameters, observations {list(SHAPE)}, one thread")
    speeds(net, arguments.batches, arguments.seconds, arguments.rounds)
    overheads(net, arguments.batches, arguments.seconds / 2)


if __name__ == "__main__":
    main()
