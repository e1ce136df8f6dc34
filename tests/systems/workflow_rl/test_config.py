"""No option is silently ignored: what the user wrote is read, or refused with what to write instead."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.letters import Letters
from troupe.cli.train import preset_path, resolve_config
from troupe.config import load
from troupe.errors import ConfigError
from troupe.systems.workflow_rl import AgentTrainer
from troupe.systems.workflow_rl.config import ALIASES, READ_WHEN, WorkflowRLConfig

PRESETS = sorted(path.stem for path in preset_path("demo").parent.glob("*.yaml"))
ESTIMATORS = ("gae", "grpo", "dr_grpo", "rloo", "reinforce_pp", "reinforce_pp_baseline", "rae")

CASES: dict[str, tuple[str, list[str], list[str]]] = {
    "data.kinds": ("data.kinds={linear: 1}", ["data.train=gsm8k"], ["data.train=math"]),
    "data.difficulty": ("data.difficulty=[0,1]", ["data.train=gsm8k"], ["data.train=gsm8k", "data.val=math"]),
    "model.tiny": ("model.tiny.layers=2", ["model.path=some/model"], ["model.path=null"]),
    "model.lora": ("model.lora.rank=4", ["policies.weights=separate"], ["policies.weights=lora"]),
    "trainer.logprob_tolerance": ("trainer.logprob_tolerance=1", ["model.dtype=bfloat16"], ["model.device=cpu"]),
    "rollout.max_rounds": ("rollout.max_rounds=4", [], ["rollout.filter_groups=true"]),
    "rollout.max_staleness": ("rollout.max_staleness=1", [], ["rollout.mode=async"]),
    "rollout.stale": ("rollout.stale=drop", [], ["rollout.mode=async"]),
    "algorithm.group": ("algorithm.group=by_task", [], ["algorithm.agents={verifier: {adv_estimator: rloo}}"]),
    "algorithm.agents.*.group": (
        "algorithm.agents={verifier: {group: by_task}}", ["algorithm.adv_estimator=rae"],
        ["algorithm.adv_estimator=grpo"],
    ),
    "algorithm.lam": (
        "algorithm.lam=0.95", ["algorithm.adv_estimator=grpo"],
        ["algorithm.adv_estimator=grpo", "algorithm.agents={verifier: {adv_estimator: gae}}"],
    ),
    "algorithm.normalize_advantages": (
        "algorithm.normalize_advantages=false", ["algorithm.adv_estimator=rae"], ["algorithm.adv_estimator=gae"],
    ),
    "critic": ("critic.optim.lr=1e-3", ["algorithm.adv_estimator=grpo"], ["algorithm.adv_estimator=gae"]),
    "algorithm.agents.*.lam": (
        "algorithm.agents={verifier: {lam: 0.9}}", ["algorithm.adv_estimator=grpo"], ["algorithm.adv_estimator=gae"],
    ),
    "algorithm.agents.*": (
        "algorithm.agents={verifier: {gamma: 0.9}}", ["policies.train=[analyzer]"], ["policies.train=[verifier]"],
    ),
    "algorithm.rae_decay": ("algorithm.rae_decay=0.9", [], ["algorithm.adv_estimator=rae"]),
    "algorithm.kl_estimator": ("algorithm.kl_estimator=k2", ["algorithm.kl_beta=0"], ["algorithm.kl_beta=0.1"]),
    "algorithm.kl_in": ("algorithm.kl_in=reward", ["algorithm.kl_beta=0"], ["algorithm.kl_beta=0.1"]),
    "algorithm.importance_cap": ("algorithm.importance_cap=2", [], ["algorithm.importance=token"]),
    "sft": ("sft.lr=1e-3", [], ["sft.steps=1"]),
    "trainer.amp_dtype": ("trainer.amp_dtype=fp16", ["trainer.use_amp=false"], ["trainer.use_amp=true"]),
}  # fmt: skip
"""Key of the table -> an override of it, overrides that leave it unread, overrides under which it is read."""


def test_every_row_of_the_table_has_a_case() -> None:
    assert list(CASES) == [key for row in READ_WHEN for key in row.keys]


@pytest.mark.parametrize("key", CASES)
def test_a_key_that_nothing_would_read(key: str) -> None:
    override, elsewhere, here = CASES[key]
    written = ALIASES.get(override.partition("=")[0], override.partition("=")[0])
    with pytest.raises(ConfigError) as caught:
        load(WorkflowRLConfig, overrides=[*elsewhere, override], aliases=ALIASES)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"override '{override}'") and f": {written}" in line and " is for " in line
    assert "leave it out" in line and "{" not in line.removeprefix(f"override '{override}'")
    load(WorkflowRLConfig, overrides=[*here, override], aliases=ALIASES)


@pytest.mark.parametrize("preset", PRESETS)
def test_presets_do_not_trip_over_what_is_written_above_them(preset: str) -> None:
    for estimator in ESTIMATORS:
        resolve_config(preset, [], [f"algorithm.adv_estimator={estimator}", "rollout.n=8"])
    resolve_config(preset, [], ["data.train=mine", "sft.steps=0", "model.path=some/model"])


def test_a_mapping_given_to_the_trainer_is_the_users(tmp_path: Path) -> None:
    given = {"algorithm": {"adv_estimator": "grpo", "lam": 0.9}, "trainer": {"amp_dtype": "fp16"}}
    with pytest.raises(ConfigError, match=r"algorithm\.lam: is for a critic.*\n.*trainer\.amp_dtype: is for mixed"):
        AgentTrainer(Letters, {}, given)
    path = tmp_path / "mine.yaml"
    path.write_text("algorithm:\n  kl_in: reward\n")
    with pytest.raises(ConfigError, match=rf"{path}:2: algorithm\.kl_in: is for the KL penalty"):
        AgentTrainer(Letters, {}, path)


def test_the_config_of_a_run_loads_again(tmp_path: Path) -> None:
    """It holds what its preset said, read or not."""
    config = resolve_config("swe", [], ["data.train=quixbugs", "algorithm.adv_estimator=gae"]).config
    (tmp_path / "config.json").write_text(json.dumps(config.model_dump(mode="json"), indent=2, sort_keys=True))
    assert load(WorkflowRLConfig, files=[tmp_path / "config.json"], aliases=ALIASES).config == config
    assert load(WorkflowRLConfig, preset=config.model_dump(), aliases=ALIASES).config == config
    with pytest.raises(ConfigError, match=r"data\.kinds\.one: is for generated tasks, and data\.train=quixbugs"):
        resolve_config("demo", [str(tmp_path / "config.json")], ["data.kinds={one: 1}"])


def test_estimators_of_agents_that_learn_count() -> None:
    agents = "algorithm.agents={analyzer: {adv_estimator: grpo}}"
    resolve_config("demo", [], ["algorithm.adv_estimator=gae", agents, "algorithm.group=by_task", "critic.lr=1e-3"])
    with pytest.raises(ConfigError, match=r"critic\.lr: is for a critic, and nobody who learns has one"):
        resolve_config("demo", [], ["algorithm.adv_estimator=gae", agents, "policies.train=[analyzer]", "critic.lr=1"])
