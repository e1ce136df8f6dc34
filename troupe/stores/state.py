"""Training state as safetensors-able tensors and plain JSON, and back.

`split_state` takes what a run must remember (an optimiser's state_dict with its int keys, counters, generator states)
apart; `join_state` puts it together again, bit for bit. JSON has no tuples, int keys, infinities or tensors, so these
become small tagged objects, while ordinary values stay readable:

    {"lr": 0.1, "betas": (0.9, 0.999), "best": inf, "moments": {0: tensor}}
    {"lr": 0.1, "betas": {"$tuple": [0.9, 0.999]}, "best": {"$float": "inf"},
     "moments": {"$dict": [[0, {"$tensor": "moments.0"}]]}}
"""

from __future__ import annotations

import hashlib
import json
import math
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from troupe.errors import DataError, StorageError

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["join_state", "parameter_hash", "read_tensors", "split_state", "write_tensors"]

_ALIASES = "aliases"
"""Key in a safetensors file's metadata: JSON object {name left out: name of the same tensor that was stored}."""


def split_state(obj: Any) -> tuple[dict[str, Tensor], Any]:
    """Takes nested dicts, lists, tuples, numbers, strings, None, tensors and NumPy arrays apart: (tensors, JSON-able).

    Tensors come out detached, on their device, under the dotted path of the place where they stood; one tensor met
    twice is stored once and comes back as one tensor. Mappings come back as dicts, subclasses of int, float and str
    (a StrEnum) and NumPy scalars as the plain type. Raises DataError naming the path of anything else.
    """
    tensors: dict[str, Tensor] = {}
    return tensors, _split(obj, (), tensors, {})


def join_state(tensors: Mapping[str, Tensor], encoded: Any) -> Any:
    """The inverse of `split_state`. Raises StorageError where a tensor that the JSON names is missing."""
    if isinstance(encoded, list):
        return [join_state(tensors, item) for item in encoded]
    if not isinstance(encoded, dict):
        return encoded
    tag = next(iter(encoded), "")
    if not tag.startswith("$"):
        return {key: join_state(tensors, value) for key, value in encoded.items()}
    value = encoded[tag]
    match tag:
        case "$tuple":
            return tuple(join_state(tensors, item) for item in value)
        case "$dict":
            return {join_state(tensors, key): join_state(tensors, item) for key, item in value}
        case "$float":
            return float(value)
        case "$tensor" | "$array" if value in tensors:
            return tensors[value] if tag == "$tensor" else tensors[value].numpy()
        case _:
            raise StorageError(f"the stored state names {tag} {value!r}, which is not stored with it; it is torn")


