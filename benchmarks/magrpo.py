"""Two agents, one shared reward: Troupe side by side with CoMLRL's MAGRPO, on the task of CoMLRL's own quick demo.

    python benchmarks/magrpo.py --seeds 0 1 2 --folder runs/magrpo

Two models write a text each for one prompt; both are paid 1 if the second text is two to three times as long as the
first, in characters, else exp(-distance to that band) (CoMLRL, "Quick Demo", https://openmlrl.github.io/CoMLRL). Both
sides start from the same weights (the embedded model, fine-tuned to tell stories of one to twelve words, so that the
two lengths do not depend on one another), see the same 32 prompts equally often, sample 8 prompts x 8 pairs at
temperature 1 an update, make one AdamW step per agent and update, and compute group-normalised advantages.

A run ends when the mean reward of its last five updates (320 pairs) reaches 0.9, or after 150 updates. CPU-seconds are
those of the process from the call of `train()` on; Troupe's hold the loading of the model, the check of the log-probs
and writing every episode to disk, CoMLRL's hold nothing of the kind. Each side runs with three learning rates, so that
neither is judged by the other's.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import random
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
os.environ.setdefault("WANDB_MODE", "disabled")

from arms import in_processes, options

from troupe.agents import Team
from troupe.episode import Outcome, Problem, Task, message
from troupe.errors import MissingExtra
from troupe.handles import EpisodeHandle
from troupe.maths.statistics import mean_interval
from troupe.protocols import GenerationRequest

PROMPTS, GROUP, NEW_TOKENS, MOST_UPDATES = 8, 8, 24, 150
THRESHOLD, WINDOW = 0.9, 5
RATES = ("3e-4", "1e-3", "3e-3")
ARMS = [f"{side}-{rate}" for side in ("troupe", "magrpo") for rate in RATES]


class Reached(Exception):
    """The threshold is reached: the way out of either trainer."""


# ---------------------------------------------------------------------------------------------- the task

THINGS = ("moon", "ship", "river", "clock", "garden", "letter", "tower", "fox")
KINDS = ("story", "poem", "joke", "song")
WORDS = ("the", "old", "fox", "saw", "a", "light", "and", "ran", "over", "cold", "hills", "home")


def story_tasks(updates: int) -> list[Task]:
    """The 32 prompts again and again, in one order, as many as `updates` need."""
    prompts = [f"Write a {kind} about a {thing}:" for thing in THINGS for kind in KINDS]
    return [Task(f"story-{n}", "story", prompts[n % len(prompts)]) for n in range(updates * PROMPTS)]


def length_reward(first: str, second: str) -> float:
    """1 if `second` is 2 to 3 times as long as `first`, else exp(-distance); 0 beside an empty `first`."""
    if not first:
        return 0.0
    ratio = len(second) / len(first)
    return math.exp(-max(0.0, 2.0 - ratio, ratio - 3.0))


class TwoStories:
    """Both agents write at the same time, and neither sees the other's text."""

    agent_names: tuple[str, ...] = ("first", "second")
    credit: Mapping[str, str] = {
        name: "1 if the second text is 2 to 3 times as long as the first" for name in agent_names
    }

    async def run(self, problem: Problem, agents: Team) -> None:
        asked = [message("user", problem.prompt)]
        await asyncio.gather(agents.first.chat(asked), agents.second.chat(asked))

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        texts = {t.agent: str(t.steps[0].action["content"]) for t in episode.trajectories}
        paid = length_reward(texts["first"], texts["second"])
        for trajectory in episode.trajectories:
            trajectory.reward = paid
        episode.outcome = Outcome.SUCCESS if paid == 1 else Outcome.FAILURE


def storyteller(seed: int) -> Callable[[GenerationRequest], str]:
    """One to twelve words."""

    def respond(request: GenerationRequest) -> str:
        rng = random.Random(f"{seed} {request.key}")
        return " ".join(rng.choices(WORDS, k=rng.randint(1, 12)))

    return respond


def start_model(seed: int, folder: Path) -> Path:
    """The embedded model after 60 steps of supervised fine-tuning; made once per seed."""
    from troupe.models.config import TinyConfig
    from troupe.models.language import Policy, build_tiny
    from troupe.systems.workflow_rl import sft, state
    from troupe.training.config import SftConfig, TrainerConfig

    start = folder / f"start-{seed}"
    if not (start / "config.json").exists():
        tasks = story_tasks(64)
        policy = Policy("start", build_tiny([*(t.prompt for t in tasks), " ".join(WORDS)], TinyConfig(), seed))
        episodes = sft.demonstrate(
            tasks, TwoStories, storyteller(seed), policy, seed=seed, max_prompt=TinyConfig().max_positions
        )
        with tempfile.TemporaryDirectory() as scratch:
            sft.fine_tune(
                policy, episodes, SftConfig(steps=60), TrainerConfig(), Path(scratch) / "sft", seed=seed, share=True,
                progress=lambda *_: None,
            )  # fmt: skip
        state.save_start(policy.model, start)
    return start


# ---------------------------------------------------------------------------------------------- the two sides


class Clock:
    """Mean reward and CPU-seconds of each update; raises Reached when the last updates pass the threshold."""

    def __init__(self) -> None:
        self.began = time.process_time()
        self.rewards: list[float] = []
        self.seconds: list[float] = []

    def updated(self, reward: float) -> None:
        self.rewards.append(reward)
        self.seconds.append(time.process_time() - self.began)
        if len(self.rewards) >= WINDOW and sum(self.rewards[-WINDOW:]) / WINDOW >= THRESHOLD:
            raise Reached


