from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from tests.search.test_puct import KERNELS, assert_tree, positions, searched
from tests.search.textbook import Ledges, Textbook, Whimsical, whims
from troupe.envs.connect_four import ConnectFour, ConnectFourBatch
from troupe.envs.tictactoe import TicTacToe, TicTacToeBatch
from troupe.search.config import SearchConfig
from troupe.search.gumbel import completed_q, considered_visits, gumbel_action, improved_policy, root_scores, schedules

# --- sequential halving -----------------------------------------------------------------------------------------


def test_halving_by_hand() -> None:
    # 16 simulations, 4 actions, 2 phases: two rounds of 4, then four rounds of 2
    assert considered_visits(4, 16) == (0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 3, 3, 4, 4, 5, 5)
    assert considered_visits(1, 4) == considered_visits(0, 4) == (0, 1, 2, 3)
    assert considered_visits(5, 3) == (0, 0, 0)
    assert schedules(2, 4).tolist() == [[0, 1, 2, 3], [0, 1, 2, 3], [0, 0, 1, 1]]


@pytest.mark.oracle
def test_halving_is_that_of_mctx() -> None:
    pytest.importorskip("mctx", reason="needs mctx")
    from mctx._src.seq_halving import get_sequence_of_considered_visits

    for actions in range(40):
        for simulations in (1, 2, 3, 5, 8, 15, 16, 17, 31, 32, 50, 64, 99, 128, 200, 333, 800):
            expected = get_sequence_of_considered_visits(actions, simulations)
            assert considered_visits(actions, simulations) == expected, (actions, simulations)


# --- the whole search -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kernels", KERNELS)
@pytest.mark.parametrize(("simulations", "considered"), [(8, 16), (32, 4), (50, 5), (99, 7)])
@pytest.mark.parametrize(
    ("plain", "batch", "discount"),
    [(ConnectFour(), ConnectFourBatch(), 1.0), (TicTacToe(), TicTacToeBatch(), 0.95), (Ledges(), Ledges(), 0.9)],
    ids=["connect four", "tic-tac-toe", "ledges"],
)
def test_the_whole_tree_is_the_textbooks(
    plain: Any, batch: Any, discount: float, simulations: int, considered: int, kernels: Any
) -> None:
    if kernels == "numba":
        pytest.importorskip("numba", reason="the compiled kernels need numba")
    placed = positions(plain, np.random.default_rng(simulations), 5, 4)
    config = SearchConfig(
        simulations=simulations, considered=considered, discount=discount, c_visit=20, c_scale=0.3, kernels=kernels
    )
    judge = whims(simulations, reach=0.8)
    search, roots = searched(batch, config, placed, Whimsical(judge))
    for slot, (state, player) in enumerate(placed):
        book = Textbook(plain, judge, discount=discount, c_visit=20, c_scale=0.3)
        root = book.gumbel(state, player, simulations, considered)
        assert assert_tree(search, slot, root) == search.tree.size[slot]
        assert roots.edges[slot] == book.answer(root)
        improved = book.improved(root)
        expected = [improved.get(action, 0.0) for action in range(plain.actions)]
        assert roots.policy[slot] == pytest.approx(expected, abs=1e-12)


