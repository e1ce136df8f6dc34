"""The peers of `benchmarks/search.py`: OpenSpiel's search in Python, and mctx over Connect Four in JAX.

An arm is a function without arguments: it searches all its positions once and returns the root's visit counts `[B, 7]`,
their order left to the peer. `None` stands for the empty board; positions are given by the moves that led to them.
Every arm selects by Q + c_puct * P * sqrt(N) / (1 + n), with c_puct 1.25, no noise, and Q = 0 where nothing was
visited; `simulations` counts the evaluation of the root.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from troupe.engines.evaluator import masked_softmax
from troupe.engines.runtimes import TorchRuntime
from troupe.models.policy_value import PolicyValueNet, folded

__all__ = ["C_PUCT", "Arm", "Moves", "mctx_arm", "one_thread_of_xla", "openspiel_arm"]

Arm = Callable[[], np.ndarray]
Moves = Sequence[Sequence[int]]
Judgement = tuple[list[tuple[int, float]], np.ndarray]

C_PUCT = 1.25


# ------------------------------------------------------------------------------------------------ OpenSpiel


class Uniform:
    """OpenSpiel's evaluator hook: uniform priors, value 0."""

    def prior(self, state: Any) -> list[tuple[int, float]]:
        actions = state.legal_actions()
        return [(action, 1 / len(actions)) for action in actions]

    def evaluate(self, state: Any) -> np.ndarray:
        return np.zeros(2)


class Network:
    """The hook with a network in torch: one position at a time, folded, channels last and in fp32, which is faster for
    one position than torch's own format and than bf16. OpenSpiel asks for the value when it reaches a node and for the
    priors when it comes back, so an answer is kept by the moves that led to the node until `forget`: one evaluation per
    node, as on our side without a cache."""

    def __init__(self, net: PolicyValueNet) -> None:
        self._runtime = TorchRuntime("fp32")
        self._runtime.load(net)
        self._known: dict[tuple[int, ...], Judgement] = {}

    def forget(self) -> None:
        self._known.clear()

    def prior(self, state: Any) -> list[tuple[int, float]]:
        return list(self._judge(state)[0])  # a copy, as the search shuffles it

    def evaluate(self, state: Any) -> np.ndarray:
        return self._judge(state)[1]

    def _judge(self, state: Any) -> Judgement:
        key = tuple(state.history())
        if key not in self._known:
            player, actions = state.current_player(), state.legal_actions()
            legal = np.zeros((1, 7), bool)
            legal[0, actions] = True
            logits, values = self._runtime.run(observed(state, player)[None])
            priors = masked_softmax(logits, legal)[0, actions].tolist()
            value = float(values[0])
            both = np.array([value, -value] if player == 0 else [-value, value])
            self._known[key] = list(zip(actions, priors, strict=True)), both
        return self._known[key]


def observed(state: Any, player: int) -> np.ndarray:
    """OpenSpiel's planes as our games show them, float32 `[2, 6, 7]`: own stones, the other's, the top row first."""
    planes = np.array(state.observation_tensor(player), np.float32).reshape(3, 6, 7)[:2, ::-1]
    return np.ascontiguousarray(planes if player == 0 else planes[::-1])


def openspiel_arm(positions: Moves, simulations: int, net: PolicyValueNet | None = None) -> Arm:
    """Raises ImportError without OpenSpiel."""
    import pyspiel
    from open_spiel.python.algorithms import mcts

    game = pyspiel.load_game("connect_four")
    evaluator = Uniform() if net is None else Network(net)
    select = mcts.SearchNode.puct_value
    bot = mcts.MCTSBot(
        game, C_PUCT, simulations, evaluator, solve=False, child_selection_fn=select,
        random_state=np.random.RandomState(0),
    )  # fmt: skip
    starts = []
    for moves in positions:
        starts.append(game.new_initial_state())
        for move in moves:
            starts[-1].apply_action(move)

    def once() -> np.ndarray:
        counts = np.zeros((len(starts), 7), np.int64)
        for row, start in zip(counts, starts, strict=True):
            for child in bot.mcts_search(start).children:
                row[child.action] = child.explore_count
            if isinstance(evaluator, Network):
                evaluator.forget()
        return counts

    return once


# ------------------------------------------------------------------------------------------------ mctx

LOW = 28  # bits of columns 0 to 3, the first word of a board; the second holds columns 4 to 6
MASK = (1 << LOW) - 1
TOPS = np.array([[1 << 7 * c + 5 if c < 4 else 0, 1 << 7 * (c - 4) + 5 if c > 3 else 0] for c in range(7)], np.uint32)
BOTTOMS = TOPS >> np.uint32(5)
CELLS = np.array([[7 * c + r for c in range(7)] for r in reversed(range(6))])


def one_thread_of_xla() -> None:
    """To be called before jax is imported."""
    os.environ["XLA_FLAGS"] = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"
    os.environ["JAX_PLATFORMS"] = "cpu"


def shifted(board: Any, by: int) -> Any:
    """uint32 `[n, 2]`, a board of 49 bits in two words, shifted right."""
    import jax.numpy as jnp

    low, high = board[:, 0], board[:, 1]
    return jnp.stack([low >> by | high << LOW - by & MASK, high >> by], axis=1)