def parameter_hash(tensors: Mapping[str, Tensor]) -> str:
    """sha256 over names, dtypes, shapes and bytes, in sorted order of the names: equal weights, equal hash."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(_bytes_view(tensor))
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor]) -> None:
    """Writes one safetensors file. Tensors under several names are stored once; views of one storage are separated.

    Raises StorageError (also for a full disk), DataError for a tensor that has no plain bytes (sparse, quantised).
    """
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    try:
        kept, aliases = _without_aliases(tensors)
        save_file(_separated(kept), path, metadata={_ALIASES: json.dumps(aliases)})
    except SafetensorError as error:  # the Rust writer does not raise OSError
        full = "os error 28" in str(error) or "os error 122" in str(error)
        cause = "the disk is full; free some space and run it again" if full else str(error)
        raise StorageError(f"cannot write {path}: {cause} (what was stored before is whole)") from error
    except (ValueError, KeyError, RuntimeError, NotImplementedError) as error:
        raise DataError(f"{path.name} holds a tensor that safetensors cannot store: {error}") from error


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Reads one safetensors file on the CPU; names that shared a tensor share it again. Raises StorageError."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a dict)
            aliases = json.loads((file.metadata() or {}).get(_ALIASES, "{}"))
    except (SafetensorError, OSError) as error:
        raise StorageError(f"{path} cannot be read: {error}; choose another checkpoint") from error
    return tensors | {name: tensors[kept] for name, kept in aliases.items()}


def _split(obj: Any, path: tuple[str, ...], tensors: dict[str, Tensor], seen: dict[Any, str]) -> Any:
    import numpy as np
    import torch

    if isinstance(obj, np.generic):
        obj = obj.item()
    if obj is None or isinstance(obj, bool):
        return obj
    if isinstance(obj, str):
        return str.__str__(obj)
    if isinstance(obj, int):
        return int(obj)
    if isinstance(obj, float):
        return float(obj) if math.isfinite(obj) else {"$float": repr(float(obj))}
    if isinstance(obj, torch.Tensor):
        if obj.layout != torch.strided:
            raise DataError(f"{'.'.join(path) or 'the state'} is a {obj.layout} tensor; store it as a dense one")
        return {"$tensor": _place(obj.detach(), path, tensors, seen)}
    if isinstance(obj, np.ndarray):
        return {"$array": _place(_from_numpy(obj, path), path, tensors, seen)}
    if isinstance(obj, Mapping):
        return _split_mapping(obj, path, tensors, seen)
    if type(obj) in (list, tuple):
        items = [_split(item, (*path, str(i)), tensors, seen) for i, item in enumerate(obj)]
        return items if type(obj) is list else {"$tuple": items}
    raise DataError(
        f"{'.'.join(path) or 'the state'} is a {type(obj).__name__}, which a checkpoint cannot hold; store dicts, "
        "lists, tuples, numbers, strings, None, tensors or arrays"
    )


def _split_mapping(obj: Mapping[Any, Any], path: tuple[str, ...], tensors: dict[str, Tensor], seen: Any) -> Any:
    pairs = [
        (_split(key, (*path, repr(key)), tensors, seen), _split(value, (*path, str(key)), tensors, seen))
        for key, value in obj.items()
    ]
    if all(isinstance(key, str) and not key.startswith("$") for key in obj):
        return dict(pairs)
    return {"$dict": [list(pair) for pair in pairs]}


def _place(tensor: Tensor, path: tuple[str, ...], tensors: dict[str, Tensor], seen: dict[Any, str]) -> str:
    """The name under which `tensor` is stored: that of an earlier identical one, else its own path, made unique."""
    identity = _identity(tensor)
    if identity in seen:
        return seen[identity]
    wanted = ".".join(path) or "value"
    name, number = wanted, 1
    while name in tensors:
        name, number = f"{wanted}~{number}", number + 1
    tensors[name] = tensor
    seen[identity] = name
    return name


def _from_numpy(array: Any, path: tuple[str, ...]) -> Tensor:
    import torch

    try:
        return torch.from_numpy(array.copy(order="C"))
    except TypeError as error:
        raise DataError(f"{'.'.join(path) or 'the state'} is an array of {array.dtype}: {error}") from error


def _identity(tensor: Tensor) -> tuple[Any, ...]:
    """Equal for two tensors that are the same numbers in the same memory. Empty tensors are only themselves."""
    if tensor.numel() == 0:
        return (id(tensor),)
    view = (tensor.dtype, tuple(tensor.shape), tuple(tensor.stride()))
    return (str(tensor.device), tensor.data_ptr(), *view)


def _without_aliases(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, str]]:
    first: dict[Any, str] = {}
    kept, aliases = {}, {}
    for name, tensor in tensors.items():
        identity = _identity(tensor)
        if identity in first:
            aliases[name] = first[identity]
        else:
            first[identity] = name
            kept[name] = tensor
    return kept, aliases


def _separated(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Contiguous tensors on the CPU, none of which shares memory with another, as safetensors wants them."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    users = Counter(tensor.untyped_storage().data_ptr() for tensor in plain.values())
    return {
        name: tensor.clone() if users[tensor.untyped_storage().data_ptr()] > 1 else tensor
        for name, tensor in plain.items()
    }


def _bytes_view(tensor: Tensor) -> memoryview:
    import torch

    plain = tensor.detach().cpu().contiguous().reshape(-1)
    return plain.view(torch.uint8).numpy().data if plain.numel() else memoryview(b"")
