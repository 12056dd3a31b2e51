"""Fine-tuning on prompts and answers, and measuring what a model can still do of what it could before."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator, Sequence

from course_utils.corpus.notions import notions
from course_utils.corpus.questions import questions
from course_utils.corpus.words import Word
from course_utils.errors import InputError
from course_utils.language import gettext
from course_utils.number import finite_number
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.dataset import IGNORED, Labelled
from course_utils.training.evaluate import answer_blocks, share_right, share_translated
from course_utils.training.loop import held_out_loss


def label_answer(prompt: str, answer: str, tokenizer: Qwen3Tokenizer) -> tuple[list[int], list[int]]:
    """Token ids of a prompt and its answer, and labels for `pack_labelled` of which only the answer's count.

    The two are encoded apart, as they are in generation: there the prompt is whole before the answer begins.

    Raises:
        InputError: if one of them is empty.
    """
    if not prompt or not answer:
        raise InputError(gettext("The prompt is {prompt!r} and the answer {answer!r}: both need at least one "
                                 "character.").format(prompt=prompt, answer=answer))
    asked, answered = tokenizer.encode(prompt), tokenizer.encode(answer)
    return asked + answered, [IGNORED] * len(asked) + answered


def mixed(new: Iterable[Labelled], old: Iterable[Labelled], share: float, seed: int) -> Iterator[Labelled]:
    """New documents with old ones among them, so that what was learned before is practised on.

    Args:
        new, old: labelled documents. The mixture ends when one of them does.
        share: of the old ones among all documents, 0 to below 1.
        seed: of the order.

    Raises:
        InputError: if the share is out of its range.
    """
    number = finite_number(share)
    if number is None or not 0 <= number < 1:
        raise InputError(gettext("The share of old documents is {share!r}: give a number from 0 to below 1.").format(
            share=share))
    return _mixed(iter(new), iter(old), number, random.Random(seed))


def _mixed(new: Iterator[Labelled], old: Iterator[Labelled], share: float, rng: random.Random) -> Iterator[Labelled]:
    while True:
        document = next(old if rng.random() < share else new, None)
        if document is None:
            return
        yield document


def old_abilities(model: Qwen3Model, tokenizer: Qwen3Tokenizer, words: Sequence[Word]) -> dict[str, float]:
    """What a bundled model was trained to do, in small samples: shares right to the letter, 0 to 1.

    Args:
        model, tokenizer: to be measured.
        words: that are to be translated.

    Returns:
        Name of the ability -> share of right answers.
    """
    translations = {
        gettext("to Chinese, asked in English"): [
            (f"The Chinese word for {w.english} is", f" {w.chinese}.") for w in words],
        gettext("to Chinese, asked in Chinese"): [(f"{w.english}的中文是", f"{w.chinese}。") for w in words],
        gettext("to English, asked in English"): [
            (f"The English word for {w.chinese} is", f" {w.english}.") for w in words],
        gettext("to English, asked in Chinese"): [(f"{w.chinese}的英文是", f"{w.english}。") for w in words],
    }
    asked = [questions(notion)[0] for notion in notions()[::4]]
    return {**{name: share_translated(model, tokenizer, cases) for name, cases in translations.items()},
            gettext("notions explained"): share_right(
                model, tokenizer, [(each.text, f" {each.answer}") for each in asked])}


def old_loss(model: Qwen3Model, tokenizer: Qwen3Tokenizer, number: int = 4, block_length: int = 512) -> float:
    """Loss on held-out documents of the kinds that a bundled model was trained on, in nats per token that counts.

    Questions are only read, as in all stages of its training but the first.
    """
    return held_out_loss(model, answer_blocks(tokenizer, number, block_length))
