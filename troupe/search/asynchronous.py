"""Many coroutines, one search: each awaits its own tree, and their leaves are judged in one batch.

    ticker = Ticker(evaluator, SearchConfig(simulations=64), slots=32, generator=np.random.default_rng(0))
    found = await ticker.search(TicTacToe(), state, to_play=1)   # in as many coroutines as there are games
    found.action, found.policy, found.value

A tick takes one wave over all live trees, evaluates it, updates, and answers the callers whose searches are complete. A
caller may be cancelled at any moment, by a time limit for one: its slot is free at once, and nobody else notices.

The driver is declared inexact: timing decides who shares a batch. Noise is each search's own, so batches change no more
than an evaluator's rounding; where its rows do not depend on their neighbours, every search finds what the synchronous
driver finds.
"""

from __future__ import annotations

import asyncio
import inspect
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from typing import Any, cast

import numpy as np

from troupe.episode import MCTSTrace
from troupe.errors import ConfigError, DataError
from troupe.protocols import Evaluator, Game, Proposal, Proposer
from troupe.search import puct
from troupe.search.config import SearchConfig
from troupe.search.search import Roots, Search, Wave
from troupe.search.tree import DECISION
from troupe.search.worlds import PythonWorld, world_of

__all__ = ["Found", "Ticker", "action_id", "state_id", "trace_of"]


@dataclass(frozen=True, slots=True)
class Found:
    """What one search found. The arrays run along `actions`, the legal ones at the root."""

    action: Any  # what to play
    actions: tuple[Any, ...]  # [k]
    policy: np.ndarray  # float64 [k]: the target for a policy
    visits: np.ndarray  # int32 [k]
    q: np.ndarray  # float64 [k]: mean returns; 0 where unvisited
    prior: np.ndarray  # float64 [k]: before any noise
    value: float  # mean return over all simulations and the evaluation, to the player to move
    trace: MCTSTrace | None  # where it was asked for


def action_id(action: Any) -> str:
    """The name of an action in a trace."""
    return str(action)


def state_id(state: Any) -> str:
    """A name for a state by its content: 16 hexadecimal digits."""
    content = state.tobytes() if isinstance(state, np.ndarray) else repr(state).encode()
    return blake2b(content, digest_size=8).hexdigest()


def trace_of(
    search: Search, slot: int, roots: Roots | None = None, *, selected: str | None = None, seconds: float = 0.0
) -> MCTSTrace:
    """The tree of one slot as a record: counts, Q and priors of the root's actions, and what was evaluated below.

    `tree_depth` is the number of actions on the longest path; `value_estimates` are the evaluator's, each as the player
    to move in that state sees it. `roots` is `search.roots([slot])` where it was asked for before: asking again may
    draw again. `selected` (default: what the search would play) names the action chosen. Raises DataError for a slot
    whose root was never evaluated.
    """
    tree, world, at = search.tree, search.world, np.array([slot])
    if tree.kind[slot, 0] != DECISION:
        raise DataError(f"slot {slot} has not been searched yet: its root waits for an evaluation")
    roots = search.roots(at) if roots is None else roots
    legal = search.root_positions(at).legal[0]
    edges = np.flatnonzero(legal).tolist()
    names = [action_id(world.action_of(slot, 0, edge)) for edge in edges]
    if selected is None:
        selected = action_id(world.action_of(slot, 0, int(roots.edges[0])))
    depth = [0] * int(tree.size[slot])
    for node in range(1, len(depth)):  # parents come before their children
        depth[node] = depth[tree.parent[slot, node]] + 1
    judged = np.flatnonzero(tree.kind[slot, : len(depth)] == DECISION)
    states = world.states(np.full(len(judged), slot), judged)
    return MCTSTrace(
        root_state_id=state_id(states[0]),
        num_simulations=int(roots.visits[0].sum()),
        visit_counts={name: int(roots.visits[0, edge]) for name, edge in zip(names, edges, strict=True)},
        q_values={name: float(roots.q[0, edge]) for name, edge in zip(names, edges, strict=True)},
        prior_probs={name: float(roots.prior[0, edge]) for name, edge in zip(names, edges, strict=True)},
        selected_action=selected,
        tree_depth=max(depth),
        search_time=seconds,
        value_estimates={
            state_id(state): float(tree.value[slot, node]) for state, node in zip(states, judged.tolist(), strict=True)
        },
    )


@dataclass(eq=False, slots=True)
class _Caller:
    """One search that somebody waits for."""

    game: Game
    state: Any
    to_play: int | None
    moves: int
    generator: np.random.Generator
    traced: bool
    future: asyncio.Future[Found]
    slot: int = -1  # -1: waits for one
    began: float = field(default_factory=time.perf_counter)


