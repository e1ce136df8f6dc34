"""What every page is made with: the template environment, and how times are written."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from jinja2 import Template

__all__ = ["duration", "template"]


def template(name: str, filters: Mapping[str, Callable[..., Any]], **names: Any) -> Template:
    """A page of `templates/` with these filters and global names. Everything that is put into it is escaped, and a
    name that nobody gave is an error."""
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(Path(__file__).parent / "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= filters
    environment.globals |= names
    return environment.get_template(name)


def duration(seconds: float | None) -> str:
    """`12.3 s`, `4 min 5 s`, `1:02:03`."""
    if seconds is None or not math.isfinite(seconds):
        return "not recorded"
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return str(timedelta(seconds=round(seconds)))
