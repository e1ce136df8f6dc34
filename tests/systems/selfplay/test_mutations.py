"""Would these tests see a wrong sign in what is learned and in how games and answers are judged? Every comparison, sign
and choice of `extraction.py` and of the verifiers in `games.py` and `generator.py` is turned round, one at a time. A
short battery of figures worked by hand must refuse each of these mutants, and must accept the sources as they are."""

from __future__ import annotations

import ast
import asyncio
import inspect
from dataclasses import replace
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from tests.mutants import compiled, flips
from troupe.episode import Action, Outcome, State, Task
from troupe.errors import ConfigError, DataError
from troupe.systems.selfplay import extraction, games, generator
from troupe.systems.selfplay.answering import AnswerWorld
from troupe.systems.selfplay.episodes import SelfPlayEpisode
from troupe.tasks.math import MathProblemGenerator

EXTRACTION = flips(
    extraction, "TrainingDataExtractor", "_returns", "_is_first", "_over_actions", "_chain", "SelfPlayDataset"
)
GAMES = flips(
    games,
    "PlayedOn",
    "game_world",
    "_after",
    "exact_value",
    "_Keyed",
    "_solved",
    "_is_solvable",
    "_difficulty_to_params",
)
GENERATOR = flips(generator, "_verdict", "_outcome", "_execute_action", "_Attempt", "_maker", "_named")
ALIKE = {
    "result >= exact - 1e-09 -> result > exact - 1e-09": "no result lies a billionth below the exact value",
}
"""Mutants that compute the same, by what is turned round."""

# ---------------------------------------------------------------------------------------------- extraction.py

FIXED = {"players": 2, "observation_shape": (2,), "actions": 3, "encoding": 0}
LISTED = {"players": 1, "observation_shape": (2,), "actions": None, "encoding": 1}


def episode(movers: list[int], rewards: list[float], outcome: Outcome, **more: Any) -> SelfPlayEpisode:
    """Every action is 2 of the legal 0 and 2, at 1/4; state t is [t, movers[t]]."""
    n = len(rewards)
    states = [State(str(t), np.array([t, mover], np.float32), {}) for t, mover in enumerate(movers)]
    actions = [Action("2", "act", {"player": movers[t]}, 0.0) for t in range(n)]
    metadata = {
        "family": FIXED, "symmetries": "", "query": "Play", "index": 4, "to_play": movers,
        "legal": [np.array([0, 2])] * n, "policies": [np.array([0.75, 0.25])] * n, "chosen": [1] * n, "done": True,
        "complete": True, "discount": 1.0,
    }  # fmt: skip
    return SelfPlayEpisode("t", {}, actions, states, rewards, [], outcome, {**metadata, **more})


def answered(rewards: list[float], outcome: Outcome) -> SelfPlayEpisode:
    """Two actions over three candidates, the second of which answers."""
    codes = np.arange(3, dtype=np.float32)[:, None]
    made = episode(
        [0, 0, 0], rewards, outcome, family=LISTED, answer="17", done=False, discount=0.5, legal=[codes] * 2,
        policies=[np.array([0.5, 0.25, 0.25])] * 2,
    )  # fmt: skip
    made.actions[:] = [Action("12+5", "act", {"player": 0}, 0.0), Action("answer 17", "answer", {"player": 0}, 0.0)]
    made.states[1:] = [State("1", np.ones(2, np.float32), {"made": ("12+5=17",)}),
                       State("2", np.ones(2, np.float32), {"made": ("12+5=17", "answer 17")})]  # fmt: skip
    return made


def shown(data: dict[str, Any], kind: str) -> list[Any]:
    found = []
    for example in data[kind]:
        assert example.example_type == kind
        target = example.target.tolist() if isinstance(example.target, torch.Tensor) else example.target
        found.append((example.metadata["step"], target, example.weight))
    return found


