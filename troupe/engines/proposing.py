"""A language model as who proposes the actions of a search: it weighs the lines that could stand next in a chain.

    game = ToldGame(MathProblemGenerator.game("equation"))
    proposer = LanguageProposer(policy, game)
    ticker = Ticker(proposer, SearchConfig(simulations=8), slots=64, generator=generator, returns=(0.0, 1.0))
    found = await ticker.search(game, game.begin(task.problem))

The model reads the problem and the lines written so far, as in the conversations that `write_chains` makes; the legal
actions, in the game's words, are its choices. It sees no answer and no verdict.
"""

from __future__ import annotations

from collections import Counter, OrderedDict
from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from troupe.episode import Problem, message
from troupe.errors import ConfigError
from troupe.protocols import Positions, Proposal, TaskGame

if TYPE_CHECKING:
    from troupe.batch import Batch
    from troupe.models.language import Policy

__all__ = ["LanguageProposer", "Told", "ToldGame"]


class Told(NamedTuple):
    """A state, the words of its problem, and what was done so far, a line for each action."""

    state: Any
    prompt: str
    lines: tuple[str, ...]


class ToldGame:
    """A `TaskGame` whose states remember their chain. Everything else is that of the game inside."""

    def __init__(self, game: TaskGame) -> None:
        self.game = game
        self.players, self.actions, self.pointers = game.players, game.actions, game.pointers
        self.observation_shape, self.vocabulary = game.observation_shape, game.vocabulary

    def initial(self) -> Told:
        state = self.game.initial()
        return Told(state, self.render(Told(state, "", ())), ())

    def begin(self, problem: Problem) -> Told:
        """Raises DataError for a problem that the game cannot hold."""
        return Told(self.game.begin(problem), problem.prompt, ())

    def legal(self, state: Told) -> Sequence[int]:
        return self.game.legal(state.state)

    def step(self, state: Told, action: int) -> tuple[Told, float, bool, int]:
        line = self.game.describe(state.state, action)
        following, reward, done, to_play = self.game.step(state.state, action)
        return Told(following, state.prompt, (*state.lines, line)), reward, done, to_play

    def answer(self, state: Told) -> str | None:
        return self.game.answer(state.state)

    def observe(self, state: Told) -> np.ndarray:
        return self.game.observe(state.state)

    def key(self, state: Told) -> Hashable:
        return self.game.key(state.state)

    def describe(self, state: Told, action: int) -> str:
        return self.game.describe(state.state, action)

    def render(self, state: Told) -> str:
        return str(self.game.render(state.state)) if hasattr(self.game, "render") else str(state.state)


