"""A small run folder as the workflow RL trainer leaves it: three agents, two kinds of tasks, a team that improves."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from troupe.episode import Episode, Outcome, Sampling, Step, StopReason, Task, Tokens, Trajectory, message
from troupe.maths.statistics import paired_difference
from troupe.stores.episodes import EpisodeStore
from troupe.training.evaluation import Report

AGENTS = ("analyzer", "executor", "verifier")


def call(expression: str) -> dict[str, Any]:
    function = {"name": "calculator", "arguments": json.dumps({"expression": expression})}
    said = message("assistant", f"<call>{expression}</call>")
    return {**said, "tool_calls": [{"id": "call_0", "type": "function", "function": function}]}


def step(agent: str, n: int, heard: list[Any], said: dict[str, Any], parent: str | None = None) -> Step:
    length = max(1, len(said["content"]) // 3)
    tokens = Tokens((1, 2), tuple(range(length)), (-0.5,) * length, (1,) * length, "team", sampling=Sampling(32))
    return Step(f"{agent}/{n}", agent, parent, tuple(heard), said, done=parent is not None, tokens=tokens)


def episode(
    purpose: str, task_id: str, *, solved: bool, answer: str = "16", problem: str = "Solve 4x - 30 = 34"
) -> Episode:
    """One attempt; `answer` is what the executor says."""
    plan = [message("system", "plan"), message("user", problem)]
    asked = [message("system", "compute"), message("user", f"{problem}\nPlan: (34+30)/4")]
    check = [message("system", "check"), message("user", f"{problem}\nAnswer: {answer}")]
    result = message("tool", "64/4", tool_call_id="call_0", name="calculator")
    paid = float(solved)
    said = message("assistant", f"<ans>{answer}</ans>")
    trajectories = (
        Trajectory(
            "analyzer",
            (step("analyzer", 0, plan, message("assistant", "<ans>(34+30)/4</ans>")),),
            paid,
            StopReason.DONE,
        ),
        Trajectory(
            "executor",
            (step("executor", 0, asked, call("(34+30)/4")), step("executor", 1, [result], said, "executor/0")),
            0.3 + 0.7 * paid,
            StopReason.DONE,
        ),
        Trajectory(
            "verifier", (step("verifier", 0, check, call(f"4*{answer}-30-34")),), 1 - paid, StopReason.MAX_TURNS
        ),
    )
    outcome = Outcome.SUCCESS if solved else Outcome.FAILURE
    return Episode(
        f"{purpose}/{task_id}/0", task_id, trajectories, outcome, {"final_success": paid}, f"{purpose}/{task_id}",
        metadata={"answer": answer, "kind": task_id.split("-")[0]},
    )  # fmt: skip


def tasks(count: int) -> list[Task]:
    return [
        Task(f"{'linear' if i % 2 else 'word'}-{i}", "linear" if i % 2 else "word", "Solve 4x - 30 = 34")
        for i in range(count)
    ]


def lines(path: Path, rows: list[dict[str, Any]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))


def training_row(update: int, updates: int, rng: random.Random) -> dict[str, Any]:
    done = update / updates
    row: dict[str, Any] = {"step": update, "actor/entropy": 1.9 - 1.2 * done, "actor/pg_clipfrac": 0.02 * rng.random()}
    row |= {"actor/ppo_kl": 1e-4 * rng.random(), "actor/grad_norm/team": 0.5 + rng.random(), "actor/loss/policy": 0.01}
    row |= {
        "rollout/rows": 400,
        "rollout/rows_without_signal": 300 - 200 * done,
        "workflow/final_success": 0.2 + 0.5 * done,
    }
    for i, agent in enumerate(AGENTS):
        row[f"reward/{agent}/mean"] = 0.15 + 0.1 * i + 0.5 * done + 0.1 * rng.random()
        row[f"reward/{agent}/std"] = 0.0 if update == 1 and agent == "analyzer" else 0.4
        row[f"advantage/{agent}/fraction_zero"] = 0.8 - 0.5 * done
        row[f"response_length/{agent}/mean"] = 9 + i + 2 * done
    row |= {f"episode/outcome/{o}": 0.0 for o in ("error", "timeout", "truncated")}
    row |= {"batch/solve_all": 0.1 + 0.3 * done, "batch/solve_partial": 0.4, "batch/solve_none": 0.5 - 0.3 * done}
    return row | ({"training/rollout_logprob_diff_max": 3.8e-6} if update == 1 else {})


def make_run(folder: Path, *, updates: int = 30, size: int = 24, hostile: str = "16") -> dict[str, Any]:
    """Writes the run's files and returns a summary. `hostile` is what the executor answers after the first update."""
    rng = random.Random(0)
    held_out = tasks(size)
    luck = [rng.random() for _ in held_out]
    lines(folder / "metrics.jsonl", [training_row(u, updates, rng) for u in range(1, updates + 1)])
    lines(
        folder / "timing.jsonl",
        [
            {"step": u, "time/rollout_s": 7 + rng.random(), "time/update_s": 4 + rng.random()}
            for u in range(1, updates + 1)
        ],
    )
    lines(folder / "sft" / "metrics.jsonl", [{"step": s, "sft/nll": 5.5 * 0.97**s + 0.4} for s in range(1, 61)])
    (folder / "config.json").write_text(json.dumps({"seed": 0, "workflow": {"name": "math_tool"}}))
    reports = {}
    (folder / "val").mkdir()
    for update in range(0, updates + 1, max(1, updates // 5)):
        chance = 0.25 + 0.5 * update / updates
        found = [
            episode(
                f"val{update}",
                t.id,
                solved=luck[i] < chance or (i == 1 and update == 0),
                answer=hostile if update else "9",
            )
            for i, t in enumerate(held_out)
        ]
        reports[update] = Report.of(f"update {update}", held_out, found, {})
        (folder / "val" / f"report_{update}.json").write_text(json.dumps(reports[update].to_dict()))
        EpisodeStore(folder / "val" / f"episodes_{update}.jsonl").append(found)
    with EpisodeStore(folder / "episodes.jsonl") as store:
        for update in (0, 1, updates - 1):
            store.append(
                [episode(f"update{update}", t.id, solved=rng.random() < 0.2 + 0.6 * update / updates) for t in held_out]
            )
    return summary_of(reports)


def summary_of(reports: dict[int, Report]) -> dict[str, Any]:
    before, after = reports[0], reports[max(reports)]
    rates = [[score.rate for score in report.scores] for report in (after, before)]
    sources = (
        "1 if its plan computes to the right answer",
        "0.7 if right + 0.3 if faithful",
        "1 if its verdict is true",
    )
    return {
        "title": "Math team",
        "verdict": "promoted",
        "reasons": ["improved by +0.46 [+0.26, +0.66] over 24 tasks"],
        "credit_table": [
            {"agent": a, "policy": "team", "trained": True, "reward": s, "group": "by_agent", "estimator": "grpo"}
            for a, s in zip(AGENTS, sources, strict=True)
        ],
        "before": asdict(before.success()),
        "after": asdict(after.success()),
        "difference": asdict(paired_difference(*rates)),
        "by_kind": [
            {
                "kind": k,
                "gated": k == "linear",
                "before": asdict(before.success([k])),
                "after": asdict(after.success([k])),
            }
            for k in before.kinds()
        ],
        "seconds": 754.2,
        "cpu_seconds": 1301.0,
        "machine": "2 cores, 8 GB",
        "seed": 0,
        "registry": "math@3",
        "commands": ["troupe ask math@3 'Solve 3x + 4 = 19'", "troupe train workflow --config math.yaml"],
    }


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., tuple[Path, dict[str, Any]]]:
    """`run(**options)` makes a run folder and returns it with its summary."""

    def make(**options: Any) -> tuple[Path, dict[str, Any]]:
        folder = tmp_path / "run"
        folder.mkdir()
        return folder, make_run(folder, **options)

    return make
