"""Do the five teams learn? Each preset and its two controls, several seeds, before and after reinforcement learning.

    python benchmarks/teams.py --seeds 0 1 2 --jobs 2 --folder runs/teams --plot docs/img/teams.svg

An arm is TEAM (its preset as it is), TEAM-answers (`data.shuffle_answers=true`: every training task has another one's
answer) or TEAM-prompts (`data.shuffle_prompts=true`). Success is sampled (temperature 1, one attempt) on the preset's
held-out tasks; for the math team on the kinds that its gate covers. A second call continues, and computes nothing that
exists. Seconds are those of the whole command: tasks, demonstrations, fine-tuning, reinforcement learning, validation.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from arms import in_processes

from troupe.maths.statistics import mean_interval

TEAMS = {
    "math_tool": "demo",
    "deepcoder": "deepcoder",
    "swe": "swe",
    "search": "search",
    "deepresearch": "deepresearch",
}
CONTROLS = {"": "", "answers": "data.shuffle_answers=true", "prompts": "data.shuffle_prompts=true"}
GATED = {"math_tool": ("linear", "word")}
ARMS = [f"{team}-{control}" if control else team for team in TEAMS for control in CONTROLS]


def one(arm: str, seed: int, folder: Path) -> None:
    """One run, and its result as JSON."""
    began = time.perf_counter()
    from troupe.cli.train import resolve_config
    from troupe.systems.workflow_rl.trainer import AgentTrainer

    team, _, control = arm.partition("-")
    run = folder / f"{arm}-{seed}"
    overrides = [
        f"trainer.default_local_dir={json.dumps(str(run))}",
        f"seed={seed}",
        *filter(None, [CONTROLS[control]]),
    ]
    continued = (run / "config.json").exists()  # its time is then not the whole
    result = AgentTrainer(config=resolve_config(TEAMS[team], [], overrides).config).train()
    kinds = GATED.get(team)
    reports = {str(update): report for update, report in sorted(result.reports.items())}
    first, *_, last = reports.values()
    usage = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    found = {
        "curve": {update: report.success(kinds).mean for update, report in reports.items()},
        "tasks": sum(kinds is None or score.kind in kinds for score in last.scores),
        "by_kind": {kind: [r.success((kind,)).mean for r in (first, last)] for kind in last.kinds()},
        "rewards": {
            name.split("/")[1]: [first.metrics[name], last.metrics[name]]
            for name in last.metrics
            if name.startswith("reward/") and name.endswith("/mean")
        },
        "wall_seconds": None if continued else time.perf_counter() - began,
        "cpu_seconds": None if continued else sum(u.ru_utime + u.ru_stime for u in usage),
        "parameter_hash": result.parameter_hash,
    }
    (folder / f"{arm}-{seed}.json").write_text(json.dumps(found))
    print(f"{arm} seed {seed}: {' -> '.join(f'{rate:.3f}' for rate in found['curve'].values())}", flush=True)


def _load(arm: str, seeds: Sequence[int], folder: Path) -> list[dict[str, Any]]:
    """Results of an arm, for the seeds that it was run with."""
    files = [folder / f"{arm}-{seed}.json" for seed in seeds]
    return [json.loads(file.read_text()) for file in files if file.exists()]


def table(arms: Sequence[str], seeds: Sequence[int], folder: Path) -> str:
    """Markdown. Gains in points, with Student's 95 % interval over several seeds; seconds are means over seeds."""
    lines = [
        "| arm | held-out tasks | before, per seed | after, per seed | gain [95 % over seeds] | wall s | CPU-s |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        runs = _load(arm, seeds, folder)
        if not runs:
            continue
        curves = [list(run["curve"].values()) for run in runs]
        gain = mean_interval([100 * (curve[-1] - curve[0]) for curve in curves])
        cells = [arm, str(runs[0]["tasks"])]
        cells += [", ".join(f"{100 * curve[end]:.1f}" for curve in curves) for end in (0, -1)]
        cells.append(f"{gain.mean:+.1f}" + (f" [{gain.low:+.1f}, {gain.high:+.1f}]" if len(runs) > 1 else ""))
        for clock in ("wall_seconds", "cpu_seconds"):
            known = [run[clock] for run in runs if run[clock] is not None]
            cells.append(f"{sum(known) / len(known):.0f}" if known else "not recorded")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


# ---------------------------------------------------------------------------------------------- the picture

WIDTH, HEIGHT, LEFT, TOP = 190, 120, 34, 26
COLOURS = {"": "#0b6e4f", "answers": "#c2410c", "prompts": "#6d28d9"}
LABELS = {"": "as it is", "answers": "answers permuted", "prompts": "prompts permuted"}


def picture(arms: Sequence[str], seeds: Sequence[int], folder: Path) -> str:
    """SVG: one panel per team, one line per seed and arm, held-out success over updates."""
    teams = [team for team in TEAMS if any(_load(arm, seeds, folder) for arm in arms if arm.partition("-")[0] == team)]
    step = WIDTH + LEFT + 14
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {step * len(teams)} {HEIGHT + TOP + 44}" '
        'font-family="sans-serif" font-size="10"><rect width="100%" height="100%" fill="#fff"/>'
    ]
    for number, team in enumerate(teams):
        parts += _panel(
            team, [arm for arm in arms if arm.partition("-")[0] == team], seeds, folder, number * step + LEFT
        )
    for number, (control, label) in enumerate(LABELS.items()):
        x, y = LEFT + 130 * number, TOP + HEIGHT + 38
        parts.append(f'<path d="M{x} {y - 3}h18" stroke="{COLOURS[control]}" stroke-width="2"/>')
        parts.append(f'<text x="{x + 24}" y="{y}">{label}</text>')
    return "\n".join([*parts, "</svg>"])


