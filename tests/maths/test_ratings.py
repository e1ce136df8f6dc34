from __future__ import annotations

import math
from dataclasses import astuple

import numpy as np
import pytest

from troupe.errors import ConfigError, DataError
from troupe.maths.ratings import Pairs, Score, Sprt, elo_of, elo_ratings, elo_to_score, score_to_elo
from troupe.maths.statistics import Interval, wilson


def close(found: Interval, expected: tuple[float, float, float, int], tolerance: float = 1e-4) -> None:
    assert astuple(found) == pytest.approx(expected, abs=tolerance)


# --- scores and Elo ---------------------------------------------------------------------------------------------


def test_scores_by_hand() -> None:
    score = Score(wins=6, draws=2, losses=2)
    assert (score.games, score.mean, score.cells) == (10, 0.7, (2, 2, 6))
    assert score.reverse.mean == pytest.approx(0.3)
    pairs = Pairs.of([2, 1, 0.5, 1.5, 1])
    assert (pairs.cells, pairs.games, pairs.mean) == ((0, 1, 2, 1, 1), 10, 0.6)


def test_elo_and_score_turn_into_one_another() -> None:
    assert elo_to_score(0) == 0.5
    assert elo_to_score(400) == pytest.approx(10 / 11)  # odds of 10 to 1
    assert score_to_elo(1 / 11) == pytest.approx(-400)
    assert elo_to_score(50) == pytest.approx(0.571463, abs=1e-6)  # 1 / (1 + 10^-0.125)
    for elo in (-3000.0, -1.0, 0.0, 77.0, 2000.0):
        assert score_to_elo(elo_to_score(elo)) == pytest.approx(elo, abs=1e-6)
    assert (elo_to_score(1e9), elo_to_score(-1e9)) == (1.0, 0.0)
    assert (score_to_elo(1), score_to_elo(0)) == (math.inf, -math.inf)


def test_elo_of_a_match_by_hand() -> None:
    # 60 wins, 20 draws, 20 losses: s = 0.7; variance 0.6 * 0.09 + 0.2 * 0.04 + 0.2 * 0.49 = 0.16; se = 0.04
    # s +- 1.959964 * 0.04 = 0.621601 .. 0.778399; 400 log10(s / (1 - s)) = 86.23, 147.19, 218.25
    close(elo_of(Score(60, 20, 20)), (147.1906, 86.2257, 218.2544, 100), 0.01)
    there, back = elo_of(Score(60, 20, 20)), elo_of(Score(20, 20, 60))
    close(back, (-there.mean, -there.high, -there.low, 100))


def test_elo_of_pairs_takes_the_variance_of_pairs() -> None:
    # Every opening is won by white: pairs of exactly 1 point vary less than their games, whose variance is 1/4.
    # 8 pairs of 1, one of 0.5, one of 1.5: s = 0.5, variance (2 * 0.0625) / 10 = 0.0125, se = sqrt(0.00125)
    found = elo_of(Pairs((0, 1, 8, 1, 0)))
    half = 1.959964 * math.sqrt(0.00125)
    close(found, (0, score_to_elo(0.5 - half), score_to_elo(0.5 + half), 20))
    assert found.high < elo_of(Score(10, 0, 10)).high / 2


def test_equal_outcomes_leave_a_bound_and_never_divide_by_zero() -> None:
    won, lost, drawn = elo_of(Score(10, 0, 0)), elo_of(Score(0, 0, 10)), elo_of(Score(0, 10, 0))
    close(won, (math.inf, score_to_elo(wilson(10, 10).low), math.inf, 10))
    close(lost, (-math.inf, -math.inf, score_to_elo(wilson(0, 10).high), 10))
    # Up to 27.8% of other outcomes (Wilson, 0 of 10), all wins: (1 + 0.2775) / 2
    close(drawn, (0, -score_to_elo(0.638766), score_to_elo(0.638766), 10), 0.01)
    close(elo_of(Score(1, 0, 1)), (0, -math.inf, math.inf, 2))  # 0.5 +- 0.69
    assert elo_of(Score(1, 0, 0)).low < 0  # one win does not make a stronger player


