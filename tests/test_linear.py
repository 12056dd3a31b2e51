"""Linear layers: every way of multiplying gives the same product, and the process's switch ends as it was."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils import Qwen3Model, kernels
from course_utils import linear as linear_module
from course_utils.config import Qwen3Config
from course_utils.linear import Linear, is_one_vector, vector_products

CONFIG = Qwen3Config(vocab_size=96, hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4,
                     num_key_value_heads=2, head_dim=16, max_position_embeddings=64)

ONE_VECTOR = [(1, 40), (1, 1, 40), (40,)]
MANY_VECTORS = [(2, 40), (2, 1, 40), (1, 3, 40)]
CPU = torch.device("cpu")


@pytest.fixture(autouse=True)
def forget_compiled_code() -> Iterator[None]:
    torch.compiler.reset()
    yield
    torch.compiler.reset()


@pytest.fixture(autouse=True)
def onednn_is_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert torch.backends.mkldnn.enabled, "an earlier test left oneDNN switched off"
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", True)  # puts it back even if a test fails


def make(dtype: torch.dtype = torch.float32) -> Linear:
    generator = torch.Generator().manual_seed(0)
    linear = Linear(40, 24)
    torch.nn.init.normal_(linear.weight, generator=generator)
    return linear.to(dtype)


def vectors(shape: tuple[int, ...], dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(1)).to(dtype)


def compiled(linear: Linear, nodes: list[torch.fx.Node] | None = None) -> Callable[[Tensor], Tensor]:
    """What the compiler is given to compile, run as it stands; `nodes` collects it."""

    def backend(graph: torch.fx.GraphModule, example_inputs: object) -> Callable[..., object]:
        if nodes is not None:
            nodes.extend(graph.graph.nodes)
        return graph.forward

    call: Callable[[Tensor], Tensor] = torch.compile(linear, backend=backend, fullgraph=True)
    return call


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("way", ["eager", "compiled", "without oneDNN"])
@pytest.mark.parametrize("shape", ONE_VECTOR + MANY_VECTORS, ids=str)
def test_the_product_is_that_of_a_linear_layer(shape: tuple[int, ...], way: str, dtype: torch.dtype) -> None:
    linear, x = make(dtype), vectors(shape, dtype)
    exact = F.linear(x.double(), linear.weight.double())
    if way == "without oneDNN":
        with vector_products(CPU):
            product = linear(x)
    else:
        product = (compiled(linear) if way == "compiled" else linear)(x)
    assert product.shape == exact.shape and product.dtype == dtype
    # Added up in float32, whose error grows with the terms, and rounded to the format once, at the end.
    terms = F.linear(x.double().abs(), linear.weight.double().abs())
    bound = torch.finfo(dtype).eps * exact.abs() + 4 * torch.finfo(torch.float32).eps * terms
    assert ((product - exact).abs() <= bound).all()


@pytest.mark.parametrize("shape", ONE_VECTOR + MANY_VECTORS, ids=str)
def test_only_a_single_vector_is_compiled_to_a_sum(shape: tuple[int, ...]) -> None:
    nodes: list[torch.fx.Node] = []
    compiled(make(), nodes)(vectors(shape))
    called = {node.target for node in nodes}
    assert ("sum" in called) == (F.linear not in called) == is_one_vector(vectors(shape)) == (shape in ONE_VECTOR)


@pytest.mark.parametrize("way", ["eager", "compiled"])
@pytest.mark.parametrize("shape", [(1, 1, 40), (1, 3, 40)], ids=str)
def test_gradients_flow_to_input_and_weight(shape: tuple[int, ...], way: str) -> None:
    linear, x = make(), vectors(shape).requires_grad_()
    (compiled(linear) if way == "compiled" else linear)(x).square().sum().backward()
    weight, other = linear.weight.detach().clone().requires_grad_(), vectors(shape).requires_grad_()
    (other @ weight.T).square().sum().backward()
    torch.testing.assert_close(x.grad, other.grad)
    torch.testing.assert_close(linear.weight.grad, weight.grad)


def test_there_is_no_bias() -> None:
    assert list(make().state_dict()) == ["weight"]


# The switch


def test_the_switch_is_off_inside_and_on_again_behind() -> None:
    with vector_products(CPU):
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_the_switch_is_on_again_after_an_error(error: type[BaseException]) -> None:
    with pytest.raises(error), vector_products(CPU):
        raise error
    assert torch.backends.mkldnn.enabled


@pytest.mark.parametrize("device", ["cuda", "mps", "meta"])
def test_other_devices_leave_the_switch_alone(device: str) -> None:
    with vector_products(torch.device(device)):
        assert torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled


def test_who_has_switched_it_off_finds_it_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.mkldnn, "enabled", False)
    with vector_products(CPU):
        assert not torch.backends.mkldnn.enabled
    assert not torch.backends.mkldnn.enabled


def test_the_inner_of_two_blocks_does_not_end_the_outer() -> None:
    with vector_products(CPU):
        with vector_products(CPU):
            pass
        assert not torch.backends.mkldnn.enabled
    assert torch.backends.mkldnn.enabled


# The choice between routines


@pytest.fixture
def empty_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """As in a new process on a new machine: where what is found will be kept."""
    monkeypatch.setattr(linear_module, "kernel_folder", lambda: tmp_path / "cache")
    linear_module.routine_speeds.cache_clear()
    yield tmp_path / "cache"
    linear_module.routine_speeds.cache_clear()


def speeds(dtype: torch.dtype = torch.bfloat16) -> dict[str, float]:
    return dict(linear_module.routine_speeds(dtype, torch.get_num_threads()))


def test_routines_are_tried_once_and_remembered(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tried = speeds()
    assert set(tried) >= {"oneDNN", "PyTorch"} and all(speed > 0 for speed in tried.values())
    assert ("kernel" in tried) == (kernels.problem("bfloat16") is None)
    assert linear_module.fastest_routine(torch.bfloat16) == max(tried, key=lambda name: tried[name])
    linear_module.routine_speeds.cache_clear()  # another process
    monkeypatch.setattr(linear_module, "_try_routines", None)
    assert speeds() == tried and len(list(empty_cache.iterdir())) == 1


def test_other_formats_and_threads_are_tried_on_their_own(empty_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[torch.dtype] = []
    monkeypatch.setattr(linear_module, "_try_routines", lambda dtype, routines: calls.append(dtype) or dict.fromkeys(
        routines, 1.0))
    assert set(speeds(torch.float32)) == {"oneDNN", "PyTorch"}
    speeds()
    linear_module.routine_speeds(torch.bfloat16, 77)
    assert calls == [torch.float32, torch.bfloat16, torch.bfloat16] and len(list(empty_cache.iterdir())) == 3


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"oneDNN": 1.0}', '{"oneDNN": NaN, "PyTorch": 1.0}',
                                     '{"oneDNN": "fast", "PyTorch": 1.0}'])
def test_what_is_broken_is_tried_again(content: str, empty_cache: Path) -> None:
    speeds(torch.float32)
    file = next(empty_cache.iterdir())
    file.write_text(content)
    linear_module.routine_speeds.cache_clear()
    speeds(torch.float32)
    assert set(json.loads(file.read_text())) == {"oneDNN", "PyTorch"}


def test_a_cache_that_cannot_be_written_is_done_without(empty_cache: Path) -> None:
    empty_cache.write_text("a file where the folder should be")
    assert set(speeds(torch.float32)) == {"oneDNN", "PyTorch"}


@pytest.mark.parametrize("routine", ["oneDNN", "PyTorch", "kernel"])
def test_the_model_uses_the_fastest(routine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if routine == "kernel" and (problem := kernels.problem("bfloat16")) is not None:
        pytest.skip(problem)
    monkeypatch.setattr(linear_module, "routine_speeds", lambda dtype, threads: {
        name: 2.0 if name == routine else 1.0 for name in ("oneDNN", "PyTorch", "kernel")})
    model = Qwen3Model(CONFIG).bfloat16().eval()
    used: list[str] = []
    for name, call in (("F.linear", F.linear), ("kernel", kernels.bfloat16_products)):
        def spy(*args: Tensor, name: str = name, call: Callable[..., Tensor] = call) -> Tensor:
            used.append(name if name == "kernel" else "oneDNN" if torch.backends.mkldnn.enabled else "PyTorch")
            return call(*args)
        monkeypatch.setattr(*((F, "linear") if name != "kernel" else (kernels, "bfloat16_products")), spy)
    one = torch.tensor([[3]])
    with torch.inference_mode():
        logits = model(one)
    products = 7 * CONFIG.num_hidden_layers + 1
    assert used == [routine] * products
    used.clear()
    with torch.inference_mode():
        model(one.expand(1, 4))
    assert set(used) == {"oneDNN"}  # many vectors
    used.clear()
    model(one).sum().backward()
    assert set(used) == {"oneDNN"}  # the others know nothing of gradients, or are not worth a switch
    monkeypatch.undo()
    torch.testing.assert_close(logits, model(one), rtol=0.02, atol=0.02)
