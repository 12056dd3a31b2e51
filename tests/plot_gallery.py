"""An example of every picture, for the tests of what all of them have to be like."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from matplotlib.figure import Figure

from course_utils.benchmark.report import Report, RowResult, Run, Settings
from course_utils.family import FAMILY
from course_utils.generation import Step
from course_utils.planner import H100, L4, pass_work, plan
from course_utils.plots.abilities import abilities
from course_utils.plots.attention_maps import attention_maps
from course_utils.plots.benchmark import benchmark_picture
from course_utils.plots.cache_kinds import cache_kinds
from course_utils.plots.cache_memory import cache_memory
from course_utils.plots.call_times import call_times
from course_utils.plots.candidates import candidate_lines
from course_utils.plots.learning_curve import learning_curve
from course_utils.plots.learning_rate import learning_rate
from course_utils.plots.likeliest import likeliest_tokens
from course_utils.plots.likeliest_by_layer import likeliest_by_layer
from course_utils.plots.memory_plan import memory_plan
from course_utils.plots.model_sizes import model_sizes
from course_utils.plots.number_formats import number_formats
from course_utils.plots.number_line import number_line
from course_utils.plots.packed_blocks import packed_blocks
from course_utils.plots.parameter_parts import parameter_parts
from course_utils.plots.pipeline import generation_loop, pipeline
from course_utils.plots.position_waves import position_waves
from course_utils.plots.prefill_decode import prefill_and_decode
from course_utils.plots.radix_tree import TreeStep, radix_tree
from course_utils.plots.ranked_probabilities import ranked_probabilities
from course_utils.plots.recomputation import recomputation, reuse
from course_utils.plots.roofline import Point, planned_roofline, roofline
from course_utils.plots.rotary_angles import rotary_angles
from course_utils.plots.shapes import Stage, model_shapes
from course_utils.plots.slots import slots
from course_utils.plots.speculation_gain import speculation_gain
from course_utils.plots.speculation_rounds import speculation_rounds
from course_utils.plots.speculation_step import speculation_step
from course_utils.plots.speed_bars import speed_bars
from course_utils.plots.split_matrices import split_matrices
from course_utils.plots.step_bytes import step_bytes
from course_utils.plots.step_time import step_time
from course_utils.plots.temperatures import at_temperatures
from course_utils.plots.throughput_latency import throughput_latency
from course_utils.plots.time_by_length import time_by_length
from course_utils.plots.token_shares import token_shares
from course_utils.plots.tokens_per_pass import tokens_per_pass
from course_utils.plots.training_memory import training_memory
from course_utils.plots.vocabulary_sizes import vocabulary_sizes
from course_utils.plots.vocabulary_trade import vocabulary_trade
from course_utils.plots.word_similarity import word_similarity
from course_utils.sinusoidal import sinusoidal_encoding
from course_utils.speculative import Round
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.loop import TrainingPlan

_QWEN = FAMILY["Qwen/Qwen3-0.6B"]
_WAYS = {"KV cache": Point(1.0, 35e9), "int8": Point(2.0, 50e9), "int4": Point(3.3, 80e9)}
_PROMPTS = {"prefill 16": Point(5.0, 60e9), "prefill 256": Point(80.0, 600e9)}
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
    abilities: lambda _: abilities({way: {"Yang, asked in English": share, "notions explained": 1.0} for way, share in
                                    {"before": 0.0, "full": 1.0, "with practice": 0.88, "LoRA": 0.8}.items()}),
    attention_maps: lambda _: attention_maps(torch.ones(2, 9, 9).tril() / torch.arange(1, 10)[:, None],
                                             [f"␣token{n}" for n in range(9)], ["layer 5, head 7", "layer 0, head 0"]),
    benchmark_picture: lambda _: benchmark_picture(_report()),
    cache_kinds: lambda _: cache_kinds(4, 4, 10),
    cache_memory: lambda _: cache_memory({name: FAMILY[f"Qwen/{name}"] for name in ("Qwen3-0.6B", "Qwen3-8B",
                                                                                   "Qwen3-32B")},
                                         40_960, {"weights of Qwen3-0.6B": 2 * 596_049_920}),
    call_times: lambda _: call_times([0.02, 0.003, 0.003, 0.003], [0.5, 0.3, 0.002, 0.001]),
    candidate_lines: lambda tokenizer: candidate_lines(_STEPS, tokenizer),
    generation_loop: lambda _: generation_loop("Explain logits.", [2240, 2135, 13], " Logits"),
    learning_curve: lambda _: learning_curve({n: 8 / n**0.3 for n in range(1, 99)}, {n: 8 / n**0.29 for n in (40, 90)},
                                             {"guessing": 8.8, "tiny": 0.6}),
    learning_rate: lambda _: learning_rate(TrainingPlan(steps=200, warm_up_steps=20, learning_rate=0.006)),
    likeliest_by_layer: lambda tokenizer: likeliest_by_layer(8 * torch.eye(400)[None, :6].repeat(7, 1, 1), tokenizer,
                                                             [f"␣token{n}" for n in range(6)]),
    likeliest_tokens: lambda tokenizer: likeliest_tokens([(n, 0.5**n) for n in range(1, 6)], tokenizer),
    memory_plan: lambda _: memory_plan({size: plan(FAMILY[f"Qwen/Qwen3-{size}"], H100, users=64)
                                        for size in ("0.6B", "8B", "32B")}),
    model_shapes: lambda _: model_shapes([Stage("token ids", (1, 5)), Stage("embed_tokens", (1, 5, 256)),
                                          Stage("6 layers", (1, 5, 256)), Stage("norm", (1, 5, 256)),
                                          Stage("lm_head: logits", (1, 5, 6656)), Stage("last row", (1, 6656)),
                                          Stage("next token", (1, 1))], rows=5),
    model_sizes: lambda _: model_sizes({"tiny": 12_900_000, "Qwen3-4B": 8 * 10**9, "Qwen3-14B": 29 * 10**9}, 10**10),
    number_formats: lambda _: number_formats(["float32", "bfloat16", "float16", "int8"]),
    number_line: lambda _: number_line(_CHANCES.tolist(), _WORDS, [0.1, 0.55, 0.97]),
    packed_blocks: lambda _: packed_blocks([np.array([1] * 6 + [0] + [1] * 7 + [0] + [1] * 4),
                                            np.array([1] * 9 + [0] + [1] * 9)], 0),
    parameter_parts: lambda _: parameter_parts({
        "Qwen3-0.6B": {"embedding": 26, "attention": 30, "MLP": 43, "norms": 1, "output": 0},
        "Qwen3-8B": {"embedding": 8, "attention": 18, "MLP": 66, "norms": 1, "output": 8}}),
    pipeline: lambda _: pipeline("Explain logits.", [2240, 2135, 13], 417, " Logits"),
    planned_roofline: lambda _: planned_roofline(plan(_QWEN, H100), pass_work(_QWEN, "bfloat16", 1, 4095),
                                                 pass_work(_QWEN, "bfloat16", 4096), L4),
    position_waves: lambda _: position_waves(sinusoidal_encoding(64, 32)),
    prefill_and_decode: lambda _: prefill_and_decode([0.05, *[0.02] * 8], 96),
    radix_tree: lambda tokenizer: radix_tree(TreeStep(
        {(1, 2, 3, 4): 4, (1, 2, 3, 4, 5): 1, (8, 9): 2}, {(1, 2, 3, 4): 4, (1, 2, 3, 4, 5): 1, (1, 2, 3, 4, 6, 7): 2},
        [(1, 2, 3, 4)]), tokenizer),
    ranked_probabilities: lambda _: ranked_probabilities(
        {"open": 1 / torch.arange(1.0, 1000), "certain": 1 / torch.arange(1.0, 1000)**3},
        {"top-k 20": {"open": 20, "certain": 20}, "top-p 0.9": {"open": 59, "certain": 1},
         "min-p 0.1": {"open": 10, "certain": 2}}),
    recomputation: lambda _: recomputation(5, 8),
    reuse: lambda _: reuse(5, 8),
    roofline: lambda _: roofline(_WAYS, _PROMPTS, 50e9, 900e9),
    rotary_angles: lambda _: rotary_angles(torch.tensor([1.0, 0.1, 0.01]), [0, 1, 2]),
    slots: lambda _: slots({"static": [(0, 1), (0, None), (2, 3)], "continuous": [(0, 1), (0, 2), (3, 2)]}),
    speculation_gain: lambda _: speculation_gain({"checking is free": _gains(), "checking costs": _gains()}),
    speculation_rounds: lambda _: speculation_rounds([_ROUND, Round([15, 16], 2, [15, 16, 99])], _TEXTS.__getitem__),
    speculation_step: lambda _: speculation_step(_ROUND, _TEXTS.__getitem__),
    speed_bars: lambda _: speed_bars({"regular": 24.0, "KV cache": 84.0, "int8": 125.8},
                                     {"regular": 160.0, "KV cache": 160.0, "int8": 320.0}),
    split_matrices: lambda _: split_matrices(),
    step_bytes: lambda _: step_bytes(_QWEN, 16_384),
    step_time: lambda _: step_time([32, 64, 128, 256], [0.02, 0.03, 0.04, 0.13], [0.01, 0.01, 0.01, 0.01]),
    at_temperatures: lambda _: at_temperatures(_CHANCES.log(), _WORDS, [0.3, 1, 3, 30]),
    throughput_latency: lambda _: throughput_latency({1: 0.02, 2: 0.035, 8: 0.04, 32: 0.07}),
    time_by_length: lambda _: time_by_length({"tiny": {8: 0.005, 512: 0.08}, "Qwen3-0.6B": {8: 0.03, 128: 0.07}}),
    token_shares: lambda _: token_shares(["' a'", "' the'", "all others"], {
        "target, p": [0.5, 0.3, 0.2], "draft, q": [0.3, 0.4, 0.3], "the rule": [0.5, 0.29, 0.21]}),
    tokens_per_pass: lambda _: tokens_per_pass({1: 1.5, 2: 2.1, 4: 2.5}, {
        rate: {k: sum(rate**n for n in range(k + 1)) for k in range(1, 9)} for rate in (0.5, 0.7, 0.95)}),
    training_memory: lambda _: training_memory({"full": {"weights": 26e6, "gradients": 26e6, "moments": 52e6},
                                                "LoRA": {"weights": 26e6, "gradients": 1e6, "moments": 2e6}}),
    vocabulary_sizes: lambda _: vocabulary_sizes({"this tokenizer": 6_626, "GPT-2": 50_257, "Qwen3": 151_669},
                                                 "this tokenizer"),
    vocabulary_trade: lambda _: vocabulary_trade([256, 1024, 6600], {"English": [98, 39, 27], "Chinese": [93, 39, 23]}),
    word_similarity: lambda _: word_similarity(torch.eye(7) * 1.4 - 0.4, [f"␣{word}" for word in _WORDS]),
}
