from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from troupe.envs.tictactoe import TicTacToe
from troupe.episode import Outcome, Task
from troupe.errors import ConfigError, StorageError, TrainingError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import policy_value_net
from troupe.stores.checkpoints import CheckpointStore, parameter_hash, split_state
from troupe.stores.state import read_tensors
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.documented import SelfPlayTrainer
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.math import MathProblemGenerator
from troupe.training.evaluation import Decision
from troupe.training.learner import Learner

SMALL = {"games_per_iteration": 12, "batch_size": 16, "parallel_batch_size": 6, "eval_games": 10, "epochs": 2,
         "mcts": {"num_simulations": 8}, "learning_rate": 0.01, "net": {"kind": "mlp", "hidden": [16]}}  # fmt: skip
BARE = {key: value for key, value in SMALL.items() if key != "net"}  # for agents
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
    """On two generators: what is tested here does not depend on the tasks, and two families of worlds are learned
    faster than thirteen."""
    made = SelfPlayTrainer(config={**SMALL, **config}, checkpoint_dir=folder)
    made.task_generators = {
        "math": MathProblemGenerator(seed=0, kinds=MathProblemGenerator.DEFAULT_KINDS),
        "mcts": GameTaskGenerator(seed=0),
    }
    return made


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
        made = SelfPlayTrainer(hrm, trm, BARE, checkpoint_dir=tmp_path)
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
        built = SelfPlayTrainer(net(1), net(2), {**BARE, "confidence": 0.2}, checkpoint_dir=tmp_path)
        built.task_generators = {"mcts": GameTaskGenerator(seed=1)}
        return built

    def figures(metrics: dict[str, Any]) -> dict[str, Any]:
        timed = ("timestamp", "elapsed_time", "eval_avg_efficiency")
        return {key: str(value) for key, value in metrics.items() if key not in timed}

    first = made()
    asyncio.run(first.iteration(0))
    expected = [figures(asyncio.run(first.iteration(i))) for i in (1, 2)]
    second = made()
    second.load_checkpoint(tmp_path / "iteration_1.pt")
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
        SelfPlayTrainer(net(1), None, BARE, checkpoint_dir=tmp_path).load_checkpoint(tmp_path)


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

    made = SelfPlayTrainer(Broken(), None, BARE, checkpoint_dir=tmp_path)
    made.task_generators = {"mcts": GameTaskGenerator()}
    with pytest.raises(TrainingError, match="all 12 episodes failed; the first with RuntimeError: out of memory"):
        asyncio.run(made.iteration(0))


def test_what_cannot_be_configured(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="did you mean 'batch_size'"):
        trainer(tmp_path, batchsize=3)
    with pytest.raises(ConfigError, match="torch modules"):
        SelfPlayTrainer(object(), config=BARE)
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


# ---------------------------------------------------------------------------------------------- averages, replay


def test_training_leaves_the_average_of_its_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[dict[str, torch.Tensor]] = []
    made = trainer(tmp_path, ema=0.5)
    made.task_generators = {"mcts": GameTaskGenerator(seed=1)}
    update = Learner.update

    def watched(self: Learner, closures: Any) -> dict[str, float]:
        found = update(self, closures)
        module = made.networks.modules[BOARD.name]
        steps.append({name: tensor.clone() for name, tensor in module.state_dict().items()})
        return found

    monkeypatch.setattr(Learner, "update", watched)
    asyncio.run(made.run_self_play(12))
    expected = {name: tensor.clone() for name, tensor in made.networks.modules[BOARD.name].state_dict().items()}
    metrics = asyncio.run(made.train())
    assert metrics["updates"] == len(steps) > 4
    for k, weights in enumerate(steps, 1):
        decay = min(0.5, (1 + k) / (10 + k))
        expected = {name: decay * tensor + (1 - decay) * weights[name] for name, tensor in expected.items()}
    after = made.networks.modules[BOARD.name].state_dict()
    for name, tensor in after.items():
        torch.testing.assert_close(tensor, expected[name])
    assert any(not torch.equal(after[name], steps[-1][name]) for name in after)


def test_without_an_average_the_last_weights_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    last: list[str] = []
    made = trainer(tmp_path, ema=0.0)
    made.task_generators = {"mcts": GameTaskGenerator(seed=1)}
    update = Learner.update

    def watched(self: Learner, closures: Any) -> dict[str, float]:
        found = update(self, closures)
        last[:] = hashes(made).values()
        return found

    monkeypatch.setattr(Learner, "update", watched)
    asyncio.run(made.run_self_play(6))
    asyncio.run(made.train())
    assert list(hashes(made).values()) == last


