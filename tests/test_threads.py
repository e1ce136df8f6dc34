"""Blocking work in threads that nobody has to wait for."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest

from troupe.threads import in_thread, within

NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("number", default=0)


def fail(error: BaseException) -> None:
    raise error


def test_the_result_comes_back_and_the_context_goes_along() -> None:
    async def ask() -> tuple[int, bool]:
        NUMBER.set(7)
        return await in_thread(NUMBER.get), await in_thread(threading.current_thread) is not threading.main_thread()

    assert asyncio.run(ask()) == (7, True)
    assert within(5.0, lambda a, b: a + b, 2, 3) == 5


@pytest.mark.parametrize("error", [ValueError("no"), KeyboardInterrupt(), TimeoutError("its own")])
def test_what_it_raises_is_raised_again(error: BaseException) -> None:
    async def ask() -> None:
        with pytest.raises(type(error)):
            await in_thread(fail, error)

    asyncio.run(ask())
    with pytest.raises(type(error)):
        within(5.0, fail, error)


def test_stop_iteration_does_not_hang_its_caller() -> None:
    async def ask() -> None:
        with pytest.raises(RuntimeError, match="StopIteration: end"):
            await asyncio.wait_for(in_thread(fail, StopIteration("end")), 5.0)

    asyncio.run(ask())


def test_work_that_never_ends_holds_up_neither_the_loop_nor_its_caller() -> None:
    never = threading.Event()

    async def ask() -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(in_thread(never.wait), 0.1)

    began = time.monotonic()
    asyncio.run(ask())
    with pytest.raises(TimeoutError, match=r"longer than 0\.1 s"):
        within(0.1, never.wait)
    assert time.monotonic() - began < 5.0
    never.set()  # both threads tell a loop that is closed, and a queue that nobody reads


def test_without_a_limit_it_runs_here() -> None:
    assert within(None, threading.current_thread) is threading.current_thread()
