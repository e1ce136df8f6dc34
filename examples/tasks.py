"""Tasks with exact verifiers in four examples: python examples/tasks.py [1..4]

1  a task of every family, attempted by a search that knows nothing, step by step in words
2  a network learns equations; what it solves that it did not, and its chains
3  HRM gives the policy and TRM the value, in worlds of different shapes
4  the Tiny Recursive Model fills sudokus without any search

Without a number all of them run, within a minute. Sizes are small; what is printed was measured.
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from troupe.engines.evaluator import UniformEvaluator
from troupe.episode import Task
from troupe.models.config import HRMConfig, TRMConfig
from troupe.models.recursive_agents import create_hrm_agent, create_trm_agent
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.systems.puzzles.solving import load_puzzle_solver
from troupe.systems.puzzles.trainer import PuzzleTrainer
from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator
from troupe.systems.selfplay.search_tasks import MCTSSearchTaskGenerator
from troupe.systems.selfplay.verifiable.deploy import chain_of, load_task_solver, write_chains
from troupe.systems.selfplay.verifiable.trainer import TaskTrainer
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.programs import CodeGenerationTaskGenerator
from troupe.tasks.reasoning import MultiStepReasoningGenerator

LEARNING: dict[str, Any] = {
    "tasks": {
        "family": "math", "kinds": ["equation"], "difficulty": {"equation": (0.4, 0.6)}, "gate": 60, "final": 120,
    },
    "net": {"kind": "mlp", "hidden": 64},
    "acting": {"tasks": 192, "chunk": 96, "slots": 96, "workers": 0},
    "learning": {"window": 10000, "first": 300, "batch_size": 128, "reuse": 6, "ema": 0.95},
    "judge": {"every": 4},
    "trainer": {"iterations": 4, "save_freq": 4, "logger": ["jsonl"]},
}  # fmt: skip

PUZZLES: dict[str, Any] = {
    "data": {"name": "sudoku", "size": 4, "givens": (10, 14), "train": 300, "held_out": 60},
    "net": {
        "kind": "trm",
        "trm": {"hidden": 32, "layers": 1, "rounds": 2, "updates": 1, "mlp_t": True, "round_to": 32, "prefix": 0},
    },
    "learning": {
        "batch_size": 64, "supervision_steps": 4, "lr": 3e-3, "final_lr": 3e-3, "warmup_steps": 4, "ema": 0.9,
        "amp": "none",
    },
    "trainer": {"steps": 120, "log_freq": 40, "test_freq": 120, "save_freq": 120, "logger": ["jsonl"]},
}  # fmt: skip


def searched(game: Any, task: Task, simulations: int = 64) -> tuple[list[int], str | None]:
    """The actions of a search with uniform priors, and what they submit."""
    config = SearchConfig(simulations=simulations, considered=16, kernels="numpy")
    trees = Search(game, config, slots=1, generator=np.random.default_rng(0), explore=False, returns=(0.0, 1.0))
    state, actions, done = game.begin(task.problem), [], False
    trees.place(np.array([0]), [state], np.zeros(1, np.int8))
    while not done:
        roots = run(trees, UniformEvaluator(0.5))
        actions.append(int(roots.edges[0]))
        state = game.step(state, actions[-1])[0]
        done = bool(trees.play(roots.slots, roots.edges).done[0])
    return actions, game.answer(state)


def families() -> None:
    code = CodeGenerationTaskGenerator((0.2, 0.2), seed=1, kinds=("function",), languages=("python",))
    for source in (
        MathProblemGenerator((0.3, 0.3), seed=4, kinds=("equation",)),
        code,
        MultiStepReasoningGenerator((0.15, 0.15), seed=2, kinds=("deduction",)),
        MCTSSearchTaskGenerator((0.2, 0.2), seed=0, kinds=("path",)),
    ):
        generator = type(source)
        (task,) = source.generate(1)
        game = generator.game(task.kind)
        actions, answer = searched(game, task)
        print(f"{task.kind}: {task.prompt}")
        for number, line in enumerate(chain_of(game, task, actions), start=1):
            print(f"  {number}. {line}")
        print(f"  submitted {answer!r}: {'right' if generator.verify(task, answer) else 'wrong'}")


def learned() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = {**LEARNING["trainer"], "default_local_dir": f"{folder}/run"}
        result = TaskTrainer({**LEARNING, "trainer": trainer}).train()
        final, gap = result.final, result.difference
        points = f"{100 * gap.mean:+.1f} points [{100 * gap.low:+.1f}, {100 * gap.high:+.1f}]"
        print(f"of {gap.n} final tasks {final.before.mean:.1%} untrained, {final.after.mean:.1%} champion")
        print(f"{points}, McNemar's p = {final.p:.2g}")
        print(result.decisions[-1][2].reasons[0])
        solver = load_task_solver(result.folder)
        solved = solver.solve(MathProblemGenerator((0.4, 0.6), seed=7, kinds=("equation",)).generate(40))
        first = next((attempt for attempt in solved if attempt.success), solved[0])
        print("\n  ".join([first.task.prompt, *first.chain, f"answer {first.answer}"]))
        chains = Path(folder) / "chains.jsonl"
        print(f"{write_chains(chains, solved)} of {len(solved)} new tasks solved; their chains are conversations")


async def both_agents() -> None:
    hrm_agent = create_hrm_agent(HRMConfig(h_dim=32, l_dim=16, heads=4, max_outer_steps=2), device="cpu")
    trm_agent = create_trm_agent(TRMConfig(latent_dim=32, hidden_dim=64, heads=4, num_recursions=2), device="cpu")
    generator = SelfPlayEpisodeGenerator(hrm_agent, trm_agent, {"num_simulations": 16}, device="cpu")
    tasks = [
        *MultiStepReasoningGenerator((0.0, 0.2), seed=0, kinds=("sudoku", "deduction")).generate(8),
        *MCTSSearchTaskGenerator((0.0, 0.2), seed=0, kinds=("tictactoe", "path")).generate(8),
    ]
    episodes = await generator.generate_episodes(tasks)
    for kind in sorted({task.kind for task in tasks}):
        own = [episode for episode in episodes if episode.metadata["type"] == kind]
        right = sum(episode.outcome == "success" for episode in own)
        print(f"{kind:>10}: {right} of {len(own)} solved with untrained agents")
    calls = generator.forward_calls()
    print(f"HRM was called {calls['policy']} times for the policy, TRM {calls['value']} times for the value")


def puzzles() -> None:
    with tempfile.TemporaryDirectory() as folder:
        trainer = {**PUZZLES["trainer"], "default_local_dir": f"{folder}/run"}
        result = PuzzleTrainer({**PUZZLES, "trainer": trainer}).train()
        for step, exact in enumerate(result.exact, start=1):
            print(f"after supervision step {step}: {exact.mean:.1%} of {exact.n} held-out sudokus right in every cell")
        found = load_puzzle_solver(result.folder).solve("12.. 34.. 21.. 43..")
        print(f"12.. 34.. 21.. 43..  ->  {' '.join(found.text.split())}")


EXAMPLES = {"1": families, "2": learned, "3": both_agents, "4": puzzles}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("example", nargs="?", choices=list(EXAMPLES), help="which of them (default: all)")
    chosen = parser.parse_args().example
    for number in EXAMPLES if chosen is None else [chosen]:
        print(f"\n{number}. {EXAMPLES[number].__name__.replace('_', ' ')}", flush=True)
        ended = EXAMPLES[number]()
        if ended is not None:
            asyncio.run(ended)


if __name__ == "__main__":
    main()