def test_training_is_on_the_newest_episodes(tmp_path: Path) -> None:
    async def run() -> None:
        made = trainer(tmp_path, max_buffer_size=10)
        first = await made.run_self_play(8)
        second = await made.run_self_play(8)
        assert list(made.episode_buffer) == [*first[-2:], *second]
        await made.train()
        expected = made.data_extractor.extract_examples([*first[-2:], *second])
        assert made._window.counts() == {kind: len(found) for kind, found in expected.items() if found}
        metrics = await made.iteration(0)
        newest = made.data_extractor.extract_examples(list(made.episode_buffer))
        assert len(made.episode_buffer) == 10 and not set(made.episode_buffer) & set(first)
        assert metrics["num_value_examples"] == len(newest["value"])

    asyncio.run(run())


def test_games_are_learned_in_all_their_symmetries(tmp_path: Path) -> None:
    """One game, learned by heart: what to play in its mirror image is known only where that was shown."""

    def error(symmetries: bool) -> tuple[float, float]:
        made = trainer(tmp_path, symmetries=symmetries, epochs=150, ema=0.0, learning_rate=0.003)
        made.task_generators = {"mcts": GameTaskGenerator((1.0, 1.0), seed=1)}
        (episode,) = asyncio.run(made.run_self_play(1))
        asyncio.run(made.train())
        data = made.data_extractor.extract_examples([episode])["policy"]
        rows, target = (torch.stack([getattr(e, name) for e in data]) for name in ("state", "target"))
        legal = torch.stack([e.metadata["legal"] for e in data])
        model = made.networks.modules[BOARD.name].eval()

        def of(turn: Callable[[torch.Tensor], torch.Tensor]) -> float:
            with torch.inference_mode():
                logits, _ = model(turn(rows))
            mask, wanted = (turn(column.reshape(-1, 3, 3)).reshape(-1, 9) for column in (legal, target))
            return float((logits.masked_fill(~mask, -torch.inf).softmax(-1) - wanted).abs().sum(-1).mean())

        return of(lambda board: board), of(lambda board: board.flip(-1))

    (shown, mirrored), (alone, unseen) = error(True), error(False)
    assert mirrored < 2 * shown < 0.4 and unseen > 10 * alone


# ---------------------------------------------------------------------------------------------- a loop of one's own


