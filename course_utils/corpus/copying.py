"""Documents whose next words stand earlier in the text, so that looking back is the only way to know them.

They teach attention to copy: to repeat a phrase, to quote a word by its place, to recall who has what.
"""

from __future__ import annotations

import random

from course_utils.corpus.words import Word, words

NAMES = ("Anna", "Ben", "Clara", "David", "Emma", "Finn", "Grace", "Hugo", "Ida", "Jack", "Lina", "Max", "Nora",
         "Oscar", "Rosa", "Sam", "Tina", "Tom", "Vera", "Will")
NAMES_ZH = ("小明", "小红", "小刚", "小丽", "小华", "小芳", "小军", "小雨", "小雪", "小云")
_SYLLABLES = ("ba", "do", "fi", "ga", "ke", "lo", "mi", "nu", "po", "ra", "su", "ti", "vo", "wa", "xi", "zu")
_BELONGINGS = frozenset({"animal", "clothes", "fruit", "home", "music", "school", "tool", "vehicle"})
_ORDINALS = ("first", "second", "third", "fourth")
_ORDINALS_ZH = ("一", "二", "三", "四")


def made_up_word(rng: random.Random) -> str:
    """A pronounceable word that means nothing."""
    return "".join(rng.choice(_SYLLABLES) for _ in range(rng.randint(2, 4)))


def _thing(rng: random.Random) -> Word:
    return rng.choice([word for word in words() if word.category in _BELONGINGS and word.measure != "-"])


def _phrase(rng: random.Random, least: int = 3, most: int = 8) -> list[str]:
    """Some words: English ones, made-up ones, or a mixture."""
    if rng.random() < 0.3:
        return [made_up_word(rng) for _ in range(rng.randint(2, 4))]
    return [word.english for word in rng.sample(words(), rng.randint(least, most))]


def repetition(rng: random.Random) -> tuple[str, str]:
    """What to repeat, as asked for, and the answer."""
    if rng.random() < 0.3:
        text = "".join(word.chinese for word in rng.sample(words(), rng.randint(2, 6)))
        return f"请重复：{text}。", f"{text}。"
    text = " ".join(_phrase(rng)) + "."
    return f"{rng.choice(('Repeat', 'Copy', 'Say again'))}: {text}", text


def copying_document(rng: random.Random) -> str:
    """One document of this kind."""
    pattern = rng.randrange(8)
    if pattern == 0:
        request, answer = repetition(rng)
        return request + ("" if request.startswith("请") else " ") + answer
    if pattern == 1:
        return " ".join(_phrase(rng, 4, 10) * rng.randint(2, 4))
    if pattern == 2:
        chosen = [word.english for word in rng.sample(words(), 4)]
        place = rng.randrange(4)
        after = rng.randrange(3)
        return (f"The words are {', '.join(chosen)}. The {_ORDINALS[place]} word is {chosen[place]}. "
                f"The last word is {chosen[-1]}. The word after {chosen[after]} is {chosen[after + 1]}.")
    if pattern == 3:
        names, things = rng.sample(NAMES, 3), [_thing(rng) for _ in range(3)]
        who = rng.sample(range(3), 3)
        told = " ".join(f"{name} has {thing.a}." for name, thing in zip(names, things))
        return told + " " + " ".join(f"What does {names[i]} have? {names[i]} has {things[i].a}." for i in who)
    if pattern == 4:
        names, things = rng.sample(NAMES_ZH, 3), [_thing(rng) for _ in range(3)]
        who = rng.sample(range(3), 3)
        told = "".join(f"{name}有{thing.one}。" for name, thing in zip(names, things))
        return told + "".join(f"{names[i]}有什么？{names[i]}有{things[i].one}。" for i in who)
    if pattern == 5:
        name, text = rng.choice(NAMES), " ".join(_phrase(rng, 3, 6))
        return f"{name} said: \"{text}\" What did {name} say? {name} said: \"{text}\""
    if pattern == 6:
        chosen = [word.chinese for word in rng.sample(words(), 4)]
        place = rng.randrange(4)
        return f"这些词是{'、'.join(chosen)}。第{_ORDINALS_ZH[place]}个词是{chosen[place]}。最后一个词是{chosen[-1]}。"
    name, secret = rng.choice(NAMES), made_up_word(rng)
    return (f"{name} has a secret word. The secret word is {secret}. {rng.choice(NAMES)} asks: "
            f"What is the secret word? {name} answers: The secret word is {secret}.")
