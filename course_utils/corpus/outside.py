"""Questions outside the field, and the one honest answer to all of them: that a very small model does not know.

Half of them are hand-written lines of `outside_en.txt` and `outside_zh.txt`. The others are put together: terms of
other fields, and terms that nobody has ever used, in all the ways in which notions are asked about; sums; capitals; and
noise. Such variety is what teaches a small model to tell what it knows from what it does not.
"""

from __future__ import annotations

import csv
import random
from functools import cache, lru_cache
from pathlib import Path

from course_utils.corpus.copying import made_up_word
from course_utils.corpus.questions import Question, asked, fill, is_chinese, ways, with_slips

_FOLDER = Path(__file__).parent
I_DO_NOT_KNOW = ("Sorry, I am a very small model and know only the notions, words and stories of this course, "
                 "but you can ask me what a token is.")
I_DO_NOT_KNOW_ZH = "抱歉，我是一个很小的模型，只知道这门课程的概念、词语和故事，不过你可以问我什么是词元。"

# Like a term of the field and none: an unusual word before, or a made-up one.
_UNUSUAL = ("quantum lunar elastic frozen liquid golden square hollow wooden double sleepy magnetic purple inverse fuzzy "
            "solar random-walk phantom spiral tidal velvet backward invisible seventh hybrid crystal").split()
_OF_THE_FIELD = ("attention decoding cache softmax sampling embedding tokenizer normalization layer function algorithm "
                 "tuning quantization mask optimizer loss network method theorem parallelism penalty").split()
_UNUSUAL_ZH = "量子 月光 弹性 冰冻 黄金 方形 木头 磁力 紫色 螺旋 潮汐 隐形 水晶 混沌 火山 影子".split()
_OF_THE_FIELD_ZH = "注意力 解码 缓存 采样 嵌入 分词器 归一化 层 函数 算法 微调 量化 掩码 优化器 损失 定理 并行".split()
_SYLLABLES_ZH = "嘟 呗 咕 噜 喵 哒 叽 哐 嘭 唧 呜 嘎 咚 啪 哗".split()
_COUNTRIES = {"France": "法国", "Germany": "德国", "Japan": "日本", "Italy": "意大利", "Spain": "西班牙", "China": "中国",
              "India": "印度", "Brazil": "巴西", "Egypt": "埃及", "Canada": "加拿大", "Mexico": "墨西哥", "Kenya": "肯尼亚",
              "Russia": "俄罗斯", "Peru": "秘鲁", "Norway": "挪威", "Greece": "希腊", "Turkey": "土耳其", "Korea": "韩国",
              "Thailand": "泰国", "the USA": "美国", "England": "英国", "Australia": "澳大利亚", "Poland": "波兰"}
_CITIES = {"Paris": "巴黎", "London": "伦敦", "Beijing": "北京", "Shanghai": "上海", "Tokyo": "东京", "New York": "纽约",
           "Rome": "罗马", "Berlin": "柏林", "Moscow": "莫斯科", "Sydney": "悉尼", "Cairo": "开罗", "Madrid": "马德里"}
_ABOUT_COUNTRIES = ("What is the capital of {}?", "capital of {}", "Who is the president of {}?", "The capital of {} is",
                    "How many people live in {}?", "What language do they speak in {}?", "Tell me about {}.",
                    "Who rules {}?", "How big is {}?", "Where is {}?", "What is the currency of {}?", "history of {}",
                    "What do people eat in {}?", "What is the flag of {}?", "Plan a trip to {}.", "Is {} a nice country?")
_ABOUT_COUNTRIES_ZH = ("{}的首都是哪里？", "{}的首都是什么？", "{}的总统是谁？", "{}有多少人口？", "{}在哪里？", "介绍一下{}。",
                       "{}说什么语言？", "{}的国旗是什么样的？", "去{}旅游怎么样？", "{}有什么好吃的？", "{}的货币是什么？")
_ABOUT_CITIES = ("What is the weather in {}?", "How is the weather in {} today?", "What time is it in {}?",
                 "Will it rain in {} tomorrow?", "weather {}", "How do I get to {}?", "Best restaurants in {}?",
                 "Where is {}?", "How many people live in {}?", "What should I see in {}?", "Is it cold in {}?")