class _Streams:
    """A generator of its own for each row, in the place of one for all, and as many draws as its own game takes: what a
    search draws does not depend on who shares its wave, nor on how wide the widest of them is."""

    def __init__(self) -> None:
        self.rows: list[np.random.Generator] = []
        self.widths: list[int] = []

    def gumbel(self, size: tuple[int, int]) -> np.ndarray:
        return self._filled(size, lambda row, n: row.gumbel(size=n))

    def standard_gamma(self, alpha: float, size: tuple[int, int]) -> np.ndarray:
        return self._filled(size, lambda row, n: row.standard_gamma(alpha, n))

    def random(self, size: int) -> np.ndarray:
        return np.array([row.random() for row in self.rows])

    def _filled(self, size: tuple[int, int], draw: Callable[[np.random.Generator, int], np.ndarray]) -> np.ndarray:
        out = np.zeros(size)
        for place, row, width in zip(out, self.rows, self.widths, strict=True):
            place[:width] = draw(row, width)
        return out


class _Worker:
    """A daemon thread that asks an evaluator, one wave after the other: a network's first call in a new thread costs as
    much as several waves, and nobody must wait for a thread that never comes back."""

    def __init__(self, ask: Callable[[Any], Any]) -> None:
        self._ask = ask
        self._questions: queue.SimpleQueue[tuple[asyncio.Future[Any], Any] | None] = queue.SimpleQueue()
        self._busy = False
        self._thread = threading.Thread(target=self._run, name="evaluator", daemon=True)
        self._thread.start()

    async def ask(self, question: Any) -> Any:
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._questions.put((answer, question))
        return await answer

    def close(self) -> None:
        """Ends the thread. One that is idle is waited for, which takes microseconds: a thread that has used torch and
        is still on its way out when the interpreter ends takes the process down with it."""
        self._questions.put(None)
        if not self._busy:
            self._thread.join(1.0)

    def _run(self) -> None:
        while (item := self._questions.get()) is not None:
            future, question = item
            self._busy = True
            try:
                result, error = self._ask(question), None
            except BaseException as raised:  # raised again where the answer is waited for
                result, error = None, raised
            self._busy = False
            with suppress(RuntimeError):  # the loop is closed: nobody waits any more
                future.get_loop().call_soon_threadsafe(_tell, future, result, error)


def _tell(future: asyncio.Future[Any], result: Any, error: BaseException | None) -> None:
    if future.done():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(RuntimeError(f"StopIteration: {error}") if isinstance(error, StopIteration) else error)


