"""`troupe train trading` and `troupe evaluate trading`: specialists and a meta-controller, in three phases."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.cli.train import preset_path, use_threads
from troupe.config import Resolved, format_value
from troupe.errors import ConfigError, StorageError
from troupe.systems.trading.documented import load_trading
from troupe.systems.trading.hierarchy_config import TradingConfig

if TYPE_CHECKING:
    from troupe.systems.trading.pipeline import HierarchyTrainer, TradingResult

__all__ = ["evaluate_trading", "resolve_trading", "train_trading"]

_FLAGS = {"output_dir": "trainer.output_dir", "log_dir": "trainer.log_dir", "device": "trainer.device"}
"""Flags of document 002's scripts and the keys that they set."""


def resolve_trading(
    preset: str | None, files: Sequence[str], overrides: Sequence[str]
) -> tuple[Resolved[TradingConfig], tuple[str, ...]]:
    """Preset, files of either kind and overrides in one; and what document 002's files said that has no counterpart."""
    path = None if preset is None else preset_path(preset, "trading")
    return load_trading(preset=path, files=files, overrides=overrides)


def train_trading(arguments: argparse.Namespace) -> int:
    """Exit code 3 where the last phase that ran did not improve on what it was compared with."""
    resolved, notes = resolve_trading(arguments.preset, arguments.config, [*_spelled(arguments), *arguments.overrides])
    if arguments.print_config:
        print(resolved.describe(), *(f"# {note}\n" for note in notes), sep="", end="")
        return 0
    config = resolved.config
    phases = (1, 2, 3) if arguments.phase is None else (arguments.phase,)
    _check_folder(config, phases[0], must_exist=arguments.resume)
    use_threads(config.trainer.threads)
    from troupe.systems.trading.hierarchy_record import write_hierarchy_evaluation
    from troupe.systems.trading.phase import device_of
    from troupe.systems.trading.pipeline import HierarchyTrainer

    device_of(config)  # phase 3 would refuse it, hours later
    console, began, cpu = _console(), time.perf_counter(), _cpu_seconds()
    for note in notes:
        console.print(note, soft_wrap=True)
    with _warned_once():
        trainer = HierarchyTrainer(config, progress=_Lines(console))
        result = trainer.train(phases)
        page = write_hierarchy_evaluation(trainer, result, [_command(arguments)])
        _write_messages(trainer)
    _show_phases(console, result, config.evaluation.confidence)
    _show_targets(console, result.test, f"Test: {_traded(result.traded)}")
    console.print(f"[bold]{_verdict('test', result.edge)}[/bold]")
    spent = f"{time.perf_counter() - began:.0f} s, {_cpu_seconds() - cpu:.0f} CPU-seconds"
    console.print(f"{spent}   run folder: {result.folder}   tear sheet: {page}", soft_wrap=True)
    return 0 if phases[-1] in result.improved else 3


def evaluate_trading(arguments: argparse.Namespace) -> int:
    """Plays what a run trades once more, on as many episodes as are asked for."""
    if arguments.episodes is not None and arguments.episodes < 2:
        raise ConfigError(f"--episodes {arguments.episodes} must be at least 2: an interval needs two numbers")
    from troupe.systems.trading.phase import run_config

    config = run_config(Path(arguments.run))
    use_threads(config.trainer.threads)
    from troupe.stores.atomic import write_atomic
    from troupe.systems.trading.conversation import converse, hub_of
    from troupe.systems.trading.pipeline import HierarchyTrainer, edge_of

    console = _console()
    with _warned_once():
        trainer = HierarchyTrainer(config)
        traded = trainer.traded()
        played = trainer.play(traded, arguments.stretch, arguments.episodes)
    metrics, edge = played.metrics(), edge_of(played)
    with hub_of(config, arguments.run) as hub:
        messages = converse(played, hub=hub)
    if arguments.episodes is not None and metrics["episodes"] < arguments.episodes:
        console.print(f"{metrics['episodes']} episodes fit into the {arguments.stretch} stretch without overlap")
    title = f"{arguments.stretch.capitalize()}, {metrics['episodes']} episodes: {_traded(traded.phase)}"
    _show_targets(console, metrics, title)
    _show_metrics(console, metrics)
    console.print(f"[bold]{_verdict(arguments.stretch, edge)}[/bold]")
    counts = ", ".join(f"{count} {kind}" for kind, count in messages["by_type"].items())
    console.print(f"messages of the first episode: {messages['sent']} ({counts})", soft_wrap=True)
    if arguments.json:
        record = {
            "run": str(arguments.run), "stretch": arguments.stretch, "phase": traded.phase, "metrics": metrics,
            "edge": {"significant": edge.significant, "p": edge.p_value, "alpha": edge.alpha, "bars": edge.n},
            "messages": messages,
        }  # fmt: skip
        write_atomic(Path(arguments.json), json.dumps(record, indent=1, allow_nan=False).encode())
    return 0


