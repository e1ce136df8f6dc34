"""Would these tests see a mistake? Each mutant is the source of `reference.py` with one error put in; a short battery
of searches must refuse it, and must accept the source as it is."""

from __future__ import annotations

import inspect
from functools import cache, partial
from typing import Any

import numpy as np
import pytest

from tests.mutants import compiled
from tests.search.test_puct import assert_tree, positions
from tests.search.textbook import Ledges, Textbook, Wheel, Whimsical, whims
from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.tictactoe import TicTacToe, TicTacToeBatch
from troupe.search import reference
from troupe.search.config import SearchConfig
from troupe.search.search import Search
from troupe.search.tree import CHANCE

SOURCE = inspect.getsource(reference)
JUDGE = whims(21, reach=0.8)

MUTANTS = {
    # values on their way up
    "sign never changes": ("player == mover, g, -g", "player == mover, g, g"),
    "sign always changes": ("player == mover, g, -g", "player == mover, -g, -g"),
    "sign the other way round": ("player == mover", "player != mover"),
    "sign of the reward": ("g = tree.reward[at] + g", "g = -tree.reward[at] + g"),
    "reward left out": ("g = tree.reward[at] + g", "g = g"),
    "reward of the parent": ("g = tree.reward[at] + g", "g = tree.reward[above] + g"),
    "reward gets the sign": (
        "g = tree.reward[at] + g\n",
        "g = np.where(player == mover, 1, -1) * tree.reward[at] + g\n",
    ),
    "reward is discounted": ("g = tree.reward[at] + g", "g = rule.discount * tree.reward[at] + g"),
    "discount left out": ("CHANCE, 1.0, rule.discount) * g", "CHANCE, 1.0, 1.0) * g"),
    "discount into chance": ("CHANCE, 1.0, rule.discount) * g", "CHANCE, rule.discount, rule.discount) * g"),
    "discount into chance alone": ("CHANCE, 1.0, rule.discount) * g", "CHANCE, rule.discount, 1.0) * g"),
    "discount out of chance": ("tree.kind[at] == CHANCE, 1.0", "tree.kind[above] == CHANCE, 1.0"),
    "discount of one alone": ("if rule.discount < 1.0:", "if rule.discount >= 1.0:"),
    "returns subtracted": ("total[through] += g", "total[through] -= g"),
    "returns replaced": ("total[through] += g", "total[through] = g"),
    "edge counted twice": ("visits[through] += 1", "visits[through] += 2"),
    "node not counted": ("tree.node_visits[above] += 1", "tree.node_visits[above] += 0"),
    "leaf not counted": ("tree.node_visits[at] += 1", "tree.node_visits[at] += 0"),
    "the first node is left out": ("inside = n > 0", "inside = n > 1"),
    "the player stays the leaf's": ("n, at, player = p, above, mover", "n, at = p, above"),
    "evaluation not kept": ("tree.value[at] = got[part]", "tree.value[at] = 0.0"),
    "evaluation of another": ("got[valued] = values[rows[valued]]", "got[valued] = values[rows[valued][::-1]]"),
    "priors of another": ("masked[rows[part]]", "masked[rows[part][::-1]]"),
    "illegal is legal": ("np.where(legal, priors, -np.inf)", "np.where(legal, priors, 0.0)"),
    "visits under way: virtual loss stays": ("tree.inflight[above, e] -= 1", "tree.inflight[above, e] -= 0"),
    "range: least is greatest": ("np.minimum(tree.low[s], mean)", "np.maximum(tree.low[s], mean)"),
    "range: greatest forgets": ("np.maximum(tree.high[s], mean)", "mean"),
    "range: sums, not means": ("total[through] / visits[through]", "total[through]"),
    # PUCT
    "least score": (
        "[:, None] * tree.prior[at]) / (1 + n)).argmax(1)",
        "[:, None] * tree.prior[at]) / (1 + n)).argmin(1)",
    ),
    "N without the own evaluation": ("here = tree.node_visits[at]\n", "here = tree.node_visits[at] - 1\n"),
    "N is not rooted": ("np.sqrt(here)", "here"),
    "1 + n without 1": ("tree.prior[at]) / (1 + n)).argmax", "tree.prior[at]) / np.maximum(n, 1)).argmax"),
    "no prior": (
        "(rule.c_puct * np.sqrt(here))[:, None] * tree.prior[at]",
        "(rule.c_puct * np.sqrt(here))[:, None] * (tree.prior[at] > -1)",
    ),
    "no constant": ("rule.c_puct * np.sqrt(here)", "np.sqrt(here)"),
    "Q subtracted": ("return (q + ((rule.c_puct", "return (-q + ((rule.c_puct"),
    "Q is a sum": ("return n, total / np.maximum(n, 1)", "return n, total"),
    "parent's value plus the reduction": ("mean - rule.fpu_reduction", "mean + rule.fpu_reduction"),
    "parent's value without its evaluation": (
        "(own * tree.value[at] + _sum(tree.total[at]))",
        "_sum(tree.total[at])",
    ),
    "one evaluation for all": ("(own * tree.value[at] +", "(tree.value[at] +"),
    "unvisited counts as 1": ("q = np.where(n == 0, 0.0, q)", "q = np.where(n == 0, 1.0, q)"),
    "Q not normalised": (
        "        q = _normalised(tree, rule, s, q)\n    if rule.fpu",
        "        q = q * 1.0\n    if rule.fpu",
    ),
    "normalised by the greatest alone": (
        "span = np.where(known, high - low, 1.0)",
        "span = np.where(known, high, 1.0)",
    ),
    "normalised from above": ("(q - np.where(known, low, 0.0)) / span", "(np.where(known, high, 0.0) - q) / span"),
    "visits under way: virtual win": (
        "total + flying * np.where(np.isfinite(low), low, 0.0)[:, None]",
        "total - flying * np.where(np.isfinite(low), low, 0.0)[:, None]",
    ),
    "visits under way: visits under way not counted": ("n = n + flying", "n = n + 0 * flying"),
    "visits under way: visits under way not in N": ("here = here + tree.inflight[at].sum(1)", "here = here + 0"),
    "visits under way: nothing is under way": ("tree.inflight[at, edges] += 1", "tree.inflight[at, edges] += 0"),
    # Gumbel
    "visits weigh twice": ("- n / (1 + n.sum(1))[:, None])", "- 2 * n / (1 + n.sum(1))[:, None])"),
    "visits without 1": ("- n / (1 + n.sum(1))[:, None])", "- n / np.maximum(n.sum(1), 1)[:, None])"),
    "policy not improved": ("prior * exp(np.where(illegal, 0.0, sigma - top[:, None]))", "prior"),
    "policy made worse": (
        "exp(np.where(illegal, 0.0, sigma - top[:, None]))",
        "(1 / exp(np.where(illegal, 0.0, sigma - top[:, None])))",
    ),
    "policy without priors": ("np.where(illegal, 0.0, prior * exp(", "np.where(illegal, 0.0, exp("),
    "policy not normalised": ("weight / _sum(weight)[:, None]", "weight"),
    "halving: one visit off": ("(n == considered[s][:, None])", "(n == considered[s][:, None] + 1)"),
    "halving: everybody": ("eligible = (n == considered[s][:, None]) & (prior > 0)", "eligible = prior > 0"),
    "halving: without Q": ("root_scores[s] + sigma, -np.inf", "root_scores[s] + 0 * sigma, -np.inf"),
    "halving: without priors": ("np.where(eligible, root_scores[s] + sigma", "np.where(eligible, sigma"),
    "halving: Q subtracted": ("root_scores[s] + sigma, -np.inf", "root_scores[s] - sigma, -np.inf"),
    "halving inside the tree": ("root = p == 0", "root = p >= 0"),
    "halving nowhere": ("root = p == 0", "root = p < 0"),
    "mixed value: without the evaluation": ("(value + sum_n * weighted) / (sum_n + 1)", "weighted"),
    "mixed value: one too few": ("(value + sum_n * weighted) / (sum_n + 1)", "(value + weighted) / 2"),
    "mixed value: not by priors": ("weight = np.where(visited, prior, 0.0)", "weight = np.where(visited, 1.0, 0.0)"),
    "mixed value: of visited ones too": (
        "completed = np.where(visited, q, mixed[:, None])",
        "completed = mixed[:, None] + 0 * q",
    ),
    "completed with 0": ("completed = np.where(visited, q, mixed[:, None])", "completed = np.where(visited, q, 0.0)"),
    "Q from -1..1 doubled": ("(completed + 1.0) * 0.5", "(completed + 1.0)"),
    "scale without visits": (
        "(rule.c_visit + n.max(1)) * rule.c_scale",
        "rule.c_visit * rule.c_scale * np.ones(len(n))",
    ),
    "scale by all visits": ("(rule.c_visit + n.max(1))", "(rule.c_visit + n.sum(1))"),
    "scale without its factor": ("(rule.c_visit + n.max(1)) * rule.c_scale", "(rule.c_visit + n.max(1))"),
    # chance
    "chance: sign of the deficit": ("* tree.prior[at] - n).argmax(1)", "* tree.prior[at] - n).argmin(1)"),
    "chance: likeliest always": ("* tree.prior[at] - n).argmax(1)", "* tree.prior[at]).argmax(1)"),
    "chance: least seen": (
        "((n.sum(1) + 1)[:, None] * tree.prior[at] - n)",
        "np.where(np.isfinite(tree.prior[at]), -n, -np.inf)",
    ),
    "chance: not what is under way": ("n = tree.visits[at] + tree.inflight[at]\n", "n = tree.visits[at]\n"),
    "chance is a decision": ("chance = tree.kind[at] == CHANCE", "chance = tree.kind[at] < 0"),
    # the walk
    "a leaf is not fresh": ("fresh[active[new]] = True", "fresh[active[new]] = False"),
    "the edge is lost": ("tree.edge[at] = edges", "tree.edge[at] = 0"),
    "it stops after a step": ("active = active[_GOES_ON[tree.kind[top + children]]]", "active = active[:0]"),
    "steps: of another": ("Steps(made, slots[made],", "Steps(made, slots[made][::-1],"),
    # what the world said
    "the end goes on": (
        "tree.kind[slots[done], nodes[done]] = TERMINAL",
        "tree.kind[slots[done], nodes[done]] = PENDING",
    ),
    "no reward is noted": ("tree.reward[slots, nodes] = reward", "tree.reward[slots, nodes] = 0.0"),
    "nobody moves": ("tree.to_play[slots, nodes] = to_play", "tree.to_play[slots, nodes] = 0"),
    "legal is illegal": ("np.where(legal, 0.0, -np.inf)", "np.where(legal, -np.inf, 0.0)"),
    "the end opens": ("opens = fresh & (tree.kind[slots, nodes] == PENDING)", "opens = fresh.copy()"),
    "rows: one off": ("opens.cumsum() - 1, -1)", "opens.cumsum() - 2, -1)"),
}


