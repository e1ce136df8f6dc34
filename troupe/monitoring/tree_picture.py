"""A search tree for people: as SVG, and as text for a terminal.

    tree_svg(node, title="After 4 moves")        # one element, for a page or a file of its own
    print(tree_text(node))

The SVG grows to the right: every node has a row of its own among the nodes of its depth, so that nothing overlaps. The
label of an edge stands on the line that leads into the child. Colours are the report's CSS variables with values of
their own behind them, so that a file on its own follows the reader's scheme as well.
"""

from __future__ import annotations

import math
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from html import escape

from troupe.search.picture import TreeNode

__all__ = ["tree_svg", "tree_text"]

_ROW = 40.0  # pixels between neighbours of one depth
_CHARACTER = 6.7  # pixels that one takes in the monospaced fonts below, at 11 pixels
_NARROWEST = 14  # characters of an edge's label at least: "q +0.52 p 31%"
_LONGEST = 22  # characters of an action that are shown
_LARGEST = 10.0  # pixels: the radius of the root
_CURVE = 40.0  # pixels in which an edge gets from its parent to its row
_MARGIN = 14.0
_LEGEND = 320.0  # pixels that its longest line takes

_STYLE = """
.search-tree{--tree-ink:var(--ink,#1c1d20);--tree-muted:var(--muted,#6a6964);--tree-line:var(--before,#a9a59c);
--tree-page:var(--card,#fff);--tree-for:var(--agent-0,#2f6bd8);--tree-against:var(--agent-1,#cc6415);
font:11px var(--mono,ui-monospace,"SF Mono","Cascadia Mono","DejaVu Sans Mono",Menlo,Consolas,monospace);
color:var(--tree-ink)}
.search-tree:root{background:var(--tree-page);color-scheme:light dark}
@media(prefers-color-scheme:dark){.search-tree{--tree-ink:var(--ink,#ecebe8);--tree-muted:var(--muted,#9c9a95);
--tree-line:var(--before,#73757b);--tree-page:var(--card,#1b1d20);--tree-for:var(--agent-0,#7ba6ff);
--tree-against:var(--agent-1,#f39b54)}}
.search-tree text{fill:currentColor}.search-tree .quiet{fill:var(--tree-muted)}.search-tree .move{font-weight:700}
.search-tree .edge{fill:none;stroke:var(--tree-line)}.search-tree .best{stroke:currentColor}
.search-tree .under{fill:var(--tree-page);stroke:currentColor;stroke-width:1.25}
.search-tree .for{fill:var(--tree-for)}.search-tree .against{fill:var(--tree-against)}
.search-tree .heading{font-size:13px;font-weight:700}
"""


@dataclass(frozen=True, slots=True)
class _Placed:
    """A node, its place in pixels, and where the label of the edge into it begins."""

    node: TreeNode
    x: float
    y: float
    label_x: float
    parent: _Placed | None
    best: bool  # on the line of the most visited moves


def tree_svg(node: TreeNode, *, title: str = "Search tree", heading: bool = True) -> str:
    """The tree as one `<svg>` element, at its natural size; `heading` writes the title above it.

    Nodes grow with their visits and are coloured by q, blue where the player who chose the move does well and orange
    where badly; lines grow with the share of the parent's visits, and the most visited line is drawn in ink. Who moves
    is a shape, and a legend says all of this. The state of each node is shown where the pointer rests on it, and
    `<desc>` says the first moves in words. Everything is escaped.
    """
    top = _MARGIN + (26.0 if heading else 0.0)
    placed = _place(node, top + _ROW / 2)
    limit = _limit(node)
    right = max(place.x for place in placed) + _LARGEST + _MARGIN
    bottom = max(place.y for place in placed) + _ROW / 2
    width = max(right, _LEGEND + 2 * _MARGIN)
    legend, height = _legend(placed, limit, bottom + 18, width - _MARGIN)
    drawn = [
        f'<svg xmlns="http://www.w3.org/2000/svg" class="search-tree" role="img" aria-label="{_text(title)}" '
        f'width="{width:.0f}" height="{height:.0f}" viewBox="0 0 {width:.0f} {height:.0f}">',
        f"<title>{_text(title)}</title><desc>{_text(_in_words(node))}</desc><style>{_STYLE}</style>",
        f'<text class="heading" x="{_MARGIN}" y="{_MARGIN + 12}">{_text(title)}</text>' if heading else "",
        *(_edge(place) for place in sorted(placed, key=lambda place: place.best)),
        *(_node(place, node.visits, limit) for place in placed),
        *legend,
        "</svg>",
    ]
    return "\n".join(line for line in drawn if line)


