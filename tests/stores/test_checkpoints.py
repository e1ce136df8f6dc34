from __future__ import annotations

import json
import logging
import math
import pickle
import random
import shutil
from pathlib import Path

import pytest
import torch

from troupe.errors import DataError, StorageError
from troupe.stores import atomic
from troupe.stores.checkpoints import CheckpointStore, parameter_hash, resolve

torch.set_num_threads(1)


def weights(step: int, size: int = 4) -> dict[str, dict[str, torch.Tensor]]:
    return {"model": {"w": torch.full((size,), float(step))}, "optimizer": {"m": torch.full((size,), step + 0.5)}}


def save(store: CheckpointStore, step: int, **metrics: float) -> Path:
    return store.save(step, weights(step), {"step": step, "best": -math.inf}, metrics)


def visible(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name != ".lock")


def test_save_and_load(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "run" / "checkpoints")
    generator = torch.Generator().manual_seed(3)
    state = {"offsets": {"episodes": 17}, "best": -math.inf, "rng": generator.get_state(), "betas": (0.9, 0.999)}

    def adapter(folder: Path) -> None:
        (folder / "deep").mkdir()
        (folder / "deep" / "adapter_config.json").write_text("{}")

    path = store.save(5, weights(5), state, {"reward": 0.25, "loss": math.nan, "kl": math.inf}, files=adapter)
    assert path == tmp_path / "run" / "checkpoints" / "checkpoint_5"
    found = store.load()
    assert (found.step, found.path) == (5, path)
    assert set(found.tensors) == {"model", "optimizer"}
    assert torch.equal(found.tensors["model"]["w"], torch.full((4,), 5.0))
    assert found.state["offsets"] == {"episodes": 17} and found.state["best"] == -math.inf
    assert found.state["betas"] == (0.9, 0.999)
    assert torch.equal(found.state["rng"], generator.get_state())
    assert found.metrics["reward"] == 0.25 and math.isnan(found.metrics["loss"]) and found.metrics["kl"] == math.inf
    assert (found.files / "deep" / "adapter_config.json").read_text() == "{}"
    assert sorted(p.name for p in path.iterdir()) == [
        "files",
        "manifest.json",
        "model.safetensors",
        "optimizer.safetensors",
        "state.json",
        "state.safetensors",
    ]


def test_the_manifest_lists_every_file(tmp_path: Path) -> None:
    path = CheckpointStore(tmp_path).save(1, weights(1), {}, {"reward": 1}, files=lambda f: f.joinpath("a").touch())
    manifest = json.loads((path / "manifest.json").read_text())
    assert manifest["format_version"] == 1 and manifest["step"] == 1 and manifest["metrics"] == {"reward": 1.0}
    assert set(manifest["files"]) == {"files/a", "model.safetensors", "optimizer.safetensors", "state.json"}
    assert manifest["files"]["files/a"] == {
        "bytes": 0,
        "sha256": "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    }


def test_loaded_tensors_are_private_copies(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)
    store.load().tensors["model"]["w"].zero_()
    assert torch.equal(store.load().tensors["model"]["w"], torch.ones(4))


def test_nothing_on_disk_is_a_pickle(tmp_path: Path) -> None:
    path = save(CheckpointStore(tmp_path), 1)
    for file in path.rglob("*"):
        with pytest.raises(Exception):  # noqa: B017 (pickle raises many kinds)
            pickle.loads(file.read_bytes())


def test_pruning_keeps_the_newest_the_best_and_the_one_just_written(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=2, metric="reward")
    for step, reward in enumerate([0.1, 0.9, 0.2, 0.9, 0.3, math.nan, math.inf]):
        save(store, step, reward=reward)
    assert store.steps() == [1, 5, 6]  # 1 is the earliest of the best finite rewards
    assert store.latest() == 6 and store.best() == 1
    assert store.load("best").step == 1 and store.load(5).step == 5
    save(store, 2, reward=0.0)  # a run that went back
    assert store.steps() == [1, 2, 5, 6]
    assert store.discard_after(2) == [5, 6] and store.latest() == 2
    assert visible(tmp_path) == ["checkpoint_1", "checkpoint_2"]


def test_the_smallest_can_be_the_best(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path, keep_last=1, metric="loss", mode="min")
    for step, loss in enumerate([0.5, 0.1, 0.4]):
        save(store, step, loss=loss)
    assert store.steps() == [1, 2] and store.best() == 1


def test_what_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path / "none", metric="reward")
    assert store.steps() == [] and store.latest() is None
    with pytest.raises(StorageError, match="holds no checkpoint; save one first"):
        store.load()
    save(store, 3, loss=1.0)
    with pytest.raises(StorageError, match="finite metric 'reward'"):
        store.load("best")
    with pytest.raises(StorageError, match=r"no checkpoint of step 4; it has \[3\]"):
        store.load(4)
    with pytest.raises(StorageError, match="pass metric="):
        CheckpointStore(tmp_path / "none").best()


