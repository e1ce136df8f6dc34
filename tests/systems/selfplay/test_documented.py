from __future__ import annotations

import asyncio
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from troupe.episode import Outcome
from troupe.errors import ConfigError, StorageError, TrainingError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import policy_value_net
from troupe.stores.checkpoints import CheckpointStore, parameter_hash, split_state
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.documented import SelfPlayTrainer
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.tasks.generator import BaseTaskGenerator
from troupe.training.evaluation import Decision

SMALL = {"games_per_iteration": 12, "batch_size": 16, "parallel_batch_size": 6, "eval_games": 10, "epochs": 2,
         "mcts": {"num_simulations": 8}, "learning_rate": 0.01, "net": {"kind": "mlp", "hidden": [16]}}  # fmt: skip
BOARD = Family(2, (2, 3, 3), 9)

ITERATION = {
    *("iteration", "timestamp", "num_episodes", "success_rate", "num_policy_examples", "num_value_examples"),
    *("num_reasoning_examples", "num_negative_examples", "policy_loss", "value_loss", "eval_success_rate"),
    *("eval_avg_reward", "eval_avg_length", "eval_avg_efficiency", "elapsed_time", "best_model_metric"),
}
QUALITY = {
    *("avg_success_rate", "success_rate_std", "success_rate_trend"),
    *("avg_episode_length", "total_episodes_generated", "best_success_rate"),
}


def trainer(folder: Path, **config: Any) -> SelfPlayTrainer:
    return SelfPlayTrainer(config={**SMALL, **config}, checkpoint_dir=folder)


def hashes(made: SelfPlayTrainer) -> dict[str, str]:
    return {name: parameter_hash(module.state_dict()) for name, module in made.networks.modules.items()}


def net(seed: int) -> nn.Module:
    return policy_value_net(PolicyValueConfig(kind="mlp", hidden=(16,)), (2, 3, 3), 9, seed=seed)


def test_an_iteration_has_the_documented_metrics(tmp_path: Path) -> None:
    async def run() -> tuple[SelfPlayTrainer, list[dict[str, Any]]]:
        made = trainer(tmp_path)
        return made, [await made.iteration(i) for i in range(2)]

    made, (first, second) = asyncio.run(run())
    assert set(first) >= ITERATION and first["num_episodes"] == 12
    assert first["num_value_examples"] < second["num_value_examples"]  # the buffer grows
    assert math.isfinite(first["value_loss"]) and first["policy_loss"] != second["policy_loss"]
    assert first["error_rate"] == first["timeout_rate"] == 0.0
    assert len(made.episode_buffer) == 24 and made.current_iteration == 2
    quality = made.get_quality_metrics()
    assert set(quality) == QUALITY and quality["total_episodes_generated"] == 24
    rates = [first["success_rate"], second["success_rate"]]
    assert quality["avg_success_rate"] == pytest.approx(sum(rates) / 2)
    assert quality["success_rate_trend"] == pytest.approx(rates[1] - rates[0])
    assert quality["best_success_rate"] == max(rates)
    lengths = [episode.episode_length for episode in made.episode_buffer]
    assert quality["avg_episode_length"] == pytest.approx(sum(lengths) / 24)
    assert set(made.networks.modules) == {BOARD.name, "p1-110-c49"}
    assert CheckpointStore(tmp_path).steps() == [0, 1]


def test_before_anything_was_measured_there_is_no_figure(tmp_path: Path) -> None:
    quality = trainer(tmp_path).get_quality_metrics()
    assert quality.pop("total_episodes_generated") == 0 and all(math.isnan(value) for value in quality.values())


def test_training_changes_the_weights_and_lowers_the_loss(tmp_path: Path) -> None:
    async def run() -> None:
        made = trainer(tmp_path, games_per_iteration=24)
        data = made.data_extractor.extract_examples(await made.run_self_play(24))
        before = hashes(made)
        found = [await made.train(data, i) for i in range(12)]
        assert all(before[name] != after for name, after in hashes(made).items())
        assert found[-1]["value_loss"] < 0.7 * found[0]["value_loss"]
        assert found[-1]["policy_loss"] < found[0]["policy_loss"] - 0.1
        assert made.networks.learner(BOARD).updates > 12

    asyncio.run(run())


