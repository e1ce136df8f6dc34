"""`AgentTrainer(agent_class=..., env_class=...)`: the same trainer, a team of one."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.guessing import Guesser, LetterGame, words
from tests.letters import Letters
from tests.runs import TINY, lines_of
from troupe.config import load
from troupe.episode import message
from troupe.errors import ConfigError, StorageError
from troupe.systems.workflow_rl import AgentTrainer, load_team
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.workflows.single_agent import SingleAgentWorkflow

WORDS = words("abc", "cab", "bed", "dab", "ace", "bead")
GIVEN: dict[str, Any] = {"agent_class": Guesser, "env_class": LetterGame, "env_args": {"guesses": 3}}


def trainer(folder: Path, **given: Any) -> AgentTrainer:
    changed = {
        "sft.steps": 0, "data.max_prompt_length": 400, "workflow.n_parallel_agents": 8,
        "trainer.default_local_dir": folder, "trainer.total_steps": 2, "trainer.test_freq": 2,
    }  # fmt: skip
    aliases = {"workflow.n_parallel_agents": "workflow.n_parallel_tasks"}
    overrides = [f"{key}={value}" for key, value in (TINY | changed).items()]
    config = load(WorkflowRLConfig, overrides=overrides, aliases=aliases).config
    return AgentTrainer(config=config, train_dataset=WORDS[:4], val_dataset=WORDS[4:], **given)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("single") / "run"
    trainer(folder, **GIVEN).train()
    return folder


def test_step_rewards_are_what_is_learned_from(trained: Path) -> None:
    episodes = lines_of(trained / "episodes.jsonl")
    assert len(episodes) == 2 * 2 * 4 and {t["agent"] for e in episodes for t in e["trajectories"]} == {"agent"}
    steps = [step for e in episodes for t in e["trajectories"] for step in t["steps"]]
    assert {step["reward"] for step in steps} == {0.0, 1.0}
    assert {e["outcome"] for e in episodes} <= {"success", "truncated"}
    updates = [row for row in lines_of(trained / "metrics.jsonl") if "rollout/rows" in row]
    assert len(updates) == 2
    assert all(row["advantage/agent/std"] > 0 and row["credit/unpaid_trajectories"] == 0 for row in updates)
    assert all("actor/loss/policy" in row and "workflow/return" in row for row in updates)


class Typist:
    """Pays each of two steps the share of letters in it: something that random weights earn, too."""

    def reset(self, task: Any) -> str:
        self.left = 2
        return str(task.prompt)

    def step(self, action: str) -> tuple[str, float, bool, bool, dict[str, Any]]:
        self.left -= 1
        return "more", sum(c.isalpha() for c in action) / max(1, len(action)), self.left == 0, False, {}


class Speaker:
    def observe(self, observation: str) -> list[Any]:
        return [message("user", observation)]


@pytest.mark.slow
def test_a_single_agent_learns(tmp_path: Path) -> None:
    config = {
        "model": {"tiny": {"hidden_size": 64, "layers": 2}},
        "data": {"train_batch_size": 4, "max_response_length": 12},
        "algorithm": {"adv_estimator": "grpo"},
        "rollout": {"n": 8},
        "optim": {"lr": 3e-3},
        "trainer": {"total_steps": 30, "default_local_dir": str(tmp_path), "logger": ["jsonl"], "test_freq": 30},
    }
    result = AgentTrainer(
        agent_class=Speaker, env_class=Typist, config=config, train_dataset=WORDS[:4], val_dataset=WORDS[4:]
    ).train()
    before, after = (result.reports[update].metrics["workflow/return"] for update in (0, 30))
    assert before < 1.4 and after > 1.6, (before, after)


def test_the_credit_table_names_the_environment(tmp_path: Path) -> None:
    (row,) = trainer(tmp_path, **GIVEN).credit_rows()
    assert (row.agent, row.trained, row.reward) == ("agent", True, "what its environment pays, step by step")


def test_the_classes_are_remembered(trained: Path) -> None:
    trainer(trained, **GIVEN).train()  # continues: there is nothing left to do
    with pytest.raises(StorageError, match=r"arguments\.env_args\.guesses=3 given in code, this run has 4"):
        trainer(trained, **GIVEN | {"env_args": {"guesses": 4}}).train()
    with pytest.raises(StorageError, match=r"arguments\.agent_class='tests\.guessing:Guesser' given in code"):
        trainer(trained, **GIVEN | {"agent_class": Other}).train()


class Other(Guesser):
    """Another class with the same behaviour."""


def test_such_a_run_is_loaded_with_its_classes(trained: Path) -> None:
    report = load_team(trained, SingleAgentWorkflow, GIVEN).evaluate(WORDS[4:], 2)
    assert len(report.scores) == 2
    with pytest.raises(ConfigError, match=r"single_agent:SingleAgentWorkflow, given in code"):
        load_team(trained)


@pytest.mark.parametrize(
    ("given", "complaint"),
    [
        (GIVEN | {"workflow_class": Letters}, "was given workflow_class and agent_class; pass workflow_class for a"),
        ({"agent_class": Guesser}, "was given agent_class without env_class; a single agent needs both classes"),
        ({"env_class": LetterGame}, "was given env_class without agent_class"),
        ({"env_args": {}}, "was given env_args without agent_class"),
        (GIVEN | {"workflow_args": {"max_stps": 3}}, "max_stps: SingleAgentWorkflow takes no such argument"),
        (GIVEN | {"env_args": {"guess": 3}}, "env_args do not fit env_class LetterGame"),
    ],
)
def test_arguments_that_do_not_go_together(tmp_path: Path, given: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ConfigError, match=complaint):
        trainer(tmp_path, **given)
