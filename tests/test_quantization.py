"""Weights in 8 and 4 bits: rounded to the nearest, multiplied as what they stand for, saved and loaded bit by bit."""

from __future__ import annotations

import copy
import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file
from torch import Tensor, nn

from course_utils import kernels, quantization
from course_utils.batching import ContinuousBatch, pad_left
from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.compilation import compile_model, compile_problem
from course_utils.config import Qwen3Config
from course_utils.errors import CheckpointError, InputError
from course_utils.generation import generate_text_basic_cache, generate_tokens, generate_trace
from course_utils.kv_cache import KVCache
from course_utils.linear import Linear
from course_utils.loading import load_model, load_tokenizer
from course_utils.quantization import (
    KINDS,
    Int4Embedding,
    Int4Linear,
    Int8Embedding,
    Int8Linear,
    Kind,
    quantize,
)
from course_utils.qwen3 import Qwen3Model
from course_utils.speculative import PromptLookup, generate_speculative
from course_utils.training.evaluate import held_out_blocks
from course_utils.training.loop import held_out_loss

REPOSITORY = Path(__file__).resolve().parent.parent
CONFIG = Qwen3Config(vocab_size=192, hidden_size=128, intermediate_size=128, num_hidden_layers=2,
                     num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=128)
IDS = torch.tensor([[1, 5, 9, 2, 190, 0, 33, 7, 8, 100, 11]])
FORMATS = [torch.float32, torch.bfloat16, torch.float16]
every_kind = pytest.mark.parametrize("kind", KINDS)
every_format = pytest.mark.parametrize("dtype", FORMATS, ids=str)
tied_or_not = pytest.mark.parametrize("tied", [True, False], ids=["tied", "untied"])


def make_model(tied: bool = True, dtype: torch.dtype = torch.bfloat16, config: Qwen3Config = CONFIG) -> Qwen3Model:
    torch.manual_seed(0)
    return Qwen3Model(replace(config, tie_word_embeddings=tied)).to(dtype).eval()


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def unpacked(module: nn.Module) -> Tensor:
    """The weights that a quantized matrix stands for, in double precision, by the layouts that its file describes."""
    if isinstance(module, quantization.Int8Weight):
        integers, row_scales = module.by_rows()
        return integers.double() * row_scales.double()[:, None]
    assert isinstance(module, quantization.Int4Weight)
    integers = quantization._unpack(module.weight, module.order).double()
    scale, offset = scales(module)
    return (integers - 8) * scale + offset


def scales(module: quantization.Int4Weight) -> Tensor:
    """Scale and offset of each weight, (2, rows, d)."""
    by_group = quantization._arranged_back(module.scale_and_offset, module.order)
    return by_group.double().permute(2, 1, 0).repeat_interleave(32, dim=2)


ORDERS = [quantization._Order(64, 1), quantization._Order(32, 1), quantization._KERNEL_ORDER]
every_order = pytest.mark.parametrize("order", ORDERS, ids=str)