def check_games_teach(found: ModuleType) -> None:
    extractor = found.TrainingDataExtractor(2.0, 0.5)
    policy = [0.75, 0.0, 0.25]
    won = extractor.extract_examples([episode([0, 1, 0, 1], [0.0, 0.0, 1.0], Outcome.SUCCESS)])
    assert shown(won, "policy") == [(0, policy, 2.0), (1, policy, 2.0), (2, policy, 2.0)]
    assert shown(won, "value") == [(0, 1.0, 2.0), (1, -1.0, 2.0), (2, 1.0, 2.0)] and won["negative"] == []
    chain = "1. Player 0 plays 2.\n2. Player 1 plays 2.\n3. Player 0 plays 2."
    assert shown(won, "reasoning") == [(0, ("Play", chain), 2.0)]
    example = won["policy"][1]
    assert example.state.tolist() == [1.0, 1.0] and example.metadata["legal"].tolist() == [True, False, True]
    assert (example.metadata["family"], example.metadata["to_play"]) == ("p2-2-a3", 1)
    # O begins, pays 1/4 on the way and loses: what he did becomes less likely, what refuted him more
    lost = extractor.extract_examples([episode([1, 0, 1], [-0.25, -1.0], Outcome.FAILURE, discount=0.5)])
    assert shown(lost, "policy") == [(1, policy, 2.0)] and shown(lost, "negative") == [(0, 2, 0.5)]
    assert shown(lost, "value") == [(0, -0.75, 2.0), (1, 1.0, 2.0)] and lost["reasoning"] == []
    # A step that is his again
    twice = extractor.extract_examples([episode([0, 0, 1, 1], [0.0, 0.0, -1.0], Outcome.FAILURE)])
    assert shown(twice, "value") == [(0, -1.0, 2.0), (1, -1.0, 2.0), (2, 1.0, 2.0)]
    assert [step for step, *_ in shown(twice, "negative")] == [0, 1]
    for outcome in (Outcome.TIMEOUT, Outcome.ERROR, Outcome.FAILURE):
        cut = episode([0, 1], [0.0], outcome, complete=False)
        assert not any(extractor.extract_examples([cut]).values())
    assert extractor._extract_negative_examples(episode([0, 1], [0.0], Outcome.TIMEOUT)) == []
    assert extractor._extract_reasoning_examples(episode([0], [], Outcome.SUCCESS)) == []
    # Without a trace of candidates' encodings there is still a policy
    bare = episode([0, 0], [1.0], Outcome.SUCCESS, family=LISTED, legal=[None])
    (one,) = extractor.extract_examples([bare])["policy"]
    assert one.target.tolist() == [0.75, 0.25] and one.metadata["candidates"].shape == (2, 0)


def check_answers_teach(found: ModuleType) -> None:
    extractor = found.TrainingDataExtractor(1.0, 0.5)
    right = extractor.extract_examples([answered([0.5, 1.0], Outcome.SUCCESS)])
    assert shown(right, "policy") == [(0, [0.0, 1.0, 0.0], 1.0), (1, [0.0, 1.0, 0.0], 1.0)]
    # a step that pays 1/2, then 0, then 1 in the state that is answered, at gamma 1/2
    assert shown(right, "value") == [(0, 0.75, 1.0), (1, 0.5, 1.0), (2, 1.0, 1.0)]
    assert shown(right, "reasoning") == [(0, ("Play", "1. 12+5 = 17\n2. The answer is 17."), 1.0)]
    assert right["policy"][0].metadata["candidates"].tolist() == [[0.0], [1.0], [2.0]]
    wrong = extractor.extract_examples([answered([0.5, 0.0], Outcome.FAILURE)])
    assert shown(wrong, "value") == [(0, 0.5, 1.0), (1, 0.0, 1.0), (2, 0.0, 1.0)]
    assert shown(wrong, "negative") == [(0, 1, 0.5), (1, 1, 0.5)] and wrong["policy"] == []
    once = episode([0, 0], [1.0], Outcome.SUCCESS, family=LISTED, answer="17", done=False, legal=[None])
    assert shown(extractor.extract_examples([once]), "value") == [(0, 1.0, 1.0), (1, 1.0, 1.0)]
    silent = answered([0.5, 1.0], Outcome.SUCCESS)
    silent.states[1] = State("1", np.ones(2, np.float32), {"made": ()})
    assert found._chain(silent).splitlines()[0] == "1. 12+5"
    silent.states[1] = State("1", np.ones(2, np.float32), "a state of some other world")
    assert found._chain(silent).splitlines()[0] == "1. 12+5"