def _panel(team: str, arms: Sequence[str], seeds: Sequence[int], folder: Path, left: int) -> list[str]:
    runs = [(arm.partition("-")[2], run["curve"]) for arm in arms for run in _load(arm, seeds, folder)]
    last = max([1, *(int(update) for _, curve in runs for update in curve)])
    parts = [f'<text x="{left}" y="{TOP - 10}" font-weight="bold">{team}</text>']
    for percent in (0, 50, 100):
        y = TOP + HEIGHT * (1 - percent / 100)
        parts.append(f'<path d="M{left} {y}h{WIDTH}" stroke="#ddd"/>')
        parts.append(f'<text x="{left - 4}" y="{y + 3}" text-anchor="end" fill="#555">{percent} %</text>')
    for x, label in ((left, "0"), (left + WIDTH / 2, "update"), (left + WIDTH, str(last))):
        parts.append(f'<text x="{x}" y="{TOP + HEIGHT + 14}" text-anchor="middle" fill="#555">{label}</text>')
    for control, curve in runs:
        points = [(left + WIDTH * int(u) / last, TOP + HEIGHT * (1 - rate)) for u, rate in curve.items()]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        dash = ' stroke-dasharray="4 3"' if control == "prompts" else ""  # both controls often run along the bottom
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[control]}" stroke-width="1.6"{dash}/>')
    return parts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--arms", nargs="+", default=ARMS, choices=ARMS)
    parser.add_argument("--folder", type=Path, default=Path("runs/teams"))
    parser.add_argument("--plot", type=Path, default=None, help="also draw the curves into this SVG file")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--show", action="store_true", help="run nothing; show what there is")
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments.folder)
        return
    if not arguments.show:
        in_processes(__file__, [(arm, seed) for seed in arguments.seeds for arm in arguments.arms], arguments)
    print(table(arguments.arms, arguments.seeds, arguments.folder))
    if arguments.plot is not None:
        arguments.plot.write_text(picture(arguments.arms, arguments.seeds, arguments.folder))


if __name__ == "__main__":
    main()
