from __future__ import annotations

import pytest

from troupe.monitoring.charts import Histogram, Series, histogram, line_plot, number, percent, smooth, ticks


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 1, [0, 0.5, 1]),  # 1 / 4 = 0.25, rounded up to 0.5
        (0, 8, [0, 2, 4, 6, 8]),
        (3, 11, [2, 4, 6, 8, 10, 12]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
        (0, 1.5e-13, [0, 5e-14, 1e-13, 1.5e-13]),
    ],
)
def test_ticks_are_round_and_cover(low: float, high: float, expected: list[float]) -> None:
    assert ticks(low, high) == pytest.approx(expected, rel=1e-9, abs=0)


def test_numbers_are_short() -> None:
    assert [number(v) for v in (0, 0.12345, 12.345, 1234.5, 3.8e-6, -0.5)] == [
        "0",
        "0.123",
        "12.3",
        "1,234",
        "3.8e-06",
        "-0.5",
    ]
    assert percent(0.6134) == "61.3\N{NO-BREAK SPACE}%"


def test_smoothing_leaves_straight_lines_straight_also_at_the_ends() -> None:
    line = [(float(x), 2.0 * x) for x in range(20)]
    assert [y for _, y in smooth(line, 7)] == pytest.approx([y for _, y in line])
    # y = 0, 3, 0: the middle becomes their mean, the ends have no neighbours on both sides
    assert smooth([(0, 0.0), (1, 3.0), (2, 0.0)], 3) == [(0, 0.0), (1, 1.0), (2, 0.0)]


def test_lines_are_placed_by_hand() -> None:
    plot = line_plot("Loss", [Series("loss", "ink", [(0, 0.0), (5, 4.0), (10, 8.0)])])
    assert plot.lines[0].path == "M0 1000L500 500L1000 0"  # y runs downwards
    assert plot.y_ticks == ((0, "0"), (25, "2"), (50, "4"), (75, "6"), (100, "8"))
    assert plot.x_ticks == ((0, "0"), (50, "5"), (100, "10"))
    assert plot.label == "Loss: loss from 0 at update 0 to 8 at 10"
    assert plot.hover[1] == {"p": 50.0, "t": "update 5", "v": [["ink", "loss", "4"]]}


def test_bands_are_closed_and_told_under_the_pointer() -> None:
    series = Series("held-out", "ink", [(0, 0.25), (4, 0.75)], [(0, 0.0, 0.5), (4, 0.5, 1.0)], dots=True)
    plot = line_plot("Success", [series], share=True)
    assert plot.lines[0].band == "M0 500L1000 0L1000 500L0 1000Z"
    assert plot.lines[0].dots == ((0, 750), (1000, 250))
    assert plot.hover[0]["v"] == [["ink", "held-out", "25.0 % [0.0 %, 50.0 %]".replace(" %", "\N{NO-BREAK SPACE}%")]]
    assert plot.y_ticks[-1] == (100, "100 %")


@pytest.mark.parametrize(
    "points", [[(3.0, 0.0)], [(1.0, 0.0), (2.0, 0.0)], [(1.0, -7.0), (2.0, -7.0)], [(0.0, 1e-13), (1.0, 2e-13)]]
)
def test_single_points_and_constants_have_a_place(points: list[tuple[float, float]]) -> None:
    plot = line_plot("x", [Series("s", "ink", points)])
    assert 0 <= min(at for at, _ in plot.y_ticks) <= max(at for at, _ in plot.y_ticks) <= 100
    assert bool(plot.lines[0].dots) == (len(points) == 1)


def test_a_chart_without_points_is_an_error() -> None:
    with pytest.raises(ValueError, match="has no point"):
        line_plot("x", [Series("s", "ink", [])])
    with pytest.raises(ValueError, match="compares nothing"):
        histogram(Histogram("x", [], [1.0], "ink"))


def test_few_values_have_bars_of_their_own() -> None:
    plot = histogram(Histogram("Reward", [0, 0, 0, 1], [0, 1, 1, 1], "agent-0"))
    # shares 75 % and 25 % before, 25 % and 75 % after; the axis ends at 100 %
    assert [bar["height"] for bar in plot.bars] == [750, 250, 250, 750]
    assert [bar["colour"] for bar in plot.bars] == ["before", "agent-0"] * 2
    assert plot.x_ticks == ((25, "0"), (75, "1"))
    assert plot.label == "Reward: mean 0.25 in the first update, 0.75 in the last update"


@pytest.mark.parametrize(
    ("values", "integers"),
    [
        (range(2, 33), True),
        (range(100), True),
        (range(2, 33), False),
        (range(100), False),
        ([-3.5, -1, 0, 1, 2, 3, 4, 5, 6.25, 7], False),
    ],
)
def test_every_value_falls_into_exactly_one_bin(values: list[float], integers: bool) -> None:
    plot = histogram(Histogram("x", list(values), list(values)[:3], "ink", integers=integers))
    top = 100 / plot.y_ticks[-1][0] * float(plot.y_ticks[-1][1].removesuffix(" %")) / 100
    for colour in ("before", "ink"):
        shares = [bar["height"] / 1000 * top for bar in plot.bars if bar["colour"] == colour]
        assert sum(shares) == pytest.approx(1, abs=2e-3)
    assert 8 < len(plot.hover) <= 17


def test_long_runs_answer_to_the_pointer_at_no_more_than_four_hundred_places() -> None:
    plot = line_plot("x", [Series("s", "ink", [(float(i), i % 7) for i in range(5000)])])
    assert 300 < len(plot.hover) <= 400
