"""Language models and the policies that stand on them.

A `LanguageModel` is a Hugging Face causal LM with its tokenizer, and any number of LoRA adapters resident on it. A
`Policy` is a name, a model and, where weights are not shared, an adapter. Rows of one batch are grouped by policy, one
forward pass each: peft's mixed batches give gradients to the active adapter only.

Where the default is used, model and tokenizer are built on the spot: a Qwen2-type LM of 0.6 M parameters and a
byte-level BPE tokenizer, saved and loaded as ordinary Hugging Face files.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from troupe.errors import ConfigError, MissingExtra, StorageError, UserError
from troupe.models.attention import FLOAT64, register_float64_attention
from troupe.models.chat import EMBEDDED_TEMPLATE, SPECIAL_TOKENS, TAGS, TemplateFormat

if TYPE_CHECKING:
    from troupe.models.config import LoraSettings, ModelConfig, TinyConfig

__all__ = ["LanguageModel", "Policy", "ValueModel", "build_tiny", "build_tokenizer", "load_language_model"]


class LanguageModel(nn.Module):
    """A causal LM, its tokenizer and its adapters."""

    def __init__(self, network: nn.Module, tokenizer: Any) -> None:
        super().__init__()
        self.network: Any = network
        self.tokenizer = tokenizer
        self.format = TemplateFormat(tokenizer)
        self.adapters: dict[str, None] = {}
        self.compiled = False

    @property
    def config(self) -> Any:
        return self.network.config

    @property
    def device(self) -> torch.device:
        return next(self.network.parameters()).device

    @property
    def vocabulary(self) -> int:
        """Ids below it may be sampled; the embedding matrix may be padded beyond."""
        return min(len(self.tokenizer), self.config.vocab_size)

    @property
    def exact_attention(self) -> bool:
        """Whether attention runs in float64 (see `models.attention`)."""
        return bool(self.config._attn_implementation == FLOAT64)

    def use_exact_attention(self, wanted: bool) -> None:
        """Switches float64 attention on or off; only float32 models on the CPU have a use for it."""
        useful = wanted and self.device.type == "cpu" and self.network.dtype == torch.float32
        if useful == self.exact_attention:
            return
        register_float64_attention()
        base = self.network.get_base_model() if self.adapters else self.network
        base.set_attn_implementation(FLOAT64 if useful else "sdpa")

    @property
    def max_positions(self) -> int:
        return int(getattr(self.config, "max_position_embeddings", 1 << 20))

    @property
    def backbone(self) -> nn.Module:
        """The network below its vocabulary head, adapters included."""
        base = self.network.get_base_model() if self.adapters else self.network
        return base.get_decoder() if hasattr(base, "get_decoder") else base.base_model

    def add_adapter(self, name: str, settings: LoraSettings) -> None:
        """A fresh LoRA adapter; B starts at zero, so the policy starts as the base. The base is frozen from then on."""
        try:
            from peft import LoraConfig, PeftModel
        except ImportError as error:
            raise MissingExtra("peft", "lora", "weights=lora") from error
        lora = LoraConfig(
            r=settings.rank,
            lora_alpha=settings.alpha,
            lora_dropout=0.0,  # dropout would make the recomputed log-probs differ from the sampled ones
            target_modules=settings.targets,
            task_type="CAUSAL_LM",
        )
        if self.adapters:
            self.network.add_adapter(name, lora)
        else:
            self.network = PeftModel(self.network, lora, adapter_name=name)
        self.adapters[name] = None

    @contextlib.contextmanager
    def using(self, adapter: str | None) -> Iterator[None]:
        """Activates an adapter (None: the bare base). Gradients must be taken before another one is activated."""
        if not self.adapters:
            yield
        elif adapter is None:
            with self.network.disable_adapter():
                yield
        else:
            self.network.set_adapter(adapter)
            yield

    def hidden(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """Final hidden states `[G, L, D]` of ids `[G, L]` under a boolean mask `[G, 1, L, L]`."""
        return _hidden(self.backbone, self.compiled, input_ids, position_ids, attention_mask)

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits `[..., V]` of the ids that may be sampled, float32."""
        logits = self.network.get_output_embeddings()(hidden).float()
        cap = getattr(self.config, "final_logit_softcapping", None)
        if cap:
            logits = cap * torch.tanh(logits / cap)
        scale = getattr(self.config, "logit_scale", None) or 1.0 / (getattr(self.config, "logits_scaling", None) or 1.0)
        if scale != 1.0:
            logits = logits * scale
        return logits[..., : self.vocabulary]

    def save(self, folder: Path) -> None:
        """Ordinary Hugging Face files: base and tokenizer in `folder`, each adapter in a folder of its name."""
        _write(self.network, self.tokenizer, folder)


