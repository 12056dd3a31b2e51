"""The private parts of PyTorch: in one module, named where a learner sees one, and missed by nobody once gone."""

from __future__ import annotations

import ast
import importlib
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from test_model import make, prompt, variant

import course_utils
from course_utils import quantization, torch_internals
from course_utils.quantization import KINDS, Kind, quantize

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
        patch.setattr(torch_internals, "INT4_PRODUCT", None)  # what is looked up in C++ cannot be deleted
        patch.setattr(torch_internals, "_part", lambda path: None)
        yield
    importlib.reload(torch_internals)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_quantized_models_compute_the_same_without_them(kind: Kind, dtype: torch.dtype,
                                                        request: pytest.FixtureRequest) -> None:
    model, ids = quantize(make(WIDE, dtype), kind), prompt(1, 20)
    with torch.no_grad():
        few, many = model(ids[:, :6]), model(ids)
        request.getfixturevalue("gone")
        assert quantization._cpu_block() is None
        tolerance = 1e-5 if dtype == torch.float32 else 3e-2
        assert (model(ids[:, :6]) - few).abs().max() <= tolerance * few.abs().max()
        # int8 rounds many vectors, and without the product of integers it does not.
        tolerance = max(tolerance, 3e-2) if kind == "int8" else tolerance
        assert (model(ids) - many).abs().max() <= tolerance * many.abs().max()


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
