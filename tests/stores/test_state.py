from __future__ import annotations

import json
import math
import random
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from troupe.errors import DataError, StorageError
from troupe.stores.state import join_state, parameter_hash, read_tensors, split_state, write_tensors

torch.set_num_threads(1)


def through_disk(obj: Any, folder: Path) -> Any:
    tensors, encoded = split_state(obj)
    write_tensors(folder / "t.safetensors", tensors)
    text = json.dumps(encoded, allow_nan=False)
    return join_state(read_tensors(folder / "t.safetensors"), json.loads(text))


def same(left: Any, right: Any) -> bool:
    """Equal in type, value and bits, all the way down."""
    if isinstance(left, torch.Tensor | np.ndarray):
        left, right = torch.as_tensor(left), torch.as_tensor(right)
        return left.dtype == right.dtype and parameter_hash({"x": left}) == parameter_hash({"x": right})
    if type(left) is not type(right):
        return False
    if isinstance(left, dict):
        return list(left) == list(right) and all(same(left[key], right[key]) for key in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(map(same, left, right))
    return left == right or (left != left and right != right)


def trained(steps: int, generator: torch.Generator) -> tuple[torch.nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Tanh(), torch.nn.Linear(8, 1))
    groups = [{"params": model[0].parameters(), "lr": 1e-2}, {"params": model[2].parameters()}]
    optimizer = torch.optim.AdamW(groups, lr=3e-3, amsgrad=True)
    learn(model, optimizer, steps, generator)
    return model, optimizer


def learn(model: torch.nn.Module, optimizer: torch.optim.Optimizer, steps: int, generator: torch.Generator) -> None:
    for _ in range(steps):
        optimizer.zero_grad()
        model(torch.randn(16, 4, generator=generator)).square().mean().backward()
        optimizer.step()


def test_adamw_and_its_generator_continue_bit_for_bit(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(1)
    model, optimizer = trained(3, generator)
    saved = {"model": model.state_dict(), "optimizer": optimizer.state_dict(), "generator": generator.get_state()}
    back = through_disk(saved, tmp_path)
    assert same(dict(back["model"]), dict(saved["model"]))
    assert same(back["optimizer"], saved["optimizer"])
    assert sorted(back["optimizer"]["state"]) == [0, 1, 2, 3]  # int keys

    learn(model, optimizer, 3, generator)
    fresh_generator = torch.Generator()
    fresh, fresh_optimizer = trained(0, fresh_generator)
    fresh.load_state_dict(back["model"])
    fresh_optimizer.load_state_dict(back["optimizer"])
    fresh_generator.set_state(back["generator"])
    learn(fresh, fresh_optimizer, 3, fresh_generator)
    assert parameter_hash(fresh.state_dict()) == parameter_hash(model.state_dict())


def test_plain_values_keep_their_types_and_stay_readable(tmp_path: Path) -> None:
    plain = {"a": [1, 2.5, -0.0, 1e-310, None, True, "π\ud800"], "b": {"c": []}, "e": {}}
    assert split_state(plain) == ({}, plain)
    odd = {
        "tuple": (1, (2,), []),
        "keys": {0: "int", "0": "str", None: 1, True: 2, 1.5: 3, (1, 2): 4},
        "$tensor": {"$dict": "a user's key"},
        "inf": [math.inf, -math.inf, math.nan],
        "big": 2**200,
        "empty": ((), {}, []),
    }
    assert same(through_disk(odd, tmp_path), odd)
    assert math.copysign(1, through_disk([-0.0], tmp_path)[0]) == -1


def test_generator_states_of_numpy_and_python(tmp_path: Path) -> None:
    rng, old, python = np.random.default_rng(3), np.random.Generator(np.random.MT19937(3)), random.Random(3)
    rng.normal(size=5), old.normal(size=5), python.random()
    states = through_disk([rng.bit_generator.state, old.bit_generator.state, python.getstate()], tmp_path)
    expected = rng.integers(1 << 62), old.integers(1 << 62), python.random()
    rng.bit_generator.state, old.bit_generator.state = states[:2]
    python.setstate(states[2])
    assert (rng.integers(1 << 62), old.integers(1 << 62), python.random()) == expected


@pytest.mark.parametrize(
    "dtype",
    [torch.bfloat16, torch.float16, torch.float64, torch.bool, torch.uint8, torch.int64, torch.float8_e4m3fn],
)
def test_dtypes_and_shapes(tmp_path: Path, dtype: torch.dtype) -> None:
    values = torch.arange(6).reshape(2, 3).to(dtype)
    back = through_disk({"x": values, "zero": values[0, 1], "empty": values[:0], "columns": values.t()}, tmp_path)
    assert same(back, {"x": values, "zero": values[0, 1], "empty": values[:0], "columns": values.t()})


def test_nan_payloads_survive(tmp_path: Path) -> None:
    bits = torch.tensor([0x7FC00001, 0x7F800001, 0xFF800000 - (1 << 32)], dtype=torch.int32)
    assert torch.equal(through_disk(bits.view(torch.float32), tmp_path).view(torch.int32), bits)


def test_arrays_come_back_as_arrays(tmp_path: Path) -> None:
    arrays = {"a": np.arange(6, dtype=np.uint32).reshape(2, 3)[:, ::-1], "b": np.array(2.5), "c": np.zeros((0, 2))}
    back = through_disk(arrays, tmp_path)
    for name, array in arrays.items():
        assert isinstance(back[name], np.ndarray) and back[name].dtype == array.dtype
        np.testing.assert_array_equal(back[name], array)
    back["a"][0, 0] = 9  # writable


def test_a_tied_tensor_is_stored_once_and_comes_back_tied(tmp_path: Path) -> None:
    weight = torch.nn.Parameter(torch.randn(64, 64, generator=torch.Generator().manual_seed(0)))
    back = through_disk({"embed": weight, "head": [weight.detach()]}, tmp_path)
    assert back["embed"] is back["head"][0]
    assert (tmp_path / "t.safetensors").stat().st_size < 2 * weight.numel() * 4
    assert same(back["embed"], weight.detach())

    model = torch.nn.ModuleDict({"embed": torch.nn.Embedding(8, 4), "head": torch.nn.Linear(4, 8, bias=False)})
    model["head"].weight = model["embed"].weight
    write_tensors(tmp_path / "tied.safetensors", model.state_dict())
    loaded = read_tensors(tmp_path / "tied.safetensors")
    assert set(loaded) == {"embed.weight", "head.weight"} and loaded["embed.weight"] is loaded["head.weight"]
    model.load_state_dict(loaded)


def test_views_of_one_storage_are_separated(tmp_path: Path) -> None:
    storage = torch.arange(12.0)
    views = {"all": storage, "head": storage[:6], "overlap": storage[3:9], "strided": storage[::2]}
    views |= {"square": storage.view(3, 4), "turned": storage.view(3, 4).t()}
    back = through_disk(views, tmp_path)
    assert same(back, views)
    back["head"][0] = -1
    assert back["all"][0] == 0


def test_names_never_collide(tmp_path: Path) -> None:
    a, b, c, d = (torch.tensor(float(i)) for i in range(4))
    odd = {"x": {0: a, "0": b}, "x.0": c, "x.0~1": d}
    assert same(through_disk(odd, tmp_path), odd)
    assert same(through_disk(a, tmp_path), a)


def test_scalars_of_numpy_and_enums_become_plain(tmp_path: Path) -> None:
    class Colour(StrEnum):
        RED = "red"

    back = through_disk([np.float64(0.1), np.float32(0.1), np.int64(3), np.bool_(True), Colour.RED], tmp_path)
    assert same(back, [0.1, float(np.float32(0.1)), 3, True, "red"])


@pytest.mark.parametrize(
    ("value", "name"),
    [({1, 2}, "set"), (b"x", "bytes"), (object(), "object"), (lambda: 0, "function"), (1j, "complex")],
)
def test_what_cannot_be_stored_is_named_with_its_path(value: Any, name: str) -> None:
    with pytest.raises(DataError, match=rf"replay\.1\.left is a {name}"):
        split_state({"replay": [0, {"left": value}]})


def test_sparse_tensors_and_object_arrays_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"x is a torch\.sparse_coo tensor"):
        split_state({"x": torch.eye(2).to_sparse()})
    with pytest.raises(DataError, match="cannot store"):
        write_tensors(tmp_path / "t.safetensors", {"x": torch.eye(2).to_sparse()})
    with pytest.raises(DataError, match="x is an array of object"):
        split_state({"x": np.array([object()])})


def test_a_state_without_its_tensors_is_torn() -> None:
    tensors, encoded = split_state({"w": torch.ones(1)})
    assert list(tensors) == ["w"]
    with pytest.raises(StorageError, match="'w', which is not stored"):
        join_state({}, encoded)


def test_parameter_hash_tells_name_dtype_shape_and_bytes_apart() -> None:
    one = torch.zeros(4)
    variants = [
        {"a": one},
        {"b": one},
        {"a": one.to(torch.int32)},
        {"a": one.reshape(2, 2)},
        {"a": -one},
        {"a": one, "b": one},
        {},
    ]
    assert len({parameter_hash(variant) for variant in variants}) == len(variants)
    assert parameter_hash({"b": one, "a": one}) == parameter_hash({"a": one.clone(), "b": one})
    assert parameter_hash({"a": torch.arange(4.0).reshape(2, 2).t()}) == parameter_hash(
        {"a": torch.tensor([[0.0, 2.0], [1.0, 3.0]])}
    )
