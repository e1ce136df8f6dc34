"""The process that compares LaTeX: right, bounded, replaceable, usable from threads and forks."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from troupe.errors import MissingExtra
from troupe.rewards import equivalence
from troupe.rewards.equivalence import EquivalenceWorker, UndecidedError, equivalent


@pytest.fixture(scope="module")
def worker() -> Iterator[EquivalenceWorker]:
    worker = EquivalenceWorker(pair_seconds=30.0)
    yield worker
    worker.close()


@pytest.mark.parametrize(
    ("given", "truth", "same"),
    [
        (r"\sqrt{12}", r"2\sqrt{3}", True),
        (r"\frac{\sqrt{2}}{2}", r"\frac{1}{\sqrt{2}}", True),
        ("1+x^2", "x^2+1", True),
        (r"(-\infty,5]", r"(-\infty,5]", True),
        (r"(-\infty,5)", r"(-\infty,5]", False),
        (r"\sqrt{11}", r"2\sqrt{3}", False),
        (r"1.41421356", r"\sqrt{2}", False),
        (r"\sqrt{2}, \sqrt{3}", r"\sqrt{2}", False),
        ("", r"\sqrt{2}", False),
    ],
)
def test_it_compares(worker: EquivalenceWorker, given: str, truth: str, same: bool) -> None:
    assert worker.equal(given, truth) is same


def test_a_dead_child_is_replaced(worker: EquivalenceWorker) -> None:
    worker.equal("1", "1")
    first = worker._child
    assert first is not None
    first.kill()
    first.wait()
    assert worker.equal(r"\sqrt{8}", r"2\sqrt{2}")
    assert worker._child is not first


def test_a_hanging_pair_is_undecided_and_the_next_one_works(worker: EquivalenceWorker) -> None:
    worker.equal("1", "1")
    worker.pair_seconds = 0.3
    with pytest.raises(UndecidedError, match="did not finish"):
        worker.equal("10^{10^{10}}", r"\sqrt{2}")  # the child itself gives up only after some seconds
    worker.pair_seconds = 30.0
    assert worker.equal(r"\sqrt{8}", r"2\sqrt{2}")


def test_threads_share_it(worker: EquivalenceWorker) -> None:
    results: dict[int, bool] = {}

    def compare(n: int) -> None:
        results[n] = worker.equal(rf"\sqrt{{{n * n * 2}}}", rf"{n}\sqrt{{{2 + n % 2}}}")

    threads = [threading.Thread(target=compare, args=(n,)) for n in range(2, 10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert results == {n: n % 2 == 0 for n in range(2, 10)}


def test_a_forked_process_leaves_our_child_alone(worker: EquivalenceWorker) -> None:
    worker.equal("1", "1")
    child = os.fork()
    if child == 0:
        worker.close()
        os._exit(0)
    os.waitpid(child, 0)
    assert worker._child is not None and worker._child.poll() is None


def test_closing_ends_the_child_and_a_later_pair_starts_another(worker: EquivalenceWorker) -> None:
    worker.equal("1", "1")
    child = worker._child
    assert child is not None
    worker.close()
    assert child.returncode is not None
    assert worker.equal("x", "x")


def test_an_absent_package_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(equivalence.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtra, match="math-verify"):
        EquivalenceWorker().equal("x", "y")


def test_one_process_has_one_worker() -> None:
    assert equivalent("a+b", "b+a")
    assert equivalence._worker_of(os.getpid()) is equivalence._worker_of(os.getpid())
