"""The same run on a CUDA device: mixed precision, the compiled learner, and log-probs that agree."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.letters import Letters
from tests.runs import TINY, lines_of
from troupe.config import load
from troupe.systems.workflow_rl import AgentTrainer
from troupe.systems.workflow_rl.config import WorkflowRLConfig
from troupe.tasks.math import MathProblemGenerator

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device"),
]

TASKS = MathProblemGenerator(seed=5).generate(20)


def rows(folder: Path, **changed: Any) -> list[dict[str, Any]]:
    """Metrics of a start by SFT, two updates and their validations."""
    short = {"trainer.total_steps": 2, "trainer.default_local_dir": folder, "model.device": "cuda"}
    values = TINY | short | {key.replace("__", "."): v for key, v in changed.items()}
    config = load(WorkflowRLConfig, overrides=[f"{key}={value}" for key, value in values.items()]).config
    AgentTrainer(Letters, {}, config, TASKS[:12], TASKS[12:16]).train()
    return [row for row in lines_of(folder / "metrics.jsonl") if "reward/writer/mean" in row]


@pytest.mark.parametrize("amp", ["bf16", "fp16"])
def test_mixed_precision(tmp_path: Path, amp: str) -> None:
    found = rows(tmp_path, sft__steps=0, trainer__use_amp="true", trainer__amp_dtype=amp)
    assert len(found) == 2
    assert all(math.isfinite(row.get("actor/loss/policy", 0.0)) for row in found)
    assert found[0]["training/mismatch_kl"] < 1e-2


def test_the_compiled_learner_computes_the_same(tmp_path: Path) -> None:
    plain, compiled = (
        rows(tmp_path / name, sft__steps=0, model__compile=name, trainer__total_steps=1)[0]
        for name in ("false", "true")
    )
    assert compiled["actor/loss/policy"] == pytest.approx(plain["actor/loss/policy"], rel=1e-3, abs=1e-5)
    assert compiled["actor/grad_norm/team"] == pytest.approx(plain["actor/grad_norm/team"], rel=1e-3)


def test_sampled_and_recomputed_log_probs_agree(tmp_path: Path) -> None:
    """In float32; the tolerance is that of attention kernels that add in another order for another batch."""
    found = rows(tmp_path, sft__steps=0)
    assert found[0]["training/rollout_logprob_diff_max"] < 1e-3
    assert max(row["training/mismatch_kl"] for row in found) < 1e-6
