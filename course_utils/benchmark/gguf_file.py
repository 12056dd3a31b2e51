"""Our weights as a GGUF file, the format of llama.cpp, so that it computes with the same numbers.

Left out: the tokenizer. In its place stand as many made-up tokens as the model has, since only ids are exchanged.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch

from course_utils.errors import CheckpointError
from course_utils.language import gettext
from course_utils.qwen3 import Qwen3Model

_OF_MODEL = {"model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output"}
_OF_LAYER = {
    "input_layernorm": "attn_norm", "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v", "self_attn.o_proj": "attn_output", "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm", "post_attention_layernorm": "ffn_norm", "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up", "mlp.down_proj": "ffn_down",
}


def write_gguf(model: Qwen3Model, path: Path) -> None:
    """Write a model that is not quantized.

    Args:
        model: whose weights to take.
        path: its stem, such as "q8_0", says which of llama.cpp's types the matrices get; norms are in float32.

    Raises:
        CheckpointError: if the file cannot be written.
    """
    import gguf

    name = path.stem.upper()
    matrix_type, config = gguf.GGMLQuantizationType[name], model.config
    writer = gguf.GGUFWriter(None, "qwen3")
    writer.add_file_type(gguf.LlamaFileType[f"MOSTLY_{name}"])
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_key_length(config.head_dim)
    writer.add_value_length(config.head_dim)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(config.rope_theta)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list([f"<{index}>" for index in range(config.vocab_size)])
    writer.add_token_types([gguf.TokenType.NORMAL] * config.vocab_size)
    writer.add_token_merges(["< 0"])  # llama.cpp refuses an empty list

    def kind(tensor: torch.Tensor) -> Any:
        return matrix_type if tensor.dim() == 2 else gguf.GGMLQuantizationType.F32

    # Sizes first and contents later, so that no more than one matrix is converted at a time.
    for tensor_name, tensor in _tensors(model):
        per_block, block_bytes = gguf.GGML_QUANT_SIZES[kind(tensor)]
        num_bytes = tensor.numel() // per_block * block_bytes
        writer.add_tensor_info(tensor_name, tensor.shape, np.dtype(np.float32), num_bytes, kind(tensor))
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        for _, tensor in _tensors(model):
            writer.write_tensor_data(gguf.quants.quantize(tensor.detach().float().numpy(), kind(tensor)))
    except OSError as error:
        raise CheckpointError(gettext("{path!r} cannot be written ({error}): free disk space, or leave "
                                      "out the rows of llama.cpp.").format(path=str(path), error=error)) from error
    finally:
        writer.close()


def _tensors(model: Qwen3Model) -> Iterator[tuple[str, torch.Tensor]]:
    """The weights under llama.cpp's names, a tied matrix once."""
    for name, tensor in model.named_parameters():
        part = name.removesuffix(".weight")
        if part in _OF_MODEL:
            yield f"{_OF_MODEL[part]}.weight", tensor
        else:
            _, _, layer, inside = part.split(".", 3)
            yield f"blk.{layer}.{_OF_LAYER[inside]}.weight", tensor
