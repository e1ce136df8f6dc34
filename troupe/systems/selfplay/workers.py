"""Who plays the chunks: processes of one thread each, or nobody but the trainer itself.

What a chunk gives depends on its seed and on the weights alone, so it does not matter who plays it, or when.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context
from typing import TYPE_CHECKING, Any, Protocol

from troupe.errors import TrainingError
from troupe.systems.selfplay.chunks import Chunk, play_chunk
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.players import search_game

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Crew", "Desk", "GameDesk", "arrays_of", "chunk_sizes"]


class Desk(Protocol):
    """What one process needs to play: a game, a network, an evaluator. It is made anew in each."""

    def play(self, *job: Any) -> Any:
        """What a job brings; a function of the job alone."""
        ...


def chunk_sizes(games: int, chunk: int) -> list[int]:
    """How many games each chunk has."""
    return [min(chunk, games - begin) for begin in range(0, games, chunk)]


def arrays_of(weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Weights as they travel to a desk: copies, which learning does not change."""
    return {name: tensor.detach().cpu().numpy().copy() for name, tensor in weights.items()}


class Crew:
    """Does the jobs of iterations. `order` says which, `gather` waits for them; their order is kept.

    `make_desk` is called once in each process, so it must be a function that they can import, or a partial of one.
    """

    def __init__(self, workers: int, make_desk: Callable[[], Desk]) -> None:
        self._pool: ProcessPoolExecutor | None = None
        self._ordered: dict[Hashable, Any] = {}
        self._clocks: dict[int, float] = {}
        if workers:
            # A fresh interpreter per worker: forking one that holds torch and its threads can deadlock.
            self._pool = ProcessPoolExecutor(
                workers, mp_context=get_context("spawn"), initializer=_prepare, initargs=(make_desk,)
            )
        else:
            self._own = make_desk()

    def order(self, key: Hashable, jobs: Sequence[tuple[Any, ...]]) -> None:
        """Asks for some jobs: those of an iteration, as a rule."""
        with _alive():
            self._ordered[key] = jobs if self._pool is None else [self._pool.submit(_play, *job) for job in jobs]

    def gather(self, key: Hashable) -> list[Any]:
        """What the jobs brought that were ordered. Raises TrainingError where a worker has died."""
        ordered = self._ordered.pop(key)
        if self._pool is None:
            return [self._own.play(*job) for job in ordered]
        with _alive():
            told = [future.result() for future in ordered]
        for _, process, seconds in told:
            self._clocks[process] = max(seconds, self._clocks.get(process, 0.0))
        return [chunk for chunk, _, _ in told]

    @property
    def cpu_seconds(self) -> float:
        """What the worker processes have used, from their start to the last chunk that each one handed in."""
        return sum(self._clocks.values())

    def close(self) -> None:
        if self._pool is not None:
            self._pool.shutdown(wait=True, cancel_futures=True)


@contextmanager
def _alive() -> Iterator[None]:
    """Raises TrainingError where a worker has died."""
    try:
        yield
    except BrokenProcessPool as error:
        raise TrainingError(
            "a self-play worker died (killed, out of memory, or unable to import the game); the same command continues "
            "from the last checkpoint"
        ) from error


class GameDesk:
    """Plays chunks of a game. A `game` given in code reaches a process by its class, in a module that it can import."""

    def __init__(self, config: SelfPlayConfig, game: Any) -> None:
        from troupe.engines.evaluator import NetworkEvaluator
        from troupe.models.policy_value import policy_value_net

        self._config = config
        self._game = search_game(config.game, game)
        assert self._game.actions is not None
        self._net = policy_value_net(
            config.net, self._game.observation_shape, self._game.actions, seed=config.seed
        ).eval()
        acting = config.acting
        self._evaluator = NetworkEvaluator(
            self._net, precision=acting.precision, runtime=acting.runtime, cache=acting.cache
        )
        self._loaded = -1

    def play(self, iteration: int, number: int, games: int, arrays: Mapping[str, Any]) -> Chunk:
        import torch

        from troupe.models.policy_value import load_weights

        if iteration != self._loaded:
            load_weights(self._net, {name: torch.from_numpy(array) for name, array in arrays.items()})
            self._evaluator.refresh(self._net)
            self._loaded = iteration
        evaluator = self._evaluator
        evaluator.clear()  # a chunk must not see what an earlier one has left in the cache
        evaluator.calls = evaluator.evaluated = evaluator.cache_hits = 0
        config = self._config
        return play_chunk(self._game, evaluator, config.search, config.acting, games, (config.seed, iteration, number))


_desk: Desk | None = None
"""Of a worker process."""


def _prepare(make_desk: Callable[[], Desk]) -> None:
    global _desk
    os.environ["OMP_NUM_THREADS"] = "1"
    import signal
    import threading

    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the trainer's to handle
    torch.set_num_threads(1)
    _desk = make_desk()


def _end_with_parent() -> None:
    """A trainer that is killed cannot tell its workers, and they would wait for orders for ever."""
    from multiprocessing import parent_process
    from multiprocessing.connection import wait

    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)


def _play(*job: Any) -> tuple[Any, int, float]:
    """What the job brings, who did it, and that process's CPU-seconds so far."""
    assert _desk is not None
    return _desk.play(*job), os.getpid(), time.process_time()