@pytest.fixture
def without_kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on a machine without a C compiler: few vectors are not rounded."""
    monkeypatch.setattr(kernels, "problem", lambda kernel: "There is no C compiler.")


# Packing


@every_order
def test_packing_two_integers_to_a_byte_can_be_undone(order: quantization._Order) -> None:
    integers = torch.randint(0, 16, (192, 96), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    packed = quantization._pack(integers, order)
    assert packed.shape == (192, 48) and packed.dtype == torch.uint8
    assert torch.equal(quantization._unpack(packed, order), integers)


@every_order
def test_packed_bytes_lie_as_described(order: quantization._Order) -> None:
    integers = torch.randint(0, 16, (128, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    stretch = quantization._pack(integers, order).flatten().tolist()
    half = order.rows // 2
    expected = [int(integers[start + row, column]) | int(integers[start + half + row, column]) << 4
                for start in range(0, 128, order.rows) for first in range(0, 32, order.inputs) for row in range(half)
                for column in range(first, first + order.inputs)]
    assert stretch == expected


def test_a_square_of_one_block_can_be_multiplied() -> None:
    linear, x = Int4Linear(random(64, 64).bfloat16()), random(2, 64, seed=1).bfloat16()
    torch.testing.assert_close(linear(x).double(), F.linear(x.double(), unpacked(linear)), rtol=0.02, atol=0.1)


def test_repacking_goes_there_and_back() -> None:
    packed = torch.randint(0, 256, (128, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    for order in ORDERS[1:]:
        other = quantization._repack(packed, ORDERS[0], order)
        assert not torch.equal(other, packed)
        assert torch.equal(quantization._repack(other, order, ORDERS[0]), packed)


def test_arranging_scales_goes_there_and_back() -> None:
    by_group = random(3, 128, 2)
    arranged = quantization._arrange(by_group, quantization._KERNEL_ORDER)
    assert arranged.shape == (4, 3, 2, 32) and float(arranged[1, 2, 1, 5]) == float(by_group[2, 37, 1])
    assert torch.equal(quantization._arranged_back(arranged, quantization._KERNEL_ORDER), by_group)


# Rounding

HARD_ROWS = {
    "zeros": torch.zeros(64),
    "constant": torch.full((64,), 0.37),
    "constant and negative": torch.full((64,), -5.5),
    "one outlier": torch.cat((torch.full((63,), 1e-3), torch.tensor([100.0]))),
    "one value": torch.cat((torch.zeros(63), torch.tensor([-1.0]))),
    "huge": 1e30 * random(64),
    "tiny": 1e-30 * random(64),
    "both": random(64) * torch.logspace(-20, 20, 64),
    "all positive": random(64).abs() + 3,
    "far from zero, close together": 1000 + random(64),
}


def check_rounding(row: Tensor, dtype: torch.dtype) -> None:
    """No weight is further from its integer's value than half a step, plus what rounding the scales themselves does."""
    weight = row.to(dtype).expand(64, -1)
    eps, smallest = torch.finfo(dtype).eps, torch.finfo(dtype).smallest_normal * torch.finfo(dtype).eps
    eight = Int8Linear(weight)
    step = eight.scale.double()[:, None]
    assert ((unpacked(eight) - weight.double()).abs() <= step / 2 * (1 + 1e-6)).all()
    four = Int4Linear(weight)
    scale, offset = scales(four)
    # Half a step; the scale is rounded to the format and multiplied by up to 8; and so is the offset.
    bound = scale / 2 * (1 + 1e-5) + eps * (8 * scale + offset.abs()) + smallest
    assert ((unpacked(four) - weight.double()).abs() <= bound).all()
    assert torch.isfinite(unpacked(eight)).all() and torch.isfinite(unpacked(four)).all()
    # The step is no longer than it has to be, which half a step alone does not say.
    assert (step[:, 0] <= weight.double().abs().amax(1) / 127 * (1 + eps) + 1e-7).all()
    groups = weight.double().unflatten(1, (-1, 32))
    span = (groups.amax(-1) - groups.amin(-1)).repeat_interleave(32, dim=1)
    assert (scale <= span / 15 * (1 + 2 * eps) + 1e-7).all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("row", HARD_ROWS.values(), ids=HARD_ROWS)
def test_hard_rows_are_rounded_by_half_a_step_at_most(row: Tensor, dtype: torch.dtype) -> None:
    check_rounding(row, dtype)


@pytest.mark.parametrize("row", ["zeros", "constant", "one outlier", "one value", "all positive"])
def test_half_precision_too(row: str) -> None:
    check_rounding(HARD_ROWS[row], torch.float16)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(values=st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=64),
       magnitude=st.sampled_from([1e-12, 1e-3, 1.0, 1e12]), dtype=st.sampled_from([torch.float32, torch.bfloat16]))
def test_any_row_is_rounded_by_half_a_step_at_most(values: list[float], magnitude: float, dtype: torch.dtype) -> None:
    check_rounding((torch.tensor(values) * magnitude).repeat(64)[:64], dtype)


