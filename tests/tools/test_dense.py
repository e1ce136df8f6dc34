"""Dense retrieval: embeddings that padding does not change, exact search, ties in the corpus's order, and what is
refused. The encoder is a random BERT, made here."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import BertConfig, BertModel, PreTrainedTokenizerFast, T5Config, T5Model

from tests.runs import lines_of, overrides
from troupe.agents import AgentSpec
from troupe.cli.train import resolve_config
from troupe.engines.scripted import ScriptedEngine
from troupe.episode import Episode, Outcome, Sampling, Task
from troupe.errors import ConfigError, DataError, MissingExtra
from troupe.systems.workflow_rl import AgentTrainer, load_team
from troupe.systems.workflow_rl.setup import make_workflow_factory
from troupe.tasks.facts import passages
from troupe.tools import TOOLS
from troupe.tools.dense import DenseSearchTool, Encoder, EncoderSettings
from troupe.tools.search import CiteTool, Passage, ReadTool, SearchTool
from troupe.training.rollout import Job, RolloutSettings, run_episodes_sync
from troupe.workflows import WORKFLOWS

ROWS = [
    {"id": "7", "title": "", "text": "Dolek works for Wativ"},
    {"id": "8", "title": "Sulek", "text": "Sulek works for Dolek"},
    {"id": "9", "title": "", "text": "Wativ lives in Jawick"},
    {"id": "10", "title": "", "text": "Wativ keeps a goat"},
]
CORPUS = passages("facts-200-0")[:200]


def save_encoder(folder: Path) -> Path:
    """BERT of two layers over the corpora's words; its weights are wide, so that texts lie far apart."""
    words = sorted(
        {word for row in [*ROWS, *CORPUS] for word in row["text"].lower().split()} | {"query", "passage", ":"}
    )
    known = {word: number for number, word in enumerate(["[PAD]", "[UNK]", "[CLS]", "[SEP]", *words])}
    layout = Tokenizer(models.WordLevel(known, unk_token="[UNK]"))
    layout.normalizer = normalizers.Lowercase()
    layout.pre_tokenizer = pre_tokenizers.Whitespace()
    layout.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=layout, pad_token="[PAD]", unk_token="[UNK]")
    sizes = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 48}
    config = BertConfig(vocab_size=len(known), max_position_embeddings=24, initializer_range=0.3, **sizes)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        BertModel(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_encoder(tmp_path_factory.mktemp("encoder"))


@pytest.fixture(scope="module")
def encoder(folder: Path) -> Encoder:
    return Encoder(EncoderSettings(str(folder), device="cpu"))


@pytest.fixture
def faiss() -> Any:
    return pytest.importorskip("faiss", reason="faiss-cpu, of the extra `retrieval`, is not installed")


def settings(folder: Path, **changed: Any) -> EncoderSettings:
    return EncoderSettings(str(folder), device="cpu", **changed)


def found(tool: DenseSearchTool, query: str, k: int | None = None) -> list[Passage]:
    return asyncio.run(tool.search(query, k))


def ids(tool: DenseSearchTool, query: str, k: int | None = None) -> list[str]:
    return [passage.id for passage in found(tool, query, k)]


# ---------------------------------------------------------------------------------------------- embeddings


@pytest.mark.parametrize("pooling", ["mean", "cls", "last"])
def test_padding_does_not_change_a_vector(folder: Path, pooling: str) -> None:
    encoder = Encoder(settings(folder, pooling=pooling))
    texts = ["Dolek", *(row["text"] for row in CORPUS[:6]), "Wativ keeps a goat " * 4]
    together = encoder.embed(texts)
    assert together.shape == (8, 32) and together.dtype == np.float32
    assert np.allclose(together, np.concatenate([encoder.embed([text]) for text in texts]), atol=1e-5)
    assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)


def test_poolings_are_what_they_are_called(folder: Path) -> None:
    """Against the hidden states of one text, unpadded."""
    text = "Dolek works for Wativ"
    network = BertModel.from_pretrained(folder)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    with torch.no_grad():
        hidden = network(**tokenizer(text, return_tensors="pt")).last_hidden_state[0].numpy()
    assert len(hidden) == 6  # [CLS], four words, [SEP]
    for pooling, vector in {"mean": hidden.mean(0), "cls": hidden[0], "last": hidden[-1]}.items():
        own = Encoder(settings(folder, pooling=pooling)).embed([text, "Wativ keeps a goat for Dolek"])[0]
        assert np.allclose(own, vector / np.linalg.norm(vector), atol=1e-5), pooling