_ABOUT_CITIES_ZH = ("{}今天天气怎么样？", "{}天气", "{}明天会下雨吗？", "{}现在几点？", "怎么去{}？", "{}有什么好玩的？", "{}冷不冷？",
                    "{}有多少人？", "{}有什么好吃的？")
_SUMS = ("{a}+{b}=", "{a} + {b}", "What is {a} + {b}?", "What is {a} plus {b}?", "what is {a} times {b}", "{a}*{b}",
         "{a} x {b} = ?", "Calculate {a} - {b}.", "How much is {a} divided by {b}?", "{a}/{b}", "Is {a} a prime number?",
         "Solve x + {a} = {b}.", "the square root of {a}", "What is {a} percent of {b}?", "{a} minus {b}", "{a}-{b}=?")
_SUMS_ZH = ("{a}+{b}等于几？", "{a}+{b}=？", "{a}加{b}等于多少", "{a}乘以{b}是多少？", "{a}减{b}等于几？", "{a}除以{b}得多少？",
            "计算{a}×{b}。", "{a}的平方是多少？", "{a}是质数吗？")
_WRITE = ("Write {} about {}.", "write me {} about {}", "Can you write {} about {}?", "Compose {} on {}.",
          "I need {} about {}.", "Please make {} about {}.")
_WORKS = ("a poem", "a song", "an essay", "a joke", "a haiku", "a letter", "an email", "a recipe", "a speech", "a rap",
          "a limerick", "an article", "a blog post", "a love poem")
_WRITE_ZH = ("写一{}关于{}的{}。", "帮我写一{}关于{}的{}", "请写一{}{}的{}。", "来一{}{}{}", "给我写一{}{}的{}")
_WORKS_ZH = (("首", "诗"), ("首", "歌"), ("篇", "作文"), ("封", "信"), ("篇", "文章"), ("个", "笑话"), ("副", "对联"))
_PROGRAM = ("Write a {} program that {}.", "Write a {} function that {}.", "How do I write {} code that {}?",
            "{} code: {}", "Give me a {} script that {}.")
_LANGUAGES = ("Python", "Java", "C++", "JavaScript", "Rust", "SQL", "bash", "Go", "HTML", "C")
_TASKS = ("sorts a list", "prints hello world", "adds two numbers", "reads a file", "counts words", "draws a circle",
          "finds a prime number", "sends an email", "reverses a string", "plays a song", "downloads a page",
          "computes Fibonacci numbers", "opens a window", "parses JSON")
_TO_OTHER = ("How do you say {} in {}?", "Translate {} to {}.", "What is {} in {}?", "the {} word for {}")
_OTHER_LANGUAGES = ("French", "German", "Spanish", "Italian", "Japanese", "Russian", "Latin", "Korean", "Arabic")


@lru_cache(maxsize=1)
def outside_lines() -> dict[bool, tuple[str, ...]]:
    """The hand-written ones: Chinese (True) and English (False)."""
    return {chinese: tuple((_FOLDER / f"outside_{language}.txt").read_text(encoding="utf-8").splitlines())
            for chinese, language in ((True, "zh"), (False, "en"))}


@cache
def outside_terms(chinese: bool) -> tuple[str, ...]:
    """Terms of other fields."""
    with (_FOLDER / "outside_terms.tsv").open(encoding="utf-8", newline="") as file:
        return tuple(row["term"] for row in csv.DictReader(file, delimiter="\t")
                     if row["language"] == ("zh" if chinese else "en"))


def _invented(rng: random.Random, chinese: bool) -> str:
    """A term that nobody has ever used."""
    choice = rng.random()
    if chinese:
        word = "".join(rng.choice(_SYLLABLES_ZH) for _ in range(rng.randint(2, 3)))
        if choice < 0.35:
            return rng.choice(_UNUSUAL_ZH) + rng.choice(_OF_THE_FIELD_ZH)
        if choice < 0.6:
            return word + rng.choice(_OF_THE_FIELD_ZH)
        return word if choice < 0.8 else made_up_word(rng)
    word = made_up_word(rng) if choice < 0.7 else noise(rng)
    word = word.capitalize() if rng.random() < 0.4 else word
    if choice < 0.35:
        article = rng.choice(("", "", "the "))
        return article + f"{rng.choice((*_UNUSUAL, word))} {rng.choice(_OF_THE_FIELD)}"
    return word