# ---------------------------------------------------------------------------------------------- places


def _place(root: TreeNode, top: float) -> list[_Placed]:
    """Leaves take the next row; a parent stands in the middle of its children."""
    label_at, node_at = _columns(root)
    rows: Iterator[int] = iter(range(_size(root)))
    found: list[_Placed] = []

    def height(node: TreeNode) -> tuple[float, list]:
        below = [height(child) for child in node.children]
        return ((below[0][0] + below[-1][0]) / 2 if below else top + _ROW * next(rows)), below

    def put(node: TreeNode, at: tuple[float, list], depth: int, parent: _Placed | None, best: bool) -> None:
        place = _Placed(node, node_at[depth], at[0], label_at[depth], parent, best)
        found.append(place)
        for i, (child, lower) in enumerate(zip(node.children, at[1], strict=True)):
            put(child, lower, depth + 1, place, best and i == 0)

    put(root, height(root), 0, None, True)
    return found


def _columns(root: TreeNode) -> tuple[list[float], list[float]]:
    """Per depth: where labels begin and where nodes stand, as wide as the longest label there."""
    labels, nodes, level, at = [], [], [root], _MARGIN
    while level:
        wide = max(_NARROWEST, *map(_label_width, level))
        labels.append(at)
        nodes.append(at + wide * _CHARACTER + _LARGEST + 4)
        at = nodes[-1] + _LARGEST + _CURVE
        level = [child for node in level for child in node.children]
    return labels, nodes


def _size(node: TreeNode) -> int:
    return 1 + sum(_size(child) for child in node.children)


def _label(node: TreeNode) -> tuple[str, str, str, str]:
    """What stands on the edge into a node: move and visits above its line, q and prior below it."""
    visits = f"{node.visits:,} visit{'s' * (node.visits != 1)}"
    prior = "" if node.prior is None else f"p {100 * node.prior:.0f}%"
    return _cut(node.label, _LONGEST), visits, f"q {_signed(node.q)}", prior


def _label_width(node: TreeNode) -> int:
    move, visits, q, prior = map(_width, _label(node))
    return max(move + 1 + visits, q + 1 + prior)


def _signed(value: float | None) -> str:
    if value is None:
        return "\N{EN DASH}"
    return f"{value:+.2f}".replace("-", "\N{MINUS SIGN}") if abs(value) >= 0.005 else "0.00"


# ---------------------------------------------------------------------------------------------- drawing


def _edge(place: _Placed) -> str:
    parent = place.parent
    if parent is None:
        return ""
    share = place.node.visits / max(1, parent.node.visits)
    bend = place.label_x - 6
    middle = (parent.x + _LARGEST + bend) / 2
    path = f"M{parent.x:.1f} {parent.y:.1f}H{parent.x + _LARGEST:.1f}"
    path += f"C{middle:.1f} {parent.y:.1f} {middle:.1f} {place.y:.1f} {bend:.1f} {place.y:.1f}H{place.x:.1f}"
    best = " best" if place.best else ""
    return f'<path class="edge{best}" stroke-width="{1 + 3 * min(1.0, share):.2f}" d="{path}"/>'