def test_prefixes_stand_before_queries_and_passages(folder: Path, encoder: Encoder) -> None:
    asking = Encoder(settings(folder, query_prefix="query: ", passage_prefix="passage: "))
    text = "Dolek works"
    assert np.array_equal(asking.queries([text]), encoder.embed([f"query: {text}"]))
    assert np.array_equal(asking.passages([text]), encoder.embed([f"passage: {text}"]))
    assert not np.allclose(asking.queries([text]), asking.passages([text]), atol=1e-3)


def test_long_texts_are_cut(folder: Path) -> None:
    """At the model's positions (24 tokens: 22 words), or before."""
    long = "dolek works for wativ " * 8
    assert np.allclose(*Encoder(settings(folder)).embed([long, " ".join(long.split()[:22])]), atol=1e-5)
    assert np.allclose(*Encoder(settings(folder, max_tokens=4)).embed([long, "dolek works"]), atol=1e-5)


def test_text_that_is_not_unicode_is_embedded(encoder: Encoder) -> None:
    assert encoder.embed([json.loads('"goat \\ud800"'), ""]).shape == (2, 32)


def test_other_types_of_weights(folder: Path, encoder: Encoder) -> None:
    coarse = Encoder(settings(folder, dtype="bfloat16")).embed(["Dolek works"])
    assert coarse.dtype == np.float32 and np.allclose(coarse, encoder.embed(["Dolek works"]), atol=0.05)


def test_loading_leaves_the_global_generator_alone(folder: Path) -> None:
    before = torch.random.get_rng_state()
    Encoder(settings(folder))
    assert torch.equal(before, torch.random.get_rng_state())


# ---------------------------------------------------------------------------------------------- search


def test_a_passage_finds_itself_first(faiss: Any, encoder: Encoder) -> None:
    tool = DenseSearchTool(encoder, CORPUS)
    assert len(CORPUS) == 200
    for row in CORPUS[::10]:
        assert ids(tool, row["text"], 1) == [row["id"]]


def test_the_ranking_is_that_of_all_inner_products(faiss: Any, encoder: Encoder) -> None:
    vectors = np.concatenate([encoder.embed([row["text"]]) for row in CORPUS]).astype(np.float64)
    places = {row["id"]: place for place, row in enumerate(CORPUS)}
    tool = DenseSearchTool(encoder, CORPUS)
    for number, k in enumerate([1, 4, 10, 40, 200, 500] * 3):
        words = CORPUS[number]["text"].split()
        query = f"{words[-1]} {words[0]}"
        scores = vectors @ encoder.embed([query])[0]
        ranking = [places[id] for id in ids(tool, query, k)]
        assert len(set(ranking)) == len(ranking) == min(k, 200)
        # Within the five decimals that count: two passages as near as that may change places.
        assert np.allclose(scores[ranking], np.sort(scores)[::-1][:k], rtol=0, atol=2e-5)


def test_passages_of_one_score_stand_in_the_corpus_order(faiss: Any, encoder: Encoder) -> None:
    """Also where only some of them are among the best k, and in whatever batch they were embedded."""
    rows = [{"id": str(number), "text": "Wativ keeps a goat" if number % 3 else "Dolek"} for number in range(99)]
    goats = [row["id"] for row in rows if row["text"] != "Dolek"]
    for shown in (rows, rows[::-1]):
        tool = DenseSearchTool(encoder, shown)
        expected = goats if shown is rows else goats[::-1]
        assert ids(tool, "Wativ keeps a goat", 7) == expected[:7]
        assert ids(tool, "Wativ keeps a goat", 66) == expected


def test_every_query_finds_something_and_a_blank_one_nothing(faiss: Any, encoder: Encoder) -> None:
    tool = DenseSearchTool(encoder, ROWS)
    assert len(found(tool, "xyzzy")) == len(found(tool, "xyzzy", 9)) == 4
    assert found(tool, " ") == [] and found(tool, "goat", 0) == []


