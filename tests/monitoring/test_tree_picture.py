from __future__ import annotations

import re
from xml.etree import ElementTree

import numpy as np
import pytest

from troupe.engines.evaluator import UniformEvaluator
from troupe.envs.connect_four import ConnectFour
from troupe.monitoring.tree_picture import tree_svg, tree_text
from troupe.search.config import SearchConfig
from troupe.search.picture import TreeNode, picture_of
from troupe.search.search import Search, run

SVG = "{http://www.w3.org/2000/svg}"
HOSTILE = '<script>alert("1")</script>&\x00\x1b[31m'

WIN = TreeNode("a1", 30, 1.0, 0.4, None, "ended", state="X X X")
REPLY = TreeNode("c3", 5, -0.25, 0.5, 0)
TREE = TreeNode(
    "", 41, 0.5, None, 0, children=(WIN, TreeNode("b2", 10, 0.0, 0.6, 1, "decision", (REPLY,), 2)), hidden=1
)


def drawn(node: TreeNode, **options: object) -> ElementTree.Element:
    return ElementTree.fromstring(tree_svg(node, **options))  # type: ignore[arg-type]


def texts(svg: ElementTree.Element) -> list[ElementTree.Element]:
    return list(svg.iter(f"{SVG}text"))


def large() -> TreeNode:
    config, generator = SearchConfig(algorithm="puct", simulations=800), np.random.default_rng(0)
    search = Search(ConnectFour(), config, slots=1, generator=generator, explore=False)
    search.place(np.array([0]))
    run(search, UniformEvaluator())
    return picture_of(search, 0, depth=3, width=4)


def size(node: TreeNode) -> int:
    return 1 + sum(map(size, node.children))


def test_every_edge_says_its_move_visits_q_and_prior() -> None:
    said = [text.text for text in texts(drawn(TREE))]
    for words in (["30 visits", "a1", "q +1.00", "p 40%"], ["10 visits", "b2", "q 0.00", "p 60%"]):
        start = said.index(words[0])
        assert said[start : start + 4] == words
    assert said[said.index("41 visits") + 1] == "q +0.50"
    assert "q \N{MINUS SIGN}0.25" in said and "+1" in said and "+2" in said


def test_shapes_and_colours_say_who_moves_and_who_does_well() -> None:
    svg = drawn(TREE)
    groups = {next(iter(g.iter(f"{SVG}title"))).text: g for g in svg.iter(f"{SVG}g")}
    root, win, other, reply = groups.values()
    assert [len(list(group.iter(f"{SVG}circle"))) for group in (root, win, reply)] == [2, 2, 2]
    assert len(list(other.iter(f"{SVG}rect"))) == 1  # q is 0: no colour over it
    assert [e.get("fill-opacity") for e in win.iter() if e.get("class") == "for"] == ["1.00"]
    assert [e.get("fill-opacity") for e in reply.iter() if e.get("class") == "against"] == ["0.25"]
    radii = [float(next(iter(group.iter(f"{SVG}circle"))).get("r", "")) for group in (root, win, reply)]
    assert radii[0] > radii[1] > radii[2]
    assert "X X X" in next(title for title in groups if title and title.startswith("a1"))


def test_returns_beyond_one_set_the_scale() -> None:
    svg = drawn(TreeNode("", 3, 4.0, None, 0, children=(TreeNode("x", 2, 2.0, 1.0, 0),)))
    assert [e.get("fill-opacity") for g in svg.iter(f"{SVG}g") for e in g if e.get("class") == "for"] == [
        "1.00",
        "0.50",
    ]
    assert any((text.text or "").startswith("+4:") for text in texts(svg))