def check_data_sets(found: ModuleType) -> None:
    data = found.TrainingDataExtractor().extract_examples([
        episode([0, 1, 0], [0.0, 1.0], Outcome.SUCCESS), answered([0.0, 1.0], Outcome.SUCCESS),
    ])  # fmt: skip
    data["policy"][-1].metadata["candidates"] = torch.ones(2, 1)
    object.__setattr__(data["policy"][-1], "target", torch.tensor([0.25, 0.75]))
    everything = data["policy"] + data["value"]
    ragged = found.SelfPlayDataset(everything, "policy", "p1-2-c1")
    assert len(ragged) == 2 and ragged[1]["target"].tolist() == [0.25, 0.75, 0.0]
    assert ragged[1]["metadata"]["legal"].tolist() == [True, True, False] and ragged[0]["metadata"]["legal"].all()
    assert ragged[1]["metadata"]["candidates"].tolist() == [[1.0], [1.0], [0.0]]
    fixed = found.SelfPlayDataset(everything, "policy", "p2-2-a3")
    assert len(fixed) == 2 and fixed[0]["target"].tolist() == [0.75, 0.0, 0.25] and fixed[0]["weight"] == 1.0
    assert len(found.SelfPlayDataset(everything, "value", "p2-2-a3")) == 2
    assert len(found.SelfPlayDataset(data["policy"][:2], "policy")) == 2
    assert len(found.SelfPlayDataset([], "policy")) == len(found.SelfPlayDataset([], "policy", "p2-2-a3")) == 0
    lost = found.TrainingDataExtractor().extract_examples([answered([0.0, 0.0], Outcome.FAILURE)])["negative"]
    assert found.SelfPlayDataset(lost, "negative")[0]["target"].tolist() == 1
    for kind, family in (("polic", None), ("policy", None), ("policy", "p1-3-a4")):
        with pytest.raises(ConfigError):
            found.SelfPlayDataset(everything, kind, family)
    assert found.TrainingDataExtractor(0.0, 0.0).failure_weight == 0.0
    for weights in ((-1.0, 1.0), (1.0, -1.0), (np.inf, 1.0), (1.0, np.nan)):
        with pytest.raises(ConfigError):
            found.TrainingDataExtractor(*weights)
    with pytest.raises(DataError):
        found.TrainingDataExtractor().extract_examples([SelfPlayEpisode("t", {}, [], [], [], [], Outcome.SUCCESS, {})])


def check_extraction(found: ModuleType) -> None:
    check_games_teach(found)
    check_answers_teach(found)
    check_data_sets(found)


# ---------------------------------------------------------------------------------------------- games.py


class Line:
    """Walk to the end, which pays 1; who stays pays 1 at once, and it ends."""

    players, actions, observation_shape = 1, 2, (1,)

    def __init__(self, length: int = 5, ring: bool = False) -> None:
        self.length, self.ring = length, ring

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> tuple[int, ...]:
        return (0, 1)

    def step(self, state: int, action: int) -> tuple[int, float, bool, int]:
        if action:
            return state, -1.0, True, 0
        after = (state + 1) % self.length if self.ring else state + 1
        return after, float(after == self.length), after == self.length, 0

    def observe(self, state: int) -> np.ndarray:
        return np.array([state], np.float32)


def task(**data: Any) -> Task:
    return Task("t", "game", "play", data=data)


def check_games(found: ModuleType) -> None:
    world, exact = found.game_world, found.exact_value
    assert exact(world(task(game="tictactoe", moves=[4, 1, 0, 2]))) == 1.0  # X takes 8
    assert exact(world(task(game="tictactoe", moves=[0, 4, 1, 2, 8]))) == 1.0  # O takes 6
    assert exact(world(task(game="tictactoe", moves=[0, 4, 8, 2, 6]))) == -1.0  # X has two ways, and O moves
    assert exact(world(task(game="tictactoe", moves=[4, 0, 8, 2, 1, 7]))) == 0.0
    assert exact(world(task(game="pig"))) is None
    board = world(task(game="tictactoe", moves=[4, 0, 8]))
    assert (board.first_player, board.legal(board.initial())) == (1, (1, 2, 3, 5, 6, 7))
    assert board.key(board.initial()) == board.game.key(board.initial()) and not hasattr(board, "chance")
    assert not hasattr(board, "turns") and hasattr(board, "symmetries")
    begun = world(task(game="pig", moves=[0, 3]))  # a roll and its outcome
    assert begun.first_player == 0 and begun.legal(begun.initial())
    for data in ({}, {"game": 3}, {"game": "tictactoe", "move": [1]}, {"game": "tictactoe", "moves": [1, 1]},
                 {"game": "tictactoe", "moves": [0, 3, 1, 4, 2]}, {"game": "pig", "moves": [0]}):  # fmt: skip
        with pytest.raises(DataError):
            world(task(**data))
    # five positions are few enough, six too many; those of a ring come back
    found.SOLVABLE = 5
    assert exact(found.PlayedOn(Line(5))) == 1.0 and exact(found.PlayedOn(Line(6))) is None
    assert exact(found.PlayedOn(Line(3, ring=True))) is None
    # Equal positions are solved once, others are others
    misses = found._solved.cache_info().misses
    assert [exact(found.PlayedOn(Line(4), (0,) * n)) for n in (1, 2, 1, 2)] == [1.0] * 4
    assert found._solved.cache_info().misses == misses + 2
    make = found.GameTaskGenerator
    assert [make()._difficulty_to_params(d)["moves"] for d in (0.0, 0.5, 1.0)] == [4, 2, 0]


