from __future__ import annotations

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from troupe.engines.evaluator import (
    NetworkEvaluator,
    OracleEvaluator,
    RolloutEvaluator,
    UniformEvaluator,
    masked_softmax,
)
from troupe.errors import ConfigError, DataError, TrainingError
from troupe.models.config import PolicyValueConfig
from troupe.models.policy_value import PolicyValueNet, policy_value_net
from troupe.protocols import Symmetry

CONFIG = PolicyValueConfig(blocks=1, channels=8)
SHAPE, ACTIONS = (2, 3, 4), 4
CELLS = np.arange(24).reshape(SHAPE)
MIRROR = Symmetry(CELLS[..., ::-1].reshape(-1), np.arange(4)[::-1].copy())
SYMMETRIES = [Symmetry(CELLS.reshape(-1), np.arange(4)), MIRROR]


@dataclass
class Boards:
    """Boards of 3x4 cells whose columns are the actions; the mirror image is as good. `asked` counts observations."""

    planes: np.ndarray
    legal: np.ndarray
    keying: str = "plain"  # none, plain, canonical
    asked: list[int] = field(default_factory=list)

    @property
    def to_play(self) -> np.ndarray:
        return np.zeros(len(self.planes), np.int8)

    def __len__(self) -> int:
        return len(self.planes)

    def observations(self) -> np.ndarray:
        self.asked.append(len(self.planes))
        return self.planes

    def keys(self) -> tuple[Sequence[Hashable], np.ndarray | None] | None:
        own = [plane.tobytes() for plane in self.planes]
        if self.keying == "none":
            return None
        if self.keying == "plain":
            return own, None
        mirrored = [plane[..., ::-1].tobytes() for plane in self.planes]
        which = np.array([int(b < a) for a, b in zip(own, mirrored, strict=True)])
        return [min(pair) for pair in zip(own, mirrored, strict=True)], which

    def symmetries(self) -> Sequence[Symmetry]:
        return SYMMETRIES if self.keying != "none" else []

    def states(self) -> Sequence[Any]:
        return list(self.planes)

    def candidates(self) -> Sequence[Sequence[Any]] | None:
        return None

    def take(self, indices: np.ndarray) -> Boards:
        return Boards(self.planes[indices], self.legal[indices], self.keying, self.asked)


def boards(n: int, keying: str = "plain", seed: int = 0) -> Boards:
    generator = np.random.default_rng(seed)
    legal = generator.random((n, ACTIONS)) < 0.6
    legal[np.arange(n), generator.integers(ACTIONS, size=n)] = True
    return Boards((generator.random((n, *SHAPE)) < 0.4).astype(np.float32), legal, keying)


def mirrored(positions: Boards) -> Boards:
    return Boards(positions.planes[..., ::-1].copy(), positions.legal[:, ::-1].copy(), positions.keying)


def opinionated(seed: int = 0) -> PolicyValueNet:
    net = policy_value_net(CONFIG, SHAPE, ACTIONS, seed=seed)
    for head in (net.policy, net.value):
        [part for part in head if isinstance(part, nn.Linear)][-1].weight.data *= 20
    return net


def torch_evaluator(net: PolicyValueNet | None = None, **options: Any) -> NetworkEvaluator:
    return NetworkEvaluator(net or opinionated(), runtime="torch", precision="fp32", **options)


def counters(evaluator: NetworkEvaluator) -> tuple[int, int, int]:
    return evaluator.calls, evaluator.evaluated, evaluator.cache_hits


def same(found: tuple[np.ndarray, ...], expected: tuple[np.ndarray, ...], tolerance: float = 1e-6) -> None:
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == np.float64
        np.testing.assert_allclose(a, b, atol=tolerance)


# --- priors -----------------------------------------------------------------------------------------------------


def test_masked_softmax_by_hand() -> None:
    logits = np.log(np.array([[1, 2, 5], [8, 1, 1]], np.float32))
    legal = np.array([[True, True, False], [False, True, True]])
    np.testing.assert_allclose(masked_softmax(logits, legal), [[1 / 3, 2 / 3, 0], [0, 0.5, 0.5]], atol=1e-7)
    far = masked_softmax(np.array([[1e4, 0, -1e4]], np.float32), np.array([[True, True, True]]))
    assert far.tolist() == [[1, 0, 0]]


