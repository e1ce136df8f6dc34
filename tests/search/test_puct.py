from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.search.textbook import Ledges, Node, Textbook, Whimsical, whims
from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.tictactoe import TicTacToe, TicTacToeBatch
from troupe.search.config import SearchConfig
from troupe.search.puct import dirichlet_mixed, temperature_of, visit_action, visit_policy
from troupe.search.search import Search, run

KERNELS = ["numpy", "numba"]


def positions(game: Any, generator: np.random.Generator, count: int, most: int) -> list[tuple[Any, int]]:
    """Unfinished positions after up to `most` random moves: (state, player to move)."""
    found: list[tuple[Any, int]] = []
    while len(found) < count:
        state, player, done = game.initial(), 0, False
        for _ in range(int(generator.integers(most + 1))):
            if not done:
                state, _, done, player = game.step(state, generator.choice(game.legal(state)))
        if not done:
            found.append((state, player))
    return found


def searched(game: Any, config: SearchConfig, placed: list[tuple[Any, int]], evaluator: Any) -> tuple[Search, Any]:
    search = Search(game, config, slots=len(placed), generator=np.random.default_rng(0), explore=False)
    states, players = [state for state, _ in placed], np.array([player for _, player in placed])
    search.place(np.arange(len(placed)), states, players)
    return search, run(search, evaluator)


def assert_tree(search: Search, slot: int, node: Node, number: int = 0) -> int:
    """Every node of the textbook's tree stands in the search's, with its counts and returns; how many there are."""
    tree = search.tree
    assert tree.node_visits[slot, number] == node.count
    assert tree.to_play[slot, number] == node.player
    seen = 1
    for action, child in node.children.items():
        assert tree.visits[slot, number, action] == node.visits[action]
        assert tree.total[slot, number, action] == pytest.approx(node.returns[action], abs=1e-12)
        seen += assert_tree(search, slot, child, int(tree.child[slot, number, action]))
    return seen


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize("reduction", [None, 0.25])
@pytest.mark.parametrize(
    ("plain", "batch", "simulations", "discount"),
    [
        (ConnectFour(), ConnectFourBatch(), 100, 1.0),
        (TicTacToe(), TicTacToeBatch(), 150, 0.97),
        (TicTacToe(), TicTacToe(), 150, 1.0),
        (Ledges(), Ledges(), 200, 0.9),
    ],
    ids=["connect four", "tic-tac-toe", "tic-tac-toe, plain", "ledges"],
)
def test_the_whole_tree_is_the_textbooks(
    plain: Any, batch: Any, simulations: int, discount: float, reduction: float | None, kernels: Any
) -> None:
    if kernels == "numba":
        pytest.importorskip("numba", reason="the compiled kernels need numba")
    generator = np.random.default_rng(simulations)
    placed = positions(plain, generator, 6, 12 if isinstance(plain, ConnectFour) else 4)
    fpu: dict[str, Any] = {} if reduction is None else {"fpu": "parent", "fpu_reduction": reduction}
    config = SearchConfig(
        algorithm="puct", simulations=simulations, discount=discount, c_puct=1.5, kernels=kernels, **fpu
    )
    judge = whims(7, reach=0.8)
    search, roots = searched(batch, config, placed, Whimsical(judge))
    for slot, (state, player) in enumerate(placed):
        book = Textbook(plain, judge, discount=discount, c_puct=1.5, fpu_reduction=reduction)
        root = book.puct(state, player, simulations)
        assert assert_tree(search, slot, root) == search.tree.size[slot]
        assert sum(root.visits.values()) == simulations == roots.visits[slot].sum()
        mean = (root.value + sum(root.returns.values())) / root.count
        assert roots.value[slot] == pytest.approx(mean, abs=1e-12)  # as the player to move at the root sees it


@pytest.mark.oracle
@pytest.mark.parametrize(
    ("name", "batch", "most"), [("connect_four", ConnectFourBatch(), 20), ("tic_tac_toe", TicTacToeBatch(), 5)]
)
def test_visit_counts_are_those_of_openspiel(name: str, batch: Any, most: int) -> None:
    """OpenSpiel counts the root's evaluation as one of its simulations, so its 400 are 399 here."""
    pyspiel = pytest.importorskip("pyspiel", reason="needs open_spiel")
    from open_spiel.python.algorithms import mcts

    class Unshuffled(np.random.RandomState):
        def shuffle(self, x: Any) -> None:
            """OpenSpiel shuffles actions to break ties; the first of equals wins here."""

    class Nothing(mcts.Evaluator):  # type: ignore[misc]
        def evaluate(self, state: Any) -> np.ndarray:
            return np.zeros(2)

        def prior(self, state: Any) -> list[tuple[int, float]]:
            legal = state.legal_actions()
            return [(action, 1 / len(legal)) for action in legal]

    def puct(child: Any, parents: int, c: float) -> float:
        """OpenSpiel's own drops the exploration term for a child that ends the game, which AlphaZero does not."""
        q = child.explore_count and child.total_reward / child.explore_count
        return q + c * np.sqrt(parents) * child.prior / (1 + child.explore_count)

    game, plain = pyspiel.load_game(name), ConnectFour() if name == "connect_four" else TicTacToe()
    generator = np.random.default_rng(4)
    histories = [history(plain, generator, most) for _ in range(6)]
    placed = [(follow(plain, moves), len(moves) % 2) for moves in histories]
    config = SearchConfig(algorithm="puct", simulations=399, c_puct=1.25)
    _, roots = searched(batch, config, placed, UniformEvaluator())
    for moves, visits in zip(histories, roots.visits, strict=True):
        bot = mcts.MCTSBot(game, 1.25, 400, Nothing(), solve=False, random_state=Unshuffled(), child_selection_fn=puct)
        state = game.new_initial_state()
        for move in moves:
            state.apply_action(move)
        found = {child.action: child.explore_count for child in bot.mcts_search(state).children}
        assert found == {action: visits[action] for action in state.legal_actions()}


