"""GRPO with a tool between two turns, side by side with TRL's `rollout_func`: samples per CPU-second.

    python benchmarks/multi_turn.py --rounds 2

As `benchmarks/workflow_rl.py`, but a sample is a conversation: the agent calls the calculator, reads what it says, and
answers; it is paid for the answer. On TRL's side a `rollout_func` samples both turns with transformers' `generate`,
whole batches at a time, and masks what the tool said (`env_mask`).
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from workflow_rl import (
    NEW_TOKENS,
    NOISE,
    PROMPTS,
    alternate,
    conclude,
    parsed_options,
    start_model,
    trl_pass,
    troupe_pass,
    word_problems,
)

from troupe.agents import Team
from troupe.episode import Outcome, Problem, Task, message
from troupe.handles import EpisodeHandle
from troupe.models.language import LanguageModel
from troupe.protocols import GenerationRequest
from troupe.tools.calculator import Calculator

_calculator = Calculator()


class CallThenAnswer:
    """One agent: it may call the calculator once, and is paid 1 for `<ans>RIGHT</ans>`."""

    agent_names: tuple[str, ...] = ("solver",)
    credit: Mapping[str, str] = {"solver": "1 if its answer is right"}

    def __init__(self, pay: Callable[[Task, str], float]) -> None:
        self.pay = pay

    async def run(self, problem: Problem, agents: Team) -> None:
        await agents.solver.act([message("user", problem.prompt)], [_calculator], max_turns=2)

    def reward(self, task: Task, episode: EpisodeHandle) -> None:
        (trajectory,) = episode.trajectories
        trajectory.reward = self.pay(task, trajectory.steps[-1].action["content"])
        episode.outcome = Outcome.SUCCESS if trajectory.reward == 1 else Outcome.FAILURE


def pay_answer(task: Task, text: str) -> float:
    """What both trainers pay for the last turn's text."""
    return float(text == f"<ans>{task.answer}</ans>")


def teacher(tasks: Sequence[Task], seed: int) -> Callable[[GenerationRequest], str]:
    """The call of each task, with another operator in `NOISE` of them; then what the calculator said."""
    calls = {task.id: task.solution["plan"][0] for task in tasks}

    def respond(request: GenerationRequest) -> str:
        if request.messages[-1]["role"] == "tool":
            return f"<ans>{request.messages[-1]['content']}</ans>"
        call = calls[request.key[2]]
        rng = random.Random(f"{seed} {request.key}")
        if rng.random() < NOISE:
            at = next(i for i, c in enumerate(call) if c in "+-*/")
            call = call[:at] + rng.choice("+-*/".replace(call[at], "")) + call[at + 1 :]
        return f"<call>{call}</call>"

    return respond


# ---------------------------------------------------------------------------------------------- TRL's side


def two_turns(model: LanguageModel) -> Callable[[Any, Any], dict[str, Any]]:
    """A `rollout_func`: prompts in, ids and log-probs out, with `env_mask` 0 over what the tool said."""

    def rollout(prompts: list[list[dict[str, Any]]], trainer: Any) -> dict[str, Any]:
        first = [list(model.format.encode(prompt)) for prompt in prompts]
        replies = _sampled(model, first)
        completions = [list(ids) for ids, _ in replies]
        logprobs = [list(scores) for _, scores in replies]
        masks = [[1] * len(ids) for ids in completions]
        said = [model.format.decode(ids) for ids in completions]
        calling = []
        for i, text in enumerate(said):
            calls = model.format.parse(text, [_calculator]).get("tool_calls")
            if calls and completions[i][-1] == model.format.eos_id:
                shown = _calculator(text.partition("<call>")[2].partition("</call>")[0])
                after = [message("assistant", text), message("tool", shown)]
                between = model.format.extend(prompts[i], completions[i], after, [_calculator])
                assert between is not None
                completions[i] += between
                logprobs[i] += [0.0] * len(between)
                masks[i] += [0] * len(between)
                calling.append(i)
        answers = _sampled(model, [first[i] + completions[i] for i in calling]) if calling else []
        for i, (ids, scores) in zip(calling, answers, strict=True):
            completions[i] += ids
            logprobs[i] += scores
            masks[i] += [1] * len(ids)
            said[i] = model.format.decode(ids)
        return {
            "prompt_ids": first, "completion_ids": completions, "logprobs": logprobs, "env_mask": masks, "said": said,
        }  # fmt: skip

    return rollout


@torch.no_grad()
def _sampled(model: LanguageModel, prompts: Sequence[Sequence[int]]) -> list[tuple[list[int], list[float]]]:
    """(ids up to and with the end of the turn, their log-probs) for each prompt."""
    width = max(map(len, prompts))
    pad = model.tokenizer.pad_token_id
    ids = torch.tensor([[pad] * (width - len(p)) + list(p) for p in prompts])
    mask = torch.tensor([[0] * (width - len(p)) + [1] * len(p) for p in prompts])
    found = model.network.generate(
        ids, attention_mask=mask, max_new_tokens=NEW_TOKENS, do_sample=True, top_k=0, temperature=1.0,
        return_dict_in_generate=True, output_logits=True,
    )  # fmt: skip
    new = found.sequences[:, width:]
    scores = torch.stack(found.logits, 1).log_softmax(-1).gather(-1, new[..., None])[..., 0]
    lengths = [
        1 + (row.tolist().index(model.format.eos_id) if model.format.eos_id in row else len(row) - 1) for row in new
    ]
    return [(row[:n].tolist(), s[:n].tolist()) for row, s, n in zip(new, scores, lengths, strict=True)]


def main() -> None:
    options = parsed_options(__doc__)
    start = start_model(options.seed, CallThenAnswer, teacher)
    tasks = word_problems(PROMPTS * (options.updates + 1), options.seed)
    ours = {"workflow": CallThenAnswer, "reward": pay_answer}
    passes = alternate(
        {
            "troupe": lambda: troupe_pass(start, tasks, options.seed, **ours),
            "trl": lambda: trl_pass(
                start, tasks, options.seed, reward=pay_answer, rollout=two_turns, longest=4 * NEW_TOKENS
            ),
            "troupe, every row": lambda: troupe_pass(start, tasks, options.seed, **ours, every_row=True),
            "troupe, unshared": lambda: troupe_pass(start, tasks, options.seed, **ours, every_row=True, share=False),
        },
        options.rounds,
    )
    conclude(passes, options.json)


if __name__ == "__main__":
    main()
