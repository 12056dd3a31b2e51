"""Tensor parallelism: each process holds a part of every weight matrix, and all compute every token together.

The matrices come in pairs. The first is divided by its outputs, so that each process computes some heads, or some of
the MLP's inner values, and nobody else needs these. The second is divided by its inputs, which are just those, and
gives each process a summand of the result. So a layer needs two exchanges, the sums after attention and after the MLP,
and the key-value cache of a process holds the heads of this process and no others.

Embedding and output layer are one tied matrix in most Qwen3 models, a quarter of all weights in the smallest, and a
decoded token reads the whole of it. It is therefore divided too, by the vocabulary: looking a token up is a sum to
which the process that holds its row contributes, and the logits are put side by side.

Left out on purpose: loading only one's own part (each process maps the whole checkpoint first), training, and norms
that are divided by position (sequence parallelism).

Source: Megatron-LM, https://arxiv.org/abs/1909.08053.
"""

from __future__ import annotations

from dataclasses import replace

from torch import nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.tensor import DTensor, Replicate
from torch.distributed.tensor.parallel import ColwiseParallel, ParallelStyle, RowwiseParallel, parallelize_module

from course_utils.config import Qwen3Config
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.qwen3 import Qwen3Model, weight_shapes

BY_OUTPUTS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
BY_INPUTS = ("self_attn.o_proj", "mlp.down_proj")
_DIVIDED = ("num_key_value_heads", "intermediate_size", "vocab_size")


def parallelize(model: Qwen3Model, mesh: DeviceMesh) -> Qwen3Model:
    """Divide a model among the processes of a mesh; every one of them must call this, with the same model.

    From then on all processes make the same calls with the same token ids, and each gets the whole logits. Generation
    and `KVCache` need nothing else; for a `StaticKVCache` see `local_config`.

    Args:
        model: on the mesh's device. It is changed in place; the weights are those of the first process.
        mesh: of one dimension, such as `init_device_mesh("cpu", (2,))`.

    Returns:
        The same model.

    Raises:
        InputError: if its heads or sizes cannot be divided evenly, or if it is quantized, has an adapter, or is divided
            already; nothing is changed then.
    """
    if mesh.ndim != 1:
        raise InputError(gettext("The mesh has {ndim} dimensions: give one of a single dimension, such as "
                                 "init_device_mesh(\"cpu\", (2,)).").format(ndim=mesh.ndim))
    local_config(model.config, mesh.size())
    plan: dict[str, ParallelStyle] = {
        "model.embed_tokens": RowwiseParallel(input_layouts=Replicate()),
        "lm_head": ColwiseParallel(output_layouts=Replicate()),
    }
    paths = [name.removesuffix(".weight") for name in weight_shapes(model.config)]
    plan |= {path: ColwiseParallel() for path in paths if path.endswith(BY_OUTPUTS)}
    plan |= {path: RowwiseParallel() for path in paths if path.endswith(BY_INPUTS)}
    for name in plan:
        module = model.get_submodule(name)
        if not isinstance(module, (nn.Linear, nn.Embedding)) or isinstance(module.weight, DTensor):
            raise InputError(gettext("{name} is a {kind} and cannot be divided: give a model that is not quantized, "
                                     "has no adapter (merge it first) and is not divided yet.").format(
                name=name, kind=type(module).__name__))
    parallelize_module(model, mesh, plan)
    model.tie_weights()  # each of the two was given a part of its own
    return model


def local_config(config: Qwen3Config, processes: int) -> Qwen3Config:
    """The configuration by which one of several processes makes its `StaticKVCache`: with its own heads alone.

    Raises:
        InputError: if heads, MLP or vocabulary cannot be divided evenly among so many processes.
    """
    processes = require_whole_number(gettext("The number of processes"), processes, 1)
    uneven = [f"{name} = {getattr(config, name)}" for name in _DIVIDED if getattr(config, name) % processes]
    if uneven:
        raise InputError(gettext("The model cannot be divided evenly among {processes} processes: {uneven}. Use as "
                                 "many as divide these numbers.").format(processes=processes, uneven=", ".join(uneven)))
    return replace(config, num_attention_heads=config.num_attention_heads // processes,
                   num_key_value_heads=config.num_key_value_heads // processes,
                   intermediate_size=config.intermediate_size // processes)


def held_parameters(model: nn.Module) -> int:
    """How many of a model's parameters this process holds; a tied matrix counts once."""
    return sum((p.to_local() if isinstance(p, DTensor) else p).numel() for p in model.parameters())
