from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.runs import ROOT
from tests.selfplay_runs import LEARNING, TINY
from troupe.cli import main
from troupe.cli.selfplay import PRESETS, resolve_selfplay
from troupe.errors import ConfigError


def words(folder: Path, **changed: object) -> list[str]:
    values = TINY | {"trainer.default_local_dir": folder} | {key.replace("__", "."): v for key, v in changed.items()}
    return ["train", "selfplay", *(f"{key}={value}" for key, value in values.items())]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run, which must not be changed."""
    folder = tmp_path_factory.mktemp("selfplay") / "run"
    assert main(words(folder)) in (0, 3)
    return folder


def test_a_run_that_improves_nothing_says_so_and_exits_with_3(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """Two games decide nothing: the gate is undecided, and the incumbent stays."""
    assert main(words(tmp_path / "run", trainer__iterations=1, arena__cap=2)) == 3
    said = capsys.readouterr().out
    assert "Nothing improved" in said and "undecided, so the incumbent stays" in said
    assert "nothing improved" in (tmp_path / "run" / "report.html").read_text().lower()
    assert not (tmp_path / "run" / "registry").exists()


def test_a_promoted_network_is_registered_once(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    from troupe.stores.registry import ModelRegistry
    from troupe.systems.selfplay.deploy import load_player

    learning = {key.replace(".", "__"): value for key, value in LEARNING.items()}
    summaries = []
    for _ in range(2):  # the second call finds everything done
        assert main(words(tmp_path / "run", **learning)) == 0
        assert "Champion: iteration 12" in capsys.readouterr().out
        summaries.append(json.loads((tmp_path / "run" / "summary.json").read_text()))
    assert summaries[1]["seconds"] > summaries[0]["seconds"] > 0
    assert summaries[1]["cpu_seconds"] > summaries[0]["cpu_seconds"] > 0
    registry = ModelRegistry(tmp_path / "run" / "registry")
    assert registry.versions("tictactoe") == [1]
    champion = registry.describe("tictactoe@production")["lineage"]["data"]["champion"]
    assert champion == "iteration 12" and champion in load_player(tmp_path / "run").source


def test_a_game_brings_its_preset_along() -> None:
    assert resolve_selfplay(None, [], ["game=connect_four"]).config.net.kind == "conv"
    assert resolve_selfplay(None, [], []).config.game.name == "tictactoe"
    assert resolve_selfplay(None, [], ["game=othello"]).config.acting.games == 512  # no preset: the defaults
    with pytest.raises(ConfigError, match="did you mean 'connect_four'"):
        resolve_selfplay("conect_four", [], [])


@pytest.mark.parametrize("game", PRESETS)
def test_presets_are_valid(game: str) -> None:
    config = resolve_selfplay(game, [], []).config
    assert config.game.name == game and config.trainer.default_local_dir == f"runs/{game}"
    assert {path.stem for path in (ROOT / "troupe" / "configs" / "selfplay").iterdir()} == set(PRESETS)


def test_the_documents_keys_are_understood() -> None:
    config = resolve_selfplay("connect_four", [], ["mcts.num_simulations=7", "games_per_iteration=9"]).config
    assert (config.search.simulations, config.acting.games) == (7, 9)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("search.simulatoins=3", "did you mean 'simulations'"),
        ("acting.games=many", "acting.games"),
        ("net.blocks=3", "is for net.kind=conv"),
        ("search.c_puct=2", "is for search.algorithm=puct"),
        ("game=chess", "unknown game 'chess'"),
        ("arena.elo0=60", "must lie below"),
        ("acting.workers=-1", "acting.workers"),
    ],
)
def test_bad_overrides_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture, override: str, said: str) -> None:
    assert main([*words(tmp_path / "run"), override]) == 2
    complaint = capsys.readouterr().err
    assert said in complaint and complaint.startswith("error: ") and "Traceback" not in complaint


def test_the_search_can_be_looked_at(finished: Path, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    picture = tmp_path / "tree.svg"
    assert main(["play", str(finished), "--think", "4 0", "--svg", str(picture), "--simulations", "16"]) == 0
    said = capsys.readouterr().out
    assert "visits" in said and "it would play" in said and "O 1 2" in said
    assert picture.read_text().startswith("<svg")


def test_a_game_can_be_played(finished: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever always takes the first free cell, and sometimes types nonsense, comes to an end."""
    answers = iter([word for cell in range(9) for word in ("", "nine", str(cell))])
    monkeypatch.setattr("rich.console.Console.input", lambda self, prompt="": next(answers))
    assert main(["play", str(finished), "--simulations", "8"]) == 0
    said = capsys.readouterr().out
    assert any(end in said for end in ("you win", "you lose", "a draw")) and "is not one of" in said


def test_a_game_with_dice_can_be_played_and_looked_at(
    tmp_path: Path, capsys: pytest.CaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "run"
    assert main(words(folder, game="pig", trainer__iterations=1, arena__every=1, arena__opening_plies=0)) in (0, 3)
    asked: list[str] = []

    def answer(self: object, prompt: str = "") -> str:
        asked.append(prompt)
        return "1" if "1" in prompt else "0"  # hold as soon as that is legal

    monkeypatch.setattr("rich.console.Console.input", answer)
    assert main(["play", str(folder), "--simulations", "4", "--seed", "3"]) == 0
    said = capsys.readouterr().out
    assert ("you win" in said) != ("you lose" in said)
    assert asked and all("[]" not in prompt for prompt in asked)
    assert main(["play", str(folder), "--think", "0 5 0 4"]) == 0  # roll a 5, roll a 4
    assert "it would play" in capsys.readouterr().out
    assert main(["play", str(folder), "--think", "0 7"]) == 2
    assert "move 2 is 7, which is not legal there; legal: [1, 2, 3, 4, 5, 6]" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--think", "4 4"], "move 2 is 4, which is not legal there"),
        (["--think", "four"], "moves are numbers"),
        (["--think", "0 3 1 4 2"], "the game is over after move 5"),
        (["--svg", "x.svg"], "write --think MOVES, too"),
        (["--think", "0", "--simulations", "0"], "simulations"),
    ],
)
def test_bad_moves_are_refused(finished: Path, capsys: pytest.CaptureFixture, arguments: list[str], said: str) -> None:
    assert main(["play", str(finished), *arguments]) == 2
    assert said in capsys.readouterr().err


def test_a_folder_without_a_run_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    assert main(["play", str(tmp_path)]) == 2
    assert "holds no complete checkpoint" in capsys.readouterr().err