def history(game: Any, generator: np.random.Generator, most: int) -> list[int]:
    """Random moves that do not end the game."""
    while True:
        moves: list[int] = []
        state, done = game.initial(), False
        for _ in range(int(generator.integers(most + 1))):
            if not done:
                moves.append(int(generator.choice(game.legal(state))))
                state, _, done, _ = game.step(state, moves[-1])
        if not done:
            return moves


def follow(game: Any, moves: list[int]) -> Any:
    state = game.initial()
    for move in moves:
        state = game.step(state, move)[0]
    return state


# --- what the root does besides ---------------------------------------------------------------------------------


def test_noise_mixes_and_leaves_illegal_actions_alone() -> None:
    priors = np.array([[0.5, -np.inf, 0.3, 0.2], [-np.inf, 0.0, 1.0, -np.inf]])
    mixed = dirichlet_mixed(priors, 0.7, 0.25, np.random.default_rng(0))
    legal = np.isfinite(priors)
    assert (np.isneginf(mixed) == ~legal).all()
    assert np.where(legal, mixed, 0).sum(1) == pytest.approx([1, 1])
    assert (mixed[legal] >= 0.75 * priors[legal]).all()


def test_noise_has_the_moments_of_a_dirichlet() -> None:
    # Dirichlet(alpha) over k = 3: mean 1/3, variance (1/3)(2/3) / (3 alpha + 1); alpha = 0.5: 0.0889
    priors = np.tile([0.2, 0.5, 0.3], (20_000, 1))
    noise = dirichlet_mixed(priors, 0.5, 1.0, np.random.default_rng(1))
    assert noise.mean(0) == pytest.approx([1 / 3] * 3, abs=0.01)
    assert noise.var(0) == pytest.approx([2 / 9 / 2.5] * 3, abs=0.003)
    mixed = dirichlet_mixed(priors, 0.5, 0.25, np.random.default_rng(1))
    assert mixed == pytest.approx(0.75 * priors + 0.25 * noise)


def test_noise_of_a_row_does_not_depend_on_what_is_legal_in_another() -> None:
    first = np.array([[0.5, 0.5], [0.4, 0.6]])
    second = np.array([[-np.inf, 1.0], [0.4, 0.6]])
    one, other = (dirichlet_mixed(p, 1.0, 0.25, np.random.default_rng(3)) for p in (first, second))
    assert (one[1] == other[1]).all()


def test_temperature_schedule() -> None:
    moves = np.array([0, 3, 4, 90])
    assert temperature_of(SearchConfig(algorithm="puct", temperature=0.7), moves).tolist() == [0.7] * 4
    config = SearchConfig(algorithm="puct", temperature=1.0, temperature_moves=4, final_temperature=0.1)
    assert temperature_of(config, moves).tolist() == [1.0, 1.0, 0.1, 0.1]


def test_actions_are_drawn_from_the_sharpened_counts() -> None:
    # visits 1, 2, 0, 4 at temperature 1/2: squares 1, 4, 0, 16 of 21
    n = 40_000
    visits, draws = np.tile([1, 2, 0, 4], (n, 1)), np.random.default_rng(0).random(n)
    drawn = np.bincount(visit_action(visits, np.full(n, 0.5), draws), minlength=4) / n
    assert drawn == pytest.approx([1 / 21, 4 / 21, 0, 16 / 21], abs=0.01)
    assert (visit_action(visits, np.zeros(n), draws) == 3).all()
    assert visit_action(np.array([[2, 5, 5]]), np.zeros(1), np.zeros(1)).tolist() == [1]
    assert visit_action(np.array([[0, 3, 0]]), np.ones(1), np.array([0.999999])).tolist() == [1]
    # so cold that all but the most visited vanish
    assert (visit_action(visits[:500], np.full(500, 1e-3), draws[:500]) == 3).all()


def test_policy_is_the_share_of_visits() -> None:
    assert visit_policy(np.array([[1, 0, 3]])).tolist() == [[0.25, 0.0, 0.75]]