def _node(place: _Placed, most: int, limit: float) -> str:
    node, x, y = place.node, place.x, place.y
    radius = 3 + (_LARGEST - 3) * math.sqrt(min(1.0, node.visits / max(1, most)))
    parts = [f"<title>{_text(_tooltip(node))}</title>", _shape(_form(node), x, y, radius, 'class="under"')]
    if node.q is not None and node.q != 0:
        side, strength = "for" if node.q > 0 else "against", min(1.0, abs(node.q) / limit)
        parts.append(_shape(_form(node), x, y, radius, f'class="{side}" fill-opacity="{strength:.2f}"'))
    if node.kind == "ended":
        parts.append(f'<path class="edge best" stroke-width="1.5" d="M{x + radius + 3:.1f} {y - 6:.1f}v12"/>')
    if node.hidden:
        parts.append(_words(x, y + radius + 12, f"+{node.hidden}", "quiet", "middle"))
    return f"<g>{''.join(parts)}{_label_text(place)}</g>"


def _label_text(place: _Placed) -> str:
    left, right, above, below = place.label_x, place.x - _LARGEST - 4, place.y - 5, place.y + 13
    move, visits, q, prior = _label(place.node)
    words = [_words(right, above, visits, "", "end")]
    if prior:
        words += [
            _words(left, above, move, "move"),
            _words(left, below, q),
            _words(right, below, prior, "quiet", "end"),
        ]
    else:  # the root
        words.append(_words(right, below, q, "", "end"))
    return "".join(words)


def _form(node: TreeNode) -> str:
    """`0`, `1`: the player to move; `chance`; an ended game has the form of nobody's turn."""
    return str(node.to_play) if node.to_play is not None else node.kind


def _shape(form: str, x: float, y: float, radius: float, attributes: str) -> str:
    if form == "1":
        half = 0.89 * radius  # as large as the circle
        return (
            f'<rect {attributes} x="{x - half:.1f}" y="{y - half:.1f}" width="{2 * half:.1f}" height="{2 * half:.1f}"/>'
        )
    if form == "chance":
        r = 1.2 * radius
        return f'<path {attributes} d="M{x:.1f} {y - r:.1f}l{r:.1f} {r:.1f}l{-r:.1f} {r:.1f}l{-r:.1f} {-r:.1f}z"/>'
    return f'<circle {attributes} cx="{x:.1f}" cy="{y:.1f}" r="{radius:.1f}"/>'


def _words(x: float, y: float, text: str, name: str = "", anchor: str = "start") -> str:
    kind = f' class="{name}"' if name else ""
    at = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text{kind} x="{x:.1f}" y="{y:.1f}"{at}>{_text(text)}</text>'


def _legend(placed: list[_Placed], limit: float, top: float, right: float) -> tuple[list[str], float]:
    """The lines that explain the drawing, and where they end."""
    names = {"0": "player 0 moves", "1": "player 1 moves", "chance": "chance", "ended": "game over"}
    forms = [form for form in names if any(_form(place.node) == form for place in placed)]
    drawn, x, y = [], _MARGIN, top
    for form in forms:
        if x + 20 + _width(names[form]) * _CHARACTER > right:
            x, y = _MARGIN, y + 18
        drawn.append(_shape(form, x + 6, y - 4, 5, 'class="under"'))
        if form == "ended":
            drawn.append(f'<path class="edge best" stroke-width="1.5" d="M{x + 14:.1f} {y - 10:.1f}v12"/>')
            x += 4
        drawn.append(_words(x + 19, y, names[form], "quiet"))
        x += 19 + (_width(names[form]) + 2) * _CHARACTER
    drawn += _scale(limit, y + 18)
    notes = ["p: prior; size: visits; line: share of visits"]
    if any(place.node.hidden for place in placed):
        notes.append("+n: n moves that were tried and are not shown")
    drawn += [_words(_MARGIN, y + 36 + 18 * i, note, "quiet") for i, note in enumerate(notes)]
    return drawn, y + 36 + 18 * (len(notes) - 1) + _MARGIN


