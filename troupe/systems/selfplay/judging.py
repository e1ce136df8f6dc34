"""Judging a candidate: a sequential match against the incumbent, and fixed opponents for the Elo curve."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from troupe.engines.evaluator import NetworkEvaluator
from troupe.errors import DataError
from troupe.maths.ratings import Score, Sprt, elo_ratings
from troupe.maths.statistics import Interval
from troupe.models.policy_value import PolicyValueNet, load_weights
from troupe.systems.selfplay.arena import Match, play_openings, play_until
from troupe.systems.selfplay.config import SelfPlayConfig
from troupe.systems.selfplay.openings import Opening, different_openings
from troupe.systems.selfplay.players import Minimax, Player, RandomPlayer, SearchPlayer, match_game
from troupe.training.evaluation import Decision, MatchGate

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["Judge", "Judgement", "Ladder"]

Weights = Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Judgement:
    """One candidate against its incumbent and the anchors."""

    iteration: int
    incumbent: str
    decision: Decision
    scores: Mapping[str, Score]  # opponent -> what the candidate scored

    def to_dict(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "incumbent": self.incumbent,
            "decision": self.decision.to_dict(),
            "scores": {name: asdict(score) for name, score in self.scores.items()},
        }

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Judgement:
        return cls(
            record["iteration"],
            record["incumbent"],
            Decision.from_dict(record["decision"]),
            {name: Score(**score) for name, score in record["scores"].items()},
        )


@dataclass
class Ladder:
    """Every judgement of a run, and the ratings that follow from them."""

    judgements: list[Judgement] = field(default_factory=list)

    def ratings(self) -> dict[str, Interval]:
        """Elo of every player that was met; the first anchor of the first judgement stands at 0."""
        results: dict[tuple[str, str], Score] = {}
        for judgement in self.judgements:
            for opponent, score in judgement.scores.items():
                results[f"iteration {judgement.iteration}", opponent] = score
        if not results:
            return {}
        fixed = next(iter(self.judgements[0].scores))
        return elo_ratings(results, {fixed: 0.0})


class Judge:
    """Plays the matches of a run. Every match is keyed by (seed, iteration, opponent), so it can be played again."""

    def __init__(self, config: SelfPlayConfig, start: Weights, net: PolicyValueNet, game: Any = None) -> None:
        import copy

        self._config = config
        self._game = match_game(config.game, game)
        self._net = copy.deepcopy(net).eval()
        self._search = config.search.model_copy(
            update={"simulations": config.arena.simulations, "reuse": False, "leaves": 1}
        )
        arena = config.arena
        self.gate = MatchGate(Sprt(arena.elo0, arena.elo1, arena.error, arena.error, arena.cap))
        self._start = start
        self._evaluators: dict[str, NetworkEvaluator] = {}

    def judge(
        self, iteration: int, candidate: Weights, incumbent: str, champion: Weights, champions: Mapping[str, Weights]
    ) -> Judgement:
        """The candidate against the incumbent, by the gate's test, and against each anchor.

        No match meets an opening twice (`different_openings`): the gate stops undecided where they run out before its
        test ends, and an anchor's match is as long as there are openings for it.
        """
        arena = self._config.arena
        ours = self._network("candidate", candidate)
        scores: dict[str, Score] = {}
        for name in arena.anchors:
            for opponent, player in self._anchors(name, iteration, incumbent, champions):
                openings = self._openings(iteration, opponent, arena.anchor_games // 2)
                scores[opponent] = self._match(ours, player, openings, iteration, opponent, 0).score
        theirs = self._network("incumbent", champion)
        openings = self._openings(iteration, "incumbent", arena.cap // 2)
        match = play_until(
            lambda part, some: self._match(ours, theirs, some, iteration, "incumbent", part),
            openings,
            lambda found: self.gate.is_decided(found.pairs),
        )
        scores[incumbent] = match.score
        return Judgement(iteration, incumbent, self.gate.decide(match.pairs, self._shortage(len(openings))), scores)

    def _openings(self, iteration: int, opponent: str, pairs: int) -> list[Opening]:
        generator = self._generator(iteration, f"openings {opponent}", 0)
        return different_openings(self._game, pairs, self._config.arena.opening_plies, generator)

    def _shortage(self, found: int) -> str | None:
        """Why a match of all openings that were found is shorter than the cap, and what to write; None: it is not."""
        arena = self._config.arena
        if found >= arena.cap // 2:
            return None
        return (
            f"arena.opening_plies={arena.opening_plies} leads to {found} of the {arena.cap // 2} different openings "
            f"that arena.cap={arena.cap} asks for; write a larger arena.opening_plies, or a larger arena.elo1, which "
            "takes fewer"
        )

    def _match(
        self, ours: Player, theirs: Player, openings: Sequence[Opening], iteration: int, opponent: str, part: int
    ) -> Match:
        return play_openings(self._game, ours, theirs, openings, self._generator(iteration, opponent, part))

    def _generator(self, iteration: int, name: str, part: int) -> np.random.Generator:
        words = [self._config.seed, 1_000_003, iteration, part, *name.encode()]
        return np.random.default_rng(np.random.SeedSequence(words))

    def _anchors(
        self, name: str, iteration: int, incumbent: str, champions: Mapping[str, Weights]
    ) -> Iterator[tuple[str, Player]]:
        """The opponents that an anchor stands for, without the incumbent, who has a match of their own. One by one: all
        past champions play through one evaluator, which holds the weights of the last that was asked for."""
        generator = self._generator(iteration, f"player {name}", 0)
        if name == "random":
            yield name, RandomPlayer(self._game, generator)
        elif name.startswith("minimax:"):
            yield name, Minimax(self._game, int(name.removeprefix("minimax:")), generator)
        elif name == "untrained":
            if incumbent != name:
                yield name, self._network(name, self._start)
        elif name == "champions":
            for past, weights in champions.items():
                if past != incumbent:
                    yield past, self._network("champion", weights)
        else:
            raise DataError(f"nobody is called {name!r}; write random, untrained, champions or minimax:DEPTH")

    def _network(self, role: str, weights: Weights) -> SearchPlayer:
        load_weights(self._net, weights)
        acting = self._config.acting
        if role not in self._evaluators:
            self._evaluators[role] = NetworkEvaluator(
                self._net, precision=acting.precision, runtime=acting.runtime, cache=acting.cache
            )
        else:
            self._evaluators[role].refresh(self._net)
        return SearchPlayer(self._game, self._evaluators[role], self._search)
