"""What training together, own policies and the group key buy where two roles need one another.

    python benchmarks/credit.py --seeds 0 1 2 --folder runs/credit --jobs 2

The relay: a guide sees a target, says one symbol, and a doer who sees only that symbol and a letter of its own answers
with one symbol. Twice per task: first the target is a letter, then it is what a Latin square makes of two letters. The
doer's answer is looked up in another Latin square, and both squares have to be learned. The guide is paid when it said
a symbol and the answer fits the target; the doer is paid when the answer fits what it was told. Held-out tasks hold
combinations of letters in the second round that no training task holds. Before reinforcement learning every arm
imitates a teacher that says a random symbol in half of its replies.

Arms, after "Stronger-MAS" (Zhao et al. 2025, arXiv:2510.11062): one agent that sees everything, without and with a
symbol to think in; each role trained alone beside an untrained partner and then put together; both trained together,
each with weights of its own; these weights with roles swapped; both roles on one set of weights; and the trained-
together arm with the group keys by_task, by_agent and by_agent_turn. Every run has as many tasks and attempts; what is
put together from two runs had both.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from typing import Any, ClassVar

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")

from arms import in_processes, options

from troupe import AgentTrainer, Outcome, Task, message
from troupe.maths.statistics import mean_interval

SYMBOLS = "ABCDE"
UPDATES = 100


def _latin_square(rng: random.Random) -> dict[tuple[str, str], str]:
    """No row or column tells anything about the entry: both letters are needed."""
    rows, columns, entries = (rng.sample(SYMBOLS, len(SYMBOLS)) for _ in range(3))
    n = len(SYMBOLS)
    return {(rows[i], columns[j]): entries[(i + j) % n] for i in range(n) for j in range(n)}


TARGET, ANSWER = (_latin_square(random.Random(seed)) for seed in (1, 2))


def relay_tasks(seed: int, train: int = 2048, held_out: int = 256) -> tuple[list[Task], list[Task]]:
    """Training and held-out tasks; a quarter of the second round's combinations is in the held-out ones alone."""
    rng = random.Random(seed)
    second = list(product(SYMBOLS, repeat=3))
    rng.shuffle(second)
    cut = len(second) // 4
    return _drawn(rng, second[cut:], train, "train"), _drawn(rng, second[:cut], held_out, "held-out")


def _drawn(rng: random.Random, second: Sequence[tuple[str, ...]], n: int, split: str) -> list[Task]:
    tasks = []
    for number in range(n):
        x, c = rng.choice(SYMBOLS), rng.choice(SYMBOLS)
        a, b, d = rng.choice(second)
        rounds = [{"target": x, "doer": c}, {"target": f"{a} {b}", "doer": d}]
        tasks.append(Task(f"{split}-{number}", "relay", "", {"rounds": rounds}, answer=[x, TARGET[a, b]]))
    return tasks


def _symbol(text: str) -> str:
    """The last symbol of a reply; "?" where there is none."""
    return next((c for c in reversed(text) if c in SYMBOLS), "?")


class Relay:
    """A guide and a doer."""

    agent_names: ClassVar[tuple[str, ...]] = ("guide", "doer")
    credit: ClassVar[dict[str, str]] = {
        "guide": "1 a round if the answer fits the target",
        "doer": "1 a round if the answer fits what it was told",
    }
    vocabulary: ClassVar[tuple[str, ...]] = (*SYMBOLS, "say", "do", "answer")

    async def run(self, problem: Any, agents: Any) -> dict[str, float]:
        self.told, self.answers = [], []
        for given in problem.data["rounds"]:
            said = await agents.guide.chat([message("system", "say"), message("user", given["target"])])
            self.told.append(_symbol(said.text))
            asked = f"{self.told[-1]} {given['doer']}"
            done = await agents.doer.chat([message("system", "do"), message("user", asked)])
            self.answers.append(_symbol(done.text))
        return {}

    def reward(self, task: Task, episode: Any) -> None:
        understood = [told in SYMBOLS for told in self.told]
        right = [a and b for a, b in zip(_right(task, self.answers), understood, strict=True)]
        for trajectory in episode.trajectories:
            for number, step in enumerate(trajectory.steps):
                fits = ANSWER.get((self.told[number], task.data["rounds"][number]["doer"])) == self.answers[number]
                step.reward = float(right[number] if trajectory.agent == "guide" else fits)
        _decide(episode, right)


