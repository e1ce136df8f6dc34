from __future__ import annotations

import logging
import os
import random
from pathlib import Path

import pytest

from troupe.episode import Episode, FinishReason, Outcome, Step, StopReason, Tokens, Trajectory
from troupe.errors import DataError, StorageError
from troupe.stores.episodes import EpisodeStore


def episode(number: int, *, text: str = "3x + 5 = 20", seed: int = 7) -> Episode:
    tokens = Tokens((3, 51), (40, 12), (-0.1, -0.25), (1, 1), "team", 4, finish_reason=FinishReason.LENGTH)
    spoken = Step("a/0", "analyzer", None, [{"role": "user", "content": text}], {"content": "15/3"}, 0.5, tokens=tokens)
    moved = Step("v/0", "verifier", "a/0", [[0, 1], [1, 0]], 3, info={"π": [1, None, {"deep": True}]}, done=True)
    return Episode(
        id=f"e{number}",
        task_id=f"t{number % 3}",
        trajectories=(Trajectory("analyzer", (spoken,), 1.0, StopReason.DONE), Trajectory("verifier", (moved,))),
        outcome=Outcome.SUCCESS if number % 2 else Outcome.FAILURE,
        metrics={"accuracy": number / 10},
        group=f"g{number % 3}",
        seed=seed,
        metadata={"number": number},
    )


def episodes(n: int) -> list[Episode]:
    return [episode(number) for number in range(n)]


