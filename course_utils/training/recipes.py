"""How the bundled models are made: their sizes, their training plans, and what goes into their folders."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from tqdm.auto import tqdm

from course_utils.checkpoint import load_checkpoint, save_checkpoint
from course_utils.completion import stream
from course_utils.config import Qwen3Config
from course_utils.corpus import (
    CHATS,
    EVEN,
    MORE_STRANGERS,
    MORE_WORDS,
    STRANGERS,
    documents,
    documents_in_parts,
    notion_document,
    outside_document,
)
from course_utils.corpus.copying import copying_document
from course_utils.corpus.notions import SENTENCES, notions, pairs
from course_utils.corpus.outside import I_DO_NOT_KNOW, I_DO_NOT_KNOW_ZH, outside_lines
from course_utils.corpus.questions import fill, ways
from course_utils.corpus.small_talk import small_talk
from course_utils.corpus.stories import description, story
from course_utils.corpus.stories_zh import description_zh, story_zh
from course_utils.corpus.words import translation_document, words
from course_utils.errors import InputError
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.bpe import END_OF_TEXT, IM_END, train_bpe
from course_utils.training.dataset import IGNORED, label_answers, pack, pack_labelled
from course_utils.training.distillation import DistillingTrainer
from course_utils.training.loop import Trainer, TrainingPlan
from course_utils.training.records import Record
from course_utils.training.run import run

CONTEXT = 2048
ORDINARY_TOKENS = 6_600
# A multiple of 128, as the real models have: a few rows of the embedding belong to no token.
VOCAB_SIZE = 6_656
MOSTLY_SHORT = (128, 128, 128, 512)

@dataclass(frozen=True)
class Stage:
    """A stretch of training: how, and on which mixture of documents, drawn with a seed of their own.

    With `answers_only`, questions and what a user says are only read: all of the loss goes into answering, and after a
    question the model never goes on asking.

    A stage that `distills` teaches a draft model the probabilities of the model that it drafts for.

    `share` is what the end of the stage has in its outcome, the mean of the weights at its end and at its beginning: a
    short last stage gains something and loses something, and a mean keeps most of both (https://arxiv.org/abs/2203.05482).
    """

    plan: TrainingPlan
    mixture: Mapping[str, int]
    seed: int
    answers_only: bool = False
    distills: bool = False
    share: float = 1.0


@dataclass(frozen=True)
class Recipe:
    """All that makes a bundled model what it is."""

    config: Qwen3Config
    stages: tuple[Stage, ...]


RECIPES: dict[str, Recipe] = {
    "tiny": Recipe(
        Qwen3Config(vocab_size=VOCAB_SIZE, hidden_size=256, intermediate_size=768, num_hidden_layers=6,
                    num_attention_heads=8, num_key_value_heads=4, head_dim=32, max_position_embeddings=CONTEXT),
        (Stage(TrainingPlan(steps=4_000, block_lengths=MOSTLY_SHORT, decay_steps=6_000), EVEN, seed=0),
         Stage(TrainingPlan(steps=7_500, block_lengths=MOSTLY_SHORT, learning_rate=2.5e-3), MORE_WORDS, seed=100_000,
               answers_only=True),
         Stage(TrainingPlan(steps=8_000, block_lengths=MOSTLY_SHORT, learning_rate=2.5e-3), STRANGERS, seed=200_000,
               answers_only=True),
         Stage(TrainingPlan(steps=3_500, block_lengths=MOSTLY_SHORT, learning_rate=1.5e-3), STRANGERS, seed=300_000,
               answers_only=True, share=0.3),
         Stage(TrainingPlan(steps=5_000, block_lengths=MOSTLY_SHORT, learning_rate=2e-3), MORE_STRANGERS, seed=400_000,
               answers_only=True, share=0.8))),
    "nano": Recipe(
        Qwen3Config(vocab_size=VOCAB_SIZE, hidden_size=96, intermediate_size=288, num_hidden_layers=4,
                    num_attention_heads=4, num_key_value_heads=2, head_dim=32, max_position_embeddings=CONTEXT),
        (Stage(TrainingPlan(steps=2_500, block_lengths=MOSTLY_SHORT, learning_rate=5e-3, decay_steps=4_000), EVEN,
               seed=0),
         Stage(TrainingPlan(steps=3_000, block_lengths=MOSTLY_SHORT, learning_rate=4e-3), MORE_WORDS, seed=100_000,
               answers_only=True),
         Stage(TrainingPlan(steps=3_000, block_lengths=MOSTLY_SHORT, learning_rate=4e-3), STRANGERS, seed=200_000,
               answers_only=True),
         Stage(TrainingPlan(steps=3_500, block_lengths=MOSTLY_SHORT, learning_rate=4e-3), MORE_STRANGERS, seed=400_000,
               answers_only=True),
         Stage(TrainingPlan(steps=6_000, block_lengths=MOSTLY_SHORT, learning_rate=4e-3), MORE_STRANGERS, seed=500_000,
               distills=True))),
}
WEIGHTS_SEED, TOKENIZER_SEED, HELD_OUT_SEED = 0, 0, 1_000
HELD_OUT_BLOCKS, SAMPLE_PROMPT = 8, "Once upon a time,"
_TEMPLATE = Path(__file__).with_name("chat_template.jinja")


def tokenizer_texts() -> Iterator[str]:
    """Text to learn merges from: the corpus, with its set phrases less frequent and its words more so.

    On the corpus itself, most merges would go to whole questions, which come thousands of times.
    """
    rng = random.Random(TOKENIZER_SEED)
    for number, write in ((3_000, story), (3_000, description), (3_000, story_zh), (3_000, description_zh),
                          (3_000, copying_document), (4_000, translation_document),
                          (4_000, lambda rng: "".join(notion_document(rng))),
                          (2_000, lambda rng: "".join(outside_document(rng)))):
        for _ in range(number):
            yield write(rng)
    for notion in notions():
        first = notion.en.split()[0]
        yield from [f" {' '.join(map(notion.sentence, SENTENCES))} "
                    f"{''.join(notion.sentence(part, chinese=True) for part in SENTENCES)}"] * 15
        yield from [f" {notion.term} {first}。{notion.zh}"] * 100
        yield from [f" {' '.join(notion.names_en)}。{'。'.join(notion.names_zh)}"] * 40
    for pair in pairs():
        yield from [f" {pair.en} {pair.zh}"] * 15
    for chinese in (False, True):
        for ways_of_kind in ways(chinese).values():
            for way in ways_of_kind:
                yield from [fill(way, "")] * 60
        yield from outside_lines()[chinese]
    for talk in small_talk():
        yield from [f" {' '.join(talk.asks)} {talk.answer} {talk.thought}"] * 15
    yield from [f" {I_DO_NOT_KNOW}{I_DO_NOT_KNOW_ZH}"] * 50
    for role in ("system", "user", "assistant"):
        yield from [role] * 1_000
    for word in words():
        yield from [f" {word.english} {word.chinese}"] * 80


def write_tokenizer(folder: Path) -> Qwen3Tokenizer:
    """Train the tokenizer and write its files into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    template = _TEMPLATE.read_text(encoding="utf-8")
    train_bpe(tokenizer_texts(), ORDINARY_TOKENS).save(str(folder / "tokenizer.json"))
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")
    (folder / "tokenizer_config.json").write_text(json.dumps({
        "tokenizer_class": "Qwen2Tokenizer", "eos_token": END_OF_TEXT, "pad_token": END_OF_TEXT,
        "model_max_length": CONTEXT, "add_bos_token": False, "clean_up_tokenization_spaces": False}, indent=2) + "\n",
        encoding="utf-8")
    return Qwen3Tokenizer(folder)


def blocks_of(tokenizer: Qwen3Tokenizer, block_length: int, seed: int, mixture: Mapping[str, int] = EVEN,
              answers_only: bool = False) -> Iterator[np.ndarray]:
    """Blocks of the corpus without end, with labels if only answers count; no document comes twice but by chance."""
    end = tokenizer.special_tokens[END_OF_TEXT]
    if not answers_only:
        return pack((tokenizer.encode(text) for _, text in documents(seed, tokenizer.chat_template, mixture)),
                    block_length, end)
    return pack_labelled((_labelled(tokenizer, *parts) for parts in
                          documents_in_parts(seed, tokenizer.chat_template, mixture)), block_length, end)


def _labelled(tokenizer: Qwen3Tokenizer, kind: str, asked: str, rest: str) -> tuple[list[int], list[int]]:
    """Token ids and labels of a document of which only the answers count."""
    ids = tokenizer.encode(rest)
    if kind in CHATS:
        return ids, label_answers(ids, tokenizer)
    # Encoded apart, as they meet when the model answers.
    before = tokenizer.encode(asked)
    return before + ids, [IGNORED] * len(before) + ids


def copy_tokenizer(source: Path, folder: Path) -> Qwen3Tokenizer:
    """Give a model in `folder` the tokenizer of the one in `source`: a draft model must speak its target's tokens."""
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(source / file, folder / file)
    return Qwen3Tokenizer(folder)


def train_bundled(name: str, folder: Path, target: Path | None = None, first_stage: int = 1,
                  report: Callable[[str], None] = tqdm.write) -> Qwen3Model:
    """Make a bundled model from nothing: corpus, tokenizer, weights.

    Each stage ends with a model in `folder` that can be used, and the next one begins with the weights of that model,
    as rounded as they lie there. Called again after an interruption, it goes on where it was: a stage keeps its
    checkpoint and its log in a folder below `training`, which may be deleted when the model is done.

    Args:
        name: "tiny" or "nano".
        folder: where the model goes.
        target: folder of the model that this one drafts for: it takes its tokenizer, and learns from it in stages that
            distill. None trains a tokenizer.
        first_stage: a later one than 1 begins with the model that lies in `folder`, as the stage before has left it.
        report: is handed a line now and then.

    Raises:
        InputError: if there is no recipe of that name, it has no such stage, or it needs a target.
        CheckpointError: if the target cannot be loaded, or the folder holds an interrupted training of another kind or
            cannot be written.
    """
    if name not in RECIPES:
        raise InputError(f"There is no recipe {name!r}: choose one of {', '.join(RECIPES)}.")
    stages = RECIPES[name].stages
    if not 1 <= first_stage <= len(stages):
        raise InputError(f"{name} has no stage {first_stage}: its stages are 1 to {len(stages)}.")
    if target is None and any(stage.distills for stage in stages[first_stage - 1:]):
        raise InputError(f"{name} learns from the model that it drafts for: give that one's folder (--target).")
    target_model = None if target is None else load_checkpoint(target, dtype=torch.float32)
    if first_stage > 1:
        model, tokenizer = load_checkpoint(folder, dtype=torch.float32), Qwen3Tokenizer(folder)
    else:
        tokenizer = copy_tokenizer(target, folder) if target else write_tokenizer(folder)
        torch.manual_seed(WEIGHTS_SEED)
        model = Qwen3Model(RECIPES[name].config)
    for number, stage in enumerate(stages[first_stage - 1:], start=first_stage):
        before = {name: weight.clone() for name, weight in model.state_dict().items()}
        for record in train_stage(model, tokenizer, stage, folder / "training" / f"stage-{number}",
                                  target_model if stage.distills else None):
            if record.sample is not None:
                report(f"stage {number}, step {record.step} of {stage.plan.steps}: loss {record.loss:.4f}, held out "
                       f"{record.held_out_loss:.4f}, {SAMPLE_PROMPT + record.sample!r}")
        model.load_state_dict({name: before[name].lerp(weight, stage.share)
                               for name, weight in model.state_dict().items()})
        model.load_state_dict(save_bundled(model, tokenizer, folder).state_dict())
    return model


def train_stage(model: Qwen3Model, tokenizer: Qwen3Tokenizer, stage: Stage, folder: Path,
                target: Qwen3Model | None = None) -> Iterator[Record]:
    """Train through one stage, or through what is left of it.

    Args:
        model, tokenizer: to train, and its tokenizer.
        stage: how.
        folder: that of `run`.
        target: the model whose probabilities it learns; None: it learns the text.
    """
    lengths = set(stage.plan.block_lengths)
    blocks = {length: blocks_of(tokenizer, length, stage.seed + 100 * (length - min(lengths)), stage.mixture,
                                stage.answers_only) for length in lengths}
    held_out = np.stack(list(islice(blocks_of(tokenizer, max(lengths), HELD_OUT_SEED, stage.mixture,
                                              stage.answers_only), HELD_OUT_BLOCKS)))
    trainer = (Trainer(model, blocks, stage.plan) if target is None else
               DistillingTrainer(model, target, blocks, stage.plan))
    return run(trainer, folder, report_every=250, held_out=held_out,
               sample=lambda model: "".join(stream(model, tokenizer, SAMPLE_PROMPT, 40)))


def save_bundled(model: Qwen3Model, tokenizer: Qwen3Tokenizer, folder: Path) -> Qwen3Model:
    """Write the weights, rounded to bfloat16, with the configuration and the generation defaults.

    Returns:
        The model as it was written.
    """
    end, chat_end = tokenizer.special_tokens[END_OF_TEXT], tokenizer.special_tokens[IM_END]
    rounded = Qwen3Model(model.config).to(torch.bfloat16)
    rounded.load_state_dict(model.state_dict())
    save_checkpoint(rounded, folder, generation_config={
        "eos_token_id": [end, chat_end], "pad_token_id": end, "do_sample": True, "temperature": 0.8, "top_p": 0.95})
    return rounded
