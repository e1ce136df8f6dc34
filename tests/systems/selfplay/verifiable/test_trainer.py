from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.systems.selfplay.test_trainer import nested
from tests.task_families import PurseGenerator
from tests.task_runs import LEARNING, TINY
from troupe.config import Recording, leaf_paths, load
from troupe.errors import ConfigError, StorageError
from troupe.systems.selfplay.verifiable.config import ALIASES, VerifiableConfig
from troupe.systems.selfplay.verifiable.finish import finish
from troupe.systems.selfplay.verifiable.trainer import TaskTrainer


def trainer(folder: Path, base: dict[str, Any] = TINY, **changed: Any) -> TaskTrainer:
    values = base | {"trainer.default_local_dir": str(folder)} | {k.replace("__", "."): v for k, v in changed.items()}
    return TaskTrainer(nested(values))


def test_a_run_improves_on_final_tasks_and_says_so(tmp_path: Path) -> None:
    run = trainer(tmp_path / "run", TINY | LEARNING)
    result = run.train()
    assert result.promoted and result.improved and result.final.p < 0.01
    assert result.difference.low > 0.1
    assert [(own.kind, own.before.n) for own in result.final.kinds] == [("coins", 50), ("parity", 50)]
    assert result.final.evaluated > 100
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert rows[-1]["parity/learn/policy/kl"] > 0 and "gate/parity" in rows[-1]
    report = finish(run, result)
    assert (tmp_path / "run" / "registry").exists() and report == tmp_path / "run" / "report.html"
    gained = f"Improved by +{100 * result.difference.mean:.1f} points on held-out tasks"
    assert gained in report.read_text() and 'class="absent"' not in report.read_text()
    again = trainer(tmp_path / "run", TINY | LEARNING).train()
    assert again.final == result.final and again.parameter_hash == result.parameter_hash


@pytest.mark.parametrize("control", ["permuted", "corrupted"])
def test_a_control_does_not_improve(tmp_path: Path, control: str) -> None:
    result = trainer(tmp_path / "run", TINY | LEARNING | {"tasks.kinds": "[parity]"}, tasks__control=control).train()
    assert not result.improved


@pytest.mark.parametrize("control", ["permuted", "corrupted"])
def test_a_control_does_not_improve_on_a_real_kind(tmp_path: Path, control: str) -> None:
    """Arithmetic is half learned from which actions are good anywhere: nothing of that may be left."""
    words = {
        "tasks.family": "math", "tasks.kinds": "[arithmetic]", "tasks.difficulty": {"arithmetic": [0.3, 0.4]},
        "net.hidden": 64, "acting.tasks": 128, "acting.chunk": 128, "acting.slots": 64, "learning.window": 4000,
        "learning.first": 200, "learning.batch_size": 128, "learning.reuse": 8, "trainer.iterations": 6,
        "trainer.save_freq": 6, "judge.every": 6, "tasks.gate": 60, "tasks.final": 60,
    }  # fmt: skip
    result = trainer(tmp_path / control, TINY | words, tasks__control=control).train()
    assert not result.improved and result.final.over_uniform.mean < 0.1


def test_disputed_attempts_are_counted(tmp_path: Path) -> None:
    trainer(tmp_path / "run", tasks__kinds="[coins]", tasks__control="corrupted", trainer__iterations=1).train()
    row = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[0])
    assert row["coins/disputed"] > 0 and row["coins/success"] == 0


def test_the_curriculum_moves_with_success_and_is_remembered(tmp_path: Path) -> None:
    keys = {"curriculum.enabled": True, "curriculum.width": 0.1, "curriculum.high": 0.5, "curriculum.step": 0.05}
    run = trainer(tmp_path / "run", TINY | keys, tasks__kinds="[coins]")
    run.train()
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    seen = [row["coins/difficulty"] for row in rows]
    assert seen[0] == pytest.approx(0.05) and seen[-1] > seen[0]
    again = trainer(tmp_path / "run", TINY | keys, tasks__kinds="[coins]")
    again.train()
    assert again.windows == run.windows and again.ranges == run.ranges