@pytest.mark.oracle
def test_visits_and_policy_are_those_of_mctx() -> None:
    """Tic-tac-toe with random logits and values. mctx leaves Q between -1 and 1, so half of c_scale is the same."""
    mctx = pytest.importorskip("mctx", reason="needs mctx")
    import jax
    import jax.numpy as jnp

    plain, judge, simulations = TicTacToe(), whims(3), 24
    placed = positions(plain, np.random.default_rng(5), 40, 5)
    _, roots = searched(TicTacToeBatch(), SearchConfig(simulations=simulations, considered=5), placed, Whimsical(judge))
    logits, values = np.full((3**9, 9), -1e9, np.float32), np.zeros(3**9, np.float32)
    for code in range(3**9):
        digits = [code // 3**cell % 3 for cell in range(9)]
        legal = [cell for cell in range(9) if digits[cell] == 0]
        if legal:
            state = tuple(sum(1 << cell for cell in range(9) if digits[cell] == who) for who in (1, 2))
            priors, values[code] = judge(state, legal)
            logits[code, legal] = np.log(priors)
    table, worth, powers = jnp.array(logits), jnp.array(values), 3 ** jnp.arange(9)
    lines = jnp.array([[0, 1, 2], [3, 4, 5], [6, 7, 8], [0, 3, 6], [1, 4, 7], [2, 5, 8], [0, 4, 8], [2, 4, 6]])

    def recurrent(params: Any, key: Any, action: Any, board: Any) -> Any:
        """Boards int [n, 10]: 1 own, 2 the other's; the last entry says that the game has ended."""
        rows = jnp.arange(len(board))
        over = board[:, 9] == 1
        cells = board[:, :9].at[rows, action].set(1)
        won = (cells[:, lines] == 1).all(2).any(1) & ~over
        turned = jnp.where(cells == 0, 0, 3 - cells)
        ended = over | won | (cells != 0).all(1)
        code = (turned * powers).sum(1)
        following = jnp.concatenate([turned, ended[:, None].astype(turned.dtype)], 1)
        output = mctx.RecurrentFnOutput(
            reward=won.astype(jnp.float32),
            discount=jnp.where(ended, 0.0, -1.0),
            prior_logits=jnp.where(ended[:, None], 0.0, table[code]),
            value=jnp.where(ended, 0.0, worth[code]),
        )
        return output, following

    cells = np.array(
        [[1 * (own >> c & 1) + 2 * (other >> c & 1) for c in range(9)] + [0] for (own, other), _ in placed]
    )
    codes = (cells[:, :9] * 3 ** np.arange(9)).sum(1)
    root = mctx.RootFnOutput(prior_logits=table[codes], value=worth[codes], embedding=jnp.array(cells))
    policy = partial(
        mctx.gumbel_muzero_policy,
        recurrent_fn=recurrent,
        num_simulations=simulations,
        invalid_actions=jnp.array(cells[:, :9] != 0),
        qtransform=partial(
            mctx.qtransform_completed_by_mix_value, value_scale=0.05, maxvisit_init=50.0, rescale_values=False
        ),
        max_num_considered_actions=5,
        gumbel_scale=0.0,
    )
    call = jax.jit(lambda key, root: policy(None, key, root)).lower(jax.random.PRNGKey(0), root)
    found = call.compile({"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True})(
        jax.random.PRNGKey(0), root
    )
    assert np.array_equal(found.search_tree.summary().visit_counts, roots.visits)
    assert np.array_equal(found.action, roots.edges)
    assert np.asarray(found.action_weights) == pytest.approx(roots.policy, abs=1e-5)  # mctx counts in float32


# --- the root by hand -------------------------------------------------------------------------------------------


def test_completed_q_and_the_improved_policy_by_hand() -> None:
    # priors 1/2, 1/4, 1/4, one illegal; visits 2, 1, 0; Q 0.5, -0.5; the root's evaluation 0.2.
    # mixed = (0.2 + 3 * (0.5 * 0.5 + 0.25 * -0.5) / 0.75) / 4 = (0.2 + 0.5) / 4 = 0.175
    # to 0..1: 0.75, 0.25, 0.5875; sigma scale (50 + 2) * 0.1 = 5.2: 3.9, 1.3, 3.055
    config = SearchConfig()
    priors, visits = np.array([[0.5, 0.25, 0.25, -np.inf]]), np.array([[2, 1, 0, 0]])
    q, one = np.array([[0.5, -0.5, 0.0, 0.0]]), np.ones(1)
    sigma = completed_q(config, priors, visits, q, np.array([0.2]), -one, one)
    assert sigma[0, :3] == pytest.approx([3.9, 1.3, 3.055])
    weights = np.array([0.5, 0.25 * np.exp(-2.6), 0.25 * np.exp(-0.845)])
    policy = improved_policy(priors, sigma)
    assert policy[0] == pytest.approx([*(weights / weights.sum()), 0.0])
    # Gumbel 0 everywhere: of those visited most, here the first alone
    scores = root_scores(priors, np.zeros((1, 4)))
    assert scores[0] == pytest.approx([np.log(0.5), np.log(0.25), np.log(0.25), -np.inf])
    assert gumbel_action(scores, sigma, visits).tolist() == [0]
    # noise decides between two visited alike
    noise = np.array([[0.0, 4.0, 0.0, 9.0]])
    assert gumbel_action(root_scores(priors, noise), sigma, np.array([[2, 2, 0, 0]])).tolist() == [1]


def test_an_unvisited_root_completes_with_its_evaluation_alone() -> None:
    priors = np.array([[0.5, 0.5]])
    none, one = np.zeros((1, 2)), np.ones(1)
    sigma = completed_q(SearchConfig(), priors, none.astype(int), none, np.array([0.4]), -one, one)
    assert sigma == pytest.approx(np.full((1, 2), 50 * 0.1 * 0.7))
    assert improved_policy(priors, sigma) == pytest.approx(priors)


def test_one_players_q_goes_from_its_own_range() -> None:
    low, high = np.array([-3.0, np.inf]), np.array([5.0, -np.inf])
    q, visits = np.array([[1.0, 5.0], [0.0, 0.0]]), np.array([[1, 1], [0, 0]])
    sigma = completed_q(SearchConfig(), np.full((2, 2), 0.5), visits, q, np.zeros(2), low, high)
    assert sigma[0] == pytest.approx([51 * 0.1 * 0.5, 51 * 0.1])
    assert sigma[1].tolist() == [0.0, 0.0]  # no range yet


def test_gumbel_noise_draws_the_first_action_by_its_prior() -> None:
    # argmax of gumbel + logit is a draw from the priors (Gumbel-max trick)
    n = 40_000
    priors = np.tile([0.6, 0.3, 0.1, -np.inf], (n, 1))
    drawn = root_scores(priors, np.random.default_rng(0).gumbel(size=priors.shape)).argmax(1)
    assert np.bincount(drawn, minlength=4) / n == pytest.approx([0.6, 0.3, 0.1, 0.0], abs=0.01)
