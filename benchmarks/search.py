"""Tree search beside its peers on Connect Four: simulations per CPU-second of one thread on one core.

    OMP_NUM_THREADS=1 python benchmarks/search.py --seconds 1 --rounds 3
    OMP_NUM_THREADS=1 python benchmarks/search.py --only tree

`tree`: uniform priors and values 0 from the empty board, so that the search alone is timed. All sides select by the
same rule, and the command fails unless their root visit counts are the same but for order. `network`: the default
network on 64 random openings, no cache, every evaluation made; "search" is the share of CPU time outside the evaluator,
"ours" the share outside the network's own run. Our evaluator shows the network canonical positions, one for each mirror
pair; the peers' do not, so the root visits are compared without that. `games`: whole games of self-play as training
plays them, the untrained network, noise, up to 4 random opening moves; "search" and "ours" as before, with the making
of the replay's rows in both. Our game is the compiled one wherever training would take it.

The process pins itself to one core and counts its own CPU time, whichever thread spends it. A side searches all its
positions once before anything is timed, so that compilers are done, then for `--seconds` or once in each round; the
sides take turns, every other round backwards. Tables show the median of the rounds and their range; a ratio is the
median of the rounds' ratios. A budget counts the evaluation of the root, a rate does not.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import count
from typing import Any

import numpy as np
import search_peers as peers
import torch
from evaluators import ARMS

from troupe.engines.evaluator import NetworkEvaluator, UniformEvaluator
from troupe.envs import make_batch_game, make_game
from troupe.errors import UserError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import PolicyValueNet, policy_value_net
from troupe.protocols import Evaluator, Positions
from troupe.search.compiled import compiled_game
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run
from troupe.systems.selfplay.chunks import Chunk, play_chunk
from troupe.systems.selfplay.config import ActingConfig, GameConfig
from troupe.systems.selfplay.players import search_game

BATCH = 64
SOME = 16  # of them are enough for OpenSpiel, which searches one after the other
OPENING = 6  # moves at most: nobody can have won, and no column is asked for a seventh stone

OPENSPIEL, MCTX, MCTX_GUMBEL = "OpenSpiel, Python", "mctx, muzero", "mctx, gumbel"
PEERS = (OPENSPIEL, MCTX, MCTX_GUMBEL)
FUSED, WAVES, NUMPY = "ours, compiled, fused, B=64", "ours, compiled, waves, B=512", "ours, numpy, B=512"
PURE, PURE_NUMPY = "ours, game in Python, B=64", "ours, game in Python, numpy, B=64"
GUMBEL = "ours, gumbel, fastest runtime"

Arms = dict[str, peers.Arm | str]
"""What searches, or why it cannot."""
Rates = dict[str, list[float]]


# ------------------------------------------------------------------------------------------------ timing


def pinned() -> int:
    """Keeps the process, and so all threads that it will start, on one core; returns which."""
    core = max(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {core})
    return core


def prepared(makers: Mapping[str, Callable[[], peers.Arm]]) -> Arms:
    """The arms, each compiled, or why there is none."""

    def one(make: Callable[[], peers.Arm]) -> peers.Arm | str:
        try:
            return make()
        except (ImportError, UserError) as error:
            return f"not here: {error}"

    return {name: one(make) for name, make in makers.items()}


def in_turns(names: Sequence[str], rounds: int, once: Callable[[str], float]) -> Rates:
    """What `once(name)` gives, `rounds` times for each name."""
    found: Rates = {name: [] for name in names}
    for round_ in range(rounds):
        for name in names if round_ % 2 == 0 else reversed(names):
            found[name].append(once(name))
    return found


def rate(arm: peers.Arm, seconds: float) -> float:
    """Simulations per CPU-second: root visits, of which every simulation leaves one."""
    began, visits = time.process_time(), 0
    while time.process_time() - began < seconds or not visits:
        visits += int(arm().sum())
    return visits / (time.process_time() - began)


def measured(arms: Arms, seconds: float, rounds: int) -> tuple[Rates, dict[str, np.ndarray]]:
    """(rates, root visit counts) of the arms that are there."""
    able = {name: arm for name, arm in arms.items() if not isinstance(arm, str)}
    counts = {name: arm() for name, arm in able.items()}
    return in_turns(list(able), rounds, lambda name: rate(able[name], seconds)), counts


# ------------------------------------------------------------------------------------------------ tables


def ratio(rates: Rates, one: str, other: str) -> float:
    """The median of the rounds' ratios."""
    return statistics.median(a / b for a, b in zip(rates[one], rates[other], strict=True))


