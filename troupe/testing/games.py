"""Checkers for authors of games: play at random and compare what the methods say with what they promise.

    check_game(MyGame(), np.random.default_rng(0))
    check_batch_game(MyBatchGame(), np.random.default_rng(0))

The first broken promise raises DataError, in one sentence that names the method and the state.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any, NoReturn

import numpy as np

from troupe.errors import DataError
from troupe.protocols import BatchGame, Game, Symmetry

__all__ = ["check_batch_game", "check_game"]

Transform = Callable[[Any, int], Any]
"""(state, k) -> the state that symmetry k makes of it."""


def check_game(
    game: Game,
    generator: np.random.Generator,
    playouts: int = 20,
    *,
    max_steps: int = 1000,
    transform: Transform | None = None,
) -> None:
    """Plays `playouts` random games and checks each promise of `troupe.protocols.Game` on the way.

    Checked are: players 1 or 2; legal actions (never none before the end, none twice, within 0 to A - 1, the same when
    asked again); steps (types, finite rewards, the same when taken again, the argument left alone); observations
    (float32, shape, finite); chance (probabilities that sum to 1); an end within `max_steps`; where the game has
    them, `key`, `canonical` and `symmetries`.

    A symmetry is a true one where observation, legal actions and every further step of the image are the images of
    those of the position. Images are found by playing the image of each action from the first state, for all symmetries
    that leave the first state as it is; the others need `transform(state, k)`, which makes the image of a state.

    Raises DataError.
    """
    _Checker(game, type(game).__name__, generator, max_steps, transform).run(playouts)


def check_batch_game(
    game: BatchGame,
    generator: np.random.Generator,
    playouts: int = 20,
    *,
    max_steps: int = 1000,
    transform: Transform | None = None,
) -> None:
    """What `check_game` checks, on rows of a `BatchGame`; shapes and dtypes of its arrays besides, and that each row
    of `legal`, `step`, `observe`, `keys` and `canonical` is what the row alone would give.

    All `playouts` are played at once. `transform(state, k)` takes and returns one row. Raises DataError.
    """
    name = type(game).__name__
    _check_shape_of(game, name)
    if game.actions is None:
        raise DataError(f"{name}.actions: games on arrays have fixed actions, found None; give their number")
    if playouts < 2:
        raise DataError(f"check_batch_game: playouts must be 2 or more to compare rows, found {playouts}")
    _check_rows(game, name, generator, playouts, max_steps)
    _Checker(_RowGame(game), name, generator, max_steps, transform).run(playouts)


# ------------------------------------------------------------------------------------------------- one game, by value


@dataclass(slots=True)
class _Checker:
    """The checks of one game. What was seen under a key is kept, so that what shares a key can be compared."""

    game: Any
    name: str
    generator: np.random.Generator
    max_steps: int
    transform: Transform | None
    symmetries: tuple[Symmetry, ...] = ()
    images_of_actions: list[np.ndarray] = field(default_factory=list)
    by_key: dict[Hashable, tuple[Any, Any]] = field(default_factory=dict)
    by_canonical: dict[Hashable, tuple[Any, Any]] = field(default_factory=dict)

    def run(self, playouts: int) -> None:
        _check_shape_of(self.game, self.name)
        self._check_symmetries()
        first = self.game.initial()
        if not _same(first, self.game.initial()):
            self._fail("initial", first, "it is another state when asked again; put what is random into `chance`")
        for _ in range(playouts):
            self._playout(first)

    def _playout(self, state: Any) -> None:
        images = dict.fromkeys(self._followed(state), state)
        player = 0
        for _ in range(self.max_steps):
            outcomes = self._chance(state)
            if outcomes:
                action, images = outcomes[int(self.generator.integers(len(outcomes)))], {}
            else:
                legal = self._position(state)
                self._images(state, legal, images)
                action = legal[int(self.generator.integers(len(legal)))]
            following, reward, done, to_play = self._step(state, action)
            if not outcomes:
                images = self._commute(state, action, (following, reward, done, to_play), images)
            if self.game.players == 2 and hasattr(self.game, "to_play") and not done:
                self._check_to_play(following, to_play)
            if done:
                return
            state, player = following, to_play
        self._fail("step", state, f"the game did not end within max_steps = {self.max_steps} (player {player} moves)")

    # --- what a state says

    def _position(self, state: Any) -> list[Any]:
        """Checks legal, observe, key and canonical; returns the legal actions."""
        legal = self._legal(state)
        look = self._look(state, legal)
        if hasattr(self.game, "key"):
            key = self._hashed("key", state, self.game.key(state))
            if self.game.key(self._copy(state)) != key:
                self._fail("key", state, "an equal state has another key")
            self._compare("key", self.by_key, key, state, look)
        if hasattr(self.game, "canonical"):
            self._canonical(state, look)
        return legal

    def _legal(self, state: Any) -> list[Any]:
        legal = list(self.game.legal(state))
        if not legal:
            self._fail("legal", state, "no action, though the game has not ended; let `step` say that it has ended")
        if list(self.game.legal(state)) != legal:
            self._fail("legal", state, "other actions, or another order, when asked again")
        for action in legal:
            if self.game.actions is None:
                self._hashed("legal", state, action)
            elif not _is_integer(action) or not 0 <= action < self.game.actions:
                self._fail("legal", state, f"found {action!r}; actions are the integers 0 to {self.game.actions - 1}")
        if len(set(legal)) < len(legal):
            self._fail("legal", state, f"an action is listed twice in {legal}")
        return legal

    def _look(self, state: Any, legal: Sequence[Any]) -> _Look:
        seen, shape = self.game.observe(state), tuple(self.game.observation_shape)
        if not isinstance(seen, np.ndarray) or seen.dtype != np.float32:
            self._fail("observe", state, f"must return a float32 array, found {_kind(seen)}")
        if seen.shape != shape:
            self._fail("observe", state, f"must have the shape of observation_shape, {shape}, found {seen.shape}")
        if not np.isfinite(seen).all():
            self._fail("observe", state, "a number is not finite")
        if self.game.actions is None:
            return _Look(seen.copy(), legal)
        mask = np.zeros(self.game.actions, bool)
        mask[[int(action) for action in legal]] = True
        return _Look(seen.copy(), mask)

    def _canonical(self, state: Any, look: _Look) -> None:
        answer = self.game.canonical(state)
        if not isinstance(answer, tuple) or len(answer) != 2 or not _is_integer(answer[1]):
            self._fail("canonical", state, f"must return (key, index of a symmetry), found {answer!r}")
        key, k = self._hashed("canonical", state, answer[0]), int(answer[1])
        if not 0 <= k < len(self.symmetries):
            self._fail("canonical", state, f"symmetry {k} is not among the {len(self.symmetries)} of `symmetries`")
        self._compare("canonical", self.by_canonical, key, state, look.turned(self.symmetries[k]))
        if key in self.by_key and self.by_key[key][1] != look.turned(self.symmetries[k]):
            self._fail("canonical", state, f"symmetry {k} does not lead to the position whose key it returns, {key!r}")

    def _compare(
        self, method: str, seen: dict[Hashable, tuple[Any, Any]], key: Hashable, state: Any, look: Any
    ) -> None:
        other, known = seen.setdefault(key, (state, look))
        if known != look:
            self._fail(method, state, f"the same key as {_show(other)}, whose observation or legal actions differ")

    def _chance(self, state: Any) -> list[Any]:
        """The outcomes of a state of chance; none elsewhere."""
        pairs = list(self.game.chance(state)) if hasattr(self.game, "chance") else []
        if not pairs:
            return []
        probabilities = [float(probability) for _, probability in pairs]
        if not all(0 < probability <= 1 for probability in probabilities):
            self._fail("chance", state, f"probabilities must be above 0 and at most 1, found {probabilities}")
        if abs(sum(probabilities) - 1) > 1e-9:
            self._fail("chance", state, f"probabilities must sum to 1, found {sum(probabilities):.12g}")
        outcomes = [self._hashed("chance", state, outcome) for outcome, _ in pairs]
        if len(set(outcomes)) < len(outcomes):
            self._fail("chance", state, f"an outcome is listed twice in {outcomes}")
        return outcomes

    # --- what a step does

    def _step(self, state: Any, action: Any) -> tuple[Any, float, bool, int]:
        before = self._copy(state)
        answer = self.game.step(state, action)
        if not _same(before, state):
            self._fail("step", before, f"action {action!r} changed the state it was given; return a new one")
        if not isinstance(answer, tuple) or len(answer) != 4:
            self._fail("step", state, f"must return (state, reward, done, to_play), found {answer!r}")
        following, reward, done, to_play = answer
        if isinstance(reward, (bool, np.bool_)) or not isinstance(reward, Real) or not math.isfinite(reward):
            self._fail("step", state, f"action {action!r} gave the reward {reward!r}; it must be a finite number")
        if not isinstance(done, (bool, np.bool_)):
            self._fail("step", state, f"done must be True or False, found {done!r}")
        if not _is_integer(to_play) or not 0 <= to_play < self.game.players:
            self._fail("step", state, f"to_play must be 0 to {self.game.players - 1}, found {to_play!r}")
        kept = self._copy(following)
        again = self.game.step(state, action)
        if not _same(kept, following):
            self._fail("step", state, f"action {action!r} taken again changed the state that the first one returned")
        if not _same(answer, again):
            self._fail("step", state, f"action {action!r} had another result the second time; put chance into `chance`")
        return answer

    def _check_to_play(self, state: Any, to_play: int) -> None:
        if self.game.to_play(state) != to_play:
            self._fail("to_play", state, f"says {self.game.to_play(state)!r}, and the step into it {to_play!r}")

    # --- symmetries

    def _check_symmetries(self) -> None:
        if not hasattr(self.game, "symmetries"):
            if hasattr(self.game, "canonical"):
                raise DataError(f"{self.name}.canonical: names a symmetry, and the game has no method symmetries()")
            return
        if self.game.actions is None:
            raise DataError(f"{self.name}.symmetries: they permute fixed actions, and the game has candidates")
        self.symmetries = tuple(self.game.symmetries())
        cells, actions = math.prod(self.game.observation_shape), self.game.actions
        for k, symmetry in enumerate(self.symmetries):
            for part, size in (("cells", cells), ("actions", actions)):
                found = np.sort(np.asarray(getattr(symmetry, part)))
                if not np.array_equal(found, np.arange(size)):
                    raise DataError(f"{self.name}.symmetries: {part} of symmetry {k} must permute 0 to {size - 1}")
            self.images_of_actions.append(np.argsort(symmetry.actions))
        if not self.symmetries or not _is_identity(self.symmetries[0]):
            raise DataError(f"{self.name}.symmetries: the first must be the identity")

    def _followed(self, state: Any) -> list[int]:
        """The symmetries whose images can be played from the first state itself."""
        if not self.symmetries or self._chance(state):
            return []
        look = self._look(state, self._legal(state))
        return [k for k, symmetry in enumerate(self.symmetries) if look.turned(symmetry) == look]

    def _images(self, state: Any, legal: Sequence[Any], images: dict[int, Any]) -> None:
        """Puts the transformed states among the images, and compares how each image looks."""
        if self.transform is not None:
            images.update((k, self.transform(state, k)) for k in range(len(self.symmetries)))
        for k, image in images.items():
            turned = self._look(state, legal).turned(self.symmetries[k])
            if turned != self._look(image, self._legal(image)):
                self._fail("symmetries", state, f"observation or legal actions of its image under symmetry {k} differ")
            if hasattr(self.game, "canonical") and self.game.canonical(image)[0] != self.game.canonical(state)[0]:
                self._fail("canonical", state, f"its image under symmetry {k} has another key")

    def _commute(self, state: Any, action: Any, expected: tuple[Any, ...], images: dict[int, Any]) -> dict[int, Any]:
        """Steps the images by the image of the action: reward, end and player must be the same."""
        following = {}
        for k, image in images.items():
            turned = int(self.images_of_actions[k][action])
            following[k], *rest = self.game.step(image, turned)
            if tuple(rest) != expected[1:]:
                self._fail("symmetries", state, f"action {action} and its image {turned} under symmetry {k} differ")
        return following

    # --- failing

    def _copy(self, state: Any) -> Any:
        try:
            return copy.deepcopy(state)
        except TypeError as error:
            raise DataError(
                f"{self.name}: state {_show(state)} cannot be copied ({error}); states are values"
            ) from error

    def _hashed(self, method: str, state: Any, value: Any) -> Hashable:
        try:
            hash(value)
        except TypeError:
            self._fail(method, state, f"must return what can be hashed, found {_kind(value)}")
        return value

    def _fail(self, method: str, state: Any, what: str) -> NoReturn:
        if isinstance(self.game, _RowGame) and method == "key":
            method = "keys"
        raise DataError(f"{self.name}.{method}: in state {_show(state)}: {what}")


@dataclass(frozen=True, slots=True, eq=False)
class _Look:
    """How a position looks to a network: the observation, and a mask or list of legal actions."""

    observation: np.ndarray
    legal: Any

    def __eq__(self, other: object) -> bool:
        assert isinstance(other, _Look)
        return _same(self.observation, other.observation) and _same(self.legal, other.legal)

    def turned(self, symmetry: Symmetry) -> _Look:
        flat = self.observation.reshape(-1)[symmetry.cells]
        return _Look(flat.reshape(self.observation.shape), self.legal[symmetry.actions])


# ------------------------------------------------------------------------------------------------------- many rows


class _RowGame:
    """A `BatchGame` as a `Game` whose states are rows."""

    def __init__(self, batch: BatchGame) -> None:
        self.batch: Any = batch
        self.players, self.actions = batch.players, batch.actions
        self.observation_shape = batch.observation_shape
        if hasattr(batch, "keys"):
            self.key = self._key
        if hasattr(batch, "canonical"):
            self.canonical = self._canonical
        if hasattr(batch, "symmetries"):
            self.symmetries = batch.symmetries

    def initial(self) -> np.ndarray:
        return self.batch.initial(1)[0]

    def legal(self, state: np.ndarray) -> list[int]:
        return np.flatnonzero(self.batch.legal(state[None])[0]).tolist()

    def step(self, state: np.ndarray, action: int) -> tuple[np.ndarray, Any, Any, Any]:
        following, reward, done, to_play = self.batch.step(state[None], np.array([action]))
        return following[0], reward[0], done[0], to_play[0]

    def observe(self, state: np.ndarray) -> np.ndarray:
        return self.batch.observe(state[None])[0]

    def _key(self, state: np.ndarray) -> Any:
        return self.batch.keys(state[None])[0]

    def _canonical(self, state: np.ndarray) -> tuple[Any, Any]:
        keys, k = self.batch.canonical(state[None])
        return keys[0], k[0]


def _check_rows(game: Any, name: str, generator: np.random.Generator, n: int, max_steps: int) -> None:
    """Plays n rows until all have ended; whether they do end is for the check of single rows to say."""
    states = game.initial(n)
    row = game.initial(1)
    _check_array(name, "initial", states, row.dtype, (n, *row.shape[1:]))
    if states.dtype.hasobject:
        raise DataError(f"{name}.initial: states must be numbers, found an array of Python objects")
    for _ in range(max_steps):
        _check_looks(game, name, states)
        actions = np.array(
            [_any_of(name, mask, state, generator) for mask, state in zip(game.legal(states), states, strict=True)]
        )
        following, _, done, _ = _check_batch_step(game, name, states, actions, int(generator.integers(len(states))))
        states = following[~done]
        if not len(states):
            return


def _any_of(name: str, mask: np.ndarray, state: np.ndarray, generator: np.random.Generator) -> int:
    if not mask.any():
        raise DataError(f"{name}.legal: in state {_show(state)}: no action, though the game has not ended")
    return int(generator.choice(np.flatnonzero(mask)))


def _check_looks(game: Any, name: str, states: np.ndarray) -> None:
    n, before = len(states), states.copy()
    _check_array(name, "legal", game.legal(states), np.dtype(bool), (n, game.actions))
    _check_array(name, "observe", game.observe(states), np.dtype(np.float32), (n, *game.observation_shape))
    _check_alone(name, "legal", states, game.legal(states), [game.legal(states[i : i + 1])[0] for i in range(n)])
    _check_alone(name, "observe", states, game.observe(states), [game.observe(states[i : i + 1])[0] for i in range(n)])
    if hasattr(game, "keys"):
        _check_alone(name, "keys", states, game.keys(states), [game.keys(states[i : i + 1])[0] for i in range(n)])
    if hasattr(game, "canonical"):
        keys, k = game.canonical(states)
        alone = [game.canonical(states[i : i + 1]) for i in range(n)]
        _check_alone(name, "canonical", states, list(zip(keys, k, strict=True)), [(a[0], b[0]) for a, b in alone])
    if not _same(before, states):
        raise DataError(f"{name}: legal, observe, keys or canonical changed the states that it was given")


def _check_batch_step(
    game: Any, name: str, states: np.ndarray, actions: np.ndarray, row: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    before, n = (states.copy(), actions.copy()), len(states)
    answer = game.step(states, actions)
    if not isinstance(answer, tuple) or len(answer) != 4:
        raise DataError(f"{name}.step: must return (states, rewards, done, to_play), found {_kind(answer)}")
    if not _same(before, (states, actions)):
        raise DataError(f"{name}.step: changed the states or actions that it was given; return new arrays")
    dtypes: tuple[np.dtype[Any], ...] = (states.dtype, np.dtype(np.float64), np.dtype(bool), np.dtype(np.int8))
    for part, array, dtype in zip(("states", "rewards", "done", "to_play"), answer, dtypes, strict=True):
        _check_array(name, f"step ({part})", array, dtype, states.shape if part == "states" else (n,))
    alone = game.step(states[row : row + 1], actions[row : row + 1])
    if not all(_same(whole[row : row + 1], single) for whole, single in zip(answer, alone, strict=True)):
        where = _show(states[row])
        raise DataError(
            f"{name}.step: in state {where}: action {actions[row]} alone gives another result than among others"
        )
    return answer


def _check_array(name: str, method: str, array: Any, dtype: np.dtype, shape: tuple[int, ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != dtype or array.shape != shape:
        raise DataError(f"{name}.{method}: must be {dtype} of shape {shape}, found {_kind(array)}")


def _check_alone(name: str, method: str, states: np.ndarray, together: Any, alone: list[Any]) -> None:
    if len(together) != len(states):
        raise DataError(f"{name}.{method}: {len(states)} states gave {len(together)} answers; there must be one each")
    for state, whole, single in zip(states, together, alone, strict=True):
        if not _same(whole, single):
            raise DataError(
                f"{name}.{method}: in state {_show(state)}: the row alone gives another answer than among others"
            )


# --------------------------------------------------------------------------------------------------------- values


def _check_shape_of(game: Any, name: str) -> None:
    """Players, actions and observation shape."""
    if game.players not in (1, 2):
        raise DataError(
            f"{name}.players: found {game.players!r}; games are for 1 player, or for 2 whose rewards are opposite"
        )
    if game.actions is not None and (not _is_integer(game.actions) or game.actions < 1):
        raise DataError(f"{name}.actions: must be 1 or more, or None for candidates, found {game.actions!r}")
    shape = game.observation_shape
    if not isinstance(shape, tuple) or not all(_is_integer(size) and size > 0 for size in shape):
        raise DataError(f"{name}.observation_shape: must be a tuple of sizes above 0, found {shape!r}")


def _same(one: Any, other: Any) -> bool:
    """Equal in value: arrays element by element with dtype, containers part by part, objects that define no equality by
    their attributes."""
    if isinstance(one, np.ndarray) or isinstance(other, np.ndarray):
        arrays = isinstance(one, np.ndarray) and isinstance(other, np.ndarray)
        return arrays and one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        return one.keys() == other.keys() and all(_same(one[key], other[key]) for key in one)
    if isinstance(one, (tuple, list)) and type(one) is type(other):
        return len(one) == len(other) and all(map(_same, one, other))
    if type(one) is type(other) and type(one).__eq__ is object.__eq__:
        return one is other or _same(_attributes(one), _attributes(other))
    return bool(one == other)


def _attributes(thing: Any) -> dict[str, Any]:
    slots = [slot for kind in type(thing).__mro__ for slot in getattr(kind, "__slots__", ())]
    return {slot: getattr(thing, slot) for slot in slots if hasattr(thing, slot)} | getattr(thing, "__dict__", {})


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_identity(symmetry: Symmetry) -> bool:
    return all(np.array_equal(part, np.arange(len(part))) for part in (symmetry.cells, symmetry.actions))


def _kind(value: Any) -> str:
    return f"{value.dtype} of shape {value.shape}" if isinstance(value, np.ndarray) else type(value).__name__


def _show(state: Any) -> str:
    text = " ".join(repr(state).split())
    return text if len(text) <= 200 else f"{text[:200]}..."