class Policy:
    """Who speaks: a model, an adapter of it or none, and the version that counts its updates."""

    def __init__(self, name: str, model: LanguageModel, adapter: str | None = None, *, frozen: bool = False) -> None:
        self.name = name
        self.model = model
        self.adapter = adapter
        self.frozen = frozen
        self.version = 0

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """What an update of this policy changes: all weights, or its adapter's."""
        for name, parameter in self.model.network.named_parameters():
            if not self.model.adapters or (self.adapter is not None and _belongs(name, self.adapter)):
                yield name, parameter

    def state(self) -> dict[str, Tensor]:
        """Named tensors, detached and shared with the live weights."""
        return {name: parameter.detach() for name, parameter in self.named_parameters()}

    @torch.no_grad()
    def load_state(self, state: Mapping[str, Tensor]) -> None:
        """Copies tensors in place. Raises UserError where the names or shapes are not this policy's."""
        own = dict(self.named_parameters())
        if set(own) != set(state):
            odd = sorted(set(own) ^ set(state))[0]
            raise UserError(
                f"policy {self.name!r}: the stored weights do not fit this model; first difference: {odd!r}"
            )
        for name, parameter in own.items():
            if parameter.shape != state[name].shape:
                raise UserError(
                    f"policy {self.name!r}: {name!r} has shape {tuple(state[name].shape)} in the checkpoint and "
                    f"{tuple(parameter.shape)} in the model"
                )
        for name, parameter in own.items():  # all of them fit: nothing is half loaded
            parameter.copy_(state[name])

    def snapshot(self, name: str) -> Policy:
        """A frozen copy with weights of its own."""
        import copy

        model = LanguageModel(copy.deepcopy(self.model.network), self.model.tokenizer)
        model.adapters = dict(self.model.adapters)
        frozen = Policy(name, model, self.adapter, frozen=True)
        frozen.version = self.version
        return frozen

    def export(self, folder: Path) -> None:
        """Merged weights as an ordinary Hugging Face model that needs neither peft nor this package."""
        import copy

        network = self.model.network
        if self.model.adapters:
            network = copy.deepcopy(network)
            if self.adapter is None:
                network = network.unload()
            else:
                network.set_adapter(self.adapter)
                network = network.merge_and_unload()  # destroys in place, hence the copy
        _write(network, self.model.tokenizer, folder)


def _belongs(parameter: str, adapter: str) -> bool:
    """Whether peft keeps it for this adapter: `...lora_A.<adapter>.weight`. Adapters may be named as modules are."""
    return any(kind.startswith("lora_") and name == adapter for kind, name in pairwise(parameter.split(".")))