@pytest.mark.parametrize("keying", ["none", "plain"])
def test_a_network_answers_with_its_masked_policy(keying: str) -> None:
    net, positions = opinionated(), boards(20, keying)
    priors, values = torch_evaluator(net).evaluate(positions)
    with torch.inference_mode():
        logits, expected = net.eval()(torch.from_numpy(positions.planes))
    logits = logits.masked_fill(~torch.from_numpy(positions.legal), -torch.inf)
    same((priors, values), (logits.double().softmax(-1).numpy(), expected.numpy()), 1e-5)
    assert (priors[~positions.legal] == 0).all() and priors.sum(1) == pytest.approx(1)


def test_no_positions() -> None:
    priors, values = torch_evaluator().evaluate(boards(0))
    assert (priors.shape, values.shape) == ((0, ACTIONS), (0,))


@pytest.mark.parametrize("runtime", ["torch", "onnxruntime", "openvino"])
def test_observations_as_a_game_may_give_them(runtime: Any, recwarn: pytest.WarningsRecorder) -> None:
    if runtime != "torch":
        pytest.importorskip(runtime)
        pytest.importorskip("onnx")
    evaluator = NetworkEvaluator(opinionated(), runtime=runtime, precision="fp32", cache=0)
    positions = boards(5)
    expected = evaluator.evaluate(positions)
    strided = np.repeat(positions.planes.astype(np.int8), 2, axis=3)[..., ::2]
    read_only = positions.planes.copy()
    read_only.flags.writeable = False
    for planes in (strided, read_only):
        same(evaluator.evaluate(Boards(planes, positions.legal)), expected, 0)
    assert not [warning for warning in recwarn if issubclass(warning.category, UserWarning)]


def test_auto_is_near_fp32() -> None:
    evaluator = NetworkEvaluator(opinionated())
    assert evaluator.runtime in ("torch", "onnxruntime", "openvino") and evaluator.precision in ("fp32", "bf16")
    same(evaluator.evaluate(boards(20)), torch_evaluator().evaluate(boards(20)), 0.05)


# --- the cache --------------------------------------------------------------------------------------------------


def test_hits_are_the_evaluation_bit_by_bit() -> None:
    evaluator, positions = torch_evaluator(), boards(16)
    first = evaluator.evaluate(positions)
    again = evaluator.evaluate(positions)
    for a, b in zip(first, again, strict=True):
        np.testing.assert_array_equal(a, b)
    assert counters(evaluator) == (2, 16, 16)
    assert positions.asked == [16]  # the second time nobody looked


def test_twins_in_a_batch_are_evaluated_once_and_masked_each_by_itself() -> None:
    evaluator, some = torch_evaluator(), boards(5)
    evaluator.evaluate(some.take(np.array([1])))
    order = np.array([0, 1, 0, 2, 4, 2, 0])
    positions = some.take(order)
    positions.legal = positions.legal.copy()
    positions.legal[2] = ~some.legal[0] | (np.arange(4) == 3)
    found = evaluator.evaluate(positions)
    assert counters(evaluator) == (2, 1 + 3, 4)
    same(found, torch_evaluator(cache=0).evaluate(positions))


def test_without_cache_and_without_keys() -> None:
    uncached, keyless = torch_evaluator(cache=0), torch_evaluator()
    for _ in range(2):
        uncached.evaluate(boards(3))
        keyless.evaluate(boards(3, "none"))
    assert counters(uncached) == counters(keyless) == (2, 6, 0)


def test_refresh_takes_the_new_weights_and_forgets() -> None:
    evaluator = torch_evaluator()
    before = evaluator.evaluate(boards(8))
    evaluator.refresh(opinionated(seed=1))
    after = evaluator.evaluate(boards(8))
    same(after, torch_evaluator(opinionated(seed=1)).evaluate(boards(8)))
    assert np.abs(before[0] - after[0]).max() > 0.05
    assert counters(evaluator) == (2, 16, 0)
    evaluator.clear()
    evaluator.evaluate(boards(8))
    assert counters(evaluator) == (3, 24, 0)
    with pytest.raises(ConfigError, match="make a new evaluator"):
        evaluator.refresh(policy_value_net(CONFIG, SHAPE, 5, seed=0))


