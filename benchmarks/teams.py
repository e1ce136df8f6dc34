"""Do the five teams learn? Each preset and its two controls, several seeds, before and after reinforcement learning.

    python benchmarks/teams.py --seeds 0 1 2 --jobs 2 --folder runs/teams --plot docs/img/teams.svg

An arm is TEAM (its preset as it is), TEAM-answers (`data.shuffle_answers=true`: every training task has another one's
answer) or TEAM-prompts (`data.shuffle_prompts=true`). Success is sampled (temperature 1, one attempt) on the preset's
held-out tasks; for the math team on the kinds that its gate covers. A second call continues, and computes nothing that
exists. Seconds are those of the whole command: tasks, demonstrations, fine-tuning, reinforcement learning, validation.
"""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from arms import in_processes, options

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

COLOURS = {"": "#0b6e4f", "answers": "#c2410c", "prompts": "#6d28d9"}
LABELS = {"": "as it is", "answers": "answers permuted", "prompts": "prompts permuted"}


def picture(arms: Sequence[str], seeds: Sequence[int], folder: Path, path: Path) -> None:
    """One panel per team, one line per seed and arm: held-out success over updates."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams.update({"svg.hashsalt": "teams", "font.size": 8})  # the same runs, the same file
    from matplotlib import pyplot as plt

    teams = [team for team in TEAMS if any(_load(arm, seeds, folder) for arm in arms if arm.partition("-")[0] == team)]
    figure, panels = plt.subplots(1, len(teams), figsize=(2.2 * len(teams), 2.3), sharey=True, squeeze=False)
    for team, panel in zip(teams, panels[0], strict=True):
        for control, colour in COLOURS.items():
            arm = f"{team}-{control}" if control else team
            for run in _load(arm, seeds, folder) if arm in arms else ():
                curve = {int(update): 100 * rate for update, rate in run["curve"].items()}
                style = "--" if control == "prompts" else "-"  # both controls often run along the bottom
                panel.plot(list(curve), list(curve.values()), style, color=colour, linewidth=1.2)
        panel.set_title(team)
        panel.set_xlabel("update")
        panel.grid(axis="y", alpha=0.3)
        panel.set_ylim(-2, 102)
    panels[0, 0].set_ylabel("held-out success, %")
    entries = [
        plt.Line2D([], [], color=COLOURS[control], linestyle="--" if control == "prompts" else "-", label=label)
        for control, label in LABELS.items()
    ]
    figure.legend(handles=entries, loc="lower center", ncols=3, frameon=False)
    figure.tight_layout(rect=(0, 0.08, 1, 1))
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = options(__doc__, ARMS, "runs/teams")
    parser.add_argument("--plot", type=Path, default=None, help="also draw the curves into this SVG file")
    parser.add_argument("--show", action="store_true", help="run nothing; show what there is")
    arguments = parser.parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments.folder)
        return
    if not arguments.show:
        in_processes(__file__, [(arm, seed) for seed in arguments.seeds for arm in arguments.arms], arguments)
    print(table(arguments.arms, arguments.seeds, arguments.folder))
    if arguments.plot is not None:
        picture(arguments.arms, arguments.seeds, arguments.folder, arguments.plot)


if __name__ == "__main__":
    main()