def test_agents_learn_each_their_own_part(tmp_path: Path) -> None:
    hrm, trm = net(1), net(2)
    before = [{k: v.clone() for k, v in agent.state_dict().items()} for agent in (hrm, trm)]

    async def run() -> None:
        made = SelfPlayTrainer(hrm, trm, SMALL, checkpoint_dir=tmp_path)
        made.task_generators = {"mcts": GameTaskGenerator(seed=1)}
        data = made.data_extractor.extract_examples(await made.run_self_play(12))
        await made.train(data, 0)

    asyncio.run(run())
    moved = [{k for k, v in agent.state_dict().items() if not torch.equal(v, old[k])}
             for agent, old in zip((hrm, trm), before, strict=True)]  # fmt: skip
    assert any(k.startswith("policy") for k in moved[0]) and not any(k.startswith("value") for k in moved[0])
    assert any(k.startswith("value") for k in moved[1]) and not any(k.startswith("policy") for k in moved[1])


@pytest.mark.parametrize("promote", [True, False])
def test_a_candidate_that_is_not_better_is_rolled_back(
    promote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "troupe.training.evaluation.Gate.decide", lambda self, candidate, incumbent: Decision(promote, ("said so",))
    )

    async def run() -> None:
        made = trainer(tmp_path)
        await made.run_self_play(12)  # builds the networks
        before, optimisers = hashes(made), made.networks.state()["incumbent"]
        metrics = await made.iteration(0)
        assert metrics["promoted"] is promote and metrics["updates"] > 0
        assert (hashes(made) == before) is not promote
        after = made.networks.state()["learners"]
        assert (after[BOARD.name]["updates"] == optimisers[BOARD.name]["updates"] == 0) is not promote
        metric = metrics["eval_success_rate"] if promote else metrics["incumbent_success_rate"]
        assert made.best_model_metric == metric

    asyncio.run(run())


def test_candidate_and_incumbent_meet_on_the_same_tasks(tmp_path: Path) -> None:
    async def run() -> None:
        made = trainer(tmp_path)
        first = await made.evaluate_models(10)
        assert first["eval_success_rate"] == first["incumbent_success_rate"]  # it is the same network
        assert made.last_decision is not None and not made.last_decision.promote
        assert made.last_decision.difference is not None and made.last_decision.difference.mean == 0.0
        held = made._sources.held_out(10)
        assert len(held) == len({task.id for task in held}) == 10
        await made.run_self_play(12)
        with pytest.raises(ConfigError, match="set eval_games to 50"):
            await made.evaluate_models(50)

    asyncio.run(run())


@pytest.mark.parametrize("given", [False, True])
def test_a_run_that_is_loaded_goes_on_as_if_it_had_not_been_saved(given: bool, tmp_path: Path) -> None:
    def made() -> SelfPlayTrainer:
        if not given:
            return trainer(tmp_path, confidence=0.2)
        built = SelfPlayTrainer(net(1), net(2), {**SMALL, "confidence": 0.2}, checkpoint_dir=tmp_path)
        built.task_generators = {"mcts": GameTaskGenerator(seed=1)}
        return built

    def figures(metrics: dict[str, Any]) -> dict[str, Any]:
        timed = ("timestamp", "elapsed_time", "eval_avg_efficiency")
        return {key: str(value) for key, value in metrics.items() if key not in timed}

    first = made()
    asyncio.run(first.iteration(0))
    expected = [figures(asyncio.run(first.iteration(i))) for i in (1, 2)]
    second = made()
    second.load_checkpoint(tmp_path / "iteration_1.pt")  # the two newest are kept
    second.load_checkpoint(tmp_path / "checkpoint_1")
    assert second.current_iteration == 2 and len(second.episode_buffer) == 24
    assert figures(second.iteration_metrics[1]) == expected[0]
    assert figures(asyncio.run(second.iteration(2))) == expected[1]
    assert hashes(second) == hashes(first)
    assert second.get_quality_metrics()["total_episodes_generated"] == 36