# ---------------------------------------------------------------------------------------------- arguments


def _spelled(arguments: argparse.Namespace) -> list[str]:
    """The flags as overrides. Raises ConfigError for one that would say nothing, or what an override says, too."""
    if arguments.timesteps is not None and arguments.phase is None:
        raise ConfigError(
            f"--timesteps {arguments.timesteps} belongs to one phase: write --phase N, too, or "
            f"phase1.total_timesteps={arguments.timesteps} and so on"
        )
    given = [(f"--{flag.replace('_', '-')}", key, getattr(arguments, flag)) for flag, key in _FLAGS.items()]
    given.append(("--timesteps", f"phase{arguments.phase}.total_timesteps", arguments.timesteps))
    for flag, key, value in given:
        twice = [word for word in arguments.overrides if word.lstrip("+~").partition("=")[0] == key]
        if value is not None and twice:
            raise ConfigError(f"{flag} {value} and {twice[0]} both set {key}; keep one")
    return [f"{key}={format_value(value)}" for _, key, value in given if value is not None]


def _check_folder(config: TradingConfig, first: int, *, must_exist: bool) -> None:
    """Before anything is made: whether there is what the first phase to run needs. Raises StorageError."""
    from troupe.systems.trading.phase import Workspace

    folder = Path(config.trainer.output_dir)
    if must_exist and not (folder / "config.json").exists():
        raise StorageError(f"--resume: {folder} holds no run to continue; leave it out, or name the run's --output-dir")
    if must_exist and config.trainer.resume == "never":
        raise ConfigError("--resume and trainer.resume=never contradict each other; keep one")
    space = Workspace(folder, folder / "logs", config)
    for number in range(1, first):
        space.read_results(number)


def _command(arguments: argparse.Namespace) -> str:
    words = ["troupe train trading"]
    words += [] if arguments.preset is None else [f"--preset {arguments.preset}"]
    words += [f"--config {file}" for file in arguments.config]
    for flag in ("phase", "timesteps", *_FLAGS):
        value = getattr(arguments, flag)
        words += [] if value is None else [f"--{flag.replace('_', '-')} {value}"]
    return " ".join([*words, *(["--resume"] if arguments.resume else []), *arguments.overrides])


def _write_messages(trainer: HierarchyTrainer) -> None:
    """messages.jsonl of the first test episode, where the config asks for it."""
    from troupe.systems.trading.conversation import converse, hub_of

    if not trainer.config.communication.log_all_messages:
        return
    with hub_of(trainer.config, trainer.config.trainer.output_dir) as hub:
        converse(trainer.play(trainer.traded(), "test", 2), hub=hub)


# ---------------------------------------------------------------------------------------------- output


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False, width=None if sys.stdout.isatty() else 160)  # a pipe has no width of its own


def _cpu_seconds() -> float:
    """Of this process and of the specialists' processes that have ended."""
    return sum(os.times()[:4])


@contextmanager
def _warned_once() -> Iterator[None]:
    """Warnings go to stderr, each once: phases and stretches make the same market again and again."""
    said: set[str] = set()

    def is_new(record: logging.LogRecord) -> bool:
        known = record.getMessage() in said
        said.add(record.getMessage())
        return not known

    handler, root = logging.StreamHandler(), logging.getLogger("troupe")
    handler.setLevel(logging.WARNING)
    handler.addFilter(is_new)
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)


