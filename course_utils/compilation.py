"""Whether `torch.compile` works on this machine, and a way back where it does not.

Needed are a C++ compiler and Python's headers on a CPU, Triton on a GPU, and versions of Python and PyTorch
that go together. Instead of asking for each, `compile_problem` compiles something small and looks whether the
result is right. What is larger may still fail, and later: what `compile_or_eager` and `compile_model` give back then
goes on uncompiled, and a warning says why.
"""

from __future__ import annotations

import copy
import functools
import re
import textwrap
import types
import warnings
from collections.abc import Callable
from typing import Any, TypeVar, cast

import torch
from torch import Tensor

from course_utils.kv_cache import Cache, StaticKVCache
from course_utils.language import gettext
from course_utils.qwen3 import DecoderLayer, Qwen3Model
from course_utils.torch_internals import specialize_floats

Compilable = TypeVar("Compilable", bound=Callable[..., Any])


@functools.cache
def compile_problem(device: torch.device | str) -> str | None:
    """Try `torch.compile` on a small function. The first call takes some seconds, later ones remember it.

    Args:
        device: where the compiled code is to run.

    Returns:
        None if it works, else one sentence that says what is missing and that everything runs without it.
    """

    def gate(x: Tensor) -> Tensor:
        return x * torch.sigmoid(x)

    x = torch.linspace(-1, 1, 64, device=device)
    try:
        result = torch.compile(gate)(x)
    except Exception as error:  # whatever a compiler may say
        return gettext("torch.compile does not work here ({compiler_reason}), so everything runs uncompiled; chapter 1 "
                       "says what to install.").format(compiler_reason=compiler_reason(error))
    if not torch.allclose(result, gate(x), atol=1e-5):
        return gettext("torch.compile gives wrong results here, so everything runs uncompiled; "
                        "install another version of PyTorch.")
    return None


def compiler_reason(error: Exception) -> str:
    """What the compiler itself says, in one line without a full stop."""
    lines = [line.strip() for line in str(error).splitlines()]
    its_own = [line for line in lines if re.search(r"\berror\b( \w+)?:", line)]  # among the output of a C++ compiler
    others = [line for line in lines if line and not re.fullmatch("backend=.* raised:", line)]
    return textwrap.shorten([*its_own, *others, type(error).__name__][0].rstrip(".:"), 300)


def compile_or_eager(fn: Compilable, device: torch.device | str, **options: Any) -> Compilable:
    """`torch.compile(fn, **options)` where that works, and `fn` as it is where it does not.

    Args:
        fn: a model or a function of tensors; a compiled model shares the weights of the given one.
        device: where it is to run.
        options: as of `torch.compile`: `dynamic`, `mode`, `backend` and others.

    Returns:
        What is called like `fn`. It is compiled when it is first called, not now. If that fails, `fn` is called in its
        place from then on, and a warning gives the compiler's reason.
    """
    if compile_problem(device) is not None:
        return fn
    compiled: Any = torch.compile(fn, **options)
    if not isinstance(fn, torch.nn.Module):
        return cast(Compilable, _or_plain(compiled, fn))
    compiled.forward = _or_plain(compiled.forward, fn.__call__)
    return cast(Compilable, compiled)


def _or_plain(compiled: Callable[..., Any], plain: Callable[..., Any]) -> Callable[..., Any]:
    """`compiled` until compiling fails, and from then on `plain`; a call that failed can be made again."""
    works = True

    @functools.wraps(plain)
    def call(*args: Any, **kwargs: Any) -> Any:
        nonlocal works
        problem = None
        if works:
            try:
                return compiled(*args, **kwargs)
            except Exception as error:  # whatever a compiler may say
                if "fail_on_recompile" in str(error):  # the caller has asked for it: torch.compiler.set_stance
                    raise
                problem = compiler_reason(error)
        result = plain(*args, **kwargs)  # what fails here, too, is not the compiler's fault, and goes up from here
        if problem is not None:
            works = False
            warn_uncompiled(problem)
        return result

    return call