def best(rates: Rates, names: Sequence[str]) -> str | None:
    """The one with the largest median, of those that are there."""
    able = [name for name in names if name in rates]
    return max(able, key=lambda name: statistics.median(rates[name]), default=None)


def table(title: str, arms: Mapping[str, Any], rates: Rates, others: Sequence[str], notes: Mapping[str, str]) -> None:
    """One line per arm: median, range, how many times each of `others`, and a note; `notes[""]` is their head."""
    others = [name for name in others if name in rates]
    heads = "".join(f"{f'x {name}':>20}" for name in others)
    print(f"\n{title:36}{'median':>12}{'range':>24}{heads}{notes.get('', '')}")
    for name, arm in arms.items():
        if isinstance(arm, str):
            print(f"{name:36}{arm}")
            continue
        spread = f"{min(rates[name]):,.0f} - {max(rates[name]):,.0f}"
        cells = "".join(f"{ratio(rates, name, other):20.2f}" for other in others)
        print(f"{name:36}{statistics.median(rates[name]):12,.0f}{spread:>24}{cells}{notes.get(name, '')}")


def target(what: str, found: float, limit: float, *, at_most: bool = False) -> None:
    """Prints whether a target is reached."""
    met = found <= limit if at_most else found >= limit
    sign = "<=" if at_most else ">="
    print(f"  {what}: {found:,.3g}, target {sign} {limit:,g}: {'met' if met else 'MISSED'}")


def against(rates: Rates, ones: Sequence[str], others: Sequence[str], least: float) -> None:
    """A target for the best of `ones` beside the best of `others`; nothing where either is absent."""
    one, other = best(rates, ones), best(rates, others)
    if one is not None and other is not None:
        target(f"{one} / {other}", ratio(rates, one, other), least)


# ------------------------------------------------------------------------------------------------ our sides


class Asked:
    """`UniformEvaluator` as any evaluator: a search asks it wave by wave."""

    def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        return UniformEvaluator().evaluate(positions)


