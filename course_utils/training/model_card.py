"""The README.md of a bundled model, with the figures that `evaluate` measured on that very folder."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from pathlib import Path

from course_utils.corpus.notions import notions
from course_utils.corpus.words import words
from course_utils.qwen3 import Qwen3Model
from course_utils.training.evaluate import ExamAnswer
from course_utils.training.recipes import RECIPES, Stage

_PURPOSES = {
    "tiny": """\
It explains notions of language
models, translates everyday words between English and Chinese, copies, chats, and tells very short stories. It
knows nothing else about the world, and mostly says so when it is asked.""",
    "nano": """\
It is the small companion of `tiny`,
with the same tokenizer: a draft model for speculative decoding, which proposes tokens that `tiny` accepts or not. On
its own it is often wrong, as the figures show.""",
}
_TEXT = """\
---
license: apache-2.0
language: [en, zh]
library_name: transformers
pipeline_tag: text-generation
---

# {name}

A language model of the Qwen3 architecture with {parameters:,} parameters. It was made for a course, from nothing: the
text it learned from, its tokenizer and its weights are this project's own work. {purpose}

| | |
|---|---|
| layers, width, MLP | {config.num_hidden_layers}, {config.hidden_size}, {config.intermediate_size} |
| query heads, key-value heads, head size | {config.num_attention_heads}, {config.num_key_value_heads}, \
{config.head_dim} |
| vocabulary | {config.vocab_size:,} rows, byte-level BPE with Qwen3's pattern and special tokens |
| context | {config.max_position_embeddings:,} tokens; trained on blocks of up to {longest} |
| weights | bfloat16, {megabytes:.1f} MB; the course computes with them in float32 |
| training | {stages}; {tokens:.1f} million tokens in all; AdamW, warm-up, cosine decay |

## Made by

    {command}

The corpus is generated from a seed by `course_utils.corpus`; nothing is downloaded. Matrix products run in bfloat16,
so another machine ends with slightly different weights. Every stage ends with a model that can be used;
`--first-stage N` goes on from the one before stage N.

## What it can do

"Strangers' questions" were written by hand, in no way of asking that training used; an answer is sensible if it is in
the language asked, holds what it must, and is made of whole sentences about what was asked, and outside the field if
it is the one sentence that says so (`course_utils/corpus/exam.py`). All other answers count as right when they equal
the expected ones to the letter. "Held-out ways" are ways of asking that training used for other notions, but never
for the one asked about. Measured on this folder by
`python -m course_utils.training figures --out data/{name}`, which wrote this table:

| measure (number of cases) | {name} |
|---|---|
{figures}

## What it says

To twenty strangers' questions, as a chat, unedited: twelve drawn at random, and eight of those that it answers badly.

{answers}

## What it knows

{number} notions: {notions}.

{number} 个概念：{notions_zh}。

Also {words} everyday words in both languages (`course_utils/corpus/words.tsv`), and short stories.

## Chat

`chat_template.jinja` writes conversations in Qwen3's format; a turn ends at `<|im_end|>`, a plain document at
`<|endoftext|>`. System prompts that it learned are listed in `course_utils/corpus/conversations.py`.
"""


def _twenty(answers: Sequence[ExamAnswer]) -> str:
    """Twelve answers drawn at random and eight bad ones, as a table."""
    rng = random.Random(0)
    chosen = rng.sample(list(answers), 12)
    bad = [each for each in answers if not each.sensible and each not in chosen]
    chosen += rng.sample(bad, min(8, len(bad)))
    rows = [(each.asked.question, each.answer, "yes" if each.sensible else "no") for each in chosen]
    return "\n".join(["| question | answer | sensible |", "|---|---|---|"]
                     + [f"| {' | '.join(cell.replace('|', chr(92) + '|').replace(chr(10), ' ') for cell in row)} |"
                        for row in rows])


def _told(stage: Stage) -> str:
    """A stage of training in words."""
    plan = stage.plan
    mean = f" (these weights count {stage.share:.0%}, those before {1 - stage.share:.0%})" if stage.share < 1 else ""
    lesson = ", learning the probabilities of `tiny`" if stage.distills else ""
    return (f"{plan.steps:,} steps of {plan.tokens_per_step:,} tokens in blocks of "
            f"{' and '.join(map(str, sorted(set(plan.block_lengths))))}, peak learning rate "
            f"{plan.learning_rate}{mean}{lesson}")


def write_model_card(name: str, folder: Path, model: Qwen3Model, figures: Mapping[str, float],
                     answers: Sequence[ExamAnswer]) -> None:
    """Write `README.md` and `figures.json` into the model's folder.

    Args:
        name: of the recipe the model was made by.
        folder: of the model.
        model: as loaded from it.
        figures: by name; those that speak of loss are nats per token, all others are shares of one.
        answers: to the exam, in both languages, as a chat.
    """
    config, plans = RECIPES[name].config, [stage.plan for stage in RECIPES[name].stages]
    rows = "\n".join(f"| {measure} | {value:.3f} nats per token |" if "loss" in measure else
                     f"| {measure} | {value:.1%} |" for measure, value in figures.items())
    command = f"python -m course_utils.training {name} --out data/{name}"
    if name != "tiny":
        command += " --target data/tiny"
    stages = ", then ".join(_told(stage) for stage in RECIPES[name].stages)
    text = _TEXT.format(name=name, config=config, figures=rows, stages=stages, command=command,
                        purpose=_PURPOSES[name], answers=_twenty(answers),
                        number=len(notions()), notions=", ".join(n.term for n in notions()),
                        notions_zh="、".join(n.zh for n in notions()), words=len(words()),
                        longest=max(length for plan in plans for length in plan.block_lengths),
                        parameters=sum(p.numel() for p in model.parameters()),
                        tokens=sum(plan.steps * plan.tokens_per_step for plan in plans) / 1e6,
                        megabytes=(folder / "model.safetensors").stat().st_size / 1e6)
    (folder / "README.md").write_text(text, encoding="utf-8")
    (folder / "figures.json").write_text(json.dumps(dict(figures), indent=2, ensure_ascii=False) + "\n",
                                         encoding="utf-8")
