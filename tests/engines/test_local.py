"""The in-process engine: one batch per policy, keyed noise, kept keys and values, settings per request."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from troupe.engines.decoder import FunctionalDecoder
from troupe.engines.local import LocalEngine
from troupe.episode import FinishReason, Sampling
from troupe.errors import ConfigError
from troupe.models.language import LanguageModel, Policy
from troupe.protocols import Generation, GenerationRequest


@pytest.fixture
def fed(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, int]]:
    """(rows, tokens) of every step of a decoder."""
    steps: list[tuple[int, int]] = []
    plain = FunctionalDecoder.step

    def step(self: FunctionalDecoder, ids: torch.Tensor, *rest: Any) -> torch.Tensor:
        steps.append(tuple(ids.shape))  # type: ignore[arg-type]
        return plain(self, ids, *rest)

    monkeypatch.setattr(FunctionalDecoder, "step", step)
    return steps


def ids_of(generations: list[Generation]) -> list[tuple[int, ...]]:
    return [generation.response_ids for generation in generations]


def close(a: list[Generation], b: list[Generation]) -> None:
    assert ids_of(a) == ids_of(b)
    for x, y in zip(a, b, strict=True):
        assert x.logprobs == pytest.approx(y.logprobs, abs=1e-5)


# ---------------------------------------------------------------------------------------------- who draws what


def test_a_token_depends_on_its_key_not_on_its_neighbours(policies: Any, ask: Any, answers: Any) -> None:
    requests = ask("plain", n=8)
    together = answers(LocalEngine(policies), requests)
    close([answers(LocalEngine(policies), [request])[0] for request in requests], together)
    close(list(reversed(answers(LocalEngine(policies), requests[::-1]))), together)
    close(answers(LocalEngine(policies, max_batch=3), requests), together)
    assert len(set(ids_of(together))) == 8  # equal prompts, other keys


def test_several_policies_answer_one_wave(policies: Any, ask: Any, answers: Any) -> None:
    apart = {name: ask(name, n=3) for name in policies}
    mixed = [requests[i] for i in range(3) for requests in apart.values()]
    found = answers(LocalEngine(policies), mixed)
    expected = {name: answers(LocalEngine(policies), requests) for name, requests in apart.items()}
    close(found, [expected[request.policy][i // len(policies)] for i, request in enumerate(mixed)])
    assert ids_of(expected["left"]) != ids_of(expected["right"])


def test_equal_prompts_are_computed_once(policies: Any, ask: Any, answers: Any, fed: Any) -> None:
    request = ask("plain", n=1)[0]
    requests = [replace(request, key=(i,), id=str(i)) for i in range(6)]
    answers(LocalEngine(policies), requests)
    assert fed[0] == (1, len(request.prompt_ids)) and fed[1][0] == 6


def test_finished_rows_leave_the_batch(policies: Any, ask: Any, answers: Any, fed: Any) -> None:
    many = enumerate(ask("plain", n=40))
    requests = [replace(r, sampling=Sampling(max_tokens=2 if i < 30 else 9)) for i, r in many]
    found = answers(LocalEngine(policies), requests)
    assert fed[1][0] == 40 and fed[-1][0] <= 10
    assert all(len(answer.response_ids) <= 2 for answer in found[:30])


def test_an_unknown_policy_is_named(policies: Any, ask: Any, answers: Any) -> None:
    with pytest.raises(ConfigError, match=r"serves no policy 'plan' \(did you mean 'plain'\?\)"):
        answers(LocalEngine(policies), ask("plan"))


# ---------------------------------------------------------------------------------------------- settings


def test_each_request_has_its_own_settings(policies: Any, ask: Any, answers: Any) -> None:
    base = ask("plain", n=1)[0]
    settings = [Sampling(1), Sampling(7, 0.0), Sampling(12, 0.5), Sampling(12, 1.5)]
    requests = [replace(base, sampling=s, key=(i,), id=str(i)) for i, s in enumerate(settings)]
    together = answers(LocalEngine(policies), requests)
    close([answers(LocalEngine(policies), [request])[0] for request in requests], together)
    for request, answer in zip(requests, together, strict=True):
        assert len(answer.response_ids) <= request.sampling.max_tokens
        ended = answer.response_ids[-1] == policies["plain"].model.format.eos_id
        assert answer.finish_reason is (FinishReason.STOP if ended else FinishReason.LENGTH)


def test_greedy_ignores_the_key(policies: Any, ask: Any, answers: Any) -> None:
    requests = ask("plain", temperature=0.0)
    other = [replace(request, key=("other", i)) for i, request in enumerate(requests)]
    assert ids_of(answers(LocalEngine(policies), requests)) == ids_of(answers(LocalEngine(policies), other))


@pytest.mark.parametrize("functional", [True, False])
def test_a_stop_string_ends_at_the_token_that_completes_it(
    policies: Any, ask: Any, answers: Any, functional: bool
) -> None:
    """A string that begins with the end of one token and ends inside the next: that one's ids stay, its text is cut."""
    layout, engine = policies["plain"].model.format, LocalEngine(policies, functional=functional)
    requests = ask("plain", n=40, max_tokens=20)
    free = answers(engine, requests)
    tried = 0
    for request, whole in zip(requests, free, strict=True):
        ids = whole.response_ids
        said = [layout.decode(ids[: k + 1]) for k in range(len(ids))]
        for k in range(1, len(ids)):
            stop = said[k][len(said[k - 1]) - 1 :][:2]
            inside = len(said[k]) > len(said[k - 1]) + 1
            if inside and stop.isprintable() and "\ufffd" not in said[k][-9:] and stop not in said[k - 1]:
                [cut] = answers(engine, [replace(request, sampling=Sampling(20, stop=("never said", stop)))])
                assert cut.finish_reason is FinishReason.STOP_STRING and cut.response_ids == ids[: k + 1]
                assert cut.logprobs == pytest.approx(whole.logprobs[: k + 1], abs=1e-5)
                assert layout.decode(cut.response_ids, [stop]) == said[k - 1] + stop[1] != said[k]
                tried += 1
                break
    assert tried > 3


