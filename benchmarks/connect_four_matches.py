"""A trained Connect Four player against minimax and against the network that its run began with.

    python benchmarks/connect_four_matches.py runs/connect_four --simulations 400

Each of 100 random openings is played from both sides. Points per game with a bootstrap interval over openings, since
the two games of one are not independent. The untrained network has the same search with as many simulations. Exits with
1 unless every lower bound is above 0.5 and the untrained network is held below 0.1 points per game.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

import numpy as np

from troupe.maths.ratings import elo_of
from troupe.maths.statistics import bootstrap_interval
from troupe.systems.selfplay.arena import Match, play_match
from troupe.systems.selfplay.deploy import load_player
from troupe.systems.selfplay.players import Minimax, Player


def report(name: str, match: Match, seconds: float) -> tuple[float, float]:
    """Prints a line; returns the lower bound of the points per game, and their mean."""
    per_game = [points / 2 for points in match.points]
    interval = bootstrap_interval(per_game, np.random.default_rng(0), n=10_000)
    score, elo = match.score, elo_of(match.pairs)
    print(
        f"{name:<34} {interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}]   "
        f"{score.wins} won, {score.draws} drawn, {score.losses} lost   {elo.mean:+.0f} Elo   {seconds:.0f} s",
        flush=True,
    )
    return interval.low, interval.mean


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("--simulations", type=int, nargs="+", default=[400])
    parser.add_argument("--depth", type=int, nargs="+", default=[5])
    parser.add_argument("--openings", type=int, default=100)
    parser.add_argument("--plies", type=int, default=6, help="random moves of an opening")
    parser.add_argument("--algorithm", choices=["gumbel", "puct"], default=None, help="(default: the run's)")
    parser.add_argument("--seed", type=int, default=0)
    chosen = parser.parse_args()
    enough = True
    for simulations in chosen.simulations:
        ours = load_player(chosen.run, simulations=simulations, algorithm=chosen.algorithm)
        print(
            f"{ours.source}, {simulations} simulations, {chosen.openings} openings of {chosen.plies} moves, both sides"
        )
        opponents: dict[str, Player] = {
            "untrained, the same search": load_player(
                chosen.run, simulations=simulations, algorithm=chosen.algorithm, which="untrained"
            )
        }
        for depth in chosen.depth:
            generator = np.random.default_rng([chosen.seed, depth])
            opponents[f"minimax depth {depth} with heuristic"] = Minimax(ours.game, depth, generator)
        for name, theirs in opponents.items():
            began = time.perf_counter()
            rng = np.random.default_rng([chosen.seed, simulations])
            match = play_match(ours.game, ours, theirs, chosen.openings, chosen.plies, rng)
            low, mean = report(name, match, time.perf_counter() - began)
            enough &= low > 0.5 and (mean > 0.9 or not name.startswith("untrained"))
    return 0 if enough else 1


if __name__ == "__main__":
    raise SystemExit(main())
