from __future__ import annotations

import math
from typing import Any

import pytest

from troupe.errors import DataError
from troupe.monitoring.verdict import Measured, measured, points, verdict


def interval(mean: float, low: float, high: float) -> dict[str, Any]:
    return {"mean": mean, "low": low, "high": high, "n": 10}


BOTH = {"before": interval(0.2, 0.1, 0.3), "after": interval(0.5, 0.4, 0.6)}


def test_promotion_without_a_shown_improvement_is_said_plainly() -> None:
    said = verdict({**BOTH, "verdict": "promoted", "difference": interval(0.01, -0.1, 0.1)})
    assert (said.headline, said.tone) == ("Promoted, though no improvement was shown", "bad")
    assert said.sentence.endswith("[\N{MINUS SIGN}10.0, +10.0]: the interval includes zero, so this could be chance.")


def test_an_interval_that_touches_zero_is_no_improvement() -> None:
    said = verdict({**BOTH, "verdict": "not promoted", "difference": interval(0.1, 0.0, 0.2)})
    assert said.headline == "Not promoted: nothing improved"


def test_one_task_gives_no_interval_and_no_claim() -> None:
    said = verdict({**BOTH, "verdict": "not promoted", "difference": interval(1.0, -math.inf, math.inf)})
    assert said.headline == "Not promoted: the change was not measured"
    assert said.sentence.endswith("The difference came without an interval, so it could be chance.")


def test_bounds_that_json_cannot_hold_are_unknown() -> None:
    assert measured({"mean": 0.5, "low": None, "high": None, "n": 1}) == Measured(0.5, None, None, 1)
    assert measured(interval(0.5, -math.inf, math.inf)) == Measured(0.5, None, None, 10)
    assert measured(None) is None and measured({"mean": None}) is None and measured({"mean": math.nan}) is None


def test_points_have_a_sign() -> None:
    assert (points(0.123), points(-0.05), points(0)) == ("+12.3", "\N{MINUS SIGN}5.0", "+0.0")


@pytest.mark.parametrize("said", [None, "", "Promoted", True])
def test_only_two_verdicts_exist(said: Any) -> None:
    with pytest.raises(DataError, match="must be 'promoted' or 'not promoted'"):
        verdict({"verdict": said})
