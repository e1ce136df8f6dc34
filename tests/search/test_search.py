from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.search.textbook import Heaps, Ledges, Whimsical, whims
from troupe.engines.evaluator import OracleEvaluator, UniformEvaluator
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe, TicTacToeBatch
from troupe.errors import DataError
from troupe.search.config import SearchConfig
from troupe.search.search import Roots, Search, run
from troupe.search.tree import CHANCE, DECISION, PENDING, TERMINAL

WHIM = Whimsical(whims(5))
BOTH = [SearchConfig(algorithm="puct", simulations=30), SearchConfig(algorithm="gumbel", simulations=30)]


def search_of(
    game: Any, config: SearchConfig, slots: int, explore: bool = False, seed: int = 0, placed: bool = True
) -> Search:
    search = Search(game, config, slots=slots, generator=np.random.default_rng(seed), explore=explore)
    if placed:
        search.place(np.arange(slots))
    return search


def row(roots: Roots, slot: int) -> dict[str, list[float]]:
    at = roots.slots.tolist().index(slot)
    return {name: getattr(roots, name)[at].tolist() for name in Roots.__slots__ if name != "slots"}


# --- what a search promises -------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [1, 3, 7])
@pytest.mark.parametrize("config", BOTH, ids=["puct", "gumbel"])
@pytest.mark.parametrize(
    "game", [TicTacToeBatch(), Heaps(), Pig(8), Ledges()], ids=["tictactoe", "heaps", "pig", "ledges"]
)
def test_a_finished_tree_adds_up(game: Any, config: SearchConfig, leaves: int) -> None:
    config = config.model_copy(update={"leaves": leaves})
    search = search_of(game, config, 4, explore=True)
    roots = run(search, WHIM)
    tree = search.tree
    assert roots.slots.tolist() == [0, 1, 2, 3] and (roots.visits.sum(1) == 30).all()
    assert search.simulations == 4 * 30
    assert not tree.inflight.any()  # no virtual loss is left behind
    legal = roots.prior > 0
    for array in (roots.policy, roots.visits, roots.q):
        assert (array[~legal] == 0).all()
    assert roots.policy.sum(1) == pytest.approx(np.ones(4)) and roots.prior.sum(1) == pytest.approx(np.ones(4))
    assert legal[np.arange(4), roots.edges].all() and (roots.visits[np.arange(4), roots.edges] > 0).all()
    own = (tree.node_visits - tree.visits.sum(2))[tree.kind == DECISION]
    assert (own >= 1).all() and (leaves > 1 or (own == 1).all())  # a wave may reach one leaf several times
    assert (tree.node_visits == tree.visits.sum(2))[tree.kind == CHANCE].all()
    assert not (tree.kind[tree.node_visits > 0] == PENDING).any()
    for slot in range(4):
        for node in range(1, tree.size[slot]):
            parent, edge = tree.parent[slot, node], tree.edge[slot, node]
            assert parent < node and tree.child[slot, parent, edge] == node
            assert tree.visits[slot, parent, edge] == tree.node_visits[slot, node]


def test_leaves_of_a_wave_are_kept_apart() -> None:
    """Each visit under way counts as a loss: four leaves are four different columns, the second four the rest."""
    search = search_of(ConnectFourBatch(), SearchConfig(algorithm="puct", simulations=11, leaves=4), 1)
    first = search.select()
    assert first is not None and first.groups == (1,) and first.nodes.tolist() == [0]
    search.update(first, np.full((1, 7), 1 / 7), np.zeros(1))
    sizes = []
    while (wave := search.select()) is not None:
        sizes.append(len(wave.slots))
        assert len(set(wave.nodes.tolist())) == len(wave.nodes)
        assert search.tree.inflight[0, 0].sum() == len(wave.nodes)
        search.update(wave, *UniformEvaluator().evaluate(wave.positions))
    assert sizes == [4, 4, 3]
    assert sorted(search.roots().visits[0].tolist()) == [1, 1, 1, 2, 2, 2, 2]


