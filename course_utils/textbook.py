"""The names of a book on top of this package: its listings run with only their import line changed.

The book is "Build a Reasoning Model (From Scratch)" by Sebastian Raschka, and the names are those of its chapter 2, as
in version 0.2.0 of its package, https://github.com/rasbt/reasoning-from-scratch. Each takes the arguments that it takes
there and does what it does there; the work is done by the engine of this package, whose own names and arguments differ
here and there (the README has a table of both).

Where it differs from the book's package:

- A position belongs to the cache, never to the model, so `reset_kv_cache` has nothing to do.
- `download_qwen3_small` takes the weights from the model's own makers, as safetensors that are verified, and writes
  from them the file that the book loads.
- Prompt and new tokens must fit into the context, which is checked before the first token.
- Of several texts side by side, one that ends before the others is filled up with the end token.
"""

from __future__ import annotations

import shutil
import sys
import zipfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.checkpoint import load_checkpoint
from course_utils.config import LARGEST_SIZE, Qwen3Config
from course_utils.device import enable_tf32, peak_memory, reset_peak_memory
from course_utils.device import get_device as find_device
from course_utils.errors import DownloadError, InputError
from course_utils.files import check_path, describe_damage, write_atomically
from course_utils.generation import EndTokens, check_prompt, generate_tokens
from course_utils.hub import resolve
from course_utils.kv_cache import Cache, GrowingLayer, is_keys_and_values
from course_utils.kv_cache import KVCache as EngineCache
from course_utils.language import gettext, noted
from course_utils.number import NUMBER_FORMATS, finite_number, whole_number
from course_utils.qwen3 import Qwen3Model as EngineModel
from course_utils.tokenizer import Qwen3Tokenizer as EngineTokenizer

__all__ = [
    "QWEN_CONFIG_06_B",
    "KVCache",
    "Qwen3Model",
    "Qwen3Tokenizer",
    "download_qwen3_small",
    "generate_stats",
    "generate_text_basic",
    "generate_text_basic_cache",
    "generate_text_basic_stream",
    "generate_text_basic_stream_cache",
    "get_device",
]

# The book's name of each size, and the one of `config.json`, which the engine has.
_SIZES = {
    "vocab_size": "vocab_size", "context_length": "max_position_embeddings", "emb_dim": "hidden_size",
    "n_heads": "num_attention_heads", "n_layers": "num_hidden_layers", "hidden_dim": "intermediate_size",
    "head_dim": "head_dim", "n_kv_groups": "num_key_value_heads", "rope_base": "rope_theta",
}
# The parts of a weight's name that differ: the book's, and the checkpoint's.
_PARTS = {
    "tok_emb": "model.embed_tokens", "trf_blocks": "model.layers", "final_norm": "model.norm", "out_head": "lm_head",
    "att": "self_attn", "W_query": "q_proj", "W_key": "k_proj", "W_value": "v_proj", "out_proj": "o_proj",
    "ff": "mlp", "fc1": "gate_proj", "fc2": "up_proj", "fc3": "down_proj",
    "norm1": "input_layernorm", "norm2": "post_attention_layernorm", "scale": "weight",
}
_MODELS = {"base": "qwen3-0.6b-base", "reasoning": "qwen3-0.6b"}
_DEVICES = {"cuda": noted("NVIDIA CUDA GPU"), "mps": noted("Apple Silicon GPU (MPS)"), "xpu": noted("Intel GPU"),
            "cpu": "CPU"}


def book_config(config: Qwen3Config, dtype: torch.dtype) -> dict[str, Any]:
    """A configuration of this package as the book writes it (the book has no such function).

    Args:
        config: sizes of a model. Whether its output layer is tied is not said: the book's model has one of its own.
        dtype: number format of the weights.
    """
    sizes = {name: getattr(config, field) for name, field in _SIZES.items()}
    return {**sizes, "qk_norm": True, "dtype": dtype}


QWEN_CONFIG_06_B: dict[str, Any] = book_config(Qwen3Config(), torch.bfloat16)
"""The sizes of Qwen3-0.6B under the book's names: `emb_dim`, `n_heads`, `n_layers` and the others."""


