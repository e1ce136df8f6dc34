"""Where an update's episodes come from: whole batches, groups with a signal, a stream with bounded age."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import pytest

from tests.letters import Letters
from tests.runs import TINY, lines_of
from troupe.config import load
from troupe.episode import Episode, Outcome, Trajectory, message
from troupe.errors import ConfigError
from troupe.systems.workflow_rl import AgentTrainer
from troupe.systems.workflow_rl.collect import has_signal
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.tasks.math import MathProblemGenerator

TASKS = MathProblemGenerator(seed=5).generate(20)
TRAIN, VAL = TASKS[:16], TASKS[16:]


def run(folder: Path, workflow: Any = Letters, **changed: Any) -> list[dict[str, Any]]:
    """The metrics of three updates of two tasks, two attempts each."""
    short = {"sft.steps": 0, "trainer.total_steps": 3, "trainer.default_local_dir": folder, "trainer.test_freq": 0}
    short |= {"data.train_batch_size": 2, "rollout.n": 2, "trainer.val_before_train": "false"}
    values = TINY | short | {key.replace("__", "."): v for key, v in changed.items()}
    config = load(WorkflowRLConfig, overrides=[f"{key}={value}" for key, value in values.items()]).config
    AgentTrainer(workflow, {}, config, TRAIN, VAL).train()
    return list(lines_of(folder / "metrics.jsonl"))


class Lucky:
    """Pays by the task's number: tasks with an even one pay every attempt alike."""

    agent_names = ("speaker",)
    credit: ClassVar[dict[str, str]] = {"speaker": "nothing that it could know"}

    async def run(self, problem: Any, agents: Any) -> None:
        await agents.speaker.chat([message("user", problem.prompt)])

    def reward(self, task: Any, episode: Any) -> None:
        even = TASKS.index(task) % 2 == 0
        episode.trajectories[0].reward = 1.0 if even else float(episode.id.endswith("/0"))
        episode.outcome = Outcome.SUCCESS


def test_a_signal_is_a_difference_between_attempts_of_one_agent() -> None:
    def attempt(a: float, b: float) -> Episode:
        return Episode("e", "t", (Trajectory("a", (), a), Trajectory("b", (), b)))

    alike, apart = [attempt(1, 0), attempt(1, 0)], [attempt(1, 0), attempt(1, 0.5)]
    assert not has_signal(alike, ["a", "b"]) and has_signal(apart, ["a", "b"]) and not has_signal(apart, ["a"])
    raised, unpaid = replace(attempt(0, 0), outcome=Outcome.ERROR), Episode("e", "t", (Trajectory("a", (), None),))
    assert not has_signal([*alike, raised, unpaid], ["a", "b"])  # neither was worth nothing


def test_groups_that_teach_nothing_are_replaced(tmp_path: Path) -> None:
    rows = run(tmp_path, Lucky, rollout__filter_groups="true", rollout__max_rounds=8)
    for row in rows:
        assert row["rollout/groups_kept"] == 2 <= row["rollout/groups_attempted"] and row["rollout/rounds"] >= 1
        assert row.get("rollout/rows_without_signal", 0) == 0
    assert sum(row["rollout/groups_attempted"] for row in rows) > 6
    made = list(lines_of(tmp_path / "episodes.jsonl"))
    odd = {task.id for task in TASKS[1::2]}
    kept = [episode for episode in made if "left_out" not in episode["metadata"]]
    assert {episode["task_id"] for episode in kept} <= odd and len(kept) == 3 * 2 * 2
    reasons = {(episode["task_id"] in odd, episode["metadata"].get("left_out")) for episode in made}
    assert reasons <= {(True, None), (True, "no signal"), (True, "not needed"), (False, "no signal")}
    assert len(made) == sum(row["rollout/groups_attempted"] for row in rows) * 2  # every attempt is on record


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_is_left_out_is_counted(tmp_path: Path, mode: str) -> None:
    """Attempts at even tasks raise; no group of theirs has a signal, and the metrics still tell of them."""

    class Raises(Lucky):
        async def run(self, problem: Any, agents: Any) -> None:
            await super().run(problem, agents)
            if problem.id in {task.id for task in TASKS[::2]}:
                raise ValueError("broken")

    options = {"rollout__filter_groups": "true", "rollout__mode": mode}
    rows = run(tmp_path, Raises, **options, **({} if mode == "async" else {"rollout__max_rounds": 8}))
    made = list(lines_of(tmp_path / "episodes.jsonl"))
    errors = [episode for episode in made if episode["outcome"] == "error"]
    assert errors and all(episode["metadata"]["left_out"] == "no signal" for episode in errors)
    assert max(row["episode/outcome/error"] for row in rows) > 0
    assert all(row["reward/speaker/mean"] == 0.5 for row in rows)  # of those that were paid
    if mode == "async":
        assert sum(row["rollout/groups_without_signal"] for row in rows) == len(errors) / 2