def test_a_leaf_reached_twice_in_a_wave_is_evaluated_once() -> None:
    """One way at each ledge: every leaf of a wave is the same position."""
    config = SearchConfig(algorithm="puct", simulations=8, leaves=4, reuse=True)
    search = search_of(Ledges(9, 2), config, 1, placed=False)
    search.place(np.arange(1), [(3, 0)])  # the last way is closed: one action is left
    search.update(search.select(), np.array([[1.0, 0.0]]), np.zeros(1))  # type: ignore[arg-type]
    wave = search.select()
    assert wave is not None and len(wave.slots) == 4 and len(wave.positions) == 1
    assert wave.rows.tolist() == [0, 0, 0, 0] and wave.opens.tolist() == [True, False, False, False]
    search.update(wave, np.array([[0.5, 0.5]]), np.array([0.25]))
    tree = search.tree
    reward = tree.reward[0, 1]
    assert tree.node_visits[0, :2].tolist() == [5, 4] and tree.total[0, 0, 0] == 4 * (reward + 0.25)
    assert not tree.inflight.any()
    search.play(np.arange(1), np.zeros(1, int))
    search.cut(np.arange(1))
    assert search.roots().value.tolist() == [0.25]  # four times the same evaluation


def test_root_values_are_those_of_the_player_to_move() -> None:
    """X wins at once, or O does: both see a value near 1."""
    states, players = [(0b011, 0b11000), (0b11000, 0b100000110)], np.array([0, 1])
    for config in BOTH:
        search = search_of(TicTacToeBatch(), config.model_copy(update={"simulations": 200}), 2, placed=False)
        search.place(np.arange(2), states, players)
        roots = run(search, UniformEvaluator())
        assert roots.edges.tolist() == [2, 5]
        assert roots.q[[0, 1], roots.edges].tolist() == [1.0, 1.0]
        if config.algorithm == "puct":  # halving goes on looking at other moves
            assert (roots.value > 0.6).all()


def test_an_action_of_no_prior_is_legal_all_the_same() -> None:
    evaluator = OracleEvaluator(lambda state: 0.0, lambda state: [1.0] + [0.0] * 8)
    legal_first = search_of(TicTacToeBatch(), SearchConfig(simulations=20), 1)
    wave = legal_first.select()
    assert wave is not None
    legal_first.update(wave, *evaluator.evaluate(wave.positions))
    assert (np.isfinite(legal_first.tree.prior[0, 0])).all()
    roots = run(legal_first, UniformEvaluator())
    assert (roots.visits[0] > 0).all() and np.isfinite(roots.policy).all()  # sequential halving looks at all nine


# --- slots ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leaves", [1, 4])
@pytest.mark.parametrize("config", BOTH, ids=["puct", "gumbel"])
@pytest.mark.parametrize(
    "game", [TicTacToeBatch(), TicTacToe(), Heaps(), Ledges()], ids=["array", "plain", "heaps", "ledges"]
)
def test_slots_know_nothing_of_one_another(game: Any, config: SearchConfig, leaves: int) -> None:
    config = config.model_copy(update={"leaves": leaves})
    states = {TicTacToeBatch: (1, 16), TicTacToe: (1, 16), Heaps: (1, 1, 1, 0), Ledges: (2, 3)}
    alone = search_of(game, config, 1, placed=False)
    alone.place(np.arange(1), [states[type(game)]], np.zeros(1, np.int8))
    expected = row(run(alone, WHIM), 0)
    crowd = search_of(game, config, 5, placed=False)
    crowd.place(np.array([0, 4]))
    for step in range(60):
        if step == 3:  # the others are at work already
            crowd.place(np.array([2]), [states[type(game)]], np.zeros(1, np.int8))
        if step == 5:
            crowd.stop(np.array([4]))
        if step == 8:
            crowd.place(np.array([1, 4]))
        wave = crowd.select()
        if wave is None:
            break
        crowd.update(wave, *WHIM.evaluate(wave.positions))
    found = row(crowd.roots(), 2)
    width = len(expected["policy"])
    for name, value in expected.items():
        assert (found[name][:width] if isinstance(value, list) else found[name]) == value, name
    assert crowd.finished().tolist() == [0, 1, 2, 4]  # slot 3 was never placed
    first, again = row(crowd.roots(), 0), row(crowd.roots(), 4)
    assert first == again  # stopped half way and placed anew, it starts from nothing