def test_two_networks_share_the_work(tmp_path: Path) -> None:
    """One gives the policy and the other the value, and both learn."""
    run = trainer(tmp_path / "run", value_net__kind="mlp", value_net__hidden=8, tasks__kinds="[coins]")
    result = run.train()
    before, after = run.start["coins"], run.pupils["coins"].net.state_dict()
    moved = {name.split(".")[1] for name in after if not np.array_equal(before[name], after[name])}
    assert {"policy", "value"} <= moved
    assert result.final.evaluated > 0


def test_every_key_of_the_config_is_read(tmp_path: Path) -> None:
    """A key that no run reads is a promise that nobody keeps."""
    once = {"trainer.iterations": 1, "tasks.kinds": "[coins]"}
    puct = {
        "search.algorithm": "puct", "search.temperature_moves": 2, "search.fpu": "parent", "search.reuse": True,
        "curriculum.enabled": True, "tasks.difficulty": {"coins": [0.1, 0.9]},
    }  # fmt: skip
    both = {"net.kind": "hrm", "value_net": {"kind": "trm", "hidden": 16, "heads": 2}, "net.heads": 2}
    mlp = {"value_net": {"kind": "mlp", "hidden": 16, "embedding": 4}}
    boards = {"image_net": {"kind": "conv", "blocks": 1, "channels": 4}, "tasks.kinds": "[shown]"}
    layers = {"image_net": {"kind": "mlp", "hidden": [8]}, "tasks.kinds": "[shown]"}
    given = (
        ({}, ()),
        (puct, ("search.considered",)),
        (both, ("net.embedding",)),
        (mlp, ()),
        (boards, ()),
        (layers, ()),
    )
    unread = set(leaf_paths(VerifiableConfig))
    for number, (changed, left_out) in enumerate(given):
        values = TINY | once | {"trainer.default_local_dir": str(tmp_path / str(number))} | changed
        tree = nested({key: value for key, value in values.items() if key not in left_out})
        recording: Any = Recording(load(VerifiableConfig, preset=tree, aliases=ALIASES).config)
        TaskTrainer(recording).train()
        unread &= set(recording.unread())
    assert unread == set()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"tasks.family": "mats"}, "did you mean 'math'"),
        ({"tasks.kinds": "[dice]"}, "searches no kind 'dice'"),
        ({"tasks.gate": 5}, "tasks.gate"),
        ({"tasks.difficulty": {"coins": [0.9, 0.1]}}, "two rising numbers"),
        ({"tasks.kinds": "[parity]", "tasks.final": 1200}, "no task that is not held out"),
        ({"curriculum.step": 0.2}, "curriculum.enabled=true"),
        ({"net.kind": "transformer"}, r"net\.embedding: is for net\.kind=mlp"),
        ({"search.c_puct": 2.0}, "search.algorithm=puct"),
        ({"tasks.diffculty": {}}, "did you mean"),
        ({"tasks.kinds": "[coins, coins]"}, "'coins' twice"),
        ({"acting.tasks": 1}, r"acting\.tasks=1 is fewer than the 2 kinds"),
        ({"acting.runtime": "openvino"}, r"runs no networks of tokens"),
    ],
)
def test_bad_input_gets_one_sentence(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        trainer(tmp_path / "run", TINY | changed)
    assert not (tmp_path / "run").exists()


def test_a_folder_of_another_run_is_refused(tmp_path: Path) -> None:
    trainer(tmp_path / "run", trainer__iterations=1).train()
    with pytest.raises(StorageError, match="seed"):
        trainer(tmp_path / "run", trainer__iterations=1, seed=1).train()


def test_a_family_given_in_code(tmp_path: Path) -> None:
    values = TINY | {"trainer.default_local_dir": str(tmp_path / "run"), "trainer.iterations": 1}
    del values["tasks.family"]
    run = TaskTrainer(nested(values), generator=PurseGenerator)
    assert run.config.tasks.family == "tests.task_families:PurseGenerator"
    assert run.train().iterations == 1

    class Local(PurseGenerator):
        pass

    with pytest.raises(ConfigError, match="put it into a module"):
        TaskTrainer(nested({**values, "acting.workers": 1}), generator=Local)
