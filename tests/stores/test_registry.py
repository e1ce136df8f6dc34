from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
import torch

from troupe.errors import DataError, StorageError
from troupe.stores.checkpoints import CheckpointStore, resolve
from troupe.stores.registry import Lineage, ModelRegistry

torch.set_num_threads(1)


def model_folder(folder: Path, text: str = "weights") -> Path:
    (folder / "adapter").mkdir(parents=True)
    (folder / "model.safetensors").write_text(text)
    (folder / "adapter" / "config.json").write_text("{}")
    return folder


def registry_with(tmp_path: Path, versions: int) -> ModelRegistry:
    registry = ModelRegistry(tmp_path / "models")
    for version in range(1, versions + 1):
        source = model_folder(tmp_path / f"source{version}", f"weights {version}")
        assert registry.register("planner", source, lineage=Lineage(metrics={"elo": version})) == f"planner@{version}"
    return registry


def text_of(registry: ModelRegistry, ref: str) -> str:
    return (registry.resolve(ref) / "model.safetensors").read_text()


def test_register_copies_and_describes(tmp_path: Path) -> None:
    registry = ModelRegistry(tmp_path / "models")
    source = model_folder(tmp_path / "source")
    lineage = Lineage(data={"tasks": "sha256:1f"}, config={"lr": 0.1}, metrics={"elo": 12.5}, parent="base@1")
    assert registry.register("planner-v2.0_a", source, lineage=lineage) == "planner-v2.0_a@1"
    shutil.rmtree(source)
    folder = registry.resolve("planner-v2.0_a@1")
    assert (folder / "adapter" / "config.json").read_text() == "{}"
    found = registry.describe("planner-v2.0_a")
    assert (found["name"], found["version"], found["path"]) == ("planner-v2.0_a", 1, str(folder))
    assert found["lineage"] == {
        "data": {"tasks": "sha256:1f"},
        "config": {"lr": 0.1},
        "metrics": {"elo": 12.5},
        "parent": "base@1",
    }
    assert set(found["files"]) == {"model/model.safetensors", "model/adapter/config.json"}
    assert found["aliases"] == ["candidate"] and [event["event"] for event in found["history"]] == ["register"]
    assert registry.names() == ["planner-v2.0_a"]


def test_aliases_move_and_roll_back(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, 3)
    assert registry.versions("planner") == [1, 2, 3]
    assert text_of(registry, "planner@candidate") == text_of(registry, "planner") == "weights 3"
    with pytest.raises(StorageError, match=r"planner@production is not set; promote one of the versions \[1, 2, 3\]"):
        registry.resolve("planner@production")
    for version in (1, 3, 2):
        assert registry.promote(f"planner@{version}") == f"planner@{version}"
    assert registry.promote("planner@2") == "planner@2"  # again: nothing to roll back to that was not there before
    assert text_of(registry, "planner@production") == text_of(registry, "planner") == "weights 2"
    assert text_of(registry, "planner@candidate") == "weights 3"
    assert registry.rollback("planner") == "planner@3"
    assert registry.rollback("planner") == "planner@1"
    with pytest.raises(StorageError, match="no earlier version"):
        registry.rollback("planner")
    assert registry.promote("planner@candidate") == "planner@3"
    assert registry.rollback("planner", alias="candidate") == "planner@2"
    assert registry.describe("planner@3")["aliases"] == ["production"]
    events = [(event["event"], event["previous"]) for event in registry.describe("planner@3")["history"]]
    assert events == [("register", 2), ("promote", 1), ("rollback", 2), ("promote", 1)]


def test_numbers_are_never_given_twice(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, 2)
    shutil.rmtree(tmp_path / "models" / "planner" / "2")
    assert registry.register("planner", tmp_path / "source1", lineage=Lineage()) == "planner@3"


