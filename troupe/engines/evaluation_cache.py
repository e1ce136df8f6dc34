"""What a network said about a position, remembered until its weights change."""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import numpy as np

__all__ = ["EvaluationCache"]


class EvaluationCache:
    """The newest `capacity` judgements, by key; once full, each new one takes the place of the oldest.

    Logits are kept rather than priors, as float32, just as the network gave them: a hit gives the same bits as the
    evaluation that it saves. Memory is taken as entries arrive, `4 * (width + 1)` bytes each beside the key.
    """

    def __init__(self, capacity: int, width: int) -> None:
        self._capacity = capacity
        self._slots: dict[Hashable, int] = {}
        self._keys: list[Hashable] = []  # by slot
        self._stored = 0  # since the last `clear`; entry i is in slot i % capacity
        self._logits = np.empty((capacity, width), np.float32)
        self._values = np.empty(capacity, np.float32)

    def __len__(self) -> int:
        return len(self._slots)

    def find(self, keys: Sequence[Hashable]) -> np.ndarray:
        """int `[n]`: each key's slot, -1 where it is not here. Slots are valid until the next `store`."""
        get = self._slots.get
        return np.fromiter((get(key, -1) for key in keys), np.int64, len(keys))

    def rows(self, slots: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """(logits float32 `[n, width]`, values float32 `[n]`) of the given slots, as copies."""
        return self._logits[slots], self._values[slots]

    def store(self, keys: Sequence[Hashable], logits: np.ndarray, values: np.ndarray) -> None:
        """Takes in judgements whose keys are distinct and not here yet; of more than fit, the last ones."""
        keys, logits, values = keys[-self._capacity :], logits[-self._capacity :], values[-self._capacity :]
        slots = (self._stored + np.arange(len(keys))) % self._capacity
        self._logits[slots], self._values[slots] = logits, values
        for slot, key in zip(slots.tolist(), keys, strict=True):
            if slot < len(self._keys):
                del self._slots[self._keys[slot]]
                self._keys[slot] = key
            else:
                self._keys.append(key)
            self._slots[key] = slot
        self._stored += len(keys)

    def clear(self) -> None:
        """Forgets everything."""
        self._slots.clear()
        self._keys.clear()
        self._stored = 0
