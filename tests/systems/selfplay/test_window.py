from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from troupe.envs.tictactoe import TicTacToe
from troupe.protocols import Symmetry
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.episodes import SelfPlayEpisode, TrainingExample
from troupe.systems.selfplay.extraction import TrainingDataExtractor
from troupe.systems.selfplay.games import GameTaskGenerator
from troupe.systems.selfplay.generator import SelfPlayEpisodeGenerator
from troupe.systems.selfplay.window import ExampleWindow
from troupe.tasks.math import MathProblemGenerator

BOARD = Family(2, (2, 3, 3), 9)


@pytest.fixture(scope="module")
def episodes() -> list[SelfPlayEpisode]:
    tasks = [*GameTaskGenerator(seed=1).generate(40), *MathProblemGenerator(seed=1, kinds=("word",)).generate(8)]
    order = np.random.default_rng(0).permutation(len(tasks))
    generator = SelfPlayEpisodeGenerator(mcts_config={"num_simulations": 8})
    return asyncio.run(generator.generate_episodes([tasks[i] for i in order], max_steps=9))


class Counts(TrainingDataExtractor):
    calls = 0

    def extract_examples(self, episodes: Sequence[SelfPlayEpisode]) -> dict[str, list[TrainingExample]]:
        self.calls += len(episodes)
        return super().extract_examples(episodes)


def drawn(window: ExampleWindow, symmetries: Any = None) -> list[Any]:
    """All batches of a pass over each family, as numbers."""
    found: list[Any] = []
    for name in window.families():
        for batch in window.batches(Family.named(name), 16, np.random.default_rng(7), symmetries):
            found += [(kind, key, rows[key].tolist()) for kind, rows in batch.items() for key in sorted(rows)]
    return found


def symmetries_of(episodes: Sequence[SelfPlayEpisode]) -> dict[str, tuple[Symmetry, ...]]:
    (mark,) = {episode.metadata["symmetries"] for episode in episodes} - {""}
    return {mark: tuple(TicTacToe().symmetries())}


def test_a_window_follows_the_newest_episodes(episodes: list[SelfPlayEpisode]) -> None:
    """Whatever it has held before, it is the window of these episodes, and none is extracted twice."""
    buffer: deque[SelfPlayEpisode] = deque(maxlen=15)
    window, extractor = ExampleWindow(), Counts()
    for begin in range(0, 48, 6):
        buffer.extend(episodes[begin : begin + 6])
        window.follow(buffer, extractor)  # type: ignore[arg-type]
        examples = TrainingDataExtractor().extract_examples(list(buffer))
        assert window.counts() == {kind: len(some) for kind, some in examples.items() if some}
        fresh = ExampleWindow()
        fresh.follow(buffer, TrainingDataExtractor())  # type: ignore[arg-type]
        given = symmetries_of(episodes)
        assert drawn(window, given) == drawn(fresh, given) and window.families() == fresh.families()
    assert extractor.calls == 48


def test_a_pass_over_a_window_shows_every_example_once_with_its_weight(episodes: list[SelfPlayEpisode]) -> None:
    extractor = TrainingDataExtractor(success_weight=2.0, failure_weight=0.5)
    window = ExampleWindow()
    window.follow(episodes, extractor)
    data = extractor.extract_examples(episodes)
    seen: dict[str, list[Any]] = {kind: [] for kind in ("policy", "value", "negative")}
    for batch in window.batches(BOARD, 16, np.random.default_rng(0)):
        for kind, rows in batch.items():
            assert (rows["weight"] == (0.5 if kind == "negative" else 2.0)).all()
            target = {"policy": rows["policy"], "value": rows["value"], "negative": rows["policy"].argmax(-1)}[kind]
            seen[kind] += [(o.tolist(), t.tolist()) for o, t in zip(rows["observations"], target, strict=True)]
    for kind, found in seen.items():
        own = [e for e in data[kind] if e.metadata["family"] == BOARD.name]
        expected = [(e.state.tolist(), e.target.tolist()) for e in own]
        assert own and sorted(map(repr, found)) == sorted(map(repr, expected))


