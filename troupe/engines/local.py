"""Generation in process, with the weights that are being trained: nothing to synchronise, nothing that can mismatch.

A wave of requests is decoded as one batch per policy. Prompts that are equal (a group's) are computed once; a request
that continues an earlier one starts from that one's keys and values. Rows that end leave the batch. Every row draws
its noise from its own key, so a token depends on its context, its key and the batch's rounding, and on nothing else.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from troupe.engines.decoder import Cache, FunctionalDecoder, supports
from troupe.engines.generic import decode_generic
from troupe.engines.sampling import COMPACT_BELOW, Draft, noise_of, sample
from troupe.episode import FinishReason
from troupe.errors import ConfigError, did_you_mean
from troupe.protocols import ChatFormat, Generation, GenerationRequest

if TYPE_CHECKING:
    from troupe.models.language import Policy

__all__ = ["LocalEngine"]


@dataclass(slots=True)
class _Past:
    """Keys and values of a finished request: everything of its sequence but the last token."""

    ids: tuple[int, ...]
    cache: Cache  # keys [N, K, D, C], values [N, K, C, D]

    @property
    def bytes(self) -> int:
        return self.cache.keys.nbytes + self.cache.values.nbytes


class LocalEngine:
    """Answers in process. `cache_bytes` bounds the keys and values kept for continued conversations."""

    exact_tokens = True

    def __init__(
        self,
        policies: Mapping[str, Policy],
        *,
        max_batch: int = 512,
        cache_bytes: int = 1 << 30,
        functional: bool = True,
    ) -> None:
        self.policies = dict(policies)
        self.max_batch = max_batch
        self.cache_bytes = cache_bytes
        self.functional = functional
        self.generated_tokens = 0
        self._decoders: dict[str, tuple[int, FunctionalDecoder]] = {}
        self._pasts: OrderedDict[tuple[str, int, str], _Past] = OrderedDict()  # (policy, version, request id)
        self._held = 0

    def chat_format(self, policy: str) -> ChatFormat:
        return self._policy(policy).model.format

    def _policy(self, name: str) -> Policy:
        try:
            return self.policies[name]
        except KeyError:
            raise ConfigError(f"the engine serves no policy {name!r}{did_you_mean(name, self.policies)}") from None

    async def generate(self, requests: Sequence[GenerationRequest]) -> list[Generation]:
        """One batch per policy, cut at `max_batch`; answers come in the order of the requests."""
        answers: dict[int, Generation] = {}
        by_policy: dict[str, list[int]] = {}
        for i, request in enumerate(requests):
            by_policy.setdefault(request.policy, []).append(i)
        for name, members in by_policy.items():
            for low in range(0, len(members), self.max_batch):
                part = members[low : low + self.max_batch]
                for i, answer in zip(part, self._answer(name, [requests[i] for i in part]), strict=True):
                    answers[i] = answer
        return [answers[i] for i in range(len(requests))]

    @torch.inference_mode()
    def _answer(self, name: str, requests: Sequence[GenerationRequest]) -> list[Generation]:
        policy = self._policy(name)
        room = policy.model.max_positions
        for request in requests:
            if len(request.prompt_ids) + request.sampling.max_tokens > room:
                raise ConfigError(
                    f"a prompt of {len(request.prompt_ids)} tokens and {request.sampling.max_tokens} new ones do not "
                    f"fit the model's {room} positions; lower data.max_prompt_length or data.max_response_length"
                )
        drafts = [Draft(request) for request in requests]
        if self.functional and supports(policy):
            self._decode(policy, drafts)
        else:
            decode_generic(policy, drafts, self._advance)
        self.generated_tokens += sum(len(draft.ids) for draft in drafts)
        return [
            Generation(tuple(d.ids), tuple(d.logprobs), d.finish or FinishReason.LENGTH, policy.version) for d in drafts
        ]

    # ------------------------------------------------------------------------------------------ functional path

    def _decoder(self, policy: Policy) -> FunctionalDecoder:
        version, decoder = self._decoders.get(policy.name, (-1, None))
        if decoder is None or decoder.policy is not policy:  # a later snapshot may have an earlier one's name
            version, decoder = -1, FunctionalDecoder(policy)
        elif version != policy.version:
            decoder.sync()
        if version != policy.version:
            self._forget(policy.name)
            self._decoders[policy.name] = (policy.version, decoder)
        return decoder

    def _decode(self, policy: Policy, drafts: list[Draft]) -> None:
        decoder = self._decoder(policy)
        pasts = [self._past(policy, draft.request) for draft in drafts]
        order = sorted(range(len(drafts)), key=lambda i: pasts[i] is None)  # continued rows first, stable
        drafts, pasts = [drafts[i] for i in order], [pasts[i] for i in order]
        continued = sum(past is not None for past in pasts)
        lengths = [len(draft.request.prompt_ids) for draft in drafts]
        context = max(lengths)
        columns = context + max(draft.request.sampling.max_tokens for draft in drafts)
        real = torch.tensor(lengths, device=decoder.embedding.device)
        visible = torch.arange(columns, device=real.device)[None, :] >= (context - real)[:, None]
        parts = []
        if continued:
            parts.append(self._continue(decoder, drafts[:continued], pasts[:continued], context, visible[:continued]))
        if continued < len(drafts):
            parts.append(self._prefill(decoder, drafts[continued:], context, columns))
        cache, logits = Cache.join([cache for cache, _ in parts]), torch.cat([logits for _, logits in parts])
        self._roll(policy, decoder, drafts, cache, visible, logits, context, real)

    def _continue(
        self,
        decoder: FunctionalDecoder,
        drafts: Sequence[Draft],
        pasts: Sequence[_Past | None],
        context: int,
        visible: Tensor,
    ) -> tuple[Cache, Tensor]:
        """Copies what is known and feeds the last T tokens of every row, T the longest new suffix."""
        cache = decoder.empty_cache(*visible.shape)
        new = 1
        for row, (draft, past) in enumerate(zip(drafts, pasts, strict=True)):
            assert past is not None
            start, known = context - len(draft.request.prompt_ids), past.cache.keys.shape[-1]
            cache.keys[:, row, :, :, start : start + known] = past.cache.keys
            cache.values[:, row, :, start : start + known] = past.cache.values
            new = max(new, len(draft.request.prompt_ids) - known)
        return cache, self._feed(decoder, [d.request.prompt_ids for d in drafts], cache, context, new, visible)

    def _prefill(
        self, decoder: FunctionalDecoder, drafts: Sequence[Draft], context: int, columns: int
    ) -> tuple[Cache, Tensor]:
        """Computes each distinct prompt once and copies it to its rows."""
        prompts = list(dict.fromkeys(draft.request.prompt_ids for draft in drafts))
        where = {prompt: i for i, prompt in enumerate(prompts)}
        width = max(map(len, prompts))
        cache = decoder.empty_cache(len(prompts), columns)
        device = cache.keys.device
        real = torch.tensor([len(p) for p in prompts], device=device)
        visible = torch.arange(width, device=device)[None, :] >= (width - real)[:, None]
        logits = self._feed(decoder, prompts, cache.columns(slice(context - width, context)), width, width, visible)
        back = torch.tensor([where[draft.request.prompt_ids] for draft in drafts], device=device)
        return cache.rows(back), logits[back]

    def _feed(
        self,
        decoder: FunctionalDecoder,
        prompts: Sequence[Sequence[int]],
        cache: Cache,
        context: int,
        new: int,
        visible: Tensor,
    ) -> Tensor:
        """Feeds the last `new` tokens of right-aligned prompts; rows shorter than that begin with padding."""
        device = cache.keys.device
        ids = torch.zeros(len(prompts), new, dtype=torch.long)
        positions = torch.zeros(len(prompts), new, dtype=torch.long)
        for row, prompt in enumerate(prompts):
            tail = list(prompt[-new:])
            ids[row, new - len(tail) :] = torch.tensor(tail)
            positions[row, new - len(tail) :] = torch.arange(len(prompt) - len(tail), len(prompt))
        return decoder.step(ids.to(device), positions.to(device), cache, context - new, visible[:, :context])

    def _roll(
        self,
        policy: Policy,
        decoder: FunctionalDecoder,
        drafts: Sequence[Draft],
        cache: Cache,
        visible: Tensor,
        logits: Tensor,
        context: int,
        positions: Tensor,
    ) -> None:
        noise, temperature = noise_of(drafts, logits.device)
        live = list(range(len(drafts)))  # draft of each row of the batch
        column, t = context, 0
        while True:
            rows = torch.tensor(live, device=logits.device)
            ids, logprobs = sample(logits, temperature[rows], noise[rows, t])
            self._advance(policy, [drafts[i] for i in live], ids.tolist(), logprobs.tolist())
            t += 1
            going = [k for k, i in enumerate(live) if drafts[i].finish is None]
            if len(going) < COMPACT_BELOW * len(live) or not going:
                ended = [k for k, i in enumerate(live) if drafts[i].finish is not None]
                block = cache.columns(slice(column)).rows(torch.tensor(ended, device=logits.device))
                self._keep(policy, [drafts[live[k]] for k in ended], block, context)
                if not going:
                    return
                keep = torch.tensor(going, device=logits.device)
                cache, visible, positions, ids = cache.rows(keep), visible[keep], positions[keep], ids[keep]
                live = [live[k] for k in going]
            logits = decoder.step(ids[:, None], positions[:, None], cache, column, visible[:, : column + 1])
            positions = positions + 1
            column += 1

    def _advance(self, policy: Policy, drafts: Sequence[Draft], ids: list[int], logprobs: list[float]) -> None:
        """Adds a token to every draft that has not ended, and ends those that are done."""
        layout = policy.model.format
        for draft, token, logprob in zip(drafts, ids, logprobs, strict=True):
            if draft.finish is not None:
                continue
            draft.ids.append(token)
            draft.logprobs.append(logprob)
            settings = draft.request.sampling
            if token == layout.eos_id:
                draft.finish = FinishReason.STOP
            elif settings.stop and _stops(layout, draft.ids, settings.stop):
                draft.finish = FinishReason.STOP_STRING
            elif len(draft.ids) >= settings.max_tokens:
                draft.finish = FinishReason.LENGTH

    # ------------------------------------------------------------------------------------------ what is kept

    def _past(self, policy: Policy, request: GenerationRequest) -> _Past | None:
        if request.parent is None:
            return None
        past = self._pasts.get((policy.name, policy.version, request.parent))
        if past is None or request.prompt_ids[: len(past.ids)] != past.ids:
            return None
        return past

    def _keep(self, policy: Policy, drafts: Sequence[Draft], cache: Cache, context: int) -> None:
        """Keeps the rows' keys and values for requests that continue them. The last token was never fed.

        The rows are views of one block, which lives until the last of them is dropped.
        """
        if self.cache_bytes == 0:
            return
        for row, draft in enumerate(drafts):
            if not draft.request.id:
                continue
            ids = (*draft.request.prompt_ids, *draft.ids[:-1])
            low = context - len(draft.request.prompt_ids)
            high = low + len(ids)
            past = _Past(ids, Cache(cache.keys[:, row, :, :, low:high], cache.values[:, row, :, low:high]))
            key = (policy.name, policy.version, draft.request.id)
            replaced = self._pasts.pop(key, None)
            self._pasts[key] = past
            self._held += past.bytes - (replaced.bytes if replaced else 0)
        while self._held > self.cache_bytes and self._pasts:
            _, dropped = self._pasts.popitem(last=False)
            self._held -= dropped.bytes

    def _forget(self, policy: str) -> None:
        for key in [key for key in self._pasts if key[0] == policy]:
            self._held -= self._pasts.pop(key).bytes

    def forget(self) -> None:
        """Drops all kept keys and values (between updates: a resumed run starts from an empty cache as well)."""
        self._pasts.clear()
        self._held = 0


def _stops(layout: ChatFormat, ids: Sequence[int], stop: Sequence[str]) -> bool:
    """Whether the newest token completed a stop string. A stop string of n bytes spans at most n tokens."""
    tail = layout.decode(ids[-max(len(s.encode()) for s in stop) - 1 :])
    return any(s in tail for s in stop)
