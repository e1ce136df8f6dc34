"""Processes that learn beside one another."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from multiprocessing import get_context, parent_process
from multiprocessing.connection import wait

from troupe.errors import TrainingError

__all__ = ["learning_processes"]


@contextmanager
def learning_processes(count: int) -> Iterator[ProcessPoolExecutor]:
    """A pool of fresh interpreters: forking one that holds torch and its threads can deadlock. They end with this
    process, however it ends, so that whoever continues a killed run is alone in its folder; and where one of them
    fails, the others end at once.

    Raises TrainingError where one of them dies.
    """
    with ProcessPoolExecutor(count, mp_context=get_context("spawn"), initializer=_follow_parent) as pool:
        try:
            yield pool
        except BrokenProcessPool as error:
            raise TrainingError(
                "a process that learned died (killed, or out of memory); the same command continues from the last "
                "checkpoints"
            ) from error
        except BaseException:
            for process in list(pool._processes.values()):  # the others would learn on for nobody; they can continue
                process.terminate()
            raise
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


def _follow_parent() -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os._exit(1)
