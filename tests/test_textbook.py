"""A book's names: its chapter 2 from the tokenizer to the compiled model, and each name by itself.

The listings are the chapter's steps, written anew. The tests marked `peers` hold the names against the book's own
package where that is installed.
"""

from __future__ import annotations

import inspect
import itertools
import json
import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hub_server import HubServer
from torch import Tensor
from torch._dynamo.testing import CompileCounter

import course_utils
from course_utils import generation, hub, load_model, load_tokenizer, textbook
from course_utils.chat import ChatTemplate
from course_utils.config import Qwen3Config
from course_utils.errors import ContextLengthError, CourseError, DownloadError
from course_utils.hub import resolve
from course_utils.kv_cache import KVCache as EngineCache
from course_utils.qwen3 import Qwen3Model as EngineModel
from course_utils.textbook import (
    QWEN_CONFIG_06_B,
    KVCache,
    Qwen3Model,
    Qwen3Tokenizer,
    book_config,
    download_qwen3_small,
    generate_stats,
    generate_text_basic,
    generate_text_basic_cache,
    generate_text_basic_stream,
    generate_text_basic_stream_cache,
    get_device,
)
from course_utils.tokenizer import Qwen3Tokenizer as EngineTokenizer

BASE = "Qwen/Qwen3-0.6B-Base"
SMALL = {"vocab_size": 211, "context_length": 64, "emb_dim": 48, "n_heads": 4, "n_layers": 3, "hidden_dim": 80,
         "head_dim": 16, "qk_norm": True, "n_kv_groups": 2, "rope_base": 1_000_000.0, "dtype": torch.float32}
PROMPT = torch.tensor([[5, 90, 17, 3, 160, 44]])
WAYS: list[Callable[..., Any]] = [generate_text_basic, generate_text_basic_cache, generate_text_basic_stream,
                                  generate_text_basic_stream_cache]


def make(**changes: Any) -> Qwen3Model:
    torch.manual_seed(1)
    model = Qwen3Model({**SMALL, **changes})
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2)
    return model


@pytest.fixture(scope="module")
def small() -> Qwen3Model:
    return make()


def tokens_of(output: Tensor | Iterator[Tensor]) -> list[int]:
    """The new tokens of one text, however they come."""
    return output[0].tolist() if isinstance(output, Tensor) else [int(token) for token in output]


@torch.inference_mode()
def by_hand(model: Any, token_ids: Tensor, max_new_tokens: int, cached: bool) -> list[int]:
    """A greedy loop as a reader of the book writes it."""
    model.eval()
    cache = KVCache(n_layers=model.cfg["n_layers"]) if cached else None
    model.reset_kv_cache()
    inputs, tokens = token_ids, []
    for _ in range(max_new_tokens):
        logits = model(inputs, cache=cache) if cached else model(inputs)
        token = torch.argmax(logits[:, -1], dim=-1, keepdim=True)
        tokens.append(token.item())
        inputs = token if cached else torch.cat([inputs, token], dim=1)
    return tokens


# The chapter


