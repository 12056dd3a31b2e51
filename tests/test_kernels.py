"""Kernels in C: every way to multiply gives the same bits, near the exact product; and without them all goes on."""

from __future__ import annotations

import copy
import functools
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from course_utils import environment, kernels, quantization, qwen3
from course_utils.errors import InputError
from course_utils.kernels import KERNELS, PRODUCTS, Kernel, build
from course_utils.linear import Linear, side_by_side
from course_utils.quantization import Int4Linear, Int8Linear

every_product = pytest.mark.parametrize("kernel", PRODUCTS)
FAKE_COMPILER = {"fails": "echo 'x.c:1: error: no such thing' >&2; exit 1", "hangs": "exec sleep 600"}


@functools.cache
def why_not() -> str | None:
    """Why this machine compiles no kernels."""
    return next(filter(None, map(kernels.problem, KERNELS)), None)


@pytest.fixture
def here() -> None:
    if (problem := why_not()) is not None:
        pytest.skip(problem)


def random(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def operands(kernel: Kernel, rows: int, d: int, dtype: torch.dtype = torch.float32) -> tuple[list[Tensor], Tensor]:
    """What a kernel is given beside the vectors, and the matrix that this stands for, in double precision."""
    weight = random(rows, d, seed=1)
    if kernel == "bfloat16":
        return [weight.bfloat16()], weight.bfloat16().double()
    if kernel == "int8":
        eight = Int8Linear(weight.to(dtype))
        integers, scale = eight.by_rows()
        return [eight.weight, eight.scale], integers.double() * scale.double()[:, None]
    integers, scales = quantization._round_groups(weight.to(dtype))
    scale, offset = scales.double().permute(2, 1, 0).repeat_interleave(32, dim=2)
    order = quantization._KERNEL_ORDER
    return ([quantization._pack(integers, order), quantization._arrange(scales, order)],
            (integers.double() - 8) * scale + offset)


def in_one_way(kernel: Kernel, way: str, x: Tensor, *matrix: Tensor) -> Tensor:
    """A product by one of the ways that this processor has."""
    call = kernels.function(kernel, way)
    out = torch.full((x.shape[0], matrix[0].shape[0]), torch.nan)
    assert call(None, 1, x.data_ptr(), kernels.C_FORMATS[x.dtype], *x.shape, kernels.described(*matrix), 1,
                out.data_ptr()) == 0
    return out


def multiply(kernel: Kernel, x: Tensor, *matrices: list[Tensor]) -> Tensor:
    """The operator's products of vectors with some matrices, each with its scales."""
    product: Tensor = getattr(torch.ops.course_utils, f"{kernel}_products")(x, *map(list, zip(*matrices)))
    return product


def rounded(x: Tensor) -> Tensor:
    """Vectors as the kernels round them, in double precision."""
    groups = torch.nn.functional.pad(x, (0, -x.shape[1] % 32)).unflatten(1, (-1, 32))
    limit = groups.abs().amax(-1, keepdim=True)
    integers = (groups * torch.where(limit > 0, 127 / limit, 0)).round()
    return (integers.double() * (limit / 127)).flatten(1)[:, :x.shape[1]]


SIZES = [(1, 64, 96), (3, 32, 32), (8, 96, 160), (13, 64, 1024)]
ODD_SIZES = [(1, 7, 40), (2, 1, 1), (5, 9, 131), (8, 33, 63), (11, 3, 65)]
CASES = [(kernel, *size) for kernel in PRODUCTS for size in SIZES + ODD_SIZES * (kernel != "int4")]


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("kernel", "vectors", "rows", "d"), CASES)
def test_every_way_gives_the_same_bits_near_the_exact_product(kernel: Kernel, vectors: int, rows: int, d: int) -> None:
    x, (matrix, exact_matrix) = random(vectors, d), operands(kernel, rows, d)
    x[0, :2] *= 50
    ways = kernels._compiler().instruction_sets
    assert ways[-1] == "PLAIN"
    expected = in_one_way(kernel, "PLAIN", x, *matrix)
    assert not expected[:, rows:].any()
    for way in ways:
        assert torch.equal(in_one_way(kernel, way, x, *matrix), expected), way
    expected = expected[:, :rows]  # those behind them fill a block
    inputs = x.double() if kernel == "bfloat16" else rounded(x)
    torch.testing.assert_close(expected.double(), inputs @ exact_matrix.T, rtol=1e-4, atol=1e-4)
    if kernel != "bfloat16":  # each number is rounded by half a step at most
        group = torch.nn.functional.pad(x.abs(), (0, -d % 32)).double().unflatten(1, (-1, 32)).amax(-1)
        half_steps = (group / 254).repeat_interleave(32, dim=1)[:, :d]
        assert ((expected - x.double() @ exact_matrix.T).abs() <= half_steps @ exact_matrix.abs().T + 1e-4).all()