def get_device(enable_tensor_cores: bool = True) -> torch.device:
    """Choose the fastest device of this machine, and print which it is.

    Args:
        enable_tensor_cores: let an NVIDIA GPU multiply float32 matrices in TF32 (`course_utils.device.enable_tf32`).

    Raises:
        InputError: if `enable_tensor_cores` is not True or False, or if the environment variable COURSE_DEVICE names a
            device that this machine does not have.
    """
    if not isinstance(enable_tensor_cores, bool):
        raise InputError(gettext("enable_tensor_cores is {enable_tensor_cores!r}: give True or False; to name a "
                                 "device, write torch.device(...) instead.").format(
            enable_tensor_cores=enable_tensor_cores))
    device = find_device()
    print(f"Using {gettext(_DEVICES[device.type])}")
    if enable_tensor_cores and device.type == "cuda":
        enable_tf32()
    return device


def download_qwen3_small(kind: str = "base", tokenizer_only: bool = False, out_dir: str | Path = ".") -> None:
    """Fetch Qwen3-0.6B from the hub, verify it, and write it as the two files that the book loads.

    They are `tokenizer-KIND.json` and `qwen3-0.6B-KIND.pth`, where KIND is base or reasoning. The second is for
    `torch.load`; it is written on this machine from the hub's safetensors, and names the weights as these do. A file
    that is there already is kept, whoever wrote it: `Qwen3Model.load_state_dict` reads the book's own as well.

    Args:
        kind: "base", or "reasoning" for the model that was trained to think and to chat.
        tokenizer_only: leave out the weights, which are more than a gigabyte.
        out_dir: folder to write to; it is made if needed.

    Raises:
        InputError: if there is no such kind, or out_dir is not the name of a folder.
        DownloadError: if the model cannot be fetched, a file cannot be written, or weights that are there already were
            cut short.
    """
    if not isinstance(kind, str) or kind not in _MODELS:
        raise InputError(gettext("kind is {kind!r}: give 'base' or 'reasoning'.").format(kind=kind))
    check_path(out_dir, "out_dir", "a folder")
    folder = Path(out_dir)
    weights, vocabulary = f"qwen3-0.6B-{kind}.pth", f"tokenizer-{kind}.json"
    wanted = [vocabulary] if tokenizer_only else [weights, vocabulary]
    missing = [name for name in wanted if not (folder / name).exists()]
    for name in wanted:
        if name not in missing:
            _require_whole(folder / name)
            print(gettext("{folder}: there already").format(folder=folder / name))
    if not missing:
        return
    source = resolve(_MODELS[kind], patterns=None if weights in missing else ["tokenizer.json"])
    writers: dict[str, Callable[[Path], object]] = {
        weights: lambda path: torch.save(dict(load_checkpoint(source).state_dict()), path),
        vocabulary: lambda path: shutil.copyfile(source / "tokenizer.json", path),
    }
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(folder, {name: writers[name] for name in missing})
    except (OSError, RuntimeError, ValueError) as error:  # a full disk for PyTorch, and a name that no folder can have
        raise DownloadError(gettext("{missing} could not be written to {folder!r} ({error}): free disk space, or "
                                    "choose another out_dir.").format(
            missing=" and ".join(missing), folder=str(folder), error=error)) from error
    for name in missing:
        print(gettext("{folder}: fetched and verified").format(folder=folder / name))


def _require_whole(path: Path) -> None:
    """Raise if a file for `torch.load`, which is a zip archive, lacks its end."""
    if path.suffix == ".pth" and not zipfile.is_zipfile(path):
        raise DownloadError(gettext("{path!r} {describe_damage}, as after a download that was interrupted: delete it "
                                    "and run this again.").format(
            path=str(path), describe_damage=describe_damage(path)))


