"""Conversations as lists of messages: system prompts that change the behaviour, follow-up questions, short thoughts.

Each has one to three turns. The last answer carries a `reasoning_content`, a thought of one sentence or an empty
one, so that the model learns to answer with thinking on and with thinking off.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from course_utils.corpus.copying import repetition
from course_utils.corpus.notions import Question, training_question
from course_utils.corpus.stories import story
from course_utils.corpus.stories_zh import story_zh
from course_utils.corpus.words import TO_CHINESE, TO_ENGLISH, sentence_pair, words

Message = dict[str, str]
# A turn: what the user says, what the assistant answers, what it thinks before.
Turn = tuple[str, str, str]

ASSISTANT = "You are a helpful assistant."
ASSISTANT_ZH = "你是一个乐于助人的助手。"
TO_CHINESE_TRANSLATOR = "You are a translator. Translate every message into Chinese."
TO_ENGLISH_TRANSLATOR = "You are a translator. Translate every message into English."
TEACHER = "You are a teacher. Answer in one sentence."
TEACHER_WITH_COMPARISON = "You are a teacher. Give a comparison with every answer."
CHINESE_TEACHER = "You are a teacher. Answer in Chinese."
PIRATE = "You are a pirate. Begin every answer with Ahoy!"
PARROT = "You are a parrot. Repeat every message."
STORYTELLER = "You are a storyteller."

_GREETINGS: tuple[Turn, ...] = (
    ("Hello!", "Hello! How can I help you?", "The user greets me."),
    ("Hi!", "Hello! How can I help you?", "The user greets me."),
    ("Good morning!", "Good morning! How can I help you?", "The user greets me."),
    ("Who are you?", "I am tiny, a small language model that was trained for this course.", "The user asks who I am."),
    ("What is your name?", "My name is tiny.", "The user asks for my name."),
    ("What can you do?", "I can explain notions of language models, translate words and tell short stories.",
     "The user asks what I can do."),
    ("Thank you!", "You are welcome!", "The user thanks me."),
    ("Goodbye!", "Goodbye! See you soon.", "The user says goodbye."),
    ("How are you?", "I am fine, thank you. How can I help you?", "The user asks how I am."),
)
_GREETINGS_ZH: tuple[Turn, ...] = (
    ("你好！", "你好！有什么可以帮你的吗？", "用户在打招呼。"),
    ("早上好！", "早上好！有什么可以帮你的吗？", "用户在打招呼。"),
    ("你是谁？", "我是tiny，一个为这门课程训练的小语言模型。", "用户想知道我是谁。"),
    ("你叫什么名字？", "我叫tiny。", "用户想知道我的名字。"),
    ("你会做什么？", "我会解释语言模型的概念，翻译词语，讲小故事。", "用户想知道我会做什么。"),
    ("谢谢！", "不客气！", "用户在道谢。"),
    ("再见！", "再见！下次见。", "用户在道别。"),
)


def _ask(question: Question, rng: random.Random, answer: str | None = None) -> Turn:
    notion = question.notion
    thought = f"用户想了解{notion.zh}。" if question.chinese else f"The user asks about {notion.term}."
    return _carelessly(question.text, rng), answer or question.answer, thought


def _carelessly(text: str, rng: random.Random) -> str:
    """Now and then people type without a capital letter or a full stop."""
    if rng.random() < 0.15 and text.isascii():
        return text[0].lower() + text[1:].rstrip(".?")
    return text


def _notion(rng: random.Random) -> Turn:
    return _ask(training_question(rng, chinese=False), rng)


def _notion_zh(rng: random.Random) -> Turn:
    return _ask(training_question(rng, chinese=True), rng)


def _in_one_sentence(rng: random.Random) -> Turn:
    question = training_question(rng, chinese=False)
    return _ask(question, rng, question.notion.answer("short"))


def _with_comparison(rng: random.Random) -> Turn:
    question = training_question(rng, chinese=False)
    return _ask(question, rng, question.notion.answer("like"))


def _in_chinese(rng: random.Random) -> Turn:
    question = training_question(rng)
    return _ask(question, rng, question.notion.answer("short", chinese=True))


def _as_pirate(rng: random.Random) -> Turn:
    user, answer, thought = rng.choice(_GREETINGS) if rng.random() < 0.3 else _in_one_sentence(rng)
    return user, f"Ahoy! {answer}", thought


def _to_chinese(rng: random.Random) -> Turn:
    if rng.random() < 0.5:
        word = rng.choice(words())
        english, chinese = word.english, word.chinese
    else:
        english, chinese = sentence_pair(rng)
    return english, chinese, "The user wants this in Chinese."


def _to_english(rng: random.Random) -> Turn:
    english, chinese, _ = _to_chinese(rng)
    return chinese, english, "The user wants this in English."


def _translation(rng: random.Random) -> Turn:
    word = rng.choice(words())
    # The last two ways of each direction are beginnings or arrows, not questions.
    before, answer = rng.choice([way for way in TO_CHINESE + TO_ENGLISH if way[0][-1] in "?？.。"])
    filled = before.format(en=word.english, zh=word.chinese)
    thought = "用户想知道一个词的翻译。" if "用" in filled else "The user wants a translation."
    return filled, answer.format(en=word.english, zh=word.chinese).strip(), thought


def _parrot(rng: random.Random) -> Turn:
    if rng.random() < 0.5:
        text = _notion(rng)[0]
    else:
        text = repetition(rng)[1]
    return text, text, "I repeat the message."


def _repeat(rng: random.Random) -> Turn:
    request, answer = repetition(rng)
    return request, answer, "I repeat the words."


def _story(rng: random.Random) -> Turn:
    return rng.choice(("Tell me a story.", "Please tell me a short story.")), story(rng), "The user wants a story."


def _story_zh(rng: random.Random) -> Turn:
    return rng.choice(("给我讲一个故事。", "请讲一个小故事。")), story_zh(rng), "用户想听故事。"


def _greeting(rng: random.Random) -> Turn:
    return rng.choice(_GREETINGS)


def _greeting_zh(rng: random.Random) -> Turn:
    return rng.choice(_GREETINGS_ZH)


# What each system prompt (None: none at all) makes of a turn, and how often it comes up.
_BEHAVIOURS: tuple[tuple[int, str | None, tuple[Callable[[random.Random], Turn], ...]], ...] = (
    (5, None, (_notion, _notion, _notion_zh, _translation, _greeting, _greeting_zh, _repeat)),
    (5, ASSISTANT, (_notion, _notion, _notion_zh, _translation, _greeting, _repeat, _story)),
    (2, ASSISTANT_ZH, (_notion_zh, _notion_zh, _greeting_zh, _translation, _story_zh)),
    (3, TO_CHINESE_TRANSLATOR, (_to_chinese,)),
    (3, TO_ENGLISH_TRANSLATOR, (_to_english,)),
    (3, TEACHER, (_in_one_sentence,)),
    (2, TEACHER_WITH_COMPARISON, (_with_comparison,)),
    (2, CHINESE_TEACHER, (_in_chinese,)),
    (2, PIRATE, (_as_pirate,)),
    (1, PARROT, (_parrot,)),
    (1, STORYTELLER, (_story, _story_zh)),
)


def _follow_up(rng: random.Random) -> list[Turn]:
    """Two turns, the second of which only makes sense after the first."""
    question = training_question(rng, chinese=False)
    notion, first = question.notion, _ask(question, rng)
    kind = rng.randrange(4)
    if kind == 0:
        return [first, ("And in Chinese?", notion.answer("short", chinese=True), "The user wants it in Chinese.")]
    if kind == 1:
        return [first, ("Give me a comparison.", notion.like, "The user wants a comparison.")]
    if kind == 2:
        return [_ask(question, rng, notion.en), ("Tell me more.", notion.en_more, "The user wants to know more.")]
    return [first, ("Say it again.", first[1], "The user wants to hear it again.")]


def conversation(rng: random.Random) -> list[Message]:
    """A conversation of one to three turns, mostly one."""
    _, system, ways = rng.choices(_BEHAVIOURS, weights=[weight for weight, _, _ in _BEHAVIOURS])[0]
    if system in (None, ASSISTANT) and rng.random() < 0.3:
        turns = _follow_up(rng)
    else:
        turns = [rng.choice(ways)(rng) for _ in range(rng.choices((1, 2, 3), weights=(6, 3, 1))[0])]
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for user, answer, _ in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    if rng.random() < 0.5:
        messages[-1]["reasoning_content"] = turns[-1][2]
    return messages
