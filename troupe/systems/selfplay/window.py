"""What the newest episodes teach, in columns, and minibatches of it: the trainer's replay.

window = ExampleWindow()
window.follow(episode_buffer, TrainingDataExtractor())
for batch in window.batches(family, 64, np.random.default_rng(0)):
    closures = losses(network, batch)
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence

import numpy as np
from torch import Tensor

from troupe.protocols import Symmetry
from troupe.systems.selfplay.agents import Family
from troupe.systems.selfplay.episodes import SelfPlayEpisode, TrainingExample
from troupe.systems.selfplay.extraction import TrainingDataExtractor
from troupe.systems.selfplay.learning import LEARNED, columns, passes, tensors
from troupe.systems.selfplay.pupil import transformed
from troupe.training.replay import ReplayWindow

__all__ = ["ExampleWindow"]

FIRST = 256
"""Rows that a window has room for at first; it doubles."""

Key = tuple[str, str]
"""The name of a family of worlds, and a kind of example."""


class ExampleWindow:
    """One `ReplayWindow` for each family of worlds and kind of example, of which the rows of the newest episodes count:
    how many rows an episode makes, nobody knows before it is played.

    A window is a function of the episodes that it follows, so a checkpoint that holds those need not hold it.
    """

    def __init__(self) -> None:
        self._windows: dict[Key, ReplayWindow] = {}
        self._live: Counter[Key] = Counter()
        self._held: deque[tuple[SelfPlayEpisode, Counter[Key]]] = deque()
        self._kinds: Counter[str] = Counter()
        self._marks: dict[str, int] = {"": 0}  # of symmetries, as rows have them

    def follow(self, episodes: Sequence[SelfPlayEpisode], extractor: TrainingDataExtractor) -> None:
        """Afterwards it holds the examples of these episodes. Those that it has already are not extracted again, where
        old ones went at the front and new ones came at the end."""
        now = list(episodes)
        while self._held and (not now or self._held[0][0] is not now[0]):
            self._drop()
        begins = len(self._held) <= len(now)
        if not (begins and all(known is now[i] for i, (known, _) in enumerate(self._held))):
            while self._held:
                self._drop()
        for episode in now[len(self._held) :]:
            self._held.append((episode, self.append(extractor.extract_examples([episode]))))

    def append(self, data: Mapping[str, Sequence[TrainingExample]]) -> Counter[Key]:
        """Adds examples by kind; returns how many by family and kind. Raises ConfigError for those that cannot be
        learned from."""
        groups: dict[Key, list[TrainingExample]] = {}
        for kind, examples in data.items():
            for example in examples:
                groups.setdefault((example.metadata["family"], kind), []).append(example)
        for (name, kind), group in groups.items():
            self._kinds[kind] += len(group)
            if kind in LEARNED:
                marks = [self._mark(example.metadata.get("symmetries", "")) for example in group]
                self._add((name, kind), columns(Family.named(name), kind, group), marks)
        return Counter({key: len(group) for key, group in groups.items()})

    def _mark(self, name: str) -> int:
        return self._marks.setdefault(name, len(self._marks))

    def _add(self, key: Key, rows: Mapping[str, np.ndarray], marks: Sequence[int]) -> None:
        live, window = self._live[key], self._windows.get(key)
        if window is None or live + len(marks) > window.capacity:
            larger = ReplayWindow(max(FIRST, 2 * (live + len(marks))))
            if window is not None and live:
                larger.append(window.rows(self._ages(key)))
            window = self._windows[key] = larger
        window.append({**rows, "symmetries": np.array(marks, np.int32)})
        self._live[key] += len(marks)

    def _drop(self) -> None:
        """The oldest episode goes: its rows are the oldest of every window."""
        _, counts = self._held.popleft()
        for (name, kind), n in counts.items():
            self._kinds[kind] -= n
            if kind in LEARNED:
                self._live[name, kind] -= n

    def _ages(self, key: Key) -> np.ndarray:
        """Of the rows that count."""
        size = len(self._windows[key])
        return np.arange(size - self._live[key], size)

    # ------------------------------------------------------------------------------------------ reading

    def counts(self) -> dict[str, int]:
        """Examples by kind."""
        return dict(+self._kinds)

    def families(self) -> list[str]:
        """Names of those that have rows, sorted."""
        return sorted({name for (name, _), n in self._live.items() if n})

    def batches(
        self,
        family: Family,
        batch_size: int,
        generator: np.random.Generator,
        symmetries: Mapping[str, Sequence[Symmetry]] | None = None,
    ) -> Iterator[dict[str, dict[str, Tensor]]]:
        """One pass: every row once, in random order, as {kind: what `losses` takes}. Rows of games whose symmetries are
        given, by the name that their examples have, come in a random one each."""
        sizes = {kind: self._live[family.name, kind] for kind in LEARNED if self._live[family.name, kind]}
        for batch in passes(sizes, batch_size, generator):
            found = {}
            for kind, places in batch.items():
                key = (family.name, kind)
                rows = self._windows[key].rows(self._ages(key)[places])
                found[kind] = tensors(family, self._turned(rows, symmetries or {}, generator))
            yield found

    def _turned(
        self, rows: dict[str, np.ndarray], symmetries: Mapping[str, Sequence[Symmetry]], generator: np.random.Generator
    ) -> dict[str, np.ndarray]:
        own = rows.pop("symmetries")
        for name in sorted(set(symmetries) & set(self._marks)):  # in an order that a resumed run has, too
            at = np.flatnonzero(own == self._marks[name])
            if len(at):
                which = generator.integers(0, len(symmetries[name]), len(at))
                some = {column: values[at] for column, values in rows.items()}
                for column, values in transformed(some, symmetries[name], which).items():
                    rows[column][at] = values
        return rows
