"""Other people's programs behind the same method, so that they can be measured in the same run.

They are measured and never used: each library is imported by the engine that needs it, in that engine's own process.
All compute with the same weights, and each in the way that its own documentation shows.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from course_utils.benchmark.engines import Row
from course_utils.benchmark.weights import Workspace
from course_utils.checkpoint import load_checkpoint, load_config
from course_utils.costs import cache_elements
from course_utils.errors import InputError
from course_utils.textbook import book_config


class Transformers:
    """Hugging Face `transformers`: its model called in a greedy loop, with its growing or its fixed cache.

    https://huggingface.co/docs/transformers/kv_cache.
    """

    note = ""

    def __init__(self, workspace: Workspace, static: bool = False) -> None:
        from transformers import AutoModelForCausalLM, DynamicCache, StaticCache
        from transformers.utils import logging

        logging.disable_progress_bar()  # there is one already
        self._device = workspace.device
        model: Any = AutoModelForCausalLM.from_pretrained(workspace.checkpoint, dtype=workspace.dtype,
                                                          attn_implementation="sdpa")
        model = model.to(self._device).eval()
        self.weight_bytes = _step_bytes(model, model.get_input_embeddings(), model.get_output_embeddings())
        self._model: Callable[..., Any] = torch.compile(model) if static else model
        self._make_cache: Callable[[], Any] = partial(DynamicCache, config=model.config)
        if static:
            self._make_cache = partial(StaticCache, config=model.config, max_cache_len=workspace.max_length)
        self.cache_bytes = cache_elements(load_config(workspace.checkpoint)) * workspace.dtype.itemsize

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        cache = self._make_cache()
        inputs = torch.tensor([prompt_ids], device=self._device)
        for _ in range(new_tokens):
            with torch.inference_mode():
                logits = self._model(inputs, past_key_values=cache, use_cache=True, logits_to_keep=1).logits
                inputs = logits[:, -1].argmax(dim=-1, keepdim=True)
            yield int(inputs)


class Textbook:
    """The package of the book "Build a Reasoning Model (From Scratch)": its model, its cache, its loop.

    https://github.com/rasbt/reasoning-from-scratch.
    """

    note = ""

    def __init__(self, workspace: Workspace, compiled: bool = False) -> None:
        from reasoning_from_scratch.ch02 import generate_text_basic_stream_cache
        from reasoning_from_scratch.qwen3 import Qwen3Model, load_hf_weights_into_qwen

        self._device, dtype = workspace.device, workspace.dtype
        ours = load_checkpoint(workspace.checkpoint, dtype=dtype)
        config, weights = ours.config, dict(ours.state_dict())
        if config.tie_word_embeddings:
            del weights["lm_head.weight"]  # it ties what is missing
        sizes = book_config(config, dtype)
        model = Qwen3Model(sizes)
        load_hf_weights_into_qwen(model, sizes, weights)
        model = model.to(self._device).eval()
        self.weight_bytes = _step_bytes(model, model.tok_emb, model.out_head)
        self.cache_bytes = cache_elements(config) * dtype.itemsize
        self._model = torch.compile(model) if compiled else model
        self._stream: Callable[..., Iterator[Tensor]] = generate_text_basic_stream_cache

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        for token in self._stream(self._model, torch.tensor([prompt_ids], device=self._device), new_tokens):
            yield int(token)


class LlamaCpp:
    """llama.cpp through its Python binding.

    https://llama-cpp-python.readthedocs.io.
    """

    note = ""

    def __init__(self, workspace: Workspace, weights: str) -> None:
        import llama_cpp

        on_gpu = workspace.device.type != "cpu"
        if on_gpu and not llama_cpp.llama_supports_gpu_offload():
            raise InputError("this llama_cpp was built for CPUs alone: install a build for this GPU, or measure with "
                             "--device cpu.")
        # llama.cpp itself chooses flash attention where it can; the binding leaves it out unless told.
        self._llama = llama_cpp.Llama(
            str(workspace.path(weights)), n_ctx=workspace.max_length, n_threads=workspace.threads,
            n_threads_batch=workspace.threads, n_gpu_layers=-1 if on_gpu else 0, flash_attn=True, verbose=False)
        config = load_config(workspace.checkpoint)
        self._logits = partial(llama_cpp.llama_get_logits, self._llama.ctx)
        self._vocab_size = config.vocab_size
        self.weight_bytes: int = llama_cpp.llama_model_size(self._llama.model)
        if not config.tie_word_embeddings:  # as large as the output layer, and a step reads one row of it
            self.weight_bytes -= _matrix_bytes(weights, config.vocab_size * config.hidden_size)
        self.cache_bytes = cache_elements(config) * torch.float16.itemsize  # its default

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        import numpy as np

        self._llama.reset()
        inputs = prompt_ids
        for _ in range(new_tokens):
            self._llama.eval(inputs)
            token = int(np.ctypeslib.as_array(self._logits(), shape=(self._vocab_size,)).argmax())
            yield token
            inputs = [token]


def _step_bytes(model: nn.Module, embedding: nn.Embedding, output: nn.Linear) -> int:
    """Bytes of weights that a step reads: all, without an embedding table that is not the output layer too."""
    unread = 0 if embedding.weight is output.weight else embedding.weight.nbytes
    return sum(parameter.nbytes for parameter in model.parameters()) - unread


def _matrix_bytes(weights: str, elements: int) -> int:
    import gguf

    per_block, block_bytes = gguf.GGML_QUANT_SIZES[gguf.GGMLQuantizationType[weights.split(".")[0].upper()]]
    return elements // per_block * block_bytes


_ROWS = (
    Row("transformers", "transformers", Transformers, packages=("transformers",)),
    Row("textbook", "textbook KV cache", Textbook, packages=("reasoning-from-scratch",)),
    Row("textbook-compiled", "textbook KV cache compiled", partial(Textbook, compiled=True), compiled=True,
        packages=("reasoning-from-scratch",)),
    *(Row(f"llama.cpp-{kind}", f"llama.cpp {kind.upper()}", partial(LlamaCpp, weights=f"{kind}.gguf"), f"{kind}.gguf",
          packages=("llama-cpp-python", "gguf")) for kind in ("bf16", "q8_0", "q4_0")),
)
PEERS: dict[str, Row] = {row.name: row for row in _ROWS}
"""The rows that `--peers` adds."""

_STATIC = Row("transformers-compiled", "transformers static, compiled", partial(Transformers, static=True),
              compiled=True, packages=("transformers",))
ALL_PEERS: dict[str, Row] = {**PEERS, _STATIC.name: _STATIC}
"""These, and one that is measured only where it is named, because compiling it takes minutes."""