def searched(kernels: Any, game: Any, placed: list[tuple[Any, int]], evaluator: Any, **options: Any) -> Search:
    config = SearchConfig(kernels="numpy", **options)
    search = Search(game, config, slots=len(placed), generator=np.random.default_rng(0), explore=False)
    search._kernels = kernels
    search.place(np.arange(len(placed)), [state for state, _ in placed], np.array([player for _, player in placed]))
    most = 40 * config.simulations  # a mutant may go round for ever
    while (wave := search.select()) is not None:
        search.update(wave, *evaluator.evaluate(wave.positions))
        most -= 1
        assert most
    return search


@cache
def starts(name: str) -> list[tuple[Any, int]]:
    if name == "wheel":
        return [((0, 0, False, 0), 0), ((3, 0, False, 1), 1)]
    return positions({"board": TicTacToe(), "ledges": Ledges()}[name], np.random.default_rng(8), 3, 3)


@cache
def expected(name: str, algorithm: str, fpu: str) -> list[Any]:
    """The textbook's trees."""
    game = {"board": TicTacToe(), "ledges": Ledges(), "wheel": Wheel()}[name]
    found = []
    for state, player in starts(name):
        book = Textbook(game, JUDGE, 0.9, 2.0, 0.3 if fpu == "parent" else None, c_visit=10.0, c_scale=0.2)
        found.append(book.puct(state, player, 50) if algorithm == "puct" else book.gumbel(state, player, 40, 5))
    return found