# ---------------------------------------------------------------------------------------------- generator.py


class Bets:
    """Player 0 pays himself 1/4, chance pays 1/2 to player 1, who pays himself 1 and ends it. No choices."""

    players, actions, observation_shape = 2, 1, (1,)

    def __init__(self, first: int = 0) -> None:
        self.first_player = first

    def initial(self) -> int:
        return 2 * self.first_player

    def legal(self, state: int) -> tuple[int, ...]:
        return () if state == 1 else (0,)

    def chance(self, state: int) -> tuple[tuple[str, float], ...]:
        return (("only", 1.0),) if state in (1, 3) else ()  # 3 is the end

    def step(self, state: int, action: Any) -> tuple[int, float, bool, int]:
        return {0: (1, 0.25, False, 1), 1: (2, 0.5, False, 1), 2: (3, 1.0, True, 0)}[state]

    def observe(self, state: int) -> np.ndarray:
        return np.array([state], np.float32)


class Named:
    """Candidates without encodings: walk twice."""

    players, actions, observation_shape = 1, None, (1,)

    def initial(self) -> int:
        return 0

    def legal(self, state: int) -> tuple[str, ...]:
        return ("answering walk", "walk on")

    def step(self, state: int, action: str) -> tuple[int, float, bool, int]:
        return state + 1, 0.5, state == 1, 0

    def observe(self, state: int) -> np.ndarray:
        return np.array([state], np.float32)


def played(found: ModuleType, task: Any, world: Any = None, steps: int = 9) -> SelfPlayEpisode:
    made = found.SelfPlayEpisodeGenerator(
        mcts_config={"num_simulations": 12}, explore=False, worlds={"mine": lambda task: world}
    )
    return asyncio.run(made.generate_episode(task, steps))


def check_rewards(found: ModuleType) -> None:
    mine = {"task_id": "m", "type": "mine", "problem": "Play"}
    for first, rewards in ((0, [-0.25, -1.0]), (1, [1.0])):
        bets = played(found, mine, Bets(first))
        assert bets.rewards == rewards and bets.metadata["to_play"] == [first, 1, 0][-len(rewards) - 1 :]
        assert bets.metadata["done"] and bets.metadata["judged_by"] == "win"
        assert bets.outcome == ("failure", "success")[first] and bets.metadata["result"] == sum(rewards)
        assert [legal.tolist() for legal in bets.metadata["legal"]] == [[0]] * len(rewards)
    named = played(found, mine, Named())
    assert named.metadata["legal"] == [None, None] and named.total_reward == 1.0
    assert {action.action_type for action in named.actions} == {"act"}
    cut = played(found, mine, Named(), steps=1)
    assert cut.outcome == "failure" and cut.metadata["max_steps_reached"] and "complete" in cut.metadata
    assert not cut.metadata["complete"] and [state.parent_id for state in cut.states] == [None, cut.states[0].state_id]
    assert [state.visit_count for state in cut.states] == [13, 0] and cut.states[0].value_estimate > 0


