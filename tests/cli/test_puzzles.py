"""`troupe train puzzles`: short forms, presets, exit codes, and what is refused in one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.puzzle_runs import LEARNING, words
from tests.runs import ROOT
from troupe.cli import main, parse
from troupe.cli.puzzles import PRESETS, resolve_puzzles
from troupe.errors import ConfigError


def test_short_forms() -> None:
    arguments = parse(["train", "puzzles", "net=trm", "data=sudoku"])
    assert arguments.command == ("troupe.cli.puzzles", "train_puzzles")
    for overrides, expected in (
        ([], ("trm", "sudoku", 4)),
        (["net=trm", "data=sudoku"], ("trm", "sudoku", 4)),
        (["net=hrm", "data=sudoku", "data.size=6"], ("hrm", "sudoku", 6)),
        (["net=transformer", "size=6"], ("transformer", "sudoku", 6)),
        (["data.size=9", "data.file=x"], ("trm", "sudoku", 9)),
        (["data=maze", "steps=7"], ("trm", "maze", 7)),
        (["data=arc", "data.file=x"], ("trm", "arc", 30)),
    ):
        config = resolve_puzzles(None, [], overrides).config
        assert (config.net.kind, config.data.name, config.data.size) == expected
    assert resolve_puzzles(None, [], ["data=maze", "steps=7"]).config.trainer.steps == 7


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("kind", ["trm", "hrm", "transformer"])
def test_presets_are_valid_for_every_network(name: str, kind: str) -> None:
    file = ["data.file=x"] if name in ("arc", "sudoku9") else []
    config = resolve_puzzles(name, [], [f"net={kind}", *file]).config
    assert config.trainer.default_local_dir == f"runs/{name}" and config.net.kind == kind
    assert {path.stem for path in (ROOT / "troupe" / "configs" / "puzzles").iterdir()} == set(PRESETS)


@pytest.mark.parametrize("name", ["maze", "sudoku4", "sudoku6"])
def test_networks_of_a_preset_weigh_the_same(name: str) -> None:
    """Within 5 %: what is compared is the recursion."""
    from troupe.systems.puzzles.data import puzzle_data
    from troupe.systems.puzzles.networks import network

    sizes = {}
    for kind in ("trm", "hrm", "transformer"):
        config = resolve_puzzles(name, [], [f"net={kind}", "data.train=1", "data.held_out=1"]).config
        data = puzzle_data(config.data, 0)
        net = network(config, vocabulary=data.vocabulary, length=data.length)
        sizes[kind] = sum(p.numel() for p in net.parameters())
    assert max(sizes.values()) < 1.05 * min(sizes.values()), sizes


def test_a_preset_that_does_not_exist() -> None:
    with pytest.raises(ConfigError, match="did you mean 'sudoku"):
        resolve_puzzles("sudoku5", [], [])


def test_a_run_that_learns_and_one_that_does_not(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    learning = {key.replace(".", "__"): value for key, value in LEARNING.items()}
    assert main(["train", "puzzles", *words(tmp_path / "run", **learning)]) == 0
    said = capsys.readouterr().out
    assert "Held-out puzzles" in said and "The network solves more puzzles than before training" in said
    assert "weights: " in said and "parameters" in said
    assert f"report: {tmp_path / 'run' / 'report.html'}" in said and (tmp_path / "run" / "report.html").exists()
    short = learning | {"trainer__steps": 2, "trainer__compare": tmp_path / "run"}
    assert main(["train", "puzzles", *words(tmp_path / "short", **short)]) == 3
    assert "The network solves fewer puzzles than" in capsys.readouterr().out.replace("\n", " ")


def test_the_config_can_be_looked_at(capsys: pytest.CaptureFixture) -> None:
    assert main(["train", "puzzles", "net=hrm", "--print-config"]) == 0
    assert "supervision_steps" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("net=rnn", "net.kind"),
        ("data=chess", "data.name"),
        ("net.trm.hiden=3", "did you mean 'hidden'"),
        ("data.train=100000", "different puzzles for"),
        ("trainer.compare=nowhere", "holds no finished run"),
        ("data.file=nowhere.jsonl", "does not exist"),
    ],
)
def test_bad_input_is_refused(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch, override: str, said: str
) -> None:
    monkeypatch.setattr("troupe.systems.puzzles.data.MAX_DRAWS", 20)
    monkeypatch.setattr("troupe.systems.puzzles.data.BATCH", 16)
    tiny = ["data.size=4", "data.train=20", "data.held_out=5", f"trainer.default_local_dir={tmp_path}"]
    assert main(["train", "puzzles", *tiny, override]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint and complaint.startswith("error: ") and "Traceback" not in complaint
