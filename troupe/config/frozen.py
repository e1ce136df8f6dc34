"""The base class of every config section."""

from __future__ import annotations

from typing import ClassVar

from pydantic import BaseModel, ConfigDict

from troupe.config.conditions import ReadWhen

__all__ = ["Frozen"]


class Frozen(BaseModel):
    """A config section: immutable, typed, and closed to keys that it does not declare.

    The docstring under a field is its description:

        class Optim(Frozen):
            lr: float = Field(default=1e-4, gt=0)
            \"\"\"Peak learning rate.\"\"\"
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
    read_when: ClassVar[tuple[ReadWhen, ...]] = ()  # of the model that `load` is called with: keys nothing may read
