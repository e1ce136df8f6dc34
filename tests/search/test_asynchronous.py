from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator, uniform_priors
from troupe.envs.connect_four import ConnectFour
from troupe.envs.pig import Pig
from troupe.envs.tictactoe import TicTacToe
from troupe.errors import ConfigError, DataError
from troupe.protocols import Positions, Proposal
from troupe.search.asynchronous import Ticker, state_id, trace_of
from troupe.search.config import SearchConfig
from troupe.search.search import Search, run

PUCT = SearchConfig(algorithm="puct", simulations=24, kernels="numpy")
GUMBEL = SearchConfig(simulations=24, kernels="numpy")


def ticker(evaluator: Any, config: SearchConfig = PUCT, **options: Any) -> Ticker:
    return Ticker(evaluator, config, **{"generator": np.random.default_rng(0), "threads": False, **options})


class Hashed:
    """Priors and values that depend on the position alone, and on all of it."""

    def __init__(self) -> None:
        self.sizes: list[int] = []

    def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        self.sizes.append(len(positions))
        if not len(positions):
            return np.zeros(positions.legal.shape), np.zeros(0)
        draws = [np.random.default_rng(int(state_id(state), 16)) for state in positions.states()]
        weights = np.stack([draw.random(positions.legal.shape[1]) for draw in draws]) * positions.legal
        return weights / weights.sum(1, keepdims=True), np.array([draw.uniform(-1, 1) for draw in draws])


class Awaited(Hashed):
    async def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        await asyncio.sleep(0.001)
        return super().evaluate(positions)


def tictactoe_states(n: int) -> list[Any]:
    game, generator, found = TicTacToe(), np.random.default_rng(3), []
    while len(found) < n:
        state, done = game.initial(), False
        for _ in range(int(generator.integers(6))):
            state, _, done, _ = game.step(state, int(generator.choice(game.legal(state))))
            if done:
                break
        if not done:
            found.append(state)
    return found


@pytest.mark.parametrize("evaluator", [Hashed, Awaited])
@pytest.mark.parametrize("config", [PUCT, GUMBEL])
def test_every_search_finds_what_the_synchronous_driver_finds(
    evaluator: Callable[[], Any], config: SearchConfig
) -> None:
    """With noise, more callers than slots, and games of two kinds of states side by side."""
    states = tictactoe_states(12)

    async def all_of_them() -> list[Any]:
        shared = ticker(evaluator(), config, slots=5)
        calls = [
            shared.search(TicTacToe(), s, generator=np.random.default_rng(i), trace=True) for i, s in enumerate(states)
        ]
        return await asyncio.gather(*calls)

    for i, (state, found) in enumerate(zip(states, asyncio.run(all_of_them()), strict=True)):
        alone = Search(TicTacToe(), config, slots=1, generator=np.random.default_rng(i))
        alone.place(np.array([0]), [state])
        roots = run(alone, Hashed())
        legal = list(found.actions)
        assert legal == list(TicTacToe().legal(state)) and found.action == roots.edges[0]
        np.testing.assert_array_equal(found.visits, roots.visits[0, legal])
        np.testing.assert_array_equal(found.policy, roots.policy[0, legal])
        np.testing.assert_array_equal(found.q, roots.q[0, legal])
        assert found.value == roots.value[0]


def test_callers_share_one_batch() -> None:
    judge = Hashed()

    async def play() -> Ticker:
        shared = ticker(judge, slots=16)
        await asyncio.gather(*(shared.search(TicTacToe()) for _ in range(16)))
        return shared

    shared = asyncio.run(play())
    assert judge.sizes[0] == 16 and shared.ticks == len(judge.sizes) <= 26
    assert shared.rows == sum(judge.sizes) and shared.live == 0


def test_callers_that_ask_again_meet_in_the_next_wave() -> None:
    judge = Hashed()

    async def one(shared: Ticker) -> None:
        for _ in range(3):
            await shared.search(TicTacToe())

    async def play() -> None:
        shared = ticker(judge, SearchConfig(algorithm="puct", simulations=4, kernels="numpy"))
        await asyncio.gather(*(one(shared) for _ in range(8)))

    asyncio.run(play())
    assert judge.sizes == [8] * 15


class Sleeps(Hashed):
    """Falls asleep for good over the opening of Tic-tac-toe, when it is alone in the batch or not."""

    def __init__(self) -> None:
        super().__init__()
        self.given_up = 0

    async def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
        if (0, 0) in positions.states():
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                self.given_up += 1
                raise
        return super().evaluate(positions)