@pytest.mark.usefixtures("here")
@every_product
def test_a_vectors_product_does_not_depend_on_the_others_nor_on_threads(kernel: Kernel) -> None:
    x, (matrix, _) = random(19, 1024), operands(kernel, 512, 1024)
    alone = torch.cat([multiply(kernel, row[None], matrix) for row in x])
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            for count in (1, 2, 3, 4, 5, 8, 9, 19):
                assert torch.equal(multiply(kernel, x[:count], matrix), alone[:count]), (threads, count)
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("kernel", ["int8", "int4"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
def test_scales_may_be_in_any_format(kernel: Kernel, dtype: torch.dtype) -> None:
    x, (matrix, exact) = random(2, 96), operands(kernel, 64, 96, dtype)
    assert matrix[1].dtype == dtype
    torch.testing.assert_close(multiply(kernel, x, matrix).double(), rounded(x) @ exact.T, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("here")
@every_product
@pytest.mark.parametrize("hard", [0.0, 1e-38, 1e-20, 1e30, torch.inf, torch.nan])
def test_hard_numbers(kernel: Kernel, hard: float) -> None:
    """What is infinite or no number stays visible, in its own vector alone; zeros and tiny numbers do no harm."""
    x, (matrix, _) = random(2, 64), operands(kernel, 32, 64)
    x[0, :32] = 0
    x[0, 3] = hard
    results = [in_one_way(kernel, way, x, *matrix) for way in kernels._compiler().instruction_sets]
    for result in results:
        assert torch.equal(result.view(torch.int32), results[0].view(torch.int32)) or not hard < torch.inf
        assert torch.isfinite(result[0]).all() == (hard < torch.inf) and torch.isfinite(result[1]).all()


@pytest.mark.usefixtures("here")
@every_product
def test_operands_may_lie_apart_in_memory(kernel: Kernel) -> None:
    x, (matrix, _) = random(3, 192), operands(kernel, 32, 96)
    assert torch.equal(multiply(kernel, x[:, ::2], matrix), multiply(kernel, x[:, ::2].contiguous(), matrix))


@pytest.mark.usefixtures("here")
@every_product
@pytest.mark.parametrize("threads", [1, 2, 5])
def test_several_matrices_at_once_give_what_each_gives_alone(kernel: Kernel, threads: int) -> None:
    x = random(3, 64)
    matrices = [operands(kernel, rows, 64)[0] for rows in (32, 1024, 64 if kernel == "int4" else 33, 32)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        together = multiply(kernel, x, *matrices)
        assert torch.equal(together, torch.cat([multiply(kernel, x, matrix) for matrix in matrices], dim=1))
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("here")
@every_product
@pytest.mark.parametrize("size", [64, 128])
def test_vectors_of_another_length_are_refused(kernel: Kernel, size: int) -> None:
    """Else C would read what lies beside the matrix."""
    matrix, _ = operands(kernel, 32, 96)
    fitting, _ = operands(kernel, 32, size)
    with pytest.raises(InputError, match=f"vectors have {size} numbers and the rows of the matrix 96"):
        multiply(kernel, random(2, size), fitting, matrix)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("module", [Int8Linear, Int4Linear])
def test_layers_use_them_and_copies_too(module: type) -> None:
    linear, x = module(random(64, 96)), random(1, 3, 96, seed=1)
    operator = {Int8Linear: kernels.int8_products, Int4Linear: kernels.int4_products}[module]
    expected, = operator(x[0], *([buffer] for buffer in linear.buffers()))
    for each in (linear, copy.deepcopy(linear), module(linear)):
        assert torch.equal(each(x)[0], expected)
    assert module(linear).weight.data_ptr() == linear.weight.data_ptr()


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("module", [Int8Linear, Int4Linear])
def test_compiled_graphs_hold_them(module: type) -> None:
    torch.compiler.reset()
    targets: list[str] = []

    def backend(graph: torch.fx.GraphModule, example_inputs: object) -> object:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    layers = [module(random(rows, 96, seed=rows)) for rows in (64, 128, 64)]
    x = random(1, 1, 96, seed=1)
    compiled = torch.compile(lambda x: side_by_side(x, *layers), backend=backend, fullgraph=True)
    for product, layer in zip(compiled(x), layers, strict=True):
        assert torch.equal(product, layer(x))
    assert sum("course_utils" in target for target in targets) == 1
    torch.compiler.reset()


def test_layers_of_several_kinds_have_their_turn_one_by_one() -> None:
    layers = [Int4Linear(random(64, 96)), Linear(96, 3), Int8Linear(random(5, 96))]
    x = random(2, 96, seed=1)
    torch.compiler.reset()
    compiled = torch.compile(lambda x: side_by_side(x, *layers), backend="eager")
    with torch.no_grad():
        for product, layer in zip(compiled(x), layers, strict=True):
            assert torch.equal(product, layer(x))
    torch.compiler.reset()


@pytest.mark.usefixtures("here")
@every_product
def test_the_operator_is_a_good_one(kernel: Kernel) -> None:
    matrix, _ = operands(kernel, 32, 64)
    operator = getattr(torch.ops.course_utils, f"{kernel}_products").default
    torch.library.opcheck(operator, (random(3, 64), *([part, part] for part in matrix)),
                          test_utils=("test_schema", "test_faketensor"))


# Attention


def keys_and_values(b: int, g: int, s: int, k: int, dtype: torch.dtype) -> tuple[Tensor, Tensor]:
    """As a longer cache holds them."""
    keys, values = random(2, b, g, s + 3, k, seed=2).to(dtype)[:, :, :, :s]
    return keys, values


def reference(queries: Tensor, keys: Tensor, values: Tensor, mask: Tensor | None) -> Tensor:
    """Attention by its formula, in double precision: (b, h, t, k)."""
    per_head = queries.shape[1] // keys.shape[1]
    scores = queries.double() @ keys.double().repeat_interleave(per_head, dim=1).mT / queries.shape[3] ** 0.5
    if mask is not None:
        scores = scores.masked_fill(~mask, -torch.inf)
    return scores.softmax(-1) @ values.double().repeat_interleave(per_head, dim=1)


def up_to_themselves(t: int, s: int, padding: Tensor | None = None) -> Tensor:
    """(1 or b, 1, t, s): the last t of s tokens see all before them but padding, and padding sees itself."""
    new = torch.arange(s - t, s)[:, None]
    mask = (torch.arange(s) <= new)[None, None]
    return mask if padding is None else mask & (torch.arange(s) >= padding.view(-1, 1, 1, 1)) | (torch.arange(s) == new)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16], ids=str)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize(("b", "g", "r", "t", "s", "k"), [
    (1, 8, 2, 1, 129, 128), (3, 2, 5, 1, 33, 16), (2, 1, 9, 1, 7, 256), (1, 2, 1, 1, 1, 32), (2, 3, 16, 1, 64, 48),
    (2, 2, 2, 3, 40, 32), (1, 1, 1, 8, 8, 16),  # few tokens
    (1, 4, 2, 100, 100, 128), (2, 3, 3, 41, 41, 48), (1, 2, 1, 33, 33, 16), (3, 1, 7, 9, 9, 256), (2, 2, 4, 2, 2, 32),
    (2, 2, 2, 50, 113, 64), (1, 1, 5, 9, 300, 32)])  # many, and many after others
def test_every_way_attends_alike_and_near_the_formula(monkeypatch: pytest.MonkeyPatch, b: int, g: int, r: int, t: int,
                                                      s: int, k: int, masked: bool, dtype: torch.dtype) -> None:
    queries, (keys, values) = (3 * random(b, g * r, t, k)).to(dtype), keys_and_values(b, g, s, k, dtype)
    seen = up_to_themselves(t, s, torch.arange(b) * 7 % s if masked else None)
    exact = reference(queries, keys, values, seen).transpose(1, 2)
    given = None if not masked and t in (1, s) else seen
    ways = kernels._compiler().instruction_sets
    results = []
    for way in ways:
        monkeypatch.setattr(kernels, "current_function", lambda kernel, way=way: kernels.function(kernel, way))
        results.append(torch.ops.course_utils.attention(queries, keys, values, given))
    for way, result in zip(ways, results):
        assert torch.equal(result, results[-1]), way
    torch.testing.assert_close(results[-1].double(), exact, rtol=1e-5, atol=5e-6)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("t", [1, 5, 50])
def test_what_a_text_attends_to_depends_on_no_other_nor_on_threads(t: int) -> None:
    queries, (keys, values) = random(5, 8, t, 32), keys_and_values(5, 2, 50, 32, torch.float32)
    mask = up_to_themselves(t, 50)
    alone = [torch.ops.course_utils.attention(queries[i:i + 1], keys[i:i + 1], values[i:i + 1], mask) for i in range(5)]
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 5):
            torch.set_num_threads(threads)
            assert torch.equal(torch.ops.course_utils.attention(queries, keys, values, mask), torch.cat(alone))
    finally:
        torch.set_num_threads(before)


@pytest.mark.usefixtures("here")
def test_what_a_token_attends_to_depends_on_none_behind_it() -> None:
    queries, (keys, values) = random(1, 4, 120, 32), keys_and_values(1, 2, 120, 32, torch.bfloat16)
    queries = queries.bfloat16()
    whole = torch.ops.course_utils.attention(queries, keys, values, None)
    for end in (9, 31, 33, 119):
        part = [x[:, :, :end] for x in (queries, keys, values)]
        assert torch.equal(torch.ops.course_utils.attention(*part, None), whole[:, :end])


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("hard", [torch.nan, torch.inf, -torch.inf])
@pytest.mark.parametrize("where", [0, 1, 2])
@pytest.mark.parametrize("t", [1, 20])
def test_hard_numbers_stay_in_their_head(hard: float, where: int, t: int) -> None:
    tensors = [random(1, 2, t, 32), *keys_and_values(1, 2, 20, 32, torch.float32)]
    tensors[where][0, 0, -1, 3] = hard
    with torch.no_grad():
        attended = kernels.attention(*tensors, None)
        usual = reference(*tensors, up_to_themselves(t, 20)).float()
    assert torch.isfinite(attended[0, 1]).all()
    assert torch.equal(torch.isfinite(attended), torch.isfinite(usual))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("t", [1, 40])
def test_far_scores_have_no_weight(t: int) -> None:
    queries, (keys, values) = random(1, 1, t, 16), keys_and_values(1, 1, 40, 16, torch.float32)
    attended = kernels.attention(200 * queries, keys, values, None)
    usual = torch.nn.functional.scaled_dot_product_attention(200 * queries, keys, values, is_causal=t > 1)
    torch.testing.assert_close(attended, usual)


@pytest.mark.usefixtures("here")
def test_attention_is_asked_about_what_it_knows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_has_more_for_matrices", lambda dtype: dtype == torch.bfloat16)

    def attends(k: int = 32, dtype: torch.dtype = torch.float32, device: str = "cpu", t: int = 9) -> bool:
        queries, keys = (torch.zeros(1, 2, tokens, k, dtype=dtype, device=device) for tokens in (t, 9))
        return kernels.attends(queries, keys, keys)

    assert not attends()  # gradients are wanted
    with torch.no_grad():
        assert attends() and attends(256) and attends(dtype=torch.float16)
        assert not attends(24) and not attends(512) and not attends(dtype=torch.float64) and not attends(device="meta")
        assert attends(dtype=torch.bfloat16, t=1) and not attends(dtype=torch.bfloat16)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize(("instructions", "definitions", "dtype", "more"), [
    ("AVX512_VNNI", "#define __AVX512F__ 1", torch.bfloat16, False),
    ("AVX512_VNNI", "#define __AMX_TILE__ 1", torch.bfloat16, True),
    ("AVX512_VNNI", "#define __AMX_TILE__ 1", torch.float32, False), ("ARM_DOT", "", torch.float32, True)])
def test_a_processor_with_more_for_matrices_is_left_to_pytorch(monkeypatch: pytest.MonkeyPatch, instructions: str,
                                                               definitions: str, dtype: torch.dtype,
                                                               more: bool) -> None:
    monkeypatch.setattr(kernels, "instruction_set", lambda: instructions)
    monkeypatch.setattr(kernels, "_compiler", lambda: build.Compiler(("cc",), definitions))
    assert kernels._has_more_for_matrices(dtype) == more


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("keys", [(1, 2, 9, 16), (1, 1, 9, 32), (2, 2, 9, 32), (1, 2, 8, 32)], ids=str)
def test_keys_of_another_shape_are_refused(keys: tuple[int, ...]) -> None:
    """Else C would read beside them."""
    with pytest.raises(InputError, match="Attention is not made for queries"):
        kernels.attention(random(1, 2, 1, 32), random(*keys), random(1, 2, 9, 32), None)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("queries", [(1, 2, 3, 32), (1, 3, 1, 32), (1, 2, 10, 32)], ids=str)
def test_queries_that_do_not_go_with_the_keys_are_refused(queries: tuple[int, ...]) -> None:
    """Several tokens without a mask are the whole text."""
    with pytest.raises(InputError, match="Attention is not made for queries"):
        kernels.attention(random(*queries), random(1, 2, 9, 32), random(1, 2, 9, 32), None)


@pytest.mark.usefixtures("here")
def test_heads_formats_and_masks_that_c_does_not_know_are_refused() -> None:
    def attend(k: int = 32, dtype: torch.dtype = torch.float32, mask: Tensor | None = None) -> Tensor:
        return kernels.attention(*[random(1, 1, 9, k).to(dtype)] * 3, mask)

    attend()
    for arguments in ({"k": 24}, {"k": 512}, {"dtype": torch.float64}, {"mask": torch.zeros(1, 1, 1, 9)}):
        with pytest.raises(InputError, match="Attention is not made for"):
            attend(**arguments)
    with pytest.raises(RuntimeError, match="expand"):
        attend(mask=torch.ones(1, 1, 1, 8, dtype=torch.bool))


@pytest.mark.usefixtures("here")
def test_the_operator_of_attention_is_a_good_one() -> None:
    queries, (keys, values) = random(2, 4, 9, 32), keys_and_values(2, 2, 9, 32, torch.float32)
    for seen in (None, torch.ones(1, 1, 9, 9, dtype=torch.bool)):
        torch.library.opcheck(torch.ops.course_utils.attention.default, (queries, keys, values, seen),
                              test_utils=("test_schema", "test_faketensor"))


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("t", [1, 20])
def test_a_model_attends_with_it(monkeypatch: pytest.MonkeyPatch, t: int, compiled: bool) -> None:
    monkeypatch.setattr(kernels, "_has_more_for_matrices", lambda dtype: False)
    torch.compiler.reset()
    queries, (keys, values) = random(2, 6, t, 32), keys_and_values(2, 3, 20, 32, torch.float32)
    mask = up_to_themselves(t, 20, torch.tensor([0, 7]))
    targets: list[str] = []

    def backend(graph: torch.fx.GraphModule, example_inputs: object) -> object:
        targets.extend(str(node.target) for node in graph.graph.nodes)
        return graph.forward

    def run(queries: Tensor) -> Tensor:
        return qwen3.attend(queries, keys, values, mask)

    with torch.no_grad():
        attended = (torch.compile(run, backend=backend, fullgraph=True) if compiled else run)(queries)
    usual = run(queries.requires_grad_())
    torch.testing.assert_close(attended, usual.detach())
    assert attended.grad_fn is None and usual.grad_fn is not None
    assert any("course_utils.attention" in target for target in targets) == compiled
    torch.compiler.reset()


# Building


@pytest.mark.usefixtures("here")
def test_a_library_is_kept_and_a_broken_one_built_again(forgetful: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert kernels.problem("int4") is None
    library, checksum = sorted(forgetful.iterdir(), key=lambda path: path.suffix, reverse=True)
    assert (library.suffix, checksum.suffix) == (".so", ".sha256")
    compiler = kernels._compiler()
    runs: list[object] = []
    real = build._run
    monkeypatch.setattr(build, "_run", lambda command: runs.append(command) or real(command))
    build.load("int4", compiler, compiler.instruction_sets[0])
    assert not runs
    for damaged in (b"", library.read_bytes()[:3000], b"no library"):
        library.unlink()  # a file that is loaded must not change
        library.write_bytes(damaged)
        runs.clear()
        assert build.load("int4", compiler, compiler.instruction_sets[0]).multiply
        assert len(runs) == 1
    assert {path.suffix for path in forgetful.iterdir()} == {".so", ".sha256"}


@pytest.mark.usefixtures("here")
def test_other_sources_flags_and_processors_have_libraries_of_their_own(forgetful: Path, tmp_path: Path,
                                                                        monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = kernels._compiler()
    other = build.Compiler(compiler.command, compiler.definitions + "#define __ANOTHER__ 1\n")
    for each in (compiler, other, build.Compiler((*compiler.command, "-g"), compiler.definitions)):
        build.load("int4", each, "PLAIN")
    shutil.copytree(build.SOURCES, tmp_path / "sources")
    monkeypatch.setattr(build, "SOURCES", tmp_path / "sources")
    with (tmp_path / "sources" / "lanes.h").open("a") as file:
        file.write("/* changed */\n")
    build.load("int4", compiler, "PLAIN")
    assert len(list(forgetful.glob("*.so"))) == 4


@pytest.mark.usefixtures("here")
def test_a_cache_that_cannot_be_written_costs_compiling_alone(forgetful: Path) -> None:
    forgetful.parent.mkdir(parents=True)
    forgetful.write_text("a file where the folder should be")
    assert kernels.problem("int4") is None
    assert multiply("int4", random(1, 64), operands("int4", 32, 64)[0]).shape == (1, 32)


@pytest.mark.usefixtures("here")
def test_two_processes_at_once(forgetful: Path) -> None:
    code = "from course_utils import kernels; print(kernels.problem('int4'))"
    processes = [subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) for _ in range(2)]
    assert [process.communicate()[0].strip() for process in processes] == ["None", "None"]
    assert {path.suffix for path in forgetful.iterdir()} == {".so", ".sha256"} and len(list(forgetful.iterdir())) == 2


# Without them


def check_that_all_goes_on(reason: str) -> None:
    problem = kernels.problem("int4")
    assert problem is not None and reason in problem and problem.endswith(".") and "\n" not in problem
    row = environment._kernels()
    assert row.status == "note" and reason in row.value and row.remedy
    for module in (Int8Linear, Int4Linear):
        linear, x = module(random(64, 96)), random(2, 96, seed=1)
        weight = linear.rows(torch.arange(64))
        torch.testing.assert_close(linear(x).double(), x.double() @ weight.double().T, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("forgetful")
def test_a_variable_switches_them_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(kernels.VARIABLE, "0")
    check_that_all_goes_on("COURSE_KERNELS is 0")


@pytest.mark.usefixtures("forgetful")
def test_without_a_compiler(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", os.devnull)
    check_that_all_goes_on("there is no C compiler")


@pytest.mark.usefixtures("forgetful")
@pytest.mark.parametrize(("fake", "reason"), [("fails", "failed (x.c:1: error: no such thing)"),
                                              ("hangs", "was not ready within 1 seconds")])
@pytest.mark.skipif(sys.platform == "win32", reason="needs POSIX: the compiler is a shell script")
def test_a_compiler_that_does_not_work(fake: str, reason: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiler = tmp_path / "cc"
    compiler.write_text(f"#!/bin/sh\n{FAKE_COMPILER[fake]}\n")
    compiler.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setattr(build, "TIME_LIMIT", 1.0)
    check_that_all_goes_on(reason)


@pytest.mark.usefixtures("here", "forgetful")
def test_a_processor_without_a_dot_product_of_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    """There the plain loop would be slower than PyTorch's operators."""
    monkeypatch.setattr(build, "INSTRUCTION_SETS", {"PLAIN": ()})
    check_that_all_goes_on("this processor")


@pytest.mark.usefixtures("here", "forgetful")
def test_a_wrong_result_is_found(change_source: Callable[[str, str, str], None]) -> None:
    change_source("rounded.h", "limit / 127", "limit / 126")
    check_that_all_goes_on("a trial gave a wrong result")


@pytest.mark.usefixtures("here", "forgetful")
@pytest.mark.parametrize(("name", "right", "wrong"), [
    ("attention.c", "/ sums[q]", "/ 2"), ("attention.c", "if (!seen[i])", "if (0)"),
    ("exponential.h", "(x <= -87)", "(x <= -1)"), ("exponential.h", "-0x1.62e4p-1f", "-0x1.6p-1f"),
    ("tiles.c", "if (!seen[key])", "if (0)"), ("tiles.c", "exponential(before - largest)", "all(1)"),
    ("tiles.c", "/ b->totals[row]", "/ 2"), ("tiles.c", "tile + key", "key"),
    ("tiles.c", "(last <", "(last - 1 <"), ("tiles.c", "p->newest + token;", "p->newest;")])
def test_wrong_attention_is_found(name: str, right: str, wrong: str,
                                  change_source: Callable[[str, str, str], None]) -> None:
    change_source(name, right, wrong)
    assert any("a trial gave a wrong result" in str(kernels.problem(kernel)) for kernel in kernels.ATTENTION)
    with torch.no_grad():
        assert not kernels.attends(*[random(1, 1, 1, 16)] * 3)