def check_textbook(kernels: Any, name: str, algorithm: str, fpu: str) -> None:
    game = {"board": TicTacToeBatch(), "ledges": Ledges(), "wheel": Wheel()}[name]
    options: dict[str, Any] = {"algorithm": algorithm, "discount": 0.9}
    if algorithm == "puct":
        options |= {"simulations": 50, "c_puct": 2.0, "fpu": fpu, "fpu_reduction": 0.3}
    else:
        options |= {"simulations": 40, "considered": 5, "c_visit": 10.0, "c_scale": 0.2}
    search = searched(kernels, game, starts(name), Whimsical(JUDGE), **options)
    for slot, root in enumerate(expected(name, algorithm, fpu)):
        assert assert_tree(search, slot, root) == search.tree.size[slot]


def check_chance(kernels: Any) -> None:
    """Outcomes as often as they should come, and rewards through them with the right sign."""
    for leaves in (1, 4):
        search = searched(
            kernels,
            Wheel(),
            [(Wheel().initial(), 0)],
            Whimsical(JUDGE),
            algorithm="puct",
            simulations=90,
            leaves=leaves,
        )
        tree = search.tree
        slots, nodes = np.nonzero(tree.kind == CHANCE)
        n = tree.visits[slots, nodes]
        assert len(slots) > 5
        assert np.abs(n - n.sum(1, keepdims=True) * np.maximum(tree.prior[slots, nodes], 0)).max() <= 1 + 1e-9
        assert not tree.inflight.any()
    # the last bet: a stake of 1 pays -0.1, 0 or 0.1 with odds 0.5, 0.3, 0.2: -0.03; none pays 0.01
    last = searched(kernels, Wheel(), [((5, 0, False, 1), 1)], UniformEvaluator(), algorithm="puct", simulations=400)
    assert last.roots().q[0] == pytest.approx([0.01, -0.03], abs=0.004)


