"""GRPO side by side with TRL: samples per CPU-second, in one process, on one thread.

Both train the same start weights on the same word problems: 16 prompts x 8 samples per update, two minibatches of 64,
at most 16 new tokens, temperature 1, AdamW at 1e-4, no KL term. One sample is one calculator call that is paid by what
it computes. Passes alternate, so that whatever else the machine does meets both; the figure is CPU time, not wall time.

What is timed: from the end of a pass's first update to the end of its last one (the first holds the set-up, and here
the check of the log-probs). Logging counts: `AgentTrainer` writes every episode and metric to disk, TRL reports to
nothing. Left out on both sides: loading, validation, the last checkpoint.

`AgentTrainer` skips rows whose advantages are all zero, since nothing can be learned from them, and cuts what is left
into minibatches of about 64; TRL computes them. The passes "every row" keep them (by an entropy bonus of 1e-12). Those
called "unshared" also compute each prompt once per sample in the update, as TRL does: the difference is what prefix
sharing is worth here, with short answers that often agree.
"""

from __future__ import annotations

import argparse
import gc
import hashlib
import json
import os
import random
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

import torch
import transformers

from troupe.agents import Team
from troupe.episode import Outcome, Problem, Task, message
from troupe.errors import MissingExtra
from troupe.handles import EpisodeHandle
from troupe.models.config import ModelConfig, TinyConfig
from troupe.models.language import LanguageModel, Policy, build_tiny, load_language_model
from troupe.protocols import GenerationRequest
from troupe.systems.workflow_rl import AgentTrainer, sft, state
from troupe.tasks.math import MathProblemGenerator
from troupe.tools.calculator import Calculator
from troupe.training.config import SftConfig, TrainerConfig

PROMPTS, GROUP, MINIBATCH, NEW_TOKENS, LEARNING_RATE = 16, 8, 64, 16, 1e-4
SAMPLES = PROMPTS * GROUP  # of one update
SFT = SftConfig(steps=100)
NOISE = 0.55
"""Share of the demonstrated calls with a wrong operator: what leaves reinforcement learning something to learn."""


# ---------------------------------------------------------------------------------------------- the task


class OneCall:
    """One agent, one turn: it writes `<call>12+30</call>` and is paid 1 if that computes to the answer."""

    agent_names: tuple[str, ...] = ("solver",)
    credit: Mapping[str, str] = {"solver": "1 if its call computes to the right answer"}

    def __init__(self, pay: Callable[[Task, str], float]) -> None:
        self.pay = pay

    async def run(self, problem: Problem, agents: Team) -> None:
        await agents.solver.chat([message("user", problem.prompt)])

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        (trajectory,) = episode.trajectories
        trajectory.reward = self.pay(task, trajectory.steps[-1].action["content"])
        episode.outcome = Outcome.SUCCESS if trajectory.reward == 1 else Outcome.FAILURE


_calculator = Calculator()


def pay(task: Task, text: str) -> float:
    """What both trainers pay for a response text."""
    if not (text.startswith("<call>") and text.endswith("</call>")):
        return 0.0
    return float(_calculator(text.removeprefix("<call>").removesuffix("</call>")) == task.answer)


def word_problems(n: int, seed: int) -> list[Task]:
    """`n` problems, none twice."""
    stream = iter(MathProblemGenerator((0.5, 0.5), seed, ("word",)))
    found: dict[str, Task] = {}
    while len(found) < n:
        task = next(stream)
        found[task.id] = task
    return list(found.values())


def teacher(tasks: Sequence[Task], seed: int) -> Callable[[GenerationRequest], str]:
    """Demonstrates the call of each task, with another operator in `NOISE` of them."""
    calls = {task.id: task.solution["plan"][0] for task in tasks}

    def respond(request: GenerationRequest) -> str:
        call = calls[request.key[2]]  # (seed, purpose, task, ...)
        rng = random.Random(f"{seed} {request.key}")
        if rng.random() < NOISE:
            at = next(i for i, c in enumerate(call) if c in "+-*/")
            call = call[:at] + rng.choice("+-*/".replace(call[at], "")) + call[at + 1 :]
        return f"<call>{call}</call>"

    return respond