def _scale(limit: float, y: float) -> list[str]:
    """Colours from -limit to limit, in five steps."""
    ends = [_words(_MARGIN, y, f"\N{MINUS SIGN}{limit:.3g}", "quiet")]
    x = _MARGIN + (_width(f"{limit:.3g}") + 2) * _CHARACTER
    for i, strength in enumerate((1, 0.5, 0, 0.5, 1)):
        side = "against" if i < 2 else "for"
        box = f'x="{x + 14 * i:.1f}" y="{y - 9:.1f}" width="14" height="10"'
        ends.append(f'<rect class="{side}" fill-opacity="{strength}" {box}/>')
    ends.append(f'<rect class="edge" x="{x:.1f}" y="{y - 9:.1f}" width="70" height="10"/>')
    return [*ends, _words(x + 77, y, f"+{limit:.3g}: q for who chose the move", "quiet")]


def _limit(node: TreeNode) -> float:
    """1, as in games of two players, or the largest |q| where returns are larger."""
    return max(1.0, abs(node.q or 0.0), *(_limit(child) for child in node.children))


# ---------------------------------------------------------------------------------------------- words


def _tooltip(node: TreeNode) -> str:
    said = [*([node.label] if node.label else []), *filter(None, _label(node)[1:]), _turn(node)]
    return ", ".join(said) + (f"\n{node.state}" if node.state else "")


def _turn(node: TreeNode) -> str:
    if node.kind == "ended":
        return "the game is over"
    return "chance decides" if node.kind == "chance" else f"player {node.to_play} to move"


def _in_words(node: TreeNode) -> str:
    whole = f"{node.visits:,} visits, {_turn(node)}, mean q {_signed(node.q)}."
    said = "; ".join(", ".join(_label(child)) for child in node.children)
    return f"{whole} Most visited: {said}." if said else whole


def _clean(text: str) -> str:
    """One line without control characters, which XML does not know."""
    return "".join(
        " " if c in "\t\n\r" else c for c in text if c in "\t\n\r" or unicodedata.category(c) not in ("Cc", "Cs")
    )


def _text(text: str) -> str:
    lines = (_clean(line) for line in text.split("\n"))
    return escape("\n".join(lines))


def _width(text: str) -> int:
    """Columns in a monospaced font: East Asian characters take two, marks on another character none."""
    wide = sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)
    return wide - sum(unicodedata.category(c) in ("Mn", "Me", "Cf") for c in text)


def _cut(text: str, most: int) -> str:
    """One line of at most so many columns."""
    text = " ".join(_clean(text).split())
    if _width(text) <= most:
        return text
    while _width(text) > most - 1:
        text = text[:-1]
    return f"{text}…"


# ---------------------------------------------------------------------------------------------- terminal


def tree_text(node: TreeNode) -> str:
    """The tree with one line per node: the move, then visits, q and prior in columns, then who moves; and the state at
    the root above it, where there is one."""
    rows = [("move", "visits", "q", "prior", "then"), *_rows(node, "", "")]
    wide = [max(_width(row[i]) for row in rows) for i in range(4)]
    lines = [
        "  ".join([_padded(row[0], wide[0]), *(row[i].rjust(wide[i]) for i in range(1, 4)), row[4]]).rstrip()
        for row in rows
    ]
    state = "" if node.state is None else "\n".join(map(_clean, node.state.split("\n"))) + "\n\n"
    return state + "\n".join(lines)


def _rows(node: TreeNode, first: str, rest: str) -> Iterator[tuple[str, str, str, str, str]]:
    prior = "" if node.prior is None else f"{100 * node.prior:.0f} %"
    yield first + (_cut(node.label, _LONGEST) or "·"), f"{node.visits:,}", _signed(node.q), prior, _turn(node)
    more = node.hidden > 0 and bool(node.children)
    for i, child in enumerate(node.children):
        last = i == len(node.children) - 1 and not more
        yield from _rows(child, rest + ("└─ " if last else "├─ "), rest + ("   " if last else "│  "))
    if more:
        yield f"{rest}└─ +{node.hidden} not shown", "", "", "", ""


def _padded(text: str, wide: int) -> str:
    return text + " " * (wide - _width(text))