class Alone:
    """One agent that sees the target and the letter; what stands before the last symbol of its reply is thought."""

    agent_names: ClassVar[tuple[str, ...]] = ("solver",)
    credit: ClassVar[dict[str, str]] = {"solver": "1 a round if its answer is right"}
    vocabulary: ClassVar[tuple[str, ...]] = Relay.vocabulary

    async def run(self, problem: Any, agents: Any) -> dict[str, float]:
        self.answers = []
        for given in problem.data["rounds"]:
            asked = [message("system", "answer"), message("user", f"{given['target']} {given['doer']}")]
            self.answers.append(_symbol((await agents.solver.chat(asked)).text))
        return {}

    def reward(self, task: Task, episode: Any) -> None:
        right = _right(task, self.answers)
        for trajectory in episode.trajectories:
            for number, step in enumerate(trajectory.steps):
                step.reward = float(right[number])
        _decide(episode, right)


def _right(task: Task, answers: Sequence[str]) -> list[bool]:
    letters = [given["doer"] for given in task.data["rounds"]]
    return [ANSWER[target, own] == said for target, own, said in zip(task.answer, letters, answers, strict=True)]


def _decide(episode: Any, right: Sequence[bool]) -> None:
    episode.outcome = Outcome.SUCCESS if all(right) else Outcome.FAILURE
    episode.metrics |= {"first_round": float(right[0]), "second_round": float(right[1])}


class RelayTeacher:
    """Says what is right with the chance 1 - noise, else a random symbol."""

    tokens = 2  # of a reply: a symbol and its end

    def __init__(self, tasks: Iterable[Task], *, noise: float, seed: int) -> None:
        self._tasks = {task.id: task for task in tasks}
        self._noise = noise
        self._seed = seed

    @staticmethod
    def can_teach(task: Task) -> bool:
        return True

    def __call__(self, request: Any) -> str:
        *_, task_id, _, agent, call = request.key
        rng = random.Random(f"{self._seed} {request.key}")
        task = self._tasks[task_id]
        words = str(request.messages[-1]["content"]).split()
        target = task.answer[call]
        said = {
            "guide": target,
            "doer": ANSWER.get((words[0], words[-1]), ""),
            "solver": ANSWER.get((target, words[-1])),
        }
        return str(said[agent]) if rng.random() >= self._noise else rng.choice(SYMBOLS)


class ThinkingTeacher(RelayTeacher):
    """Says the target before it answers, each right with the chance 1 - noise."""

    tokens = 4

    def __call__(self, request: Any) -> str:
        answer = super().__call__(request)
        *_, task_id, _, _, call = request.key
        rng = random.Random(f"{self._seed} thought {request.key}")
        thought = self._tasks[task_id].answer[call] if rng.random() >= self._noise else rng.choice(SYMBOLS)
        return f"{thought} {answer}"


@dataclass(frozen=True)
class Arm:
    title: str
    workflow: type = Relay
    teacher: type = RelayTeacher
    changes: dict[str, Any] = field(default_factory=dict)
    parts: tuple[str, str] | None = None  # arms whose guide and whose doer make the team; nothing is trained


OWN = {"policies.weights": "separate"}
ARMS = {
    "alone": Arm("one agent sees all", Alone),
    "thinking": Arm("one agent sees all, may think one symbol", Alone, ThinkingTeacher),
    "guide-only": Arm("guide trained beside an untrained doer", changes={**OWN, "policies.train": ["guide"]}),
    "doer-only": Arm("doer trained beside an untrained guide", changes={**OWN, "policies.train": ["doer"]}),
    "apart": Arm("each trained alone, then put together", parts=("guide-only", "doer-only")),
    "by_agent_turn": Arm("trained together, own weights, by_agent_turn", changes=OWN),
    "swapped": Arm("the same weights with roles swapped", parts=("by_agent_turn", "by_agent_turn")),
    "by_agent": Arm("trained together, own weights, by_agent", changes={**OWN, "algorithm.group": "by_agent"}),
    "by_task": Arm("trained together, own weights, by_task", changes={**OWN, "algorithm.group": "by_task"}),
    "shared": Arm("trained together, one set of weights, by_agent_turn"),
}


