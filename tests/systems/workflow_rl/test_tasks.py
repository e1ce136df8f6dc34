"""Which tasks a run trains on, and which are held out."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from troupe.errors import ConfigError, DataError
from troupe.systems.workflow_rl.config import DataConfig
from troupe.systems.workflow_rl.tasks import load_tasks, permuted, practised, without_overlong
from troupe.tasks.datasets import DatasetRegistry
from troupe.tasks.math import MathProblemGenerator
from troupe.tasks.splits import fingerprint

TASKS = MathProblemGenerator(seed=2).generate(60)


class Characters:
    """A tokenizer whose tokens are characters."""

    @staticmethod
    def encode(text: str, add_special_tokens: bool = True) -> list[str]:
        return list(text) + ["</s>"] * add_special_tokens


@pytest.fixture
def prepared(tmp_path: Path) -> Path:
    registry = DatasetRegistry(tmp_path)
    registry.register_dataset("mine", TASKS[:40], "train")
    registry.register_dataset("mine", TASKS[40:50], "held_out")
    registry.register_dataset("yours", TASKS[50:], "train")
    registry.register_dataset("yours", [*TASKS[50:], TASKS[0]], "held_out")
    return tmp_path


def test_a_test_set_without_training_tasks_is_held_out(prepared: Path) -> None:
    DatasetRegistry(prepared).register_dataset("exam", [*TASKS[50:55], TASKS[0]], "held_out")
    train, val = load_tasks(DataConfig(train="mine", val="exam", root=str(prepared)), seed=0)
    assert {task.id for task in val} == {task.id for task in [*TASKS[50:55], TASKS[0]]}
    assert {task.id for task in train} == {task.id for task in TASKS[1:40]}


def test_generated_tasks_share_nothing() -> None:
    config = DataConfig(train_size=300, val_size=40, kinds={"linear": 2, "word": 1, "system": 1})
    train, val = load_tasks(config, seed=3)
    assert len(train) == 300 and len({task.id for task in train}) == 300
    assert Counter(task.kind for task in val) == {"linear": 20, "word": 10, "system": 10}
    assert not {fingerprint(task) for task in train} & {fingerprint(task) for task in val}
    assert load_tasks(config, seed=3) == (train, val) != load_tasks(config, seed=4)


def test_the_held_out_tasks_do_not_depend_on_the_size_of_the_training_set() -> None:
    small, large = (load_tasks(DataConfig(train_size=size, val_size=20), seed=0)[1] for size in (10, 200))
    assert small == large


def test_the_order_of_the_kinds_changes_nothing() -> None:
    """A stored config has its keys sorted; `troupe evaluate` must still score what the run held out."""
    kinds = {"word": 1.0, "linear": 2.0, "system": 1.0}
    written, stored = (DataConfig(train_size=50, val_size=20, kinds=k) for k in (kinds, dict(sorted(kinds.items()))))
    assert list(written.kinds) != list(stored.kinds)
    assert load_tasks(written, seed=0) == load_tasks(stored, seed=0)


def test_a_narrow_difficulty_gives_as_many_tasks_as_there_are() -> None:
    config = DataConfig(train_size=60, val_size=5, kinds={"quadratic": 1}, difficulty=(0.0, 0.0))
    train, val = load_tasks(config, seed=0)
    assert 0 < len(train) < 60 and len(val) == 5 and len({task.id for task in train}) == len(train)


def test_a_prepared_set(prepared: Path) -> None:
    config = DataConfig(train="mine", root=str(prepared), train_size=30, val_size=99)
    train, val = load_tasks(config, seed=1)
    assert len(train) == 30 and {t.id for t in train} <= {t.id for t in TASKS[:40]}
    assert {task.id for task in val} == {task.id for task in TASKS[40:50]}
    assert load_tasks(config, seed=1) == (train, val)
    assert {task.id for task in load_tasks(config, seed=2)[0]} != {task.id for task in train}


def test_held_out_tasks_of_another_set_are_not_trained_on(prepared: Path) -> None:
    train, val = load_tasks(
        DataConfig(train="mine", val="yours", root=str(prepared), train_size=99, val_size=99), seed=0
    )
    assert {task.id for task in val} == {task.id for task in [*TASKS[50:], TASKS[0]]}
    assert {task.id for task in train} == {task.id for task in TASKS[1:40]}


def test_unknown_sets_are_named_with_what_exists(prepared: Path) -> None:
    with pytest.raises(DataError, match=r"no tasks called 'mien' \(data\.train, data\.val\).*did you mean 'mine'"):
        load_tasks(DataConfig(train="mien", root=str(prepared)), seed=0)
    with pytest.raises(DataError, match=r"'mth'.*did you mean 'math'.*troupe data prepare"):
        load_tasks(DataConfig(val="mth", root=str(prepared)), seed=0)
    with pytest.raises(DataError, match="gives 20 training and 0 held-out tasks; both are needed"):
        load_tasks(DataConfig(train_size=20, val_size=1), seed=0)  # half a task of each kind
    with pytest.raises(ConfigError, match="'linaer'"):
        load_tasks(DataConfig(kinds={"linaer": 1.0}), seed=0)


def test_permuted_answers_are_those_of_other_tasks_of_the_kind() -> None:
    changed = permuted(TASKS, "answer", seed=0)
    assert [task.id for task in changed] == [task.id for task in TASKS]
    assert all(a.prompt == b.prompt and a.solution == b.solution for a, b in zip(changed, TASKS, strict=True))
    for kind in {task.kind for task in TASKS}:
        ours, theirs = ([str(t.answer) for t in tasks if t.kind == kind] for tasks in (TASKS, changed))
        assert Counter(ours) == Counter(theirs)
    kept = sum(a.answer == b.answer for a, b in zip(changed, TASKS, strict=True))
    repeated = sum(count - 1 for count in Counter((t.kind, str(t.answer)) for t in TASKS).values())
    assert kept <= repeated  # only where two tasks have one answer
    assert changed == permuted(TASKS, "answer", seed=0) != permuted(TASKS, "answer", seed=1)


def test_controls_change_what_is_practised_and_nothing_else() -> None:
    config = DataConfig(train_size=50, val_size=10)
    train, val = load_tasks(config, seed=0)
    assert practised(train, config, 0) == train
    for field in ("answer", "prompt"):
        control = config.model_copy(update={f"shuffle_{field}s": True})
        assert load_tasks(control, seed=0) == (train, val)  # demonstrations and held-out tasks
        changed = practised(train, control, 0)
        assert [t.id for t in changed] == [t.id for t in train]
        assert sum(getattr(a, field) != getattr(b, field) for a, b in zip(changed, train, strict=True)) > 40
        assert [replace(a, **{field: None}) for a in changed] == [replace(a, **{field: None}) for a in train]


def test_overlong_problems() -> None:
    lengths = sorted(len(task.prompt) for task in TASKS)
    limit = lengths[30]
    kept = without_overlong(TASKS, Characters(), limit)
    assert kept == [task for task in TASKS if len(task.prompt) <= limit] and 0 < len(kept) < 60
