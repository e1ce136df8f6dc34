"""Search in a collection of passages by the nearness of embeddings (dense retrieval).

    encoder = Encoder(EncoderSettings("intfloat/e5-small-v2", query_prefix="query: ", passage_prefix="passage: "))
    tool = DenseSearchTool(encoder, [{"id": "1", "title": "", "text": "Dolek works for Wativ"}, ...])
    await tool.search("Who employs Dolek?", k=1)        # [Passage(id="1", title="", text="Dolek works for Wativ")]
    await tool(query="Who employs Dolek?")              # "[1] Dolek works for Wativ\\n[2] Sulek works for Dolek"

An encoder turns passages and queries into vectors of length 1, and those passages are found whose vectors have the
largest inner products with the query's (Karpukhin et al. 2020, arXiv:2004.04906), by exact search with `faiss`
(IndexFlatIP; Douze et al. 2024, arXiv:2401.08281). Equal texts have equal vectors and scores count to five decimals;
passages of one score stand in the corpus's order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, fields
from functools import partial
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any

import numpy as np

from troupe.errors import ConfigError, DataError, MissingExtra, did_you_mean
from troupe.threads import in_thread
from troupe.tools.search import SAME_SCORE, Passage, SearchTool

if TYPE_CHECKING:
    import torch

__all__ = ["DenseIndex", "DenseSearchTool", "Encoder", "EncoderSettings"]

POOLINGS = ("mean", "cls", "last")
DTYPES = ("float32", "bfloat16", "float16")


@dataclass(frozen=True, slots=True)
class EncoderSettings:
    """Which encoder, and how it wants to be asked; its model card says. Raises ConfigError for what cannot be meant."""

    path: str
    """A Hugging Face model name or folder, with its weights in safetensors."""
    pooling: str = "mean"
    """What of the last hidden states is the embedding: the `mean` over the tokens (E5, GTE), that of the first token
    (`cls`: BGE) or that of the `last` one (decoders, such as Qwen3-Embedding)."""
    query_prefix: str = ""
    """Put before each query: `"query: "` for E5."""
    passage_prefix: str = ""
    """Put before each passage: `"passage: "` for E5."""
    max_tokens: int = 512
    """Longer texts are cut, and earlier where the model knows fewer positions."""
    batch_size: int = 32
    """Passages that are embedded at once."""
    device: str = "auto"
    """`auto` takes a CUDA GPU where there is one, else the CPU."""
    dtype: str = "float32"
    """Type of the weights; vectors are float32."""

    def __post_init__(self) -> None:
        for setting in fields(self):
            value = getattr(self, setting.name)
            kind, wanted = (int, "a whole number") if setting.type == "int" else (str, "text, in quotes of its own")
            if not isinstance(value, kind) or isinstance(value, bool):
                raise ConfigError(f"encoder.{setting.name}={value!r} must be {wanted}")
        if not self.path:
            raise ConfigError("encoder.path is empty; write a folder or the name of a Hugging Face encoder")
        for name, known in (("pooling", POOLINGS), ("dtype", DTYPES)):
            if getattr(self, name) not in known:
                raise ConfigError(f"encoder.{name}={getattr(self, name)!r} is not known (known: {', '.join(known)})")
        if self.max_tokens < 1 or self.batch_size < 1:
            raise ConfigError(
                f"encoder.max_tokens={self.max_tokens} and encoder.batch_size={self.batch_size} must be at least 1"
            )

    @classmethod
    def of(cls, given: Any) -> EncoderSettings:
        """From a name or folder alone, or a mapping of settings. Raises ConfigError."""
        if isinstance(given, str):
            return cls(given)
        if not isinstance(given, Mapping) or "path" not in given:
            raise ConfigError(
                f"encoder={given!r} names no encoder; write a folder or a Hugging Face name as encoder.path"
            )
        known = [setting.name for setting in fields(cls)]
        for name in given:
            if name not in known:
                raise ConfigError(f"encoder.{name} is not known{did_you_mean(str(name), known)}")
        return cls(**given)


class Encoder:
    """A Hugging Face encoder, loaded. Safe to be used by several threads: one embeds, the others wait.

    Raises ConfigError for one that cannot be loaded, that lacks weights, or that gives no hidden states for a text.
    """

    def __init__(self, settings: EncoderSettings) -> None:
        self.settings = settings
        self._lock = Lock()  # tokenizers refuse two threads at once
        self._device, self._tokenizer, self._network = _load(settings)
        positions = getattr(self._network.config, "max_position_embeddings", settings.max_tokens)
        self._max_tokens = min(settings.max_tokens, self._tokenizer.model_max_length, positions)
        try:
            self.dimension = self.embed(["text"]).shape[1]
        except (ValueError, AttributeError, RuntimeError) as error:
            reason = str(error).strip().splitlines()[0]
            raise ConfigError(f"encoder.path={settings.path!r} cannot embed a text: {reason}") from error

    def queries(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of queries, float32 `[n, dimension]`."""
        return self.embed([self.settings.query_prefix + text for text in texts])

    def passages(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of passages, float32 `[n, dimension]`."""
        return self.embed([self.settings.passage_prefix + text for text in texts])

    def embed(self, texts: Sequence[str]) -> np.ndarray:
        """Vectors of length 1, float32 `[n, dimension]`, of texts as they are, in one batch.

        Raises DataError where they are not finite.
        """
        import torch

        # JSON can hold lone surrogates, which no tokenizer takes.
        clean = [text.encode("utf-8", "replace").decode() for text in texts]
        with self._lock, torch.inference_mode():
            rows = self._tokenizer(
                clean, padding=True, truncation=True, max_length=self._max_tokens, return_tensors="pt"
            ).to(self._device)
            hidden = self._network(**rows).last_hidden_state.float()
            pooled = _pooled(hidden, rows["attention_mask"], self.settings.pooling)
            vectors: np.ndarray = torch.nn.functional.normalize(pooled, dim=-1).cpu().numpy()
        if not np.isfinite(vectors).all():
            raise DataError(
                f"the encoder {self.settings.path!r} gives vectors that are not finite; write encoder.dtype=float32"
            )
        return vectors


def _load(settings: EncoderSettings) -> tuple[str, Any, Any]:
    """(device, tokenizer, network)."""
    import torch
    from safetensors import SafetensorError
    from transformers import AutoModel, AutoTokenizer

    folder = Path(settings.path).expanduser()
    here = (folder / "config.json").exists()
    if settings.path.startswith((".", "/", "~")) and not here:
        raise ConfigError(f"encoder.path={settings.path!r}: there is no config.json in that folder")
    source = str(folder) if here else settings.path
    device = settings.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # Pooling is right-padded: the last token stands where the mask ends, and positions count from the first.
        tokenizer = AutoTokenizer.from_pretrained(source, padding_side="right")
        with torch.random.fork_rng(devices=[]):  # an unused head that was not stored is drawn at random
            network, info = AutoModel.from_pretrained(
                source, dtype=getattr(torch, settings.dtype), use_safetensors=True, output_loading_info=True
            )
        network = network.to(device).eval()
    except (OSError, ValueError, RuntimeError, AssertionError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"encoder.path={settings.path!r} cannot be loaded on {device!r}: {reason}") from error
    missing = sorted(key for key in info["missing_keys"] if "pooler" not in key)
    if missing:
        raise ConfigError(f"encoder.path={settings.path!r} lacks weights, the first of them {missing[0]!r}")
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return device, tokenizer, network


def _pooled(hidden: torch.Tensor, mask: torch.Tensor, pooling: str) -> torch.Tensor:
    """`[n, D]` of hidden states `[n, L, D]` under a mask `[n, L]` that is 1 up to a row's end."""
    if pooling == "cls":
        return hidden[:, 0]
    lengths = mask.sum(dim=1, keepdim=True).clamp(min=1)
    if pooling == "last":
        return hidden.take_along_dim((lengths - 1)[..., None], dim=1)[:, 0]
    return (hidden * mask[..., None]).sum(dim=1) / lengths


class DenseIndex:
    """Passages by the nearness of embeddings.

    Every distinct text is embedded once, those of similar length together. Takes 4 bytes x dimension for each of them
    (1.5 GB for a million of 384 dimensions), up to twice that while it is made; a search reads all of it.
    """

    def __init__(self, encoder: Encoder, passages: Sequence[Passage]) -> None:
        self._encoder = encoder
        self._index = _faiss().IndexFlatIP(encoder.dimension)
        places: dict[str, list[int]] = {}
        for position, passage in enumerate(passages):
            places.setdefault(passage.whole, []).append(position)
        texts = sorted(places, key=len)  # stable: the same batches on every run
        self._places = [places[text] for text in texts]  # row of the index -> positions in the corpus
        size = encoder.settings.batch_size
        for start in range(0, len(texts), size):
            self._index.add(encoder.passages(texts[start : start + size]))

    def find(self, query: str, k: int) -> Sequence[int]:
        """The `k` nearest, all where there are fewer; none for a query without a word."""
        if k < 1 or not query.strip():
            return ()
        vector = self._encoder.queries([query])
        worst = self._index.search(vector, min(k, len(self._places)))[0][0, -1]
        # Which of those that tie with the worst are among the best k is for the corpus's order to say, not for faiss.
        _, scores, rows = self._index.range_search(vector, float(worst) - 10.0**-SAME_SCORE)
        ranked = zip(np.round(scores.astype(np.float64), SAME_SCORE), rows, strict=True)
        found = sorted((-score, position) for score, row in ranked for position in self._places[row])
        return [position for _, position in found[:k]]


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise MissingExtra("faiss-cpu", "retrieval", "dense retrieval") from error
    return faiss


class DenseSearchTool:
    """`SearchTool` with embeddings in place of BM25, its arguments and what it shows the same.

    Calls and `search` are coroutines that work in a thread: a collection is embedded at its first search, once for a
    tool and all that come from it by `on`, and that may take minutes, which count towards the time limit of the
    episodes that wait for it. Something is found for every query. Raises MissingExtra without `faiss`.
    """

    def __init__(
        self,
        encoder: Encoder,
        corpus: str | Sequence[Mapping[str, Any]] | None = None,
        load: Callable[[str], Iterable[Mapping[str, Any]]] | None = None,
        *,
        k: int = 4,
        max_characters: int = 600,
        name: str = "search",
        description: str = "Finds passages by their meaning; returns the best ones, each after its id in brackets.",
    ) -> None:
        _faiss()
        self.encoder = encoder
        self._blocking = SearchTool(corpus, load, k, max_characters, name, description, partial(DenseIndex, encoder))
        self.k, self.max_characters, self.name, self.description = k, max_characters, name, description
        self.parameters: Mapping[str, Any] = {
            **self._blocking.parameters,
            "properties": {"query": {"type": "string", "description": "what the passage should say"}},
        }

    def on(self, corpus: str) -> DenseSearchTool:
        """This tool over the collection of that name."""
        other = copy(self)
        other._blocking = self._blocking.on(corpus)
        return other

    async def search(self, query: str, k: int | None = None) -> list[Passage]:
        """As `SearchTool.search`, by meaning."""
        return await in_thread(self._blocking.search, query, k)

    def get(self, id: str) -> Passage | None:
        """As `SearchTool.get`; embeds nothing."""
        return self._blocking.get(id)

    async def __call__(self, /, query: Any = None, **unknown: Any) -> str:
        """As `SearchTool`'s call."""
        return await in_thread(partial(self._blocking, query, **unknown))
