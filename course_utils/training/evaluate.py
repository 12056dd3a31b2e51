"""What a bundled model can do, as figures: the numbers that stand in its model card."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

import numpy as np
import torch
from tqdm.auto import tqdm

from course_utils.batching import pad_left
from course_utils.corpus import documents
from course_utils.corpus.conversations import (
    CHINESE_TEACHER,
    PIRATE,
    TEACHER,
    TO_CHINESE_TRANSLATOR,
    TO_ENGLISH_TRANSLATOR,
)
from course_utils.corpus.copying import repetition
from course_utils.corpus.exam import ExamQuestion, exam
from course_utils.corpus.notions import notions
from course_utils.corpus.questions import questions
from course_utils.corpus.words import TO_CHINESE, TO_ENGLISH, words
from course_utils.generation import generate_tokens
from course_utils.kv_cache import KVCache
from course_utils.quantization import KINDS, quantize
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.dataset import IGNORED, pack
from course_utils.training.loop import held_out_loss
from course_utils.training.recipes import HELD_OUT_SEED, RECIPES, blocks_of


def complete(model: Qwen3Model, tokenizer: Qwen3Tokenizer, prompts: Sequence[list[int]], max_new_tokens: int,
             stop: str, batch_size: int = 64) -> Iterator[str]:
    """Greedy continuations of many prompts, batched by length, up to the `stop` token (not included)."""
    stop_id = tokenizer.special_tokens[stop]
    answers: dict[int, str] = {}
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i]))
    for start in range(0, len(order), batch_size):
        chosen = order[start:start + batch_size]
        ids, mask = pad_left([prompts[i] for i in chosen], stop_id, model.device)
        new = list(generate_tokens(model, ids, max_new_tokens, stop_id, KVCache(model.config), mask))
        rows = torch.cat(new, dim=1).tolist() if new else [[]] * len(chosen)
        for i, row in zip(chosen, rows):
            answers[i] = tokenizer.decode(row[:row.index(stop_id)] if stop_id in row else row)
    return (answers[i] for i in range(len(prompts)))


def share_right(model: Qwen3Model, tokenizer: Qwen3Tokenizer, cases: Sequence[tuple[str, str]],
                max_new_tokens: int = 64) -> float:
    """Share of (prompt, whole expected continuation) pairs that greedy generation reproduces to the letter."""
    answers = complete(model, tokenizer, [tokenizer.encode(prompt) for prompt, _ in cases], max_new_tokens,
                       "<|endoftext|>")
    return float(np.mean([answer == expected for answer, (_, expected) in zip(answers, cases)]))


def share_translated(model: Qwen3Model, tokenizer: Qwen3Tokenizer, cases: Sequence[tuple[str, str]]) -> float:
    """The same for a word and its translation, behind which another pair may follow: the answer has to come first."""
    answers = complete(model, tokenizer, [tokenizer.encode(prompt) for prompt, _ in cases], 12, "<|endoftext|>")
    return float(np.mean([a == e or a.startswith((e + " ", e + "\n")) for a, (_, e) in zip(answers, cases)]))


def share_right_in_chat(model: Qwen3Model, tokenizer: Qwen3Tokenizer, cases: Sequence[tuple[str | None, str, str]],
                        max_new_tokens: int = 64) -> float:
    """The same for (system prompt or None, user message, expected answer), thinking off."""
    prompts = [tokenizer.encode_chat([{"role": "system", "content": system}] * (system is not None)
                                     + [{"role": "user", "content": user}]) for system, user, _ in cases]
    answers = complete(model, tokenizer, prompts, max_new_tokens, "<|im_end|>")
    return float(np.mean([answer == expected for answer, (_, _, expected) in zip(answers, cases)]))


def notion_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer, number: int = 1_000) -> dict[str, float]:
    """Share of questions about notions answered to the letter, by language and by whether training asked just so."""
    figures, rng = {}, random.Random(HELD_OUT_SEED)
    asked = [question for notion in notions() for question in questions(notion)]
    for chinese in (False, True):
        for held_out in (False, True):
            cases = [(q.text, q.continuation) for q in
                     rng.sample([q for q in asked if (q.chinese, q.held_out) == (chinese, held_out)], number)]
            name = f"notions, {'Chinese' if chinese else 'English'}, {'held-out' if held_out else 'trained'} ways"
            figures[f"{name} ({len(cases)})"] = share_right(model, tokenizer, cases)
    return figures


@dataclass(frozen=True)
class ExamAnswer:
    """What a model says to a question of the exam, and whether that is sensible."""

    asked: ExamQuestion
    answer: str
    sensible: bool


def exam_answers(model: Qwen3Model, tokenizer: Qwen3Tokenizer, chinese: bool, chat: bool) -> list[ExamAnswer]:
    """Greedy answers to every question of the exam in a language, as a chat without system prompt or as plain text."""
    asked = exam(chinese)
    prompts = [tokenizer.encode_chat([{"role": "user", "content": q.question}]) if chat else
               tokenizer.encode(q.question) for q in asked]
    answers = complete(model, tokenizer, prompts, 90, "<|im_end|>" if chat else "<|endoftext|>")
    return [ExamAnswer(q, answer.strip(), q.sensible(answer)) for q, answer in zip(asked, answers)]


def exam_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> dict[str, float]:
    """Share of sensible answers to questions that no template produced; of those outside the field also alone."""
    figures = {}
    for chat in (True, False):
        for chinese in (False, True):
            answers = exam_answers(model, tokenizer, chinese, chat)
            outside = [each for each in answers if each.asked.kind == "outside"]
            name = f"strangers' questions, {'Chinese' if chinese else 'English'}, {'chat' if chat else 'plain text'}"
            figures[f"{name} ({len(answers)})"] = float(np.mean([each.sensible for each in answers]))
            figures[f"{name}, outside the field ({len(outside)})"] = float(np.mean([each.sensible for each in outside]))
    return figures


def word_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> dict[str, float]:
    """Share of words translated to the letter, in every sentence pattern."""
    figures = {}
    for name, ways in (("English to Chinese", TO_CHINESE), ("Chinese to English", TO_ENGLISH)):
        cases = [(before.format(en=w.english, zh=w.chinese), answer.format(en=w.english, zh=w.chinese))
                 for w in words() for before, answer in ways]
        figures[f"words, {name}, {len(ways)} patterns ({len(cases)})"] = share_translated(model, tokenizer, cases)
    return figures


def chat_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> dict[str, float]:
    """Share of chats answered as the system prompt demands, to the letter."""
    ask = "What {verb} {term}?"
    asked = [(n, ask.format(verb=n.verb, term=n.term)) for n in notions()]
    suites: dict[str, list[tuple[str | None, str, str]]] = {
        "chat, no system prompt": [(None, text, n.en) for n, text in asked],
        "chat, one-sentence teacher": [(TEACHER, f"Tell me about {n.term}.", n.en) for n in notions()],
        "chat, teacher who answers in Chinese": [(CHINESE_TEACHER, text, n.zh_def) for n, text in asked],
        "chat, pirate": [(PIRATE, text, f"Ahoy! {n.en}") for n, text in asked],
        "chat, Chinese questions": [(None, f"什么是{n.zh}？", n.zh_def) for n in notions()],
        "chat, translator into Chinese": [(TO_CHINESE_TRANSLATOR, w.english, w.chinese) for w in words()],
        "chat, translator into English": [(TO_ENGLISH_TRANSLATOR, w.chinese, w.english) for w in words()],
    }
    return {f"{name} ({len(cases)})": share_right_in_chat(model, tokenizer, cases) for name, cases in suites.items()}


def copying_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer, number: int = 300) -> dict[str, float]:
    """Share of phrases, unseen in training, that are repeated to the letter."""
    rng = random.Random(HELD_OUT_SEED)
    cases = [repetition(rng) for _ in range(number)]
    return {f"repeating a new phrase ({number})": share_right(
        model, tokenizer, [(q, ("" if q.startswith("请") else " ") + a) for q, a in cases])}


def sampled_stories(model: Qwen3Model, tokenizer: Qwen3Tokenizer, request: str, number: int,
                    temperature: float = 0.8, seed: int = 0) -> list[str]:
    """Answers to one request for a story, drawn at random; those that found no end are as long as they got."""
    generator = torch.Generator().manual_seed(seed)

    def draw(logits: torch.Tensor) -> torch.Tensor:
        return torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)

    end = tokenizer.special_tokens["<|im_end|>"]
    prompt = tokenizer.encode_chat([{"role": "user", "content": request}])
    tokens = generate_tokens(model, torch.tensor([prompt] * number), 200, end, KVCache(model.config), choose=draw)
    rows = torch.cat(list(tokens), dim=1).tolist()
    return [tokenizer.decode(row[:row.index(end)] if end in row else row) for row in rows]


def story_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer, number: int = 100) -> dict[str, float]:
    """Of stories sampled at temperature 0.8: how many differ, end as a story does, and stand in no training text."""
    figures = {}
    for language, request, ends in (("English", "Tell me a story.", (".", "!", '"')),
                                    ("Chinese", "给我讲一个故事。", ("。", "！", "”", "？"))):
        stories = sampled_stories(model, tokenizer, request, number)
        seed = RECIPES["tiny"].stages[0].seed
        trained = {text for kind, text in islice(documents(seed, tokenizer.chat_template), 100_000)
                   if kind in ("story", "story_zh")}
        quotes = [s.count('"') % 2 == 0 and s.count("“") == s.count("”") for s in stories]
        whole = [s.endswith(ends) and closed for s, closed in zip(stories, quotes)]
        name = f"{language} stories sampled at 0.8 ({number})"
        figures[f"{name}: different from each other"] = len(set(stories)) / number
        figures[f"{name}: whole, with closed quotes"] = float(np.mean(whole))
        figures[f"{name}: not among 100,000 training documents"] = float(np.mean([s not in trained for s in stories]))
    return figures


def held_out_blocks(tokenizer: Qwen3Tokenizer, number: int, block_length: int, kind: str | None = None) -> np.ndarray:
    """Blocks of documents from a seed that training does not use, of all kinds or of one."""
    end = tokenizer.special_tokens["<|endoftext|>"]
    texts = (tokenizer.encode(text) for k, text in documents(HELD_OUT_SEED, tokenizer.chat_template)
             if kind in (None, k))
    return np.stack(list(islice(pack(texts, block_length, end), number)))


def loss_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer, number: int = 40,
                 block_length: int = 512) -> dict[str, float]:
    """Loss in nats per token on held-out documents, of all kinds and of stories: as the model is, and quantized.

    All stages of `tiny`'s training but the first count only answers, so what a stranger would ask is no longer
    foreseen: the loss of the answers alone stands beside that of all tokens.
    """
    models = {"": model, **{f", {kind}": quantize(model, kind) for kind in KINDS}}
    figures = {}
    measured = {"all kinds": held_out_blocks(tokenizer, number, block_length),
                "all kinds, answers alone": answer_blocks(tokenizer, number, block_length),
                **{kind: held_out_blocks(tokenizer, number, block_length, kind) for kind in ("story", "story_zh")}}
    for name, blocks in measured.items():
        for weights, each in models.items():
            figures[f"held-out loss, {name}{weights}"] = held_out_loss(each, blocks)
    return figures


@torch.inference_mode()
def agreement(model: Qwen3Model, other: Qwen3Model, blocks: np.ndarray) -> float:
    """How often two models name the same likeliest next token, over all positions of blocks (n, t), or, with labels
    (n, 2, t), over those whose next token counts."""
    same, of = 0, 0
    for part in torch.from_numpy(blocks.astype(np.int64)).split(4):
        ids = part if part.dim() == 2 else part[:, 0]
        equal = model(ids).argmax(-1) == other(ids).argmax(-1)
        counts = torch.ones_like(equal) if part.dim() == 2 else part[:, 1].roll(-1, dims=1) != IGNORED
        if part.dim() == 3:
            counts[:, -1] = False  # what would come next is not in the block
        same, of = same + int((equal & counts).sum()), of + int(counts.sum())
    return same / of


def answer_blocks(tokenizer: Qwen3Tokenizer, number: int, block_length: int) -> np.ndarray:
    """Held-out blocks with labels, of which only the answers count: (number, 2, block_length + 1)."""
    return np.stack(list(islice(blocks_of(tokenizer, block_length, HELD_OUT_SEED, answers_only=True), number)))


def all_figures(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> dict[str, float]:
    """Every figure of the model card, by name."""
    figures: dict[str, float] = {}
    parts = (loss_figures, exam_figures, notion_figures, word_figures, chat_figures, copying_figures, story_figures)
    for part in tqdm(parts, desc="measuring"):
        figures |= part(model, tokenizer)
    return figures
