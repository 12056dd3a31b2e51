"""A load for a prefix cache, in nine steps: two chats, examples with three questions, and four drawn answers.

What a radix tree does depends on the token ids alone. So a model writes all the texts once (`tell`), and the tree can
then be watched under any budget without the model (`replay`): the `PrefixCache` is the real one, and what it is given
in place of keys and values has the right number of tokens and is otherwise as small as can be.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import astuple, dataclass, replace

import torch

from course_utils.config import Qwen3Config
from course_utils.generation import generate_tokens, greedy
from course_utils.kv_cache import KVCache
from course_utils.language import noted
from course_utils.plots.prefixes import TreeStep, snapshot
from course_utils.prefix_cache import PrefixCache, PrefixStats
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.chat import SYSTEM

BUDGET = 203
"""Tokens that the tree may hold when the story is told: enough for all but the oldest texts."""

EXAMPLES = ("boat -> 小船\nmoon -> 月亮\nwater -> 水\nhouse -> 房子\n"
            "fish -> 鱼\nbread -> 面包\nred -> 红色\nriver -> 河\n")
_LIMIT = 60  # new tokens of an answer at most

_STAND_IN = Qwen3Config(num_hidden_layers=1, num_attention_heads=1, num_key_value_heads=1, head_dim=2)


@dataclass(frozen=True)
class GeneratedText:
    """A text that was generated.

    Attributes:
        token_ids: prompt and answer.
        prompt_length: how many of them are the prompt.
        computed: how many of them have keys and values; the last one has none if the answer was cut off behind it.
        answer: the text of the answer.
    """

    token_ids: tuple[int, ...]
    prompt_length: int
    computed: int
    answer: str


@dataclass(frozen=True)
class Scene:
    """One step of the story: its title, and what is generated in it, one text after the other."""

    title: str
    texts: tuple[GeneratedText, ...] = ()


@dataclass(frozen=True)
class Story:
    """The steps, and the tokenizer to write what they say."""

    scenes: tuple[Scene, ...]
    tokenizer: Qwen3Tokenizer


class _Teller:
    """Lets a model answer, scene by scene."""

    def __init__(self, model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> None:
        self.model, self.tokenizer = model, tokenizer
        self.scenes = [Scene(noted("An empty tree"))]

    def scene(self, title: str, prompts: Sequence[list[int]], ends: Collection[int] = (),
              sampler: Sampler | None = None) -> list[int]:
        """Generate an answer to each prompt; return the tokens of the last text, to go on with."""
        texts = [self._text(prompt, ends or self.tokenizer.turn_end_token_ids, sampler) for prompt in prompts]
        self.scenes.append(Scene(title, tuple(texts)))
        return list(texts[-1].token_ids)

    def _text(self, prompt: list[int], ends: Collection[int], sampler: Sampler | None) -> GeneratedText:
        cache = KVCache(self.model.config)
        tokens = generate_tokens(self.model, torch.tensor([prompt], device=self.model.device), _LIMIT, ends, cache,
                                 choose=sampler or greedy)
        answer = [int(token) for token in tokens]
        return GeneratedText((*prompt, *answer), len(prompt), cache.length, self.tokenizer.decode(answer).strip())

    def chat(self, question: str) -> list[int]:
        """The beginning of a chat."""
        return self.tokenizer.encode_chat([{"role": "system", "content": SYSTEM}, _user(question)])

    def next_turn(self, token_ids: list[int], question: str) -> list[int]:
        """A chat so far, the end of its last answer, and another question: old turns are not written anew."""
        return token_ids + self.tokenizer.encode("<|im_end|>\n") + self.tokenizer.encode_chat([_user(question)])

    def few_shot(self, word: str) -> list[int]:
        """The examples, and one more word."""
        return self.tokenizer.encode(f"{EXAMPLES}{word} ->")


def _user(question: str) -> dict[str, str]:
    return {"role": "user", "content": question}


def tell(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> Story:
    """Let a chat model write all texts of the story."""
    teller = _Teller(model, tokenizer)
    line_end = {*tokenizer.turn_end_token_ids, *tokenizer.encode("\n")}
    draws = Sampler(Sampling(temperature=1), seed=10, vocab_size=tokenizer.vocab_size)

    chat_1 = teller.scene(noted("A first chat: Hello!"), [teller.chat("Hello!")])
    chat_1 = teller.scene(noted("Its next turn: Tell me a story."), [teller.next_turn(chat_1, "Tell me a story.")])
    chat_2 = teller.scene(noted("A second chat: What is attention?"), [teller.chat("What is attention?")])
    teller.scene(noted("It goes on: Say it again."), [teller.next_turn(chat_2, "Say it again.")])
    teller.scene(noted("Examples, and a question: cat"), [teller.few_shot("cat")], line_end)
    teller.scene(noted("Two more questions: dog, bat"), [teller.few_shot("dog"), teller.few_shot("bat")], line_end)
    teller.scene(noted("The first chat goes on: Thank you!"), [teller.next_turn(chat_1, "Thank you!")])
    teller.scene(noted("The same question, four answers drawn: bat"), 4 * [teller.few_shot("bat")], line_end, draws)
    return Story(tuple(teller.scenes), tokenizer)


@dataclass(frozen=True)
class Moment:
    """What a scene did to the tree.

    Attributes:
        scene: what was asked.
        tree: the tree before and after it.
        held: tokens that the tree holds then.
        stats: of this scene alone.
        total: of the whole story so far.
    """

    scene: Scene
    tree: TreeStep
    held: int
    stats: PrefixStats
    total: PrefixStats


def replay(story: Story, max_tokens: int = BUDGET) -> list[Moment]:
    """Tell the story again with a tree of at most `max_tokens` tokens; a moment for each scene.

    Raises:
        InputError: if the budget is no whole number from 1 on.
    """
    prefixes = PrefixCache(_STAND_IN, max_tokens)
    moments = []
    for scene in story.scenes:
        before, past = snapshot(prefixes), astuple(prefixes.stats)
        matched = [_serve(prefixes, text) for text in scene.texts]
        total = replace(prefixes.stats)
        stats = PrefixStats(*(now - then for now, then in zip(astuple(total), past)))
        moments.append(Moment(scene, TreeStep(before, snapshot(prefixes), matched), prefixes.num_tokens, stats, total))
    return moments


def _serve(prefixes: PrefixCache, text: GeneratedText) -> tuple[int, ...]:
    """Look up and insert what `generate_with_prefix` would; return what was found."""
    prompt = text.token_ids[:text.prompt_length]
    with prefixes.match(prompt, at_most=len(prompt) - 1) as match:
        found = match.length
    blank = torch.zeros(1, 1, text.computed, _STAND_IN.head_dim)
    prefixes.insert(text.token_ids, KVCache.holding(_STAND_IN, [(blank, blank)]))
    return prompt[:found]