def test_the_end_of_turn_ends_a_response(tiny_model: Callable[..., LanguageModel], ask: Any, answers: Any) -> None:
    model = tiny_model(layers=1)
    with torch.no_grad():  # all states alike, and the end token close to them
        model.network.model.norm.weight.zero_()
    [answer] = answers(LocalEngine({"p": Policy("p", model)}), [replace(ask("p", n=1)[0], key=(0,))])
    assert all(p == pytest.approx(float(-torch.tensor(model.vocabulary).log()), abs=1e-4) for p in answer.logprobs)
    found = {a.finish_reason: a for a in answers(LocalEngine({"p": Policy("p", model)}), ask("p", n=80, max_tokens=40))}
    ended = found[FinishReason.STOP].response_ids
    assert ended[-1] == model.format.eos_id and model.format.eos_id not in ended[:-1]
    assert len(found[FinishReason.LENGTH].response_ids) == 40


def test_what_does_not_fit_the_model_is_a_config_error(policies: Any, ask: Any, answers: Any) -> None:
    request = replace(ask("llama", n=1)[0], prompt_ids=(7,) * 250)
    with pytest.raises(
        ConfigError, match=r"prompt of 250 tokens and 10 new ones do not fit the model's 256 positions; lower"
    ):
        answers(LocalEngine(policies), [request])
    [fits] = answers(LocalEngine(policies), [replace(request, sampling=Sampling(6))])
    assert len(fits.response_ids) <= 6


def test_ids_that_pad_the_embedding_are_never_said(tiny_model: Any, ask: Any, answers: Any) -> None:
    model = tiny_model(layers=1, vocab_size=300)
    with torch.no_grad():
        model.network.get_input_embeddings().weight[model.vocabulary :] = 100.0
    assert model.config.vocab_size > model.vocabulary
    for functional in (True, False):
        found = answers(LocalEngine({"p": Policy("p", model)}, functional=functional), ask("p", n=4))
        assert max(i for answer in found for i in answer.response_ids) < model.vocabulary


# ---------------------------------------------------------------------------------------------- continued conversations


def talk(engine: LocalEngine, first: list[GenerationRequest], answers: Any, turns: int = 3) -> list[list[Generation]]:
    """Conversations of several turns: each request continues the one before, suffixes of unequal lengths."""
    said, requests = [], first
    for turn in range(turns):
        found = answers(engine, requests)
        said.append(found)
        requests = [
            replace(
                request,
                prompt_ids=(*request.prompt_ids, *answer.response_ids, *range(20, 21 + (i + turn) % 4)),
                id=f"{request.id}+",
                parent=request.id,
                key=(*request.key, turn),
            )
            for i, (request, answer) in enumerate(zip(requests, found, strict=True))
        ]
    return said


@pytest.mark.parametrize("name", ["plain", "llama", "left"])
def test_continued_conversations_say_the_same_with_and_without_what_was_kept(
    policies: Any, ask: Any, answers: Any, name: str, fed: Any
) -> None:
    first = ask(name, n=6, seed=5)
    kept = talk(LocalEngine(policies), first, answers)
    with_cache = sum(rows * tokens for rows, tokens in fed)
    fed.clear()
    anew = talk(LocalEngine(policies, cache_bytes=0), first, answers)
    assert sum(rows * tokens for rows, tokens in fed) > 1.5 * with_cache
    for a, b in zip(kept, anew, strict=True):
        close(a, b)


def test_kept_and_new_conversations_share_a_wave(policies: Any, ask: Any, answers: Any) -> None:
    """New ones with longer and shorter prompts than the continued ones."""
    engine, plain = LocalEngine(policies), LocalEngine(policies, cache_bytes=0)
    first = ask("plain", n=4)
    found = answers(engine, first)
    more = [
        replace(r, prompt_ids=(*r.prompt_ids, *a.response_ids, 30, 31), id=f"{r.id}+", parent=r.id, key=(9, i))
        for i, (r, a) in enumerate(zip(first, found, strict=True))
    ]
    fresh = [*ask("plain", n=3, seed=8), replace(first[0], prompt_ids=tuple(range(10, 90)), id="long", key=(7,))]
    wave = [x for pair in zip(more, fresh, strict=False) for x in pair] + fresh[len(more) :]
    close(answers(engine, wave), answers(plain, wave))