@pytest.mark.parametrize("promote", [True, False])
def test_the_documents_own_loop(promote: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`run_self_play`, one's own training, `evaluate_models`, `_save_checkpoint`: best_model_metric is there, nothing
    is rolled back, and what was trained elsewhere is what is evaluated."""
    monkeypatch.setattr(
        "troupe.training.evaluation.Gate.decide", lambda self, candidate, incumbent: Decision(promote, ("said so",))
    )
    agent = net(1)

    async def run() -> None:
        made = SelfPlayTrainer(agent, agent, BARE, checkpoint_dir=tmp_path)
        made.task_generators = {"mcts": GameTaskGenerator(seed=1)}
        untrained = await made.evaluate_models(10)
        assert made.best_model_metric == untrained["eval_success_rate"] > 0
        episodes = await made.run_self_play(12)
        data = made.data_extractor.extract_examples(episodes)
        optimiser = torch.optim.SGD(agent.parameters(), lr=30.0)
        states = torch.stack([example.state for example in data["value"]])
        logits, values = agent(states)
        (logits[:, 0].sum() - values.sum()).backward()
        optimiser.step()
        trained = hashes(made)
        metrics = await made.evaluate_models(10)
        assert metrics["eval_avg_length"] != untrained["eval_avg_length"]
        assert metrics["incumbent_success_rate"] == untrained["eval_success_rate"]
        name = "eval_success_rate" if promote else "incumbent_success_rate"
        assert made.best_model_metric == metrics[name] and hashes(made) == trained
        again = await made.evaluate_models(10)
        assert again["incumbent_success_rate"] == metrics[name]
        made._save_checkpoint(0, best=True)
        loaded = SelfPlayTrainer(net(2), net(2), BARE, checkpoint_dir=tmp_path)
        with pytest.raises(StorageError, match="this trainer"):
            loaded.load_checkpoint(tmp_path / "best_model.pt")
        other = net(2)
        loaded = SelfPlayTrainer(other, other, BARE, checkpoint_dir=tmp_path)
        loaded.load_checkpoint(tmp_path / "best_model.pt")
        assert hashes(loaded) == trained and loaded.best_model_metric == made.best_model_metric

    asyncio.run(run())


def test_a_promoted_candidate_is_not_played_again_to_know_the_incumbent(tmp_path: Path) -> None:
    """Its report is the incumbent's, and a trainer that plays it anew finds the same."""
    made = trainer(tmp_path, confidence=0.05, epochs=6)
    made.task_generators = {"mcts": GameTaskGenerator(seed=0)}
    asyncio.run(made.iteration(0))
    assert made.last_decision is not None and made.last_decision.promote
    kept = made._incumbent_report
    made._incumbent_report = None
    asyncio.run(made.evaluate_models(10))
    assert kept is not None and made._incumbent_report is not None
    assert made._incumbent_report.scores == kept.scores


# ---------------------------------------------------------------------------------------------- checkpoints


def test_the_last_decision_is_loaded(tmp_path: Path) -> None:
    made = trainer(tmp_path)
    made._save_checkpoint(0)
    asyncio.run(made.iteration(1))
    loaded = trainer(tmp_path)
    loaded.load_checkpoint(tmp_path / "iteration_1.pt")
    assert made.last_decision is not None and made.last_decision.difference is not None
    assert loaded.last_decision == made.last_decision
    loaded.load_checkpoint(tmp_path / "iteration_0.pt")
    assert loaded.last_decision is None


def test_no_checkpoint_goes_unless_keep_last_says_so(tmp_path: Path) -> None:
    made, thrifty = trainer(tmp_path / "all"), trainer(tmp_path / "some", keep_last=2)
    for i in range(6):
        made._save_checkpoint(i)
        thrifty._save_checkpoint(i, best=i == 1)
    assert CheckpointStore(tmp_path / "all").steps() == [0, 1, 2, 3, 4, 5]
    assert CheckpointStore(tmp_path / "some").steps() == [1, 4, 5]
    made.load_checkpoint(tmp_path / "all" / "iteration_0.pt")
    assert made.current_iteration == 1


def test_the_buffer_is_stored_in_two_arrays(tmp_path: Path) -> None:
    """A checkpoint's index cannot hold a name for each array of 50,000 episodes, the document's own buffer."""
    made = trainer(tmp_path)
    asyncio.run(made.run_self_play(12))
    path = made._save_checkpoint(0)
    assert len(read_tensors(path / "state.safetensors")) < 10
    assert (path / "state.json").stat().st_size < 50_000
    loaded = trainer(tmp_path)
    loaded.load_checkpoint(tmp_path)
    assert [e.to_dict() for e in loaded.episode_buffer] == [e.to_dict() for e in made.episode_buffer]


def test_states_that_are_objects_do_not_keep_a_run_from_being_saved(tmp_path: Path) -> None:
    """As those of a game of OpenSpiel: they stay behind as texts, and the run goes on as it would have."""

    class Board(TicTacToe):
        class State:
            def __init__(self, stones: Any) -> None:
                self.stones = stones

            def __repr__(self) -> str:
                return f"stones {self.stones}"

        def initial(self) -> Any:
            return self.State(super().initial())

        def legal(self, state: Any) -> Any:
            return super().legal(state.stones)

        def step(self, state: Any, action: int) -> Any:
            after, *more = super().step(state.stones, action)
            return self.State(after), *more

        def observe(self, state: Any) -> Any:
            return super().observe(state.stones)

        def key(self, state: Any) -> Any:
            return super().key(state.stones)

        def to_play(self, state: Any) -> int:
            return super().to_play(state.stones)

        def canonical(self, state: Any) -> Any:
            return super().canonical(state.stones)

    class Tasks(BaseTaskGenerator):
        def make(self, difficulty: float) -> Any:
            n = self.rng.randrange(10**6)
            return Task(f"board-{n}", "board", f"Play {n}")

    def made() -> SelfPlayTrainer:
        built = SelfPlayTrainer(config=SMALL, checkpoint_dir=tmp_path, worlds={"board": lambda task: Board()})
        built.task_generators = {"board": Tasks()}
        return built

    first = made()
    asyncio.run(first.iteration(0))
    second = made()
    second.load_checkpoint(tmp_path)
    assert second.episode_buffer[0].states[0].raw_state == "stones (0, 0)"
    assert asyncio.run(second.iteration(1))["value_loss"] == asyncio.run(first.iteration(1))["value_loss"]


def test_what_a_trainer_did_before_it_loads_is_forgotten(tmp_path: Path) -> None:
    """Networks, too, that the stored run had not met."""
    first = trainer(tmp_path)
    first.task_generators = {"mcts": GameTaskGenerator(seed=1)}
    asyncio.run(first.iteration(0))
    second = trainer(tmp_path / "other")
    asyncio.run(second.iteration(0))
    assert len(second.networks.modules) == 2
    second.load_checkpoint(tmp_path)
    assert hashes(second) == hashes(first) and set(second.networks.incumbent) == {BOARD.name}
    assert set(second.networks.state()["learners"]) == {BOARD.name}