@pytest.mark.parametrize("longest", ["", "a move with quite a long name indeed", "日本語の手日本語の手日本語の手"])
def test_no_two_labels_overlap_and_all_lie_inside(longest: str) -> None:
    tree = large()
    if longest:
        odd = tree.children[1]
        tree = TreeNode("", tree.visits, tree.q, None, 0, children=(
            tree.children[0],
            TreeNode(longest, odd.visits, odd.q, odd.prior, odd.to_play, odd.kind, odd.children),
            *tree.children[2:],
        ))  # fmt: skip
    assert 40 <= size(tree) <= 85
    svg = drawn(tree, title="Large")
    width, height = float(svg.get("width", "")), float(svg.get("height", ""))
    boxes = []
    for text in texts(svg):
        letters = sum(2 if ord(c) > 0x2E80 else 1 for c in text.text or "")
        long = letters * 6.62 * (13 / 11 if text.get("class") == "heading" else 1)
        x, y, anchor = float(text.get("x", "")), float(text.get("y", "")), text.get("text-anchor", "start")
        left = x - {"start": 0.0, "middle": long / 2, "end": long}[anchor]
        boxes.append((left, y - 8, left + long, y + 2, text.text))
        assert left >= 0 and left + long <= width and 0 < y < height, text.text
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1], (a, b)


def test_nodes_of_one_depth_keep_their_distance() -> None:
    places: dict[str, list[float]] = {}
    for shape in drawn(large()).iter():
        if shape.get("class") == "under" and shape.tag in (f"{SVG}circle", f"{SVG}rect"):
            circle = shape.tag == f"{SVG}circle"
            half = 0.0 if circle else float(shape.get("width", "")) / 2
            x, y = (float(shape.get(k, "")) + half for k in (("cx", "cy") if circle else ("x", "y")))
            places.setdefault(f"{x:.0f}", []).append(y)
    deepest = max(places.values(), key=len)
    assert len(deepest) > 8
    assert min(np.diff(sorted(deepest))) >= 39.8


def test_it_is_accessible_self_contained_and_follows_the_scheme() -> None:
    text = tree_svg(TREE, title="After three moves")
    svg = ElementTree.fromstring(text)
    assert svg.get("role") == "img" and svg.get("aria-label") == "After three moves"
    assert next(iter(svg)).text == "After three moves"
    description = next(iter(svg.iter(f"{SVG}desc"))).text or ""
    assert "41 visits, player 0 to move" in description and "a1, 30 visits, q +1.00, p 40%" in description
    assert "prefers-color-scheme:dark" in text and "currentColor" in text
    assert re.findall(r"(?:href|src|url\(|@import)", text) == []
    headed = [t.text for t in texts(svg) if t.get("class") == "heading"]
    assert headed == ["After three moves"]
    assert [t for t in texts(drawn(TREE, title="x", heading=False)) if t.get("class") == "heading"] == []


def test_what_others_wrote_is_escaped_and_stays_xml() -> None:
    node = TreeNode("", 2, 0.0, None, 0, children=(TreeNode(HOSTILE, 1, 0.0, 1.0, 1, state=HOSTILE),), state=HOSTILE)
    text = tree_svg(node, title=HOSTILE)
    ElementTree.fromstring(text)
    assert "<script" not in text and "\x00" not in text and "\x1b" not in text
    assert "\x1b" not in tree_text(node) and "\x00" not in tree_text(node)


def test_the_text_has_lines_and_columns() -> None:
    assert tree_text(TREE).replace("\N{MINUS SIGN}", "-").split("\n") == [
        "move                visits      q  prior  then",
        "·                       41  +0.50         player 0 to move",
        "├─ a1                   30  +1.00   40 %  the game is over",
        "├─ b2                   10   0.00   60 %  player 1 to move",
        "│  ├─ c3                 5  -0.25   50 %  player 0 to move",
        "│  └─ +2 not shown",
        "└─ +1 not shown",
    ]


def test_wide_characters_keep_the_columns_and_the_state_comes_first() -> None:
    tree = TreeNode("", 2, 0.0, None, 0, children=(TreeNode("手", 1, 0.0, 1.0, 1),), state="a\nb")
    board, table = tree_text(tree).split("\n\n")
    assert board == "a\nb"
    root, child = table.split("\n")[1:]
    assert root.index("2") == child.index("1") + 1  # 手 takes two columns
