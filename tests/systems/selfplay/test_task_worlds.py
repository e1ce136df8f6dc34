from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.task_families import CoinGame, PurseGenerator
from troupe.episode import Outcome, Problem, Task
from troupe.errors import ConfigError, DataError
from troupe.models.token_net import TokenNet
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.documented import SelfPlayTrainer
from troupe.systems.selfplay.episodes import SelfPlayEpisode
from troupe.systems.selfplay.extraction import TrainingDataExtractor
from troupe.systems.selfplay.generator import WORLDS, SelfPlayEpisodeGenerator
from troupe.systems.selfplay.search_tasks import MCTSSearchTaskGenerator
from troupe.systems.selfplay.task_worlds import TASK_WORLDS, TaskWorld
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.programs import CodeGenerationTaskGenerator
from troupe.tasks.reasoning import MultiStepReasoningGenerator

MCTS = {"num_simulations": 32}
PURSE = {kind: lambda task: TaskWorld(PurseGenerator, task) for kind in PurseGenerator.KINDS}
ALL = (MathProblemGenerator, CodeGenerationTaskGenerator, MultiStepReasoningGenerator, MCTSSearchTaskGenerator)


def played(tasks: Sequence[Any], worlds: Any = None, **options: Any) -> list[SelfPlayEpisode]:
    generator = SelfPlayEpisodeGenerator(mcts_config=MCTS, worlds=worlds, **options)
    return asyncio.run(generator.generate_episodes(tasks))


def test_a_task_is_searched_in_its_own_game_and_judged_by_its_family() -> None:
    """7 is paid with 2 + 5, and 17 with 1 + 5 + 11."""
    tasks = [
        Task(f"pay-{amount}", "coins", f"Pay {amount}", {"amount": amount, "limit": limit}, answer=str(amount))
        for amount, limit in ((7, 2), (17, 3))
    ]
    for episode, coins in zip(played(tasks, PURSE, explore=False), ([2, 5], [1, 5, 11]), strict=True):
        assert episode.outcome is Outcome.SUCCESS and episode.metadata["judged_by"] == "verifier"
        assert sorted(map(int, episode.metadata["submission"].split())) == coins
        assert episode.total_reward == 1.0 and "answer" not in episode.metadata
        assert SelfPlayEpisode.from_bytes(episode.to_bytes()).to_dict() == episode.to_dict()
    (_, chain) = TrainingDataExtractor().extract_examples([episode])["reasoning"][0].target
    assert chain.splitlines()[-1].startswith("3. take ") and chain.endswith("and 0 is left")


@pytest.mark.parametrize("generator", ALL, ids=lambda generator: generator.__name__)
def test_the_kinds_of_the_four_generators_have_worlds(generator: Any) -> None:
    kinds = [kind for kind, world in TASK_WORLDS.items() if world.args[0] is generator]  # type: ignore[attr-defined]
    assert len(kinds) >= 3 and all(WORLDS[kind] is TASK_WORLDS[kind] for kind in kinds)
    tasks = [task for kind in kinds for task in generator((0.0, 0.0), seed=3, kinds=(kind,)).generate(4)]
    episodes = played(tasks)
    assert {episode.metadata["type"] for episode in episodes} == set(kinds)
    for task, episode in zip(tasks, episodes, strict=True):
        assert episode.outcome in (Outcome.SUCCESS, Outcome.FAILURE), episode.metadata.get("error")
        right = generator.verify(task, episode.metadata["submission"])
        assert (episode.outcome is Outcome.SUCCESS) == right and episode.metadata["complete"]
        assert all(action.parameters["says"] for action in episode.actions)
        assert SelfPlayEpisode.from_bytes(episode.to_bytes()).to_dict() == episode.to_dict()
    assert sum(episode.outcome is Outcome.SUCCESS for episode in episodes) >= len(tasks) / 3


def test_a_wrong_answer_turns_success_into_failure_and_changes_no_search() -> None:
    tasks = PurseGenerator((0.0, 0.1), seed=1, kinds=("coins",)).generate(20)
    wrong = [replace(task, answer=str(int(task.answer) + 1)) for task in tasks]
    honest, corrupted = played(tasks, PURSE), played(wrong, PURSE)
    assert [e.metadata["submission"] for e in honest] == [e.metadata["submission"] for e in corrupted]
    solved = [episode.outcome is Outcome.SUCCESS for episode in honest]
    assert sum(solved) >= 10 and all(episode.outcome is Outcome.FAILURE for episode in corrupted)
    assert all(episode.total_reward == 0.0 for episode in corrupted)  # what was paid for nothing is taken back
    assert [episode.total_reward for episode in honest] == [float(right) for right in solved]


