"""The README.md of a bundled model, with the figures that `evaluate` measured on that very folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

from course_utils.qwen3 import Qwen3Model
from course_utils.training.recipes import RECIPES

_TEXT = """\
---
license: apache-2.0
language: [en, zh]
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A language model of the Qwen3 architecture with {parameters:,} parameters. It was made for a course, from nothing: the
text it learned from, its tokenizer and its weights are this project's own work. It explains notions of language
models, translates everyday words between English and Chinese, copies, chats, and tells very short stories. It
knows nothing else about the world, and what it says about anything else is made up.

| | |
|---|---|
| layers, width, MLP | {config.num_hidden_layers}, {config.hidden_size}, {config.intermediate_size} |
| query heads, key-value heads, head size | {config.num_attention_heads}, {config.num_key_value_heads}, {config.head_dim} |
| vocabulary | {config.vocab_size:,} rows, byte-level BPE with Qwen3's pattern and special tokens |
| context | {config.max_position_embeddings:,} tokens; trained on blocks of {plan.block_length} |
| weights | bfloat16, {megabytes:.1f} MB; the course computes with them in float32 |
| training | {steps:,} steps of {tokens_per_step:,} tokens, {tokens:.1f} million in all; AdamW, peak learning rate \
{plan.learning_rate}, cosine decay |

## Made by

    python -m course_utils.training {name} --out data/{name}

The corpus is generated from a seed by `course_utils.corpus`; nothing is downloaded. Matrix products run in bfloat16,
so another machine ends with slightly different weights.

## What it can do

Answers count as right when they equal the expected ones to the letter. "Held-out ways" are ways of asking that
training used for other notions, but never for the one asked about. Measured on this folder by
`python -m course_utils.training figures --out data/{name}`, which wrote this table:

| measure (number of cases) | {name} |
|---|---|
{figures}

## Chat

`chat_template.jinja` writes conversations in Qwen3's format; a turn ends at `<|im_end|>`, a plain document at
`<|endoftext|>`. System prompts that it learned are listed in `course_utils/corpus/conversations.py`.
"""


def write_model_card(name: str, folder: Path, model: Qwen3Model, figures: Mapping[str, float]) -> None:
    """Write `README.md` and `figures.json` into the model's folder.

    Args:
        name: of the recipe the model was made by.
        folder: of the model.
        model: as loaded from it.
        figures: by name; those that speak of loss are nats per token, all others are shares of one.
    """
    config, plan = RECIPES[name]
    rows = "\n".join(f"| {measure} | {value:.3f} nats per token |" if "loss" in measure else
                     f"| {measure} | {value:.1%} |" for measure, value in figures.items())
    tokens_per_step = plan.batch_size * plan.block_length
    text = _TEXT.format(name=name, config=config, plan=plan, figures=rows, steps=plan.steps,
                        parameters=sum(p.numel() for p in model.parameters()), tokens_per_step=tokens_per_step,
                        tokens=plan.steps * tokens_per_step / 1e6,
                        megabytes=(folder / "model.safetensors").stat().st_size / 1e6)
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(dict(figures), indent=2, ensure_ascii=False) + "\n",
                                         encoding="utf-8")