class _Lines:
    """A progress callback: for each part of a phase a line every few seconds, and one at its end."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._began = self._said = time.monotonic()
        self._part, self._since = "", (0, 0.0)

    def __call__(self, part: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        now = time.monotonic()
        if part != self._part:
            self._part, self._since = part, (step, now)
        elif now - self._said < 5 and step < total:
            return
        self._said = now
        words = [f"{now - self._began:6.0f} s", f"{part:<19}"]
        if metrics:
            words.append(f"{100 * step / total:3.0f} % of {total:,} steps")
            words += self._speed(step, now)
            words += [f"reward {metrics[key]:+.2f}" for key in ("rollout/ep_rew_mean",) if key in metrics]
        else:  # a specialist in a process of its own
            words.append(f"has learned ({step} of {total})")
        self._console.print("   ".join(words), soft_wrap=True)

    def _speed(self, step: int, now: float) -> list[str]:
        """Since the part was first heard of."""
        since, then = self._since
        return [f"{(step - since) / (now - then):,.0f} steps/s"] if step > since and now > then else []


def _show_phases(console: Any, result: TradingResult, confidence: float) -> None:
    from rich.table import Table

    from troupe.systems.trading.hierarchy_record import phase_rows

    table = Table(
        "phase", "candidate", "against", "Sharpe difference", f"{100 * confidence:g} % interval", "verdict",
        "targets met",
        title="Gates: paired episodes of the validation stretch",
    )  # fmt: skip
    for row in phase_rows([result.phases]):
        found = result.phases[row["phase"]]
        gate = (found["specialists"][row["part"]] if row["part"] else found)["gate"]
        met = sum(target["met"] for target in row["targets"])
        table.add_row(
            str(row["phase"]), row["part"] or _CANDIDATES[row["phase"]], row["against"], *_interval(gate["difference"]),
            "improved" if row["promoted"] else "did not improve", f"{met} of {len(row['targets'])}",
        )  # fmt: skip
    console.print(table)


_CANDIDATES = {2: "meta-controller", 3: "team"}


def _traded(phase: int) -> str:
    """What the gates let through, in words."""
    return (
        "nothing is traded, no gate let anything through",
        "the specialists with an edge of their own, equally allocated (phase 1)",
        "the meta-controller over its specialists (phase 2)",
        "the team that learned together (phase 3)",
    )[phase]


def _verdict(stretch: str, edge: Any) -> str:
    found = "an edge" if edge.significant else "no edge"
    return f"{stretch}: {found} at alpha {edge.alpha:g} (p = {edge.p_value:.2g}, {edge.n} bars)"


def _show_targets(console: Any, metrics: Mapping[str, Any], title: str) -> None:
    """What was measured beside document 002's targets of each phase."""
    from rich.table import Table

    from troupe.systems.trading.phase_metrics import PHASE_TARGETS

    table = Table("metric", "measured", "95 % interval", *(f"target {n}" for n in PHASE_TARGETS), title=title)
    for name in dict.fromkeys(name for targets in PHASE_TARGETS.values() for name in targets):
        value = metrics["risk_compliance"][name] if name == "var_compliance" else metrics[name]
        measured = {"mean": value, "low": None, "high": None} if isinstance(value, float) else value
        targets = [targets[name][0] if name in targets else "n/a" for targets in PHASE_TARGETS.values()]
        table.add_row(name.replace("_", " "), *_interval(measured, percent=name != "sharpe"), *targets)
    console.print(table)


def _show_metrics(console: Any, metrics: Mapping[str, Any]) -> None:
    """How the team does it: document 002's five questions of phases 2 and 3."""
    from rich.table import Table

    table = Table("", "metric", "measured", "95 % interval")
    for title, rows in _answers(metrics).items():
        for number, (name, value, percent) in enumerate(rows):
            found = {"mean": value, "low": None, "high": None} if isinstance(value, float) else value
            table.add_row("" if number else title, name, *_interval(found, percent=percent))
        table.add_section()
    console.print(table)


def _answers(metrics: Mapping[str, Any]) -> dict[str, list[tuple[str, Any, bool]]]:
    """Question -> (name, number or interval, whether it is a share)."""
    allocation, risk, used, together, regimes = (
        metrics[key]
        for key in ("allocation_efficiency", "risk_compliance", "specialist_utilization", "coordination_quality",
                    "robustness")
    )  # fmt: skip
    return {
        "allocation efficiency": [
            ("Sharpe over equal allocation", allocation["sharpe_gain"], False),
            ("information coefficient", allocation["information_coefficient"], False),
        ],
        "risk compliance": [
            ("drawdown within its target", risk["drawdown_compliance"], True),
            ("VaR within its limit", risk["var_compliance"], True),
            ("VaR breaches", risk["var_breaches"], True),
            ("VaR breaches forecast", risk["var_breaches_expected"], True),
            *((f"{name.replace('_', ' ')} limit acted", share, True) for name, share in risk["limits"].items()),
        ],
        "specialist utilization": [
            *((f"share of {sector}", share, True) for sector, share in used["share"].items()),
            *((f"{sector} holds something", share, True) for sector, share in used["active"].items()),
            ("evenness of shares", used["effective_specialists"], True),
            ("risk appetite", used["risk_appetite"], True),
        ],
        "coordination quality": [
            ("volatility left of the sectors'", together["diversification"], True),
            ("correlation of sectors", together["correlation"], False),
            ("bars of disagreement", together["disagreement"], True),
        ],
        "robustness": [
            *((f"Sharpe, {name} ({each['bars']} bars)", each["sharpe"], False)
              for name, each in regimes["regimes"].items()),
            ("worst Sharpe of a regime", regimes["worst_sharpe"], False),
        ],
    }  # fmt: skip


def _interval(found: Mapping[str, Any] | None, *, percent: bool = False) -> tuple[str, str]:
    """Mean and bounds as cells."""

    def cell(value: float) -> str:
        return f"{100 * value:.1f} %" if percent else f"{value:+.2f}"

    if found is None or found["mean"] is None:
        return "-", "-"
    bounds = found["low"], found["high"]
    return cell(found["mean"]), "-" if None in bounds else f"[{cell(bounds[0])}, {cell(bounds[1])}]"