class LanguageProposer:
    """`Proposer` and `Evaluator` over the legal actions of a `ToldGame`.

        s_a = sum over the tokens of line a and its line break of log p(token | problem, lines so far, tokens before)
        prior_a = exp(s_a / temperature) / sum of exp(s_b / temperature) over the legal b

    At temperature 1 that is the model's own distribution over lines, given that the line is a legal one. `per_token`
    takes the mean in place of the sum, for models that were not tuned on such lines and would mostly prefer the
    shortest. Actions with the same words share one line's probability. `value` is what every state is worth: the model
    says what to try, the search finds out whether it was any good.

    Lines of a state share their context, which is computed once (`models.prefix_tree`); a forward pass takes at most
    about `budget` tokens. Weights of the last `memory` states are kept until the policy's `version` changes: who trains
    it otherwise calls `clear`.

    A `Ticker` asks `propose`, which names the `proposals` most probable actions; the synchronous driver asks
    `evaluate`, which weighs all. `scored` counts the lines that the model has read.
    """

    def __init__(
        self,
        policy: Policy,
        game: ToldGame,
        *,
        value: float = 0.5,
        temperature: float = 1.0,
        per_token: bool = False,
        proposals: int = 16,
        budget: int = 4096,
        memory: int = 1 << 16,
    ) -> None:
        if temperature <= 0 or proposals < 1 or budget < 1 or memory < 0:
            raise ConfigError(
                f"a proposer needs temperature > 0, proposals and budget >= 1 and memory >= 0, not {temperature}, "
                f"{proposals}, {budget} and {memory}"
            )
        self.policy, self.game, self.value = policy, game, value
        self.scored = 0
        self._temperature, self._per_token = temperature, per_token
        self._proposals, self._budget, self._memory = proposals, budget, memory
        self._known: OrderedDict[Told, np.ndarray] = OrderedDict()
        self._version = policy.version

    def propose(self, states: Sequence[Told]) -> list[Proposal]:
        """The most probable actions of each state, in the game's order, with their weights. Raises ConfigError for a
        chain that does not fit the model's positions."""
        return [self._proposal(state, weights) for state, weights in zip(states, self.weights(states), strict=True)]

    def evaluate(self, positions: Positions) -> tuple[np.ndarray, np.ndarray]:
        """(priors float64 `[n, W]`, the value `[n]`)."""
        states = positions.states()
        priors = np.zeros(positions.legal.shape)
        for row, state, weights in zip(priors, states, self.weights(states), strict=True):
            row[list(self.game.legal(state))] = weights
        return priors, np.full(len(states), self.value)

    def weights(self, states: Sequence[Told]) -> list[np.ndarray]:
        """The priors of each state's legal actions, float64 `[k]` in the order of `game.legal`."""
        if self._version != self.policy.version:
            self.clear()
        new = [state for state in dict.fromkeys(states) if state not in self._known]
        found = dict(zip(new, self._weighed(new), strict=True))
        found |= {state: self._known[state] for state in states if state not in found}
        self._known.update(found)
        while len(self._known) > self._memory:
            self._known.popitem(last=False)
        return [found[state] for state in states]

    def clear(self) -> None:
        """Forgets what the last weights said."""
        self._known.clear()
        self._version = self.policy.version

    def _proposal(self, state: Told, weights: np.ndarray) -> Proposal:
        actions = self.game.legal(state)
        kept = np.sort(np.argsort(-weights, kind="stable")[: self._proposals]).tolist()
        return Proposal(tuple(actions[i] for i in kept), tuple(weights[kept].tolist()), self.value)

    def _weighed(self, states: Sequence[Told]) -> list[np.ndarray]:
        lines = [[self.game.describe(state, action) for action in self.game.legal(state)] for state in states]
        choices = [list(dict.fromkeys(own)) for own in lines]  # where there is one, nobody need be asked
        asked = [(state, own) for state, own in zip(states, choices, strict=True) if len(own) > 1]
        scores = iter(self._scores(asked)) if asked else iter(())
        return [
            self._shared(own, dict(zip(distinct, next(scores) if len(distinct) > 1 else [0.0], strict=True)))
            for own, distinct in zip(lines, choices, strict=True)
        ]

    def _shared(self, lines: Sequence[str], scores: dict[str, float]) -> np.ndarray:
        logits = np.array([scores[line] for line in lines]) / self._temperature
        weights = np.exp(logits - logits.max()) / np.array([Counter(lines)[line] for line in lines])
        return np.asarray(weights / weights.sum())

    def _scores(self, asked: Sequence[tuple[Told, Sequence[str]]]) -> list[list[float]]:
        """The score of each line of each state."""
        import torch

        from troupe.models.prefix_tree import partition
        from troupe.models.scoring import score

        batch = self._batch([row for state, lines in asked for row in self._rows(state, lines)])
        totals = torch.zeros(len(batch))
        lengths = [row.length for row in batch.rows]
        with torch.inference_mode():
            for part in partition(batch.inputs["input_ids"], lengths, self._budget):
                totals[part] = score(self.policy, batch.take(part)).logprobs.sum(1).float().cpu()
        if self._per_token:
            totals /= batch["mask"].sum(1)
        self.scored += len(batch)
        each = iter(totals.tolist())
        return [[next(each) for _ in lines] for _, lines in asked]

    def _rows(self, state: Told, lines: Sequence[str]) -> list[tuple[tuple[int, ...], int]]:
        """For each line the ids of the whole conversation up to it, and where the line's own begin."""
        layout = self.policy.model.format
        head = layout.encode([message("user", state.prompt)])
        said = "".join(f"{line}\n" for line in state.lines)
        before = layout.encode_response(said)[:-1]
        whole = [layout.encode_response(f"{said}{line}\n")[:-1] for line in lines]  # tokens may span line breaks
        start = len(head) + min(_common(before, ids) for ids in whole)
        longest = len(head) + max(map(len, whole))
        if longest > self.policy.model.max_positions:
            raise ConfigError(
                f"a chain of {longest} tokens does not fit the model's {self.policy.model.max_positions} positions; "
                "take a model with more, or tasks with fewer steps"
            )
        return [((*head, *ids), start) for ids in whole]

    def _batch(self, rows: Sequence[tuple[tuple[int, ...], int]]) -> Batch:
        import torch

        from troupe.batch import Batch, RowInfo

        width = max(len(ids) for ids, _ in rows)
        ids = torch.full((len(rows), width), int(self.policy.model.tokenizer.pad_token_id))
        mask = torch.zeros(len(rows), width)
        for i, (own, start) in enumerate(rows):
            ids[i, : len(own)] = torch.tensor(own)
            mask[i, start : len(own)] = 1.0
        columns = {"actions": ids, "mask": mask, "temperature": torch.ones(len(rows), width)}
        told = tuple(RowInfo(i, "proposer", self.policy.name, len(own)) for i, (own, _) in enumerate(rows))
        return Batch({"input_ids": ids}, columns, told)


def _common(a: Sequence[int], b: Sequence[int]) -> int:
    """How many ids two sequences have in common from their beginning."""
    return next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), min(len(a), len(b)))