def check_verdicts(found: ModuleType) -> None:
    word = {"task_id": "s", "type": "word", "problem": "Say 7"}
    right, wrong = (played(found, {**word, "answer": answer}, steps=1) for answer in ("7", "x"))
    for said in (right, wrong):
        assert said.actions[0].action_type == "answer" and said.metadata["judged_by"] == "answer"
        assert said.metadata["legal"][0].shape == (len(said.metadata["policies"][0]), AnswerWorld.encoding)
        assert said.metadata["complete"] and said.metadata["answer"] == said.states[-1].raw_state["answered"]
    assert {right.outcome, wrong.outcome} == {"success", "failure"}
    assert (right.total_reward, wrong.total_reward) == (1.0, 0.0)
    open_ = played(found, {**word, "type": "mine"}, AnswerWorld("Say 7"), steps=1)  # nobody knows the answer
    assert open_.outcome == "failure" and open_.metadata["judged_by"] == "answer" and open_.total_reward == 0.0
    with pytest.raises(DataError):
        played(found, word)
    board = {"task_id": "b", "type": "game", "problem": "Play", "game": "tictactoe"}
    # X wins by 8; O by 6; X has two ways to win, and O loses as he must; a draw, as it must be
    for moves, result in (
        ([4, 1, 0, 2], 1.0),
        ([0, 4, 1, 2, 8], 1.0),
        ([0, 4, 8, 2, 6], -1.0),
        ([4, 0, 8, 2, 1, 7, 6], 0.0),
    ):
        game = played(found, {**board, "moves": moves})
        assert game.metadata["exact_value"] == result == game.total_reward and game.outcome == "success"
        assert game.metadata["symmetries"] and game.metadata["judged_by"] == "exact value"
        assert game.metadata["to_play"][0] == len(moves) % 2
    attempt = found._Attempt(
        Task("b", "game", "Play"), 0, 1.0, 1.0, games.game_world(task(game="tictactoe")), done=True
    )
    attempt.state = attempt.world.initial()
    for result, outcome in ((-1.0, "failure"), (0.0, "success"), (1.0, "success"), (-1e-12, "success")):
        attempt.rewards = [result]
        assert found._verdict(attempt)[0] == outcome
    attempt.world = Bets()
    for result, outcome in ((-1.0, "failure"), (0.0, "failure"), (0.5, "success")):
        attempt.rewards = [result]
        assert found._verdict(attempt)[0] == outcome
    named = found.SelfPlayEpisodeGenerator()._named
    symmetries = attempt_symmetries()
    assert named(symmetries[:1]) == "" == named(()) and len(named(symmetries[:2])) == 16
    assert named(symmetries) != named(symmetries[::-1])


def attempt_symmetries() -> Any:
    return games.game_world(task(game="tictactoe")).symmetries()


def check_makers(found: ModuleType) -> None:
    """A task of words alone is answered in words, whatever its kind; with data it is searched in its own game."""
    maker = found.SelfPlayEpisodeGenerator()._maker
    (whole,) = MathProblemGenerator(seed=0, kinds=("equation",)).generate(1)
    assert maker(whole) is found.WORLDS["equation"]
    assert maker(replace(whole, data={})) is found.answer_world
    with pytest.raises(DataError):
        maker(replace(whole, kind="nothing", answer=None))


def check_generator(found: ModuleType) -> None:
    check_rewards(found)
    check_verdicts(found)
    check_makers(found)


# ---------------------------------------------------------------------------------------------- the mutants

PARTS = {
    extraction: (EXTRACTION, check_extraction),
    games: (GAMES, check_games),
    generator: (GENERATOR, check_generator),
}
EVERY = [(module, what) for module, (found, _) in PARTS.items() for what in found]
ALL = [(module, what) for module, what in EVERY if what.partition(": ")[2] not in ALIKE]


@pytest.mark.parametrize("module", PARTS, ids=lambda module: module.__name__.rpartition(".")[2])
def test_the_battery_accepts_the_source_as_it_is(module: ModuleType) -> None:
    source = inspect.getsource(module)
    for text in (source, ast.unparse(ast.parse(source))):  # mutants are written anew from their trees
        PARTS[module][1](compiled(text))


def test_what_computes_the_same_is_still_there() -> None:
    assert set(ALIKE) <= {what.partition(": ")[2] for _, what in EVERY} and len(EVERY) - len(ALL) == len(ALIKE)


@pytest.mark.parametrize(("module", "what"), ALL, ids=[what for _, what in ALL])
def test_the_battery_refuses(module: ModuleType, what: str) -> None:
    found, check = PARTS[module]
    with pytest.raises((Exception, pytest.fail.Exception)):  # a mutant may fail in any way
        check(compiled(found[what]))