def test_training_on_does_not_reach_the_evaluator_before_refresh() -> None:
    net = opinionated()
    evaluator = torch_evaluator(net, cache=0)
    before = evaluator.evaluate(boards(4))
    for parameter in net.parameters():
        parameter.data += 0.1
    same(evaluator.evaluate(boards(4)), before, 0)


@pytest.mark.parametrize("keying", ["plain", "canonical"])
@pytest.mark.parametrize("cache", [1, 5, 10_000])
def test_a_cache_of_any_size_changes_nothing(keying: str, cache: int) -> None:
    cached, plain = torch_evaluator(cache=cache), torch_evaluator(cache=0)
    everything, generator = boards(40, keying), np.random.default_rng(0)
    for _ in range(12):
        positions = everything.take(generator.integers(40, size=int(generator.integers(1, 20))))
        same(cached.evaluate(positions), plain.evaluate(positions))
    assert cached.evaluated + cached.cache_hits == plain.evaluated
    assert cached.cache_hits > 0


# --- symmetries -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cache", [0, 100])
def test_canonical_keys_make_the_judgement_exactly_symmetric(cache: int) -> None:
    positions = boards(16, "canonical")
    assert 0 < positions.keys()[1].sum() < 16  # type: ignore[index]
    evaluator = torch_evaluator(cache=cache)
    priors, values = evaluator.evaluate(positions)
    other_priors, other_values = evaluator.evaluate(mirrored(positions))
    np.testing.assert_array_equal(other_priors[:, ::-1] > 0, positions.legal)
    same((other_priors[:, ::-1], other_values), (priors, values))
    assert evaluator.cache_hits == (16 if cache else 0)
    plain = boards(16, "plain")
    unturned = positions.keys()[1] == 0  # type: ignore[index]
    same(
        (priors[unturned], values[unturned]),
        tuple(part[unturned] for part in torch_evaluator().evaluate(plain)),
    )
    assert np.abs(torch_evaluator().evaluate(plain)[1] - values).max() > 0.01  # the network itself is not symmetric


def test_canonical_twins_share_one_evaluation() -> None:
    one = boards(6, "canonical")
    two = mirrored(one)
    both = Boards(np.concatenate([one.planes, two.planes]), np.concatenate([one.legal, two.legal]), "canonical")
    evaluator = torch_evaluator()
    evaluator.evaluate(both)
    assert counters(evaluator) == (1, 6, 6)


def test_a_cyclic_permutation_is_turned_back_the_right_way() -> None:
    # Rotating the columns has order 4, so that a permutation and its inverse differ.
    rotations = [Symmetry(np.roll(CELLS, -k, axis=2).reshape(-1), np.roll(np.arange(4), -k)) for k in range(4)]

    class Rotated(Boards):
        def keys(self) -> tuple[Sequence[Hashable], np.ndarray | None]:
            views = [[np.roll(plane, -k, axis=2).tobytes() for k in range(4)] for plane in self.planes]
            return [min(view) for view in views], np.array([view.index(min(view)) for view in views])

        def symmetries(self) -> Sequence[Symmetry]:
            return rotations

        def take(self, indices: np.ndarray) -> Boards:
            return Rotated(self.planes[indices], self.legal[indices])

    plain = boards(12)
    first = Rotated(plain.planes, plain.legal)
    second = Rotated(np.roll(plain.planes, 1, axis=3), np.roll(plain.legal, 1, axis=1))
    evaluator = torch_evaluator()
    priors, values = evaluator.evaluate(first)
    turned_priors, turned_values = evaluator.evaluate(second)
    assert evaluator.cache_hits == 12
    same((np.roll(priors, 1, axis=1), values), (turned_priors, turned_values))


def test_average_over_symmetries() -> None:
    net, positions = opinionated(), boards(10)
    priors, values = torch_evaluator(net, symmetry="average").evaluate(positions)
    with torch.inference_mode():
        logits, expected = net.eval()(torch.from_numpy(positions.planes))
        other, other_values = net(torch.from_numpy(positions.planes[..., ::-1].copy()))
    mean = ((logits + other.flip(1)) / 2).numpy()
    same((priors, values), (masked_softmax(mean, positions.legal), ((expected + other_values) / 2).numpy()), 1e-5)


