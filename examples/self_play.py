"""Self-play as document 001 has it, in seven examples: python examples/self_play.py [1..7]

1  one episode, with the search behind each of its actions
2  agents: one network for the policy, one for the value
3  one iteration: play, extract, learn, compare, keep or roll back
4  several iterations, and what became better
5  tasks of several kinds, one of them your own
6  what the extractor makes of episodes
7  checkpoints: save, load, go on

Without a number all of them run, within a minute. Sizes are small; what is printed was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections import Counter
from collections.abc import Sequence
from typing import Any

from torch.utils.data import DataLoader

from troupe.episode import Task
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import policy_value_net
from troupe.systems.selfplay.documented import SelfPlayTrainer
from troupe.systems.selfplay.episodes import SelfPlayEpisode
from troupe.systems.selfplay.extraction import SelfPlayDataset, TrainingDataExtractor
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator
from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.math import MathProblemGenerator

SMALL: dict[str, Any] = {
    "games_per_iteration": 64,
    "batch_size": 32,
    "parallel_batch_size": 32,
    "eval_games": 40,
    "epochs": 4,
    "learning_rate": 3e-3,
    "mcts": {"num_simulations": 24, "c_puct": 1.25},
}


async def play(generator: SelfPlayEpisodeGenerator, tasks: Sequence[Any]) -> list[SelfPlayEpisode]:
    """All at once: they share the search's batch."""
    return await asyncio.gather(*(generator.generate_episode(task, max_steps=20, timeout=60.0) for task in tasks))


def solved(episodes: Sequence[SelfPlayEpisode]) -> str:
    return f"{sum(episode.outcome == 'success' for episode in episodes)} of {len(episodes)}"


async def basic_episode() -> None:
    """Nobody has learned anything: every candidate is as likely as the next, and every state worth 0."""
    (task,) = MathProblemGenerator(seed=42, kinds=("word",)).generate(1)
    generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 50})
    episode = await generator.generate_episode(task, max_steps=20, timeout=60.0)
    print(f"task:    {task.prompt}  (the search is not told that it is {task.answer})")
    for action, trace in zip(episode.actions, episode.mcts_traces, strict=True):
        searched = f"{trace.num_simulations} simulations, {trace.tree_depth} deep, {1000 * trace.search_time:.0f} ms"
        print(f"action:  {action.action_id!r}, one of {len(trace.visit_counts)}; {searched}")
    print(f"outcome: {episode.outcome}, reward {episode.total_reward}, MCTS traces {len(episode.mcts_traces)}")


async def with_agents() -> None:
    """HRM and TRM networks will stand here; these are two plain policy-value networks, untrained."""
    hrm, trm = (policy_value_net(PolicyValueConfig(), (2, 3, 3), 9, seed=seed) for seed in (1, 2))
    mcts = {"num_simulations": 50, "c_puct": 1.25}
    generator = SelfPlayEpisodeGenerator(hrm_agent=hrm, trm_agent=trm, mcts_config=mcts, device="cpu")
    episodes = await play(generator, GameTaskGenerator(seed=0).generate(16))
    calls = generator.forward_calls()
    print(f"two PolicyValueNets: {calls['policy']} forward passes of the policy, {calls['value']} of the value")
    print(f"games in which the first player did as well as perfect play: {solved(episodes)}")
    first = episodes[0].mcts_traces[0]
    print(f"first search: priors { ({a: round(p, 3) for a, p in first.prior_probs.items()}) }")
    print(f"              visits {dict(first.visit_counts)}")


async def one_iteration() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = SelfPlayTrainer(config=SMALL, checkpoint_dir=folder)
        metrics = await trainer.iteration(0)
    for name, value in metrics.items():
        print(f"{name:>24}: {value:.4g}" if isinstance(value, float) else f"{name:>24}: {value}")
    assert trainer.last_decision is not None
    print(f"{'the gate':>24}: {trainer.last_decision.reasons[0]}")


async def several_iterations() -> None:
    """Games alone, so that something is learned within half a minute."""
    with tempfile.TemporaryDirectory() as folder:
        trainer = SelfPlayTrainer(config={**SMALL, "confidence": 0.7}, checkpoint_dir=folder)
        trainer.task_generators = {"mcts": GameTaskGenerator(seed=0)}
        for i in range(4):
            metrics = await trainer.iteration(i)
            verdict = "promoted" if metrics["promoted"] else "rolled back"
            rates = (
                f"{metrics['eval_success_rate']:.0%} against the incumbent's {metrics['incumbent_success_rate']:.0%}"
            )
            print(f"iteration {i}: success {metrics['success_rate']:.0%} in play; on held-out tasks {rates}: {verdict}")
        print({name: round(value, 3) for name, value in trainer.get_quality_metrics().items()})
        print({name: round(value, 2) for name, value in trainer.get_resource_usage().items()})


