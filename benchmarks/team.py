"""Is a team worth it? The demo's team against what else its CPU time, its demonstrations or its tokens could buy.

    python benchmarks/team.py --seeds 0 1 2 --folder runs/team --jobs 2

Every arm trains on the same tasks and is scored on the same 256 held-out problems (sampled at temperature 1, one
attempt each; the paired noise of the demo). Runs go into one folder each, so that a second call continues; results that
exist are not computed again. CPU-seconds are those of the whole process, import and validation included; arms that run
at the same time slow each other down alike.

Arms: the team (joint updates, shared weights: the demo); the same with one LoRA adapter per agent, with one agent
trained at a time, and with both; PPO with a critic on as many episodes; the control whose training answers are
permuted; the team after supervised fine-tuning alone on demonstrations without errors, for as many steps as the demo's
and for about its CPU time; and one agent alone with the demo's demonstrations and about its CPU time, which then also
votes: as many attempts as the team's sampled tokens pay for, and the most frequent answer counts.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from arms import in_processes, options

from troupe.maths.statistics import mean_interval, paired_difference

GATED = ("linear", "word")
LORA = ("policies.weights=lora", "optim.lr=1e-3")
SOLO = ("workflow=math_solo", "~workflow.args.max_refinement_iterations")


@dataclass(frozen=True)
class Arm:
    """What an arm changes of the demo's preset."""

    title: str
    overrides: tuple[str, ...] = ()


ARMS = {
    "team": Arm("team: joint, shared weights (the demo)"),
    "joint-lora": Arm("team: joint, one LoRA adapter per agent", LORA),
    "separate-shared": Arm("team: one agent at a time, shared weights", ("policies.mode=separate",)),
    "separate-lora": Arm("team: one agent at a time, one LoRA adapter per agent", ("policies.mode=separate", *LORA)),
    "ppo": Arm(
        "team: PPO with a critic instead of GRPO",
        ("algorithm.adv_estimator=gae", "rollout.n=1", "data.train_batch_size=128", "critic.lr=1e-3"),
    ),
    "shuffled": Arm("team: permuted training answers (control)", ("data.shuffle_answers=true",)),
    "sft-clean": Arm("team: 400 steps on error-free demonstrations, no RL", ("sft.noise=0", "trainer.total_steps=0")),
    "sft-clean-long": Arm(
        "team: 1000 steps on error-free demonstrations, no RL",
        ("sft.noise=0", "sft.steps=1000", "trainer.total_steps=0"),
    ),
    "solo": Arm("one agent", (*SOLO, "sft.steps=1100", "trainer.total_steps=110", "trainer.test_freq=110")),
}


def main() -> None:
    arguments = options(__doc__, list(ARMS), "runs/team").parse_args()
    if arguments.one:
        train(arguments.one[0], int(arguments.one[1]), arguments.folder)
        return
    in_processes(__file__, [(arm, seed) for seed in arguments.seeds for arm in arguments.arms], arguments)
    if {"team", "solo"} <= set(arguments.arms):
        for seed in arguments.seeds:
            vote(seed, arguments.folder)
    print(table(arguments.arms, arguments.seeds, arguments.folder))


def _result(arm: str, seed: int, folder: Path) -> Path:
    return folder / f"{arm}-{seed}.json"


def train(arm: str, seed: int, folder: Path) -> None:
    """One run, and its result as JSON: reports before and after RL, and what it cost."""
    from troupe.cli.train import resolve_config
    from troupe.systems.workflow_rl.trainer import AgentTrainer

    run = folder / f"{arm}-{seed}"
    forced = [f"trainer.default_local_dir={json.dumps(str(run))}", f"seed={seed}"]
    config = resolve_config("demo", [], [*ARMS[arm].overrides, *forced]).config
    continued = (run / "config.json").exists()  # its CPU time is then not the whole
    result = AgentTrainer(config=config).train()
    found = {
        "arm": arm,
        "seed": seed,
        "before": result.reports[0].to_dict(),
        "after": result.reports[max(result.reports)].to_dict(),
        "cpu_seconds": None if continued else time.process_time(),
        "parameter_hash": result.parameter_hash,
    }
    _result(arm, seed, folder).write_text(json.dumps(found))
    print(f"{arm} seed {seed}: {_success(found['before']):.3f} -> {_success(found['after']):.3f}", flush=True)


