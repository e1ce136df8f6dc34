"""`AgentTrainer` in this process: document 004's call, validation, credit, phases, and every key of the config."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.letters import Letters
from tests.runs import TINY, lines_of
from troupe.agents import Team
from troupe.batch import Batch, pack
from troupe.config import Recording, leaf_paths, load
from troupe.episode import Problem, Task
from troupe.errors import ConfigError, CreditError, StorageError, TrainingError
from troupe.models.language import Policy
from troupe.stores import tracking
from troupe.stores.checkpoints import CheckpointStore
from troupe.stores.episodes import EpisodeStore
from troupe.systems.workflow_rl import AgentTrainer
from troupe.systems.workflow_rl.alarms import alarms
from troupe.systems.workflow_rl.collect import Collector
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.systems.workflow_rl.state import remember_config
from troupe.systems.workflow_rl.trainer import TrainResult
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.math import MathProblemGenerator
from troupe.training.objectives import recomputed_logprobs

TASKS = MathProblemGenerator(seed=5).generate(20)
TRAIN, VAL = TASKS[:12], TASKS[12:16]


def config(folder: Path, **changed: Any) -> WorkflowRLConfig:
    """TINY without SFT, two updates; `__` in a name stands for the dot."""
    short = {"sft.steps": 0, "trainer.total_steps": 2, "trainer.default_local_dir": folder}
    values = TINY | short | {key.replace("__", "."): v for key, v in changed.items()}
    return load(WorkflowRLConfig, overrides=[f"{key}={value}" for key, value in values.items()]).config


def trainer(folder: Path, **changed: Any) -> AgentTrainer:
    return AgentTrainer(Letters, config=config(folder, **changed), train_dataset=TRAIN, val_dataset=VAL)


def stored(folder: Path, step: int) -> Mapping[str, Mapping[str, torch.Tensor]]:
    return CheckpointStore(folder).load(step).tensors


def same(left: Mapping[str, torch.Tensor], right: Mapping[str, torch.Tensor]) -> bool:
    assert left.keys() == right.keys()
    return all(torch.equal(left[name], right[name]) for name in left)


# ---------------------------------------------------------------------------------------------- document 004's call


def test_a_class_of_ones_own_and_lists_of_tasks(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    result = AgentTrainer(
        workflow_class=Letters,
        workflow_args={"enough": 0.0},
        config=config(tmp_path, data__val_size=99).model_dump(),
        train_dataset=TRAIN,
        val_dataset=VAL,
        progress=lambda phase, step, total, metrics: seen.append((phase, step, total)),
    ).train()
    assert isinstance(result, TrainResult) and result.folder == tmp_path and result.updates == 2
    assert {update: len(report.scores) for update, report in result.reports.items()} == {0: 4, 2: 4}
    assert result.reports[2].success().mean == 1.0  # workflow_args reached the workflow: any share is enough
    assert seen == [("val", 0, 2), ("rl", 1, 2), ("rl", 2, 2), ("val", 2, 2)]
    ids = [episode["task_id"] for episode in lines_of(tmp_path / "episodes.jsonl")]
    assert len(ids) == 2 * 2 * 4 and set(ids) <= {task.id for task in TRAIN}
    assert not same(stored(tmp_path, 0)["policy_team"], stored(tmp_path, 2)["policy_team"])


def test_who_is_paid_for_what(tmp_path: Path) -> None:
    rows = trainer(tmp_path, policies__weights="separate", policies__train="[editor]").credit_rows()
    assert [(row.agent, row.policy, row.trained, row.estimator, row.group) for row in rows] == [
        ("writer", "writer", False, "-", "-"),
        ("editor", "editor", True, "grpo", "by_agent"),
    ]
    assert rows[0].reward == "share of letters"


@pytest.mark.parametrize(("where", "failed"), [("validate", [True]), ("_one_update", [True]), ("", [False])])
def test_trackers_hear_of_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str, failed: list[bool]
) -> None:
    """At the first validation, before the loop, and within it; what was opened is closed either way."""
    told: list[bool] = []
    ended: list[str] = []

    class Witness(tracking.JsonLinesBackend):
        def close(self, *, failed: bool) -> None:
            super().close(failed=failed)
            told.append(failed)

    def broken(self: AgentTrainer, *_: Any) -> None:
        raise RuntimeError("a failure of the program")

    close = Collector.close
    monkeypatch.setitem(tracking.BACKENDS, "jsonl", Witness)
    monkeypatch.setattr(Collector, "close", lambda self: (ended.append("collector"), close(self)))
    run = trainer(tmp_path)
    if where:
        monkeypatch.setattr(AgentTrainer, where, broken)
        with pytest.raises(RuntimeError, match="a failure of the program"):
            run.train()
    else:
        run.train()
    assert (told, ended) == (failed, ["collector"])


def test_the_same_seed_gives_the_same_weights_and_another_others(tmp_path: Path) -> None:
    hashes = [trainer(tmp_path / str(i), seed=seed).train().parameter_hash for i, seed in enumerate([3, 3, 4])]
    assert hashes[0] == hashes[1] != hashes[2]


def test_each_epoch_shows_every_task_once(tmp_path: Path) -> None:
    result = trainer(
        tmp_path, data__train_batch_size=4, rollout__n=2, trainer__total_steps="null", trainer__total_epochs=2
    ).train()
    assert result.updates == 2 * 12 / 4
    ids = [episode["task_id"] for episode in lines_of(tmp_path / "episodes.jsonl")]
    first, second = ids[:24:2], ids[24::2]
    assert sorted(first) == sorted(second) == sorted(task.id for task in TRAIN) and first != second


def test_no_teacher_for_a_class_of_ones_own(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"'Letters' has no teacher; write sft\.steps=0"):
        trainer(tmp_path, sft__steps=3).train()


def test_what_cannot_be_a_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="empty"):
        AgentTrainer(Letters, config=config(tmp_path), train_dataset=[], val_dataset=VAL)
    with pytest.raises(
        ConfigError, match=r"workflow\.args\.enuf: Letters takes no such argument \(did you mean 'enough'"
    ):
        AgentTrainer(Letters, {"enuf": 1}, config(tmp_path), TRAIN, VAL)
    with pytest.raises(ConfigError, match="compares attempts"):
        config(tmp_path, rollout__n=1)
    with pytest.raises(ConfigError, match="would ignore it"):
        config(tmp_path, data__shuffle_answers="true", trainer__val_only="true")
    with pytest.raises(CreditError, match="'editr'"):
        trainer(tmp_path, policies__train="[editr]").train()


# ---------------------------------------------------------------------------------------------- validation


def test_validation_where_it_is_asked_for(tmp_path: Path) -> None:
    late = trainer(tmp_path / "late", trainer__val_before_train="false", trainer__test_freq=3, trainer__total_steps=4)
    assert list(late.train().reports) == [3, 4]  # the last update is always looked at
    never = trainer(tmp_path / "never", trainer__val_before_train="false", trainer__test_freq=0)
    assert never.train().reports == {} and not (tmp_path / "never" / "val").exists()
    assert [row["step"] for row in lines_of(tmp_path / "never" / "metrics.jsonl")] == [1, 2]


def test_val_only_trains_nothing_and_names_the_update(tmp_path: Path) -> None:
    fresh = trainer(tmp_path, trainer__val_only="true").train()
    assert list(fresh.reports) == [0] and fresh.updates == 0
    assert (tmp_path / "episodes.jsonl").read_bytes() == b"" and CheckpointStore(tmp_path).latest() is None
    trained = trainer(tmp_path).train()
    first = (tmp_path / "val" / "report_0.json").read_bytes()
    again = trainer(tmp_path, trainer__val_only="true").train()
    assert list(again.reports) == [2] and again.parameter_hash == trained.parameter_hash
    assert again.reports[2] == trained.reports[2] and fresh.reports[0] == trained.reports[0]
    assert (tmp_path / "val" / "report_0.json").read_bytes() == first


def test_several_attempts_per_task(tmp_path: Path) -> None:
    trainer(tmp_path, trainer__val_n=3, trainer__val_temperature=0.5).train()
    row = lines_of(tmp_path / "metrics.jsonl")[0]
    assert row["step"] == 0 and 0 <= row["val/pass@1"] <= row["val/pass@3"] <= 1
    assert len(lines_of(tmp_path / "val" / "episodes_0.jsonl")) == 3 * 4
    sampled = lines_of(tmp_path / "val" / "episodes_0.jsonl")[0]["trajectories"][0]["steps"][0]["tokens"]["sampling"]
    assert sampled["temperature"] == 0.5


def test_what_is_measured(tmp_path: Path) -> None:
    """The metrics by their names: one row per update, one per validation."""
    trainer(tmp_path, trainer__val_n=3, trainer__total_steps=1, algorithm__entropy_coeff=0.01).train()
    first, update, last = lines_of(tmp_path / "metrics.jsonl")
    agents = Letters.agent_names
    expected = {f"reward/{agent}/{part}" for agent in agents for part in ("mean", "std", "min", "max")}
    expected |= {f"advantage/{agent}/fraction_zero" for agent in agents}
    expected |= {f"actor/{part}/{agent}" for agent in agents for part in ("entropy", "pg_clipfrac")}
    expected |= {f"batch/solve_{part}" for part in ("all", "none", "partial")}
    expected |= {f"episode/outcome/{part}" for part in ("success", "failure", "timeout", "error", "truncated")}
    expected |= {"actor/entropy", "actor/pg_clipfrac", "actor/ppo_kl", "actor/loss/policy", "actor/grad_norm/team"}
    expected |= {"rollout/staleness_mean", "rollout/staleness_max", "training/mismatch_kl"}
    assert expected <= update.keys() and any(name.startswith("episode/termination_reason/") for name in update)
    assert update["rollout/staleness_max"] == 0 and 0 <= update["training/mismatch_kl"] < 1e-9
    per_agent = [update[f"actor/entropy/{agent}"] for agent in agents]
    assert min(per_agent) <= update["actor/entropy"] <= max(per_agent)
    kinds = {task.kind for task in VAL}
    for row in (first, last):
        assert {
            f"val/{part}pass@{k}" for k in (1, 2, 3) for part in ("", *(f"{kind}/" for kind in kinds))
        } <= row.keys()
        assert all(row[f"val/{kind}/pass@1"] <= row[f"val/{kind}/pass@3"] for kind in kinds)


@pytest.mark.parametrize(
    ("metrics", "said"),
    [
        ({"reward/writer/std": 0.0}, "every reward of agent 'writer' is the same"),
        ({"response_length/writer/mean": 4.0}, "nobody paid agent 'writer'"),
        ({"training/mismatch_kl": 0.02}, "training/mismatch_kl is 0.02: tokens were sampled from other"),
        ({"episode/termination_reason/max_response_length_exceeded": 0.4,
          "episode/termination_reason/max_prompt_length_exceeded": 0.2}, "60% of the attempts were cut off"),
    ],
)  # fmt: skip
def test_alarms(metrics: dict[str, float], said: str) -> None:
    sound = {"actor/loss/policy": 0.1, "reward/editor/std": 0.3, "training/mismatch_kl": 1e-5}
    assert list(alarms(sound, ["editor"])) == []
    (sentence,) = alarms(sound | metrics, ["writer"])
    assert sentence.startswith(said)
    assert next(alarms({}, [])) == "all advantages are zero; nothing was learned"


def test_overlong_prompts_are_dropped_and_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    long = [
        Task(f"long-{i}", "linear", "7" * 150 + task.prompt, answer=task.answer) for i, task in enumerate(TRAIN[:3])
    ]
    keep = AgentTrainer(
        Letters,
        config=config(tmp_path, data__filter_overlong_prompts="true", data__max_prompt_length=120),
        train_dataset=TRAIN + long,
        val_dataset=VAL + long[:1],
    )
    result = keep.train()
    assert "3 of 15 training and 1 of 5 held-out tasks are longer than 120 tokens" in caplog.text
    assert keep.train_tasks == TRAIN and [score.task for score in result.reports[2].scores] == [task.id for task in VAL]
    with pytest.raises(ConfigError, match=r"no task is left within data\.max_prompt_length=3"):
        trainer(tmp_path / "none", data__filter_overlong_prompts="true", data__max_prompt_length=3).train()


# ---------------------------------------------------------------------------------------------- who learns


def test_only_the_agents_that_are_named_learn(tmp_path: Path) -> None:
    trainer(tmp_path, policies__weights="separate", policies__train="[editor]").train()
    start, end = stored(tmp_path, 0), stored(tmp_path, 2)
    assert same(start["policy_writer"], end["policy_writer"]) and not same(start["policy_editor"], end["policy_editor"])
    assert same(start["policy_writer"], start["policy_editor"])


def test_one_agent_at_a_time_with_a_model_each(tmp_path: Path) -> None:
    trainer(tmp_path, policies__weights="separate", policies__mode="separate", trainer__keep_last=9).train()
    states = [stored(tmp_path, step) for step in range(3)]
    assert [same(states[i]["policy_writer"], states[i + 1]["policy_writer"]) for i in range(2)] == [False, True]
    assert [same(states[i]["policy_editor"], states[i + 1]["policy_editor"]) for i in range(2)] == [True, False]


def test_one_agent_at_a_time_with_one_model(tmp_path: Path) -> None:
    """The other agent acts from the weights as they were when the phase began."""
    trainer(tmp_path, policies__mode="separate", trainer__total_steps=4).train()
    episodes = lines_of(tmp_path / "episodes.jsonl")
    spoken = {(s["tokens"]["policy"], s["tokens"]["policy_version"], s["agent"], e["id"].split("/")[0])
              for e in episodes for t in e["trajectories"] for s in t["steps"]}  # fmt: skip
    assert spoken == {
        *{("team", u, "writer", f"update{u}") for u in (0, 1)},
        *{("team@frozen", 0, "editor", f"update{u}") for u in (0, 1)},
        *{("team", u, "editor", f"update{u}") for u in (2, 3)},
        *{("team@frozen", 2, "writer", f"update{u}") for u in (2, 3)},
    }


def test_the_snapshot_of_a_phase_is_that_of_its_beginning(tmp_path: Path) -> None:
    """The snapshots of two phases have one name; the engine must not keep the first one's weights."""
    run = trainer(tmp_path, policies__mode="separate", trainer__keep_last=9)
    run.train()
    assert same(run.frozen["team"].state(), stored(tmp_path, 1)["policy_team"])
    second = [e for e in EpisodeStore(tmp_path / "episodes.jsonl", mode="r") if e.id.startswith("update1/")]
    batch = pack(second, agents=("writer",))
    again = recomputed_logprobs(batch, {"team@frozen": run.frozen["team"]}, budget=4096)
    assert float(((again - batch["old_logprobs"]) * batch["mask"]).abs().max()) < 1e-5


