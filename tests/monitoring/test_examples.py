from __future__ import annotations

from troupe.episode import Episode, Outcome
from troupe.monitoring.examples import choose, count_changes


def attempts(outcomes: str) -> list[Episode]:
    """One episode per letter: s solved, f failed, e error, - not attempted."""
    words = {"s": Outcome.SUCCESS, "f": Outcome.FAILURE, "e": Outcome.ERROR}
    return [Episode(f"v/{i}/0", f"t{i}", (), words[letter]) for i, letter in enumerate(outcomes) if letter != "-"]


def chosen(before: str, after: str) -> list[tuple[str, str]]:
    return [(example.task_id, example.change) for example in choose(attempts(before), attempts(after))]


def test_changes_come_first_but_one_failure_and_one_loss_are_kept() -> None:
    assert chosen("ffffffffs", "sssssssff") == [
        ("t0", "newly solved"),
        ("t1", "newly solved"),
        ("t2", "newly solved"),
        ("t8", "lost"),
        ("t7", "failed both times"),
    ]


def test_the_rest_is_filled_with_what_there_is() -> None:
    assert [change for _, change in chosen("fsss", "ssss")] == ["newly solved"] + ["solved both times"] * 3
    assert [change for _, change in chosen("ffffff", "ffffff")] == ["failed both times"] * 5
    assert [change for _, change in chosen("ef", "sf")] == ["newly solved", "failed both times"]


def test_only_tasks_of_both_sides_count() -> None:
    assert chosen("f-", "-s") == []
    assert count_changes(attempts("fs-fs"), attempts("sfs-s")) == {
        "newly solved": 1,
        "lost": 1,
        "failed both times": 0,
        "solved both times": 1,
    }


def test_the_first_attempt_of_each_task_speaks() -> None:
    again = [*attempts("f"), Episode("v/0/1", "t0", (), Outcome.SUCCESS)]
    assert count_changes(again, attempts("f"))["failed both times"] == 1