def start_model(
    seed: int,
    workflow: Callable[[Callable[[Task, str], float]], Any] = OneCall,
    teach: Callable[[Sequence[Task], int], Callable[[GenerationRequest], str]] = teacher,
) -> Path:
    """A folder with the embedded model after supervised fine-tuning; made once per seed, workflow and settings."""
    name = "" if workflow is OneCall else getattr(workflow, "__name__", "")
    settings = json.dumps([seed, NOISE, SFT.model_dump(mode="json"), TinyConfig().model_dump(mode="json"), name])
    digest = hashlib.blake2b(settings.encode(), digest_size=6).hexdigest()
    folder = Path(tempfile.gettempdir()) / f"troupe-benchmark-{digest}"
    if (folder / "config.json").exists():
        return folder
    tasks = word_problems(2048, seed + 1)
    policy = Policy("start", build_tiny([f"{t.prompt} {t.solution['plan'][0]}" for t in tasks], TinyConfig(), seed))
    episodes = sft.demonstrate(
        tasks, lambda: workflow(pay), teach(tasks, seed), policy, seed=seed, max_prompt=TinyConfig().max_positions
    )
    with tempfile.TemporaryDirectory() as scratch:
        sft.fine_tune(
            policy, episodes, SFT, TrainerConfig(), Path(scratch) / "sft", seed=seed, share=True, progress=_silent
        )
    state.save_start(policy.model, folder)
    return folder