def test_a_time_limit_interrupts_a_sleeping_evaluator() -> None:
    judge = Sleeps()

    async def play() -> float:
        shared = ticker(judge, slots=1)
        began = time.perf_counter()
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await shared.search(TicTacToe())
        waited = time.perf_counter() - began
        found = await shared.search(TicTacToe(), (1, 2))  # the slot is free, and the evaluation was given up
        assert found.visits.sum() == 24
        return waited

    assert asyncio.run(play()) < 0.2 and judge.given_up == 1


def test_cancelled_callers_free_their_slots_and_nobody_else_notices() -> None:
    gate = asyncio.Event()

    class Waits(Hashed):
        async def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[override]
            await gate.wait()
            return super().evaluate(positions)

    states = tictactoe_states(4)

    async def play() -> list[Any]:
        shared = ticker(Waits(), slots=3)
        calls = [
            asyncio.create_task(shared.search(TicTacToe(), s, generator=np.random.default_rng(i)))
            for i, s in enumerate(states)
        ]
        await asyncio.sleep(0.01)  # three are in the wave, one is in line
        assert shared.live == 3
        calls[1].cancel()
        with pytest.raises(asyncio.CancelledError):
            await calls[1]
        assert shared.live == 2
        gate.set()
        return [await calls[i] for i in (0, 2, 3)]

    for i, found in zip((0, 2, 3), asyncio.run(play()), strict=True):
        alone = Search(TicTacToe(), PUCT, slots=1, generator=np.random.default_rng(i))
        alone.place(np.array([0]), [states[i]])
        np.testing.assert_array_equal(found.visits, run(alone, Hashed()).visits[0, list(found.actions)])


def test_a_blocking_evaluator_stops_no_time_limit() -> None:
    class Blocks:
        def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
            time.sleep(0.4)
            return UniformEvaluator().evaluate(positions)

    async def play() -> float:
        shared = ticker(Blocks(), SearchConfig(simulations=1, kernels="numpy"), threads=True)
        began = time.perf_counter()
        patient = asyncio.create_task(shared.search(TicTacToe()))
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.05):
                await shared.search(TicTacToe())
        waited = time.perf_counter() - began
        assert (await patient).visits.sum() == 1
        return waited

    assert asyncio.run(play()) < 0.25


def test_what_an_evaluator_raises_goes_to_the_callers_of_that_wave() -> None:
    class Fails(Hashed):
        def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
            if (0, 0) in positions.states():
                raise RuntimeError("out of memory")
            return super().evaluate(positions)

    async def play() -> None:
        shared = ticker(Fails(), slots=2)
        calls = [shared.search(TicTacToe(), s) for s in ((0, 0), (1, 2), (4, 8))]  # the third waits in line
        first, second, third = await asyncio.gather(*calls, return_exceptions=True)
        assert isinstance(first, RuntimeError) and str(second) == "out of memory"
        assert not isinstance(third, BaseException) and third.visits.sum() == 24
        assert shared.live == 0

    asyncio.run(play())


def test_a_nonsense_answer_is_an_error_of_its_callers() -> None:
    class Nan:
        def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
            return uniform_priors(positions.legal), np.full(len(positions), np.nan)

    with pytest.raises(DataError, match="not finite"):
        asyncio.run(ticker(Nan()).search(TicTacToe()))


def test_games_that_do_not_fit_are_their_callers_error_alone() -> None:
    async def play() -> None:
        shared = ticker(Hashed())
        fits, does_not = await asyncio.gather(
            shared.search(TicTacToe()), shared.search(ConnectFour()), return_exceptions=True
        )
        assert not isinstance(fits, BaseException) and isinstance(does_not, DataError)
        assert "observations" in str(does_not)

    asyncio.run(play())


def test_chance_is_rolled_by_the_searchs_own_generator() -> None:
    async def play(seed: int, company: int) -> Any:
        shared = ticker(Hashed())
        others = [asyncio.create_task(shared.search(Pig(6))) for _ in range(company)]
        found = await shared.search(Pig(6), generator=np.random.default_rng(seed))
        await asyncio.gather(*others)
        return found.visits.tolist()

    assert asyncio.run(play(1, 0)) == asyncio.run(play(1, 5))


class Countdown:
    """Candidates: from n, take away 1 or 2; who reaches 0 exactly is paid 1."""

    players = 1
    actions = None
    observation_shape = (1,)

    def initial(self) -> int:
        return 5

    def legal(self, state: int) -> tuple[str, ...]:
        return ("whatever comes to mind",)

    def step(self, state: int, action: str) -> tuple[int, float, bool, int]:
        after = state - int(action.removeprefix("take "))
        return after, float(after == 0), after <= 0, 0

    def observe(self, state: int) -> np.ndarray:
        return np.array([state], np.float32)