def test_games_are_refilled_as_they_end() -> None:
    search = search_of(TicTacToeBatch(), SearchConfig(simulations=6, considered=4), 8, explore=True)
    ended, moves = 0, 0
    while ended < 40:
        roots = run(search, UniformEvaluator())
        assert len(roots.slots) == 8
        played = search.play(roots.slots, roots.edges)
        moves += 8
        over = roots.slots[played.done]
        assert (played.reward[~played.done] == 0).all() and set(played.reward[played.done]) <= {0.0, 1.0}
        ended += len(over)
        assert (search.tree.kind[over, 0] == TERMINAL).all()
        search.place(over)
        assert (search.states(over) == 0).all()
    assert 5 * ended < moves + 8 * 9 and moves < 9 * (ended + 8)


def test_nothing_is_played_where_a_game_has_ended() -> None:
    for game in (TicTacToe(), TicTacToeBatch()):
        search = search_of(game, SearchConfig(simulations=20), 2, placed=False)
        search.place(np.arange(2), [(0b011, 0b11000), (0, 0)], np.zeros(2, np.int8))
        roots = run(search, UniformEvaluator())
        played = search.play(roots.slots, np.array([2, 0]))
        assert played.done.tolist() == [True, False] and played.reward.tolist() == [1.0, 0.0]
        assert run(search, UniformEvaluator()).slots.tolist() == [1]
        with pytest.raises(DataError, match="slot 0: its game has ended; place the slot"):
            search.play(np.array([0]), np.array([5]))


@pytest.mark.parametrize("edge", [0, 9, 40, -1])
def test_an_edge_that_is_not_legal(edge: int) -> None:
    for game in (TicTacToe(), TicTacToeBatch()):
        search = search_of(game, SearchConfig(simulations=4), 2, placed=False)
        search.place(np.arange(2), [(1, 2), (1, 2)], np.zeros(2, np.int8))
        for _ in range(2):  # before and after it was searched
            with pytest.raises(DataError, match=rf"slot 1: edge {edge} is not legal at its root"):
                search.play(np.array([0, 1]), np.array([5, edge]))
            run(search, UniformEvaluator())
        assert search.tree.node_visits[0, 0] == 5  # nothing was played


def test_moves_of_others_can_be_played_without_a_search() -> None:
    search = search_of(ConnectFourBatch(), SearchConfig(simulations=10), 1)
    for column in (3, 3, 4):
        assert not search.play(np.arange(1), np.array([column])).done[0]
    state = ConnectFour().initial()
    for column in (3, 3, 4):
        state = ConnectFour().step(state, column)[0]
    assert tuple(search.states(np.arange(1))[0].tolist()) == state
    assert search.tree.to_play[0, 0] == 1
    assert run(search, UniformEvaluator()).edges.tolist() == run(search, UniformEvaluator()).edges.tolist()


# --- limits on time ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("config", BOTH, ids=["puct", "gumbel"])
def test_a_search_that_is_cut_answers_with_what_it_has(config: SearchConfig, explore: bool) -> None:
    search = search_of(TicTacToeBatch(), config, 3, explore)
    for waves in range(4):
        wave = search.select()
        assert wave is not None
        if waves == 3:
            search.cut(np.array([1]))  # with a simulation under way, which still counts
        search.update(wave, *WHIM.evaluate(wave.positions))
    assert search.finished().tolist() == [1]
    roots = search.roots()
    assert roots.visits.sum() == 3 and roots.policy.sum() == pytest.approx(1)
    assert run(search, WHIM).visits.sum(1).tolist() == [30, 3, 30]


