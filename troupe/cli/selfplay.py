"""`troupe train selfplay` and `troupe play`."""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.cli.train import begin, preset_path, show_end
from troupe.config import Resolved, load
from troupe.errors import ConfigError
from troupe.systems.selfplay.config import ALIASES, SelfPlayConfig

if TYPE_CHECKING:
    from troupe.systems.selfplay.deploy import TrainedPlayer
    from troupe.systems.selfplay.trainer import SelfPlayResult

__all__ = ["play", "resolve_selfplay", "train_selfplay"]


DEFAULT_GAME = "tictactoe"
PRESETS = ("connect_four", "tictactoe")
"""Games with a preset of their own, in `troupe/configs/selfplay/`."""


def resolve_selfplay(preset: str | None, files: Sequence[str], overrides: Sequence[str]) -> Resolved[SelfPlayConfig]:
    """Preset, files and overrides in one. `game=NAME` is short for `game.name=NAME`, and brings the game's preset along
    where there is one and no other is named."""
    spelled = [f"game.name={o.partition('=')[2]}" if o.startswith("game=") else o for o in overrides]
    games = [o.partition("=")[2] for o in spelled if o.startswith("game.name=")]
    path = None
    if preset is not None:
        path = preset_path(preset, "selfplay")
    elif not files and (games[-1:] or [DEFAULT_GAME])[0] in PRESETS:
        path = preset_path(games[-1] if games else DEFAULT_GAME, "selfplay")
    return load(SelfPlayConfig, preset=path, files=files, overrides=spelled, aliases=ALIASES)


def train_selfplay(arguments: argparse.Namespace) -> int:
    """Exit code 3 where no candidate ever beat the network that the run began with."""
    resolved = resolve_selfplay(arguments.preset, arguments.config, arguments.overrides)
    console = begin(arguments, resolved)
    if console is None:
        return 0
    from troupe.systems.selfplay.trainer import GameTrainer

    trainer = GameTrainer(resolved.config, progress=_Lines(console))
    result = trainer.train()
    from troupe.systems.selfplay.finish import finish

    report = finish(trainer, result)
    _show(console, result)
    show_end(console, result, report)
    return 0 if result.promoted else 3


class _Lines:
    """A progress callback: one line per iteration."""

    def __init__(self, console: Any) -> None:
        self._console = console
        self._began = time.monotonic()

    def __call__(self, phase: str, step: int, total: int, metrics: Mapping[str, float]) -> None:
        parts = [
            f"{time.monotonic() - self._began:6.0f} s",
            f"iteration {step}/{total}",
            f"{metrics['selfplay/games']:.0f} games of {metrics['selfplay/length']:.1f} moves",
        ]
        if "learn/policy/kl" in metrics:
            parts.append(f"policy {metrics['learn/policy/kl']:.3f}  value {metrics['learn/value/squared_error']:.3f}")
        if "arena/elo" in metrics:
            verdict = "[bold]promoted[/bold]" if metrics["arena/promoted"] else "not promoted"
            parts.append(f"{metrics['arena/elo']:+.0f} Elo, {verdict}")
        self._console.print("   ".join(parts), soft_wrap=True)


def _show(console: Any, result: SelfPlayResult) -> None:
    from rich.table import Table

    table = Table("player", "Elo", "95 % interval", "games", title="Ratings")
    for name, rating in sorted(result.ratings.items(), key=lambda pair: -pair[1].mean):
        table.add_row(name, f"{rating.mean:+.0f}", f"[{rating.low:+.0f}, {rating.high:+.0f}]", str(rating.n))
    console.print(table)
    for judgement in result.judgements:
        verdict = f"iteration {judgement.iteration} against {judgement.incumbent}: {judgement.decision.reasons[0]}"
        console.print(verdict, soft_wrap=True)
    if result.promoted:
        console.print(f"[bold]Champion: {result.champion}[/bold]")
    else:
        console.print("[bold]Nothing improved: no candidate beat the untrained network, and none was promoted.[/bold]")


def play(arguments: argparse.Namespace) -> int:
    """A game in the terminal; with --think the search after some moves, as a tree."""
    if arguments.svg is not None and arguments.think is None:
        raise ConfigError("--svg draws what --think shows; write --think MOVES, too")
    from rich.console import Console

    from troupe.systems.selfplay.deploy import load_player

    console = Console(highlight=False)
    player = load_player(arguments.run, simulations=arguments.simulations)
    if arguments.think is not None:
        return _think(console, player, arguments.think, arguments.svg)
    return _match(console, player, human=1 if arguments.second else 0, seed=arguments.seed)


def _think(console: Any, player: TrainedPlayer, moves: str, svg: str | None) -> int:
    from troupe.monitoring.tree_picture import tree_svg, tree_text
    from troupe.systems.selfplay.thinking import think

    found = think(player, [_number(word) for word in moves.replace(",", " ").split()])
    console.print(tree_text(found.tree), markup=False, soft_wrap=True)
    console.print(f"value {found.value:+.3f} for the player to move; it would play {found.action}")
    if svg is not None:
        from troupe.stores.atomic import write_atomic

        write_atomic(Path(svg), tree_svg(found.tree).encode())
        console.print(f"picture: {svg}")
    return 0


def _number(word: str) -> int:
    try:
        return int(word)
    except ValueError:
        raise ConfigError(f"{word!r} is no move; moves are numbers, such as --think '3 3 2'") from None


def _match(console: Any, player: TrainedPlayer, human: int, seed: int) -> int:
    import numpy as np

    from troupe.systems.selfplay.openings import rolled

    game = player.game
    render = getattr(game, "render", str)
    dice = np.random.default_rng(seed)
    last = 0
    state, mover, done, reward = rolled(game, game.initial(), 0, False, dice)
    while not done:
        console.print(f"{render(state)}\n", markup=False)
        legal = list(game.legal(state))
        if mover == human:
            action = _asked(console, legal)
        else:
            action = player.choose([state], [mover])[0]
            console.print(f"{player.source} plays {action}")
        last = mover
        state, reward, done, mover = game.step(state, action)
        asked = mover
        state, mover, done, gained = rolled(game, state, mover, done, dice)
        if gained:
            reward, last = gained, asked
    console.print(f"{render(state)}\n", markup=False)
    won = reward > 0
    console.print("a draw" if reward == 0 else "you win" if won == (last == human) else "you lose")
    return 0


def _asked(console: Any, legal: list[Any]) -> Any:
    while True:
        try:
            word = console.input(f"your move {legal}: ").strip()
        except EOFError:
            raise ConfigError("the game was left before its end: no more input") from None
        if word.lstrip("-").isdigit() and int(word) in legal:
            return int(word)
        console.print(f"{word!r} is not one of {legal}")