class Model:
    """A proposer that awaits, as a language model does."""

    def __init__(self, proposal: Callable[[int], Proposal]) -> None:
        self.proposal, self.asked = proposal, 0

    def propose(self, states: Sequence[int]) -> Awaitable[list[Proposal]]:
        self.asked += 1

        async def answer() -> list[Proposal]:
            await asyncio.sleep(0)
            return [self.proposal(state) for state in states]

        return answer()


def test_a_proposer_names_the_actions() -> None:
    model = Model(lambda state: Proposal(("take 3", "take 2", "take 1"), (0.2, 0.2, 0.6), 0.1))
    config = SearchConfig(algorithm="puct", simulations=60, leaves=3, kernels="numpy")
    shared = ticker(model, config, explore=False)
    found = asyncio.run(shared.search(Countdown(), 2, trace=True))
    assert found.actions == ("take 3", "take 2", "take 1") and found.action == "take 2"
    assert found.prior.tolist() == pytest.approx([0.2, 0.2, 0.6]) and found.visits.sum() == 60
    assert found.trace is not None and found.trace.prior_probs == pytest.approx(
        {"take 3": 0.2, "take 2": 0.2, "take 1": 0.6}
    )
    assert model.asked <= 3  # a root and one more state; no other has to be proposed for


@pytest.mark.parametrize(
    ("proposal", "message"),
    [
        (Proposal((), (), 0.0), "gave 0 actions"),
        (Proposal(("take 1", "take 1"), (0.5, 0.5), 0.0), "all different"),
        (Proposal(("take 1",), (-1.0,), 0.0), "one number >= 0"),
        (Proposal(tuple(f"take {i}" for i in range(17)), (1.0,) * 17, 0.0), "1 to 16"),
    ],
)
def test_a_proposal_that_cannot_be_searched(proposal: Proposal, message: str) -> None:
    with pytest.raises(DataError, match=message):
        asyncio.run(ticker(Model(lambda state: proposal)).search(Countdown()))


def test_a_ticker_is_used_again_in_another_loop() -> None:
    shared = ticker(Hashed())
    first, second = (asyncio.run(shared.search(TicTacToe(), generator=np.random.default_rng(1))) for _ in range(2))
    assert first.visits.tolist() == second.visits.tolist()


def test_the_temperature_follows_the_moves_made() -> None:
    config = SearchConfig(algorithm="puct", simulations=30, temperature_moves=2, dirichlet_epsilon=0.0, kernels="numpy")

    async def actions(moves: int) -> set[int]:
        shared = ticker(Hashed(), config)
        calls = [shared.search(TicTacToe(), moves=moves, generator=np.random.default_rng(i)) for i in range(30)]
        return {found.action for found in await asyncio.gather(*calls)}

    assert len(asyncio.run(actions(1))) > 1 and len(asyncio.run(actions(2))) == 1


def test_a_trace_says_what_the_search_did() -> None:
    """Own stones on 0 and 1, the other's on 3 and 4: 2 wins. The search must put nearly all visits there."""
    config = SearchConfig(algorithm="puct", simulations=40, kernels="numpy")
    search = Search(TicTacToe(), config, slots=2, generator=np.random.default_rng(0), explore=False)
    state = (0b11, 0b11000)
    search.place(np.array([1]), [state])
    search.stop(np.array([0]))
    with pytest.raises(DataError, match="not been searched"):
        trace_of(search, 1)
    run(search, UniformEvaluator())
    trace = trace_of(search, 1, seconds=0.5)
    assert trace.root_state_id == state_id(state) and trace.num_simulations == 40 and trace.search_time == 0.5
    assert set(trace.visit_counts) == set(trace.q_values) == set(trace.prior_probs) == {"2", "5", "6", "7", "8"}
    assert trace.selected_action == "2" and trace.q_values["2"] == 1.0 and trace.visit_counts["2"] > 20
    assert sum(trace.visit_counts.values()) == 40 and trace.prior_probs["2"] == pytest.approx(0.2)
    # 36 of 40 simulations go to the end of the game at depth 1; the other four actions are tried once each.
    assert trace.tree_depth == 1 and set(trace.visit_counts.values()) == {36, 1}
    assert len(trace.value_estimates) == 5 and set(trace.value_estimates.values()) == {0.0}
    assert trace.root_state_id in trace.value_estimates
    search.place(np.array([0]), [TicTacToe().initial()])
    run(search, UniformEvaluator())
    deep = trace_of(search, 0)
    assert 2 <= deep.tree_depth <= 9 and len(deep.value_estimates) > 30


@pytest.mark.parametrize("options", [{"slots": 0}, {"proposals": 0}])
def test_a_ticker_needs_room(options: dict[str, int]) -> None:
    with pytest.raises(ConfigError, match="or more"):
        ticker(Hashed(), **options)