@pytest.fixture
def server(tmp_path: Path, hub_environment: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that has our `tiny` under the name of the base model, and a cache and a working folder of one's own."""
    (tmp_path / "reader").mkdir()
    monkeypatch.chdir(tmp_path / "reader")
    files = {path.name: path.read_bytes() for path in resolve("tiny").iterdir()}
    with HubServer(BASE, files) as running:
        monkeypatch.setattr(hub, "download", partial(hub.download, endpoint=running.endpoint))
        yield running


def fetched(server: HubServer) -> set[str]:
    return {path.rsplit("/", 1)[1] for method, path, _ in server.requests if method == "GET" and "/resolve/" in path}


def test_chapter_from_the_tokenizer_to_the_cache(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    # The tokenizer alone
    download_qwen3_small(kind="base", tokenizer_only=True, out_dir="qwen3")
    assert fetched(server) == {"tokenizer.json"} and capsys.readouterr().out.endswith("fetched and verified\n")
    tokenizer = Qwen3Tokenizer(tokenizer_file_path=Path("qwen3") / "tokenizer-base.json")
    prompt = "Explain the softmax function."
    input_token_ids_list = tokenizer.encode(prompt)
    assert "".join(tokenizer.decode([i]) for i in input_token_ids_list) == prompt
    assert tokenizer.decode(input_token_ids_list) == prompt
    assert tokenizer.encode("<|endoftext|>") == [tokenizer.eos_token_id] == [tokenizer.pad_token_id]

    # The model
    device = get_device()
    assert capsys.readouterr().out.startswith("Using ")
    device = torch.device("cpu")
    download_qwen3_small(kind="base", tokenizer_only=False, out_dir="qwen3")
    printed = capsys.readouterr().out.splitlines()
    assert printed == [f"{Path('qwen3', 'tokenizer-base.json')}: there already",
                       f"{Path('qwen3', 'qwen3-0.6B-base.pth')}: fetched and verified"]
    sizes = book_config(load_model("tiny").config, torch.bfloat16)  # where the chapter has QWEN_CONFIG_06_B
    model = Qwen3Model(sizes)
    model.load_state_dict(torch.load(Path("qwen3") / "qwen3-0.6B-base.pth"))
    model.to(device)

    # One step
    input_tensor_fmt = torch.tensor(input_token_ids_list).unsqueeze(0).to(device)
    output_tensor_fmt = model(input_tensor_fmt).squeeze(0)
    assert output_tensor_fmt.shape == (len(input_token_ids_list), sizes["vocab_size"])
    last_token = output_tensor_fmt[-1].detach()
    ours = load_model("tiny", device="cpu", dtype=torch.bfloat16)
    assert torch.equal(last_token, ours(input_tensor_fmt)[0, -1])
    first = last_token.argmax(dim=-1, keepdim=True)

    # The loops
    expected = tokens_of(generation.generate_text_basic(ours, input_tensor_fmt, 12))
    assert expected[0] == first.item()
    for way in WAYS:
        assert tokens_of(way(model=model, token_ids=input_tensor_fmt, max_new_tokens=12)) == expected
    assert by_hand(model, input_tensor_fmt, 12, cached=True) == by_hand(model, input_tensor_fmt, 12, cached=False)
    start_time = time.time()
    output = generate_text_basic_cache(model=model, token_ids=input_tensor_fmt, max_new_tokens=30,
                                       eos_token_id=tokenizer.eos_token_id)
    end_time = time.time()
    assert tokenizer.eos_token_id not in tokens_of(output)
    generate_stats(output, tokenizer, start_time, end_time)
    assert re.fullmatch(r"\n\nTime: \d+\.\d\d sec\n\d+ tokens/sec\n", capsys.readouterr().out)


def test_a_compiled_model_is_compiled_for_the_readers_loops_and_ours_alike(small: Qwen3Model) -> None:
    expected = by_hand(small, PROMPT, 6, cached=False)
    torch._dynamo.reset()
    counter = CompileCounter()  # compiles nothing, but counts how often it would
    model_compiled: Any = torch.compile(small, backend=counter)

    def run_all() -> int:
        for cached in (False, True):
            assert by_hand(model_compiled, PROMPT, 6, cached) == expected
        for way in WAYS:
            assert tokens_of(way(model=model_compiled, token_ids=PROMPT, max_new_tokens=6)) == expected
        return int(counter.frame_count)

    once = run_all()
    assert once < torch._dynamo.config.recompile_limit  # there PyTorch would give up, and go on uncompiled
    assert run_all() == once
    torch._dynamo.reset()


# Downloads


def test_nothing_is_fetched_twice_or_overwritten(server: HubServer, capsys: pytest.CaptureFixture[str]) -> None:
    download_qwen3_small(out_dir="qwen3")
    before = {path: path.stat().st_mtime_ns for path in Path("qwen3").iterdir()}
    assert {path.name for path in before} == {"qwen3-0.6B-base.pth", "tokenizer-base.json"}
    server.requests.clear()
    download_qwen3_small(out_dir="qwen3")
    assert not server.requests and {path: path.stat().st_mtime_ns for path in Path("qwen3").iterdir()} == before
    assert capsys.readouterr().out.count("there already") == 2
    assert Path("qwen3", "tokenizer-base.json").read_bytes() == server.files["tokenizer.json"]


def test_the_tokenizer_alone_is_not_taken_for_the_model(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    download_qwen3_small(tokenizer_only=True)
    with monkeypatch.context() as offline:
        offline.setenv("HF_HUB_OFFLINE", "1")
        with pytest.raises(DownloadError, match="not complete on this machine"):
            resolve(BASE)
    assert (resolve(BASE) / "model.safetensors").read_bytes() == server.files["model.safetensors"]


def test_a_part_is_verified_like_the_whole(server: HubServer) -> None:
    server.fault, server.faulty = "flip", "tokenizer.json"
    with pytest.raises(DownloadError, match="tokenizer.json .*checksum"):
        download_qwen3_small(tokenizer_only=True, out_dir="qwen3")
    assert not Path("qwen3").exists()
    server.fault = None
    download_qwen3_small(tokenizer_only=True, out_dir="qwen3")
    assert Path("qwen3", "tokenizer-base.json").read_bytes() == server.files["tokenizer.json"]


def test_a_model_that_is_here_needs_no_request(server: HubServer) -> None:
    resolve(BASE)
    server.requests.clear()
    download_qwen3_small()
    assert not server.requests and Path("qwen3-0.6B-base.pth").is_file()


def test_weights_that_were_cut_short_are_named_and_kept(server: HubServer) -> None:
    path = Path("qwen3-0.6B-base.pth")
    path.write_bytes(b"PK\x03\x04 the beginning of a file")
    with pytest.raises(DownloadError, match="base.pth' is damaged or cut short.*delete it and run this again"):
        download_qwen3_small()
    assert path.exists() and not server.requests


def test_a_full_disk_leaves_nothing_half(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    def save(_: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise RuntimeError("PytorchStreamWriter failed writing file data/0: file write failed")

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(DownloadError, match="could not be written.*free disk space, or choose another out_dir"):
        download_qwen3_small(out_dir="qwen3")
    assert not list(Path("qwen3").iterdir())


def test_other_kinds_of_models_are_refused() -> None:
    with pytest.raises(ValueError, match="kind is 'chat': give 'base' or 'reasoning'"):
        download_qwen3_small(kind="chat")


# The device


@pytest.mark.parametrize("kind, text", [("cuda", "Using NVIDIA CUDA GPU"), ("mps", "Using Apple Silicon GPU (MPS)"),
                                        ("xpu", "Using Intel GPU"), ("cpu", "Using CPU")])
@pytest.mark.parametrize("enable", [True, False])
def test_the_device_is_told(kind: str, text: str, enable: bool, monkeypatch: pytest.MonkeyPatch,
                            capsys: pytest.CaptureFixture[str]) -> None:
    calls: list[str] = []
    monkeypatch.setattr(textbook, "find_device", lambda: torch.device(kind))
    monkeypatch.setattr(textbook, "enable_tf32", lambda: calls.append("tf32"))
    assert get_device(enable_tensor_cores=enable) == torch.device(kind)
    assert capsys.readouterr().out == text + "\n"
    assert calls == ["tf32"] * (enable and kind == "cuda")


# The tokenizer


@pytest.fixture(params=["small", "qwen3"])
def tokenizer_file(request: pytest.FixtureRequest) -> Path:
    folder: Path = request.getfixturevalue(f"{request.param}_tokenizer_folder")
    return folder / "tokenizer.json"


@pytest.mark.parametrize("name, end", [
    ("tokenizer-base.json", "<|endoftext|>"), ("tokenizer-reasoning.json", "<|im_end|>"),
    ("tokenizer.json", "<|im_end|>"), ("Tokenizer-BASE.json", "<|endoftext|>"),
    ("base-reasoning.json", "<|im_end|>")])
def test_the_name_of_the_file_says_where_a_text_ends(tokenizer_file: Path, name: str, end: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(tokenizer_file.read_bytes())
    # Settings of something else that happens to lie there do not count.
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": 3}')
    tokenizer = Qwen3Tokenizer(tokenizer_file_path=tmp_path / name)
    assert (tokenizer.eos_token, tokenizer.pad_token) == (end, "<|endoftext|>")
    assert tokenizer.eos_token_id == tokenizer.special_tokens[end]
    assert tokenizer.end_token_ids == {tokenizer.eos_token_id}
    assert tokenizer.pad_token_id == tokenizer.special_tokens["<|endoftext|>"]


@pytest.mark.parametrize("generation_prompt", [False, True])
@pytest.mark.parametrize("thinking", [False, True])
def test_a_turn_is_written_as_the_chat_template_writes_it(tokenizer_file: Path, generation_prompt: bool,
                                                         thinking: bool) -> None:
    tokenizer = Qwen3Tokenizer(tokenizer_file_path=str(tokenizer_file), apply_chat_template=True,
                               add_generation_prompt=generation_prompt, add_thinking=thinking)
    template = ChatTemplate.from_folder(tokenizer_file.parent)
    question = "Where does the river go?"
    expected = template.render([{"role": "user", "content": question}], generation_prompt, thinking)
    assert tokenizer.decode(tokenizer.encode(question)) == expected
    assert tokenizer.encode(question, chat_wrapped=True) == tokenizer.encode(question)
    assert tokenizer.decode(tokenizer.encode(question, chat_wrapped=False)) == question


def test_a_special_token_alone_is_one_id(tokenizer_file: Path) -> None:
    tokenizer = Qwen3Tokenizer(tokenizer_file_path=tokenizer_file, apply_chat_template=True)
    for text in ("<|im_end|>", " <|im_end|>\n"):
        assert tokenizer.encode(text) == [tokenizer.special_tokens["<|im_end|>"]]
    assert len(tokenizer.encode("<think>")) > 1  # not among those that the model's makers call special
    assert len(tokenizer.encode("<think>", chat_wrapped=False)) == 1
    assert tokenizer.decode(tokenizer.encode("<|im_end|>", special_tokens=False)) == "<|im_end|>"
    assert len(tokenizer.encode("<|im_end|>", special_tokens=False)) > 1


def test_the_engines_own_functions_take_the_tokenizer(small_tokenizer_folder: Path) -> None:
    tokenizer = Qwen3Tokenizer(tokenizer_file_path=small_tokenizer_folder / "tokenizer.json", apply_chat_template=True)
    messages = [{"role": "user", "content": "Where is the <|im_end|> moon?"}]
    assert tokenizer.encode_chat(messages) == EngineTokenizer(small_tokenizer_folder).encode_chat(messages)


# The model and its cache


def test_sizes_are_those_of_the_real_model() -> None:
    assert QWEN_CONFIG_06_B == {
        "vocab_size": 151_936, "context_length": 40_960, "emb_dim": 1024, "n_heads": 16, "n_layers": 28,
        "hidden_dim": 3072, "head_dim": 128, "qk_norm": True, "n_kv_groups": 8, "rope_base": 1_000_000.0,
        "dtype": torch.bfloat16}
    with torch.device("meta"):
        model = Qwen3Model(QWEN_CONFIG_06_B)
    assert model.config == Qwen3Config(tie_word_embeddings=False)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}
    assert torch.get_default_dtype() == torch.float32


def test_model_has_the_books_attributes(small: Qwen3Model) -> None:
    assert small.cfg == SMALL and small.cfg["n_layers"] == small.config.num_hidden_layers == 3
    assert make(head_dim=None).config.head_dim == 12
    before = {name: value.clone() for name, value in small.state_dict().items()}
    assert small.reset_kv_cache() is None
    assert all(torch.equal(value, before[name]) for name, value in small.state_dict().items())


def test_weights_under_the_books_names(small: Qwen3Model) -> None:
    names = {"model.embed_tokens": "tok_emb", "model.layers": "trf_blocks", "model.norm.weight": "final_norm.scale",
             "lm_head": "out_head", "self_attn": "att", "q_proj": "W_query", "k_proj": "W_key", "v_proj": "W_value",
             "o_proj": "out_proj", "q_norm.weight": "q_norm.scale", "k_norm.weight": "k_norm.scale", "mlp": "ff",
             "gate_proj": "fc1", "up_proj": "fc2", "down_proj": "fc3", "input_layernorm.weight": "norm1.scale",
             "post_attention_layernorm.weight": "norm2.scale"}
    weights = {}
    for name, tensor in small.state_dict().items():
        for ours, theirs in names.items():
            name = name.replace(ours, theirs)
        weights[name] = tensor
    assert not set(weights) & set(small.state_dict())
    torch.manual_seed(2)
    other = Qwen3Model(SMALL)
    other.load_state_dict(weights)
    assert torch.equal(other(PROMPT), small(PROMPT))
    with pytest.raises(RuntimeError, match="Missing key"):  # as of any PyTorch module
        other.load_state_dict({1: torch.zeros(1)})


def test_the_cache_holds_what_the_engines_holds(small: Qwen3Model) -> None:
    cache, engine = KVCache(n_layers=3), EngineCache(small.config)
    assert cache.get_all() == [None] * 3 and cache.get(1) is None
    small(PROMPT, cache=cache), small(PROMPT, cache=engine)
    for index, (held, expected) in enumerate(zip(cache.get_all(), engine.held)):
        assert held is not None and all(torch.equal(a, b) for a, b in zip(held, expected))
        assert cache.get(index) is held
    cache.reset()
    assert cache.get_all() == [None] * 3 and cache.length == 0
    assert torch.equal(small(PROMPT, cache=cache), small(PROMPT))


def test_the_cache_takes_what_another_held(small: Qwen3Model) -> None:
    first, second = KVCache(n_layers=3), KVCache(n_layers=3)
    small(PROMPT[:, :4], cache=first)
    for index, held in enumerate(first.get_all()):
        assert second.length == 0
        second.update(index, held)
    assert second.length == 4
    rest = small(PROMPT[:, 4:], cache=second)
    assert torch.allclose(rest, small(PROMPT)[:, 4:], atol=1e-4)


# Generating


@pytest.mark.parametrize("way", WAYS)
def test_every_way_gives_the_new_tokens_up_to_the_end_token(small: Qwen3Model, way: Callable[..., Any]) -> None:
    expected = by_hand(small, PROMPT, 20, cached=False)
    small.train()
    assert tokens_of(way(small, PROMPT, 20)) == expected
    assert not small.training
    end = expected[7]
    assert tokens_of(way(small, PROMPT, 20, end)) == expected[:expected.index(end)]
    assert tokens_of(way(small, PROMPT, 0)) == []


@pytest.mark.parametrize("way", WAYS)
def test_only_some_ways_use_a_cache(small: Qwen3Model, way: Callable[..., Any]) -> None:
    lengths: list[int] = []
    handle = small.register_forward_pre_hook(lambda _, ids: lengths.append(ids[0].shape[1]))
    tokens_of(way(small, PROMPT, 3))
    handle.remove()
    assert lengths == ([6, 1, 1] if "cache" in way.__name__ else [6, 7, 8])


@pytest.mark.parametrize("way", WAYS)
def test_a_context_that_is_too_short_is_noticed_first(small: Qwen3Model, way: Callable[..., Any]) -> None:
    assert len(tokens_of(way(small, PROMPT, 59))) == 59
    with pytest.raises(ContextLengthError, match="6 prompt tokens and 60 new ones do not fit into 64"):
        way(small, PROMPT, 60)


@pytest.mark.parametrize("way", WAYS)
def test_a_model_of_the_engine_and_a_model_of_the_readers(small: Qwen3Model, way: Callable[..., Any]) -> None:
    engine = EngineModel(small.config)
    engine.load_state_dict(small.state_dict())
    assert tokens_of(way(engine, PROMPT, 5)) == by_hand(small, PROMPT, 5, cached=False)

    class Always:
        """Says one thing, and is called as the book calls its models."""

        cfg = {"n_layers": 2}
        calls: list[str] = []

        def eval(self) -> None:
            self.calls.append("eval")

        def reset_kv_cache(self) -> None:
            self.calls.append("reset")

        def __call__(self, token_ids: Tensor, cache: KVCache | None = None) -> Tensor:
            assert cache is None or cache.get_all() == [None, None]
            logits = torch.zeros(*token_ids.shape, 5)
            logits[..., 2] = 1
            return logits

    assert tokens_of(way(Always(), PROMPT, 3)) == [2, 2, 2] and tokens_of(way(Always(), PROMPT, 3, 2)) == []
    assert Always.calls == (["eval", "reset"] if "cache" in way.__name__ else ["eval"]) * 2
    Always.calls.clear()


def test_stats_of_a_gpu_tell_its_memory(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class OnGpu(Tensor):
        device = torch.device("cuda")

    reset: list[torch.device] = []
    monkeypatch.setattr(textbook, "peak_memory", lambda device: 3 * 2**29)
    monkeypatch.setattr(textbook, "reset_peak_memory", reset.append)
    generate_stats(torch.zeros(1, 41).as_subclass(OnGpu), None, 10.0, 12.0)
    assert capsys.readouterr().out == "\n\nTime: 2.00 sec\n20 tokens/sec\nMax CUDA memory allocated: 1.50 GB\n"
    assert reset == [torch.device("cuda")]


# What is of the wrong kind


WRONG: dict[str, tuple[Callable[[], object], str]] = {
    "device": (lambda: get_device("cpu"), "enable_tensor_cores is 'cpu': give True or False"),
    "kind": (lambda: download_qwen3_small(kind=["base"]), "kind is .*give 'base' or 'reasoning'"),
    "folder": (lambda: download_qwen3_small(out_dir=None), "out_dir is None: give the name of a folder"),
    "tokenizer file": (lambda: Qwen3Tokenizer(tokenizer_file_path=None), "tokenizer_file_path is None"),
    "missing tokenizer": (lambda: Qwen3Tokenizer("nowhere/tokenizer-base.json"), "There is no folder nowhere"),
    "engine's configuration": (lambda: Qwen3Model(Qwen3Config()), "cfg is a course_utils.config.Qwen3Config: give a"),
    "too little": (lambda: Qwen3Model({**dict(list(SMALL.items())[1:])}), "cfg lacks vocab_size"),
    "too much": (lambda: Qwen3Model({**SMALL, "num_experts": 8}), "cfg has num_experts, which a dense Qwen3"),
    "no norms": (lambda: make(qk_norm=False), "cfg sets qk_norm to False"),
    "number format that nothing computes in": (lambda: make(dtype=torch.float8_e4m3fn), "dtype in cfg is torch.float8"),
    "no layer": (lambda: KVCache(n_layers=3).get(3), "layer_idx is 3: give a whole number from 0 to 2"),
    "no keys": (lambda: KVCache(n_layers=3).update(0, "keys"), "value is a str: give keys and values"),
    "class of a model": (lambda: generate_text_basic(Qwen3Model, PROMPT, 3), "model is a type: give the Qwen3Model"),
    "dtype": (lambda: make(dtype="bfloat16"), "dtype in cfg is 'bfloat16'"),
    "size": (lambda: make(emb_dim="48"), "hidden_size is '48'"),
    "no size": (lambda: make(emb_dim=None, head_dim=None), "hidden_size is None"),
    "layers": (lambda: KVCache(n_layers=Qwen3Config()), "n_layers is Qwen3Config.*model.cfg"),
    "weights": (lambda: make().load_state_dict("model.pth"), "load_state_dict got a str: give it what torch.load"),
    "text": (lambda: Qwen3Tokenizer(resolve("tiny")).encode(["text"]), "encode got a list"),
    "model": (lambda: generate_text_basic("tiny", PROMPT, 3), "model is a str: give the Qwen3Model"),
    "model without sizes": (lambda: generate_text_basic_stream_cache(torch.nn.Linear(2, 2), PROMPT, 3),
                            "model is a torch.nn.modules.linear.Linear: give the Qwen3Model"),
    "stats of a model": (lambda: generate_stats(make(), PROMPT, 0, 1), "output_token_ids is a course_utils.textbook"),
    "no time": (lambda: generate_stats(PROMPT, None, 1.0, 1.0), "start_time is 1.0 and end_time 1.0"),
    "times": (lambda: generate_stats(PROMPT, None, "0", "1"), "start_time is '0'"),
}


@pytest.mark.parametrize("misuse, message", WRONG.values(), ids=WRONG)
def test_what_is_of_the_wrong_kind_gets_a_sentence(misuse: Callable[[], object], message: str) -> None:
    with pytest.raises(CourseError, match=message):
        misuse()


# The table of the book's names and ours


REPOSITORY = Path(__file__).resolve().parent.parent
README = (REPOSITORY / "README.md").read_text(encoding="utf-8")


def rows(text: str) -> list[tuple[str, str]]:
    """The rows of the table: what stands in the book, and what here."""
    lines = text.partition("| in the book | here |\n|---|---|\n")[2].splitlines()
    cells = (line.strip("| ").split(" | ") for line in itertools.takewhile(lambda line: line.startswith("|"), lines))
    return [(theirs, ours) for theirs, ours in cells]


def test_the_table_has_each_name_of_the_book() -> None:
    theirs = " ".join(book for book, _ in rows(README))
    assert [name for name in textbook.__all__ if not re.search(rf"\b{name}\b", theirs)] == []


def test_what_the_table_says_is_here_is_here() -> None:
    """Each expression is evaluated; a function is not called, but its arguments must suit it."""

    def suit(function: Callable[..., Any], *positional: object, **named: object) -> None:
        inspect.signature(function).bind(*positional, **named)

    model, tokenizer = load_model("tiny"), load_tokenizer("tiny")
    names = {name: partial(suit, getattr(course_utils, name)) for name in course_utils.__all__
             if callable(getattr(course_utils, name))}
    names |= {"course_utils": course_utils, "model": model, "tokenizer": tokenizer, "cache": EngineCache(model.config),
              "token_ids": PROMPT, "max_new_tokens": 3, "text": "Hello", "folder": "qwen3", "i": 0}
    for _, ours in rows(README):
        for code in re.findall("`([^`]+)`", ours.replace(r"\|", "|")):
            if not code.endswith(".json"):
                eval(code, names)


def test_chapter_5_says_of_the_book_what_the_readme_says() -> None:
    cells = json.loads((REPOSITORY / "notebooks" / "05_generation_loop.ipynb").read_text(encoding="utf-8"))["cells"]
    told = [row for cell in cells for row in rows("".join(cell["source"]))]
    assert len(told) >= 5 and set(told) <= set(rows(README))


# The book's own package


@pytest.fixture
def book() -> Any:
    pytest.importorskip("reasoning_from_scratch")
    from types import SimpleNamespace

    from reasoning_from_scratch import ch02, qwen3

    return SimpleNamespace(**{**vars(qwen3), **vars(ch02)})


@pytest.mark.peers
def test_names_and_arguments_are_the_books(book: Any) -> None:
    assert QWEN_CONFIG_06_B == book.QWEN_CONFIG_06_B
    for name in textbook.__all__:
        theirs, ours = getattr(book, name), getattr(textbook, name)
        if callable(theirs):
            parameters = [(p.name, p.default) for p in inspect.signature(theirs).parameters.values()]
            assert [(p.name, p.default) for p in inspect.signature(ours).parameters.values()] == parameters, name
    for kind in ("KVCache", "Qwen3Tokenizer", "Qwen3Model"):
        methods = {name for name in vars(getattr(book, kind)) if not name.startswith("_")}
        assert methods <= set(dir(getattr(textbook, kind))), kind


@pytest.mark.peers
@pytest.mark.parametrize("name", ["tokenizer-base.json", "tokenizer-reasoning.json", "tokenizer.json"])
def test_the_tokenizer_is_the_books(book: Any, name: str, tmp_path: Path, qwen3_tokenizer_folder: Path) -> None:
    (tmp_path / name).write_bytes((qwen3_tokenizer_folder / "tokenizer.json").read_bytes())
    texts = ["Where does the river go?", "", " <|im_end|> ", "<think>", "<|fim_pad|>", "a<|im_start|>b <think>\n",
             "Ein Boot, e\u0301te\u0301!\n", "小船沿着小河走 🚣", "<|im_end|>\n<|im_end|>"]
    for settings in ({}, {"apply_chat_template": True}, {"apply_chat_template": True, "add_generation_prompt": True},
                     {"apply_chat_template": True, "add_generation_prompt": True, "add_thinking": True}):
        ours = Qwen3Tokenizer(tokenizer_file_path=tmp_path / name, **settings)
        theirs = book.Qwen3Tokenizer(tokenizer_file_path=tmp_path / name, **settings)
        for attribute in ("eos_token", "eos_token_id", "pad_token", "pad_token_id", *settings):
            assert getattr(ours, attribute) == getattr(theirs, attribute)
        for text in texts:
            for wrapped in (None, False, True):
                ids = theirs.encode(text, chat_wrapped=wrapped)
                assert ours.encode(text, chat_wrapped=wrapped) == ids, (settings, text, wrapped)
                assert ours.decode(ids) == theirs.decode(ids)


@pytest.mark.peers
def test_the_books_model_and_loops_and_ours_write_the_same(book: Any, tmp_path: Path) -> None:
    torch.manual_seed(3)
    theirs = book.Qwen3Model(SMALL)
    torch.save(theirs.state_dict(), tmp_path / "weights.pth")
    ours = Qwen3Model(SMALL)
    ours.load_state_dict(torch.load(tmp_path / "weights.pth"))
    assert torch.allclose(ours(PROMPT), theirs(PROMPT), atol=1e-5)
    expected = tokens_of(book.generate_text_basic_cache(theirs, PROMPT, 10))
    for way in WAYS:
        assert tokens_of(way(ours, PROMPT, 10)) == tokens_of(way(theirs, PROMPT, 10)) == expected
        assert tokens_of(getattr(book, way.__name__)(theirs, PROMPT, 10)) == expected


@pytest.mark.peers
def test_what_is_printed_is_what_the_book_prints(book: Any, capsys: pytest.CaptureFixture[str]) -> None:
    for stats in (book.generate_stats, generate_stats):
        stats(PROMPT, None, 100.0, 102.5)
    for device in (book.get_device, get_device):
        device()
    printed = capsys.readouterr().out
    stats_text, _, device_text = printed.partition("Using")
    assert stats_text[:len(stats_text) // 2] * 2 == stats_text
    assert len(set(f"Using{device_text}".splitlines())) == 1
