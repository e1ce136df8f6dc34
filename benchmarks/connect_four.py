"""How often does a player of Connect Four keep the value of a position? Measured against an exact solver.

    python benchmarks/connect_four.py --positions 500 --seed 0
    python benchmarks/connect_four.py --positions 500 --run runs/connect_four --simulations 100 --untrained

Positions are those of uniformly random play, in three sets by the number of stones: `begin` 8 to 12, `middle` 14 to 20,
`end` 24 to 30. Where either player could complete four at once they are left out (`--loud` keeps them): random play
leaves such threats in most positions, and a search of two moves answers them. A move keeps the value if the position is
worth as much after it as before: a win stays a win, a draw a draw. `all` counts every position, as AlphaZero.jl's
benchmark does; `strict` only those in which some legal move is wrong. Every table holds a random player, because many
positions forgive much, and plain searches, because an untrained network under the same search is already strong late in
the game.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from connect_four_solver import Solver, finished, legal_columns, play, quiet

from troupe.errors import DataError
from troupe.maths.statistics import Interval, wilson

Board = tuple[int, int]
"""(stones of the player to move, stones of the other): bit = column * 7 + row, row 0 at the bottom."""
Player = Callable[[list[Board]], Sequence[int]]

STAGES = {"begin": range(8, 13), "middle": range(14, 21), "end": range(24, 31)}
FEWER = {"begin": 5}  # a position of 8 stones takes seconds to label, one of 14 some 20 ms
TRIES = 1000

PUBLISHED = (
    ("AlphaZero.jl, 15 iterations, 600 simulations (read off its figure)", "0", "0", "0", "2", "2-3", "7"),
    ("AlphaZero.jl, 5 iterations, 600 simulations (read off its figure)", "0", "0.1", "0", "3", "4", "11"),
    ("minmax of depth 5, as AlphaZero.jl reports it", "1.7", "0.7", "1.4", "7", "9", "23"),
)
PUBLISHED_SETS = ("begin easy", "middle easy", "end easy", "begin medium", "middle medium", "begin hard")


@dataclass(frozen=True, slots=True)
class Labelled:
    """A position and what each legal column is worth to the player to move: 1, 0 or -1."""

    board: Board
    values: Mapping[int, int]

    @property
    def right(self) -> set[int]:
        """Columns that keep the value."""
        best = max(self.values.values())
        return {column for column, value in self.values.items() if value == best}

    @property
    def strict(self) -> bool:
        """Whether some legal move is wrong."""
        return len(self.right) < len(self.values)


@dataclass(frozen=True, slots=True)
class Kept:
    """Shares of positions whose value the player kept; None where no position of that kind was there."""

    all: Interval
    strict: Interval | None


def positions(generator: np.random.Generator, stones: Sequence[int], n: int, *, loud: bool = False) -> list[Board]:
    """n positions of uniformly random legal play, each of a number of stones drawn from `stones`.

    Finished games are dropped, of equal or mirrored positions all but the first, and unless `loud` those in which
    someone could complete four at once. Raises DataError where a thousand
    games for each position asked for do not give that many.
    """
    found: dict[Board, Board] = {}
    for _ in range(TRIES * n):
        if len(found) == n:
            break
        board = _playout(generator, int(generator.choice(stones)))
        if board is not None and (loud or quiet(*board)):
            found.setdefault(min(board, _mirrored(board)), board)
    if len(found) < n:
        raise DataError(
            f"random games gave {len(found)} different positions of {list(stones)} stones: ask for fewer than {n}"
        )
    return list(found.values())


def labelled_sets(
    generator: np.random.Generator, n: int, solver: Solver, *, loud: bool = False
) -> dict[str, list[Labelled]]:
    """A set for each stage, of n positions, or a fifth for `begin`, with the values of their moves."""
    sets = {}
    for stage, stones in STAGES.items():
        boards = positions(generator, stones, max(1, n // FEWER.get(stage, 1)), loud=loud)
        sets[stage] = [Labelled(board, solver.move_values(*board)) for board in boards]
    return sets


def score(player: Player, sets: Mapping[str, Sequence[Labelled]]) -> dict[str, Kept]:
    """How often the player's columns keep the value, by set, with Wilson intervals.

    Raises DataError for an empty set, and for a player that answers with too few columns or an illegal one.
    """
    return {name: _score(player, name, chosen) for name, chosen in sets.items()}


def random_player(generator: np.random.Generator) -> Player:
    """Uniform over the legal columns."""
    return lambda boards: [int(generator.choice(legal_columns(*board))) for board in boards]


def minimax_player(depth: int, generator: np.random.Generator) -> Player:
    """Looks `depth` moves ahead and weighs open lines behind."""
    from troupe.envs.connect_four import ConnectFour, line_heuristic
    from troupe.search.minimax import MinimaxPlayer

    player = MinimaxPlayer(ConnectFour(), depth, line_heuristic, generator)
    return lambda boards: [player(board) for board in boards]


def run_player(folder: Path, simulations: int, untrained: bool = False) -> Player:
    """The champion of a run with its search, or the network that the run began with."""
    from troupe.systems.selfplay.deploy import load_player

    return load_player(folder, simulations=simulations, which="untrained" if untrained else "champion").choose


def main(arguments: Sequence[str] | None = None) -> None:
    chosen = _arguments(arguments)
    began = time.perf_counter()
    sets = labelled_sets(np.random.default_rng([chosen.seed, 0]), chosen.positions, Solver(), loud=chosen.loud)
    counts = ", ".join(f"{name} {len(s)} ({sum(p.strict for p in s)} strict)" for name, s in sets.items())
    print(f"{'all' if chosen.loud else 'quiet'} positions of random play, seed {chosen.seed}: {counts}")
    print(f"labelled in {time.perf_counter() - began:.1f} s\n")
    print("moves that keep the value, % [95 % interval]")
    print(f"{'player':34}" + "".join(f"{f'{name} {kind}':>20}" for name in sets for kind in ("all", "strict")))
    for name, make in _players(chosen).items():
        kept = score(make(), sets)
        print(f"{name:34}" + "".join(_cell(i) for k in kept.values() for i in (k.all, k.strict)), flush=True)
    print("\nFOR REFERENCE, ANOTHER SET OF POSITIONS (Pascal Pons' six files) and published by others: errors, %")
    print(f"{'player':70}" + "".join(f"{name:>15}" for name in PUBLISHED_SETS))
    for name, *errors in PUBLISHED:
        print(f"{name:70}" + "".join(f"{error:>15}" for error in errors))


def _arguments(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--positions", type=int, default=500, help="of each set; `begin` has a fifth")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--loud", action="store_true", help="keep positions in which four could be completed at once")
    parser.add_argument("--depths", type=int, nargs="*", default=[2, 4, 5], help="of the minimax players")
    parser.add_argument("--run", type=Path, nargs="*", default=[], help="folders of runs whose players are scored")
    parser.add_argument("--simulations", type=int, nargs="+", default=[100], help="of the runs' players")
    parser.add_argument("--untrained", action="store_true", help="score the runs' untrained networks as well")
    chosen = parser.parse_args(arguments)
    if chosen.untrained and not chosen.run:
        parser.error("--untrained needs --run FOLDER: the run says which network and which search")
    return chosen


def _players(chosen: argparse.Namespace) -> dict[str, Callable[[], Player]]:
    """name -> how to make it; each random one has a stream of its own, so that the list may grow."""
    players: dict[str, Callable[[], Player]] = {
        "random": lambda: random_player(np.random.default_rng([chosen.seed, 1]))
    }
    for depth in chosen.depths:
        players[f"minimax {depth}"] = lambda d=depth: minimax_player(d, np.random.default_rng([chosen.seed, 2, d]))
    for folder in chosen.run:
        for n in chosen.simulations:
            if chosen.untrained:
                players[f"{folder.name}, untrained, {n} sims"] = lambda f=folder, n=n: run_player(f, n, untrained=True)
            players[f"{folder.name}, {n} sims"] = lambda f=folder, n=n: run_player(f, n)
    return players


def _cell(interval: Interval | None) -> str:
    if interval is None:
        return f"{'-':>20}"
    text = f"{100 * interval.mean:.1f} [{100 * interval.low:.1f}, {100 * interval.high:.1f}]"
    return f"{text:>20}"


def _score(player: Player, name: str, chosen: Sequence[Labelled]) -> Kept:
    columns = [int(column) for column in player([position.board for position in chosen])]
    if len(columns) != len(chosen):
        raise DataError(f"the player answered {len(columns)} of {len(chosen)} positions of {name!r}: answer each")
    for column, position in zip(columns, chosen, strict=True):
        if column not in position.values:
            raise DataError(
                f"the player chose {column} in {position.board} of {name!r}: legal are {list(position.values)}"
            )
    kept = [column in position.right for column, position in zip(columns, chosen, strict=True)]
    strict = [k for k, position in zip(kept, chosen, strict=True) if position.strict]
    return Kept(wilson(sum(kept), len(kept)), wilson(sum(strict), len(strict)) if strict else None)


def _playout(generator: np.random.Generator, stones: int) -> Board | None:
    """The position after `stones` random moves, None if the game ended before or with the last."""
    own = other = 0
    for _ in range(stones):
        legal = legal_columns(own, other)
        if not legal:
            return None
        moved = play(own, other, legal[int(generator.integers(len(legal)))])
        if finished(moved):
            return None
        own, other = other, moved
    return (own, other) if legal_columns(own, other) else None


def _mirrored(board: Board) -> Board:
    own, other = (sum((stones >> 7 * c & 0x7F) << 7 * (6 - c) for c in range(7)) for stones in board)
    return own, other


if __name__ == "__main__":
    main()