def _config(arm: Arm, seed: int, folder: Path) -> dict[str, Any]:
    config: dict[str, Any] = {
        "seed": seed,
        "data": {"train_batch_size": 32, "max_response_length": arm.teacher.tokens, "max_prompt_length": 32},
        "model": {"tiny": {"hidden_size": 64, "layers": 2, "heads": 2, "kv_heads": 1, "intermediate_size": 128}},
        "rollout": {"n": 8},
        "algorithm": {"adv_estimator": "grpo", "group": "by_agent_turn", "gamma": 0.0, "mini_batch_size": 256},
        "optim": {"lr": 6e-4},
        "sft": {"steps": 200, "batch_size": 32, "lr": 5e-3, "optimizer": "muon", "noise": 0.5},
        "policies": {},
        "trainer": {
            "total_steps": UPDATES, "test_freq": 10, "save_freq": UPDATES, "micro_batch_tokens": 16384,
            "logger": ["jsonl"], "default_local_dir": str(folder),
        },
    }  # fmt: skip
    for key, value in arm.changes.items():
        shelf, name = key.split(".")
        config[shelf][name] = value
    return config


def train(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """One run: held-out success over updates, success per round at the end, CPU-seconds."""
    arm = ARMS[name]
    tasks, held_out = relay_tasks(seed)
    trainer = AgentTrainer(
        arm.workflow, {}, _config(arm, seed, folder / f"{name}-{seed}"), tasks, held_out, teacher_class=arm.teacher
    )
    result = trainer.train()
    curve = {str(update): report.success().mean for update, report in sorted(result.reports.items())}
    return {"curve": curve, **_rounds(result.reports[max(result.reports)]), "cpu_seconds": time.process_time()}


def combine(name: str, seed: int, folder: Path) -> dict[str, Any]:
    """A team of policies that other arms trained; `swapped` gives each role the other's."""
    from troupe.systems.workflow_rl.deploy import load_team

    parts = ARMS[name].parts
    assert parts is not None
    sources = [load_team(folder / f"{part}-{seed}", Relay) for part in parts]
    roles = ("doer", "guide") if name == "swapped" else ("guide", "doer")
    states = [source.cast.policies[role].state() for source, role in zip(sources, roles, strict=True)]
    team = load_team(folder / f"{parts[0]}-{seed}", Relay)
    for role, state in zip(("guide", "doer"), states, strict=True):
        team.cast.policies[role].load_state(state)
    return _rounds(team.evaluate(relay_tasks(seed)[1], seed=seed))


def _rounds(report: Any) -> dict[str, float]:
    metrics = report.metrics
    return {
        "success": report.success().mean,
        "first": metrics["workflow/first_round"],
        "second": metrics["workflow/second_round"],
    }


def one(name: str, seed: int, folder: Path) -> None:
    found = combine(name, seed, folder) if ARMS[name].parts else train(name, seed, folder)
    (folder / f"{name}-{seed}.json").write_text(json.dumps(found))
    print(f"{name} seed {seed}: {found['success']:.3f}", flush=True)


def table(arms: Sequence[str], seeds: Sequence[int], folder: Path) -> str:
    """Markdown: mean and Student's 95 % interval over seeds."""
    lines = [
        "| arm | held-out success, per seed | mean [95 %] | first round | second round | updates to 50 % | CPU-s |",
        "|---|---|---|---|---|---|---|",
    ]
    for name in arms:
        runs = [json.loads((folder / f"{name}-{seed}.json").read_text()) for seed in seeds]
        success = [run["success"] for run in runs]
        line = [ARMS[name].title, ", ".join(f"{100 * s:.1f}" for s in success), _percent(success)]
        line += [_percent([run[part] for run in runs]) for part in ("first", "second")]
        line.append(", ".join(_reached(run["curve"]) for run in runs) if "curve" in runs[0] else "")
        line.append(f"{sum(r['cpu_seconds'] for r in runs) / len(runs):.0f}" if "curve" in runs[0] else "")
        lines.append(f"| {' | '.join(line)} |")
    return "\n".join(lines)


def _percent(values: Sequence[float]) -> str:
    found = mean_interval(values)
    interval = f" [{100 * found.low:.1f}, {100 * found.high:.1f}]" if len(values) > 1 else ""
    return f"{100 * found.mean:.1f}{interval}"


def _reached(curve: dict[str, float]) -> str:
    return next((update for update, success in curve.items() if success >= 0.5), "never")


def main() -> None:
    arguments = options(__doc__, list(ARMS), "runs/credit").parse_args()
    if arguments.one:
        one(arguments.one[0], int(arguments.one[1]), arguments.folder)
        return
    wanted = {*arguments.arms, *(part for name in arguments.arms for part in ARMS[name].parts or ())}
    for trained in (True, False):  # what is put together needs what was trained
        names = [name for name in ARMS if name in wanted and (ARMS[name].parts is None) == trained]
        in_processes(__file__, [(name, seed) for seed in arguments.seeds for name in names], arguments)
    print(table(arguments.arms, arguments.seeds, arguments.folder))


if __name__ == "__main__":
    main()