def check_virtual_losses(kernels: Any) -> None:
    """Waves of four by hand, and twelve waves told by a plain loop."""
    search = searched(
        kernels, TicTacToeBatch(), [((0, 0), 0)], UniformEvaluator(), algorithm="puct", simulations=10, leaves=4
    )
    assert search.roots().visits[0].tolist() == [2, 1, 1, 1, 1, 1, 1, 1, 1]
    # Ten visits: eight cells in two waves, then the ninth and the first again.
    assert not search.tree.inflight.any()
    for fpu, leaves in (("zero", 5), ("parent", 5), ("parent", 20)):
        config = {"algorithm": "puct", "fpu": fpu, "fpu_reduction": 0.3, "leaves": leaves, "simulations": 12 * leaves}
        search = searched(kernels, TicTacToeBatch(), starts("board"), Whimsical(JUDGE), **config)
        for slot in range(3):
            assert search.tree.visits[slot, 0].tolist() == waves_by_hand(slot, fpu == "parent", leaves)
    search = searched(
        kernels, Ledges(4, 2), [((3, 0), 0)], Whimsical(JUDGE), algorithm="puct", simulations=9, leaves=3, fpu="parent"
    )
    assert not search.tree.inflight.any() and search.tree.visits[0, 0].sum() == 9


