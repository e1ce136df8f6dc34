"""The base class of every config section."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict

__all__ = ["Frozen"]


class Frozen(BaseModel):
    """A config section: immutable, typed, and closed to keys that it does not declare.

    The docstring under a field is its description:

        class Optim(Frozen):
            lr: float = Field(default=1e-4, gt=0)
            \"\"\"Peak learning rate.\"\"\"
    """

    model_config = ConfigDict(frozen=True, extra="forbid", validate_default=True, use_attribute_docstrings=True)
