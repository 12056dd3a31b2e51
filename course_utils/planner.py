"""What a model needs before it is bought or rented: memory, how many GPUs, and the speed that none can exceed.

Three things fill the memory: weights, the caches of all users, and a workspace for what one operation hands to the
next. The least time of a step follows from what it must read and compute, see `course_utils.costs`. The
speeds are limits: a real engine stays below them, most of all because the GPUs also have to talk to each other, which
is left out here.

Source: how memory and arithmetic bound inference, https://arxiv.org/abs/2211.05102.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from course_utils.config import Qwen3Config
from course_utils.costs import cache_elements, least_seconds, pass_bytes, pass_flops, shapes_read
from course_utils.errors import ContextLengthError, InputError
from course_utils.language import gettext
from course_utils.number import finite_number, require_whole_number
from course_utils.qwen3 import weight_shapes

Precision = Literal["bfloat16", "int8", "int4"]
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "int8", "int4")

PIECE = 2048
"""Tokens of a long prompt that are computed at once; serving engines read it in such pieces."""

USABLE = 0.9
"""Share of a GPU's memory that is planned with; the rest is for the driver, for compiled code, and lost in gaps."""

_BFLOAT16, _FLOAT32 = 2, 4  # bytes
_GROUP, _BLOCK = 32, 64  # int4: inputs that share a scale, rows that are packed together


@dataclass(frozen=True)
class Gpu:
    """A graphics card, as its data sheet describes it.

    Attributes:
        name: what it is called.
        memory: in bytes.
        bandwidth: of that memory, in bytes per second.
        arithmetic: dense bfloat16 operations per second.
    """

    name: str
    memory: float
    bandwidth: float
    arithmetic: float

    def __post_init__(self) -> None:
        for name in ("memory", "bandwidth", "arithmetic"):
            value = finite_number(getattr(self, name))
            if value is None or value <= 0:
                raise InputError(gettext("{name} of the GPU {gpu!r} is {value!r}: give a positive number.").format(
                    name=name, gpu=self.name, value=getattr(self, name)))
            object.__setattr__(self, name, value)  # as frozen dataclasses do it themselves


L4 = Gpu("L4", 24e9, 300e9, 121e12)
A100 = Gpu("A100", 80e9, 2.04e12, 312e12)
H100 = Gpu("H100", 80e9, 3.35e12, 989e12)
H200 = Gpu("H200", 141e9, 4.8e12, 989e12)
GPUS: tuple[Gpu, ...] = (L4, A100, H100, H200)
"""Common ones, by their makers' data sheets (the SXM versions, without the doubled rates for sparse matrices)."""


def matrix_bytes(rows: int, columns: int, precision: Precision) -> int:
    """Bytes of one weight matrix.

    "int8" adds a scale for each row, "int4" a scale and an offset for each group of a row; both are in bfloat16. A
    matrix that is not made for int4 is in int8.
    """
    if precision == "bfloat16":
        return _BFLOAT16 * rows * columns
    if precision == "int8" or columns % _GROUP or rows % _BLOCK:
        return rows * columns + _BFLOAT16 * rows
    return rows * columns // 2 + 2 * _BFLOAT16 * rows * (columns // _GROUP)


def weight_bytes(config: Qwen3Config, precision: Precision = "bfloat16") -> int:
    """Bytes of all weights, an output layer that is tied to the embedding counted once.

    Raises:
        InputError: if there is no such precision.
    """
    return _stored_bytes(weight_shapes(config).values(), precision)


def _stored_bytes(shapes: Iterable[tuple[int, ...]], precision: Precision) -> int:
    """Bytes of weights of these shapes: matrices as `matrix_bytes` says, norms in bfloat16."""
    if precision not in PRECISIONS:
        raise InputError(gettext("There is no precision {precision!r}: choose one of {precisions}.").format(
            precision=precision, precisions=", ".join(PRECISIONS)))
    return sum(matrix_bytes(*shape, precision) if len(shape) == 2 else _BFLOAT16 * shape[0] for shape in shapes)


def cache_bytes(config: Qwen3Config, context: int, users: int = 1) -> int:
    """Bytes of the keys and values of `users` texts of `context` tokens each, in bfloat16."""
    return _BFLOAT16 * users * context * cache_elements(config)


@dataclass(frozen=True)
class Work:
    """What a pass asks of a machine.

    Attributes:
        flops: arithmetic operations.
        num_bytes: bytes moved between memory and processor.
    """

    flops: int
    num_bytes: int

    @property
    def intensity(self) -> float:
        """Operations for each byte; at the ridge of a machine both take the same time."""
        return self.flops / self.num_bytes


def pass_work(config: Qwen3Config, precision: Precision, new: int, past: int = 0, batch: int = 1) -> Work:
    """What a pass asks of a machine when weights are in this precision and caches in bfloat16.

    Other arguments as for `course_utils.costs.pass_flops`.

    Raises:
        InputError: if there is no such precision.
    """
    moved = pass_bytes(config, new, past, batch, _BFLOAT16)
    return Work(pass_flops(config, new, past, batch),
                _stored_bytes(shapes_read(config), precision) + moved.cache_read + moved.cache_written)


