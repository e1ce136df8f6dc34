"""Supervised fine-tuning on demonstrations."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.letters import Letters, LettersTeacher
from tests.runs import lines_of
from troupe.episode import Episode
from troupe.errors import DataError
from troupe.models.language import LanguageModel, Policy
from troupe.protocols import GenerationRequest
from troupe.stores.state import parameter_hash
from troupe.systems.workflow_rl.setup import make_workflow_factory
from troupe.systems.workflow_rl.sft import demonstrate, fine_tune
from troupe.tasks.math import MathProblemGenerator
from troupe.training.config import SftConfig, TrainerConfig
from troupe.workflows import MathTeacher, MathToolWorkflow

TASKS = MathProblemGenerator(seed=9, kinds=("linear", "word")).generate(12)
Model = Callable[..., LanguageModel]


def shown(policy: Policy, **options: Any) -> list[Episode]:
    settings = {"seed": 0, "max_prompt": 512} | options
    return demonstrate(TASKS, Letters, LettersTeacher(TASKS, noise=0.0, seed=0), policy, **settings)


def tuned(model: LanguageModel, folder: Path, episodes: list[Episode], *, stop: int = 10**6, **changed: Any) -> str:
    """The parameter hash after fine-tuning; an interruption comes once `stop` steps are done."""
    policy = Policy("base", model)
    config = SftConfig(**({"steps": 8, "batch_size": 4, "save_freq": 2, "lr": 1e-2, "warmup_steps": 2} | changed))

    def progress(phase: str, step: int, total: int, metrics: Any) -> None:
        assert (phase, total) == ("sft", config.steps)
        if step == stop:
            raise KeyboardInterrupt

    fine_tune(policy, episodes, config, TrainerConfig(), folder, seed=1, share=True, progress=progress)
    return parameter_hash(policy.state())


def test_demonstrations_are_episodes_of_the_workflow(tiny_model: Model) -> None:
    policy = Policy("base", tiny_model())
    episodes = shown(policy)
    assert [episode.task_id for episode in episodes] == [task.id for task in TASKS]
    first = episodes[0].of("writer")[0].steps
    assert [step.action["content"] for step in first] == [f"w{call} {TASKS[0].prompt[:6]}" for call in (0, 1)]
    for episode in episodes:
        for step in episode.steps():
            assert step.tokens is not None and step.tokens.logprobs is None and all(step.tokens.mask)
            assert policy.model.format.decode(step.tokens.response_ids) == step.action["content"]


def test_several_rounds(tiny_model: Model) -> None:
    episodes = shown(Policy("base", tiny_model()), rounds=2)
    assert len(episodes) == 24 and len({episode.id for episode in episodes}) == 24


def test_a_noisy_teacher_errs_and_a_silent_one_does_not(tiny_model: Model) -> None:
    policy, make = Policy("base", tiny_model()), make_workflow_factory(MathToolWorkflow, {}, "math_tool")
    shares = []
    for noise in (0.0, 0.8):
        teacher = MathTeacher(TASKS, noise=noise, seed=0)
        episodes = demonstrate(TASKS, make, teacher, policy, seed=0, max_prompt=10**4)
        shares.append(sum(episode.outcome == "success" for episode in episodes) / len(episodes))
    assert shares[0] == 1.0 and shares[1] < 0.9


def test_a_demonstration_that_fails_is_named(tiny_model: Model) -> None:
    policy = Policy("base", tiny_model())
    with pytest.raises(DataError, match=f"demonstration of task {TASKS[0].id!r} failed: .*tokens"):
        shown(policy, max_prompt=3)

    def broken(request: GenerationRequest) -> str:
        raise KeyError("no such task")

    with pytest.raises(KeyError, match="no such task"):  # the teacher is the engine here, and an engine may not fail
        demonstrate(TASKS, Letters, broken, policy, seed=0, max_prompt=512)


def test_the_model_comes_to_speak_like_the_teacher(tiny_model: Model, tmp_path: Path) -> None:
    model = tiny_model()
    tuned(model, tmp_path, shown(Policy("base", model)), steps=40)
    losses = [row["sft/nll"] for row in lines_of(tmp_path / "metrics.jsonl")]
    assert len(losses) == 40 and losses[-1] < 0.5 * losses[0]
    rates = [row["lr/sft"] for row in lines_of(tmp_path / "metrics.jsonl")]
    assert rates[0] == pytest.approx(0.005) and max(rates) <= 0.01 and rates[-1] < 0.002  # warm-up, then a cosine


@pytest.mark.parametrize("stop", [1, 2, 5, 8])
def test_an_interrupted_fine_tuning_ends_as_an_uninterrupted_one(tiny_model: Model, tmp_path: Path, stop: int) -> None:
    episodes = shown(Policy("base", tiny_model()))
    expected = tuned(tiny_model(), tmp_path / "whole", episodes)
    with pytest.raises(KeyboardInterrupt):
        tuned(tiny_model(), tmp_path / "cut", episodes, stop=stop)
    assert tuned(tiny_model(), tmp_path / "cut", episodes) == expected
    assert (tmp_path / "cut" / "metrics.jsonl").read_bytes() == (tmp_path / "whole" / "metrics.jsonl").read_bytes()
    assert tuned(tiny_model(), tmp_path / "cut", episodes) == expected  # finished: nothing more to learn


def test_the_cut_into_micro_batches_changes_only_rounding(tiny_model: Model, tmp_path: Path) -> None:
    losses = []
    for name, budget in (("one", 10**6), ("many", 1)):
        policy = Policy("base", tiny_model())
        config = SftConfig(steps=2, batch_size=4, lr=1e-3, warmup_steps=0)
        fine_tune(
            policy, shown(policy), config, TrainerConfig(micro_batch_tokens=budget), tmp_path / name,
            seed=1, share=budget > 1, progress=lambda *_: None,
        )  # fmt: skip
        losses.append([row["sft/nll"] for row in lines_of(tmp_path / name / "metrics.jsonl")])
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