def test_elo_intervals_cover_as_often_as_they_say() -> None:
    generator, truth = np.random.default_rng(0), 80.0
    win = elo_to_score(truth) - 0.1
    hits = 0
    for _ in range(1000):
        wins, draws, losses = generator.multinomial(200, [win, 0.2, 0.8 - win])
        found = elo_of(Score(int(wins), int(draws), int(losses)))
        hits += found.low <= truth <= found.high
    assert 0.93 < hits / 1000 < 0.97


# --- sequential tests -------------------------------------------------------------------------------------------


def test_bounds_are_walds() -> None:
    assert Sprt().upper == pytest.approx(math.log(19)) == -Sprt().lower  # 2.94
    assert Sprt(alpha=0.01, beta=0.1).upper == pytest.approx(math.log(0.9 / 0.01))
    assert Sprt(alpha=0.01, beta=0.1).lower == pytest.approx(math.log(0.1 / 0.99))


def test_llr_by_hand() -> None:
    # 59, 19, 19 and one virtual outcome each: 60, 20, 20 of 100: s = 0.7, variance 0.16 (above); N = 97
    # s1 - s0 = 0.071463, 2 s - s0 - s1 = 1.4 - 1.071463 = 0.328537: 97 * 0.071463 * 0.328537 / 0.32 = 7.1169
    assert Sprt().llr(Score(59, 19, 19)) == pytest.approx(7.1169, abs=1e-3)
    # pairs 0, 1, 3, 1, 0 with one each: 1, 2, 4, 2, 1 of 10: s = 0.5, variance (2 * 0.25 + 4 * 0.0625) / 10 = 0.075
    # N = 5: 5 * 0.071463 * (1 - 1.071463) / 0.15 = -0.170234
    assert Sprt().llr(Pairs((0, 1, 3, 1, 0))) == pytest.approx(-0.170234, abs=1e-5)
    assert Sprt().llr(Score(0, 0, 0)) == 0


def test_symmetric_hypotheses_mirror() -> None:
    test = Sprt(elo0=-20, elo1=20)
    assert test.llr(Score(30, 12, 21)) == pytest.approx(-test.llr(Score(21, 12, 30)))
    assert test.llr(Score(21, 0, 21)) == pytest.approx(0, abs=1e-12)


def test_decisions() -> None:
    test = Sprt(cap=50)
    assert test.decide(Score(0, 0, 0)) == "continue"
    assert test.decide(Score(40, 0, 5)) == "accept"
    assert test.decide(Score(5, 0, 40)) == "reject"
    assert test.decide(Score(26, 0, 23)) == "continue"
    assert test.decide(Score(26, 0, 24)) == "undecided"
    assert test.decide(Score(45, 0, 5)) == "accept"  # at the cap the bounds still count
    assert test.decide(Pairs((2, 5, 10, 6, 1))) == "continue"
    assert test.decide(Pairs((2, 5, 10, 6, 2))) == "undecided"  # 25 pairs are 50 games


def test_equal_outcomes_decide_neither_at_once_nor_never() -> None:
    test = Sprt()
    assert test.decide(Score(1, 0, 0)) == test.decide(Score(5, 0, 0)) == "continue"
    assert test.decide(Score(30, 0, 0)) == "accept"
    assert test.decide(Score(0, 0, 30)) == "reject"
    assert test.decide(Score(0, 1, 0)) == "continue"
    assert test.decide(Score(0, 300, 0)) == "reject"  # 0 Elo is likelier than 50


