"""An example of every picture, for the tests of what all of them have to be like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure

from course_utils import plots
from course_utils.attention_tiles import softmax_steps
from course_utils.benchmark.report import Report, RowResult, Run, Settings
from course_utils.family import FAMILY
from course_utils.generation import Step
from course_utils.planner import H100, L4, pass_work, plan
from course_utils.sinusoidal import sinusoidal_encoding
from course_utils.speculative import Round
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.loop import TrainingPlan

_QWEN = FAMILY["Qwen/Qwen3-0.6B"]
_WAYS = {"KV cache": plots.Point(1.0, 35e9), "int8": plots.Point(2.0, 50e9), "int4": plots.Point(3.3, 80e9)}
_PROMPTS = {"prefill 16": plots.Point(5.0, 60e9), "prefill 256": plots.Point(80.0, 600e9)}
_WORDS = ["cat", "dog", "fox", "bear", "owl", "bee", "snail"]
_CHANCES = torch.tensor([0.30, 0.20, 0.15, 0.12, 0.10, 0.08, 0.05])
_ROUND = Round([11, 12, 13, 14], 2, [11, 12, 99])
_TEXTS = {11: " once", 12: " upon", 13: " the", 14: " hill", 15: " time", 16: ".", 99: " a"}
_STEPS = [Step(5, [(5, 0.5), (6, 0.25), (7, 0.125)], [0.667, 0.333, 0.0]), Step(7, [(7, 1.0)], [1.0])]


def _report() -> Report:
    runs = [Run(first=0.5, steps=[0.05, 0.05], bandwidth=60e9), Run(first=0.6, steps=[0.06, 0.06], bandwidth=70e9)]
    weights = 2 * 596_049_920
    rows = [RowResult("regular", "regular", weight_bytes=weights, runs=runs),
            RowResult("kv", "KV cache", weight_bytes=weights, cache_bytes=114_688, runs=runs[1:]),
            RowResult("int8", "int8", weight_bytes=weights // 2, cache_bytes=114_688, runs=runs[:1])]
    return Report("2026-11-21T00:00:00+00:00", "Qwen3-0.6B", "random weights", _QWEN, Settings(prompt_tokens=64), {},
                  {}, 1, rows, arithmetic=1e12)


def _gains() -> dict[float, dict[int, float]]:
    return {rate: {count: sum(rate**n for n in range(count + 1)) / (1 + 0.1 * count) for count in range(1, 9)}
            for rate in (0.95, 0.8, 0.5)}


GALLERY: dict[Callable[..., Figure], Callable[[Qwen3Tokenizer], Figure]] = {
    plots.abilities: lambda _: plots.abilities({
        way: {"Yang, asked in English": share, "notions explained": 1.0}
        for way, share in {"before": 0.0, "full": 1.0, "with practice": 0.88, "LoRA": 0.8}.items()}),
    plots.attention_maps: lambda _: plots.attention_maps(
        torch.ones(2, 9, 9).tril() / torch.arange(1, 10)[:, None], [f"␣token{n}" for n in range(9)],
        ["layer 5, head 7", "layer 0, head 0"]),
    plots.attention_memory: lambda _: plots.attention_memory(
        [512, 1024, 2048], {"all scores": [4e6, 16e6, 64e6], "in tiles": [1e6, 2e6, 4e6]}),
    plots.benchmark_picture: lambda _: plots.benchmark_picture(_report()),
    plots.cache_kinds: lambda _: plots.cache_kinds(4, 4, 10),
    plots.cache_memory: lambda _: plots.cache_memory(
        {name: FAMILY[f"Qwen/{name}"] for name in ("Qwen3-0.6B", "Qwen3-8B", "Qwen3-32B")}, 40_960,
        {"weights of Qwen3-0.6B": 2 * 596_049_920}),
    plots.call_times: lambda _: plots.call_times([0.02, 0.003, 0.003, 0.003], [0.5, 0.3, 0.002, 0.001]),
    plots.candidate_lines: lambda tokenizer: plots.candidate_lines(_STEPS, tokenizer),
    plots.course_map: lambda _: plots.course_map(),
    plots.generation_loop: lambda _: plots.generation_loop("Explain logits.", [2240, 2135, 13], " Logits"),
    plots.group_trade: lambda _: plots.group_trade(
        {16: (6.0, 0.008), 32: (5.0, 0.012), 64: (4.5, 0.015), 128: (4.25, 0.018), 256: (4.125, 0.022)}),
    plots.learning_curve: lambda _: plots.learning_curve(
        {n: 8 / n**0.3 for n in range(1, 99)}, {n: 8 / n**0.29 for n in (40, 90)}, {"guessing": 8.8, "tiny": 0.6}),
    plots.learning_rate: lambda _: plots.learning_rate(TrainingPlan(steps=200, warm_up_steps=20, learning_rate=0.006)),
    plots.likeliest_by_layer: lambda tokenizer: plots.likeliest_by_layer(
        8 * torch.eye(400)[None, :6].repeat(7, 1, 1), tokenizer, [f"␣token{n}" for n in range(6)]),
    plots.likeliest_tokens: lambda tokenizer: plots.likeliest_tokens([(n, 0.5**n) for n in range(1, 6)], tokenizer),
    plots.memory_plan: lambda _: plots.memory_plan({
        size: plan(FAMILY[f"Qwen/Qwen3-{size}"], H100, users=64) for size in ("0.6B", "8B", "32B")}),
    plots.model_shapes: lambda _: plots.model_shapes([plots.PartShape(name, shape) for name, shape in (
        ("token ids", (1, 5)), ("embed_tokens", (1, 5, 256)), ("6 layers", (1, 5, 256)), ("norm", (1, 5, 256)),
        ("lm_head: logits", (1, 5, 6656)), ("last row", (1, 6656)), ("next token", (1, 1)))], rows=5),
    plots.model_sizes: lambda _: plots.model_sizes(
        {"tiny": 12_900_000, "Qwen3-4B": 8 * 10**9, "Qwen3-14B": 29 * 10**9}, 10**10),
    plots.number_formats: lambda _: plots.number_formats(["float32", "bfloat16", "float16", "int8"]),
    plots.number_line: lambda _: plots.number_line(_CHANCES.tolist(), _WORDS, [0.1, 0.55, 0.97]),
    plots.softmax_in_tiles: lambda _: plots.softmax_in_tiles(
        [0.5, 1.5, -1.0, 0.0, 1.0, 3.0], softmax_steps([0.5, 1.5, -1.0, 0.0, 1.0, 3.0], 2)[1]),
    plots.packed_blocks: lambda _: plots.packed_blocks([
        np.array([1] * 6 + [0] + [1] * 7 + [0] + [1] * 4), np.array([1] * 9 + [0] + [1] * 9)], 0),
    plots.parameter_parts: lambda _: plots.parameter_parts({
        "Qwen3-0.6B": {"embedding": 26, "attention": 30, "MLP": 43, "norms": 1, "output": 0},
        "Qwen3-8B": {"embedding": 8, "attention": 18, "MLP": 66, "norms": 1, "output": 8}}),
    plots.pipeline: lambda _: plots.pipeline("Explain logits.", [2240, 2135, 13], 417, " Logits"),
    plots.planned_roofline: lambda _: plots.planned_roofline(plan(_QWEN, H100), pass_work(_QWEN, "bfloat16", 1, 4095),
                                                             pass_work(_QWEN, "bfloat16", 4096), L4),
    plots.position_waves: lambda _: plots.position_waves(sinusoidal_encoding(64, 32)),
    plots.prefill_and_decode: lambda _: plots.prefill_and_decode([0.05, *[0.02] * 8], 96),
    plots.product_rates: lambda _: plots.product_rates(
        {"Python": 2e6, "C, portable": 1.3e9, "C, AVX512_VNNI": 40e9}, 42e9),
    plots.radix_tree: lambda tokenizer: plots.radix_tree(plots.TreeStep(
        {(1, 2, 3, 4): 4, (1, 2, 3, 4, 5): 1, (8, 9): 2}, {(1, 2, 3, 4): 4, (1, 2, 3, 4, 5): 1, (1, 2, 3, 4, 6, 7): 2},
        [(1, 2, 3, 4)]), tokenizer),
    plots.ranked_probabilities: lambda _: plots.ranked_probabilities(
        {"open": 1 / torch.arange(1.0, 1000), "certain": 1 / torch.arange(1.0, 1000)**3},
        {"top-k 20": {"open": 20, "certain": 20}, "top-p 0.9": {"open": 59, "certain": 1},
         "min-p 0.1": {"open": 10, "certain": 2}}),
    plots.recomputation: lambda _: plots.recomputation(5, 8),
    plots.reuse: lambda _: plots.reuse(5, 8),
    plots.roofline: lambda _: plots.roofline(_WAYS, _PROMPTS, 50e9, 900e9),
    plots.rotary_angles: lambda _: plots.rotary_angles(torch.tensor([1.0, 0.1, 0.01]), [0, 1, 2]),
    plots.slots: lambda _: plots.slots({"static": [(0, 1), (0, None), (2, 3)], "continuous": [(0, 1), (0, 2), (3, 2)]}),
    plots.speculation_gain: lambda _: plots.speculation_gain(
        {"checking is free": _gains(), "checking costs": _gains()}),
    plots.speculation_rounds: lambda _: plots.speculation_rounds(
        [_ROUND, Round([15, 16], 2, [15, 16, 99])], _TEXTS.__getitem__),
    plots.speculation_step: lambda _: plots.speculation_step(_ROUND, _TEXTS.__getitem__),
    plots.speed_bars: lambda _: plots.speed_bars({"regular": 24.0, "KV cache": 84.0, "int8": 125.8},
                                                 {"regular": 160.0, "KV cache": 160.0, "int8": 320.0}),
    plots.split_matrices: lambda _: plots.split_matrices(),
    plots.step_bytes: lambda _: plots.step_bytes(_QWEN, 16_384),
    plots.step_time: lambda _: plots.step_time([32, 64, 128, 256], [0.02, 0.03, 0.04, 0.13], [0.01, 0.01, 0.01, 0.01]),
    plots.at_temperatures: lambda _: plots.at_temperatures(_CHANCES.log(), _WORDS, [0.3, 1, 3, 30]),
    plots.throughput_latency: lambda _: plots.throughput_latency({1: 0.02, 2: 0.035, 8: 0.04, 32: 0.07}),
    plots.time_by_length: lambda _: plots.time_by_length(
        {"tiny": {8: 0.005, 512: 0.08}, "Qwen3-0.6B": {8: 0.03, 128: 0.07}}),
    plots.token_shares: lambda _: plots.token_shares(["' a'", "' the'", "all others"], {
        "target, p": [0.5, 0.3, 0.2], "draft, q": [0.3, 0.4, 0.3], "the rule": [0.5, 0.29, 0.21]}),
    plots.tokens_per_pass: lambda _: plots.tokens_per_pass({1: 1.5, 2: 2.1, 4: 2.5}, {
        rate: {k: sum(rate**n for n in range(k + 1)) for k in range(1, 9)} for rate in (0.5, 0.7, 0.95)}),
    plots.training_memory: lambda _: plots.training_memory({
        "full": {"weights": 26e6, "gradients": 26e6, "moments": 52e6},
        "LoRA": {"weights": 26e6, "gradients": 1e6, "moments": 2e6}}),
    plots.vocabulary_sizes: lambda _: plots.vocabulary_sizes(
        {"this tokenizer": 6_626, "GPT-2": 50_257, "Qwen3": 151_669}, "this tokenizer"),
    plots.vocabulary_trade: lambda _: plots.vocabulary_trade(
        [256, 1024, 6600], {"English": [98, 39, 27], "Chinese": [93, 39, 23]}),
    plots.word_similarity: lambda _: plots.word_similarity(torch.eye(7) * 1.4 - 0.4, [f"␣{word}" for word in _WORDS]),
}
