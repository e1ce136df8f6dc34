"""Where tasks come from: generators of endless verifiable problems, readers of public data, and a registry of prepared
sets. A new generator is one file here and one line in `GENERATORS`; its `generate(n)` returns tasks whose `answer` and
`solution` are for rewards and demonstrations and never reach a model."""

from troupe.tasks.bugs import BugGenerator
from troupe.tasks.code import CodeProblemGenerator
from troupe.tasks.datasets import DatasetRegistry, prepare_gsm8k, read_gsm8k
from troupe.tasks.facts import FactsGenerator, ResearchGenerator
from troupe.tasks.generator import BaseTaskGenerator, as_task
from troupe.tasks.math import MathProblemGenerator, check_answer
from troupe.tasks.programs import CodeGenerationTaskGenerator
from troupe.tasks.reasoning import MultiStepReasoningGenerator
from troupe.tasks.search_problems import SearchProblemGenerator
from troupe.tasks.splits import disjoint, fingerprint, split

__all__ = [
    "GENERATORS",
    "BaseTaskGenerator",
    "BugGenerator",
    "CodeGenerationTaskGenerator",
    "CodeProblemGenerator",
    "DatasetRegistry",
    "FactsGenerator",
    "MathProblemGenerator",
    "MultiStepReasoningGenerator",
    "ResearchGenerator",
    "SearchProblemGenerator",
    "as_task",
    "check_answer",
    "disjoint",
    "fingerprint",
    "prepare_gsm8k",
    "read_gsm8k",
    "split",
]

GENERATORS: dict[str, type[BaseTaskGenerator]] = {
    "bugs": BugGenerator,
    "code": CodeProblemGenerator,
    "facts": FactsGenerator,
    "math": MathProblemGenerator,
    "research": ResearchGenerator,
}
"""What `data.train` of language teams may name besides prepared data sets. Families that are searched stand in
`troupe.systems.selfplay.verifiable.families.FAMILIES`."""