def test_rows_are_rounded_apart_from_each_other() -> None:
    """A row of large numbers costs the others nothing, nor, in 4 bits, a large number the groups beside its own."""
    weight = random(128, 64)
    spoiled = weight.clone()
    spoiled[5, 40] = 1e4
    for module in (Int8Linear, Int4Linear):
        before, after = unpacked(module(weight)), unpacked(module(spoiled))
        rows = torch.arange(128) != 5
        assert torch.equal(before[rows], after[rows]) and not torch.equal(before[5], after[5])
    assert torch.equal(before[5, :32], after[5, :32])  # of the 4 bits


# Products


@pytest.mark.parametrize("n", [1, 8, 9, 300])
@pytest.mark.parametrize("module", [Int8Linear, Int4Linear])
@every_format
@pytest.mark.usefixtures("without_kernels")
def test_a_product_is_that_of_the_unpacked_weights(module: type, n: int, dtype: torch.dtype) -> None:
    linear, x = module(random(128, 96).to(dtype)), random(1, n, 96, seed=1).to(dtype)
    product = linear(x)
    assert product.shape == (1, n, 128) and product.dtype == dtype
    exact = F.linear(x.double(), unpacked(linear))
    terms = F.linear(x.double().abs(), unpacked(linear).abs())
    bound = 1e-6 * terms + 2 * torch.finfo(dtype).eps * (exact.abs() + (terms if module is Int4Linear else 0))
    if module is Int8Linear and n > 8:  # vectors are rounded too: at most half a step of each, times the weights
        steps = x.double().abs().amax(-1, keepdim=True) / 127 * (1 + torch.finfo(dtype).eps)
        bound = bound + steps / 2 * unpacked(linear).abs().sum(1)
        assert dtype != torch.float32 or ((product - exact).abs() > 1e-6 * terms).any()
    assert ((product.double() - exact).abs() <= bound).all()


