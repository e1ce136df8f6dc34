from __future__ import annotations

from collections import OrderedDict

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from troupe.engines.evaluation_cache import EvaluationCache


def judged(keys: list[int]) -> tuple[np.ndarray, np.ndarray]:
    """Recognisable: the key and its negative as logits, a tenth of it as value."""
    column = np.array(keys, np.float32).reshape(-1, 1)
    return np.concatenate([column, -column], axis=1), column[:, 0] / 10


def test_what_was_stored_is_found() -> None:
    cache = EvaluationCache(8, 2)
    assert cache.find([1, 2]).tolist() == [-1, -1]
    cache.store([1, 2, 3], *judged([1, 2, 3]))
    slots = cache.find([3, 9, 1])
    assert slots[1] == -1
    logits, values = cache.rows(slots[[0, 2]])
    assert logits.tolist() == [[3, -3], [1, -1]]
    np.testing.assert_array_equal(values, judged([3, 1])[1])


def test_the_newest_stay() -> None:
    cache = EvaluationCache(3, 2)
    cache.store([1, 2], *judged([1, 2]))
    cache.store([3, 4], *judged([3, 4]))
    assert (cache.find([1, 2, 3, 4]) >= 0).tolist() == [False, True, True, True]
    cache.store([5, 6, 7, 8, 9], *judged([5, 6, 7, 8, 9]))
    assert (cache.find([4, 5, 6, 7, 8, 9]) >= 0).tolist() == [False, False, False, True, True, True]
    assert len(cache) == 3


def test_clear() -> None:
    cache = EvaluationCache(2, 2)
    cache.store([1, 2], *judged([1, 2]))
    cache.clear()
    assert len(cache) == 0 and cache.find([1]).tolist() == [-1]
    cache.store([2, 3], *judged([2, 3]))
    assert cache.rows(cache.find([3]))[1].tolist() == judged([3])[1].tolist()


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 6), st.lists(st.lists(st.integers(0, 12), max_size=9), max_size=12))
def test_it_is_an_ordered_dict_that_drops_its_oldest(capacity: int, batches: list[list[int]]) -> None:
    cache, model = EvaluationCache(capacity, 2), OrderedDict[int, None]()
    for batch in batches:
        new = [key for key in dict.fromkeys(batch) if key not in model]
        assert (cache.find(batch) < 0).tolist() == [key not in model for key in batch]
        cache.store(new, *judged(new))
        for key in new:
            model[key] = None
            if len(model) > capacity:
                model.popitem(last=False)
        held = list(model)
        logits, values = cache.rows(cache.find(held))
        np.testing.assert_array_equal(logits, judged(held)[0])
        np.testing.assert_array_equal(values, judged(held)[1])
        assert len(cache) == len(model)
