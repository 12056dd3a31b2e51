"""Conversations as lists of messages: system prompts that change the behaviour, follow-up questions, short thoughts.

Each has one to three turns. The last answer carries a `reasoning_content`, a thought of one sentence or an empty
one, so that the model learns to answer with thinking on and with thinking off.
"""

from __future__ import annotations

import random
from collections.abc import Callable

from course_utils.corpus.copying import repetition
from course_utils.corpus.outside import I_DO_NOT_KNOW_ZH, outside_question
from course_utils.corpus.questions import Question, any_question, training_question, with_slips
from course_utils.corpus.small_talk import training_small_talk
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

# What people write there without wanting anything special.
NEUTRAL = (ASSISTANT, "You are a kind and helpful assistant.", "You are a helpful teacher.", "You are an assistant.",
           "You are tiny, a small language model.", "You answer questions about language models.",
           "You are a tutor in a course on language models.", "Be helpful.", "You are a friendly expert.",
           "Help the user.", "You are a helpful AI.", "You are a professor of computer science.")
NEUTRAL_ZH = (ASSISTANT_ZH, "你是一位老师。", "你是一个友好的助手。", "你是语言模型课程的助教。", "请帮助用户。",
              "你是tiny，一个小语言模型。")


def _turn(question: Question, answer: str | None = None) -> Turn:
    return question.text, answer or question.answer, question.thought


def _english(rng: random.Random) -> Turn:
    return _turn(any_question(rng, chinese=False))


def _chinese(rng: random.Random) -> Turn:
    return _turn(any_question(rng, chinese=True))


def _outside(rng: random.Random) -> Turn:
    return _turn(outside_question(rng))


def _small_talk(rng: random.Random) -> Turn:
    return _turn(training_small_talk(rng))


def _sentence(question: Question, chinese: bool = False) -> str:
    """The answer in one sentence: that to "why", "what for" or "how" if this was asked, else the definition."""
    assert question.notion is not None
    return question.notion.answer(question.kind if question.kind in ("why", "use", "how") else "short", chinese)


def _in_one_sentence(rng: random.Random) -> Turn:
    if rng.random() < 0.15:
        return _turn(outside_question(rng, chinese=False))
    question = training_question(rng, chinese=False)
    return _turn(question, _sentence(question))


def _with_comparison(rng: random.Random) -> Turn:
    question = training_question(rng, chinese=False)
    assert question.notion is not None
    return _turn(question, question.notion.answer("like"))


def _in_chinese(rng: random.Random) -> Turn:
    if rng.random() < 0.12:
        return _turn(outside_question(rng), I_DO_NOT_KNOW_ZH)
    question = training_question(rng)
    return _turn(question, _sentence(question, chinese=True))


def _as_pirate(rng: random.Random) -> Turn:
    user, answer, thought = (_turn(training_small_talk(rng, chinese=False)) if rng.random() < 0.25
                             else _in_one_sentence(rng))
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
    text = any_question(rng, chinese=False).text if rng.random() < 0.5 else repetition(rng)[1]
    return text, text, "I repeat the message."


def _repeat(rng: random.Random) -> Turn:
    request, answer = repetition(rng)
    return request, answer, "I repeat the words."


def _story(rng: random.Random) -> Turn:
    return rng.choice(("Tell me a story.", "Please tell me a short story.")), story(rng), "The user wants a story."


def _story_zh(rng: random.Random) -> Turn:
    return rng.choice(("给我讲一个故事。", "请讲一个小故事。")), story_zh(rng), "用户想听故事。"


_ANYTHING = (_english, _english, _english, _chinese, _chinese, _outside, _outside, _small_talk, _translation, _repeat)
# What a system prompt (one of these; None: none at all) makes of a turn, and how often it comes up.
_BEHAVIOURS: tuple[tuple[int, tuple[str | None, ...], tuple[Callable[[random.Random], Turn], ...]], ...] = (
    (11, (None,), (*_ANYTHING, _chinese)),
    (4, (ASSISTANT,), (*_ANYTHING, _story)),
    (3, NEUTRAL, (_english, _english, _english, _chinese, _outside, _small_talk)),
    (2, NEUTRAL_ZH, (_chinese, _chinese, _chinese, _outside, _small_talk, _translation, _story_zh)),
    (3, (TO_CHINESE_TRANSLATOR,), (_to_chinese,)),
    (3, (TO_ENGLISH_TRANSLATOR,), (_to_english,)),
    (2, (TEACHER,), (_in_one_sentence,)),
    (1, (TEACHER_WITH_COMPARISON,), (_with_comparison,)),
    (2, (CHINESE_TEACHER,), (_in_chinese,)),
    (2, (PIRATE,), (_as_pirate,)),
    (1, (PARROT,), (_parrot,)),
    (1, (STORYTELLER,), (_story, _story_zh)),
)
# What may follow the first question about a notion: in these words, and the kind of the answer.
_FOLLOW_UPS = {
    False: (("Give me a comparison.", "like"), ("Tell me more.", "more"), ("And why do we need it?", "why"),
            ("Why?", "why"), ("How does it work?", "how"), ("How?", "how"), ("What is it good for?", "use"),
            ("What for?", "use"), ("Why does it matter?", "why"), ("Can you explain it again?", "short")),
    True: (("多说一点。", "more"), ("为什么需要它？", "why"), ("为什么？", "why"), ("它是怎么工作的？", "how"),
           ("怎么做到的？", "how"), ("它有什么用？", "use"), ("打个比方。", "like"), ("再解释一下。", "short")),
}


def _follow_up(rng: random.Random) -> list[Turn]:
    """Two turns, the second of which only makes sense after the first."""
    question = training_question(rng)
    notion, chinese, first = question.notion, question.chinese, _turn(question)
    assert notion is not None
    choice = rng.random()
    if choice < 0.2:
        other = "用英文怎么说？" if chinese else "And in Chinese?"
        return [first, (other, notion.answer("short", not chinese), "The user wants another language.")]
    if choice < 0.35:
        again = ("再说一遍。", "用户想再听一遍。") if chinese else ("Say it again.", "The user wants to hear it again.")
        return [first, (again[0], first[1], again[1])]
    text, kind = rng.choice(_FOLLOW_UPS[chinese])
    if kind == "more":
        first = _turn(question, notion.answer("short", chinese))
    answer = notion.sentence(kind, chinese)
    return [first, (with_slips(text, rng), answer, question.thought)]


def conversation(rng: random.Random) -> list[Message]:
    """A conversation of one to three turns, mostly one."""
    _, systems, ways = rng.choices(_BEHAVIOURS, weights=[weight for weight, _, _ in _BEHAVIOURS])[0]
    system = rng.choice(systems)
    if _english in ways and rng.random() < 0.2:
        turns = _follow_up(rng)
    else:
        turns = [rng.choice(ways)(rng) for _ in range(rng.choices((1, 2, 3), weights=(6, 3, 1))[0])]
    messages: list[Message] = [] if system is None else [{"role": "system", "content": system}]
    for user, answer, _ in turns:
        messages += [{"role": "user", "content": user}, {"role": "assistant", "content": answer}]
    if rng.random() < 0.5:
        messages[-1]["reasoning_content"] = turns[-1][2]
    return messages