def test_wrong_arguments(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    with pytest.raises(DataError, match=r"'\.\./model' cannot name a group"):
        store.save(1, {"../model": {}}, {}, {})
    with pytest.raises(DataError, match="'state' cannot name a group"):
        store.save(1, {"state": {}}, {}, {})
    with pytest.raises(DataError, match="replay is a set"):
        store.save(1, {}, {"replay": {1}}, {})
    for wrong in ({"keep_last": 0}, {"mode": "biggest"}):
        with pytest.raises(ValueError, match="must be"):
            CheckpointStore(tmp_path, **wrong)
    assert store.steps() == [] and visible(tmp_path) == []


@pytest.mark.parametrize("name", ["model.safetensors", "state.json", "files/adapter.bin"])
@pytest.mark.parametrize("damage", ["flip", "cut", "gone"])
def test_a_damaged_file_is_named(tmp_path: Path, name: str, damage: str) -> None:
    store = CheckpointStore(tmp_path)
    path = store.save(
        1, weights(1), {"a": 1}, {}, files=lambda f: (f / "adapter.bin").write_bytes(b"\x01" * 99) and None
    )
    content = bytearray((path / name).read_bytes())
    content[-1] ^= 1
    (path / name).unlink() if damage == "gone" else (path / name).write_bytes(
        content if damage == "flip" else content[:-1]
    )
    with pytest.raises(StorageError, match=rf"checkpoint_1 is torn: {name}"):
        store.load()


def test_a_damaged_or_future_manifest_is_refused(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    path = save(store, 1) / "manifest.json"
    good = path.read_text()
    path.write_text(good[:-20])
    with pytest.raises(StorageError, match=r"manifest\.json is torn"):
        store.load()
    path.write_text(good.replace('"format_version": 1', '"format_version": 2'))
    with pytest.raises(StorageError, match="format version 2, this release reads 1"):
        store.load()
    path.unlink()
    assert store.steps() == []


@pytest.mark.parametrize("has_exchange", [True, False])
def test_saving_a_step_again_replaces_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, has_exchange: bool) -> None:
    if not has_exchange:
        monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    store = CheckpointStore(tmp_path)
    save(store, 1, reward=0.0)
    store.save(1, {"model": {"w": torch.zeros(2)}}, {"again": True}, {"reward": 1.0})
    found = store.load(1)
    assert found.state == {"again": True} and set(found.tensors) == {"model"} and found.metrics == {"reward": 1.0}
    assert visible(tmp_path) == ["checkpoint_1"]


def test_a_failed_save_leaves_nothing_behind(tmp_path: Path) -> None:
    store = CheckpointStore(tmp_path)
    save(store, 1)

    def link(folder: Path) -> None:
        (folder / "link").symlink_to("/etc/hostname")

    def fail(folder: Path) -> None:
        raise RuntimeError("the adapter could not be written")

    with pytest.raises(StorageError, match="is a link"):
        store.save(2, weights(2), {}, {}, files=link)
    with pytest.raises(RuntimeError, match="the adapter"):
        store.save(2, weights(2), {}, {}, files=fail)
    assert visible(tmp_path) == ["checkpoint_1"]


def test_resolve(tmp_path: Path) -> None:
    run = tmp_path / "self_play"
    store = CheckpointStore(run / "checkpoints", metric="elo", keep_last=3)
    for step, elo in enumerate([0.0, 50.0, 20.0]):
        save(store, step, elo=elo)
    folder = run / "checkpoints"
    assert resolve(folder / "checkpoint_0") == folder / "checkpoint_0"
    assert resolve(folder) == resolve(run) == resolve(str(run)) == folder / "checkpoint_2"
    assert resolve(run / "best_model.pt") == resolve(folder / "best_model.pt") == folder / "checkpoint_1"
    assert resolve(tmp_path / "self_play.pt") == folder / "checkpoint_2"
    assert store.load(run / "best_model.pt").step == 1
    shutil.copytree(folder / "checkpoint_0", tmp_path / "models" / "hrm_checkpoint")
    assert resolve(tmp_path / "models" / "hrm_checkpoint.pt") == tmp_path / "models" / "hrm_checkpoint"
    plain = CheckpointStore(tmp_path / "plain")
    save(plain, 4)
    assert resolve(tmp_path / "plain" / "best_model.pt") == tmp_path / "plain" / "checkpoint_4"
    (tmp_path / "real.pt").write_bytes(b"\x80\x02")
    (tmp_path / "empty").mkdir()
    for path, sentence in {
        "real.pt": "pickles are never read",
        "none": "does not exist",
        "none.pt": "does not exist",
        "empty": "no complete checkpoint",
        "none/best_model.pt": "no complete checkpoint",
    }.items():
        with pytest.raises(StorageError, match=sentence):
            resolve(tmp_path / path)


def test_kill_before_every_write_of_a_save(tmp_path: Path, crash_points, caplog: pytest.LogCaptureFixture) -> None:
    """Step 1 and 2 are saved; the child saves 3 (which prunes 1) and saves 2 again."""
    numbers = iter(range(1000))

    def fresh() -> Path:
        store = CheckpointStore(folder := tmp_path / str(next(numbers)))
        save(store, 1)
        save(store, 2)
        return folder

    def act(folder: Path) -> None:
        store = CheckpointStore(folder)
        store.save(3, weights(3), {"new": True}, {}, files=lambda f: (f / "a").write_text("a") and None)
        store.save(2, weights(20), {"again": True}, {})

    check_crashes(crash_points(fresh, act))
    assert "left behind by a killed process" in caplog.text


def test_kill_without_an_exchanging_rename(tmp_path: Path, crash_points, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic, "_exchange", lambda first, second: False)
    numbers = iter(range(1000))

    def fresh() -> Path:
        store = CheckpointStore(folder := tmp_path / str(next(numbers)))
        save(store, 2)
        save(store, 3)
        return folder

    check_crashes(crash_points(fresh, lambda folder: CheckpointStore(folder).save(2, weights(20), {}, {})))


def check_crashes(folders) -> None:
    leftovers = 0
    for folder in folders:
        store = CheckpointStore(folder)
        leftovers += len(store.removed_leftovers)
        steps = store.steps()
        assert 2 in steps and steps in ([1, 2], [1, 2, 3], [2, 3]), (steps, list(folder.iterdir()))
        for step in steps:
            found = store.load(step)  # verifies every hash
            assert found.tensors["model"]["w"][0] in ({2: (2.0, 20.0)}.get(step, (float(step),)))
        assert visible(folder) == [f"checkpoint_{step}" for step in steps]
        save(store, 9)
        assert store.latest() == 9
    assert leftovers > 3


def test_kill_at_random_moments_of_large_saves(tmp_path: Path, killed_after) -> None:
    rng = random.Random(1)
    for trial in range(6):
        folder = tmp_path / str(trial)
        save(CheckpointStore(folder, keep_last=1), 0)

        def save_for_ever(folder: Path = folder) -> None:
            store = CheckpointStore(folder, keep_last=1)
            for step in range(1, 10**9):
                store.save(step, weights(step, 500_000), {"step": step}, {})
                (folder.parent / f"{folder.name}.ready").touch()

        killed_after(0.1 * rng.random(), tmp_path / f"{trial}.ready", save_for_ever)
        store = CheckpointStore(folder, keep_last=1)
        found = store.load()
        assert (
            found.step > 0
            and found.step == found.state.get("step")
            and found.tensors["model"]["w"].unique().tolist() == [found.step]
        )
        assert len(store.steps()) <= 2 and visible(folder) == [f"checkpoint_{step}" for step in store.steps()]


def test_opening_leaves_a_live_save_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    store = CheckpointStore(tmp_path)

    def open_another(folder: Path) -> None:
        assert CheckpointStore(tmp_path).removed_leftovers == ()
        (folder / "written").touch()

    store.save(1, weights(1), {}, {}, files=open_another)
    assert (store.load().files / "written").exists()
    (tmp_path / ".staged-checkpoint_2-dead").mkdir()
    with caplog.at_level(logging.WARNING):
        assert CheckpointStore(tmp_path).removed_leftovers == (".staged-checkpoint_2-dead",)
    assert "settled .staged-checkpoint_2-dead" in caplog.text


def test_a_full_disk_keeps_the_old_checkpoints(small_disk: Path) -> None:
    store = CheckpointStore(small_disk)
    save(store, 1)
    with pytest.raises(StorageError, match="the disk is full"):
        store.save(2, weights(2, 1_000_000), {}, {})
    with pytest.raises(StorageError, match=r"cannot write .*checkpoint_2: the disk is full"):
        store.save(2, weights(2), {}, {}, files=lambda f: (f / "big").write_bytes(b"x" * 2_000_000) and None)
    assert visible(small_disk) == ["checkpoint_1"] and store.load().step == 1
    save(store, 2)
    assert store.load().step == 2


def test_a_read_only_folder_can_be_loaded_from(tmp_path: Path, read_only, caplog: pytest.LogCaptureFixture) -> None:
    folder = tmp_path / "ro"
    save(CheckpointStore(folder), 1)
    (folder / ".staged-checkpoint_2-dead").mkdir()
    with read_only(folder):
        store = CheckpointStore(folder)
        assert store.removed_leftovers == () and "cannot be removed" in caplog.text
        assert store.load().step == 1
        with pytest.raises(StorageError, match=r"cannot write .*checkpoint_2: the folder is read-only"):
            save(store, 2)


def test_bfloat16_and_tied_weights_keep_their_hash(tmp_path: Path) -> None:
    weight = torch.randn(3, 3, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    group = {"embed": weight, "head": weight, "scale": torch.tensor(2.0), "none": torch.empty(0, 3)}
    store = CheckpointStore(tmp_path)
    store.save(1, {"model": group}, {}, {})
    assert parameter_hash(store.load().tensors["model"]) == parameter_hash(group)
