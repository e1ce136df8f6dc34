"""Tables of CSV and Parquet files, with the line that each row stands on.

Text stays text here: what is a time or a price is the reader's business (`loading`), who can then say what a bad cell
holds.
"""

from __future__ import annotations

import gzip
import io
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from troupe.errors import DataError

__all__ = ["Table", "numbers", "read_table"]


@dataclass(frozen=True, eq=False)
class Table:
    """Columns by name: lower case, without brackets, spaces written as `_` (`<TICK VOL>` is `tick_vol`)."""

    columns: dict[str, Any]  # pyarrow arrays of N rows
    lines: np.ndarray  # int64 [N]: line in the file, or row of a Parquet file, from 1
    unit: str  # what `lines` count: line or row
    torn: tuple[tuple[int, str], ...]  # line and fault of rows that have too few or too many cells


def read_table(path: Path, header: Sequence[str] | None = None) -> Table:
    """The table of a CSV file (comma, semicolon or tab; also gzipped) or a Parquet file, told apart by their content.

    `header` names the columns of a text file that has no line of names. Raises DataError for a file that is not there,
    is empty or cannot be read, and for two columns of one name.
    """
    data = _content(path)
    if data[:4] == b"PAR1":
        return _parquet(path, data)
    text = _utf8(path, data)
    first = text[: text.find(b"\n") if b"\n" in text else len(text)].decode()
    delimiter = max(",;\t", key=first.count)
    names = _names(path, header if header is not None else first.strip("\r\n").split(delimiter))
    return _csv(path, text, names, delimiter, skip=0 if header is not None else 1)


def numbers(column: Any) -> np.ndarray:
    """A column as float64 `[N]`; NaN where a cell is empty or holds no number."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_string(column.type):
        return pc.fill_null(pc.cast(column, pa.float64(), safe=False), np.nan).to_numpy(zero_copy_only=False)
    text = pc.utf8_trim_whitespace(column)
    try:
        return pc.cast(text, pa.float64()).to_numpy(zero_copy_only=False)
    except pa.ArrowInvalid:
        return np.array([_number(cell) for cell in text.to_pylist()], dtype=np.float64)


def _number(cell: str | None) -> float:
    try:
        return float(cell or "nan")
    except ValueError:
        return np.nan


def _content(path: Path) -> bytes:
    if path.is_dir():
        raise DataError(f"{path} is a folder; name one file of it")
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
    except FileNotFoundError as error:
        raise DataError(f"there is no file {path}; check the path") from error
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path} cannot be read ({error}); copy it again") from error
    if not data.strip():
        raise DataError(f"{path} is empty; it must hold a line of column names and the bars")
    return data


def _utf8(path: Path, data: bytes) -> bytes:
    # Terminals export UTF-16, spreadsheets put a mark before UTF-8.
    encoding = "utf-16" if data[:2] in (b"\xff\xfe", b"\xfe\xff") else "utf-8-sig"
    try:
        return data.decode(encoding).replace("\r\n", "\n").encode()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is neither text nor Parquet; give a CSV or Parquet file of bars") from error


def _names(path: Path, names: Sequence[str]) -> list[str]:
    plain = [name.strip().strip('"').strip("<>").strip().lower().replace(" ", "_") for name in names]
    for name in plain:
        if plain.count(name) > 1:
            raise DataError(f"{path} has two columns named {name!r}; rename or remove one")
    return plain


def _csv(path: Path, text: bytes, names: list[str], delimiter: str, skip: int) -> Table:
    import pyarrow as pa
    from pyarrow import csv

    torn: list[tuple[int, str]] = []

    def skipped(row: csv.InvalidRow) -> str:
        torn.append((row.number, f"has {row.actual_columns} cells where there are {row.expected_columns} columns"))
        return "skip"

    try:
        table = csv.read_csv(
            io.BytesIO(text),
            # One thread: only then does a torn row know its number. Blank lines are kept, so that the others do, too.
            csv.ReadOptions(use_threads=False, column_names=names, skip_rows=skip),
            csv.ParseOptions(delimiter=delimiter, ignore_empty_lines=False, invalid_row_handler=skipped),
            csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False),
        ).combine_chunks()
    except pa.ArrowInvalid as error:
        raise DataError(f"{path} cannot be read as a table ({error}); give a CSV file with one bar per line") from error
    bad = {line for line, _ in torn}
    total = table.num_rows + len(bad)
    lines = np.array([line for line in range(1 + skip, 1 + skip + total) if line not in bad], dtype=np.int64)
    return _without_blanks({name: _flat(table[name]) for name in names}, lines, tuple(torn))


def _without_blanks(columns: dict[str, Any], lines: np.ndarray, torn: tuple[tuple[int, str], ...]) -> Table:
    import pyarrow as pa
    import pyarrow.compute as pc

    blank = np.ones(len(lines), dtype=bool)
    for column in columns.values():
        blank &= pc.equal(column, "").to_numpy(zero_copy_only=False)
    if blank.any():
        columns = {name: column.filter(pa.array(~blank)) for name, column in columns.items()}
    return Table(columns, lines[~blank], "line", torn)


def _parquet(path: Path, data: bytes) -> Table:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        table = parquet.read_table(pa.BufferReader(data)).combine_chunks()
    except (pa.ArrowInvalid, OSError) as error:
        raise DataError(f"{path} is a torn Parquet file ({error}); write it again") from error
    names = _names(path, table.column_names)
    columns = {name: _flat(table.column(position)) for position, name in enumerate(names)}
    return Table(columns, np.arange(1, table.num_rows + 1), "row", ())


def _flat(column: Any) -> Any:
    """One array of a chunked one; an empty table has no chunk."""
    import pyarrow as pa

    return pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], type=column.type)