def test_ppo_trains_a_critic(tmp_path: Path) -> None:
    trainer(
        tmp_path, algorithm__adv_estimator="gae", rollout__n=1, data__train_batch_size=6, optim__warmup_steps=1
    ).train()
    start, end = stored(tmp_path, 0), stored(tmp_path, 2)
    assert not same(start["critic_team"], end["critic_team"]) and not same(start["policy_team"], end["policy_team"])
    rows = lines_of(tmp_path / "metrics.jsonl")
    assert rows[1]["critic/value_mean"] == 0.0 and rows[2]["critic/value_mean"] != 0.0
    assert rows[2]["actor/loss/value"] < rows[1]["actor/loss/value"]


def test_adapters_learn_and_their_base_does_not(tmp_path: Path) -> None:
    run = trainer(tmp_path, policies__weights="lora")
    run.train()
    end = stored(tmp_path, 2)
    assert all(".lora_" in name for group in end.values() for name in group)
    assert sorted(end) == ["policy_editor", "policy_writer"]
    assert any(bool(tensor.any()) for name, tensor in end["policy_editor"].items() if ".lora_B" in name)
    assert (tmp_path / "start" / "model.safetensors").exists()


def test_the_kl_penalty_is_paid_once_the_policy_moves(tmp_path: Path) -> None:
    trainer(tmp_path, algorithm__kl_beta=0.5).train()
    rows = lines_of(tmp_path / "metrics.jsonl")
    assert abs(rows[1]["actor/loss/kl"]) < 1e-9 < rows[2]["actor/loss/kl"]