class Larger(BaseTaskGenerator):
    """A generator of one's own: here the answer stands in the problem."""

    def make(self, difficulty: float) -> Task:
        a, b = self.rng.sample(range(2, 100), 2)
        prompt = f"Which is larger, {a} or {b}?"
        return Task(f"larger-{a}-{b}", "larger", prompt, difficulty=difficulty, answer=str(max(a, b)))


async def task_diversity() -> None:
    generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 24})
    sources: dict[str, BaseTaskGenerator] = {
        "linear equations": MathProblemGenerator(seed=0, kinds=("linear",)),
        "word problems": MathProblemGenerator(seed=0, kinds=("word",)),
        "tic-tac-toe": GameTaskGenerator(seed=0),
        "connect four": GameTaskGenerator(seed=0, kinds=("connect_four",)),
        "your own": Larger(seed=0),
    }
    for name, source in sources.items():
        tasks = source.generate(16)
        episodes = await play(generator, tasks)
        judged = Counter(episode.metadata.get("judged_by", episode.outcome.value) for episode in episodes)
        print(
            f"{name:>16}: {solved(episodes)} solved by search alone; judged by {dict(judged)}; e.g. {tasks[0].prompt}"
        )


async def data_extraction() -> None:
    generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 24})
    episodes = await play(generator, [*GameTaskGenerator(seed=0).generate(16), *Larger(seed=0).generate(16)])
    data = TrainingDataExtractor(success_weight=1.0, failure_weight=0.3).extract_examples(episodes)
    print(f"{solved(episodes)} solved; " + ", ".join(f"{len(examples)} {kind}" for kind, examples in data.items()))
    board = next(e.metadata["family"] for e in data["policy"] if "legal" in e.metadata)
    batch = next(iter(DataLoader(SelfPlayDataset(data["policy"], "policy", board), batch_size=8, shuffle=False)))
    print(f"a batch of policies over fixed actions: state {list(batch['state'].shape)}, target "
          f"{list(batch['target'].shape)}, mask {list(batch['metadata']['legal'].shape)}")  # fmt: skip
    query, chain = data["reasoning"][-1].target
    print(f"reasoning: {query!r} -> {chain!r}")
    negative = data["negative"][0]
    print(f"negative: action {int(negative.target)} in task {negative.metadata['task_id']}, weight {negative.weight}")


async def checkpoints() -> None:
    config = {**SMALL, "games_per_iteration": 24, "eval_games": 12}
    with tempfile.TemporaryDirectory() as folder:
        trainer = SelfPlayTrainer(config=config, checkpoint_dir=folder)
        await trainer.iteration(0)
        expected = await trainer.iteration(1)
        resumed = SelfPlayTrainer(config=config, checkpoint_dir=folder)
        resumed.load_checkpoint(f"{folder}/iteration_0.pt")
        print(f"loaded iteration_0.pt: next is iteration {resumed.current_iteration}, best model metric "
              f"{resumed.best_model_metric:.2f}, {len(resumed.episode_buffer)} episodes in the buffer")  # fmt: skip
        again = await resumed.iteration(1)
        same = all(again[name] == expected[name] for name in ("success_rate", "value_loss", "eval_success_rate"))
        print(f"iteration 1, run on and run again: value loss {expected['value_loss']:.6f} and "
              f"{again['value_loss']:.6f}; the same: {same}")  # fmt: skip
        resumed.load_checkpoint(f"{folder}/best_model.pt")
        print(f"best_model.pt is the checkpoint of iteration {resumed.current_iteration - 1}")


EXAMPLES = {
    "1": basic_episode,
    "2": with_agents,
    "3": one_iteration,
    "4": several_iterations,
    "5": task_diversity,
    "6": data_extraction,
    "7": checkpoints,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", nargs="?", choices=list(EXAMPLES), help="which of them (default: all)")
    chosen = parser.parse_args().example
    for number in EXAMPLES if chosen is None else [chosen]:
        print(f"\n{number}. {EXAMPLES[number].__name__.replace('_', ' ')}")
        asyncio.run(EXAMPLES[number]())


if __name__ == "__main__":
    main()
