"""Episodes as columns: one nested schema for Parquet and DuckDB.

The schema is fixed, so that an empty file, a file of boards and a file of conversations have the same columns. What is
free-form in an episode (observations, actions, info, metadata) has no common type and is kept as JSON text.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson

from troupe.errors import DataError

if TYPE_CHECKING:
    import duckdb
    import pyarrow as pa

__all__ = ["duckdb_table", "from_row", "parquet_schema", "write_parquet"]

_SAMPLING = {"max_tokens": "int64", "temperature": "double", "stop": ["string"]}
_TOKENS = {
    "prompt_ids": ["int64"],
    "response_ids": ["int64"],
    "logprobs": ["double"],
    "mask": ["int8"],
    "policy": "string",
    "policy_version": "int64",
    "sampling": _SAMPLING,
    "finish_reason": "string",
}
_STEP = {
    "id": "string",
    "agent": "string",
    "parent": "string",
    "observation": "json",
    "action": "json",
    "reward": "double",
    "done": "bool",
    "info": "json",
    "tokens": _TOKENS,
}
_TRAJECTORY = {"agent": "string", "steps": [_STEP], "reward": "double", "stop_reason": "string"}
_EPISODE = {
    "id": "string",
    "task_id": "string",
    "trajectories": [_TRAJECTORY],
    "outcome": "string",
    "metrics": "metrics",
    "group": "string",
    "seed": "uint64",
    "version": "int32",
    "metadata": "json",
}
"""A dict is a struct, a one-element list a list; `json` is JSON text, `metrics` a map from str to float."""

_DUCKDB = {
    "string": "VARCHAR",
    "json": "JSON",
    "double": "DOUBLE",
    "bool": "BOOLEAN",
    "int8": "TINYINT",
    "int32": "INTEGER",
    "int64": "BIGINT",
    "uint64": "UBIGINT",
    "metrics": "MAP(VARCHAR, DOUBLE)",
}
_ROWS_AT_ONCE = 1000
_LONGEST_LINE = 1 << 26  # bytes of one episode that DuckDB accepts; its buffers are twice this per thread


def parquet_schema() -> pa.Schema:
    """The Arrow schema of an exported episode."""
    import pyarrow as pa

    return pa.schema([pa.field(name, _arrow(kind)) for name, kind in _EPISODE.items()])


def write_parquet(records: Iterable[Mapping[str, Any]], path: Path) -> int:
    """Writes the JSON objects of episodes to the Parquet file `path` (zstd); returns how many.

    Raises DataError for a record that does not fit the schema.
    """
    import pyarrow as pa
    from pyarrow import parquet

    schema, count = parquet_schema(), 0
    with parquet.ParquetWriter(path, schema, compression="zstd") as writer:
        for rows in _chunks((_to_row(record, _EPISODE) for record in records), _ROWS_AT_ONCE):
            try:
                writer.write_table(pa.Table.from_pylist(rows, schema=schema))
            except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
                raise DataError(
                    f"episodes {count + 1} to {count + len(rows)} do not fit the schema: {error}"
                ) from error
            count += len(rows)
    return count


def from_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """The JSON object of one row of the Parquet file, as `Episode.from_dict` takes it."""
    return _from_row(row, _EPISODE)


def duckdb_table(connection: duckdb.DuckDBPyConnection, path: Path, name: str) -> None:
    """Shows the JSON lines at `path` as the table `name`, and shuts the connection off from every other file."""
    path = path.absolute()
    columns = ", ".join(f"'{field}': '{_sql_type(kind)}'" for field, kind in _EPISODE.items())
    connection.execute(
        f"CREATE VIEW {name} AS SELECT * FROM read_json('{_glob_quoted(path)}', format = 'newline_delimited', "
        f"columns = {{{columns}}}, maximum_object_size = {_LONGEST_LINE})"
    )
    connection.execute(f"SET allowed_paths = ['{_quoted(str(path))}', '{_glob_quoted(path)}']")
    connection.execute("SET enable_external_access = false")


def _arrow(kind: Any) -> pa.DataType:
    import pyarrow as pa

    if isinstance(kind, dict):
        return pa.struct([pa.field(name, _arrow(inner)) for name, inner in kind.items()])
    if isinstance(kind, list):
        return pa.list_(_arrow(kind[0]))
    if kind == "metrics":
        return pa.map_(pa.string(), pa.float64())
    return pa.type_for_alias("string" if kind == "json" else kind)


def _sql_type(kind: Any) -> str:
    if isinstance(kind, dict):
        return "STRUCT(" + ", ".join(f'"{name}" {_sql_type(inner)}' for name, inner in kind.items()) + ")"
    if isinstance(kind, list):
        return _sql_type(kind[0]) + "[]"
    return _DUCKDB[kind]


def _to_row(value: Any, kind: Any) -> Any:
    if kind == "json":
        return orjson.dumps(value).decode()
    if value is None:
        return None
    if isinstance(kind, dict):
        return {name: _to_row(value.get(name), inner) for name, inner in kind.items()}
    if isinstance(kind, list):
        return [_to_row(item, kind[0]) for item in value] if isinstance(kind[0], dict) else value
    return list(value.items()) if kind == "metrics" else value


def _from_row(value: Any, kind: Any) -> Any:
    if value is None:
        return None
    if kind == "json":
        return json.loads(value)
    if isinstance(kind, dict):
        return {name: _from_row(value[name], inner) for name, inner in kind.items()}
    if isinstance(kind, list):
        return [_from_row(item, kind[0]) for item in value]
    return dict(value) if kind == "metrics" else value


def _chunks(rows: Iterator[Any], size: int) -> Iterator[list[Any]]:
    while chunk := list(islice(rows, size)):
        yield chunk


def _quoted(text: str) -> str:
    return text.replace("'", "''")


def _glob_quoted(path: Path) -> str:
    """DuckDB reads `*`, `?` and `[` in a path as wildcards."""
    return _quoted("".join(f"[{letter}]" if letter in "*?[" else letter for letter in str(path)))