class Ticker:
    """One search with `slots` trees for any number of callers; those who find none free wait in line.

    The games of all callers agree in players and observation_shape. An evaluator or proposer that is a coroutine
    function is awaited, and given up once nobody waits for its answer. Another one runs in a thread, so that time
    limits hold meanwhile, but nothing can stop it; `threads=False` calls it on the event loop, which saves some 0.2 ms
    a wave. With a proposer, the actions of a state are those that it proposes, at most `proposals`. `returns` as in
    `Search`.

    What an evaluator raises goes to the callers of its wave. `ticks` counts waves, `rows` the positions judged.
    """

    def __init__(
        self,
        evaluator: Evaluator | Proposer,
        config: SearchConfig,
        *,
        slots: int = 64,
        generator: np.random.Generator,
        explore: bool = True,
        threads: bool = True,
        proposals: int = 16,
        returns: tuple[float, float] | None = None,
    ) -> None:
        if slots < 1 or proposals < 1:
            raise ConfigError(f"a ticker needs 1 slot and 1 proposal or more, not {slots} and {proposals}")
        self.config, self.explore, self.slots = config, explore, slots
        self.ticks = self.rows = 0
        self._proposes = hasattr(evaluator, "propose")
        self._ask: Callable[[Any], Any] = evaluator.propose if self._proposes else evaluator.evaluate  # type: ignore[union-attr]
        self._awaits = inspect.iscoroutinefunction(self._ask)
        self._threads, self._proposals, self._returns = threads, proposals, returns
        self._generator, self._streams = generator, _Streams()
        self._search: Search | None = None
        self._waiting: deque[_Caller] = deque()
        self._live: dict[int, _Caller] = {}
        self._free = list(range(slots))[::-1]
        self._held: dict[int, _Caller] = {}  # by slot, its last caller, who may have gone while its wave is in flight
        self._task: asyncio.Task[None] | None = None
        self._worker: _Worker | None = None
        self._judging: asyncio.Task[Any] | None = None
        self._judged: set[_Caller] = set()

    @property
    def live(self) -> int:
        """Searches under way."""
        return len(self._live)

    async def search(
        self,
        game: Game,
        state: Any | None = None,
        *,
        to_play: int | None = None,
        moves: int = 0,
        generator: np.random.Generator | None = None,
        trace: bool = False,
    ) -> Found:
        """Searches from `state` (None: the game's first). `to_play` says who moves there where the game does not say so
        by a method of that name. `moves` made so far matter to a temperature that changes; the noise comes from
        `generator`, or from one that the ticker's own spawns.

        Raises DataError for a game that does not fit beside the others, and whatever the evaluator raises.
        """
        loop = asyncio.get_running_loop()
        stream = self._generator.spawn(1)[0] if generator is None else generator
        caller = _Caller(game, state, to_play, moves, stream, trace, loop.create_future())
        self._waiting.append(caller)
        if self._task is None or self._task.done():
            self._task = loop.create_task(self._run())
        elif self._task.get_loop() is not loop:
            self._waiting.remove(caller)
            raise ConfigError("this ticker serves another event loop; make one ticker per loop")
        try:
            return await caller.future
        finally:
            self._leave(caller)

    def _leave(self, caller: _Caller) -> None:
        """Frees what a caller holds; of one that has its answer that is nothing."""
        if caller in self._waiting:
            self._waiting.remove(caller)
        if self._live.get(caller.slot) is caller:
            self._release(caller)
        self._judged.discard(caller)
        if self._judging is not None and self._awaits and not self._judged:
            self._judging.cancel()

    def _release(self, caller: _Caller) -> None:
        # The wave in flight may still write into this tree. That harms nobody: slots are placed between waves only.
        assert self._search is not None
        self._search.stop(np.array([caller.slot]))
        del self._live[caller.slot]
        self._free.append(caller.slot)

    # ------------------------------------------------------------------------------------------ ticks

    async def _run(self) -> None:
        try:
            while self._waiting or self._live:
                self._admit()
                if self._live:
                    await self._tick()
                await asyncio.sleep(0)  # those who were answered ask again before the next wave
        except asyncio.CancelledError:
            for caller in [*self._waiting, *self._live.values()]:
                caller.future.cancel()
            raise
        except Exception as error:  # nobody may wait for ever
            for caller in [*self._waiting, *self._live.values()]:
                _settle(caller, error=error)
        finally:
            if self._worker is not None:
                self._worker.close()
                self._worker = None

    def _admit(self) -> None:
        while self._waiting and self._free:
            caller = self._waiting.popleft()
            slot = self._free.pop()
            try:
                self._place(slot, caller)
            except Exception as error:  # belongs to the caller whose game or state it is
                self._free.append(slot)
                _settle(caller, error=error)

    def _place(self, slot: int, caller: _Caller) -> None:
        if self._search is None:
            self._search = self._made(caller.game)
        world = cast(PythonWorld, self._search.world)
        world.assign(slot, caller.game)
        self._held[slot] = caller
        self._streams.rows = [caller.generator]
        states = None if caller.state is None else [caller.state]
        self._search.place(np.array([slot]), states, None if caller.to_play is None else np.array([caller.to_play]))
        caller.slot = slot
        self._live[slot] = caller

    def _made(self, game: Game) -> Search:
        world = world_of(game)
        if not isinstance(world, PythonWorld):
            raise DataError(f"{type(game).__name__} is a game on arrays; a ticker is for games in plain Python")
        if self._proposes:  # room for proposals, before the tree takes its width from the world
            world.resize(1, 1)
            world.name_candidates(0, 0, range(self._proposals))
        noise = cast(np.random.Generator, self._streams)
        options: dict[str, Any] = {"slots": self.slots, "generator": noise, "explore": self.explore}
        return Search(world, self.config, **options, returns=self._returns)

    async def _tick(self) -> None:
        assert self._search is not None
        try:
            wave = self._search.select()
        except Exception as error:  # a game's: the wave is lost for all, as nobody can say how far it came
            self._fail(list(self._live.values()), error)
            return
        if wave is not None:
            callers = [self._live[slot] for slot in sorted(set(wave.slots.tolist()))]
            try:
                wave, priors, values = await self._judge(wave, callers)
                self._tune(wave)
                self._search.update(wave, priors, values)
            except Exception as error:
                self._fail(callers, error)
                return
            self.ticks += 1
        self._answer()

    def _tune(self, wave: Wave) -> None:
        """Lays out the streams of the roots that this wave opens, in their order."""
        at = np.flatnonzero(wave.opens & (wave.nodes == 0))
        legal = wave.positions.legal[wave.rows[at]].sum(1).tolist()
        holders = [self._held[slot] for slot in wave.slots[at].tolist()]
        self._streams.rows = [caller.generator for caller in holders]
        self._streams.widths = [caller.game.actions or k for caller, k in zip(holders, legal, strict=True)]

    async def _judge(self, wave: Wave, callers: Iterable[_Caller]) -> tuple[Wave, np.ndarray, np.ndarray]:
        self.rows += len(wave.positions)
        if not len(wave.positions):  # only ends of games
            return wave, np.zeros(wave.positions.legal.shape), np.zeros(0)
        asked = wave.positions.states() if self._proposes else wave.positions
        if not self._awaits and not self._threads:
            answer = self._ask(asked)
            if inspect.isawaitable(answer):
                answer = await answer
        else:
            answer = await self._awaited(asked, callers)
        return self._named(wave, answer) if self._proposes else (wave, *answer)

    async def _awaited(self, asked: Any, callers: Iterable[_Caller]) -> Any:
        self._judged = set(callers)
        self._judging = task = asyncio.get_running_loop().create_task(self._called(asked))
        try:
            await asyncio.wait({task})
        except asyncio.CancelledError:
            task.cancel()
            raise
        finally:
            self._judging = None
        if task.cancelled():
            raise DataError("the evaluator was cancelled before it answered")
        return task.result()

    async def _called(self, asked: Any) -> Any:
        if self._awaits:
            return await self._ask(asked)
        if self._worker is None:
            self._worker = _Worker(self._ask)
        answer = await self._worker.ask(asked)
        return await answer if inspect.isawaitable(answer) else answer

    def _named(self, wave: Wave, proposals: Sequence[Proposal]) -> tuple[Wave, np.ndarray, np.ndarray]:
        """Puts proposals in the place of the games' own actions."""
        assert self._search is not None
        world, positions = cast(PythonWorld, self._search.world), wave.positions
        if len(proposals) != len(positions):
            raise DataError(f"the proposer gave {len(proposals)} proposals for {len(positions)} states; give one each")
        weights = [_weights(proposal, self._proposals) for proposal in proposals]
        where = zip(positions.slots.tolist(), positions.nodes.tolist(), proposals, strict=True)
        for slot, node, proposal in where:
            world.name_candidates(slot, node, proposal.actions)
        legal = np.zeros((len(proposals), world.width), dtype=bool)
        priors = np.zeros(legal.shape)
        for row, own in enumerate(weights):
            legal[row, : len(own)], priors[row, : len(own)] = True, own
        values = np.array([proposal.value for proposal in proposals], dtype=np.float64)
        return replace(wave, positions=replace(positions, legal=legal)), priors, values

    # ------------------------------------------------------------------------------------------ answers

    def _answer(self) -> None:
        assert self._search is not None
        done = [slot for slot in self._search.finished().tolist() if slot in self._live]
        for slot in done:
            caller = self._live[slot]
            try:
                found = self._found(caller)
            except Exception as error:
                self._fail([caller], error)
                continue
            self._release(caller)
            _settle(caller, found)

    def _found(self, caller: _Caller) -> Found:
        assert self._search is not None
        search, at = self._search, np.array([caller.slot])
        self._streams.rows = [caller.generator]
        roots = search.roots(at)
        edge = int(roots.edges[0])
        if self.explore and self.config.algorithm == "puct" and self.config.temperature_moves is not None:
            temperature = puct.temperature_of(self.config, np.array([caller.moves]))
            edge = int(puct.visit_action(roots.visits, temperature, self._streams.random(1))[0])
        legal = np.flatnonzero(search.root_positions(at).legal[0])
        actions = tuple(search.world.action_of(caller.slot, 0, e) for e in legal.tolist())
        action = search.world.action_of(caller.slot, 0, edge)
        seconds = time.perf_counter() - caller.began
        chosen = action_id(action)
        trace = trace_of(search, caller.slot, roots, selected=chosen, seconds=seconds) if caller.traced else None
        policy, visits, q, prior = (row[0, legal] for row in (roots.policy, roots.visits, roots.q, roots.prior))
        return Found(action, actions, policy, visits, q, prior, float(roots.value[0]), trace)

    def _fail(self, callers: Iterable[_Caller], error: Exception) -> None:
        for caller in callers:
            if self._live.get(caller.slot) is caller:
                self._release(caller)
                _settle(caller, error=error)


def _settle(caller: _Caller, found: Found | None = None, error: Exception | None = None) -> None:
    if caller.future.done():  # cancelled, and not yet gone
        return
    if error is not None:
        caller.future.set_exception(error)
    elif found is not None:
        caller.future.set_result(found)


def _weights(proposal: Proposal, most: int) -> np.ndarray:
    """The priors of a proposal, summing to 1. Raises DataError for a proposal that cannot be searched."""
    priors = np.asarray(proposal.priors, dtype=np.float64)
    n = len(proposal.actions)
    if not 1 <= n <= most or len(set(proposal.actions)) != n:
        raise DataError(f"the proposer gave {n} actions for a state; give 1 to {most}, all different")
    if priors.shape != (n,) or not np.isfinite(priors).all() or (priors < 0).any() or not priors.sum() > 0:
        raise DataError(f"the proposer gave priors {proposal.priors!r} for {n} actions; give one number >= 0 for each")
    return priors / priors.sum()
