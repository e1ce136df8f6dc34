"""What search and expert iteration gain on tasks with exact verifiers.

    python benchmarks/tasks.py gain --family math --seeds 0 1 2       # about 6 minutes a seed on two cores
    python benchmarks/tasks.py controls --family math                 # runs that must not improve
    python benchmarks/tasks.py agents tasks.kinds=[knapsack] acting.tasks=192 trainer.iterations=16 \
        --family search --seeds 0 1 2                                 # HRM, TRM, both, a transformer
    python benchmarks/tasks.py effort                                 # difficulty against uniform search, every kind

`gain` trains a family's preset and attempts 400 final tasks, which had no part in anything before, with the champion
and with the untrained networks, by the same search with the same simulations. Intervals are paired (McNemar's table,
Agresti and Min 2005). `controls`: observations of other positions, and tasks with wrong answers. Further words are
overrides, written before the options: `gain trainer.iterations=40 --family math`.
"""

from __future__ import annotations

import argparse
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from troupe.cli.tasks import PRESETS, resolve_tasks
from troupe.engines.evaluator import UniformEvaluator
from troupe.maths.statistics import Interval, mean_interval, wilson
from troupe.systems.selfplay.verifiable.attempts import RETURNS, attempt
from troupe.systems.selfplay.verifiable.families import family_of, training_tasks
from troupe.systems.selfplay.verifiable.results import TaskResult
from troupe.systems.selfplay.verifiable.trainer import TaskTrainer


def _net(prefix: str, kind: str) -> list[str]:
    return [f"{prefix}.{word}" for word in (f"kind={kind}", "hidden=32", "layers=1", "heads=2")]


AGENTS = {
    "transformer": [*_net("net", "transformer")],
    "hrm": [*_net("net", "hrm")],
    "trm": [*_net("net", "trm")],
    "hrm policy, trm value": [*_net("net", "hrm"), *_net("value_net", "trm")],
}
"""Networks of one width, small enough for a search on a CPU; the last is document 001's "with both agents"."""


def trained(
    family: str, seed: int, folder: Path, overrides: Sequence[str] = (), preset: str | None = None
) -> TaskResult:
    """One run from nothing."""
    if folder.exists():
        shutil.rmtree(folder)
    words = [f"family={family}", f"seed={seed}", f"trainer.default_local_dir={folder}", *overrides]
    return TaskTrainer(resolve_tasks(preset, (), words).config).train()


def gain(arguments: argparse.Namespace) -> None:
    differences = []
    for seed in arguments.seeds:
        result = trained(arguments.family, seed, arguments.folder / f"{arguments.family}-{seed}", arguments.overrides)
        final = result.final
        print(
            f"{arguments.family} seed {seed}: {_share(final.before)} untrained, {_share(final.after)} champion, "
            f"{_share(final.uniform)} without any network, "
            f"{_points(final.difference)}, p = {final.p:.2g}; {result.seconds:.0f} s, {result.cpu_seconds:.0f} CPU-s"
        )
        for own in final.kinds:
            print(
                f"    {own.kind:<14} {_share(own.before)} -> {_share(own.after)}, {_points(own.difference)}", flush=True
            )
        differences.append(final.difference.mean)
    print(f"{arguments.family}: mean over seeds {_points(mean_interval(differences))}")


def controls(arguments: argparse.Namespace) -> None:
    for control in ("none", "permuted", "corrupted"):
        for seed in arguments.seeds:
            folder = arguments.folder / f"{arguments.family}-{control}-{seed}"
            final = trained(arguments.family, seed, folder, [f"tasks.control={control}", *arguments.overrides]).final
            print(
                f"{arguments.family} {control:<10} seed {seed}: {_share(final.before)} -> {_share(final.after)}, "
                f"{_points(final.difference)}; {_points(final.over_uniform)} over a search without any network",
                flush=True,
            )


def agents(arguments: argparse.Namespace) -> None:
    """The same budget of attempts and simulations for every pair of networks."""
    after: dict[str, list[float]] = {}
    for name, words in AGENTS.items():
        for seed in arguments.seeds:
            folder = arguments.folder / f"{arguments.family}-{name.replace(' ', '-').replace(',', '')}-{seed}"
            result = trained(arguments.family, seed, folder, [*words, *arguments.overrides])
            after.setdefault(name, []).append(result.final.after.mean)
            print(
                f"{arguments.family} {name:<22} seed {seed}: "
                f"{_share(result.final.before)} -> {_share(result.final.after)}, "
                f"{_points(result.difference)}; {result.final.evaluated:,} positions judged, "
                f"{result.cpu_seconds:.0f} CPU-s",
                flush=True,
            )
    for name, shares in after.items():
        print(f"{name:<22} mean over seeds {100 * np.mean(shares):.1f} %")


def effort(arguments: argparse.Namespace) -> None:
    """Share that a search with uniform priors and values solves, by difficulty, and in the preset's range. Its root is
    sampled with Gumbel noise: without, ties would always fall to the first action."""
    levels = arguments.levels
    for name in PRESETS if arguments.family is None else [arguments.family]:
        config = resolve_tasks(None, (), [f"family={name}", *arguments.overrides]).config
        family = family_of(config.tasks)
        for kind in family.kinds:
            found = {}
            for span in [*((level, level) for level in levels), family.range_of(kind)]:
                tasks = training_tasks(family, kind, span, arguments.n, (arguments.seeds[0], 1), set())
                made = attempt(
                    family, family.game(kind), UniformEvaluator(sum(RETURNS) / 2), config.search, config.acting, tasks,
                    (arguments.seeds[0], 2), explore=True,
                )  # fmt: skip
                found[span] = wilson(int(made.successes.sum()), len(tasks))
            told = "  ".join(f"{low:.2f}{'' if low == high else f' to {high:.2f}'}: {_share(share)}"
                             for (low, high), share in found.items())  # fmt: skip
            print(f"{name:<10} {kind:<14} {told}", flush=True)


def _share(found: Interval) -> str:
    return f"{100 * found.mean:.1f} %"


def _points(found: Interval) -> str:
    return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}] points"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("gain", "controls", "agents", "effort"))
    parser.add_argument("overrides", nargs="*", metavar="KEY=VALUE")
    parser.add_argument("--family", default=None)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--n", type=int, default=100, help="tasks per difficulty (effort)")
    parser.add_argument(
        "--levels", type=float, nargs="*", default=[0.0, 0.25, 0.5, 0.75, 1.0], help="difficulties (effort)"
    )
    parser.add_argument("--folder", type=Path, default=Path("runs/benchmarks/tasks"))
    arguments = parser.parse_intermixed_args()
    if arguments.family is None and arguments.what != "effort":
        parser.error(f"{arguments.what} needs --family")
    {"gain": gain, "controls": controls, "agents": agents, "effort": effort}[arguments.what](arguments)


if __name__ == "__main__":
    main()