def decisions(elo: float, draws: float, paired: bool, matches: int = 400) -> dict[str, float]:
    """Share of each decision over simulated matches of true strength `elo`."""
    generator, test = np.random.default_rng(7), Sprt()
    win = elo_to_score(elo) - draws / 2
    found: dict[str, float] = {}
    for points in generator.choice(3, p=[1 - draws - win, draws, win], size=(matches, test.cap)):
        outcomes = points.reshape(-1, 2).sum(1) if paired else points
        cells = [0] * (5 if paired else 3)
        for outcome in outcomes:
            cells[outcome] += 1
            answer = test.decide(Pairs(tuple(cells)) if paired else Score(cells[2], cells[1], cells[0]))
            if answer != "continue":
                break
        found[answer] = found.get(answer, 0) + 1 / matches
    return found


@pytest.mark.parametrize(("draws", "paired"), [(0.1, False), (0.7, True)])
def test_errors_stay_near_alpha_and_beta(draws: float, paired: bool) -> None:
    """Binomial noise of 400 matches at 5% is 1.1%: 8% would be seen if the rate were above 5% by a half."""
    equal, stronger = decisions(0, draws, paired), decisions(50, draws, paired)
    assert equal.get("accept", 0) <= 0.08 and equal["reject"] > 0.7
    assert stronger.get("reject", 0) <= 0.08 and stronger["accept"] > 0.7
    assert "continue" not in equal and "continue" not in stronger


# --- ratings of many players ------------------------------------------------------------------------------------


def test_one_pair_is_rated_as_its_match() -> None:
    # 75 of 100: 190.85 Elo; information (ln 10 / 400)^2 * 100 * 0.75 * 0.25: se = 173.718 / sqrt(18.75) = 40.1184
    found = elo_ratings({("new", "old"): Score(75, 0, 25)}, {"old": 1000.0}, virtual_draws=0)
    close(found["new"], (1190.8485, 1190.8485 - 78.6307, 1190.8485 + 78.6307, 100), 0.01)
    assert found["old"] == Interval(1000, 1000, 1000, 100)


def test_draws_are_half_wins_and_both_orders_add() -> None:
    once = elo_ratings({("a", "b"): Score(30, 20, 10)}, {"b": 0.0})
    assert once["a"] == elo_ratings({("a", "b"): Score(20, 10, 0), ("b", "a"): Score(10, 10, 10)}, {"b": 0.0})["a"]
    # 30 + 20 / 2 + two virtual draws: 41 of 62
    assert once["a"].mean == pytest.approx(score_to_elo(41 / 62))


@pytest.mark.oracle
@pytest.mark.parametrize("virtual_draws", [0.0, 2.0])
def test_ratings_are_those_of_scipy(virtual_draws: float) -> None:
    from scipy import optimize

    generator, names = np.random.default_rng(3), "abcde"
    truth = dict(zip(names, [0, 60, 120, 300, -150], strict=True))
    results = {}
    for a, b in ["ab", "bc", "cd", "de", "ea", "ac"]:
        chance = 1 / (1 + 10 ** ((truth[b] - truth[a]) / 400))
        wins, draws, losses = generator.multinomial(40, [0.8 * chance, 0.2, 0.8 * (1 - chance)])
        results[a, b] = Score(int(wins), int(draws), int(losses))
    anchors = {"a": 0.0, "d": 310.0}
    free = [name for name in names if name not in anchors]
    games = {name: sum(s.games for pair, s in results.items() if name in pair) for name in names}

    def loss(x: np.ndarray) -> float:
        r = anchors | dict(zip(free, x, strict=True))
        total = 0.0
        for (a, b), s in results.items():
            chance = 1 / (1 + 10 ** ((r[b] - r[a]) / 400))
            half = s.draws / 2 + sum(virtual_draws * s.games / games[p] / 2 for p in (a, b) if p in free)
            total -= (s.wins + half) * math.log(chance) + (s.losses + half) * math.log(1 - chance)
        return total

    best = optimize.minimize(loss, np.zeros(len(free)), method="Nelder-Mead", options={"xatol": 1e-7, "fatol": 1e-12})
    # Second derivatives by central differences of one Elo: f(++) - f(+-) - f(-+) + f(--), over 4.
    signs = [(i, j) for i in (1, -1) for j in (1, -1)]
    unit = np.eye(len(free))
    hessian = [[sum(i * j * loss(best.x + i * u + j * v) for i, j in signs) / 4 for u in unit] for v in unit]
    errors = 1.959964 * np.sqrt(np.diag(np.linalg.inv(hessian)))
    found = elo_ratings(results, anchors, virtual_draws=virtual_draws)
    for name, rating, half in zip(free, best.x, errors, strict=True):
        close(found[name], (rating, rating - half, rating + half, games[name]), 0.02)