def troupe_run(start: Path, seed: int, rate: float, clock: Clock) -> None:
    """GRPO with weights of its own for each agent."""
    from troupe import AgentTrainer

    def progress(phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        clock.updated(metrics["reward/first/mean"])

    tasks = story_tasks(MOST_UPDATES)
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "seed": seed,
            "model": {"path": str(start)},
            "policies": {"weights": "separate"},
            "data": {"train_batch_size": PROMPTS, "max_response_length": NEW_TOKENS},
            "rollout": {"n": GROUP},
            "algorithm": {"adv_estimator": "grpo", "group": "by_agent", "mini_batch_size": 2 * PROMPTS * GROUP},
            "optim": {"lr": rate},
            "trainer": {
                "total_steps": MOST_UPDATES, "val_before_train": False, "test_freq": 0, "save_freq": MOST_UPDATES + 1,
                "logger": ["jsonl"], "default_local_dir": folder,
            },
        }  # fmt: skip
        AgentTrainer(TwoStories, {}, config, tasks, tasks[:1], progress=progress).train()


def magrpo_run(start: Path, seed: int, rate: float, clock: Clock) -> None:
    """CoMLRL's trainer on two copies of the model, with the prompts as Troupe renders them."""
    try:
        from comlrl.trainers.reinforce import MAGRPOConfig, MAGRPOTrainer
        from datasets import Dataset
    except ImportError as error:
        raise MissingExtra(str(error.name), "peers", "the comparison with CoMLRL") from error
    import torch

    from troupe.models.config import ModelConfig
    from troupe.models.language import load_language_model

    random.seed(seed)
    torch.manual_seed(seed)
    models = [load_language_model(start, ModelConfig()) for _ in range(2)]
    format_ = models[0].format
    paid: list[float] = []

    def reward(firsts: Sequence[str], seconds: Sequence[str]) -> list[float]:
        if len(paid) == PROMPTS * GROUP:  # the update of these came before this pair
            clock.updated(sum(paid) / len(paid))
            paid.clear()
        (value,) = (length_reward(a, b) for a, b in zip(firsts, seconds, strict=True))
        paid.append(value)
        return [value]

    def rendered(item: Mapping[str, Any]) -> str:
        return format_.decode(format_.encode([message("user", item["prompt"])]))

    tasks = story_tasks(MOST_UPDATES)
    for task in tasks[: len(THINGS) * len(KINDS)]:
        same = models[0].tokenizer(rendered({"prompt": task.prompt}))["input_ids"]
        assert tuple(same) == format_.encode([message("user", task.prompt)]), "both sides must see the same tokens"
    for model in models:
        model.network.generation_config.eos_token_id = format_.eos_id
        model.network.generation_config.pad_token_id = model.tokenizer.pad_token_id
    trainer = MAGRPOTrainer(
        agents=[model.network for model in models],
        num_agents=2,
        tokenizer=models[0].tokenizer,
        train_dataset=Dataset.from_list([{"prompt": task.prompt} for task in tasks]),
        reward_func=reward,
        formatters=[rendered, rendered],
        args=MAGRPOConfig(
            num_train_epochs=1, agent_learning_rate=rate, num_agents=2, num_generations=GROUP,
            max_new_tokens=NEW_TOKENS, temperature=1.0, top_p=1.0, top_k=0, num_turns=1, eval_interval=0,
            rollout_buffer_size=PROMPTS, train_batch_size=PROMPTS,
        ),
    )  # fmt: skip
    trainer.verbose = False
    clock.began = time.process_time()
    trainer.train()
    clock.updated(sum(paid) / len(paid))


def one(arm: str, seed: int, folder: Path) -> None:
    """One run, and its result as JSON."""
    import torch

    torch.set_num_threads(1)
    side, _, rate = arm.partition("-")
    start = folder / f"start-{seed}"
    clock = Clock()
    try:
        {"troupe": troupe_run, "magrpo": magrpo_run}[side](start, seed, float(rate), clock)
    except Reached:
        reached = True
    else:
        reached = False
    found = {"reached": reached, "rewards": clock.rewards, "cpu_seconds": clock.seconds}
    (folder / f"{arm}-{seed}.json").write_text(json.dumps(found))
    print(f"{arm} seed {seed}: {clock.rewards[0]:.3f} -> {clock.rewards[-1]:.3f}, {len(clock.rewards)} updates, "
          f"{clock.seconds[-1]:.1f} CPU-s", flush=True)  # fmt: skip


def table(arms: Sequence[str], seeds: Sequence[int], folder: Path) -> str:
    """Markdown. Updates and CPU-seconds to the threshold per seed; seconds per update as a mean over seeds."""
    lines = [
        "| arm | mean reward, first -> last | updates to the threshold | CPU-s to the threshold | CPU-s per update |",
        "|---|---|---|---|---|",
    ]
    for arm in arms:
        runs = [json.loads((folder / f"{arm}-{seed}.json").read_text()) for seed in seeds]
        span = ", ".join(f"{run['rewards'][0]:.2f} -> {run['rewards'][-1]:.2f}" for run in runs)
        steps = ", ".join(str(len(run["rewards"])) if run["reached"] else "never" for run in runs)
        seconds = ", ".join(f"{run['cpu_seconds'][-1]:.0f}" if run["reached"] else "never" for run in runs)
        pace = mean_interval([run["cpu_seconds"][-1] / len(run["rewards"]) for run in runs]).mean
        lines.append(f"| {arm} | {span} | {steps} | {seconds} | {pace:.2f} |")
    return "\n".join(lines)


def main() -> None:
    arguments = options(__doc__, ARMS, "runs/magrpo").parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments.folder)
        return
    arguments.folder.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        start_model(seed, arguments.folder)
    in_processes(__file__, [(arm, seed) for seed in arguments.seeds for arm in arguments.arms], arguments)
    print(table(arguments.arms, arguments.seeds, arguments.folder))


if __name__ == "__main__":
    main()