def test_the_documented_paths(tmp_path: Path) -> None:
    made = trainer(tmp_path, keep_last=5)
    asyncio.run(made.iteration(0))
    made.best_model_metric = 0.9
    made._save_checkpoint(1, best=True)
    made.best_model_metric = 0.1
    made._save_checkpoint(2)
    loaded = trainer(tmp_path, keep_last=5)
    loaded.load_checkpoint(tmp_path / "best_model.pt")
    assert (loaded.current_iteration, loaded.best_model_metric) == (2, 0.9)
    loaded.load_checkpoint(str(tmp_path / "iteration_0.pt"))
    assert loaded.current_iteration == 1
    loaded.load_checkpoint(tmp_path)
    assert (loaded.current_iteration, loaded.best_model_metric) == (3, 0.1)
    assert not list(tmp_path.rglob("*.pt")) and not list(tmp_path.rglob("*.pkl"))
    with pytest.raises(StorageError, match="does not exist"):
        loaded.load_checkpoint(tmp_path / "iteration_9.pt")
    with pytest.raises(StorageError, match="pass the agents"):
        SelfPlayTrainer(net(1), None, SMALL, checkpoint_dir=tmp_path).load_checkpoint(tmp_path)


class Custom(BaseTaskGenerator):
    """Document 001's own example: every call begins to count again, and asks the same."""

    def generate(self, num_tasks: int) -> list[Any]:
        return [
            {"task_id": f"custom_{i}", "type": "custom", "difficulty": self.rng.uniform(*self.difficulty_range),
             "problem": "Your problem description", "answer": "Expected answer"}
            for i in range(num_tasks)
        ]  # fmt: skip


def test_a_custom_generator_joins(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made.task_generators["custom"] = Custom()
    metrics = asyncio.run(made.iteration(0))
    kinds = {episode.metadata["type"] for episode in made.episode_buffer}
    assert "custom" in kinds and metrics["held_out_overlap"] == 4  # it has one task, which is held out
    assert {episode.outcome for episode in made.episode_buffer} <= {Outcome.SUCCESS, Outcome.FAILURE}


def test_held_out_tasks_are_not_trained_on(tmp_path: Path) -> None:
    made = trainer(tmp_path, eval_games=40)
    held = {task.prompt for task in made._sources.held_out(40)}
    drawn = {task.prompt for task in made._sources.draw(200)}
    assert len(held) == 40 and not held & drawn and made._sources.overlap == 0


def test_a_run_in_which_nothing_can_be_played_stops(tmp_path: Path) -> None:
    class Broken(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.zeros(1))

        def forward(self, rows: torch.Tensor) -> Any:
            raise RuntimeError("out of memory")

    made = SelfPlayTrainer(Broken(), None, SMALL, checkpoint_dir=tmp_path)
    made.task_generators = {"mcts": GameTaskGenerator()}
    with pytest.raises(TrainingError, match="all 12 episodes failed; the first with RuntimeError: out of memory"):
        asyncio.run(made.iteration(0))


def test_what_cannot_be_configured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        trainer(tmp_path, batchsize=3)
    with pytest.raises(ConfigError, match="torch modules"):
        SelfPlayTrainer(object(), config=SMALL)
    made = trainer(tmp_path)
    made.task_generators.clear()
    with pytest.raises(ConfigError, match="task_generators is empty"):
        asyncio.run(made.run_self_play(1))


def test_resources(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("psutil")
    found = trainer(tmp_path).get_resource_usage()
    assert {"cpu_percent", "memory_used_gb", "memory_percent"} <= set(found) and found["memory_used_gb"] > 0
    monkeypatch.setattr("troupe.systems.selfplay.resources.find_spec", lambda name: None)
    assert "cpu_percent" not in trainer(tmp_path).get_resource_usage()


def test_rolling_back_again_and_again_leaves_the_incumbent_alone(tmp_path: Path) -> None:
    """An optimiser works in place on the moments that it is given: the incumbent's must be copies."""

    def moments(made: SelfPlayTrainer) -> str:
        tensors, _ = split_state(made.networks.state()["learners"])
        return parameter_hash(tensors)

    async def run() -> None:
        made = trainer(tmp_path)
        data = made.data_extractor.extract_examples(await made.run_self_play(12))
        await made.train(data, 0)
        made.networks.promote()
        weights, optimisers = hashes(made), moments(made)
        for i in (1, 2):
            await made.train(data, i)
            assert hashes(made) != weights and moments(made) != optimisers
            made.networks.roll_back()
            assert hashes(made) == weights and moments(made) == optimisers

    asyncio.run(run())