# --- errors -----------------------------------------------------------------------------------------------------


def test_answers_that_are_not_finite() -> None:
    net = opinionated()
    evaluator = torch_evaluator(net)
    broken = boards(4)
    broken.planes[2, 0, 0, 0] = np.nan
    with pytest.raises(TrainingError, match="observations contain NaN"):
        evaluator.evaluate(broken)
    assert np.isfinite(evaluator.evaluate(boards(4))[0]).all()  # nothing of it was remembered
    net.policy[-1].bias.data[1] = torch.nan
    evaluator.refresh(net)
    with pytest.raises(TrainingError, match="NaN or infinite for 4 of 4 positions"):
        evaluator.evaluate(boards(4))
    only = boards(1)
    only.legal[:] = [[True, False, False, False]]
    with pytest.raises(TrainingError, match="for 1 of 1"):  # also where the bad action is illegal
        evaluator.evaluate(only)


def test_positions_that_do_not_fit() -> None:
    evaluator = torch_evaluator()
    with pytest.raises(ConfigError, match="has 3 actions, the network 4"):
        evaluator.evaluate(Boards(np.zeros((1, *SHAPE), np.float32), np.ones((1, 3), bool)))
    with pytest.raises(ConfigError, match=r"shape \[2, 4, 3\], the network takes \[2, 3, 4\]"):
        evaluator.evaluate(Boards(np.zeros((1, 2, 4, 3), np.float32), np.ones((1, 4), bool)))

    class Listed(Boards):
        def candidates(self) -> Sequence[Sequence[Any]]:
            return [("a", "b")]

    with pytest.raises(ConfigError, match="lists candidates"):
        evaluator.evaluate(Listed(np.zeros((1, *SHAPE), np.float32), np.ones((1, 4), bool)))


def test_options_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="0 entries or more, not -1"):
        torch_evaluator(cache=-1)
    with pytest.raises(ConfigError, match="no symmetry 'mirror'"):
        torch_evaluator(symmetry="mirror")
    with pytest.raises(ConfigError, match="names no symmetries"):
        torch_evaluator(symmetry="average").evaluate(boards(2, "none"))


# --- judges without a network -----------------------------------------------------------------------------------


def test_uniform_looks_at_nothing() -> None:
    positions = boards(6)
    priors, values = UniformEvaluator().evaluate(positions)
    np.testing.assert_allclose(priors, positions.legal / positions.legal.sum(1, keepdims=True))
    assert values.tolist() == [0] * 6 and priors.dtype == values.dtype == np.float64 and not positions.asked


class Countdown:
    """Take 1 or 2 from a heap; who takes the last one wins. States are (heap, player to move)."""

    players, actions, observation_shape = 2, 2, (1,)

    def initial(self) -> tuple[int, int]:
        return 4, 0

    def legal(self, state: tuple[int, int]) -> Sequence[int]:
        return [0] if state[0] == 1 else [0, 1]

    def step(self, state: tuple[int, int], action: int) -> tuple[tuple[int, int], float, bool, int]:
        heap, player = state[0] - action - 1, state[1]
        return (heap, 1 - player), float(heap == 0), heap == 0, 1 - player

    def observe(self, state: tuple[int, int]) -> np.ndarray:
        return np.array([state[0]], np.float32)


@dataclass
class States:
    """Positions of a Python game; `listed` gives each state's candidates."""

    items: Sequence[Any]
    legal: np.ndarray
    to_play: np.ndarray
    listed: Sequence[Sequence[Any]] | None = None

    def __len__(self) -> int:
        return len(self.items)

    def observations(self) -> np.ndarray:
        raise AssertionError("nobody should look")

    def keys(self) -> None:
        return None

    def symmetries(self) -> Sequence[Symmetry]:
        return []

    def states(self) -> Sequence[Any]:
        return self.items

    def candidates(self) -> Sequence[Sequence[Any]] | None:
        return self.listed

    def take(self, indices: np.ndarray) -> States:
        raise AssertionError("nobody should take")


def heaps(*states: tuple[int, int]) -> States:
    legal = np.array([[True, heap > 1] for heap, _ in states])
    return States(states, legal, np.array([player for _, player in states], np.int8))