def test_each_text_is_embedded_once(faiss: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over all tools of one family and all threads, and not before the first search."""
    embedded: list[str] = []
    embed = Encoder.passages

    def counted(self: Encoder, texts: Sequence[str]) -> np.ndarray:
        embedded.extend(texts)
        return embed(self, texts)

    monkeypatch.setattr(Encoder, "passages", counted)
    loaded: list[str] = []

    def load(name: str) -> list[dict[str, str]]:
        loaded.append(name)
        return [*ROWS, {**ROWS[0], "id": "again"}]

    async def search_at_once() -> None:
        await asyncio.gather(*(tool.on("ours").search(query, 2) for query in ("goat", "Dolek", "town", "goat")))

    tool = DenseSearchTool(encoder, load=load)
    assert tool.on("ours").get("9") == Passage("9", "", "Wativ lives in Jawick") and embedded == []
    asyncio.run(search_at_once())
    assert loaded == ["ours"] and sorted(embedded) == sorted(SearchTool(ROWS).get(row["id"]).whole for row in ROWS)


def test_indexing_does_not_stop_the_event_loop(faiss: Any, encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    """The index is made while the loop goes on: it waits for a word that only the loop can give."""
    import threading

    spoken = threading.Event()
    embed = Encoder.passages

    def waiting(self: Encoder, texts: Sequence[str]) -> np.ndarray:
        assert spoken.wait(timeout=20), "the event loop stood still"
        return embed(self, texts)

    monkeypatch.setattr(Encoder, "passages", waiting)

    async def run() -> list[Passage]:
        search = asyncio.create_task(DenseSearchTool(encoder, ROWS).search("goat"))
        await asyncio.sleep(0.05)
        spoken.set()
        return await search

    assert len(asyncio.run(run())) == 4


# ---------------------------------------------------------------------------------------------- the tool


def test_a_call_shows_what_the_other_search_tool_shows(faiss: Any, encoder: Encoder) -> None:
    tool, words = TOOLS["dense_search"](encoder, ROWS, k=1, max_characters=14), SearchTool(ROWS, k=1, max_characters=14)
    asked = "Sulek: Sulek works for Dolek"
    assert asyncio.run(tool(query=asked)) == words(query=asked) == "[8] Sulek: Sulek ..."
    assert (tool.name, tool.k) == (words.name, words.k)
    assert tool.parameters["required"] == ["query"] and "meaning" in tool.description
    assert asyncio.run(tool()) == "error: 'query' must be text"
    assert asyncio.run(tool(self="goat")) == "error: unknown argument 'self'; write 'query'"
    assert ReadTool(tool)(passage="[8]") == "[8] Sulek: Sulek works for Dolek"
    assert CiteTool(tool)(passage="8") == "[8] Sulek: Sulek ..."


def test_bad_collections_and_bounds_are_refused(faiss: Any, encoder: Encoder) -> None:
    with pytest.raises(DataError, match="has no corpus: give it one"):
        found(DenseSearchTool(encoder), "goat")
    with pytest.raises(DataError, match="has an id twice"):
        found(DenseSearchTool(encoder, [*ROWS, ROWS[0]]), "goat")
    with pytest.raises(ConfigError, match="k=0 must be at least 1"):
        DenseSearchTool(encoder, ROWS, k=0)


def test_without_faiss_the_extra_is_named(encoder: Encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "faiss", None)
    with pytest.raises(
        MissingExtra, match=r"'faiss-cpu', which is not installed: pip install 'troupe-train\[retrieval\]'"
    ):
        DenseSearchTool(encoder, ROWS)


# ---------------------------------------------------------------------------------------------- what is refused


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (3, "encoder=3 names no encoder; write a folder or a Hugging Face name as encoder.path"),
        ({"pooling": "cls"}, "names no encoder"),
        ("", r"encoder\.path is empty"),
        ({"path": "x", "poling": "cls"}, r"encoder\.poling is not known \(did you mean 'pooling'\?\)"),
        ({"path": "x", "pooling": "max"}, r"encoder\.pooling='max' is not known \(known: mean, cls, last\)"),
        ({"path": "x", "dtype": "int8"}, r"encoder\.dtype='int8' is not known"),
        ({"path": "x", "batch_size": 0}, r"encoder\.batch_size=0 must be at least 1"),
        ({"path": "x", "batch_size": True}, r"encoder\.batch_size=True must be a whole number"),
        ({"path": 7}, r"encoder\.path=7 must be text, in quotes"),
    ],
)
def test_settings_that_make_no_sense(given: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        EncoderSettings.of(given)


def test_encoders_that_cannot_be_loaded(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"there is no config\.json in that folder"):
        Encoder(settings(tmp_path))
    with pytest.raises(ConfigError, match="cannot be loaded on 'tpu': "):
        Encoder(EncoderSettings(str(folder), device="tpu"))
    with pytest.raises(ConfigError, match="cannot be loaded on 'cpu': "):
        Encoder(settings(broken(folder, tmp_path / "torn", weights=b"torn")))


def test_an_encoder_without_all_of_its_weights_is_refused(folder: Path, tmp_path: Path) -> None:
    """They would be drawn at random; but the pooler, which nothing here uses, may be missing."""
    weights = BertModel.from_pretrained(folder).state_dict()
    without = {name: value for name, value in weights.items() if "pooler" not in name}
    other = save_weights(folder, tmp_path / "headless", without)
    assert np.array_equal(Encoder(settings(other)).embed(["goat"]), Encoder(settings(folder)).embed(["goat"]))
    name = "encoder.layer.1.output.dense.weight"
    del without[name]
    with pytest.raises(ConfigError, match=f"lacks weights, the first of them '{name}'"):
        Encoder(settings(save_weights(folder, tmp_path / "lacking", without)))


def test_a_model_that_gives_no_hidden_states_for_a_text_is_refused(folder: Path, tmp_path: Path) -> None:
    sizes = {"d_model": 16, "d_kv": 8, "d_ff": 16, "num_layers": 1, "num_heads": 2}
    T5Model(T5Config(vocab_size=1000, **sizes)).save_pretrained(tmp_path)
    for path in folder.glob("token*"):
        (tmp_path / path.name).write_bytes(path.read_bytes())
    with pytest.raises(ConfigError, match="cannot embed a text: "):
        Encoder(settings(tmp_path))


def broken(folder: Path, other: Path, weights: bytes) -> Path:
    """A copy of an encoder with other bytes for weights."""
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(weights if path.suffix == ".safetensors" else path.read_bytes())
    return other


def save_weights(folder: Path, other: Path, weights: dict[str, torch.Tensor]) -> Path:
    """A copy of an encoder with other weights."""
    from safetensors.torch import save

    return broken(folder, other, save(weights, metadata={"format": "pt"}))


# ---------------------------------------------------------------------------------------------- in a team


def play(tiny: Any, name: str, task: Task, script: dict[str, list[str]], **arguments: Any) -> Episode:
    """One episode of a workflow, each agent saying what is written for its calls."""
    engine = ScriptedEngine(tiny.format, lambda request: script[request.key[-2]][request.key[-1]])
    specs = {agent: AgentSpec("team", Sampling(16)) for agent in WORKFLOWS[name].agent_names}
    make = make_workflow_factory(WORKFLOWS[name], {"prompts": "compact", **arguments}, name)
    return run_episodes_sync([Job(task, 0)], make, engine, specs, RolloutSettings((0, 1), "test"))[0]


@pytest.fixture
def corpus(tmp_path: Path) -> str:
    path = tmp_path / "corpus.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS), encoding="utf-8")
    return str(path)


@pytest.fixture
def dense(faiss: Any, folder: Path) -> dict[str, Any]:
    return {"retriever": "dense", "encoder": {"path": str(folder), "device": "cpu"}}


def test_a_search_team_searches_by_embeddings(tiny: Any, dense: dict[str, Any], corpus: str) -> None:
    answer = {"answers": ["Jawick"], "passages": ["9"]}
    task = Task("t", "one_hop", "Where does Wativ live?", answer=answer, data={"corpus": corpus})
    script = {
        "query_optimizer": ["<ans>Wativ lives in Jawick</ans>"],
        "retriever": ["<ans>1</ans>"],
        "answerer": ["<ans>Jawick</ans>"],
    }
    episode = play(tiny, "search", task, script, top_k=4, **dense)
    assert episode.outcome is Outcome.SUCCESS, episode.metadata
    shown = str(episode.of("retriever")[0].steps[0].observation[-1]["content"]).splitlines()
    assert shown[2] == "1 Wativ lives in Jawick" and len(shown) == 6  # BM25 would leave out two
    assert [t.reward for agent in script for t in episode.of(agent)] == [1.0, 1.0, 1.0]


def test_a_research_team_searches_by_embeddings(tiny: Any, dense: dict[str, Any], corpus: str) -> None:
    fact = {"passages": {"9": "Wativ lives in Jawick"}, "values": ["Jawick"]}
    task = Task("t", "report", "Report the town of Wativ.", answer={"facts": [fact]}, data={"corpus": corpus})
    script = {
        "planner": ["<ans>town of Wativ</ans>"],
        "researcher": ["<call>Wativ lives in Jawick</call>", "<ans>9</ans>"],
        "writer": ["<ans>Wativ lives in Jawick [9].</ans>"],
        "critic": ["<ans>ok</ans>"],
    }
    episode = play(tiny, "deepresearch", task, script, max_refinement_iterations=1, **dense)
    assert "error" not in episode.metadata and episode.metrics["tool_call_validity"] == 1
    told = str(episode.of("researcher")[0].steps[1].observation[-1]["content"]).splitlines()
    assert told[0] == "[9] Wativ lives in Jawick" and len(told) == 4


def test_a_run_trains_and_deploys_with_its_encoder(dense: dict[str, Any], tmp_path: Path) -> None:
    chosen = [f"workflow.args.encoder.{key}={value}" for key, value in dense["encoder"].items()]
    given = [*overrides(tmp_path, trainer__total_steps=1), "workflow.args.retriever=dense", *chosen]
    trainer = AgentTrainer(config=resolve_config("search", [], given).config)
    trainer.train()
    team = load_team(tmp_path)
    assert trainer.make_workflow().search_tool is team.make_workflow().search_tool
    assert isinstance(team.make_workflow().search_tool, DenseSearchTool)
    for episode in [
        *lines_of(tmp_path / "episodes.jsonl"),
        team.answer(Task("asked", "asked", "Name them.")).to_dict(),
    ]:
        assert "error" not in episode["metadata"]


def test_workflows_of_one_encoder_share_its_tool(dense: dict[str, Any], folder: Path) -> None:
    tools = [make_workflow_factory(WORKFLOWS[name], dense, name)().search_tool for name in ("search", "deepresearch")]
    assert tools[0] is tools[1] and isinstance(tools[0], DenseSearchTool)
    words = make_workflow_factory(WORKFLOWS["search"], {"retriever": "bm25"}, "search")().search_tool
    assert isinstance(words, SearchTool)


@pytest.mark.parametrize("name", ["search", "deepresearch"])
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"retriever": "dens"}, r"workflow\.args\.retriever='dens' is not known \(did you mean 'dense'\?\)"),
        ({"retriever": ["dense"]}, r"workflow\.args\.retriever=\['dense'\] is not known"),
        ({"retriever": "dense"}, r"needs an encoder, by name or folder: add workflow\.args\.encoder="),
        ({"encoder": "x"}, r"workflow\.args\.encoder='x' needs workflow\.args\.retriever=dense"),
        ({"retriever": "bm25", "encoder": "x"}, r"needs workflow\.args\.retriever=dense"),
        ({"retriever": "dense", "encoder": "/nowhere"}, r"there is no config\.json in that folder"),
        (
            {"retriever": "dense", "encoder": "x", "search_tool": SearchTool(ROWS)},
            "has a search_tool; leave out retriever",
        ),
        ({"retreiver": "dense"}, r"takes no such argument \(did you mean 'retriever'\?\)"),
    ],
)
def test_configs_that_do_not_fit(name: str, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        make_workflow_factory(WORKFLOWS[name], arguments, name)


def test_workflows_that_do_not_search_take_no_retriever() -> None:
    with pytest.raises(ConfigError, match=r"workflow\.args\.retriever: MathToolWorkflow takes no such argument"):
        make_workflow_factory(WORKFLOWS["math_tool"], {"retriever": "dense"}, "math_tool")
