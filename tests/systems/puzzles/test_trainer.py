"""The run on puzzles: what it learns, what it says, what it refuses."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.puzzle_runs import LEARNING, TINY, words
from troupe.config import Recording, leaf_paths, load
from troupe.errors import ConfigError, DataError, StorageError
from troupe.systems.puzzles.config import PuzzleConfig
from troupe.systems.puzzles.trainer import PuzzleTrainer, reasons

OTHER = {f"net__trm__{key.rpartition('.')[2]}": None for key in TINY if key.startswith("net.trm.")}
HRM = OTHER | {
    "net__kind": "hrm", "net__hrm__hidden": 16, "net__hrm__low_hidden": 8, "net__hrm__heads": 2,
    "net__hrm__h_layers": 1, "net__hrm__l_layers": 1, "net__hrm__round_to": 8,
}  # fmt: skip
PLAIN = OTHER | {
    "net__kind": "transformer", "net__transformer__hidden": 16, "net__transformer__heads": 2,
    "net__transformer__round_to": 16, "learning__supervision_steps": None,
}  # fmt: skip
ARC = {
    "data__name": "arc", "data__size": 4, "data__givens": None, "data__held_out": None, "data__forms": 1,
    "net__trm__prefix": 1,
}  # fmt: skip


def config(folder: Path, **changed: Any) -> PuzzleConfig:
    return load(PuzzleConfig, overrides=words(folder, **changed)).config


def trained(folder: Path, **changed: Any) -> Any:
    return PuzzleTrainer(config(folder, **changed)).train()


def lines(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


def arc_file(folder: Path) -> Path:
    tasks = [
        {"id": f"t{n}", "train": [{"input": [[n, 1]], "output": [[1, n]]}], "test": [{"input": [[n]], "output": [[n]]}]}
        for n in range(6)
    ]
    path = folder / "training.jsonl"
    path.write_text("\n".join(map(json.dumps, tasks)))
    return path


# ---------------------------------------------------------------------------------------------- learning


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("puzzles") / "run"
    return folder, trained(folder, **{key.replace(".", "__"): value for key, value in LEARNING.items()})


def test_a_small_network_learns_to_solve(learned: tuple[Path, Any]) -> None:
    folder, result = learned
    assert result.improved and result.exact[-1].mean > 0.5 and result.exact[-1].n == 60
    assert len(result.exact) == len(result.cells) == 4
    assert result.gain.theirs == 0 and result.comparison is None
    assert result.block_parameters < result.parameters < 20_000
    rows = lines(folder)
    assert [row["step"] for row in rows] == [0, 40, 80, 120]
    assert rows[0]["eval/exact"] < rows[-1]["eval/exact"] == result.exact[-1].mean
    assert rows[-1]["eval/exact/4"] == rows[-1]["eval/exact"] and rows[-1]["train/finished"] > 16  # some leave early
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["verdict"] == "improved" and summary["parameters"] == result.parameters
    assert "solves more puzzles than before training" in summary["reasons"][0]
    page = (folder / "report.html").read_text()
    assert f"Solves {100 * result.exact[-1].mean:.1f}\N{NO-BREAK SPACE}% of the held-out puzzles" in page
    assert 'class="absent"' not in page


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
@pytest.mark.parametrize("amp", ["none", "bf16"])
def test_a_small_network_learns_on_a_gpu(tmp_path: Path, amp: str) -> None:
    changed = {key.replace(".", "__"): value for key, value in LEARNING.items()}
    options = changed | {"trainer__device": "cuda", "learning__amp": amp}
    result = trained(tmp_path / "run", **options)
    assert result.improved and result.exact[-1].mean > 0.5
    assert trained(tmp_path / "run", **options).exact == result.exact  # read back from the last checkpoint


def test_answers_of_other_puzzles_teach_nothing(tmp_path: Path) -> None:
    changed = {key.replace(".", "__"): value for key, value in LEARNING.items()}
    result = trained(tmp_path / "run", **changed, data__shuffle_answers=True)
    assert not result.improved and result.exact[-1].mean < 0.1


def test_a_finished_run_says_the_same_again(learned: tuple[Path, Any]) -> None:
    folder, result = learned
    before = (folder / "metrics.jsonl").read_bytes()
    again = trained(folder, **{key.replace(".", "__"): value for key, value in LEARNING.items()})
    assert again.parameter_hash == result.parameter_hash and again.exact == result.exact and again.gain == result.gain
    assert (folder / "metrics.jsonl").read_bytes() == before


def test_the_comparison_with_another_run(learned: tuple[Path, Any], tmp_path: Path) -> None:
    folder, result = learned
    data = {key.replace(".", "__"): value for key, value in LEARNING.items() if key.startswith("data.")}
    weak = trained(tmp_path / "weak", **data, **PLAIN, trainer__compare=folder)
    assert weak.comparison is not None and not weak.comparison.better and not weak.improved
    assert weak.comparison.theirs + weak.comparison.both == round(result.exact[-1].mean * 60)
    assert f"The network of {folder} solves" in (tmp_path / "weak" / "report.html").read_text()
    assert any("solves fewer puzzles than" in sentence for sentence in reasons(weak, str(folder)))
    with pytest.raises(DataError, match="judged by other held-out puzzles"):
        trained(tmp_path / "other", trainer__compare=folder)
    with pytest.raises(ConfigError, match="holds no finished run on puzzles"):
        trained(tmp_path / "none", trainer__compare=tmp_path)


# ---------------------------------------------------------------------------------------------- puzzles under way


def test_every_training_puzzle_comes_up_once_per_pass(tmp_path: Path) -> None:
    run = PuzzleTrainer(config(tmp_path, data__augment=False))
    seen = []
    for k in (7, 0, 30, 3, 40):
        fresh = run._fresh(k)
        assert len(fresh.tokens) == k
        seen += [bytes(row) for row in fresh.tokens.to(torch.uint8).numpy()]
    everyone = sorted(map(bytes, run.data.train.puzzles))
    assert sorted(seen[:40]) == everyone == sorted(seen[40:]) and seen[:40] != seen[40:]


def test_puzzles_come_in_forms_of_their_own(tmp_path: Path) -> None:
    run = PuzzleTrainer(config(tmp_path))
    first = run._fresh(40)
    known = set(map(bytes, run.data.train.puzzles))
    assert sum(bytes(row) in known for row in first.tokens.to(torch.uint8).numpy()) < 5
    given = first.tokens > 1
    assert (first.tokens[given] == first.labels[given]).all() and (first.labels > 1).all()


@pytest.mark.parametrize("kind", ["hrm", "transformer", "maze", "arc"])
def test_other_networks_and_puzzles_run(tmp_path: Path, kind: str) -> None:
    changed = {
        "hrm": HRM,
        "transformer": PLAIN,
        "maze": {"data__name": "maze", "data__size": 4, "data__givens": None},
        "arc": ARC | {"data__file": arc_file(tmp_path)},
    }[kind]
    result = trained(tmp_path / "run", **changed, trainer__steps=4, trainer__test_freq=2)
    assert len(result.exact) == (1 if kind == "transformer" else 4)
    row = lines(tmp_path / "run")[-1]
    assert ("train/loss/continue" in row) == (kind == "hrm") and ("train/loss/halt" in row) == (kind != "transformer")
    assert all(np.isfinite(value) for value in row.values())
    if kind == "arc":
        assert result.exact[-1].n == 6
    if kind == "transformer":
        assert row["train/finished"] == 8  # one pass each


def test_the_last_updates_need_not_fill_a_line(tmp_path: Path) -> None:
    trained(tmp_path / "run", trainer__steps=5)
    assert [row["step"] for row in lines(tmp_path / "run")] == [0, 2, 4, 5]


# ---------------------------------------------------------------------------------------------- the config


def test_every_key_of_the_config_is_read(tmp_path: Path) -> None:
    """A key that no run reads is a promise that nobody keeps."""
    file = arc_file(tmp_path)
    unread = set(leaf_paths(PuzzleConfig))
    attention = {"net__trm__mlp_t": False, "net__trm__heads": 2}
    for number, changed in enumerate([{}, attention, HRM, PLAIN, ARC | {"data__file": file}]):
        recording: Any = Recording(config(tmp_path / str(number), **changed, trainer__steps=4))
        PuzzleTrainer(recording).train()
        unread &= set(recording.unread())
    assert unread == set()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"net__hrm__hidden": 16}, r"net\.hrm\.hidden.* is for net\.kind=hrm"),
        ({"net__trm__heads": 2}, r"net\.trm\.heads.* is for attention"),
        ({"net__trm__identities": 2}, "follows from the puzzles"),
        (PLAIN | {"learning__supervision_steps": 4}, "is for net.kind=trm and hrm"),
        ({"learning__halting": False, "learning__exploration": 0.5}, "with learning.halting"),
        ({"data__name": "maze"}, r"data\.givens.* is for data\.name=sudoku"),
        ({"data__forms": 3}, r"is for data\.name=arc"),
        ({"data__size": 5}, "write 4, 6 or 9"),
        ({"data__givens": "[9, 4]"}, "two rising numbers"),
        ({"data__givens": "[3, 17]"}, "two rising numbers"),
        (ARC, "reads its tasks from data.file"),
        (ARC | {"data__file": "x", "net__trm__prefix": 0}, r"write net\.trm\.prefix=1"),
        ({"learning__final_lr": 1.0}, "learning.final_lr is larger"),
        ({"trainer__test_freq": 3}, "no multiple of trainer.log_freq=2"),
        ({"net__trm__hiden": 3}, "did you mean 'hidden'"),
    ],
)
def test_a_config_that_cannot_be_meant_is_one_sentence(tmp_path: Path, changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        config(tmp_path, **changed)
    assert "\n" not in str(refused.value)


def test_networks_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="does not split into 3 heads"):
        PuzzleTrainer(config(tmp_path, net__trm__mlp_t=False, net__trm__heads=3))
    with pytest.raises(ConfigError, match="must be a PuzzleConfig or a mapping"):
        PuzzleTrainer(3)  # type: ignore[arg-type]


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_no_gpu_no_cuda(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"write trainer\.device=cpu"):
        PuzzleTrainer(config(tmp_path, trainer__device="cuda"))


def test_another_config_is_another_run(tmp_path: Path) -> None:
    trained(tmp_path / "run", trainer__steps=2)
    with pytest.raises(StorageError, match=r"was begun with learning\.lr"):
        trained(tmp_path / "run", trainer__steps=2, learning__lr=0.5)
    with pytest.raises(StorageError, match=r"trainer\.resume=auto"):
        trained(tmp_path / "run", trainer__steps=2, trainer__resume="never")