class Qwen3Tokenizer(EngineTokenizer):
    """The tokenizer, made from a single file whose name says which model it belongs to.

    Args:
        tokenizer_file_path: a `tokenizer.json` under any name in `.json`. Settings that may lie beside it do not count.
        apply_chat_template: whether `encode` takes its text as a user's message and writes it as a turn of a chat.
        add_generation_prompt: let that turn be followed by the beginning of the model's answer.
        add_thinking: let the model think in its answer; otherwise it begins with an empty block of thoughts.

    Attributes:
        eos_token, eos_token_id: `<|endoftext|>` if the file is named for a base model, else `<|im_end|>`; the id is
            None if the vocabulary has no such token.
        pad_token, pad_token_id: `<|endoftext|>`.

    Raises:
        InputError: if tokenizer_file_path is not the name of a file.
        TokenizerError: if the file is missing, damaged, or of another kind of tokenizer.
    """

    pad_token = "<|endoftext|>"

    def __init__(self, tokenizer_file_path: str | Path = "tokenizer-base.json", apply_chat_template: bool = False,
                 add_generation_prompt: bool = False, add_thinking: bool = False) -> None:
        check_path(tokenizer_file_path, "tokenizer_file_path", gettext("a tokenizer file"))
        self._name = Path(tokenizer_file_path).name.lower()
        self.apply_chat_template = apply_chat_template
        self.add_generation_prompt = add_generation_prompt
        self.add_thinking = add_thinking
        super().__init__(tokenizer_file_path)
        self.pad_token_id = self.special_tokens.get(self.pad_token)

    def encode(self, prompt: str, chat_wrapped: bool | None = None, *,  # type: ignore[override]  # its second argument
               special_tokens: bool = True) -> list[int]:
        """Text to token ids. A text that is nothing but a special token gives its id alone, never as a turn.

        Args:
            prompt: any text.
            chat_wrapped: whether it is written as a user's turn; None is `apply_chat_template`.
            special_tokens: as of the engine, which the book does not have; with False the text is spelled out as it is.

        Raises:
            InputError: `prompt` is not a string, or has half a surrogate pair in it.
        """
        if not isinstance(prompt, str) or not special_tokens:
            return super().encode(prompt, special_tokens)  # which refuses what is no string
        token_id = self.special_tokens.get(prompt.strip())
        if token_id is not None and token_id in self._skippable:
            return [token_id]
        wrapped = self.apply_chat_template if chat_wrapped is None else chat_wrapped
        return super().encode(self._as_turn(prompt) if wrapped else prompt)

    def _as_turn(self, prompt: str) -> str:
        """What the model's own chat template makes of one message of a user."""
        turn = f"<|im_start|>user\n{prompt}<|im_end|>\n"
        if not self.add_generation_prompt:
            return turn
        return turn + "<|im_start|>assistant\n" + ("" if self.add_thinking else "<think>\n\n</think>\n\n")

    def _find_end_tokens(self) -> tuple[int | None, frozenset[int]]:
        of_base_model = "base" in self._name and "reasoning" not in self._name
        eos_token_id = self.special_tokens.get("<|endoftext|>" if of_base_model else "<|im_end|>")
        return eos_token_id, frozenset(() if eos_token_id is None else (eos_token_id,))


class KVCache(EngineCache):
    """A cache that grows, for a model of `n_layers` layers. It knows by itself how many tokens it holds.

    Args:
        n_layers: number of layers of the model.

    Raises:
        InputError: if `n_layers` is not a whole number from 1 on.
    """

    def __init__(self, n_layers: int) -> None:
        number = whole_number(n_layers)
        if number is None or number < 1:
            raise InputError(gettext("n_layers is {n_layers!r}: give the model's number of layers, "
                                     "model.cfg[\"n_layers\"].").format(n_layers=n_layers))
        super().__init__(Qwen3Config(num_hidden_layers=number))
        self.max_length = sys.maxsize  # how long the context is, the model knows

    def get(self, layer_idx: int) -> tuple[Tensor, Tensor] | None:
        """Keys and values of a layer, each (batch, key-value heads, tokens, head_dim); None if there are none.

        Raises:
            InputError: if there is no such layer. As in a list, -1 is the last one.
        """
        return self._layer(layer_idx).held

    def update(self, layer_idx: int, value: tuple[Tensor, Tensor] | None) -> None:
        """Put keys and values in place of those that a layer has. Tokens count when every layer has them.

        Raises:
            InputError: if there is no such layer, or these are no keys and values, as `get` gives them.
        """
        if value is not None and not (is_keys_and_values(value) and all(tensor.dim() == 4 for tensor in value)):
            raise InputError(gettext("value is a {kind}: give keys and values, each (batch, key-value heads, tokens, "
                                     "head_dim), or None.").format(kind=_kind(value)))
        self._layer(layer_idx).held = value
        self.length = min(0 if held is None else held[0].shape[2] for held in self.get_all())

    def get_all(self) -> list[tuple[Tensor, Tensor] | None]:
        """What `get` gives for each layer."""
        return [layer.held for layer in self.layers]

    def reset(self) -> None:
        """Forget everything."""
        self.truncate(0)

    def _layer(self, layer_idx: int) -> GrowingLayer:
        number, count = whole_number(layer_idx), len(self.layers)
        if number is None or not -count <= number < count:
            raise InputError(gettext("layer_idx is {layer_idx!r}: give a whole number from 0 to {count}.").format(
                layer_idx=layer_idx, count=count - 1))
        return self.layers[number]