@pytest.mark.parametrize("n", [9, 300])
@pytest.mark.usefixtures("without_kernels")
def test_many_vectors_in_8_bits_are_a_product_of_integers(n: int) -> None:
    linear, x = Int8Linear(random(128, 96)), random(n, 96, seed=1)
    x[3] *= 1000
    x[4] = 0
    step = x.abs().amax(dim=1, keepdim=True).double() / 127
    integers = torch.where(step > 0, x.double() / step, 0.0).round().long()
    expected = (integers @ linear.weight.long().T).double() * step * linear.scale.double()
    assert integers.abs().max() == 127
    torch.testing.assert_close(linear(x).double(), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("n", [1, 8, 9, 300])
@pytest.mark.parametrize("module", [Int8Linear, Int4Linear])
def test_gradients_pass_through_as_through_the_unpacked_weights(module: type, n: int) -> None:
    linear, x = module(random(128, 96)), random(n, 96, seed=1).requires_grad_()
    weights = random(n, 128, seed=2)
    (linear(x) * weights).sum().backward()
    torch.testing.assert_close(x.grad, (weights.double() @ unpacked(linear)).float(), rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("module", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("shape", [(96,), (1, 1, 96), (2, 1, 96), (2, 4, 96)], ids=str)
def test_vectors_may_come_in_any_arrangement(module: type, shape: tuple[int, ...]) -> None:
    linear, x = module(random(128, 96)), random(*shape)
    one_by_one = torch.stack([linear(vector) for vector in x.reshape(-1, 96)]).view(*shape[:-1], 128)
    torch.testing.assert_close(linear(x), one_by_one, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("module", [Int8Linear, Int4Linear])
@pytest.mark.parametrize("n", [2, 8, 9])
@every_format
def test_vectors_may_lie_apart_in_memory(module: type, n: int, dtype: torch.dtype) -> None:
    """As the last one of each of several prompts does."""
    linear, x = module(random(128, 96).to(dtype)), random(n, 5, 96).to(dtype)
    assert torch.equal(linear(x[:, -1:]), linear(x[:, -1:].clone(memory_format=torch.contiguous_format)))


@every_order
def test_without_the_operator_4_bits_are_unpacked(order: quantization._Order, monkeypatch: pytest.MonkeyPatch) -> None:
    """As on other devices, in whichever order they lie."""
    weight, x = random(128, 96), random(5, 96, seed=1).requires_grad_()
    expected = Int4Linear(weight)
    monkeypatch.setattr(quantization, "_memory_order", lambda: order)
    other = Int4Linear(weight)
    assert torch.equal(unpacked(other), unpacked(expected))
    torch.testing.assert_close(other(x).double(), F.linear(x.double(), unpacked(other)), rtol=1e-5, atol=1e-5)


@every_order
@every_format
def test_embeddings_give_the_unpacked_rows(order: quantization._Order, dtype: torch.dtype,
                                           monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "_memory_order", lambda: order)
    ids = torch.tensor([[0, 31, 32, 63], [64, 100, 127, 5]])
    for module in (Int8Embedding, Int4Embedding):
        table = module(random(128, 96).to(dtype))
        rows = table(ids)
        assert rows.shape == (2, 4, 96) and rows.dtype == dtype
        exact = unpacked(table)[ids]
        bound = 4 * torch.finfo(dtype).eps * unpacked(table).abs().amax()
        assert ((rows.double() - exact).abs() <= bound).all()


# Models


@every_kind
@tied_or_not
@every_format
@pytest.mark.usefixtures("without_kernels")
def test_a_quantized_model_computes_nearly_the_same(kind: Kind, tied: bool, dtype: torch.dtype) -> None:
    model = make_model(tied, dtype)
    quantized = quantize(model, kind)
    assert quantized.quantization == kind and quantized.config == model.config and not quantized.training
    assert quantized.dtype == dtype and quantized.device == model.device
    with torch.inference_mode():
        expected, logits = model(IDS).float(), quantized(IDS)
        assert logits.dtype == dtype
        error = (logits.float() - expected).norm() / expected.norm()
        assert 0 < error < {"int8": 0.03, "int4": 0.25}[kind]
        # The same weights, unpacked into an ordinary model: what is left is the rounding of vectors.
        ordinary = make_model(tied, dtype)
        for name, module in quantized.named_modules():
            if isinstance(module, (quantization.Int8Weight, quantization.Int4Weight)):
                ordinary.get_submodule(name).weight.data = unpacked(module).to(dtype)
        short = IDS[:, :8]  # so few vectors are not rounded
        exact = ordinary(short).float()
        difference = (quantized(short).float() - exact).norm() / exact.norm()
        assert difference < {torch.float32: 1e-5, torch.bfloat16: 0.03, torch.float16: 0.004}[dtype]


@every_kind
@tied_or_not
def test_the_given_model_is_left_alone(kind: Kind, tied: bool) -> None:
    model = make_model(tied)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    modules = {name: type(module) for name, module in model.named_modules()}
    quantized = quantize(model, kind)
    assert model.quantization is None
    assert {name: type(module) for name, module in model.named_modules()} == modules
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert list(model.state_dict()) == list(before)
    for name, norm in model.named_parameters():
        if norm.dim() == 1:
            assert quantized.get_parameter(name).data_ptr() == norm.data_ptr()
    assert not any(isinstance(module, Linear) for module in quantized.modules())
    assert all(parameter.dim() == 1 for parameter in quantized.parameters())


def memory(model: nn.Module) -> int:
    tensors = {tensor.data_ptr(): tensor.nbytes for tensor in [*model.parameters(), *model.buffers()]}
    return sum(tensors.values())


@every_kind
@tied_or_not
def test_a_tied_output_layer_takes_no_memory(kind: Kind, tied: bool, tmp_path: Path) -> None:
    quantized = quantize(make_model(tied), kind)
    save_checkpoint(quantized, tmp_path)
    for each in (quantized, load_checkpoint(tmp_path), compile_model(quantized)):
        head, embedding = (dict(part.named_buffers()) for part in (each.lm_head, each.model.embed_tokens))
        assert head.keys() == embedding.keys() and len(head) == 2
        for name, tensor in head.items():
            assert (tensor.data_ptr() == embedding[name].data_ptr()) == tied
    assert (CONFIG.vocab_size * CONFIG.hidden_size < (tmp_path / "model.safetensors").stat().st_size
            ) or kind == "int4"
    assert any(name.startswith("lm_head") for name in load_file(tmp_path / "model.safetensors")) != tied


@pytest.mark.parametrize(("kind", "share"), [("int8", 8.3), ("int4", 5.1)])
def test_weights_take_the_bits_they_should(kind: Kind, share: float) -> None:
    """int8: 8 bits and a scale per row of 64 to 128; int4: 4 bits, and two numbers of 16 bits per 32 weights."""
    model = make_model()
    matrices = sum(parameter.numel() for parameter in model.parameters() if parameter.dim() == 2)
    norms = sum(parameter.nbytes for parameter in model.parameters() if parameter.dim() == 1)
    frequencies = sum(buffer.nbytes for buffer in model.buffers())
    assert 8 * (memory(quantize(model, kind)) - norms - frequencies) / matrices <= share


@every_kind
def test_a_cache_changes_nothing_beyond_rounding(kind: Kind) -> None:
    quantized = quantize(make_model(dtype=torch.float32), kind)
    cache = KVCache(CONFIG)
    with torch.inference_mode():
        parts = torch.cat([quantized(part, cache=cache) for part in IDS.split([4, 1, 6], dim=1)], dim=1)
        whole = quantized(IDS)
    rounded = kind == "int8" or kernels.problem("int4") is None
    assert (parts - whole).norm() <= (0.02 if rounded else 1e-5) * whole.norm()


# How many vectors come together: what the documentation says of its limits


def lively(kind: Kind, dtype: torch.dtype = torch.float32) -> Qwen3Model:
    """A quantized model whose texts do not repeat themselves."""
    model = make_model(dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, mean=float(parameter.dim() == 1), std=0.2, generator=generator)
    return quantize(model.to(dtype), kind)


def prompts(count: int, shortest: int, longest: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(2)
    lengths = torch.randint(shortest, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(CONFIG.vocab_size, (1, length), generator=generator) for length in lengths]


@every_kind
def test_up_to_eight_vectors_at_once_texts_are_those_that_come_out_alone(kind: Kind) -> None:
    model, several = lively(kind), prompts(16, 1, 20)
    alone = [generate_text_basic_cache(model, ids, 20)[0].tolist() for ids in several]
    assert len({tuple(text[-5:]) for text in alone}) == 16
    batch = ContinuousBatch(model, 8)
    requests = [batch.submit(ids, 20) for ids in several]
    batch.run()
    assert [request.new_tokens for request in requests] == alone
    for ids, text in zip(several[:6], alone):
        told = generate_speculative(model, ids, 20, PromptLookup(1), num_drafted=7)
        assert [int(token) for token in told] == text


@every_kind
def test_prompts_of_nine_tokens_and_more_may_come_together(kind: Kind) -> None:
    """Their vectors are rounded one by one, whether alone or beside others."""
    model, several = lively(kind), prompts(8, 9, 20)
    token_ids, mask = pad_left([ids[0].tolist() for ids in several])
    together = torch.cat(list(generate_tokens(model, token_ids, 20, cache=KVCache(CONFIG), attention_mask=mask)), dim=1)
    assert together.tolist() == [generate_text_basic_cache(model, ids, 20)[0].tolist() for ids in several]


@pytest.mark.parametrize(("kind", "dtype", "few", "least", "most"), [
    ("int8", torch.float32, 8, 1e-4, 0.03), ("int8", torch.bfloat16, 8, 1e-4, 0.05),
    ("int4", torch.float32, 8, 0, 1e-5), ("int4", torch.bfloat16, 128, 0, 0.05)], ids=str)
@pytest.mark.usefixtures("without_kernels")
def test_beyond_the_limit_logits_depend_on_how_many_come_together(kind: Kind, dtype: torch.dtype, few: int,
                                                                  least: float, most: float) -> None:
    model = lively(kind, dtype)
    ids = torch.randint(CONFIG.vocab_size, (few + 1, 1), generator=torch.Generator().manual_seed(3))
    with torch.inference_mode():
        alone = torch.cat([model(row[None]) for row in ids]).float()
        for count, low, high in ((few, 0, 1e-5 if dtype == torch.float32 else most), (few + 1, least, most)):
            difference = (model(ids[:count]).float() - alone[:count]).norm() / alone[:count].norm()
            assert low <= difference <= high


def test_quantizing_twice_is_refused() -> None:
    with pytest.raises(InputError, match="quantized to int8 already: start from the original"):
        quantize(quantize(make_model(), "int8"), "int4")


def test_an_unknown_kind_is_refused() -> None:
    model = make_model()
    with pytest.raises(InputError, match="no quantization 'int3': choose one of int8, int4"):
        quantize(model, "int3")  # type: ignore[arg-type]
    assert model.quantization is None


def test_sizes_that_4_bits_do_not_divide_stay_at_8(tmp_path: Path) -> None:
    config = replace(CONFIG, vocab_size=200, intermediate_size=100)  # 200 and 100 rows, and 100 inputs
    model = make_model(dtype=torch.float32, config=config)
    quantized = quantize(model, "int4")
    mlp, attention = quantized.model.layers[0].mlp, quantized.model.layers[0].self_attn
    assert all(type(part) is Int8Linear for part in (mlp.gate_proj, mlp.up_proj, mlp.down_proj, quantized.lm_head))
    assert type(quantized.model.embed_tokens) is Int8Embedding
    assert all(type(part) is Int4Linear for part in (attention.q_proj, attention.o_proj))
    save_checkpoint(quantized, tmp_path)
    with torch.inference_mode():
        logits = quantized(IDS)
        assert torch.equal(load_checkpoint(tmp_path)(IDS), logits)
        assert (logits - model(IDS)).norm() < 0.2 * logits.norm()


# Files


@every_kind
@tied_or_not
@every_format
def test_saved_and_loaded_it_is_the_same_to_the_bit(kind: Kind, tied: bool, dtype: torch.dtype, tmp_path: Path) -> None:
    quantized = quantize(make_model(tied, dtype), kind)
    save_checkpoint(quantized, tmp_path / "one")
    loaded = load_checkpoint(tmp_path / "one")
    assert loaded.quantization == kind and loaded.dtype == dtype and not loaded.training
    with torch.inference_mode():
        assert torch.equal(loaded(IDS), quantized(IDS))
        assert torch.equal(loaded(IDS[:, :1]), quantized(IDS[:, :1]))
    save_checkpoint(loaded, tmp_path / "two")
    for name in ("model.safetensors", "config.json"):
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    with pytest.raises(InputError, match="already"):
        quantize(loaded, kind)


@tied_or_not
@every_order
def test_a_file_is_the_same_whatever_the_order_in_memory(tied: bool, order: quantization._Order, tmp_path: Path,
                                                         monkeypatch: pytest.MonkeyPatch) -> None:
    if order == quantization._KERNEL_ORDER and (problem := kernels.problem("int4")) is not None:
        pytest.skip(problem)
    model = make_model(tied, torch.float32)
    usual = quantize(model, "int4")
    save_checkpoint(usual, tmp_path / "usual")
    with torch.inference_mode():
        expected = usual(IDS)
        monkeypatch.setattr(quantization, "_memory_order", lambda: order)
        monkeypatch.setattr(quantization, "_PYTORCH_ORDER", None)
        other = quantize(model, "int4")
        logits = other(IDS)
        assert (logits - expected).norm() <= 0.02 * expected.norm()
        save_checkpoint(other, tmp_path / "other")
        loaded = load_checkpoint(tmp_path / "usual")
        assert torch.equal(loaded(IDS), logits)
        assert torch.equal(loaded.lm_head.weight, other.lm_head.weight)
    names = [(tmp_path / folder / "model.safetensors").read_bytes() for folder in ("usual", "other")]
    assert names[0] == names[1]


@every_kind
@tied_or_not
def test_a_file_is_the_same_with_kernels_and_without(kind: Kind, tied: bool, tmp_path: Path,
                                                     monkeypatch: pytest.MonkeyPatch) -> None:
    # Sizes of which the kernel for int8 needs padding.
    model = make_model(tied, torch.float32, replace(CONFIG, vocab_size=200, intermediate_size=100))
    save_checkpoint(quantize(model, kind), tmp_path / "usual")
    with monkeypatch.context() as patch:
        patch.setattr(kernels, "problem", lambda kernel: "There is no C compiler.")
        without = quantize(model, kind)
        save_checkpoint(without, tmp_path / "without")
        loaded = load_checkpoint(tmp_path / "usual")
        with torch.inference_mode():
            assert torch.equal(loaded(IDS), without(IDS))
    usual, other = ((tmp_path / folder / "model.safetensors").read_bytes() for folder in ("usual", "without"))
    assert usual == other


@every_kind
def test_a_quantized_checkpoint_can_be_loaded_in_another_format(kind: Kind, tmp_path: Path) -> None:
    quantized = quantize(make_model(), kind)
    save_checkpoint(quantized, tmp_path)
    loaded = load_checkpoint(tmp_path, dtype=torch.float32)
    assert loaded.dtype == torch.float32 and loaded.quantization == kind
    for (name, ours), (_, theirs) in zip(loaded.named_modules(), quantized.named_modules()):
        if isinstance(ours, (quantization.Int8Weight, quantization.Int4Weight)):
            assert torch.equal(unpacked(ours), unpacked(theirs)), name
    with torch.inference_mode():
        logits, expected = loaded(IDS), quantized(IDS).float()
    assert logits.dtype == torch.float32
    assert (logits - expected).norm() < 0.03 * expected.norm()


@every_kind
def test_moved_to_another_format_the_output_layer_stays_tied(kind: Kind) -> None:
    quantized = quantize(make_model(), kind).float()
    for name, buffer in quantized.lm_head.named_buffers():
        assert buffer.data_ptr() == quantized.model.embed_tokens.get_buffer(name).data_ptr(), name


@every_kind
def test_the_configuration_says_how_weights_are_stored(kind: Kind, tmp_path: Path) -> None:
    save_checkpoint(quantize(make_model(), kind), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["quantization_config"] == {"quant_method": "course_utils", "kind": kind}
    assert config["dtype"] == "bfloat16"
    save_checkpoint(make_model(), tmp_path)
    assert "quantization_config" not in json.loads((tmp_path / "config.json").read_text())
    assert load_checkpoint(tmp_path).quantization is None


@pytest.mark.parametrize("foreign", [{"quant_method": "gptq", "bits": 4}, {"quant_method": "course_utils"},
                                     {"quant_method": "course_utils", "kind": "int3"}, "int8", {}, []], ids=str)
def test_weights_quantized_otherwise_are_refused(foreign: object, tmp_path: Path) -> None:
    save_checkpoint(quantize(make_model(), "int8"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "quantization_config": foreign}))
    with pytest.raises(CheckpointError, match="quantized in a way.*does not know: choose a checkpoint") as caught:
        load_checkpoint(tmp_path)
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


@every_kind
def test_files_and_configuration_must_agree(kind: Kind, tmp_path: Path) -> None:
    """Quantized weights under an ordinary configuration, and the reverse."""
    for saved, other in ((quantize(make_model(), kind), None), (make_model(), kind)):
        save_checkpoint(saved, tmp_path)
        config = json.loads((tmp_path / "config.json").read_text())
        config.pop("quantization_config", None)
        if other:
            config["quantization_config"] = {"quant_method": "course_utils", "kind": other}
        (tmp_path / "config.json").write_text(json.dumps(config))
        with pytest.raises(CheckpointError):
            load_checkpoint(tmp_path)


def test_another_output_layer_stored_beside_a_tied_one_is_kept(tmp_path: Path) -> None:
    model = quantize(make_model(tied=False), "int4")
    save_checkpoint(model, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    loaded = load_checkpoint(tmp_path)
    assert loaded.config == model.config
    with torch.inference_mode():
        assert torch.equal(loaded(IDS), model(IDS))


@every_kind
def test_what_a_state_lacks_is_named_as_pytorch_names_it(kind: Kind) -> None:
    model = quantize(make_model(), kind)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    assert set(model.load_state_dict({}, strict=False).missing_keys) == set(before)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    with pytest.raises(RuntimeError, match="Missing key.*lm_head.weight"):
        model.load_state_dict({})
    with pytest.raises(RuntimeError, match="size mismatch for lm_head.weight"):
        model.load_state_dict({**before, "lm_head.weight": torch.zeros(64, 8, dtype=torch.uint8)})


# The bundled model


@pytest.fixture(scope="module")
def tiny() -> Qwen3Model:
    return load_model("tiny", device="cpu")


@pytest.mark.parametrize("prompt", ["Explain large language models in a single sentence.", "What is a token?",
                                    "大语言模型是什么？"])
def test_tiny_in_8_bits_says_the_same(tiny: Qwen3Model, prompt: str) -> None:
    tokenizer = load_tokenizer("tiny")
    ids = torch.tensor([tokenizer.encode(prompt)])
    for step in (steps := generate_trace(tiny, ids, 40, tokenizer.eos_token_id, top=2)):
        (_, first), (_, second) = step.candidates
        assert first > 1.2 * second  # else a step's choice could hang on rounding
    expected = [step.token_id for step in steps if step.token_id != tokenizer.eos_token_id]
    answer = generate_text_basic_cache(quantize(tiny, "int8"), ids, 40, tokenizer.eos_token_id)
    assert len(expected) >= 8 and answer[0].tolist() == expected


@pytest.mark.parametrize(("kind", "share"), [("int8", 0.01), ("int4", 0.02)])
def test_tiny_loses_little(tiny: Qwen3Model, kind: Kind, share: float, monkeypatch: pytest.MonkeyPatch) -> None:
    # Without the kernel unpacked for the prompt: the same product, and in float32 much faster than the operator.
    monkeypatch.setattr(quantization, "_PYTORCH_ORDER", None)
    blocks = held_out_blocks(load_tokenizer("tiny"), 8, 256)
    loss = held_out_loss(tiny, blocks)
    assert held_out_loss(quantize(tiny, kind), blocks) == pytest.approx(loss, rel=share)


@pytest.mark.parametrize("name", ["tiny", "nano"])
def test_the_card_states_the_loss_in_8_and_4_bits(name: str) -> None:
    figures = json.loads((REPOSITORY / "data" / name / "figures.json").read_text(encoding="utf-8"))
    for documents in ("all kinds", "story", "story_zh"):
        loss, *quantized = (figures[f"held-out loss, {documents}{kind}"] for kind in ("", ", int8", ", int4"))
        assert 0 < loss and quantized[0] == pytest.approx(loss, rel=0.01)
        assert quantized[1] == pytest.approx(loss, rel=0.05)


@pytest.mark.slow
@every_kind
def test_compiled_it_writes_the_same_tokens(kind: Kind) -> None:
    if (problem := compile_problem("cpu")) is not None:
        pytest.skip(problem)
    torch.compiler.reset()
    quantized = quantize(make_model(dtype=torch.float32), kind)
    expected = generate_text_basic_cache(quantized, IDS, 20)
    compiled = compile_model(quantized)
    assert compiled is not quantized
    assert torch.equal(generate_text_basic_cache(compiled, IDS, 20), expected)
    torch.compiler.reset()


def test_a_copy_is_a_model_of_its_own() -> None:
    quantized = quantize(make_model(), "int8")
    twin = copy.deepcopy(quantized)
    assert twin.quantization == "int8" and torch.equal(twin(IDS), quantized(IDS))
    assert memory(twin) == memory(quantized)
