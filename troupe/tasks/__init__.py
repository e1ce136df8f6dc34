"""Where tasks come from: generators of endless verifiable problems, readers of public data, and a registry of prepared
sets. A new generator is one file here and one line in `GENERATORS`; its `generate(n)` returns tasks whose `answer` and
`solution` are for rewards and demonstrations and never reach a model."""

from troupe.tasks.generator import BaseTaskGenerator
from troupe.tasks.math import MathProblemGenerator

__all__ = ["GENERATORS", "BaseTaskGenerator", "MathProblemGenerator"]

GENERATORS = {
    "math": MathProblemGenerator,
}