def test_a_checkpoint_stays_one_in_the_registry(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run")
    path = store.save(7, {"model": {"w": torch.ones(2)}}, {"a": 1}, {"elo": 3.0})
    registry = ModelRegistry(tmp_path / "models")
    registry.register("net", path, lineage=Lineage())
    assert resolve(registry.resolve("net")) == registry.resolve("net")
    assert store.load(registry.resolve("net@1")).step == 7
    (path / "state.json").write_text("{}")
    with pytest.raises(StorageError, match=r"torn: state\.json"):
        registry.register("net", path, lineage=Lineage())
    assert registry.versions("net") == [1]


def test_a_torn_version_is_never_served_or_promoted(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, 2)
    registry.promote("planner@1")
    registry.verify("planner@2")
    file = registry.resolve("planner@2") / "model.safetensors"
    file.write_text("WEIGHTS 2")
    with pytest.raises(StorageError, match=r"model/model\.safetensors does not match the sha256"):
        registry.verify("planner@2")
    file.write_text("half")
    for act in (registry.resolve, registry.promote):
        with pytest.raises(StorageError, match=r"2 is torn: model/model\.safetensors has 4 bytes"):
            act("planner@2")
    assert text_of(registry, "planner@production") == "weights 1"


def test_wrong_references_are_one_sentence(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, 1)
    for act, error, sentence in (
        (lambda: registry.resolve("planer"), StorageError, "no model 'planer'.*did you mean 'planner'"),
        (lambda: registry.resolve("planner@9"), StorageError, r"no version 9; it has \[1\]"),
        (
            lambda: registry.resolve("planner@product"),
            DataError,
            "'product' is not an alias .did you mean 'production'",
        ),
        (lambda: registry.promote("planner@1", alias="staging"), DataError, "'staging' is not an alias"),
        (lambda: registry.register("../x", tmp_path, lineage=Lineage()), DataError, "cannot name a model"),
        (lambda: registry.register("x", tmp_path / "no", lineage=Lineage()), StorageError, "is not a folder"),
    ):
        with pytest.raises(error, match=sentence):
            act()
    with pytest.raises(DataError, match="lineage of 'planner' is not JSON"):
        registry.register("planner", tmp_path / "source1", lineage=Lineage(metrics={"elo": float("nan")}))
    assert registry.versions("planner") == [1] and ModelRegistry(tmp_path / "none").names() == []


def test_a_torn_alias_file_says_so(tmp_path: Path) -> None:
    registry = registry_with(tmp_path, 1)
    (tmp_path / "models" / "planner" / "aliases.json").write_text('{"alia')
    with pytest.raises(StorageError, match=r"aliases\.json is torn"):
        registry.resolve("planner")
    assert (registry.root / "planner" / "1").is_dir()


def test_a_crash_leaves_the_old_alias_valid(tmp_path: Path, crash_points) -> None:
    template = registry_with(tmp_path, 2)
    template.promote("planner@1")
    template.promote("planner@2")
    source, numbers = model_folder(tmp_path / "new", "weights 3"), iter(range(1000))

    def fresh() -> ModelRegistry:
        root = tmp_path / "crashes" / str(next(numbers))
        shutil.copytree(template.root, root)
        return ModelRegistry(root)

    def act(registry: ModelRegistry) -> None:
        registry.promote(registry.register("planner", source, lineage=Lineage()))
        registry.rollback("planner")

    seen = set()
    for crashed in crash_points(fresh, act):
        registry = ModelRegistry(crashed.root)
        production, versions = registry.describe("planner@production")["version"], registry.versions("planner")
        candidate = registry.describe("planner@candidate")["version"]
        seen.add((len(versions), candidate, production))
        for version in versions:
            registry.verify(f"planner@{version}")
            assert text_of(registry, f"planner@{version}") == f"weights {version}"
        assert not [p for p in (crashed.root / "planner").iterdir() if p.name.startswith((".staged", ".retired"))]
        assert registry.register("planner", source, lineage=Lineage()) == f"planner@{len(versions) + 1}"
        assert registry.rollback("planner") == f"planner@{2 if production == 3 else 1}"
    # before the copy; copied but no alias moved yet; candidate moved; promoted
    assert seen == {(2, 2, 2), (3, 2, 2), (3, 3, 2), (3, 3, 3)}


def test_two_processes_registering_at_once_do_not_clash(tmp_path: Path) -> None:
    root, each = tmp_path / "models", 12
    sources = [model_folder(tmp_path / f"source{process}", f"process {process}") for process in (0, 1)]
    children = []
    for process in (0, 1):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                registry = ModelRegistry(root)
                for _ in range(each):
                    ref = registry.register("planner", sources[process], lineage=Lineage(data={"from": process}))
                    assert text_of(registry, ref) == f"process {process}"
                    registry.promote(ref)
                code = 0
            finally:
                os._exit(code)
        children.append(pid)
    assert [os.WEXITSTATUS(os.waitpid(pid, 0)[1]) for pid in children] == [0, 0]
    registry = ModelRegistry(root)
    assert registry.versions("planner") == list(range(1, 2 * each + 1))
    owners = [registry.describe(f"planner@{version}")["lineage"]["data"]["from"] for version in range(1, 2 * each + 1)]
    assert owners.count(0) == owners.count(1) == each
    history = json.loads((root / "planner" / "aliases.json").read_text())["history"]
    assert len(history) == 4 * each  # no process overwrote the other's entries
    promoted = [event["version"] for event in history if event["event"] == "promote"]
    assert sorted(promoted) == list(range(1, 2 * each + 1))
    assert registry.describe("planner@production")["version"] == promoted[-1]


def test_full_and_read_only_disks_keep_what_was_registered(tmp_path: Path, small_disk: Path, read_only) -> None:
    registry = ModelRegistry(small_disk)
    registry.register("planner", model_folder(tmp_path / "small-source"), lineage=Lineage())
    with pytest.raises(StorageError, match="the disk is full"):
        registry.register("planner", model_folder(tmp_path / "large", "x" * 2_000_000), lineage=Lineage())
    assert registry.versions("planner") == [1] and text_of(registry, "planner") == "weights"
    assert sorted(p.name for p in (small_disk / "planner").iterdir()) == [".alias-lock", ".lock", "1", "aliases.json"]
    fixed = registry_with(tmp_path, 2)
    with read_only(fixed.root):
        assert text_of(ModelRegistry(fixed.root), "planner") == "weights 2"
        with pytest.raises(StorageError, match="read-only"):
            fixed.promote("planner@1")
        with pytest.raises(StorageError, match="read-only"):
            fixed.register("planner", tmp_path / "source1", lineage=Lineage())