def step(state: Any, action: Any) -> tuple[Any, Any, Any]:
    """(next state, won, done): a state is uint32 `[n, 4]`, the board of the player to move, then the other's."""
    import jax.numpy as jnp

    own, other = state[:, :2], state[:, 2:]
    taken = own | other
    after = taken | (taken + jnp.asarray(BOTTOMS)[action])
    own = after ^ other
    won = jnp.zeros(len(state), bool)
    for by in (1, 6, 7, 8):
        pairs = own & shifted(own, by)
        won |= (pairs & shifted(pairs, 2 * by)).any(axis=1)
    return jnp.concatenate([other, own], axis=1), won, won | ~legal(after).any(axis=1)


def legal(taken: Any) -> Any:
    """bool `[n, 7]`."""
    return ((taken[:, None] & TOPS) == 0).all(axis=2)


def planes(state: Any) -> Any:
    """float32 `[n, 6, 7, 2]`: channels last, which XLA's convolutions on CPUs want."""
    import jax.numpy as jnp

    word = CELLS // LOW
    boards = [state[:, 2 * side + word] >> jnp.asarray(CELLS % LOW, jnp.uint32) & 1 for side in range(2)]
    return jnp.stack(boards, axis=-1).astype(jnp.float32)


def weights_of(net: PolicyValueNet) -> Any:
    """The folded network's arrays: (trunk, policy, value), each a list of (weight, bias), kernels as HWIO."""

    def pair(part: Any) -> tuple[np.ndarray, np.ndarray]:
        weight = part.weight.detach().numpy()
        turned = weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T
        return np.ascontiguousarray(turned), part.bias.detach().numpy()

    flat = folded(net)
    return tuple(
        [pair(part) for part in branch.modules() if hasattr(part, "weight")]
        for branch in (flat.trunk, flat.policy, flat.value)
    )


def network(weights: Any, x: Any) -> tuple[Any, Any]:
    """(logits `[n, 7]`, values `[n]`): the function that `PolicyValueNet` computes, in JAX."""
    import jax
    import jax.numpy as jnp

    def convolution(x: Any, pair: Any) -> Any:
        layout = ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(x, pair[0], (1, 1), "SAME", dimension_numbers=layout) + pair[1]

    def head(x: Any, pairs: Any) -> Any:
        x = jax.nn.relu(convolution(x, pairs[0])).transpose(0, 3, 1, 2).reshape(len(x), -1)
        for weight, bias in pairs[1:-1]:
            x = jax.nn.relu(x @ weight + bias)
        return x @ pairs[-1][0] + pairs[-1][1]

    trunk, policy, value = weights
    x = jax.nn.relu(convolution(x, trunk[0]))
    for first, second in zip(trunk[1::2], trunk[2::2], strict=True):
        x = jax.nn.relu(x + convolution(jax.nn.relu(convolution(x, first)), second))
    return head(x, policy), jnp.tanh(head(x, value)[:, 0])


def plain_q(tree: Any, node: Any) -> Any:
    """mctx's Q without its rescaling, and minus infinity for illegal actions, which it masks at the root alone."""
    import jax.numpy as jnp

    possible = tree.children_prior_logits[node] > jnp.finfo(jnp.float32).min
    return jnp.where(possible, tree.qvalues(node), -jnp.inf)


def mctx_arm(positions: Moves, simulations: int, net: PolicyValueNet | None = None, *, gumbel: bool = False) -> Arm:
    """`muzero_policy`, or `gumbel_muzero_policy` with its own transform of Q and its noise. Raises ImportError without
    mctx."""
    import jax
    import jax.numpy as jnp
    import mctx

    def judged(weights: Any, state: Any) -> tuple[Any, Any]:
        logits, values = jnp.zeros((len(state), 7)), jnp.zeros(len(state))
        if weights is not None:
            logits, values = network(weights, planes(state))
        return jnp.where(legal(state[:, :2] | state[:, 2:]), logits, jnp.finfo(jnp.float32).min), values

    def recurrent(weights: Any, key: Any, action: Any, state: Any) -> tuple[Any, Any]:
        state, won, done = step(state, action)
        logits, values = judged(weights, state)
        discount = jnp.where(done, 0.0, -1.0)
        reward = won.astype(jnp.float32)
        return mctx.RecurrentFnOutput(reward=reward, discount=discount, prior_logits=logits, value=values), state

    @jax.jit
    def search(weights: Any, key: Any, state: Any) -> Any:
        logits, values = judged(weights, state)
        root = mctx.RootFnOutput(prior_logits=logits, value=values, embedding=state)
        illegal = ~legal(state[:, :2] | state[:, 2:])
        policy = mctx.gumbel_muzero_policy if gumbel else mctx.muzero_policy
        rule = {} if gumbel else {"qtransform": plain_q, "dirichlet_fraction": 0.0, "pb_c_base": 1e9}
        out = policy(weights, key, root, recurrent, simulations - 1, illegal, **rule)
        return out.search_tree.summary().visit_counts

    weights = None if net is None else jax.tree.map(jnp.asarray, weights_of(net))
    start, key = placed(positions), jax.random.key(0)
    return lambda: np.asarray(search(weights, key, start)).astype(np.int64)


def placed(positions: Moves) -> Any:
    """The states after these moves."""
    import jax.numpy as jnp

    states = []
    for moves in positions:
        state = jnp.zeros((1, 4), jnp.uint32)
        for move in moves:
            state = step(state, jnp.array([move]))[0]
        states.append(state)
    return jnp.concatenate(states)
