from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import parquet

from troupe.envs.market.tables import numbers, read_table
from troupe.errors import DataError

TEXT = "Date,Adj Close\n2016-12-29,1.5\n2016-12-30,x\n"


@pytest.mark.parametrize(
    "content",
    [
        TEXT.encode(),
        TEXT.replace("\n", "\r\n").encode(),
        TEXT.replace(",", ";").encode(),
        b"<DATE>\t<ADJ CLOSE>\n2016-12-29\t1.5\n2016-12-30\tx",
        gzip.compress(TEXT.encode(), mtime=0),
        TEXT.encode("utf-8-sig"),
        TEXT.encode("utf-16"),
        b'"Date","Adj Close"\n"2016-12-29","1.5"\n"2016-12-30","x"\n',
    ],
)
def test_forms_of_text(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    table = read_table(path)
    assert list(table.columns) == ["date", "adj_close"] and table.lines.tolist() == [2, 3] and table.unit == "line"
    assert table.columns["date"].to_pylist() == ["2016-12-29", "2016-12-30"]
    np.testing.assert_array_equal(numbers(table.columns["adj_close"]), [1.5, np.nan])


def test_lines_count_blank_and_torn_ones(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    many = "".join(f"{row},{row}\n" for row in range(100_000))  # more than one of the reader's blocks
    path.write_text("date,close\n1,1\n\n2\n3,3,3\n4,4\n" + many + "5\n\n6,6\n\n")
    table = read_table(path)
    assert table.lines[:2].tolist() == [2, 6] and table.lines[-1] == 100_009
    assert [line for line, _ in table.torn] == [4, 5, 100_007]
    assert table.torn[0][1] == "has 1 cells where there are 2 columns"
    assert table.columns["date"][len(table.lines) - 1].as_py() == "6"


def test_names_for_a_file_without(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text("20161229;1\n20161230;2\n")
    table = read_table(path, ("date", "close"))
    assert table.lines.tolist() == [1, 2] and table.columns["close"].to_pylist() == ["1", "2"]


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    parquet.write_table(pa.table({"Date": ["2016-12-29", "2016-12-30"], "Close": pa.array([1, None])}), path)
    table = read_table(path)
    assert list(table.columns) == ["date", "close"] and table.lines.tolist() == [1, 2] and table.unit == "row"
    np.testing.assert_array_equal(numbers(table.columns["close"]), [1, np.nan])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (gzip.compress(TEXT.encode(), mtime=0)[:30], "cannot be read"),
        (b"\x00\xff\x80", "neither text nor Parquet"),
        (b"PAR1 and then nothing", "torn Parquet file"),
        (b"date,close,Close\n", "two columns named 'close'"),
    ],
)
def test_what_cannot_be_read_is_one_sentence(tmp_path: Path, content: bytes, says: str) -> None:
    path = tmp_path / "a.csv"
    path.write_bytes(content)
    with pytest.raises(DataError, match=says) as caught:
        read_table(path)
    assert str(path) in str(caught.value)


def test_no_file_and_a_folder(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no file"):
        read_table(tmp_path / "b.csv")
    with pytest.raises(DataError, match="is a folder"):
        read_table(tmp_path)