class ValueModel(nn.Module):
    """V(state before each token): a copy of a policy's backbone with a zero-initialised linear head."""

    def __init__(self, policy: Policy) -> None:
        super().__init__()
        import copy

        network = copy.deepcopy(policy.model.network)
        if policy.model.adapters:
            network = network.unload()
        self.body = network.get_decoder()
        self.body.requires_grad_(True)
        self.head = nn.Linear(policy.model.config.hidden_size, 1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.head.to(policy.model.device)
        self.compiled = policy.model.compiled

    def hidden(self, input_ids: Tensor, position_ids: Tensor, attention_mask: Tensor) -> Tensor:
        """As `LanguageModel.hidden`."""
        return _hidden(self.body, self.compiled, input_ids, position_ids, attention_mask)

    def values(self, hidden: Tensor) -> Tensor:
        """Values `[...]` of hidden states `[..., D]`, float32."""
        return self.head(hidden.to(self.head.weight.dtype))[..., 0].float()


def _hidden(backbone: nn.Module, compiled: bool, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    run = _compiled_forward() if compiled else _forward
    with _recomputing(backbone):
        return run(backbone, ids, positions, mask)


def _forward(backbone: nn.Module, ids: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
    output = backbone(input_ids=ids, position_ids=positions, attention_mask=mask, use_cache=False)
    hidden: Tensor = output.last_hidden_state
    return hidden


@cache
def _compiled_forward() -> Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor]:
    """For any shape: hardly ever have two micro-batches the same one."""
    compiled: Callable[[nn.Module, Tensor, Tensor, Tensor], Tensor] = torch.compile(_forward, dynamic=True)
    return compiled


@contextlib.contextmanager
def _recomputing(network: nn.Module) -> Iterator[None]:
    """Lets layers that checkpoint their activations do so where gradients are wanted.

    transformers asks each layer's training flag, which is off here (dropout), and must be off while decoding: a layer
    that checkpoints refuses its cache. The flag of the layer alone switches nothing else on.
    """
    layers = [module for module in network.modules() if getattr(module, "gradient_checkpointing", False)]
    for layer in layers:
        layer.training = torch.is_grad_enabled()
    try:
        yield
    finally:
        for layer in layers:
            layer.training = False


@contextlib.contextmanager
def _without_bars() -> Iterator[None]:
    """A local file is read and written at once; the bars are for downloads."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _write(network: Any, tokenizer: Any, folder: Path) -> None:
    try:
        with _without_bars():
            network.save_pretrained(folder)
            tokenizer.save_pretrained(folder)
    except Exception as error:  # safetensors and tokenizers hide the system's error in a text
        found = re.search(r"os error (\d+)", str(error))
        number = error.errno if isinstance(error, OSError) else int(found[1]) if found else None
        if number is None:
            raise
        full = number in (errno.ENOSPC, errno.EDQUOT)
        why = "the disk is full; free some space and run it again" if full else os.strerror(number)
        raise StorageError(f"{folder} cannot be written: {why}") from error


# ---------------------------------------------------------------------------------------------- building and loading


def build_tokenizer(corpus: Iterable[str], vocab_size: int) -> Any:
    """A byte-level BPE tokenizer (any text encodes), digits one by one, tags as single tokens."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - len(TAGS),
        special_tokens=list(SPECIAL_TOKENS),
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    bpe.train_from_iterator(_without_tags(corpus), trainer)
    bpe.add_tokens([AddedToken(tag, special=False, normalized=False) for tag in TAGS])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bpe, pad_token="<|pad|>", eos_token="<|end|>", clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = EMBEDDED_TEMPLATE
    tokenizer.padding_side = "left"
    return tokenizer


def _without_tags(corpus: Iterable[str]) -> Iterator[str]:
    for text in corpus:
        for tag in TAGS:
            text = text.replace(tag, "\n")
        yield from text.split("\n")


def build_tiny(corpus: Iterable[str], config: TinyConfig, seed: int) -> LanguageModel:
    """The embedded model, random weights drawn from `seed`, its tokenizer trained on `corpus`."""
    from transformers import AutoModelForCausalLM, Qwen2Config

    tokenizer = build_tokenizer(corpus, config.vocab_size)
    settings = Qwen2Config(
        vocab_size=-(-len(tokenizer) // 16) * 16,
        hidden_size=config.hidden_size,
        num_hidden_layers=config.layers,
        num_attention_heads=config.heads,
        num_key_value_heads=config.kv_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_positions,
        tie_word_embeddings=True,
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=tokenizer.eos_token_id,
        bos_token_id=None,
        initializer_range=0.05 if config.hidden_size <= 128 else 0.02,  # 0.02 trains far slower at this width
    )
    with torch.random.fork_rng(devices=[]):  # transformers initialises from the global generator
        torch.manual_seed(seed)
        network = AutoModelForCausalLM.from_config(settings, attn_implementation="sdpa")
    network.generation_config.pad_token_id = tokenizer.pad_token_id
    network.generation_config.eos_token_id = tokenizer.eos_token_id
    return LanguageModel(network.eval(), tokenizer)


def load_language_model(path: str | Path, config: ModelConfig) -> LanguageModel:
    """A model by Hugging Face name or local folder. Raises ConfigError where there is none, or it has no chat
    template."""
    from safetensors import SafetensorError
    from transformers import AutoModelForCausalLM

    local = Path(path)
    if str(path).startswith((".", "/", "~")) and not (local.expanduser() / "config.json").exists():
        raise ConfigError(f"model.path={str(path)!r}: there is no config.json in that folder")
    source = str(local.expanduser()) if (local.expanduser() / "config.json").exists() else str(path)
    try:
        with _without_bars() if Path(source).is_dir() else contextlib.nullcontext():
            tokenizer = _load_tokenizer(source)
            network = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, config.dtype))
    except (OSError, ValueError, SafetensorError) as error:
        reason = str(error).strip().splitlines()[0]
        raise ConfigError(f"model.path={str(path)!r} cannot be loaded: {reason}") from error
    if tokenizer.chat_template is None:
        raise ConfigError(f"model.path={str(path)!r} has no chat template; use an instruction-tuned model")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    if config.gradient_checkpointing:
        network.gradient_checkpointing_enable()
    return LanguageModel(network.to(resolve_device(config.device)).eval(), tokenizer)


def _load_tokenizer(source: str) -> Any:
    """The tokenizer as it was saved. `AutoTokenizer` reads every qwen2 folder as a Qwen2Tokenizer, with that one's
    splitting rules and one token more, whatever the folder says: the embedded model would come back as another one."""
    from transformers import AutoTokenizer, PreTrainedTokenizerFast

    settings = Path(source) / "tokenizer_config.json"
    ours = settings.exists() and json.loads(settings.read_text()).get("tokenizer_class") == "TokenizersBackend"
    return (PreTrainedTokenizerFast if ours else AutoTokenizer).from_pretrained(source, padding_side="left")


def resolve_device(name: str) -> torch.device:
    """`auto` is a CUDA GPU where there is one, else the CPU. Raises ConfigError for a device that is absent."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ConfigError(f"model.device={name!r} is not usable here: {str(error).splitlines()[0]}") from error
    return device
