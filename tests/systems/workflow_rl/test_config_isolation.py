"""`workflow.isolation`: bubblewrap unless something else was asked for, by name."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.letters import Letters
from tests.runs import overrides
from troupe.cli.train import resolve_config
from troupe.episode import Outcome
from troupe.errors import ConfigError
from troupe.models.language import LanguageModel, Policy
from troupe.sandbox import isolation
from troupe.sandbox import sandbox as sandbox_module
from troupe.systems.workflow_rl import AgentTrainer
from troupe.systems.workflow_rl.deploy import load_team
from troupe.systems.workflow_rl.preview import preview
from troupe.systems.workflow_rl.setup import make_workflow_factory, shared_sandbox, teacher_class
from troupe.systems.workflow_rl.sft import demonstrate
from troupe.tasks.code import CodeProblemGenerator
from troupe.workflows import WORKFLOWS

USES = [("deepcoder", {}), ("swe", {}), ("math_tool", {"use_python": True})]


@pytest.fixture
def no_bubblewrap(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A machine without bwrap: an empty PATH, and nothing remembered of this one."""
    caches = (isolation._bubblewrap, sandbox_module._prove, shared_sandbox)
    for cache in caches:
        cache.cache_clear()
    monkeypatch.setenv("PATH", str(tmp_path))
    yield
    for cache in caches:
        cache.cache_clear()


@pytest.mark.parametrize("name, arguments", USES)
def test_without_bubblewrap_the_refusal_names_the_key(
    name: str, arguments: dict[str, bool], no_bubblewrap: None
) -> None:
    with pytest.raises(
        ConfigError, match=r"^workflow\.isolation='bubblewrap' needs .* or write workflow\.isolation='rlimits' to run"
    ):
        make_workflow_factory(WORKFLOWS[name], arguments, name)


def test_programs_are_judged_under_limits_alone_where_that_is_asked_for(
    no_bubblewrap: None, tiny_model: Callable[[], LanguageModel], caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        make = make_workflow_factory(WORKFLOWS["deepcoder"], {}, "deepcoder", isolation="rlimits")
    assert [record.message for record in caplog.records] == [
        "isolation='rlimits': programs can reach this machine's files, its network and your processes"
    ]
    tasks = CodeProblemGenerator(seed=0).generate(2)
    teacher = teacher_class("deepcoder")
    assert teacher is not None
    episodes = demonstrate(
        tasks, make, teacher(tasks, noise=0.0, seed=0), Policy("base", tiny_model()), seed=0, max_prompt=4096
    )
    assert [episode.outcome for episode in episodes] == [Outcome.SUCCESS] * 2
    judged = make().reward_function
    assert [judged(task, "def f(*given): return None").is_correct for task in tasks] == [False, False]


@pytest.mark.parametrize("name", ["search", "math_solo", "math_tool"])
def test_an_isolation_of_nothing_is_refused(name: str) -> None:
    with pytest.raises(ConfigError, match=r"workflow\.isolation=rlimits is for the sandbox of deepcoder"):
        make_workflow_factory(WORKFLOWS[name], {}, name, isolation="rlimits")
    with pytest.raises(ConfigError, match="this run makes none; leave it out"):
        make_workflow_factory(Letters, {}, isolation="rlimits")


def test_a_run_and_what_comes_of_it_have_the_isolation_of_its_config(
    tmp_path: Path, no_bubblewrap: None, caplog: pytest.LogCaptureFixture
) -> None:
    short = overrides(
        tmp_path / "run", trainer__total_steps=0, sft__steps=0, data__train_size=4, data__val_size=3, rollout__n=2
    )
    with pytest.raises(ConfigError, match=r"write workflow\.isolation='rlimits'"):
        AgentTrainer(config=resolve_config("deepcoder", [], short).config)
    run = AgentTrainer(config=resolve_config("deepcoder", [], [*short, "workflow.isolation=rlimits"]).config)
    assert preview(run).rows
    assert len(run.train().reports[0].scores) == 3
    caplog.clear()
    shared_sandbox.cache_clear()
    team = load_team(tmp_path / "run")
    assert [record.message for record in caplog.records if "isolation='rlimits'" in record.message]
    assert len(team.evaluate(run.val_tasks[:1]).scores) == 1
    assert team.answer(run.val_tasks[0]).trajectories
