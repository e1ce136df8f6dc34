"""Blocking work beside the event loop, in threads that nobody has to wait for.

`asyncio.to_thread` borrows a thread of the loop's pool, and the loop cannot end before it: work that never returns
stops the whole program, although whoever asked for it gave up long ago. Here every call has a daemon thread of its own.
One that is given up is left behind: it holds up neither the loop nor the end of the process.
"""

from __future__ import annotations

import asyncio
import contextvars
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

__all__ = ["in_thread", "within"]

T = TypeVar("T")


async def in_thread(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a thread, with the caller's context variables. Raises what it raises; cancelled, it
    leaves the thread to itself."""
    loop = asyncio.get_running_loop()
    answer: asyncio.Future[T] = loop.create_future()

    def settle(result: Any, error: BaseException | None) -> None:
        if answer.done():  # given up
            return
        if error is None:
            answer.set_result(result)
        else:
            answer.set_exception(error)

    def tell(result: Any, error: BaseException | None) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody asks any more
            loop.call_soon_threadsafe(settle, result, error)

    _start(function, arguments, tell)
    return await answer


def within(seconds: float | None, function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)`, waited for. Raises TimeoutError after `seconds` and leaves its thread to itself; without
    a limit it runs in this thread."""
    if seconds is None:
        return function(*arguments)
    answers: queue.SimpleQueue[tuple[Any, BaseException | None]] = queue.SimpleQueue()
    _start(function, arguments, lambda result, error: answers.put((result, error)))
    try:
        result, error = answers.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"longer than {seconds} s") from None
    if error is not None:
        raise error
    answer: T = result
    return answer


def _start(
    function: Callable[..., Any], arguments: tuple[Any, ...], tell: Callable[[Any, BaseException | None], None]
) -> None:
    def run() -> None:
        try:
            result = function(*arguments)
        except StopIteration as error:  # which no future may hold (PEP 479)
            tell(None, RuntimeError(f"StopIteration: {error}"))
        except BaseException as error:  # raised again where it is waited for
            tell(None, error)
        else:
            tell(result, None)

    name = getattr(function, "__name__", "work")
    threading.Thread(target=contextvars.copy_context().run, args=(run,), name=name, daemon=True).start()