@pytest.mark.parametrize("explore", [False, True])
@pytest.mark.parametrize("config", BOTH, ids=["puct", "gumbel"])
def test_a_search_that_is_cut_at_once_knows_the_priors(config: SearchConfig, explore: bool) -> None:
    search = search_of(TicTacToeBatch(), config, 2, explore)
    search.cut(np.array([0]))
    wave = search.select()
    assert wave is not None  # the root is still evaluated
    search.update(wave, *WHIM.evaluate(wave.positions))
    roots = search.roots()
    assert roots.slots.tolist() == [0] and not roots.visits.any()
    assert roots.policy == pytest.approx(roots.prior) and roots.prior.sum() == pytest.approx(1)
    if not explore:
        assert roots.edges[0] == roots.prior[0].argmax()
    assert not search.play(roots.slots, roots.edges).done.any()


# --- what is kept from move to move -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "game", [TicTacToeBatch(), TicTacToe(), Heaps(), Ledges(8)], ids=["array", "plain", "heaps", "ledges"]
)
def test_reuse_keeps_the_subtree_and_its_states(game: Any) -> None:
    config = SearchConfig(algorithm="puct", simulations=40, reuse=True)
    search = search_of(game, config, 3)
    for _ in range(3):
        roots = run(search, WHIM)
        if not len(roots.slots):
            break
        before = {
            slot: visits_below(search, slot, int(edge)) for slot, edge in zip(roots.slots, roots.edges, strict=True)
        }
        played = search.play(roots.slots, roots.edges)
        for slot, done in zip(roots.slots.tolist(), played.done, strict=True):
            if not done:
                assert signature(search, slot, 0) == before[slot]
                assert_states_agree(search, game, slot)
        kept = search.tree.node_visits[:, 0].copy()
        again = run(search, WHIM)
        assert (again.visits.sum(1) + 1 == kept[again.slots] + 40).all()


def visits_below(search: Search, slot: int, edge: int) -> Any:
    return signature(search, slot, int(search.tree.child[slot, 0, edge]))


def signature(search: Search, slot: int, node: int) -> Any:
    """A subtree without its numbering: counts, sums, priors, and children by edge."""
    tree = search.tree
    below = [(e, signature(search, slot, int(c))) for e, c in enumerate(tree.child[slot, node]) if c >= 0]
    numbers = tree.visits[slot, node], tree.total[slot, node], tree.prior[slot, node]
    return int(tree.node_visits[slot, node]), float(tree.value[slot, node]), *(x.tolist() for x in numbers), below


def assert_states_agree(search: Search, game: Any, slot: int) -> None:
    """Every state of the world is what the moves along the tree make of the root's."""
    tree, world, plain = search.tree, search.world, TicTacToe() if isinstance(game, TicTacToeBatch) else game
    states = {}
    for node in range(tree.size[slot]):
        found = world.states(np.array([slot]), np.array([node]))[0]
        found = tuple(found.tolist()) if isinstance(found, np.ndarray) else found
        if node:
            parent = int(tree.parent[slot, node])
            action = world.action_of(slot, parent, int(tree.edge[slot, node]))
            state, reward, done, player = plain.step(states[parent], action)
            assert state == found
            assert (reward, player) == (tree.reward[slot, node], tree.to_play[slot, node])
            assert done == (tree.kind[slot, node] == TERMINAL)
        states[node] = found


def test_reuse_of_a_move_never_visited_starts_anew() -> None:
    search = search_of(ConnectFourBatch(), SearchConfig(algorithm="puct", simulations=1, reuse=True), 1)
    roots = run(search, UniformEvaluator())
    unvisited = int(np.flatnonzero(roots.visits[0] == 0)[0])
    search.play(np.arange(1), np.array([unvisited]))
    assert search.tree.kind[0, 0] == PENDING and search.tree.size[0] == 1
    assert search.tree.to_play[0, 0] == 1
    assert run(search, UniformEvaluator()).visits.sum() == 1


