"""Plays a game's three versions side by side and compares whatever they say."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest


def assert_versions_agree(game: Any, batch: Any, generator: np.random.Generator, games: int = 64) -> int:
    """Random games to their end, all rows at once; returns how many positions were compared."""
    step, legal, encode = batch.compiled_functions()
    states = [game.initial()] * games
    rows = batch.initial(games)
    compared = 0
    while states:
        assert rows.dtype == np.uint64 and rows.shape == (len(states), batch.words)
        assert rows.tolist() == [list(state) for state in states]
        masks = batch.legal(rows)
        assert_looks_agree(game, batch, states, rows, masks)
        actions = np.array([generator.choice(np.flatnonzero(mask)) for mask in masks])
        before = rows.copy()
        following, rewards, done, to_play = batch.step(rows, actions)
        assert (rows == before).all()
        assert (rewards.dtype, done.dtype, to_play.dtype) == (np.float64, np.bool_, np.int8)
        for i, state in enumerate(states):
            assert_compiled_looks_agree(legal, encode, batch, rows[i], masks[i])
            expected = game.step(state, actions[i])
            assert all(type(word) is int for word in expected[0])
            assert expected == (tuple(following[i].tolist()), rewards[i], done[i], to_play[i])
            assert game.to_play(expected[0]) == expected[3]
            out = np.zeros(batch.words, np.uint64)
            found = step(rows[i], int(actions[i]), out)
            assert expected == (tuple(out.tolist()), *found)
            states[i] = expected[0]
            compared += 1
        states = [state for state, over in zip(states, done, strict=True) if not over]
        rows = following[~done]
    return compared


def assert_looks_agree(game: Any, batch: Any, states: list[Any], rows: np.ndarray, masks: np.ndarray) -> None:
    assert masks.dtype == np.bool_ and masks.shape == (len(states), batch.actions)
    assert [tuple(np.flatnonzero(mask).tolist()) for mask in masks] == [game.legal(state) for state in states]
    planes = batch.observe(rows)
    assert planes.dtype == np.float32 and planes.flags.c_contiguous
    np.testing.assert_array_equal(planes, np.stack([game.observe(state) for state in states]))
    assert list(batch.keys(rows)) == [game.key(state) for state in states]
    keys, symmetries = batch.canonical(rows)
    assert list(zip(keys, symmetries.tolist(), strict=True)) == [game.canonical(state) for state in states]


def assert_compiled_looks_agree(legal: Any, encode: Any, batch: Any, row: np.ndarray, mask: np.ndarray) -> None:
    found = np.ones(batch.actions, np.bool_)
    legal(row, found)
    assert (found == mask).all()
    planes = np.full(int(np.prod(batch.observation_shape)), 9, np.float32)
    encode(row, planes)
    np.testing.assert_array_equal(planes, batch.observe(row[None]).reshape(-1))


def assert_played_like_openspiel(game: Any, name: str) -> None:
    """A hundred random games, move by move; skips where OpenSpiel is absent."""
    pyspiel = pytest.importorskip("pyspiel")
    generator = np.random.default_rng(9)
    for _ in range(100):
        theirs, state, done, to_play = pyspiel.load_game(name).new_initial_state(), game.initial(), False, 0
        while not done:
            assert (to_play, list(game.legal(state))) == (theirs.current_player(), theirs.legal_actions())
            action, mover = int(generator.choice(game.legal(state))), to_play
            state, reward, done, to_play = game.step(state, action)
            theirs.apply_action(action)
            assert done == theirs.is_terminal()
        assert theirs.returns()[mover] == reward
