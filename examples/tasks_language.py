"""A language model learns to propose the steps of a search: python examples/tasks_language.py

1. networks learn to solve linear equations, by search and expert iteration
2. what they solve becomes chains: conversations, a line of words for each step
3. a tiny language model, random weights, is fine-tuned on them
4. it proposes the actions of a search on new equations: against uniform priors, and against itself before

All searches have as many simulations as one another, and one value for all states: what differs is who says what to
try. Paired intervals say whether it helped. Under a minute on one core; larger with --chains, --steps and --tasks.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from troupe.engines.evaluator import UniformEvaluator
from troupe.engines.proposing import LanguageProposer, ToldGame
from troupe.episode import Task
from troupe.maths.statistics import mcnemar, paired_proportions
from troupe.models.config import TinyConfig
from troupe.models.language import Policy, build_tiny
from troupe.search.config import SearchConfig
from troupe.systems.selfplay.verifiable.deploy import Solved, load_task_solver, write_chains
from troupe.systems.selfplay.verifiable.in_words import solve_in_words
from troupe.systems.selfplay.verifiable.trainer import TaskTrainer
from troupe.systems.workflow_rl.sft import fine_tune
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.splits import fingerprint
from troupe.training.config import SftConfig, TrainerConfig
from troupe.training.conversations import demonstrations, read_conversations

KIND, DIFFICULTY = "equation", (0.2, 0.4)
GAME = ToldGame(MathProblemGenerator.game(KIND))
TINY = TinyConfig(hidden_size=64, layers=2, intermediate_size=128, max_positions=1024)

NETWORKS: dict[str, Any] = {
    "tasks": {"family": "math", "kinds": [KIND], "difficulty": {KIND: DIFFICULTY}, "gate": 40, "final": 40},
    "net": {"kind": "mlp", "hidden": 128},
    "acting": {"tasks": 160, "chunk": 80, "slots": 80, "workers": 0},
    "learning": {"window": 8000, "first": 300, "batch_size": 128, "reuse": 8, "ema": 0.9},
    "judge": {"every": 4},
    "trainer": {"iterations": 4, "save_freq": 4, "logger": ["jsonl"]},
}


def drawn(n: int, seed: int, taken: Sequence[Task] = ()) -> list[Task]:
    """Tasks that are different from one another and from those that are taken."""
    known, found = {fingerprint(task) for task in taken}, []
    for task in MathProblemGenerator(difficulty_range=DIFFICULTY, seed=seed, kinds=(KIND,)):
        if fingerprint(task) not in known:
            known.add(fingerprint(task))
            found.append(task)
        if len(found) == n:
            break
    return found


def chains(folder: Path, tasks: Sequence[Task], seed: int) -> list[Any]:
    """Conversations about the tasks that trained networks solve."""
    run = {**NETWORKS["trainer"], "default_local_dir": str(folder / "run")}
    TaskTrainer({**NETWORKS, "trainer": run, "seed": seed}).train()
    write_chains(folder / "chains.jsonl", load_task_solver(folder / "run", which="averaged").solve(tasks))
    return read_conversations(folder / "chains.jsonl")


def tune(policy: Policy, conversations: Sequence[Any], steps: int, folder: Path, seed: int) -> None:
    def told(phase: str, step: int, total: int, metrics: Any) -> None:
        if step % 20 == 0:
            print(f"   step {step} of {total}: {metrics['sft/nll']:.2f} nats per token")

    config = SftConfig(steps=steps, batch_size=24, lr=3e-3, optimizer="muon", warmup_steps=10, save_freq=steps)
    episodes = demonstrations(policy, conversations)
    fine_tune(policy, episodes, config, TrainerConfig(), folder, seed=seed, share=True, progress=told)


def attempts(judge: Any, tasks: Sequence[Task], simulations: int) -> list[Solved]:
    search = SearchConfig(simulations=simulations, considered=4, c_scale=1.0)
    return asyncio.run(solve_in_words(MathProblemGenerator, GAME, judge, tasks, search))


def compare(who: str, after: Sequence[bool], before: Sequence[bool]) -> bool:
    """Prints whether the tuned model solves more, and says so."""
    gain = paired_proportions(after, before)
    helped = gain.low > 0
    verdict = "it helped" if helped else "nothing improved" if gain.high >= 0 else "it did harm"
    print(f"   against {who}: {gain.mean:+.1%} [{gain.low:+.1%}, {gain.high:+.1%}], McNemar p = "
          f"{mcnemar(after, before):.1g}: {verdict}")  # fmt: skip
    return helped


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=0, help="of tasks and weights (default: 0)")
    parser.add_argument("--chains", type=int, default=400, help="tasks for fine-tuning (default: 400)")
    parser.add_argument("--steps", type=int, default=60, help="of fine-tuning (default: 60)")
    parser.add_argument("--tasks", type=int, default=80, help="new tasks (default: 80)")
    parser.add_argument("--simulations", type=int, default=4, help="of every search (default: 4)")
    asked = parser.parse_args()

    learned = drawn(asked.chains, 1000 + asked.seed)
    new = drawn(asked.tasks, 2000 + asked.seed, learned)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        conversations = chains(folder, learned, asked.seed)
        print(f"1. trained networks solve {len(conversations)} of {len(learned)} equations; the first in words:")
        for said in conversations[0]["messages"]:
            print("\n".join(f"   {said['role']:>9}  {line}" for line in said["content"].splitlines()))
        corpus = [said["content"] for row in conversations for said in row["messages"]]
        policy = Policy("solver", build_tiny(corpus, TINY, asked.seed))
        results = {
            "uniform priors": attempts(UniformEvaluator(0.5), new, asked.simulations),
            "the untuned model": attempts(LanguageProposer(policy, GAME), new, asked.simulations),
        }
        size = sum(parameter.numel() for parameter in policy.model.parameters())
        print(f"2. fine-tuning of a language model of {size:,} parameters on {len(conversations)} chains")
        tune(policy, conversations, asked.steps, folder / "sft", asked.seed)
        results["the tuned model"] = attempts(LanguageProposer(policy, GAME), new, asked.simulations)
    print(f"3. new equations solved with {asked.simulations} simulations a step, of {len(new)}")
    verdicts = {who: [attempt.success for attempt in found] for who, found in results.items()}
    for who, solved in verdicts.items():
        print(f"   {who:>17}: {sum(solved) / len(solved):.1%}")
    tuned = verdicts.pop("the tuned model")
    helped = [compare(who, tuned, before) for who, before in verdicts.items()]
    better = "the fine-tuned model proposes better steps than either" if all(helped) else "not better than both"
    print(f"   {better}")


if __name__ == "__main__":
    main()