def test_who_won_or_lost_everything_has_an_open_interval() -> None:
    results = {("king", "a"): Score(10, 0, 0), ("a", "anchor"): Score(5, 2, 5), ("anchor", "pawn"): Score(8, 0, 0)}
    found = elo_ratings(results, {"anchor": 0.0})
    # Against a: 10 wins and 2 virtual draws of its own, 1 of a's (10 of its 22 games): 0.909 of one
    assert math.isfinite(found["king"].mean) and 300 < found["king"].mean < 500
    assert found["king"].high == math.inf and 0 < found["king"].low < found["king"].mean
    assert found["pawn"].low == -math.inf and found["pawn"].high < 0
    assert math.isfinite(found["a"].low) and math.isfinite(found["a"].high)


def test_an_open_side_passes_through_those_who_shield_it() -> None:
    """`top` lost to `king`, but nobody outside the two took a point from either: no game bounds them from above."""
    results = {("king", "top"): Score(6, 0, 4), ("top", "anchor"): Score(10, 0, 0)}
    found = elo_ratings(results, {"anchor": 0.0})
    assert found["king"].high == found["top"].high == math.inf
    with pytest.raises(DataError, match="'king', 'top', who won or lost everything"):
        elo_ratings(results, {"anchor": 0.0}, virtual_draws=0)


def test_newton_holds_for_extreme_matches() -> None:
    found = elo_ratings(
        {("a", "b"): Score(100_000, 0, 1), ("b", "c"): Score(100_000, 1, 0)}, {"c": 0.0}, virtual_draws=0
    )
    assert found["b"].mean == pytest.approx(score_to_elo(100_000.5 / 100_001))
    assert found["a"].mean == pytest.approx(score_to_elo(100_000 / 100_001) + found["b"].mean)


# --- refusals ---------------------------------------------------------------------------------------------------


def test_what_ratings_refuse() -> None:
    with pytest.raises(DataError, match="no count is negative"):
        Score(-1, 0, 0)
    with pytest.raises(DataError, match="without a game"):
        elo_of(Score(0, 0, 0))
    with pytest.raises(DataError, match="give 5 numbers, not 3"):
        Pairs((1, 2, 3))
    with pytest.raises(DataError, match=r"pair 1 has 0.75 points"):
        Pairs.of([1, 0.75])
    with pytest.raises(DataError, match=r"found 1.5"):
        score_to_elo(1.5)
    with pytest.raises(DataError, match="confidence"):
        elo_of(Score(1, 1, 1), confidence=95)
    with pytest.raises(ConfigError, match="elo0 < elo1"):
        Sprt(elo0=50, elo1=0)
    with pytest.raises(ConfigError, match="alpha and beta"):
        Sprt(alpha=0)
    with pytest.raises(ConfigError, match="prior > 0"):
        Sprt(prior=0)


def test_what_ratings_of_many_players_refuse() -> None:
    match = Score(1, 1, 1)
    with pytest.raises(DataError, match="needs an anchor"):
        elo_ratings({("a", "b"): match}, {})
    with pytest.raises(DataError, match="connects 'c', 'd' with an anchor \\('b'\\)"):
        elo_ratings({("a", "b"): match, ("c", "d"): match}, {"b": 0.0})
    with pytest.raises(DataError, match="'a' with itself"):
        elo_ratings({("a", "a"): match}, {"a": 0.0})
    with pytest.raises(DataError, match="virtual_draws=-1"):
        elo_ratings({("a", "b"): match}, {"b": 0.0}, virtual_draws=-1)