def test_oversampling_attempts_more_and_keeps_a_batch(tmp_path: Path) -> None:
    rows = run(tmp_path, Lucky, rollout__filter_groups="true", rollout__oversample=3)
    assert all(row["rollout/groups_attempted"] >= 6 and row["rollout/groups_kept"] <= 2 for row in rows)


def test_a_stream_feeds_the_updates_and_tells_its_age(tmp_path: Path) -> None:
    options = {"rollout__mode": "async", "rollout__oversample": 2, "rollout__max_staleness": 3}
    rows = run(tmp_path / "a", **options)
    assert [row["step"] for row in rows] == [1, 2, 3]
    assert rows[0]["rollout/staleness_max"] == 0 and max(row["rollout/staleness_max"] for row in rows) >= 1
    assert all(row["rollout/stale_dropped"] == 0 for row in rows)
    again = run(tmp_path / "b", **options)
    assert rows == again  # no clock decides anything
    assert len(list(lines_of(tmp_path / "a" / "episodes.jsonl"))) == 3 * 2 * 2


def test_what_is_too_old_is_dropped_or_weighted_and_counted(tmp_path: Path) -> None:
    options = {"rollout__mode": "async", "rollout__oversample": 3, "rollout__max_staleness": 0}
    dropped = run(tmp_path / "a", **options)
    assert sum(row["rollout/stale_dropped"] for row in dropped) > 0
    assert all(row["rollout/staleness_max"] == 0 for row in dropped)
    weighted = run(tmp_path / "b", **options, rollout__stale="weight", algorithm__importance="token")
    assert (
        sum(row["rollout/stale_weighted"] for row in weighted) > 0 == sum(r["rollout/stale_dropped"] for r in weighted)
    )
    assert all(0 < row["training/importance_mean"] <= 2 for row in weighted)
    assert max(row["training/mismatch_kl"] for row in weighted) > 0


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"rollout__max_staleness": 2}, "belong to rollout.mode=async"),
        ({"rollout__oversample": 2}, "write filter_groups=true"),
        ({"rollout__max_rounds": 2}, "belongs to filter_groups=true"),
        ({"rollout__mode": "async", "policies__mode": "separate"}, "phases would cut the stream"),
        ({"rollout__mode": "async", "rollout__stale": "weight"}, "needs algorithm.importance"),
        ({"algorithm__importance_cap": 3}, "importance_cap goes with"),
        ({"algorithm__agents": "{writer: {dual_clip: 2, loss: gspo}}"}, "agents.writer: dual_clip belongs to loss=ppo"),
        ({"rollout__n": 1, "algorithm__adv_estimator": "gae", "algorithm__agents": "{writer: {adv_estimator: rloo}}"},
         "algorithm.agents.writer.adv_estimator=rloo compares attempts"),
    ],
)  # fmt: skip
def test_options_that_would_be_ignored_are_errors(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        run(tmp_path, **changed)