class Silent(Letters):
    """Pays everybody the same."""

    def reward(self, task: Task, episode: Any) -> None:
        for trajectory in episode.trajectories:
            trajectory.reward = 0.5


def test_equal_rewards_teach_nothing_and_say_so(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    AgentTrainer(Silent, config=config(tmp_path), train_dataset=TRAIN, val_dataset=VAL).train()
    assert "update 1: every reward of agent 'writer' is the same" in caplog.text
    assert "update 1: all advantages are zero; nothing was learned" in caplog.text
    assert same(stored(tmp_path, 0)["policy_team"], stored(tmp_path, 2)["policy_team"])


class Slow(Letters):
    """Never ends."""

    async def run(self, problem: Problem, agents: Team) -> dict[str, float]:
        import asyncio

        await agents.writer.chat([{"role": "user", "content": problem.prompt}])
        await agents.external(asyncio.sleep(60))
        raise AssertionError("unreachable")


def test_episodes_past_their_time_are_data(tmp_path: Path) -> None:
    run = AgentTrainer(
        Slow,
        config=config(tmp_path, workflow__timeout=0.2, trainer__total_steps=1),
        train_dataset=TRAIN,
        val_dataset=VAL,
    )
    run.train()
    row = lines_of(tmp_path / "metrics.jsonl")[1]
    assert row["episode/outcome/timeout"] == 1.0 and row["rollout/not_trained_on"] == 8.0


def test_log_probs_that_disagree_end_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Here the weights that are asked again are not the ones that sampled."""
    run = trainer(tmp_path, trainer__val_before_train="false")

    def moved(batch: Batch, policies: Mapping[str, Policy], **options: Any) -> torch.Tensor:
        with torch.no_grad():
            next(policies["team"].model.network.parameters()).mul_(1.01)
        return recomputed_logprobs(batch, policies, **options)

    monkeypatch.setattr("troupe.systems.workflow_rl.trainer.recomputed_logprobs", moved)
    with pytest.raises(TrainingError, match=r"log-probs differ .* trainer\.logprob_tolerance is 1e-05"):
        run.train()


# ---------------------------------------------------------------------------------------------- the folder


def test_a_folder_that_holds_a_run(tmp_path: Path) -> None:
    trainer(tmp_path, trainer__total_steps=1).train()
    with pytest.raises(StorageError, match=r"holds a run; write trainer\.resume=auto"):
        trainer(tmp_path, trainer__resume="never").train()
    with pytest.raises(StorageError, match=r"begun with optim\.lr=0\.001, this run has 0\.5"):
        trainer(tmp_path, optim__lr=0.5).train()


def test_a_key_that_came_later_does_not_end_a_run(tmp_path: Path) -> None:
    """A run that was begun before a key existed goes on with its default, and with no other value."""
    remember_config(tmp_path, config(tmp_path))
    stored = json.loads((tmp_path / "config.json").read_text())
    del stored["workflow"]["isolation"], stored["rollout"]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    with pytest.raises(StorageError, match=r"begun with workflow\.isolation='bubblewrap', this run has 'rlimits'"):
        remember_config(tmp_path, config(tmp_path, workflow__isolation="rlimits", rollout__n=8))
    remember_config(tmp_path, config(tmp_path, rollout__n=8))


def test_the_best_checkpoint_is_kept_beside_the_newest(tmp_path: Path) -> None:
    result = trainer(
        tmp_path, trainer__total_steps=6, trainer__keep_last=1, trainer__test_freq=1, trainer__val_n=2
    ).train()
    scores = {update: report.success().mean for update, report in result.reports.items()}
    best = max(scores, key=lambda update: (scores[update], -update))
    assert set(CheckpointStore(tmp_path).steps()) == {best, 6}


def test_every_key_of_the_config_is_read(tmp_path: Path, letters_known: None) -> None:
    """A key that no run reads is a promise that nobody keeps."""
    DatasetRegistry(tmp_path / "data").register_dataset("mine", TRAIN, "train")
    DatasetRegistry(tmp_path / "data").register_dataset("mine", VAL, "held_out")
    one: dict[str, Any] = {
        "workflow__name": "letters",
        "sft__steps": 1,
        "trainer__total_steps": 1,
        "trainer__test_freq": 1,
    }
    unread = set(leaf_paths(WorkflowRLConfig))
    runs: list[dict[str, Any]] = [
        {"algorithm__adv_estimator": "gae", "trainer__use_amp": "true"},
        {"policies__weights": "lora", "algorithm__kl_beta": 0.1, "rollout__filter_groups": "true"},
        {
            "rollout__mode": "async",
            "rollout__max_staleness": 2,
            "rollout__stale": "weight",
            "algorithm__importance": "token",
            "algorithm__agents": "{writer: {loss: cispo}}",
        },
        {"algorithm__adv_estimator": "rae", "data__train": "mine", "data__root": tmp_path / "data"},
    ]
    for number, changed in enumerate(runs):
        recording: Any = Recording(config(tmp_path / str(number), **one | changed))
        AgentTrainer(config=recording).train()
        unread &= set(recording.unread())
    assert unread == set()
