from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from troupe.monitoring.run_folder import read_run
from troupe.stores.episodes import EpisodeStore

Run = Callable[..., tuple[Path, dict[str, Any]]]


def test_only_the_first_and_the_last_update_are_kept(run: Run) -> None:
    folder, _ = run(size=6)
    updates = read_run(folder).updates.value
    assert updates is not None
    assert (updates.first_update, updates.last_update) == (1, 30)
    assert {e.id.split("/")[0] for e in updates.first} == {"update0"} and len(updates.first) == 6
    assert {e.id.split("/")[0] for e in updates.last} == {"update29"} and len(updates.last) == 6


def test_an_update_that_was_cut_short_is_read_for_what_it_is(run: Run) -> None:
    folder, _ = run(size=6)
    with EpisodeStore(folder / "episodes.jsonl") as store:
        every = list(store)
    (folder / "episodes.jsonl").unlink()
    with EpisodeStore(folder / "episodes.jsonl") as store:
        store.append(every[:14])  # two updates of six, and two episodes of the third
    updates = read_run(folder).updates.value
    assert updates is not None
    assert (updates.last_update, len(updates.first), len(updates.last)) == (30, 6, 2)


def test_the_last_validation_by_number_not_by_name(run: Run) -> None:
    folder, _ = run(updates=12, size=4)  # report_2, ..., report_10, report_12
    record = read_run(folder)
    assert record.tasks.value is not None and record.tasks.value.update == 12
    assert list(record.reports.value or ()) == [0, 2, 4, 6, 8, 10, 12]


def test_training_and_validation_metrics_of_one_step_are_one_row(tmp_path: Path) -> None:
    rows = [{"step": 0, "val/pass@1": 0.1}, {"step": 1, "a": 1.0}, {"step": 1, "val/pass@1": 0.2}]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_run(tmp_path).metrics.value == (rows[0], {"step": 1, "a": 1.0, "val/pass@1": 0.2})


def test_a_run_without_validation_after_training_says_so(run: Run) -> None:
    folder, _ = run(size=4)
    for path in folder.glob("val/episodes_*"):
        if path.name != "episodes_0.jsonl":
            path.unlink()
    assert "no validation episodes from after the first update" in read_run(folder).tasks.why_not


def test_reading_writes_nothing(run: Run) -> None:
    folder, _ = run(size=4)
    with open(folder / "episodes.jsonl", "a") as file:
        file.write('{"id": "torn')
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    assert read_run(folder).updates.value is not None
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