def _silent(phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
    pass


# ---------------------------------------------------------------------------------------------- one pass of each


@dataclass(frozen=True)
class Pass:
    """One pass: samples per CPU-second and the mean reward of all its samples."""

    rate: float
    reward: float
    learned_rows: float  # share of the samples that the updates computed

    @classmethod
    def between(cls, ticks: Sequence[float], rewards: Sequence[float], learned: float = 1.0) -> Pass:
        """`ticks` are CPU seconds at the end of each update."""
        return cls((len(ticks) - 1) * SAMPLES / (ticks[-1] - ticks[0]), statistics.fmean(rewards), learned)


def troupe_pass(
    start: Path,
    tasks: Sequence[Task],
    seed: int,
    *,
    workflow: type[Any] = OneCall,
    reward: Callable[[Task, str], float] = pay,
    every_row: bool = False,
    share: bool = True,
) -> Pass:
    """`AgentTrainer` on one agent, GRPO."""
    ticks: list[float] = []
    seen: list[Mapping[str, float]] = []

    def progress(phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        ticks.append(time.process_time())
        seen.append(metrics)

    with tempfile.TemporaryDirectory() as folder:
        config = {
            "seed": seed,
            "model": {"path": str(start), "prefix_sharing": share},
            "data": {"train_batch_size": PROMPTS, "max_response_length": NEW_TOKENS},
            "rollout": {"n": GROUP},
            "algorithm": {
                "adv_estimator": "grpo",
                "mini_batch_size": MINIBATCH,
                "entropy_coeff": 1e-12 if every_row else 0.0,
            },
            "optim": {"lr": LEARNING_RATE, "betas": (0.9, 0.999)},
            "trainer": {
                "total_steps": len(tasks) // PROMPTS,
                "val_before_train": False,
                "test_freq": 0,
                "save_freq": 1000,
                "logger": ("jsonl",),
                "default_local_dir": folder,
            },
        }
        AgentTrainer(workflow, {"pay": reward}, config, tasks, tasks[:1], progress=progress).train()
    skipped = sum(metrics.get("rollout/rows_without_signal", 0.0) for metrics in seen) / (len(seen) * SAMPLES)
    return Pass.between(ticks, [metrics["reward/solver/mean"] for metrics in seen], 1.0 - skipped)


def trl_pass(
    start: Path,
    tasks: Sequence[Task],
    seed: int,
    *,
    reward: Callable[[Task, str], float] = pay,
    rollout: Callable[[LanguageModel], Callable[[Any, Any], dict[str, Any]]] | None = None,
    longest: int = NEW_TOKENS,
) -> Pass:
    """TRL's GRPOTrainer. Two of its optimiser steps are one update: `steps_per_generation=2`. `rollout(model)` is its
    `rollout_func`, whose `said` is what is paid."""
    try:
        from datasets import Dataset
        from transformers import PrinterCallback, TrainerCallback
        from trl import GRPOConfig, GRPOTrainer
    except ImportError as error:
        raise MissingExtra(str(error.name), "trl", "the comparison with TRL") from error
    model = load_language_model(start, ModelConfig())
    by_id = {task.id: task for task in tasks}
    ticks: list[float] = []
    rewards: list[float] = []

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step % (SAMPLES // MINIBATCH) == 0:
                ticks.append(time.process_time())

    def paid_by(completion_ids: list[list[int]], task: list[str], said: Any = None, **_: Any) -> list[float]:
        # TRL's own texts lack special tokens; the ids have everything.
        texts = said or [model.format.decode(ids) for ids in completion_ids]
        paid = [reward(by_id[name], text) for name, text in zip(task, texts, strict=True)]
        rewards.extend(paid)
        return paid

    with tempfile.TemporaryDirectory() as folder:
        config = GRPOConfig(
            output_dir=folder, seed=seed, use_cpu=True, bf16=False, gradient_checkpointing=False,
            per_device_train_batch_size=MINIBATCH, gradient_accumulation_steps=1,
            steps_per_generation=SAMPLES // MINIBATCH, num_generations=GROUP,
            max_steps=len(tasks) // PROMPTS * (SAMPLES // MINIBATCH),
            max_completion_length=longest, temperature=1.0, top_k=0, beta=0.0, epsilon=0.2, epsilon_high=0.28,
            learning_rate=LEARNING_RATE, lr_scheduler_type="constant", max_grad_norm=1.0,
            logging_steps=1000, report_to=[], save_strategy="no", disable_tqdm=True,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=model.network,
            reward_funcs=paid_by,
            args=config,
            train_dataset=Dataset.from_list([{"prompt": [message("user", t.prompt)], "task": t.id} for t in tasks]),
            processing_class=model.tokenizer,
            callbacks=[Clock()],
            **({} if rollout is None else {"rollout_func": rollout(model)}),
        )
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    return Pass.between(ticks, rewards)


# ---------------------------------------------------------------------------------------------- the comparison


def alternate(contestants: Mapping[str, Callable[[], Pass]], rounds: int) -> dict[str, list[Pass]]:
    """A warm-up pass of each, then `rounds` times all in turn, and the first once more."""
    for run in contestants.values():
        run()
    passes: dict[str, list[Pass]] = {name: [] for name in contestants}
    names = list(contestants) * rounds + list(contestants)[:1]
    for name in names:
        gc.collect()
        passes[name].append(contestants[name]())
        last = passes[name][-1]
        print(f"  {name:18} {last.rate:6.0f} samples/CPU-s   mean reward {last.reward:.3f}", flush=True)
    return passes


def ratios(ours: Sequence[Pass], theirs: Sequence[Pass]) -> dict[str, float]:
    """Ratio of the median rates; least and most of the ratios that any two passes give."""
    a, b = [p.rate for p in ours], [p.rate for p in theirs]
    return {"median": statistics.median(a) / statistics.median(b), "min": min(a) / max(b), "max": max(a) / min(b)}


def machine() -> dict[str, Any]:
    import trl

    return {
        "cpus": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "trl": trl.__version__,
    }


def conclude(passes: Mapping[str, Sequence[Pass]], path: Path | None) -> None:
    """Prints medians and ratios to TRL, and writes them to `path`."""
    figures: dict[str, Any] = {"machine": machine(), "ratio": {}, "rate": {}, "reward": {}}
    print(f"machine: {figures['machine']}")
    for name, found in passes.items():
        figures["rate"][name] = statistics.median(p.rate for p in found)
        figures["reward"][name] = statistics.fmean(p.reward for p in found)
        learned = statistics.fmean(p.learned_rows for p in found)
        print(
            f"{name:18} {figures['rate'][name]:6.0f} samples/CPU-s (median of {len(found)}), mean reward "
            f"{figures['reward'][name]:.3f}, learned from {learned:.0%} of the samples"
        )
    for name in passes:
        if name == "trl":
            continue
        ratio = figures["ratio"][name] = ratios(passes[name], passes["trl"])
        print(f"{name} / trl: {ratio['median']:.2f} (min {ratio['min']:.2f}, max {ratio['max']:.2f} over passes)")
    if path is not None:
        figures["passes"] = {name: [asdict(p) for p in found] for name, found in passes.items()}
        path.write_text(json.dumps(figures, indent=2) + "\n")


def parsed_options(doc: str) -> argparse.Namespace:
    """The command line of both comparisons; one thread from here on."""
    parser = argparse.ArgumentParser(description=doc.splitlines()[0])
    parser.add_argument("--updates", type=int, default=4, help="timed updates of a pass")
    parser.add_argument("--rounds", type=int, default=2, help="passes of each contestant (the first gets one more)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    torch.set_num_threads(1)
    transformers.utils.logging.disable_progress_bar()
    return parser.parse_args()


def main() -> None:
    options = parsed_options(__doc__)
    start = start_model(options.seed)
    tasks = word_problems(PROMPTS * (options.updates + 1), options.seed)
    passes = alternate(
        {
            "troupe": lambda: troupe_pass(start, tasks, options.seed),
            "trl": lambda: trl_pass(start, tasks, options.seed),
            "troupe, every row": lambda: troupe_pass(start, tasks, options.seed, every_row=True),
            "troupe, unshared": lambda: troupe_pass(start, tasks, options.seed, every_row=True, share=False),
        },
        options.rounds,
    )
    conclude(passes, options.json)


if __name__ == "__main__":
    main()
