"""The private parts of PyTorch: in one module, named where a learner sees one, and missed by nobody once gone."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_model import make, variant

import course_utils
from course_utils import kernels, quantization, torch_internals
from course_utils.quantization import KINDS, Int4Linear, Int8Linear, Kind, quantize

PACKAGE = Path(course_utils.__file__).parent
NOTEBOOKS = sorted((PACKAGE.parent / "notebooks").glob("*.ipynb"))
WIDE = variant(hidden_size=64, intermediate_size=128, vocab_size=256)  # sizes that int4 can have, too


def private_parts(tree: ast.Module) -> Iterator[str]:
    """Paths such as torch._int_mm that a program names, in its imports or elsewhere."""
    for node in ast.walk(tree):
        paths = []
        if isinstance(node, ast.Attribute):
            paths = [ast.unparse(node)]
        elif isinstance(node, ast.ImportFrom):
            paths = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            paths = [alias.name for alias in node.names]
        for path in paths:
            parts = path.split(".")
            if parts[0] == "torch" and any(part.startswith("_") and not part.endswith("__") for part in parts):
                yield path


def test_the_package_has_them_in_one_module() -> None:
    found = {path.relative_to(PACKAGE).as_posix(): parts for path in PACKAGE.rglob("*.py")
             if (parts := sorted(private_parts(ast.parse(path.read_text(encoding="utf-8")))))}
    assert found == {}  # that one asks for each by its name, as a text


@pytest.mark.parametrize("path", NOTEBOOKS, ids=[path.stem for path in NOTEBOOKS])
def test_a_chapter_says_that_what_it_takes_is_private(path: Path) -> None:
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        source = "".join(cell["source"])
        if cell["cell_type"] == "code" and not source.lstrip().startswith(("%", "!")):
            parts = list(private_parts(ast.parse(source)))
            assert not parts or "# Private" in source, parts


@pytest.fixture
def gone(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A PyTorch without any of them."""
    with monkeypatch.context() as patch:
        for name in ("_weight_int8pack_mm", "_int_mm", "_convert_weight_to_int4pack_for_cpu"):
            patch.delattr(torch, name)
        importlib.reload(torch_internals)
        patch.setattr(kernels, "problem", lambda kernel: "There is no C compiler.")  # else nobody asks PyTorch
        patch.setattr(torch_internals, "INT4_PRODUCT", None)  # what is looked up in C++ cannot be deleted
        patch.setattr(torch_internals, "_part", lambda path: None)
        yield
    importlib.reload(torch_internals)


@pytest.mark.usefixtures("gone")
@pytest.mark.parametrize("vectors", [1, 8, 9, 129])  # below and above what each product was made for
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_quantized_layers_are_plain_products_without_them(kind: Kind, dtype: torch.dtype, vectors: int) -> None:
    assert quantization._pytorch_order() is None
    layer = quantize(make(WIDE, dtype), kind).model.layers[0].mlp.gate_proj
    assert type(layer) is (Int8Linear if kind == "int8" else Int4Linear)
    weight = layer.rows(torch.arange(layer.weight.shape[0]))
    x = torch.randn(vectors, 64, generator=torch.Generator().manual_seed(0)).to(dtype)
    expected = x.double() @ weight.double().T
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert (layer(x).double() - expected).abs().max() <= tolerance * expected.abs().max()


@pytest.mark.usefixtures("gone")
def test_what_is_only_for_a_compiler_is_left_out() -> None:
    torch_internals.specialize_floats()
    torch_internals.mark_static_address(torch.zeros(2))
    assert torch_internals.can_trace() and torch_internals.graphs_made() == 0
    assert torch_internals.generated_code(max, 2, 3) == (3, [])


def test_what_a_compiler_is_asked_for_is_there() -> None:
    """In the PyTorch that is tested here: whoever raises its version learns here what is gone."""
    assert None not in (torch_internals.INT8_PRODUCT, torch_internals.INTEGER_PRODUCT, torch_internals.INT4_PRODUCT,
                        torch_internals.PACK_INT4)
    for path in ("_dynamo.config", "_dynamo.mark_static_address", "_dynamo.is_dynamo_supported",
                 "_dynamo.utils.counters", "_inductor.utils.run_and_get_code"):
        assert torch_internals._part(path) is not None, path
    assert hasattr(torch_internals._part("_dynamo.config"), "specialize_float")
    assert torch_internals._part("_nothing.of_this") is None is torch_internals._part("_dynamo.nothing_of_this")