def test_changes_by_hand_are_followed(episodes: list[SelfPlayEpisode]) -> None:
    window, extractor = ExampleWindow(), TrainingDataExtractor()
    for now in (episodes[:9], episodes[:5], episodes[3:12], episodes[20:22], [*episodes[20:22], *episodes[:2]], []):
        window.follow(now, extractor)
        fresh = ExampleWindow()
        fresh.follow(now, extractor)
        assert drawn(window) == drawn(fresh) and window.counts() == fresh.counts()


def test_positions_come_in_all_symmetries_of_their_game(episodes: list[SelfPlayEpisode]) -> None:
    """X in a corner, O in the centre, and a policy that likes the opposite corner: eight symmetries, four positions."""
    state = torch.zeros(2, 3, 3)
    state[0, 0, 0] = state[1, 1, 1] = 1.0
    legal = (state.sum(0) == 0).reshape(-1)
    target = torch.zeros(9)
    target[8], target[1] = 0.75, 0.25
    given = symmetries_of(episodes)
    (mark,) = given
    more = {"family": BOARD.name, "legal": legal, "symmetries": mark}
    window = ExampleWindow()
    window.append({"policy": [TrainingExample("x", "policy", state, target, 1.0, more)] * 200,
                   "negative": [TrainingExample("y", "negative", state, torch.tensor(1), 1.0, more)] * 50})  # fmt: skip
    seen = set()
    for batch in window.batches(BOARD, 64, np.random.default_rng(0), given):
        found = [batch["policy"][name] for name in ("observations", "legal", "policy")]
        for observation, mask, policy in zip(*found, strict=True):
            assert torch.equal(mask, (observation.sum(0) == 0).reshape(-1))
            corner = int(observation[0].reshape(-1).argmax())
            assert policy.argmax() == 8 - corner and not policy[~mask].any()
            assert sorted(policy[policy > 0].tolist()) == [0.25, 0.75]
            seen.add((corner, int((policy == 0.25).nonzero()[0])))
        found = [batch["negative"][name] for name in ("observations", "policy")]
        for observation, policy in zip(*found, strict=True):
            corner, action = int(observation[0].reshape(-1).argmax()), int(policy.argmax())
            assert policy.sum() == 1.0 and {corner // 3, corner % 3} | {action // 3, action % 3} <= {0, 1, 2}
            assert abs(corner // 3 - action // 3) + abs(corner % 3 - action % 3) == 1  # beside the corner, as it was
    assert len(seen) == 8 and {corner for corner, _ in seen} == {0, 2, 6, 8}
    plain = next(window.batches(BOARD, 64, np.random.default_rng(0)))["policy"]
    assert (plain["observations"] == state).all() and (plain["policy"] == target).all()


def test_a_game_without_symmetries_beside_one_that_has_them_is_left_alone(episodes: list[SelfPlayEpisode]) -> None:
    given = symmetries_of(episodes)
    (mark,) = given
    boards = [torch.zeros(2, 3, 3), torch.zeros(2, 3, 3)]
    boards[0][0, 0, 1], boards[1][1, 0, 1] = 1.0, 1.0
    both = [(boards[i], {"family": BOARD.name, "symmetries": name}) for i, name in enumerate((mark, "another's"))]
    data = [TrainingExample("x", "value", state, torch.tensor(0.5), 1.0, more) for state, more in both * 50]
    window = ExampleWindow()
    window.append({"value": data})
    turned, alone = set(), set()
    for batch in window.batches(BOARD, 10, np.random.default_rng(0), given):
        for observation in batch["value"]["observations"]:
            place = int(observation.reshape(-1).argmax())
            (turned if place < 9 else alone).add(place)
    assert turned == {1, 3, 5, 7} and alone == {10}