def test_reuse_through_chance_keeps_what_the_die_showed() -> None:
    game = Pig(30)
    search = search_of(game, SearchConfig(algorithm="puct", simulations=200, reuse=True), 20, seed=3)
    run(search, UniformEvaluator())
    tree = search.tree
    chance = tree.child[:, 0, 0].copy()
    counts = {
        slot: [tree.node_visits[slot, c] if c >= 0 else 0 for c in tree.child[slot, chance[slot]]] for slot in range(20)
    }
    search.play(np.arange(20), np.zeros(20, int))
    for slot, state in enumerate(search.states(np.arange(20))):
        face = state[2] if state[2] else 1
        assert search.tree.node_visits[slot, 0] == counts[slot][face - 1] > 0
        assert_states_agree_from(search, slot)


def assert_states_agree_from(search: Search, slot: int) -> None:
    assert_states_agree(search, search.world._games[slot], slot)  # type: ignore[attr-defined]


# --- exploration ------------------------------------------------------------------------------------------------


def test_noise_stands_at_the_root_alone_and_not_in_the_answer() -> None:
    config = SearchConfig(algorithm="puct", simulations=20, dirichlet_alpha=0.5, dirichlet_epsilon=0.25)
    search = search_of(TicTacToeBatch(), config, 500, explore=True)
    roots = run(search, UniformEvaluator())
    noise = (search.tree.prior[:, 0] - 0.75 / 9) / 0.25
    assert noise.sum(1) == pytest.approx(np.ones(500)) and (noise >= 0).all()
    # Dirichlet(1/2) over 9: variance (1/9)(8/9) / (4.5 + 1) = 0.01796
    assert noise.var() == pytest.approx(0.01796, abs=0.002)
    assert roots.prior == pytest.approx(np.full((500, 9), 1 / 9))
    inner = search.tree.prior[:, 1]
    assert set(np.round(inner[np.isfinite(inner)], 12)) == {round(1 / 8, 12)}


def test_each_move_gets_noise_of_its_own_with_reuse_too() -> None:
    config = SearchConfig(algorithm="puct", simulations=60, reuse=True, temperature=0.0)
    search = search_of(TicTacToeBatch(), config, 4, explore=True)
    roots = run(search, UniformEvaluator())
    search.play(roots.slots, roots.edges)
    assert (search.tree.kind[:, 0] == DECISION).all()  # kept
    legal = np.isfinite(search.tree.prior[:, 0])
    assert legal.sum(1).tolist() == [8] * 4
    assert (np.abs(search.tree.prior[:, 0] - 1 / 8)[legal] > 1e-6).all()
    assert run(search, UniformEvaluator()).prior.max() == pytest.approx(1 / 8)


def test_temperature_holds_for_so_many_moves() -> None:
    config = SearchConfig(algorithm="puct", simulations=16, temperature=1.0, temperature_moves=2, final_temperature=0.0)
    search = search_of(ConnectFourBatch(), config, 3000, explore=True)
    for move in range(3):
        roots = run(search, UniformEvaluator())
        most = roots.visits.argmax(1)
        if move < 2:  # drawn by visits: as often as each share says
            assert (roots.edges == most).mean() == pytest.approx((roots.visits.max(1) / 16).mean(), abs=0.03)
        else:
            assert (roots.edges == most).all()
        search.play(roots.slots, roots.edges)
    search.place(np.arange(3000))  # a new game begins hot again
    roots = run(search, UniformEvaluator())
    assert (roots.edges != roots.visits.argmax(1)).mean() > 0.3


def test_gumbel_noise_makes_games_differ_and_its_absence_does_not() -> None:
    noisy = run(search_of(ConnectFourBatch(), BOTH[1], 200, explore=True), UniformEvaluator())
    assert np.bincount(noisy.edges, minlength=7).min() > 5
    quiet = run(search_of(ConnectFourBatch(), BOTH[1], 200), UniformEvaluator())
    assert len(set(quiet.edges.tolist())) == 1


