"""The course's own ways of generating, each behind the one method that the benchmark calls.

An engine is handed token ids and yields new ones, greedily and without stopping at an end token. All that is measured
are the moments at which they arrive, so programs of any make can be compared.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

import torch

from course_utils.benchmark.weights import Workspace
from course_utils.checkpoint import load_checkpoint
from course_utils.compilation import compile_model, compile_problem
from course_utils.costs import cache_elements
from course_utils.generation import generate_tokens
from course_utils.kv_cache import Cache, KVCache, StaticKVCache
from course_utils.native import native_model, native_problem
from course_utils.qwen3 import Qwen3Model


class Engine(Protocol):
    """A way of generating.

    Attributes:
        weight_bytes: how many bytes of weights a decoding step has to read.
        cache_bytes: how many bytes of keys and values it has to read for each past token; 0 without a cache.
        note: a sentence for the reader, such as that it runs uncompiled; else empty.
    """

    weight_bytes: int
    cache_bytes: int
    note: str

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        """Start afresh with a prompt and yield each new token id when it is known to this process."""


@dataclass(frozen=True)
class Row:
    """A row of the table: an engine, and what is needed to build it.

    Attributes:
        name: as `--rows` takes it.
        title: as the table shows it.
        build: makes the engine; it is called in the row's own process.
        weights: which form of the weights it reads, see `Workspace.prepare`.
        cached: False if each step computes the whole text again.
        compiled: whether its first generation compiles something.
        packages: distributions that have to be installed for it.
        kernels: False if it is to show what PyTorch does without `course_utils.kernels`.
    """

    name: str
    title: str
    build: Callable[[Workspace], Engine]
    weights: str = "original"
    cached: bool = True
    compiled: bool = False
    packages: tuple[str, ...] = ()
    kernels: bool = True


class CourseEngine:
    """Our model and our loop."""

    def __init__(self, workspace: Workspace, weights: str = "original",
                 cache: Literal["none", "growing", "static"] = "none", compiled: bool = False,
                 native: bool = False) -> None:
        dtype = workspace.dtype if weights == "original" else None  # quantized ones were made from that
        model = load_checkpoint(workspace.path(weights), workspace.device, dtype)
        self.weight_bytes = weight_bytes_read(model)
        self.cache_bytes = cache_elements(model.config) * model.dtype.itemsize if cache != "none" else 0
        self.note = (compile_problem(workspace.device) if compiled else native_problem(model) if native else None) or ""
        self._model = compile_model(model) if compiled else native_model(model) if native else model
        self._kind = cache
        self._static: StaticKVCache | None = None

    def generate(self, prompt_ids: list[int], new_tokens: int) -> Iterator[int]:
        token_ids = torch.tensor([prompt_ids], device=self._model.device)
        cache = self._cache(len(prompt_ids) + new_tokens)
        for token in generate_tokens(self._model, token_ids, new_tokens, cache=cache):
            yield int(token)  # waits for the device

    def _cache(self, length: int) -> Cache | None:
        config = self._model.config
        if self._kind == "none":
            return None
        if self._kind == "growing":
            return KVCache(config)
        if self._static is None or self._static.max_length < length:
            self._static = None  # the old one goes before the new one comes
            self._static = StaticKVCache(config, length, device=self._model.device, dtype=self._model.dtype)
        self._static.truncate(0)
        return self._static


def weight_bytes_read(model: Qwen3Model) -> int:
    """Bytes of weights that a decoding step reads: all but the embedding table, of which it reads a single row.

    A tied output layer is the same table, and counts as the output layer.
    """
    tensors = [*model.named_parameters(remove_duplicate=False), *model.named_buffers(remove_duplicate=False)]
    return sum(tensor.nbytes for name, tensor in tensors if not name.startswith("model.embed_tokens."))


_ROWS = (
    Row("regular", "regular", CourseEngine, cached=False),
    Row("compiled", "compiled", partial(CourseEngine, compiled=True), cached=False, compiled=True),
    Row("kv", "KV cache", partial(CourseEngine, cache="growing")),
    Row("kv-compiled", "KV cache compiled", partial(CourseEngine, cache="growing", compiled=True), compiled=True),
    Row("static", "static", partial(CourseEngine, cache="static", compiled=True), compiled=True),
    *(Row(f"{kind}{name}", f"{kind}{title}", partial(CourseEngine, weights=kind, cache="static", compiled=True), kind,
          compiled=True, kernels=kernels)
      for kind in ("int8", "int4")
      for name, title, kernels in (("", "", True), ("-pytorch", ", no kernels", False))),
    Row("native", "step in C", partial(CourseEngine, cache="static", native=True)),
    *(Row(f"{kind}-native", f"{kind}, step in C", partial(CourseEngine, weights=kind, cache="static", native=True),
          kind) for kind in ("int8", "int4")),
)
ROWS: dict[str, Row] = {row.name: row for row in _ROWS}
"""The course's own rows by name. static, int8 and int4 are compiled and have a `StaticKVCache`. What ends in -pytorch
is the same without `course_utils.kernels`; native and what ends in it is not compiled, its steps are C (`native`)."""