def workspace_bytes(config: Qwen3Config, context: int, users: int = 1) -> int:
    """Bytes of what is only there while it is needed: the widest place of a layer, and the logits of all users.

    The widest place is the MLP: the residual stream and its normalized copy are `hidden_size` wide, its gate, the
    other factor and their product `intermediate_size`. All that for each token of a piece of a prompt, or for the
    newest token of each user, whichever are more. Logits are turned to float32 before a token is chosen.
    """
    tokens = max(min(context, PIECE), users)
    layer = _BFLOAT16 * tokens * (2 * config.hidden_size + 3 * config.intermediate_size)
    return layer + (_BFLOAT16 + _FLOAT32) * users * config.vocab_size


@dataclass(frozen=True)
class Plan:
    """What a model needs on a kind of GPU, for so many users at the same time. Memory is in bytes.

    Attributes:
        precision: of the weights; the caches are in bfloat16.
        context: tokens of each user's text, prompt and answer together.
        users: who are answered at the same time.
        gpu: the kind of GPU.
        weights, caches, workspace: what fills the memory; the workspace is needed on each GPU, the rest is shared out.
        gpus: the fewest that hold it all and share the key-value heads evenly; None if there is no such number.
        tokens_per_second: the most that each user can be given when all texts are full; None if `gpus` is.
        prefill_seconds: the least time to read a prompt that fills the context; None if `gpus` is.
    """

    precision: Precision
    context: int
    users: int
    gpu: Gpu
    weights: int
    caches: int
    workspace: int
    gpus: int | None
    tokens_per_second: float | None
    prefill_seconds: float | None

    @property
    def memory(self) -> int:
        """All of it, in bytes, on a single GPU."""
        return self.weights + self.caches + self.workspace

    @property
    def throughput(self) -> float | None:
        """Tokens per second of all users together, at most; None if `gpus` is."""
        return None if self.tokens_per_second is None else self.users * self.tokens_per_second


def plan(config: Qwen3Config, gpu: Gpu, precision: Precision = "bfloat16", context: int = 4096,
         users: int = 1) -> Plan:
    """Work out what a model needs.

    Tensor parallelism gives each GPU the same number of key-value heads, so their count must be a divisor of that of
    these heads. What needs more GPUs than that has to be cut in another way too.

    Args:
        config: sizes of the model, such as `FAMILY["Qwen/Qwen3-8B"]`.
        gpu: the kind of GPU, one of `GPUS` or any other.
        precision: of the weights.
        context: tokens of each user's text, prompt and answer together.
        users: how many are answered at the same time.

    Raises:
        InputError: if there is no such precision, or `users` or `context` is no whole number from 1 on.
        ContextLengthError: if the context is longer than the model's.
    """
    users, context = require_whole_number("users", users, 1), require_whole_number("context", context, 1)
    if context > config.max_position_embeddings:
        raise ContextLengthError(gettext("A context of {context} tokens is longer than the model's: choose at most "
                                         "{max_position_embeddings}.").format(
            context=context, max_position_embeddings=config.max_position_embeddings))
    weights, caches = weight_bytes(config, precision), cache_bytes(config, context, users)
    workspace = workspace_bytes(config, context, users)
    heads = config.num_key_value_heads
    counts = [count for count in range(1, heads + 1) if heads % count == 0
              and (weights + caches) / count + workspace <= USABLE * gpu.memory]
    if not counts:
        return Plan(precision, context, users, gpu, weights, caches, workspace, None, None, None)
    arithmetic, bandwidth = counts[0] * gpu.arithmetic, counts[0] * gpu.bandwidth

    def seconds(new: int, past: int, batch: int) -> float:
        work = pass_work(config, precision, new, past, batch)
        return least_seconds(work.flops, work.num_bytes, arithmetic, bandwidth)

    return Plan(precision, context, users, gpu, weights, caches, workspace, counts[0],
                1 / seconds(1, context - 1, users), seconds(context, 0, 1))


def plan_table(plans: Sequence[tuple[str, Plan]]) -> str:
    """Plans as a table in plain text, a line each.

    Args:
        plans: name and plan of each line.
    """
    head = [gettext("weights   caches  GPUs  tokens/s   tokens/s  prompt"),
            gettext("     GB       GB        per user   together      ms")]
    return "\n".join([*(f"{'':14}{line}" for line in head), *(_line(name, each) for name, each in plans)])


def _line(name: str, each: Plan) -> str:
    sizes = f"{name:12} {each.weights / 1e9:8.1f} {each.caches / 1e9:8.1f}"
    if each.tokens_per_second is None or each.throughput is None or each.prefill_seconds is None:
        return f"{sizes}     -         -          -       -"
    return (f"{sizes} {each.gpus:5} {each.tokens_per_second:9.0f} {each.throughput:10.0f} "
            f"{1e3 * each.prefill_seconds:7.0f}")
