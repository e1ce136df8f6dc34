from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from troupe.envs.pig import Pig
from troupe.envs.tictactoe import SYMMETRIES, TicTacToe, TicTacToeBatch
from troupe.errors import DataError
from troupe.protocols import Symmetry
from troupe.testing.games import check_batch_game, check_game

TTT, BATCH = TicTacToe(), TicTacToeBatch()
ABSENT: Any = property()
"""Takes an optional method away: a property that cannot be read is an attribute that is not there."""


def late(state: Any) -> bool:
    """Three stones and more: a defect that shows here alone is one that the first state does not show."""
    return (state[0] | state[1]).bit_count() >= 3


def broken(**methods: Any) -> Any:
    """Tic-tac-toe with other attributes. Methods come as functions of the arguments, without self."""
    names = {k: staticmethod(v) if callable(v) else v for k, v in methods.items()}
    return type("Broken", (TicTacToe,), names)()


def refused(game: Any, sentence: str, **options: Any) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        check_game(game, np.random.default_rng(0), **options)
    assert "\n" not in str(caught.value)


def test_sound_games_pass() -> None:
    check_game(TTT, np.random.default_rng(0))
    check_game(Pig(), np.random.default_rng(0))
    check_batch_game(BATCH, np.random.default_rng(0))


# --- what a game says of itself


@pytest.mark.parametrize("players", [0, 3, "two"])
def test_three_players_are_refused(players: Any) -> None:
    refused(broken(players=players), r"Broken.players: found .*; games are for 1 player, or for 2")


def test_actions_and_shape_must_be_sizes() -> None:
    refused(broken(actions=0), "Broken.actions: must be 1 or more, or None for candidates, found 0")
    refused(broken(observation_shape=[2, 3, 3]), "Broken.observation_shape: must be a tuple of sizes")
    refused(broken(observation_shape=(2, 0)), "Broken.observation_shape: must be a tuple of sizes")


def test_a_first_state_that_changes_is_refused() -> None:
    generator = np.random.default_rng(1)
    refused(broken(initial=lambda: (int(generator.integers(512)), 0)), "Broken.initial: .* put what is random into")


# --- legal


def test_no_action_before_the_end() -> None:
    refused(
        broken(legal=lambda s: () if late(s) else TTT.legal(s)),
        r"Broken.legal: in state \(\d+, \d+\): no action, though",
    )


@pytest.mark.parametrize("odd", [9, -1, 1.0, True, "a"])
def test_actions_outside_the_range(odd: Any) -> None:
    refused(broken(legal=lambda s: (*TTT.legal(s)[:2], odd)), "Broken.legal: .*; actions are the integers 0 to 8")


def test_an_action_listed_twice() -> None:
    refused(broken(legal=lambda s: TTT.legal(s) * 2), "Broken.legal: .* an action is listed twice")


def test_legal_actions_that_change_when_asked_again() -> None:
    calls = iter(range(10**6))
    refused(broken(legal=lambda s: TTT.legal(s)[:: (-1) ** next(calls)]), "Broken.legal: .* when asked again")


def test_candidates_must_be_hashable() -> None:
    class Lists(TicTacToe):
        actions = None  # type: ignore[assignment]
        symmetries = canonical = ABSENT

        def legal(self, state: Any) -> Any:
            return [[cell] for cell in super().legal(state)]

    refused(Lists(), "Lists.legal: .* must return what can be hashed, found list")


def test_candidates_that_can_be_hashed_pass() -> None:
    class Named(TicTacToe):
        actions = None  # type: ignore[assignment]
        symmetries = canonical = ABSENT

        def legal(self, state: Any) -> Any:
            return tuple(f"cell {cell}" for cell in super().legal(state))

        def step(self, state: Any, action: Any) -> Any:
            return super().step(state, int(action[5:]))

    check_game(Named(), np.random.default_rng(0))
    with pytest.raises(DataError, match="symmetries: they permute fixed actions"):
        check_game(type("Turned", (Named,), {"symmetries": TicTacToe.symmetries})(), np.random.default_rng(0))


# --- observe