class Qwen3Model(EngineModel):
    """The model, made from the book's dictionary of sizes. Its weights are random until `load_state_dict`.

    Args:
        cfg: sizes under the book's names, all those that QWEN_CONFIG_06_B has.

    Attributes:
        cfg: that dictionary; `config` has the same under the engine's names.

    Raises:
        InputError: if `cfg` is no dictionary, lacks a size, or describes what no dense Qwen3 is.
        CheckpointError: if a size cannot be.
    """

    def __init__(self, cfg: Mapping[str, Any]) -> None:
        config = _read_config(cfg)
        default = torch.get_default_dtype()
        torch.set_default_dtype(cfg["dtype"])  # else all weights would first be there in float32
        try:
            super().__init__(config)
        finally:
            torch.set_default_dtype(default)
        self.cfg = cfg

    def reset_kv_cache(self) -> None:
        """Do nothing. The book's model has a position, which this sets to 0; here a cache has its own, at first 0."""

    def load_state_dict(self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False) -> Any:
        """Take over weights: as of any PyTorch module, under the checkpoint's names or the book's.

        Raises:
            InputError: if state_dict is no dictionary.
            RuntimeError: from PyTorch, if the weights are not those of this model.
        """
        if not isinstance(state_dict, Mapping):
            raise InputError(gettext("load_state_dict got a {kind}: give it what torch.load makes of the file.").format(
                kind=_kind(state_dict)))
        weights = {".".join(_PARTS.get(part, part) for part in str(name).split(".")): tensor
                   for name, tensor in state_dict.items()}
        return super().load_state_dict(weights, strict=strict, assign=assign)