@cache
def waves_by_hand(slot: int, parent: bool, leaves: int) -> list[int]:
    """Root counts of PUCT after twelve waves: a visit under way is a visit that has lost."""
    game, (state, _) = TicTacToe(), starts("board")[slot]
    nodes: dict[tuple[int, ...], dict[str, Any]] = {}

    def descend() -> tuple[list[int], float | None]:
        """A path of actions, and its value if the game ends there; None where it is to be evaluated."""
        path: list[int] = []
        at = state
        while True:
            node = nodes.get(tuple(path))
            if node is None or not node["open"]:
                return path, None
            n = {a: node["n"][a] + node["flying"][a] for a in node["p"]}
            whole = node["own"] + sum(n.values())
            done = node["own"] + sum(node["n"].values())
            first = (node["own"] * node["v"] + sum(node["w"].values())) / done - 0.3 if parent else 0.0
            score = {
                a: ((node["w"][a] - node["flying"][a]) / n[a] if n[a] else first) + 1.25 * whole**0.5 * p / (1 + n[a])
                for a, p in node["p"].items()
            }
            action = max(score, key=score.__getitem__)
            node["flying"][action] += 1
            path.append(action)
            at, reward, over, _ = game.step(at, action)
            if over:
                return path, -reward  # to the player who would be next

    def settle(path: list[int], value: float, ended: bool) -> None:
        if not ended:
            nodes[tuple(path)]["own"] += 1
        for depth in range(len(path) - 1, -1, -1):
            value, node = -value, nodes[tuple(path[:depth])]
            node["n"][path[depth]] += 1
            node["w"][path[depth]] += value
            node["flying"][path[depth]] -= 1

    def evaluate(path: list[int]) -> float:
        at = state
        for action in path:
            at = game.step(at, action)[0]
        legal = game.legal(at)
        priors, value = JUDGE(at, legal)
        zero: dict[str, Any] = {key: dict.fromkeys(legal, 0) for key in ("n", "w", "flying")}
        nodes.setdefault(
            tuple(path), {"open": True, "own": 0, "v": value, "p": dict(zip(legal, priors, strict=True)), **zero}
        )
        return value

    settle([], evaluate([]), False)
    for _ in range(12):
        wave = [descend() for _ in range(leaves)]
        for path, value in wave:
            settle(path, evaluate(path) if value is None else value, value is not None)
    root = nodes[()]["n"]
    return [root.get(action, 0) for action in range(9)]


def battery(kernels: Any, first: str = "") -> None:
    """All checks; the order is for speed alone."""
    checks = [
        ("chance", partial(check_chance, kernels)),
        ("visits under way", partial(check_virtual_losses, kernels)),
        *(
            (f"{name} {algorithm} {fpu}", partial(check_textbook, kernels, name, algorithm, fpu))
            for algorithm, fpu in (("gumbel", "zero"), ("puct", "parent"), ("puct", "zero"))
            for name in ("ledges", "board", "wheel")
        ),
    ]
    for _, check in sorted(checks[::-1], key=lambda pair: pair[0] != first):
        check()


def test_the_battery_accepts_the_source_as_it_is() -> None:
    battery(compiled(SOURCE))


def test_the_battery_accepts_the_compiled_kernels() -> None:
    pytest.importorskip("numba", reason="the compiled kernels need numba")
    from troupe.search import accelerated

    battery(accelerated)


@pytest.mark.parametrize("name", MUTANTS)
def test_the_battery_refuses(name: str) -> None:
    right, wrong = MUTANTS[name]
    assert SOURCE.count(right) == 1, f"the text {right!r} stands {SOURCE.count(right)} times in reference.py, not once"
    mutated = SOURCE.replace(right, wrong)
    assert mutated != SOURCE
    with pytest.raises((AssertionError, IndexError, KeyError, TypeError, ValueError)), np.errstate(all="ignore"):
        battery(compiled(mutated), name.split(":")[0])