def test_what_only_the_answer_decides_is_imitated() -> None:
    tasks = PurseGenerator(seed=2, kinds=("parity",)).generate(30)
    episodes = played(tasks, PURSE)
    right = [episode for episode in episodes if episode.outcome is Outcome.SUCCESS]
    assert 5 <= len(right) <= 25  # it guesses
    assert all(episode.total_reward == float(episode in right) for episode in episodes)
    found = TrainingDataExtractor().extract_examples(right)["policy"]
    for episode, example in zip(right, found, strict=True):
        said = ("even", "odd").index(episode.metadata["submission"])
        assert example.target.tolist() == [float(i == said) for i in range(2)]
    values = TrainingDataExtractor().extract_examples(episodes)["value"]
    assert {float(example.target) for example in values} == {0.0, 1.0}


def test_the_world_is_given_no_answer() -> None:
    seen: list[Problem] = []

    class Watches(CoinGame):
        def begin(self, problem: Problem) -> Any:
            seen.append(problem)
            return super().begin(problem)

    class Watched(PurseGenerator):
        @staticmethod
        def game(kind: str) -> Any:
            return Watches()

    (task,) = PurseGenerator(seed=0, kinds=("coins",)).generate(1)
    played([replace(task, answer="zq81canary")], {"coins": lambda task: TaskWorld(Watched, task)})
    assert seen and "zq81canary" not in json.dumps([str(problem) for problem in seen])


def test_words_alone_are_proposed_to_and_checked_whatever_their_type() -> None:
    """Document 001's own dicts may be called `arithmetic`, too."""
    (episode,) = played(
        [{"task_id": "a", "type": "arithmetic", "difficulty": 0.1, "problem": "Add 12 and 5", "answer": "17"}]
    )
    assert episode.metadata["judged_by"] == "answer"
    with pytest.raises(DataError):
        played([{"task_id": "a", "type": "sudoku", "problem": "Complete it", "answer": "1", "rows": 9}])


def test_families_of_tokens_have_names_of_their_own() -> None:
    game = MultiStepReasoningGenerator.game("sudoku")
    family = Family.of(game)
    assert (family.vocabulary, family.pointers) == (game.vocabulary, game.pointers) and game.pointers
    assert Family.named(family.name) == family and family.name.endswith(f"-v{game.vocabulary}-t{game.pointers}")
    assert Family.of(MCTSSearchTaskGenerator.game("picture")).vocabulary == 0
    assert Family(**json.loads(json.dumps(family._asdict()))).name == family.name


def test_the_documents_four_generators_are_played_and_learned(tmp_path: Path) -> None:
    config = {"games_per_iteration": 48, "eval_games": 12, "parallel_batch_size": 24, "batch_size": 32,
              "mcts": {"num_simulations": 8}, "token_net": {"hidden": 16}}  # fmt: skip

    async def run() -> tuple[SelfPlayTrainer, dict[str, Any]]:
        made = SelfPlayTrainer(config=config, checkpoint_dir=tmp_path)
        return made, await made.iteration(0)

    made, metrics = asyncio.run(run())
    assert list(made.task_generators) == ["math", "code", "reasoning", "mcts"]
    assert metrics["error_rate"] == metrics["timeout_rate"] == 0.0 and metrics["updates"] > 0
    judged = [episode.metadata["judged_by"] for episode in made.episode_buffer]
    assert judged.count("verifier") == 36 and judged.count("answer") == 12
    nets = {name: net for name, net in made.networks.modules.items() if isinstance(net, TokenNet)}
    assert len(nets) >= 6 and all("-v" in name and net.config.hidden == 16 for name, net in nets.items())
    again = SelfPlayTrainer(config=config, checkpoint_dir=tmp_path)
    again.load_checkpoint(tmp_path)
    assert set(again.networks.modules) == set(made.networks.modules)


def test_networks_of_tokens_are_configured_like_the_others(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.token_net\.hiden: unknown key"):
        SelfPlayTrainer(config={"token_net": {"hiden": 3}}, checkpoint_dir=tmp_path)
    with pytest.raises(ConfigError, match=r"config\.token_net\.heads is for token_net\.kind=transformer"):
        SelfPlayTrainer(config={"token_net": {"heads": 2}}, checkpoint_dir=tmp_path)
