"""Tic-tac-toe: does a trained player lose any line at all?

    python benchmarks/tictactoe.py                      # trains the preset (about a CPU-minute), then asks
    python benchmarks/tictactoe.py --run runs/tictactoe

An exhaustive opponent tries every move everywhere, with both colours, against almost the raw policy (1 simulation) and
the search. Beside it the stricter figure: in how many of the 4,520 reachable positions does the player keep the game's
value?
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from troupe.search.minimax import solve
from troupe.systems.selfplay.deploy import load_player
from troupe.systems.selfplay.players import Player

CPU_SECONDS = 120


def exhaustive(game: Any, player: Player, side: int) -> tuple[int, int, int]:
    """(won, drawn, lost) lines of play in which the player has this colour and the opponent tries every move."""
    won = drawn = lost = 0
    frontier = [(game.initial(), 0)]
    while frontier:
        mine = [entry for entry in frontier if entry[1] == side]
        chosen = player.choose([state for state, _ in mine], [mover for _, mover in mine]) if mine else []
        steps = [(state, mover, action) for (state, mover), action in zip(mine, chosen, strict=True)]
        steps += [(state, mover, a) for state, mover in frontier if mover != side for a in game.legal(state)]
        frontier = []
        for state, mover, action in steps:
            after, reward, done, following = game.step(state, action)
            if not done:
                frontier.append((after, following))
            elif reward == 0:
                drawn += 1
            elif (reward > 0) == (mover == side):
                won += 1
            else:
                lost += 1
    return won, drawn, lost


def positions(game: Any) -> Iterator[tuple[Any, int]]:
    """Every position that can be reached and in which somebody has to move."""
    seen = {game.initial(): 0}
    stack = [game.initial()]
    while stack:
        state = stack.pop()
        for action in game.legal(state):
            after, _, done, mover = game.step(state, action)
            if not done and after not in seen:
                seen[after] = mover
                stack.append(after)
    yield from seen.items()


def kept(game: Any, player: Player) -> tuple[int, int]:
    """(positions in which the player's move keeps the game's value, all positions)."""
    table: dict[Any, Any] = {}
    everywhere = list(positions(game))
    chosen = player.choose([state for state, _ in everywhere], [mover for _, mover in everywhere])
    good = 0
    for (state, mover), action in zip(everywhere, chosen, strict=True):
        after, reward, done, following = game.step(state, action)
        value = reward if done else -solve(game, after, table, to_play=following)
        good += value >= solve(game, state, table, to_play=mover)
    return good, len(everywhere)


def train(folder: Path, seed: int) -> tuple[float, float]:
    """(wall, CPU) seconds of the preset."""
    from troupe.cli.selfplay import resolve_selfplay
    from troupe.systems.selfplay.trainer import GameTrainer

    config = resolve_selfplay("tictactoe", [], [f"seed={seed}", f"trainer.default_local_dir={folder}"]).config
    wall, cpu = time.perf_counter(), time.process_time()
    GameTrainer(config).train()
    return time.perf_counter() - wall, time.process_time() - cpu


def show(folder: Path) -> int:
    """Prints the table; the number of lost lines with search."""
    lost_with_search = 0
    for which in ("untrained", "champion"):
        for simulations in (1, 64, 200):
            player = load_player(folder, simulations=simulations, which=which)
            results = [exhaustive(player.game, player, side) for side in (0, 1)]
            good, total = kept(player.game, player)
            lost = sum(result[2] for result in results)
            lines = sum(sum(result) for result in results)
            print(
                f"{which:<10} {simulations:>4} simulations: lost {lost} of {lines} lines; keeps the value in "
                f"{good} of {total} positions ({100 * good / total:.1f} %)"
            )
            lost_with_search += lost if which == "champion" and simulations > 1 else 0
    return lost_with_search


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--run", type=Path, default=None, help="folder of a finished run (default: train the preset)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    arguments = parser.parse_args()
    if arguments.run is not None:
        return 1 if show(arguments.run) else 0
    lost, slow = 0, False
    for seed in arguments.seeds:
        with tempfile.TemporaryDirectory() as scratch:
            wall, cpu = train(Path(scratch) / "run", seed)
            print(f"seed {seed}: trained in {wall:.0f} s, {cpu:.0f} CPU-s (at most {CPU_SECONDS} are allowed)")
            lost += show(Path(scratch) / "run")
            slow |= cpu > CPU_SECONDS
    return 1 if lost or slow else 0


if __name__ == "__main__":
    raise SystemExit(main())
