"""`troupe train market`: PPO on a market, judged by walk-forward evaluation."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from troupe.cli.train import preset_path, use_threads
from troupe.config import Resolved, load
from troupe.systems.trading.config import WalkForwardConfig

if TYPE_CHECKING:
    from troupe.systems.trading.walkforward import WalkForwardResult

__all__ = ["resolve_market", "train_market"]


def resolve_market(preset: str | None, files: Sequence[str], overrides: Sequence[str]) -> Resolved[WalkForwardConfig]:
    """Preset, files and overrides in one."""
    path = None if preset is None else preset_path(preset, "market")
    return load(WalkForwardConfig, preset=path, files=files, overrides=overrides)


def train_market(arguments: argparse.Namespace) -> int:
    """Exit code 3 where no edge was found out of sample."""
    resolved = resolve_market(arguments.preset, arguments.config, arguments.overrides)
    if arguments.print_config:
        print(resolved.describe())
        return 0
    config = resolved.config
    use_threads(config.trainer.threads)
    from rich.console import Console

    from troupe.systems.trading.record import write_evaluation
    from troupe.systems.trading.walkforward import WalkForward

    console = Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # a pipe has no width of its own
    began = time.perf_counter(), time.process_time()
    evaluation = WalkForward(config, progress=_Lines(console))
    for message in evaluation.market.messages:
        console.print(message, soft_wrap=True)
    result = evaluation.run()
    page = write_evaluation(result, [_command(arguments)], simulated=not config.market.data.files)
    _show(console, result)
    seconds, cpu = time.perf_counter() - began[0], time.process_time() - began[1]
    console.print(f"{seconds:.0f} s, {cpu:.0f} CPU-seconds   tear sheet: {page}", soft_wrap=True)
    return 0 if result.learned.edge.significant else 3


def _command(arguments: argparse.Namespace) -> str:
    words = ["troupe train market"]
    words += [] if arguments.preset is None else [f"--preset {arguments.preset}"]
    words += [f"--config {file}" for file in arguments.config]
    return " ".join([*words, *arguments.overrides])


class _Lines:
    """A progress callback: a line when a policy is done."""

    def __init__(self, console: Any) -> None:
        self._console, self._began, self._last = console, time.monotonic(), ""

    def __call__(self, phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        if phase == self._last:
            return
        self._last = phase
        took = time.monotonic() - self._began
        self._console.print(f"{took:6.0f} s   {100 * step / total:3.0f} %   {phase} is learning", soft_wrap=True)


def _show(console: Any, result: WalkForwardResult) -> None:
    from rich.table import Table

    learned = result.learned
    table = Table(
        "strategy", "Sharpe", "95 % interval", "return", "drawdown", "turnover", "cost", "p", "edge",
        title=f"Out of sample: {learned.years:.2f} years, {learned.seeds} seeds, per year, after costs",
    )  # fmt: skip
    for name, found in result.assessments.items():
        cells = [_cell(found.metrics.get(key)) for key in ("annual return", "max drawdown")]
        sharpe = found.metrics.get("sharpe")
        table.add_row(
            name, "-" if sharpe is None else f"{sharpe.mean:+.2f}",
            "-" if sharpe is None else f"[{sharpe.low:+.2f}, {sharpe.high:+.2f}]", *cells,
            f"{found.metrics['turnover'].mean:.1f}", _cell(found.metrics["cost"]), f"{found.edge.p_value:.2g}",
            "yes" if found.edge.significant else "no",
        )  # fmt: skip
    console.print(table)
    console.print(f"[bold]{learned.name}: {learned.verdict}[/bold]")
    shown = "not before a second trial" if learned.deflated is None else f"{learned.deflated:.3f}"
    console.print(
        f"smallest annual Sharpe ratio that so many years can show: {learned.detectable:.2f}   trials on these bars: "
        f"{result.trials}   deflated Sharpe probability: {shown}",
        soft_wrap=True,
    )


def _cell(found: Any) -> str:
    return "-" if found is None else f"{100 * found.mean:+.1f} %"