def test_rollouts_by_hand() -> None:
    # V(0 left, to move) = -1; V(1) = 1; V(2) = mean(-V(1), 1) = 0; V(3) = mean(-V(2), -V(1)) = -1/2;
    # V(4) = mean(-V(3), -V(2)) = 1/4, whoever moves
    evaluator = RolloutEvaluator(Countdown(), np.random.default_rng(0), 4000)
    priors, values = evaluator.evaluate(heaps((1, 0), (1, 1), (2, 0), (3, 1), (4, 0), (4, 1)))
    assert priors.tolist() == [[1, 0], [1, 0], *[[0.5, 0.5]] * 4]
    assert values[:2].tolist() == [1, 1]
    assert values.tolist() == pytest.approx([1, 1, 0, -0.5, 0.25, 0.25], abs=0.07)  # 4 standard errors


def test_rollouts_belong_to_their_generator() -> None:
    one, two = (RolloutEvaluator(Countdown(), np.random.default_rng(7), 3) for _ in range(2))
    for _ in range(3):
        np.testing.assert_array_equal(one.evaluate(heaps((4, 0)))[1], two.evaluate(heaps((4, 0)))[1])


class Walk:
    """One player, words as actions. A step costs 1; then heads, P = 0.25, goes on and tails ends and pays 10."""

    players, actions, observation_shape = 1, None, (1,)

    def initial(self) -> str:
        return "decide"

    def legal(self, state: str) -> Sequence[str]:
        return ["walk"]

    def chance(self, state: str) -> Sequence[tuple[str, float]]:
        return [("heads", 0.25), ("tails", 0.75)] if state == "coin" else []

    def step(self, state: str, action: str) -> tuple[str, float, bool, int]:
        if state == "decide":
            return "coin", -1.0, False, 0
        return ("decide", 0.0, False, 0) if action == "heads" else ("end", 10.0, True, 0)

    def observe(self, state: str) -> np.ndarray:
        return np.zeros(1, np.float32)


@pytest.mark.parametrize("discount", [1.0, 0.9])
def test_rollouts_of_one_player_with_chance_candidates_and_discount(discount: float) -> None:
    # V = -1 + 0.75 * 10 + 0.25 * d * V, so V = 6.5 / (1 - 0.25 d): 8.6667 at d = 1, 8.3871 at 0.9: a walk and its coin
    # are one decision
    evaluator = RolloutEvaluator(Walk(), np.random.default_rng(0), 4000, discount=discount)
    positions = States(["decide"], np.ones((1, 1), bool), np.zeros(1, np.int8), [["walk"]])
    expected = 6.5 / (1 - 0.25 * discount)
    assert evaluator.evaluate(positions)[1].tolist() == pytest.approx([expected], abs=0.1)  # an edge too many: 7.21


def test_an_oracle_says_what_it_is_given() -> None:
    positions = heaps((1, 0), (3, 1))
    priors, values = OracleEvaluator(lambda state: -1.0 if state[0] % 3 == 0 else 1.0).evaluate(positions)
    assert priors.tolist() == [[1, 0], [0.5, 0.5]] and values.tolist() == [1, -1]
    weighted = OracleEvaluator(lambda state: 0.0, lambda state: [1, 3])
    assert weighted.evaluate(positions)[0].tolist() == [[1, 0], [0.25, 0.75]]
    short = OracleEvaluator(lambda state: 0.0, lambda state: [2.0] if state[0] == 1 else [1, 1])  # as candidates have
    assert short.evaluate(positions)[0].tolist() == [[1, 0], [0.5, 0.5]]


@pytest.mark.parametrize("weights", [[0.0, 1.0], [-1.0, 3.0], [np.nan, 1.0], [np.inf, 1.0]])
def test_an_oracle_must_have_an_opinion_on_legal_actions(weights: list[float]) -> None:
    with pytest.raises(DataError, match="weights >= 0, finite"):
        OracleEvaluator(lambda state: 0.0, lambda state: weights).evaluate(heaps((1, 0)))


def test_rollouts_need_a_game() -> None:
    with pytest.raises(ConfigError, match="1 game or more per position, not 0"):
        RolloutEvaluator(Countdown(), np.random.default_rng(0), 0)