def test_round_trip_is_lossless_across_processes_and_modes(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with EpisodeStore(path) as store:
        store.append(episodes(3))
        store.append(iter([episode(3, text="línea\n\u2028 \r😀", seed=2**64 - 1)]))
        assert len(store) == 4
    with EpisodeStore(path, mode="r") as store:
        assert list(store) == [*episodes(3), episode(3, text="línea\n\u2028 \r😀", seed=2**64 - 1)]
        assert len(store) == 4 and store.repaired_bytes == 0


def test_reading_is_lazy_and_starts_at_an_offset(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "e.jsonl")
    store.append(episodes(2))
    offset = store.offset
    assert offset == (tmp_path / "e.jsonl").stat().st_size
    store.append([episode(2)])
    assert list(store.read(offset)) == [episode(2)]
    reader = iter(store)
    assert next(reader) == episode(0)
    store.append([episode(3)])
    assert [e.id for e in reader] == ["e1", "e2"]  # the end is fixed when reading begins
    with pytest.raises(DataError, match="not the beginning of a record"):
        list(store.read(offset - 3))


@pytest.mark.parametrize("fsync", ["always", "batch", "never"])
def test_every_fsync_mode_stores_the_same_bytes(tmp_path: Path, fsync) -> None:
    with EpisodeStore(tmp_path / "e.jsonl", fsync=fsync) as store:
        store.append(episodes(3))
        assert store.offset == store.path.stat().st_size
        assert list(store) == episodes(3)


def test_fsync_happens_when_it_was_promised(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[int] = []
    counts = {}
    for fsync in ("always", "batch", "never"):
        store = EpisodeStore(tmp_path / f"{fsync}.jsonl", fsync=fsync)
        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", lambda descriptor: synced.append(descriptor))
            synced.clear()
            store.append([episode(0)])
            after_append = len(synced)
            _ = store.offset
            counts[fsync] = (after_append, len(synced))
    assert counts == {"always": (1, 1), "batch": (0, 1), "never": (0, 0)}


def test_truncate_drops_what_came_after_the_checkpoint(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "e.jsonl")
    store.append(episodes(4))
    offset = store.offset
    store.append(episodes(3))
    assert len(store) == 7
    assert store.truncate(offset) == 3
    assert list(store) == episodes(4) and len(store) == 4
    assert store.truncate(offset) == 0
    with pytest.raises(StorageError, match=r"e\.jsonl holds .* counts on"):
        store.truncate(offset + 1)
    with pytest.raises(StorageError, match="inside a record"):
        store.truncate(offset - 1)
    assert list(store) == episodes(4)
    assert store.truncate(0) == 4 and list(store) == [] and len(store) == 0


def test_window_reads_the_end_of_the_file_only(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "e.jsonl")
    assert store.window(5) == []
    stored = [episode(number, text="x" * random.Random(number).randrange(40_000)) for number in range(30)]
    store.append(stored)
    for last in (0, 1, 2, 7, 29, 30, 31):
        assert store.window(last) == stored[len(stored) - min(last, 30) :]
    store.path.write_bytes(b"not json" + store.path.read_bytes()[8:])
    assert store.window(3) == stored[-3:]  # the bad first line is never looked at
    with pytest.raises(ValueError, match="last >= 0"):
        store.window(-1)


def test_a_torn_last_line_is_set_aside_and_reported(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "e.jsonl"
    with EpisodeStore(path) as store:
        store.append(episodes(2))
    whole = path.read_bytes()
    for number, torn in enumerate((b'{"id":"e2","ta', b"\0" * 50, b'{"id": 1}}\n'), start=1):
        path.write_bytes(whole + torn)
        with caplog.at_level(logging.WARNING), EpisodeStore(path) as store:
            assert store.repaired_bytes == len(torn)
            assert list(store) == episodes(2)
        assert path.read_bytes() == whole
        assert (tmp_path / f"e.jsonl.torn-{number}").read_bytes() == torn
        assert f"e.jsonl.torn-{number}" in caplog.text


def test_a_record_that_lost_only_its_newline_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with EpisodeStore(path) as store:
        store.append(episodes(2))
    path.write_bytes(path.read_bytes()[:-1])
    with EpisodeStore(path, mode="r") as store:
        assert list(store) == episodes(2) == store.window(2) and len(store) == 2
    with EpisodeStore(path) as store:
        store.append([episode(2)])
        assert list(store) == episodes(3) and store.repaired_bytes == 0


def test_reading_mode_neither_repairs_nor_writes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "e.jsonl"
    with EpisodeStore(path) as store:
        store.append(episodes(2))
    path.write_bytes(torn := path.read_bytes() + b'{"id":')
    with caplog.at_level(logging.WARNING), EpisodeStore(path, mode="r") as store:
        assert list(store) == episodes(2) == store.window(9) and len(store) == 2
        with pytest.raises(StorageError, match="opened for reading"):
            store.append([episode(2)])
        with pytest.raises(StorageError, match="opened for reading"):
            store.truncate(0)
        with pytest.raises(StorageError, match="torn line"):
            store.query("select 1 as one")
    assert path.read_bytes() == torn and [p.name for p in tmp_path.iterdir()] == ["e.jsonl"]
    assert "torn" in caplog.text
    with pytest.raises(StorageError, match=r"none\.jsonl does not exist"):
        EpisodeStore(tmp_path / "none.jsonl", mode="r")


def test_a_malformed_line_in_the_middle_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with EpisodeStore(path) as store:
        store.append(episodes(3))
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(broken := lines[0] + b'{"id": "e1", oops}\n' + lines[2])
    with EpisodeStore(path) as store:
        reader = iter(store)
        assert next(reader) == episode(0)
        with pytest.raises(DataError, match=r"e\.jsonl, line 2 is not a JSON object"):
            next(reader)
        with pytest.raises(DataError, match="line 2"):
            store.window(3)
        assert list(store.read(len(lines[0]) + 19)) == [episode(2)]
    assert path.read_bytes() == broken


def test_a_line_that_is_no_episode_names_file_and_line(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    with EpisodeStore(path) as store:
        store.append(episodes(1))
    path.write_bytes(path.read_bytes() + b'{"id":"x","task_id":"t","version":99}\n')
    with EpisodeStore(path) as store, pytest.raises(DataError, match=r"e\.jsonl, line 2: .*version 99"):
        list(store)


def test_a_wrong_path_costs_nobody_a_file(tmp_path: Path) -> None:
    for content in (b"name,age\nada,36\n", b"PAR1\0\0\0", b"[1]\n[2]\n", b'{"a": 1}\nhello\nworld'):
        path = tmp_path / "other"
        path.write_bytes(content)
        with pytest.raises(DataError, match="is not a JSON object"):
            EpisodeStore(path)
        assert path.read_bytes() == content and len(list(tmp_path.iterdir())) == 1


def test_numbers_that_json_cannot_hold_are_refused_before_anything_is_written(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "e.jsonl")
    nan = float("nan")
    bad = {
        r"metrics\['loss'\]": Episode("bad", "t", metrics={"loss": nan}),
        r"trajectories\['a'\].reward": Episode("bad", "t", (Trajectory("a", reward=nan),)),
        r"step 's'.observation\[1\]": Episode("bad", "t", (Trajectory("a", (Step("s", "a", observation=[0, nan]),)),)),
        "logprobs": Episode(
            "bad", "t", (Trajectory("a", (Step("s", "a", tokens=Tokens((), (1,), (-float("inf"),), (1,), "p")),)),)
        ),
    }
    for place, wrong in bad.items():
        with pytest.raises(DataError, match=f"'bad' .* not finite at .*{place}"):
            store.append([episode(0), wrong])
    for value in (2**64, {1: 2}, object(), "\ud800"):
        with pytest.raises(DataError, match="'bad' cannot be written as JSON"):
            store.append([episode(0), Episode("bad", "t", metadata={"x": value})])
    assert store.offset == 0


def test_query_sees_the_episodes_and_no_other_file(tmp_path: Path) -> None:
    folder = tmp_path / "it's [odd]*"
    folder.mkdir()
    store = EpisodeStore(folder / "e.jsonl")
    assert store.query("select * from episodes") == []
    store.append(episodes(6))
    assert store.query("select outcome, count(*) as n from episodes group by all order by 1") == [
        {"outcome": "failure", "n": 3},
        {"outcome": "success", "n": 3},
    ]
    steps = """
        with t as (select unnest(trajectories) as trajectory from episodes),
             s as (select unnest(trajectory.steps) as step from t)
        select sum(step.reward) as paid, sum(len(step.tokens.response_ids)) as sampled from s
    """
    assert store.query(steps) == [{"paid": 3.0, "sampled": 12}]
    assert store.query("select metrics['accuracy'] as a, metadata ->> 'number' as n from episodes where id = 'e4'") == [
        {"a": 0.4, "n": "4"}
    ]
    before = store.path.read_bytes()
    (tmp_path / "secret.csv").write_text("a\n1\n")
    with pytest.raises(DataError, match="failed"):
        store.query(f"select * from read_csv('{tmp_path}/secret.csv')")
    with pytest.raises(DataError, match="failed"):
        store.query("selekt 1")
    with pytest.raises(DataError, match="one SELECT statement"):
        store.query("copy (select 1) to 'e.jsonl'")
    assert store.path.read_bytes() == before


def test_parquet_export_keeps_everything(tmp_path: Path) -> None:
    from pyarrow import parquet

    from troupe.stores.columns import from_row, parquet_schema

    store = EpisodeStore(tmp_path / "e.jsonl")
    assert store.export_parquet(tmp_path / "e.parquet") == 0
    assert parquet.read_table(tmp_path / "e.parquet").schema == parquet_schema()
    stored = [*episodes(1200), episode(1200, seed=2**64 - 1)]
    store.append(stored)
    assert store.export_parquet(tmp_path / "e.parquet") == 1201
    table = parquet.read_table(tmp_path / "e.parquet")
    assert [Episode.from_dict(from_row(row)) for row in table.to_pylist()] == stored
    assert parquet.read_metadata(tmp_path / "e.parquet").row_group(0).column(0).compression == "ZSTD"


def test_a_failed_export_leaves_the_old_one(tmp_path: Path) -> None:
    store = EpisodeStore(tmp_path / "e.jsonl")
    store.append(episodes(1))
    store.export_parquet(tmp_path / "e.parquet")
    before = (tmp_path / "e.parquet").read_bytes()
    store.append([episode(1, seed=-1)])
    with pytest.raises(DataError, match="do not fit"):
        store.export_parquet(tmp_path / "e.parquet")
    assert (tmp_path / "e.parquet").read_bytes() == before
    assert sorted(p.name for p in tmp_path.iterdir()) == ["e.jsonl", "e.parquet"]
    with pytest.raises(StorageError, match="nowhere does not exist"):
        store.export_parquet(tmp_path / "nowhere" / "e.parquet")


def test_a_missing_folder_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"cannot open .*e\.jsonl: .*nowhere does not exist; create it"):
        EpisodeStore(tmp_path / "nowhere" / "deeper" / "e.jsonl")


def test_a_read_only_folder_is_one_sentence(tmp_path: Path, read_only) -> None:
    folder = tmp_path / "ro"
    folder.mkdir()
    with EpisodeStore(folder / "e.jsonl") as store:
        store.append(episodes(2))
    torn = (folder / "e.jsonl").read_bytes() + b'{"id'
    (folder / "e.jsonl").write_bytes(torn)
    with read_only(folder):
        for name in ("e.jsonl", "new.jsonl"):
            with pytest.raises(StorageError, match=rf"cannot open .*{name}: the folder is read-only"):
                EpisodeStore(folder / name)
        with EpisodeStore(folder / "e.jsonl", mode="r") as store:
            assert list(store) == episodes(2)
    assert (folder / "e.jsonl").read_bytes() == torn


def test_a_full_disk_loses_nothing_that_was_stored(small_disk: Path) -> None:
    store = EpisodeStore(small_disk / "e.jsonl")
    store.append(episodes(3))
    before = store.path.read_bytes()
    with pytest.raises(StorageError, match=r"cannot append to .*e\.jsonl: the disk is full"):
        store.append([episode(3), episode(4, text="x" * 2_000_000)])
    assert store.path.read_bytes() == before
    with pytest.raises(StorageError, match="the disk is full"):
        for number in range(100_000):
            store.append([episode(number)])
    assert store.path.read_bytes().endswith(b"\n")
    kept = list(store)
    assert kept[:3] == episodes(3) and kept[3:] == episodes(len(kept) - 3)
    with pytest.raises(StorageError, match=r"e\.parquet: the disk is full"):
        store.export_parquet(small_disk / "e.parquet")
    assert [p.name for p in small_disk.iterdir()] == ["e.jsonl"]
    store.truncate(len(before))
    store.append(episodes(3))
    assert list(store) == episodes(3) * 2


def test_kill_at_random_moments_leaves_whole_episodes(tmp_path: Path, killed_after) -> None:
    """The child appends e0, e1, ... without end; at any moment a prefix of them is there and can be continued."""
    rng = random.Random(0)
    for trial in range(8):
        path = tmp_path / f"{trial}.jsonl"

        def append_for_ever(path: Path = path, fsync: str = rng.choice(["always", "batch", "never"])) -> None:
            with EpisodeStore(path, fsync=fsync) as store:  # type: ignore[arg-type]
                for number in range(10**9):
                    store.append([episode(number, text="x" * 50_000)])

        killed_after(0.1 * rng.random(), path, append_for_ever)
        with EpisodeStore(path) as store:
            ids = [e.id for e in store]
            assert ids == [f"e{number}" for number in range(len(ids))]
            store.append([episode(len(ids))])
            assert len(store) == len(ids) + 1 == len(list(store))


def test_kill_before_every_write_of_an_append(tmp_path: Path, crash_points) -> None:
    numbers = iter(range(1000))

    def fresh() -> Path:
        path = tmp_path / f"{next(numbers)}.jsonl"
        with EpisodeStore(path) as store:
            store.append(episodes(2))
        path.write_bytes(path.read_bytes() + b'{"torn')
        return path

    def act(path: Path) -> None:
        with EpisodeStore(path, fsync="always") as store:  # repairs, appends, cuts back, appends
            offset = store.offset
            store.append([episode(2), episode(3)])
            store.truncate(offset)
            store.append([episode(2)])

    repaired = 0
    for path in crash_points(fresh, act):
        with EpisodeStore(path) as store:
            repaired += store.repaired_bytes > 0
            found = list(store)
            assert found == episodes(len(found)) and 2 <= len(found) <= 4
        assert b'{"torn' in [kept.read_bytes() for kept in tmp_path.glob(f"{path.name}.torn-*")]
    assert repaired >= 3


def test_two_writers_do_not_mix_their_lines(tmp_path: Path) -> None:
    path = tmp_path / "e.jsonl"
    first, second = EpisodeStore(path), EpisodeStore(path)
    first.append([episode(0)])
    second.append([episode(1)])
    first.append([episode(2)])
    assert list(first) == list(second) == episodes(3)
    path.write_bytes(path.read_bytes() + b'{"torn by a third wri')
    second.append([episode(3)])
    assert list(first) == episodes(4) and second.repaired_bytes == 21


def test_opening_never_repairs_a_line_that_is_being_written(tmp_path: Path) -> None:
    path, count = tmp_path / "e.jsonl", 15
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            store = EpisodeStore(path, fsync="never")
            for number in range(count):
                store.append([episode(number, text="x" * 4_000_000)])
            code = 0
        finally:
            os._exit(code)
    repaired = 0
    while (done := os.waitpid(pid, os.WNOHANG)) == (0, 0):
        with EpisodeStore(path, fsync="never") as store:
            repaired += store.repaired_bytes
    assert done[1] == 0 and repaired == 0
    assert [e.id for e in EpisodeStore(path, mode="r")] == [f"e{number}" for number in range(count)]