def _read_config(cfg: Mapping[str, Any]) -> Qwen3Config:
    if not isinstance(cfg, Mapping):
        raise InputError(gettext("cfg is a {kind}: give a dictionary of sizes, such as "
                                 "QWEN_CONFIG_06_B.").format(kind=_kind(cfg)))
    missing, unknown = set(QWEN_CONFIG_06_B) - set(cfg), set(cfg) - set(QWEN_CONFIG_06_B)
    if missing or unknown:
        what = gettext("lacks {names}").format(names=_listed(missing)) if missing else gettext(
            "has {listed}, which a dense Qwen3 does not have").format(listed=_listed(unknown))
        raise InputError(gettext("cfg {what}: give all that QWEN_CONFIG_06_B has, and nothing else.").format(what=what))
    if cfg["qk_norm"] is not True:
        raise InputError(gettext("cfg sets qk_norm to {cfg!r}, and every Qwen3 normalizes queries "
                                 "and keys: set it to True.").format(cfg=cfg["qk_norm"]))
    if not isinstance(cfg["dtype"], torch.dtype) or cfg["dtype"] not in NUMBER_FORMATS:
        raise InputError(gettext("dtype in cfg is {cfg!r}: give a number format such as "
                                 "torch.bfloat16.").format(cfg=cfg["dtype"]))
    narrow = cfg["head_dim"] is None  # the heads share the model's size among them
    sizes = {field: cfg[name] for name, field in _SIZES.items() if not (narrow and name == "head_dim")}
    config = Qwen3Config(**sizes, tie_word_embeddings=False)
    return replace(config, head_dim=config.hidden_size // config.num_attention_heads) if narrow else config


def generate_text_basic(model: Any, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None) -> Tensor:
    """Generate greedily without a cache: every step computes the whole text again.

    Args:
        model: the model, compiled or not.
        token_ids: (b, t), the prompts.
        max_new_tokens: how many tokens at most.
        eos_token_id: the token before which a text ends.

    Returns:
        The new tokens alone, (b, at most max_new_tokens).

    Raises:
        InputError: if an argument is of the wrong kind.
        ContextLengthError: if prompt and new tokens do not fit into the context.
    """
    tokens = _generate(model, token_ids, max_new_tokens, eos_token_id, cached=False)
    return torch.cat([token_ids[:, :0], *tokens], dim=1)


def generate_text_basic_cache(model: Any, token_ids: Tensor, max_new_tokens: int,
                              eos_token_id: EndTokens = None) -> Tensor:
    """The same tokens as `generate_text_basic`, with the same arguments, in less time: with a key-value cache."""
    tokens = _generate(model, token_ids, max_new_tokens, eos_token_id, cached=True)
    return torch.cat([token_ids[:, :0], *tokens], dim=1)


def generate_text_basic_stream(model: Any, token_ids: Tensor, max_new_tokens: int,
                               eos_token_id: EndTokens = None) -> Iterator[Tensor]:
    """Yield each token of `generate_text_basic`, (b, 1), as soon as it is there."""
    return _generate(model, token_ids, max_new_tokens, eos_token_id, cached=False)


def generate_text_basic_stream_cache(model: Any, token_ids: Tensor, max_new_tokens: int,
                                     eos_token_id: EndTokens = None) -> Iterator[Tensor]:
    """Yield each token of `generate_text_basic_cache`, (b, 1), as soon as it is there."""
    return _generate(model, token_ids, max_new_tokens, eos_token_id, cached=True)


def generate_stats(output_token_ids: Tensor, tokenizer: object, start_time: float, end_time: float) -> None:
    """Print how long a generation took, its speed, and the most memory that it needed on a GPU.

    Args:
        output_token_ids: the new tokens, of any shape.
        tokenizer: not needed, as in the book.
        start_time, end_time: what a clock showed before and after, in seconds.

    Raises:
        InputError: if the token ids are no tensor, the times are no numbers, or no time has passed.
    """
    if not isinstance(output_token_ids, Tensor):
        raise InputError(gettext("output_token_ids is a {kind}: give the tensor of new token ids.").format(
            kind=_kind(output_token_ids)))
    start, end = finite_number(start_time), finite_number(end_time)
    if start is None or end is None or end <= start:
        raise InputError(gettext("start_time is {start_time!r} and end_time {end_time!r}: give what time.time() said "
                                 "before and after generating, and generate so much that it goes on.").format(
            start_time=start_time, end_time=end_time))
    seconds = end - start
    print(f"\n\nTime: {seconds:.2f} sec")
    print(f"{int(output_token_ids.numel() / seconds)} tokens/sec")
    device = output_token_ids.device
    if device.type in ("cuda", "xpu"):
        print(gettext("Max {upper} memory allocated: {peak_memory:.2f} GB").format(
            upper=device.type.upper(), peak_memory=peak_memory(device) / 1024**3))
        reset_peak_memory(device)


class _AsEngine(nn.Module):
    """A model that one calls as the book does, `model(token_ids, cache=cache)`, for the engine's loop.

    Such are a compiled model, which is called as in the reader's own loops and need not be compiled again, and models
    that a reader has written.
    """

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        cfg = getattr(model, "cfg", None)
        sizes = cfg if isinstance(cfg, Mapping) else {}
        # The loop asks for no other sizes, and what a model does not say of itself is no limit.
        self.config = Qwen3Config(num_hidden_layers=sizes.get("n_layers", 1),
                                  vocab_size=sizes.get("vocab_size", LARGEST_SIZE),
                                  max_position_embeddings=sizes.get("context_length", LARGEST_SIZE))

    def forward(self, token_ids: Tensor, cache: Cache | None = None, **_: object) -> Tensor:
        logits = self.model(token_ids) if cache is None else self.model(token_ids, cache=cache)
        if not isinstance(logits, Tensor) or logits.dim() != 3:
            what = gettext("shape {shape}").format(shape=tuple(logits.shape)) if isinstance(
                logits, Tensor) else gettext("a {kind}").format(kind=_kind(logits))
            raise InputError(gettext("The model returned {what}: let it return logits, (batch, tokens, "
                                     "vocabulary).").format(what=what))
        return logits


def _generate(model: Any, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens,
              cached: bool) -> Iterator[Tensor]:
    if not isinstance(model, EngineModel) and not _is_like_the_books(model, cached):
        raise InputError(gettext("model is a {kind}: give the Qwen3Model of "
                                 "course_utils.textbook.").format(kind=_kind(model)))
    model.eval()
    engine: Any = model if isinstance(model, EngineModel) else _AsEngine(model)
    cache = None
    if cached and engine is model:
        cache = EngineCache(model.config)
    elif cached:
        model.reset_kv_cache()
        cache = KVCache(n_layers=model.cfg["n_layers"])
        check_prompt(engine, token_ids, max_new_tokens)  # this cache does not know how long the context is
    return generate_tokens(engine, token_ids, max_new_tokens, eos_token_id, cache=cache)


def _is_like_the_books(model: Any, cached: bool) -> bool:
    """Whether something has what the book's loops use of a model."""
    if isinstance(model, type) or not all(hasattr(model, name) for name in ("__call__", "eval")):
        return False
    sizes = getattr(model, "cfg", None)
    return not cached or hasattr(model, "reset_kv_cache") and isinstance(sizes, Mapping) and "n_layers" in sizes


def _kind(value: object) -> str:
    """What a value is, with where it comes from if it is a class of somebody else's."""
    kind = type(value)
    return kind.__name__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__name__}"


def _listed(names: set[str]) -> str:
    return ", ".join(sorted(map(str, names)))