class Metered:
    """A network's evaluator that keeps account of CPU-seconds: its own with the network's, and the network's alone."""

    def __init__(self, evaluator: NetworkEvaluator) -> None:
        self.evaluator = evaluator
        self.inside = self.network = 0.0
        self.shares: list[tuple[float, float]] = []
        self._run = evaluator._runtime.run
        evaluator._runtime.run = self._timed  # type: ignore[method-assign]

    def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        began = time.process_time()
        answer = self.evaluator.evaluate(positions)
        self.inside += time.process_time() - began
        return answer

    def _timed(self, observations: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        began = time.process_time()
        answer = self._run(observations)
        self.network += time.process_time() - began
        return answer

    def arm(self, search: peers.Arm) -> peers.Arm:
        """`search`, noting for each call the shares of its CPU time outside the evaluator and outside the network."""

        def once() -> np.ndarray:
            self.inside = self.network = 0.0
            began = time.process_time()
            visits = search()
            total = time.process_time() - began
            self.shares.append((1 - self.inside / total, 1 - self.network / total))
            return visits

        return once

    def chunk(self, play: Callable[[], Chunk]) -> tuple[Chunk, float, tuple[float, float]]:
        """(what was played, its CPU-seconds, the two shares of them)."""
        self.inside = self.network = 0.0
        began = time.process_time()
        chunk = play()
        total = time.process_time() - began
        return chunk, total, (1 - self.inside / total, 1 - self.network / total)

    @property
    def share(self) -> tuple[float, float]:
        """The medians over all calls but the first, in which kernels are compiled."""
        search, ours = zip(*self.shares[1:], strict=True)
        return statistics.median(search), statistics.median(ours)


def our_arm(
    game: Any, config: SearchConfig, evaluator: Evaluator, slots: int, positions: peers.Moves | None = None
) -> peers.Arm:
    """Searches from the empty board, or from `positions` of an array game."""
    search = Search(game, config, slots=slots, generator=np.random.default_rng(0), explore=config.algorithm == "gumbel")
    states, to_play = (None, None) if positions is None else stepped(game, positions)

    def once() -> np.ndarray:
        search.place(np.arange(slots), states, to_play)
        return run(search, evaluator).visits

    return once


def stepped(game: Any, positions: peers.Moves) -> tuple[np.ndarray, np.ndarray]:
    """(states, who is to move) of an array game after these moves."""
    states, to_play = game.initial(len(positions)), np.zeros(len(positions), np.int8)
    for i, moves in enumerate(positions):
        for move in moves:
            states[i : i + 1], _, _, to_play[i : i + 1] = game.step(states[i : i + 1], np.array([move]))
    return states, to_play


def puct(budget: int, **fields: Any) -> SearchConfig:
    return SearchConfig(algorithm="puct", simulations=budget - 1, c_puct=peers.C_PUCT, **fields)


def random_openings(size: int) -> list[list[int]]:
    """0 to 6 random moves each, the same ones each time."""
    generator = np.random.default_rng(0)
    return [generator.integers(0, 7, generator.integers(0, OPENING + 1)).tolist() for _ in range(size)]


def uncanonical() -> Any:
    """The array game whose positions a network is shown as they are."""
    game: Any = make_batch_game("connect_four")
    game.canonical = None
    return game


def default_network() -> PolicyValueNet:
    return policy_value_net(PolicyValueConfig(), (2, 6, 7), 7, seed=0)


# ------------------------------------------------------------------------------------------------ the three parts


def tree(budget: int, seconds: float, rounds: int) -> None:
    """Uniform priors. Raises SystemExit where two sides do not visit the same."""
    batch, plain = make_batch_game("connect_four"), make_game("connect_four")
    numpy = puct(budget, kernels="numpy")
    numba = puct(budget, kernels="numba")
    boards: list[list[int]] = [[] for _ in range(BATCH)]
    makers: dict[str, Callable[[], peers.Arm]] = {
        FUSED: lambda: our_arm(compiled_game(batch), numba, UniformEvaluator(), BATCH),
        WAVES: lambda: our_arm(compiled_game(batch), numba, Asked(), 8 * BATCH),
        NUMPY: lambda: our_arm(batch, numpy, Asked(), 8 * BATCH),
        PURE: lambda: our_arm(plain, numba, Asked(), BATCH),
        PURE_NUMPY: lambda: our_arm(plain, numpy, Asked(), BATCH),
        OPENSPIEL: lambda: peers.openspiel_arm(boards[:1], budget),
        MCTX: lambda: peers.mctx_arm(boards, budget),
    }
    arms = prepared(makers)
    rates, counts = measured(arms, seconds, rounds)
    table(f"uniform, {budget} per move", arms, rates, [OPENSPIEL, MCTX], {})
    print(f"  root visits on every side: {same_visits(counts)}")
    against(rates, [FUSED], [OPENSPIEL], 20)
    against(rates, [WAVES], [OPENSPIEL], 20)
    against(rates, [NUMPY], [OPENSPIEL], 4)
    for name in (PURE, PURE_NUMPY):
        if name in rates:
            target(name, statistics.median(rates[name]), 200_000)


def same_visits(counts: Mapping[str, np.ndarray]) -> list[int]:
    """The root visit counts, sorted, of all positions of all sides. Raises SystemExit where they are not all alike."""
    found = {name: np.unique(np.sort(visits, axis=1), axis=0).tolist() for name, visits in counts.items()}
    first = next(iter(found.values()))
    if len(first) != 1 or any(rows != first for rows in found.values()):
        raise SystemExit(f"the sides do not search the same; sorted root visits by side: {found}")
    return first[0]


def network(budget: int, seconds: float, rounds: int) -> None:
    """The default network, per runtime and precision."""
    net, positions, game = default_network(), random_openings(BATCH), search_game(GameConfig(name="connect_four"))
    meters: dict[str, Metered] = {}

    def ours(name: str, config: SearchConfig, **runtime: Any) -> peers.Arm:
        meters[name] = meter = Metered(NetworkEvaluator(net, cache=0, **runtime))
        return meter.arm(our_arm(game, config, meter, BATCH, positions))

    makers: dict[str, Callable[[], peers.Arm]] = {}
    for runtime, precision in ARMS:
        name = f"ours, {runtime} {precision}"
        makers[name] = partial(ours, name, puct(budget), runtime=runtime, precision=precision)
    makers[GUMBEL] = partial(ours, GUMBEL, SearchConfig(algorithm="gumbel", simulations=budget - 1))
    makers[OPENSPIEL] = lambda: peers.openspiel_arm(positions[:SOME], budget, net)
    makers[MCTX] = lambda: peers.mctx_arm(positions, budget, net)
    makers[MCTX_GUMBEL] = lambda: peers.mctx_arm(positions, budget, net, gumbel=True)
    arms = prepared(makers)
    rates, counts = measured(arms, seconds, rounds)
    table(f"network, {budget} per move, B={BATCH}", arms, rates, PEERS, shares(meters))
    for peer in (name for name in (OPENSPIEL, MCTX) if name in counts):
        print(f"  root visits as those of {peer}: {agreement(net, positions, budget, counts[peer])}")
    like = [name for name in meters if name != GUMBEL]
    fp32, mctx = [name for name in like if name.endswith("fp32")], [MCTX, MCTX_GUMBEL]
    for ones, others, least in ((like, [OPENSPIEL], 8), (like, mctx, 1.5), (fp32, [OPENSPIEL], 4), (fp32, mctx, 0.95)):
        against(rates, ones, others, least)
    for fastest in filter(None, [best(rates, like), best(rates, fp32)]):
        target(f"{fastest}, share of the search", meters[fastest].share[0], 0.1, at_most=True)


def shares(meters: Mapping[str, Metered]) -> dict[str, str]:
    """Of CPU time, as columns of a table."""
    found = {name: "".join(f"{share:8.1%}" for share in meter.share) for name, meter in meters.items()}
    return {"": f"{'search':>8}{'ours':>8}", **found}


def agreement(net: PolicyValueNet, positions: peers.Moves, budget: int, visits: np.ndarray) -> str:
    """In how many positions we visit exactly as often as a peer did, each side in fp32 and at its own batch size."""
    evaluator = NetworkEvaluator(net, runtime="torch", precision="fp32", cache=0)
    ours = our_arm(uncanonical(), puct(budget), evaluator, len(visits), positions[: len(visits)])()
    return f"{int((ours == visits).all(axis=1).sum())} of {len(visits)}"


def games(number: int, rounds: int) -> None:
    """Self-play from random openings, each game to its end, a chunk of `number` games for each rate."""
    net, game = default_network(), search_game(GameConfig(name="connect_four"))
    acting, seeds = ActingConfig(slots=BATCH), count()
    meters = {"cache": Metered(NetworkEvaluator(net)), "no cache": Metered(NetworkEvaluator(net, cache=0))}
    spent: dict[str, list[tuple[float, ...]]] = {}

    def once(name: str) -> float:
        simulations, cache = name.removeprefix("Gumbel ").split(", ")
        meter, config, seed = meters[cache], SearchConfig(simulations=int(simulations)), (0, next(seeds))
        evaluator = meter.evaluator
        evaluator.clear()
        hits, evaluated = evaluator.cache_hits, evaluator.evaluated
        chunk, seconds, parts = meter.chunk(lambda: play_chunk(game, meter, config, acting, number, seed))
        hits, evaluated = evaluator.cache_hits - hits, evaluator.evaluated - evaluated
        speed = chunk.counts["simulations"] / seconds
        spent.setdefault(name, []).append((speed, hits / (hits + evaluated), float(chunk.lengths.mean()), *parts))
        return 3600 * number / seconds

    names = [f"Gumbel {simulations}, {cache}" for simulations in (16, 32) for cache in meters]
    once(names[0])  # compiles
    spent.clear()
    rates = in_turns(names, rounds, once)
    means = {name: np.mean(rows, axis=0) for name, rows in spent.items()}
    lines = {
        name: f"{speed:14,.0f}{hits:8.1%}{moves:8.1f}{search:8.1%}{ours:8.1%}"
        for name, (speed, hits, moves, search, ours) in means.items()
    }
    chosen = meters["cache"].evaluator
    title = f"games per CPU-hour, {chosen.runtime} {chosen.precision}"
    head = f"{'simulations/s':>14}{'hits':>8}{'moves':>8}{'search':>8}{'ours':>8}"
    table(title, dict.fromkeys(names), rates, [], {"": head, **lines})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=1.0, help="CPU time per side and round (default: 1)")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only", choices=["tree", "network", "games"])
    parser.add_argument(
        "--budgets", type=int, nargs="+", default=[100, 800], help="of `tree`; `network` takes the first"
    )
    parser.add_argument("--games", type=int, default=128, help="per round and row of `games` (default: 128)")
    options = parser.parse_args()
    peers.one_thread_of_xla()
    torch.set_num_threads(1)
    print(f"one process, one thread, pinned to core {pinned()}; simulations per CPU-second unless it says otherwise")
    if options.only in (None, "tree"):
        for budget in options.budgets:
            tree(budget, options.seconds, options.rounds)
    if options.only in (None, "network"):
        network(options.budgets[0], options.seconds, options.rounds)
    if options.only in (None, "games"):
        games(options.games, options.rounds)


if __name__ == "__main__":
    main()