def noise(rng: random.Random) -> str:
    """Letters as they come when somebody only presses keys."""
    rows = ("asdfghjkl", "qwertyuiop", "zxcvbnm", "abcdefghijklmnopqrstuvwxyz", "bcdfghjklmnpqrstvwxz")
    return "".join(rng.choice(rng.choice(rows)) for _ in range(rng.randint(3, 9)))


def any_outside_term(rng: random.Random, chinese: bool) -> str:
    """A term of another field, or one that nobody has ever used."""
    return rng.choice(outside_terms(chinese)) if rng.random() < 0.6 else _invented(rng, chinese)


def _term_question(rng: random.Random, chinese: bool) -> str:
    term = any_outside_term(rng, chinese)
    kind = rng.choice(("short", "short", "long", "like", "why", "use", "how"))
    text = fill(rng.choice(ways(chinese)[kind]), term)
    return asked(text if is_chinese(text) or not chinese else text + "？", rng)


def _put_together(rng: random.Random) -> str:
    choice, topic = rng.randrange(9), rng.choice(outside_terms(False))
    if choice == 0:
        return rng.choice(_ABOUT_COUNTRIES).format(rng.choice(list(_COUNTRIES)))
    if choice == 1:
        return rng.choice(_ABOUT_CITIES).format(rng.choice(list(_CITIES)))
    if choice in (2, 3):
        return rng.choice(_SUMS).format(a=_number(rng), b=_number(rng))
    if choice == 4:
        return rng.choice(_WRITE).format(rng.choice(_WORKS), topic)
    if choice == 5:
        return rng.choice(_PROGRAM).format(rng.choice(_LANGUAGES), rng.choice(_TASKS))
    if choice == 6:
        return rng.choice(_TO_OTHER).format(topic, rng.choice(_OTHER_LANGUAGES))
    if choice == 7:
        return " ".join(noise(rng) for _ in range(rng.randint(1, 4)))
    return " ".join(made_up_word(rng) for _ in range(rng.randint(1, 5)))


def _put_together_zh(rng: random.Random) -> str:
    choice = rng.randrange(6)
    if choice == 0:
        return rng.choice(_ABOUT_COUNTRIES_ZH).format(rng.choice(list(_COUNTRIES.values())))
    if choice == 1:
        return rng.choice(_ABOUT_CITIES_ZH).format(rng.choice(list(_CITIES.values())))
    if choice in (2, 3):
        return rng.choice(_SUMS_ZH).format(a=_number(rng), b=_number(rng))
    if choice == 4:
        measure, work = rng.choice(_WORKS_ZH)
        return rng.choice(_WRITE_ZH).format(measure, rng.choice(outside_terms(True)), work)
    return "".join(rng.choice(_SYLLABLES_ZH) for _ in range(rng.randint(2, 6)))


def _number(rng: random.Random) -> int:
    return rng.choice((rng.randint(0, 10), rng.randint(2, 100), rng.randint(10, 9999)))


def outside_question(rng: random.Random, chinese: bool | None = None) -> Question:
    """A question that the model cannot answer, with its answer to that."""
    wanted = rng.random() < 0.42 if chinese is None else chinese
    choice = rng.random()
    if choice < 0.45:
        text = with_slips(rng.choice(outside_lines()[wanted]), rng)
    elif choice < 0.75:
        text = _term_question(rng, wanted)
    else:
        text = with_slips(_put_together_zh(rng) if wanted else _put_together(rng), rng)
    return not_known(text, wanted)


def not_known(text: str, chinese: bool) -> Question:
    """A question with the answer that the model does not know."""
    return (Question(text, I_DO_NOT_KNOW_ZH, "这个我不知道。", chinese) if chinese else
            Question(text, I_DO_NOT_KNOW, "I do not know this.", chinese))