def vote(seed: int, folder: Path) -> None:
    """The solver's majority vote over as many attempts as the team's sampled tokens pay for."""
    path = _result("vote", seed, folder)
    if path.exists():
        return
    from troupe.systems.workflow_rl.deploy import load_team
    from troupe.systems.workflow_rl.tasks import load_tasks

    tokens = [_load(arm, seed, folder)["after"]["metrics"]["episode/sampled_tokens"] for arm in ("team", "solo")]
    attempts = max(1, round(tokens[0] / tokens[1]))
    solver = load_team(folder / f"solo-{seed}")
    tasks = [task for task in load_tasks(solver.config.data, seed)[1] if task.kind in GATED]
    report = solver.evaluate(tasks, attempts, seed=seed)
    voted = {
        score.task: float(bool(score.majority)) if score.majority is not None else score.rate for score in report.scores
    }
    path.write_text(json.dumps({"attempts": attempts, "voted": voted, "tokens": attempts * tokens[1]}))


def _load(arm: str, seed: int, folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(_result(arm, seed, folder).read_text())
    return found


def _rates(report: dict[str, Any]) -> dict[str, float]:
    return {s["task"]: s["successes"] / s["attempts"] for s in report["scores"] if s["kind"] in GATED}


def _success(report: dict[str, Any]) -> float:
    rates = _rates(report)
    return sum(rates.values()) / len(rates)


def table(arms: Sequence[str], seeds: Sequence[int], folder: Path) -> str:
    """Markdown. Success per seed, its mean with Student's interval over seeds, and the same of the paired differences
    to the team."""
    lines = [
        "| arm | success after SFT, per seed | after RL, per seed | mean [95 % over seeds] | minus the team "
        "| tokens per problem | CPU-s |",
        "|---|---|---|---|---|---|---|",
    ]
    for arm in arms:
        runs = [_load(arm, seed, folder) for seed in seeds]
        before, after = [_success(r["before"]) for r in runs], [_success(r["after"]) for r in runs]
        tokens = [r["after"]["metrics"]["episode/sampled_tokens"] for r in runs]
        cpu = [r["cpu_seconds"] for r in runs if r["cpu_seconds"] is not None]
        gaps = [_gap(_rates(r["after"]), seed, folder) for r, seed in zip(runs, seeds, strict=True)]
        lines.append(
            _line(ARMS[arm].title, before, after, gaps if arm != "team" and "team" in arms else [], tokens, cpu)
        )
    if {"team", "solo"} <= set(arms):
        votes = [_load("vote", seed, folder) for seed in seeds]
        after = [sum(v["voted"].values()) / len(v["voted"]) for v in votes]
        gaps = [_gap(v["voted"], seed, folder) for v, seed in zip(votes, seeds, strict=True)]
        title = f"one agent, majority of {', '.join(str(v['attempts']) for v in votes)}"
        lines.append(_line(title, [], after, gaps, [v["tokens"] for v in votes], []))
    return "\n".join(lines)


def _gap(rates: dict[str, float], seed: int, folder: Path) -> float:
    """Mean difference to the team of the same seed, over the same tasks."""
    team = _rates(_load("team", seed, folder)["after"])
    if set(rates) != set(team):
        raise SystemExit(f"seed {seed}: arms were scored on different tasks")
    return paired_difference([rates[task] for task in team], [team[task] for task in team]).mean


def _line(
    title: str,
    before: Sequence[float],
    after: Sequence[float],
    gaps: Sequence[float],
    tokens: Sequence[float],
    cpu: Sequence[float],
) -> str:
    return " | ".join(
        [
            f"| {title}",
            _each(before),
            _each(after),
            _interval(after),
            _interval(gaps, signed=True),
            f"{sum(tokens) / len(tokens):.0f}",
            f"{sum(cpu) / len(cpu):.0f} |" if cpu else " |",
        ]
    )


def _each(values: Sequence[float]) -> str:
    return ", ".join(f"{100 * v:.1f}" for v in values)


def _interval(values: Sequence[float], *, signed: bool = False) -> str:
    if not values:
        return ""
    found = mean_interval(values)
    if signed:
        return f"{100 * found.mean:+.1f} [{100 * found.low:+.1f}, {100 * found.high:+.1f}]"
    low, high = max(0.0, found.low), min(1.0, found.high)  # a share's
    return f"{100 * found.mean:.1f} [{100 * low:.1f}, {100 * high:.1f}]"


if __name__ == "__main__":
    main()