def test_siblings_continue_the_same_past(policies: Any, ask: Any, answers: Any) -> None:
    engine, plain = LocalEngine(policies), LocalEngine(policies, cache_bytes=0)
    [first] = ask("plain", n=1)
    [said] = answers(engine, [first])
    whole = (*first.prompt_ids, *said.response_ids)
    branches = [
        replace(first, prompt_ids=(*whole, 40 + i), id=f"b{i}", parent=first.id, key=(i, "b")) for i in range(3)
    ]
    close(answers(engine, branches), answers(plain, branches))


def test_a_past_that_does_not_fit_is_not_used(policies: Any, ask: Any, answers: Any) -> None:
    engine = LocalEngine(policies)
    [first] = ask("plain", n=1)
    answers(engine, [first])
    stray = replace(first, prompt_ids=tuple(range(50, 80)), id="stray", parent=first.id, key=(4,))
    close(answers(engine, [stray]), answers(LocalEngine(policies), [stray]))
    orphan = replace(stray, parent="nobody")
    close(answers(engine, [orphan]), answers(LocalEngine(policies), [orphan]))


def test_new_weights_forget_the_past(
    tiny_model: Callable[..., LanguageModel], ask: Any, answers: Any, fed: Any
) -> None:
    model = tiny_model()
    policy = Policy("p", model)
    engine = LocalEngine({"p": policy})
    first = ask("p", n=3)
    said = answers(engine, first)
    with torch.no_grad():
        for parameter in model.network.parameters():
            parameter.mul_(1.5)
    policy.version += 1
    more = [
        replace(r, prompt_ids=(*r.prompt_ids, *a.response_ids, 30), id=f"{r.id}+", parent=r.id, key=(9, i))
        for i, (r, a) in enumerate(zip(first, said, strict=True))
    ]
    found = answers(engine, more)
    close(found, answers(LocalEngine({"p": policy}), more))
    assert {answer.policy_version for answer in said} == {0} and {answer.policy_version for answer in found} == {1}


def test_an_update_of_one_policy_leaves_the_others_past(policies: Any, ask: Any, answers: Any, fed: Any) -> None:
    engine = LocalEngine(policies)
    [first] = ask("plain", n=1)
    [said] = answers(engine, [first])
    engine._forget("llama")
    engine._forget("plai")
    fed.clear()
    more = replace(first, prompt_ids=(*first.prompt_ids, *said.response_ids, 30), id="+", parent=first.id)
    answers(engine, [more])
    assert fed[0][1] == 2  # the token that was sampled last, and what is new


def test_another_policy_of_the_same_name_is_another_policy(
    tiny_model: Callable[..., LanguageModel], ask: Any, answers: Any
) -> None:
    """`mode=separate` puts a new snapshot behind the name of the last one, at times at the same version."""
    one, two = Policy("p", tiny_model(seed=1)), Policy("p", tiny_model(seed=2))
    engine = LocalEngine({"p": one})
    requests = ask("p", n=3)
    said = answers(engine, requests)
    more = [
        replace(r, prompt_ids=(*r.prompt_ids, *a.response_ids, 30), id=f"{r.id}+", parent=r.id, key=(9, i))
        for i, (r, a) in enumerate(zip(requests, said, strict=True))
    ]
    for version in (0, 3):
        two.version = version
        engine.policies = {"p": two}
        close(answers(engine, more), answers(LocalEngine({"p": two}), more))


def test_memory_for_the_past_is_bounded(policies: Any, ask: Any, answers: Any) -> None:
    """A token of the embedded test model is 2 layers * 2 heads * 8 wide * (key + value) * 4 bytes = 256 bytes."""
    engine = LocalEngine(policies, cache_bytes=256 * 60)
    for seed in range(5):
        answers(engine, ask("plain", n=4, seed=seed))
        assert sum(past.bytes for past in engine._pasts.values()) == engine._held <= 256 * 60
    assert engine._pasts
    engine.forget()
    assert not engine._pasts and engine._held == 0


def test_asking_twice_under_one_id_is_counted_once(policies: Any, ask: Any, answers: Any) -> None:
    engine = LocalEngine(policies)
    for _ in range(3):
        answers(engine, ask("plain", n=4))
    assert sum(past.bytes for past in engine._pasts.values()) == engine._held


def test_tokens_are_counted(policies: Any, ask: Any, answers: Any) -> None:
    engine = LocalEngine(policies)
    found = answers(engine, ask("plain", n=5))
    assert engine.generated_tokens == sum(len(answer.response_ids) for answer in found)
    assert engine.exact_tokens and engine.chat_format("plain") is policies["plain"].model.format
