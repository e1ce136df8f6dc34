"""YAML and dotted overrides into frozen pydantic models.

A config section is a `Frozen` model beside the thing that it configures. `load` reads defaults, a preset, YAML
files and overrides in Hydra's grammar into one, remembers where every value came from, and reports everything
that is wrong at once:

    my.yaml:7: data.train_batch_siez: unknown key (did you mean 'train_batch_size'?)
    override 'optim.lr=abc': optim.lr: expected a number, found 'abc'

`problems`, `schema` and `tree` are the words; `documents`, `overrides`, `aliases`, `interpolation` and `applying`
build a tree; `validation` compares it with the model, `conditions` with what the rest of it leaves unread; `resolved`
prints it; `recording` finds keys that nothing reads.
"""

from __future__ import annotations

from troupe.config.conditions import ReadWhen
from troupe.config.frozen import Frozen
from troupe.config.loading import load
from troupe.config.overrides import Override, format_value, parse_override, parse_value
from troupe.config.recording import Recording, unread
from troupe.config.resolved import Resolved
from troupe.config.schema import leaf_paths

__all__ = [
    "Frozen",
    "Override",
    "ReadWhen",
    "Recording",
    "Resolved",
    "format_value",
    "leaf_paths",
    "load",
    "parse_override",
    "parse_value",
    "unread",
]