def warn_uncompiled(reason: str) -> None:
    """Warn that compiling has failed after all, with the compiler's reason."""
    warnings.warn(gettext("torch.compile failed ({reason}), so the model or function goes on uncompiled; chapter 1 "
                          "says what to install.").format(reason=reason), stacklevel=3)


def compile_model(model: Qwen3Model) -> Qwen3Model:
    """A model with the same weights whose arithmetic is compiled; its checks and bookkeeping stay plain Python.

    All layers do the same, so one is compiled and used for all of them: once for prompts of any length, once for a
    single new token. That takes seconds where the model as a whole would take a minute; later processes find the
    result in PyTorch's compile cache. On an NVIDIA GPU, where starting many small programs is what costs, the step
    for a single token with a `StaticKVCache` is compiled as a whole and recorded as a CUDA graph.

    Args:
        model: is left as it is.

    Returns:
        The compiled model, in evaluation mode, or `model` itself if it is one, or where `torch.compile` does not work
        (`compile_problem` says why). If compiling fails later, it goes on uncompiled, and a warning gives the
        compiler's reason.
    """
    if model.compiled or compile_problem(model.device) is not None:
        return model
    specialize_floats()
    fast = with_shared_weights(model)
    for kind, modules in ((DecoderLayer, fast.model.layers), (type(fast.lm_head), [fast.lm_head])):
        forward = _compiled_for_this_model(kind.forward)
        for module in modules:
            module.forward = types.MethodType(forward, module)
    compute = fast.compute
    if model.device.type == "cuda":
        by_layer = compute
        recorded: Any = torch.compile(with_shared_weights(model).compute, mode="reduce-overhead", dynamic=False)

        def by_length(token_ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None,
                      last_only: bool) -> Tensor:
            if token_ids.shape[1] > 1 or not isinstance(cache, StaticKVCache):
                return by_layer(token_ids, positions, mask, cache, last_only)
            torch.compiler.cudagraph_mark_step_begin()
            return recorded(token_ids, positions, mask, cache, last_only)

        compute = by_length
    uncompiled = with_shared_weights(model)

    def plain(token_ids: Tensor, positions: Tensor, mask: Tensor | None, cache: Cache | None,
              last_only: bool) -> Tensor:
        if cache is not None:
            cache.reserve(token_ids.shape[1])  # drops the keys and values of layers before the one that failed
        return uncompiled.compute(token_ids, positions, mask, cache, last_only)

    fast.compute = _or_plain(compute, plain)  # type: ignore[method-assign]
    fast.compiled = True
    return fast


def with_shared_weights(model: Qwen3Model) -> Qwen3Model:
    """A copy that holds the very tensors of the model, and keeps them whatever layers the model is given later.

    It is in evaluation mode, since compiled code does not ask again whether there is to be dropout.
    """
    tensors = [*model.parameters(), *model.buffers()]
    return copy.deepcopy(model, {id(tensor): tensor for tensor in tensors}).eval()


def _compiled_for_this_model(function: Any) -> Callable[..., Any]:
    """Compile a method that is called on modules which are all alike and never change.

    Before each call compiled code asks about every attribute of the module whether it is as it was; for a layer of
    a small model that takes as long as the arithmetic. Skipping these questions is safe here, since nobody else has
    the modules, and since the compiled code is kept with this copy of the function, which no other model calls.
    """
    own = types.FunctionType(function.__code__.replace(), function.__globals__, function.__name__)
    options: dict[str, Any] = {}
    if hasattr(torch.compiler, "skip_guard_on_all_nn_modules_unsafe"):  # since PyTorch 2.8
        options["guard_filter_fn"] = torch.compiler.skip_guard_on_all_nn_modules_unsafe
    compiled: Any = torch.compile(own, dynamic=True, options=options)
    return compiled
