"""The mathematical reward: right answers pay, and nothing else does."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from troupe.episode import Task
from troupe.errors import ConfigError, DataError
from troupe.protocols import RewardFn
from troupe.rewards import REWARDS
from troupe.rewards import math as rewards_math
from troupe.rewards.equivalence import UndecidedError
from troupe.rewards.math import RewardConfig, math_reward_fn

LINEAR = Task("l", "linear", "Solve 3x + 5 = 20", {"unknowns": ["x"]}, answer="5")
ROOTS = Task("q", "quadratic", "Solve x^2 - 5x + 6 = 0", {"unknowns": ["x"]}, answer="2, 3")
SYSTEM = Task("s", "system", "Solve x + y = 12; x - y = 4", {"unknowns": ["x", "y"]}, answer="8, 4")
SHARES = Task("w", "word", "4 friends of Ann share 48 pens equally. How many each?", answer="12")
BARS = Task("g", "gsm8k", "A box has 25 dark bars, 25 white bars and 25 others. How many of each?", answer="25")
PERCENT = Task("p", "gsm8k", "What is the percentage of each type?", answer="25")
ROOT = Task("m", "math", "Simplify.", answer=r"2\sqrt{3}")
TASKS = (LINEAR, ROOTS, SYSTEM, SHARES, BARS, PERCENT)


def test_it_is_the_registered_reward() -> None:
    reward: RewardFn = REWARDS["math"]
    paid = reward(LINEAR, "5")
    assert (paid.reward, paid.is_correct, paid.metadata) == (1.0, True, {"extracted": "5"})
    assert reward(LINEAR, "6").reward == 0.0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
@pytest.mark.parametrize(
    "form", ["{}", "<ans>{}</ans>", r"So it is \boxed{{{}}}.", "...\n#### {}", "The answer is {}."]
)
def test_the_right_answer_pays_in_every_form(task: Task, form: str) -> None:
    assert math_reward_fn(task, form.format(task.answer)).reward == 1.0
    assert math_reward_fn(task, f"{task.prompt}\n" + form.format(task.answer)).reward == 1.0


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.id)
def test_nothing_but_an_answer_pays(task: Task) -> None:
    numbers = [str(n) for n in range(-5, 60)]
    attempts = [
        None,
        "",
        " ",
        "nan",
        "inf",
        "-inf",
        "1/0",
        "0/0",
        "5 or 6",
        "12 or 25",
        "\uff15",
        "\u0661\u0662",
        "9" * 100_000,
        "answer " * 100_000,
        task.prompt,
        task.prompt * 3,
        f"<ans>{task.prompt}</ans>",
        "the answer",
        "<ans></ans>",
        r"\boxed{}",
        "<ans>any</ans>",
        "x",
        "True",
        *(joint.join(numbers) for joint in (" ", ", ", " or ", "\n", " maybe ", " = ", "; ")),
        "".join(f"<ans>{n}</ans>" for n in numbers),
        "".join(rf"\boxed{{{n}}}" for n in numbers),
        "\n".join(f"#### {n}" for n in numbers),
        " ".join(f"The answer is {n}." for n in numbers),
        f"<ans>{', '.join(numbers)}</ans>",
        "<ans>5 or 12 or 25</ans>",
        "<ans>2, 3 or 8, 4</ans>",
        "<ans>48/4</ans>",
        "<ans>(20-5)/3</ans>",
        "<ans>25*1</ans>",
        "<ans>2</ans>",
        "<ans>2, 2</ans>",
        "<ans>4, 8</ans>",
        "<ans>__import__('os').system('true')</ans>",
    ]
    for attempt in attempts:
        assert math_reward_fn(task, attempt).reward == 0.0, attempt


def test_the_best_wrong_answer_scores_below_the_plainest_right_one() -> None:
    config = RewardConfig(correct_reward=0.5, incorrect_reward=0.2, format_error_reward=-0.1)
    wrong = [math_reward_fn(LINEAR, text, config).reward for text in ("6", "<ans>6</ans>", "", "5 or 6", "4 then 5")]
    assert wrong == [0.2, 0.2, -0.1, 0.2, -0.1]
    assert math_reward_fn(LINEAR, "5", config).reward == 0.5 > max(wrong)


@pytest.mark.parametrize(
    "values", [(0.0, 0.0, 0.0), (1.0, 2.0, 0.0), (1.0, 0.0, 1.0), (float("inf"), 0, 0), (1, float("nan"), 0)]
)
def test_a_config_in_which_a_wrong_answer_could_win_is_refused(values: tuple[float, float, float]) -> None:
    with pytest.raises(ConfigError, match="correct_reward"):
        RewardConfig(*values)


def test_why_nothing_was_paid_is_recorded() -> None:
    assert math_reward_fn(LINEAR, None).metadata["error"] == "no_answer"
    assert math_reward_fn(LINEAR, "<ans>5</ans><ans>6</ans>").metadata["error"] == "several_answers"
    assert math_reward_fn(LINEAR, "<ans>5</ans><ans>5</ans>").is_correct


def test_percentages() -> None:
    assert math_reward_fn(PERCENT, r"\boxed{25\%}").is_correct
    assert not math_reward_fn(LINEAR, "5%").is_correct
    assert math_reward_fn(Task("p", "k", "What part?", answer="25%"), "0.25").is_correct


def test_expressions_pay_and_an_undecided_comparison_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert math_reward_fn(ROOT, r"\boxed{\sqrt{12}}").is_correct
    assert not math_reward_fn(ROOT, r"\boxed{\sqrt{13}}").is_correct

    def undecided(given: str, truth: str, unknowns: object) -> bool:
        raise UndecidedError("time is up")

    monkeypatch.setattr(rewards_math, "answers_equal", undecided)
    paid = math_reward_fn(ROOT, r"\boxed{\sqrt{12}}")
    assert (paid.reward, paid.metadata["error"]) == (0.0, "undecided")


@pytest.mark.parametrize("answer", [None, "", " "])
def test_a_task_without_an_answer_is_refused(answer: str | None) -> None:
    with pytest.raises(DataError, match="task t has no answer"):
        math_reward_fn(Task("t", "k", "p", answer=answer), "5")


@pytest.mark.skipif("TROUPE_DATA" not in os.environ, reason="TROUPE_DATA does not point at the public data")
def test_real_solutions_pay_and_corrupted_ones_do_not() -> None:
    import gzip
    import json

    with gzip.open(Path(os.environ["TROUPE_DATA"]) / "gsm8k" / "train.jsonl.gz", "rt") as file:
        rows = [json.loads(line) for line in file]
    for row in rows:
        text, _, answer = row["answer"].rpartition("#### ")
        task = Task("g", "gsm8k", row["question"], answer=answer.replace(",", ""))
        assert math_reward_fn(task, row["answer"]).reward == 1.0
        assert math_reward_fn(task, f"{text}#### {int(task.answer) + 1}").reward == 0.0
        assert math_reward_fn(task, row["question"]).reward == 0.0