@pytest.mark.parametrize("config", BOTH, ids=["puct", "gumbel"])
def test_the_same_seed_plays_the_same_game(config: SearchConfig) -> None:
    def game(seed: int) -> list[list[int]]:
        search = search_of(ConnectFourBatch(), config, 6, explore=True, seed=seed)
        lines = []
        for _ in range(4):
            roots = run(search, WHIM)
            lines.append(roots.edges.tolist())
            search.play(roots.slots, roots.edges)
        return lines

    assert game(1) == game(1) != game(2)


def test_without_exploring_a_tie_goes_to_the_larger_prior() -> None:
    evaluator = OracleEvaluator(lambda state: 0.0, lambda state: [1, 1, 1, 1, 2, 1, 1, 1, 1])
    search = search_of(TicTacToeBatch(), SearchConfig(algorithm="puct", simulations=1), 1)
    assert run(search, evaluator).edges.tolist() == [4]


def test_policy_by_hand() -> None:
    """Gumbel with one action considered: simulation by simulation the same action, and a policy worked by hand."""
    evaluator = OracleEvaluator(lambda state: 0.5, lambda state: [8] + [1] * 8)
    search = search_of(TicTacToeBatch(), SearchConfig(simulations=1, considered=1), 1)
    roots = run(search, evaluator)
    assert roots.visits[0].tolist() == [1] + [0] * 8
    # q(0) = -0.5, the other sees 0.5; mixed = (0.5 + 1 * -0.5) / 2 = 0; to 0..1: 0.25 and 0.5; scale (50 + 1) * 0.1
    weights = np.array([0.5 * np.exp(5.1 * 0.25)] + [np.exp(5.1 * 0.5) / 16] * 8)
    assert roots.policy[0] == pytest.approx(weights / weights.sum())
    assert roots.q[0, 0] == -0.5 and roots.value[0] == 0.0 and roots.prior[0, :2].tolist() == [0.5, 1 / 16]


# --- room -------------------------------------------------------------------------------------------------------


def test_a_tree_gets_room_as_it_needs_it() -> None:
    """Reuse and chance put more nodes into a tree than it has simulations."""
    search = search_of(Pig(40), SearchConfig(algorithm="puct", simulations=12, reuse=True, leaves=3), 2)
    start = search.tree.kind.shape[1]
    for _ in range(12):
        roots = run(search, Whimsical(whims(1, sharpness=4)))
        search.play(roots.slots, roots.edges)
    assert search.tree.kind.shape[1] > start
    for slot in range(2):
        assert_states_agree_from(search, slot)


# --- evaluators that are wrong ----------------------------------------------------------------------------------


class Says:
    def __init__(self, *answer: Any) -> None:
        self.answer = answer

    def evaluate(self, positions: Any) -> Any:
        return self.answer


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ((np.full((2, 8), 1 / 8), np.zeros(2)), r"priors \(2, 8\) .* must give \(2, 9\)"),
        ((np.full((2, 9), 1 / 9), np.zeros((2, 1))), r"values \(2, 1\) .* must give .*\(2,\)"),
        ((np.full((1, 9), 1 / 9), np.zeros(1)), r"priors \(1, 9\) and values \(1,\) for 2 positions of 9"),
        ((np.full((2, 9), np.nan), np.zeros(2)), "not finite"),
        ((np.full((2, 9), 1 / 9), np.array([0.0, np.inf])), "not finite"),
    ],
)
def test_answers_that_do_not_fit(answer: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        run(search_of(TicTacToeBatch(), SearchConfig(simulations=3), 2), Says(*answer))


def test_a_coroutine_is_not_for_run() -> None:
    class Later(Says):
        async def evaluate(self, positions: Any) -> Any:
            return self.answer

    with pytest.raises(DataError, match=r"Later\.evaluate is a coroutine; .*asynchronous"):
        run(search_of(TicTacToeBatch(), SearchConfig(simulations=3), 2), Later())


def test_nothing_to_do() -> None:
    search = search_of(TicTacToeBatch(), SearchConfig(simulations=3), 2, placed=False)
    assert search.select() is None and not len(search.roots().slots)
    search.place(np.zeros(0, np.int64))
    assert search.select() is None
    assert not len(search.play(np.zeros(0, int), np.zeros(0, int)).done)
