"""Two agents of one workflow, two rewards, two sets of weights: python examples/workflow_rl.py

A talker is paid for plain letters, a brief one for saying little. Both start from the same random weights, and within
half a minute they have become different: each is paid by its own reward, compared with its own kind, and learns its own
weights.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from typing import Any

from troupe import AgentTrainer, MathProblemGenerator, Outcome, message


class TalkerAndBrief:
    """The shape of every workflow: who speaks when, and what each is paid for afterwards."""

    agent_names = ("talker", "brief")
    credit: Mapping[str, str] = {
        "talker": "share of lower-case letters in what it says",
        "brief": "1 minus the share of the space it used",
    }

    async def run(self, problem: Any, agents: Any) -> None:
        said = await agents.talker.chat([message("user", problem.prompt)])
        await agents.brief.chat([message("user", said.text)])

    def reward(self, task: Any, episode: Any) -> None:
        talker, brief = episode.trajectories
        text = talker.steps[0].action["content"]
        talker.reward = sum("a" <= c <= "z" for c in text) / max(1, len(text))
        brief.reward = 1 - len(brief.steps[0].tokens.response_ids) / 12
        happy = talker.reward > 0.5 and brief.reward > 0.5
        episode.outcome = Outcome.SUCCESS if happy else Outcome.FAILURE


def main() -> None:
    tasks = MathProblemGenerator(seed=0, kinds=("word",)).generate(80)
    with tempfile.TemporaryDirectory() as folder:
        config = {
            "model": {"tiny": {"hidden_size": 64, "layers": 2}},
            "policies": {"weights": "separate"},
            "data": {"train_batch_size": 8, "max_response_length": 12},
            "algorithm": {"adv_estimator": "grpo"},
            "rollout": {"n": 8},
            "optim": {"lr": 3e-3},
            "trainer": {"total_steps": 30, "default_local_dir": folder, "logger": ["jsonl"], "test_freq": 30},
        }
        trainer = AgentTrainer(TalkerAndBrief, {}, config, tasks[:64], tasks[64:], progress=show)
        for row in trainer.credit_rows():
            print(f"{row.agent:>7} speaks for policy {row.policy!r}; paid: {row.reward}; compared {row.group}")
        result = trainer.train()
        for update, report in sorted(result.reports.items()):
            rate = report.success()
            print(f"after update {update:>2}: {rate.mean:.2f} [{rate.low:.2f}, {rate.high:.2f}] of the tasks")


def show(phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
    if phase == "rl" and step % 5 == 0:
        pay = {agent: round(metrics[f"reward/{agent}/mean"], 3) for agent in ("talker", "brief")}
        print(f"update {step}/{total}: mean pay {pay}")


if __name__ == "__main__":
    main()