@pytest.mark.parametrize(
    ("observe", "sentence"),
    [
        (lambda s: TTT.observe(s).astype(np.float64), "must return a float32 array, found float64"),
        (lambda s: TTT.observe(s).tolist(), "must return a float32 array, found list"),
        (lambda s: TTT.observe(s).reshape(-1), r"the shape of observation_shape, \(2, 3, 3\), found \(18,\)"),
        (lambda s: TTT.observe(s) / np.float32(not late(s)), "a number is not finite"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*encountered in divide")
def test_observations(observe: Any, sentence: str) -> None:
    refused(broken(observe=observe), f"Broken.observe: in state .*{sentence}")


# --- step


def changed(place: int, value: Any) -> Any:
    """A step whose answer has another value at one place, in late states."""

    def step(state: Any, action: Any) -> Any:
        answer = list(TTT.step(state, action))
        if late(state):
            answer[place] = value
        return tuple(answer)

    return step


@pytest.mark.parametrize(
    ("place", "value", "sentence"),
    [
        (1, float("nan"), "gave the reward nan; it must be a finite number"),
        (1, float("inf"), "gave the reward inf"),
        (1, None, "gave the reward None"),
        (1, True, "gave the reward True"),
        (2, 1, "done must be True or False, found 1"),
        (2, None, "done must be True or False"),
        (3, 2, "to_play must be 0 to 1, found 2"),
        (3, -1, "to_play must be 0 to 1, found -1"),
        (3, 0.0, "to_play must be 0 to 1, found 0.0"),
    ],
)
def test_parts_of_a_step(place: int, value: Any, sentence: str) -> None:
    refused(broken(step=changed(place, value)), f"Broken.step: in state .*{sentence}")


def test_a_step_of_three_parts() -> None:
    refused(broken(step=lambda s, a: TTT.step(s, a)[:3]), r"must return \(state, reward, done, to_play\)")


def test_a_step_that_is_random() -> None:
    generator = np.random.default_rng(2)

    def step(state: Any, action: Any) -> Any:
        following, _, done, to_play = TTT.step(state, action)
        return following, float(generator.random()), done, to_play

    refused(broken(step=step), "Broken.step: .* another result the second time; put chance into `chance`")


def test_to_play_of_a_state_is_that_of_the_step() -> None:
    refused(broken(to_play=lambda s: 0), "Broken.to_play: in state .* says 0, and the step into it 1")


class Stack:
    """Puts coins on a pile; who puts the fourth wins. `careless`: how the step treats its argument."""

    players, actions, observation_shape = 2, 2, (1,)

    def __init__(self, careless: str = "") -> None:
        self.careless = careless
        self.last: list[int] = []

    def initial(self) -> list[int]:
        return []

    def legal(self, state: list[int]) -> list[int]:
        return [0, 1]

    def step(self, state: list[int], action: int) -> tuple[list[int], float, bool, int]:
        following = state if self.careless == "appends" else list(state)
        if self.careless == "returns one list":
            self.last[:] = state
            following = self.last
        following.append(action)
        done = len(following) >= 4
        return following, float(done), done, len(following) % 2

    def observe(self, state: list[int]) -> np.ndarray:
        return np.array([len(state)], np.float32)


def test_states_are_left_alone() -> None:
    check_game(Stack(), np.random.default_rng(0))
    refused(Stack("appends"), r"Stack.step: in state \[\]: action . changed the state it was given")
    refused(Stack("returns one list"), r"Stack.step: in state .* changed the state")


class Box:
    """A state without an equality of its own."""

    def __init__(self, coins: int) -> None:
        self.coins = coins


class Boxes(Stack):
    def initial(self) -> Any:
        return Box(0)

    def step(self, state: Any, action: int) -> Any:
        coins = state.coins + 1
        if self.careless:
            state.coins = coins
        return Box(coins), float(coins == 4), coins == 4, coins % 2

    def observe(self, state: Any) -> np.ndarray:
        return np.array([state.coins], np.float32)


def test_objects_are_compared_by_what_they_hold() -> None:
    check_game(Boxes(), np.random.default_rng(0))
    refused(Boxes("adds"), "Boxes.step: in state .* changed the state it was given")


def test_states_must_be_values() -> None:
    class Generators(Stack):
        made = (i for i in range(3))

        def initial(self) -> Any:
            return self.made

        def observe(self, state: Any) -> np.ndarray:
            return np.zeros(1, np.float32)

    refused(Generators(), "Generators: state .* cannot be copied .* states are values")


def test_a_game_that_never_ends() -> None:
    def step(state: Any, action: Any) -> Any:
        return state, 0.0, False, 0

    endless = broken(step=step, to_play=lambda s: 0)
    refused(endless, r"Broken.step: in state \(0, 0\): the game did not end within max_steps = 30", max_steps=30)
    with pytest.raises(DataError, match="did not end within max_steps = 8"):
        check_game(TTT, np.random.default_rng(0), 200, max_steps=8)


# --- keys and symmetries


def test_keys_that_forget_something() -> None:
    refused(broken(key=lambda s: s[0]), r"Broken.key: .* the same key as \(\d+, \d+\), whose observation or legal")
    refused(broken(key=lambda s: list(s)), "Broken.key: .* must return what can be hashed, found list")
    refused(broken(key=lambda s: object()), "Broken.key: .* an equal state has another key")


def test_canonical_keys_that_do_not_fit() -> None:
    refused(broken(canonical=lambda s: TTT.key(s)), r"Broken.canonical: .* must return \(key, index of a symmetry\)")
    refused(broken(canonical=lambda s: (TTT.key(s), 8)), "Broken.canonical: .* symmetry 8 is not among the 8")
    refused(
        broken(canonical=lambda s: (TTT.canonical(s)[0], 0)), "Broken.canonical: .*(does not lead to|the same key as)"
    )
    refused(broken(canonical=lambda s: (TTT.key(s), 0)), "Broken.canonical: .* under symmetry . has another key")
    inverse = [int(np.argmax([(np.argsort(a.actions) == b.actions).all() for b in SYMMETRIES])) for a in SYMMETRIES]
    backwards = broken(canonical=lambda s: (TTT.canonical(s)[0], inverse[TTT.canonical(s)[1]]))
    refused(backwards, "Broken.canonical: .*(does not lead to|the same key as)")


def test_canonical_needs_symmetries() -> None:
    class Lone(TicTacToe):
        symmetries = ABSENT

    refused(Lone(), r"Lone.canonical: names a symmetry, and the game has no method symmetries\(\)")


def test_symmetries_that_are_none() -> None:
    identity, turn = SYMMETRIES[:2]
    lines = {
        "the first must be the identity": (turn, identity),
        "must be the identity": (),
        "cells of symmetry 1 must permute 0 to 17": (identity, Symmetry(np.zeros(18, int), turn.actions)),
        "actions of symmetry 1 must permute 0 to 8": (identity, Symmetry(turn.cells, turn.actions[:8])),
        "observation or legal actions of its image under symmetry 1": (
            identity,
            Symmetry(turn.cells, np.argsort(turn.actions)),
        ),
        r"symmetry 1 differ": (identity, Symmetry(np.roll(np.arange(18), 9), np.arange(9))),
    }
    for sentence, found in lines.items():
        game = broken(symmetries=lambda found=found: found, canonical=ABSENT)
        refused(game, f"Broken.symmetries: .*{sentence}")


def test_a_symmetry_of_the_board_that_the_rules_do_not_have() -> None:
    """Looks alike at every step; only the rows count, though, so a turned win is none."""
    rows = (0o007, 0o070, 0o700)

    def step(state: Any, action: Any) -> Any:
        following = (state[1], state[0] | 1 << int(action))
        won = any(following[1] & row == row for row in rows)
        return following, float(won), won or following[0] | following[1] == 511, following[1].bit_count() % 2

    game = type("Rows", (TicTacToe,), {"step": staticmethod(step), "to_play": ABSENT})()
    refused(game, "Rows.symmetries: in state .* action . and its image . under symmetry . differ")


def test_symmetries_that_move_the_first_state_need_a_transform() -> None:
    """A wrong one goes unseen from the first state, and is seen with the images at hand."""
    from troupe.envs.othello import SYMMETRIES as TURNS
    from troupe.envs.othello import Othello, _turned

    def turned(state: Any, k: int) -> Any:
        return _turned(state[0], k), _turned(state[1], k), state[2]

    wrong = list(TURNS)
    wrong[1] = Symmetry(TURNS[1].cells, TURNS[3].actions)  # a quarter turn moves the first state
    members = {"symmetries": lambda self: wrong, "canonical": ABSENT}
    game = type("Turned", (Othello,), members)()
    check_game(game, np.random.default_rng(0), 2)
    refused(game, "Turned.symmetries: .* under symmetry 1", playouts=2, transform=turned)


# --- chance


class Dice(Pig):
    pairs: Any = ()

    def chance(self, state: Any) -> Any:
        return self.pairs if state[3] else ()


@pytest.mark.parametrize(
    ("pairs", "sentence"),
    [
        (((1, 0.5), (2, 0.4)), "probabilities must sum to 1, found 0.9"),
        (((1, 1.5), (2, -0.5)), "probabilities must be above 0 and at most 1"),
        (((1, 0.5), (1, 0.5)), "an outcome is listed twice"),
        ((([1], 0.5), ([2], 0.5)), "must return what can be hashed, found list"),
    ],
)
def test_chance(pairs: Any, sentence: str) -> None:
    refused(type("Loaded", (Dice,), {"pairs": pairs})(), f"Loaded.chance: in state .*{sentence}")


def test_a_die_that_never_ends_the_game() -> None:
    refused(type("Ones", (Dice,), {"pairs": ((1, 1.0),)})(), "did not end within max_steps")


# --- arrays


def broken_batch(**methods: Any) -> Any:
    names = {k: staticmethod(v) if callable(v) else v for k, v in methods.items()}
    return type("Broken", (TicTacToeBatch,), names)()


def refused_batch(game: Any, sentence: str, **options: Any) -> None:
    with pytest.raises(DataError, match=sentence) as caught:
        check_batch_game(game, np.random.default_rng(0), **options)
    assert "\n" not in str(caught.value)


def without_first(call: Any) -> Any:
    """Rows after the first get the first's answer."""
    return lambda states: np.repeat(call(states)[:1], len(states), axis=0)


def spoiling(states: np.ndarray, actions: np.ndarray) -> Any:
    answer = BATCH.step(states, actions)
    states[:] = answer[0]
    return answer


def part(place: int, change: Any) -> Any:
    def step(states: np.ndarray, actions: np.ndarray) -> Any:
        answer = list(BATCH.step(states, actions))
        answer[place] = change(answer[place])
        return tuple(answer)

    return step


@pytest.mark.parametrize(
    ("methods", "sentence"),
    [
        ({"players": 3}, "Broken.players"),
        ({"actions": None}, "Broken.actions: games on arrays have fixed actions"),
        ({"initial": lambda n: np.zeros((1, 2), np.uint64)}, r"Broken.initial: must be uint64 of shape \(20, 2\)"),
        ({"initial": lambda n: np.full((n, 1), None)}, "Broken.initial: states must be numbers"),
        (
            {"legal": lambda s: BATCH.legal(s).astype(int)},
            r"Broken.legal: must be bool of shape \(20, 9\), found int64",
        ),
        ({"legal": lambda s: BATCH.legal(s)[:, :8]}, r"Broken.legal: must be bool of shape \(20, 9\)"),
        ({"legal": lambda s: BATCH.legal(s) & (s[:, :1] < 2)}, r"Broken.legal: in state array\(.*no action"),
        ({"legal": without_first(BATCH.legal)}, "Broken.legal: .* the row alone gives another answer"),
        ({"observe": lambda s: BATCH.observe(s).astype(float)}, "Broken.observe: must be float32"),
        ({"observe": without_first(BATCH.observe)}, "Broken.observe: .* the row alone gives another answer"),
        ({"keys": lambda s: BATCH.keys(s)[:1]}, "Broken.keys: 20 states gave 1 answers"),
        ({"keys": lambda s: s[:, 0].tolist()}, "Broken.keys: .* the same key as"),
        ({"canonical": lambda s: (BATCH.keys(s), np.full(len(s), 8))}, "Broken.canonical: .* symmetry 8 is not"),
        ({"step": spoiling}, "Broken.step: changed the states or actions that it was given"),
        ({"step": lambda s, a: BATCH.step(s, a)[:3]}, "Broken.step: must return"),
        ({"step": part(0, lambda x: x.astype(int))}, r"Broken.step \(states\): must be uint64"),
        ({"step": part(1, lambda x: x.astype(np.float32))}, r"Broken.step \(rewards\): must be float64"),
        ({"step": part(2, lambda x: x.astype(int))}, r"Broken.step \(done\): must be bool"),
        ({"step": part(3, lambda x: x.astype(int))}, r"Broken.step \(to_play\): must be int8"),
        ({"step": part(3, lambda x: x + np.int8(2))}, "Broken.step: .* to_play must be 0 to 1"),
        ({"step": part(1, lambda x: x + len(x))}, "Broken.step: in state .* alone gives another result than among"),
        ({"step": part(1, lambda x: x * np.nan)}, "Broken.step: in state .*"),
    ],
)
def test_broken_arrays(methods: Any, sentence: str) -> None:
    refused_batch(broken_batch(**methods), sentence)


def test_arrays_that_never_end() -> None:
    absent = dict.fromkeys(("canonical", "keys", "symmetries"), ABSENT)
    endless = broken_batch(
        step=part(2, lambda done: done & False), legal=lambda s: np.ones((len(s), 9), bool), **absent
    )
    refused_batch(endless, "Broken.step: .* did not end within max_steps = 20", max_steps=20)


def test_one_row_cannot_be_compared() -> None:
    refused_batch(BATCH, "playouts must be 2 or more", playouts=1)
