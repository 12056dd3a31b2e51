"""Ctrl-C before every line that is executed, one after the other: what was struck stays usable, and nothing is lost."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any, TypeVar

import pytest
import torch
from test_model import make, prompt, variant
from test_prefix_cache import FAKE, check, fake_cache, fake_held, same

import course_utils
from course_utils.batching import ContinuousBatch, Request
from course_utils.conversation import Conversation
from course_utils.generation import generate_text_basic_cache, generate_tokens
from course_utils.kv_cache import KVCache
from course_utils.prefix_cache import PrefixCache, generate_with_prefix
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import Sampler, Sampling
from course_utils.tokenizer import Qwen3Tokenizer

# What strikes in `Match.__del__` goes no further, by Python's own rule.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")

PACKAGE = str(Path(course_utils.__file__).parent)
Result = TypeVar("Result")


class CtrlC:
    """Within the block, a KeyboardInterrupt before the n-th line of the package that is executed, counted from 0.

    Attributes:
        where: file and line that it struck; empty if there were fewer lines.
    """

    def __init__(self, n: int) -> None:
        self.left, self.where = n, ""

    def __enter__(self) -> CtrlC:
        self.before = sys.gettrace()
        sys.settrace(self.called)
        return self

    def __exit__(self, *_: object) -> None:
        sys.settrace(self.before)

    def called(self, frame: FrameType, event: str, argument: object) -> Any:
        file, name = frame.f_code.co_filename, frame.f_code.co_qualname
        # A sampler that has half drawn cannot draw the same again; it asks number.py, which keeps nothing. And a tracer
        # is also called where a `with` block is left, before its lock is given back, where no signal ever comes: Python
        # looks for those behind a call.
        spared = file.endswith(("sampling.py", "number.py")) or name.startswith("_TemplateProcess.")
        return self.line if file.startswith(PACKAGE) and not spared else None

    def line(self, frame: FrameType, event: str, argument: object) -> Any:
        if event == "line":
            self.left -= 1
            if self.left == -1:
                self.where = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise KeyboardInterrupt  # after which nothing is traced any more
        return self.line


def every_line(at_least: int) -> Iterator[CtrlC]:
    """A strike for each line, until one finds no line any more."""
    for n in itertools.count():
        strike = CtrlC(n)
        yield strike
        if not strike.where:
            break
    assert n >= at_least


def again(action: Callable[..., Result], *arguments: Any) -> Result:
    try:
        return action(*arguments)
    except KeyboardInterrupt:
        return action(*arguments)


@pytest.fixture(autouse=True)
def vector_products() -> Iterator[None]:
    """One of the strikes leaves this switch of the process as it should be for single vectors only."""
    yield
    torch.backends.mkldnn.enabled = True  # type: ignore[assignment]


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return make(variant(num_hidden_layers=1))


# ---- ContinuousBatch ----------------------------------------------------------------------------------------


def submit(batch: ContinuousBatch, t: int, new: int, choose: Sampler, end: int | None) -> Request:
    try:
        return batch.submit(prompt(1, t), new, end, choose)
    except KeyboardInterrupt:
        known = [request for request in batch.waiting if request.token_ids.shape[1] == t]
        return known[0] if known else batch.submit(prompt(1, t), new, end, choose)


def test_a_batch(model: Qwen3Model) -> None:
    """Requests that join and leave, one of them at its end token and one at its first; each gets what it would alone,
    and each token is returned once."""
    sampling = Sampling(temperature=2.0, repetition_penalty=1.5)
    wanted = [(4, 3, 0.0), (7, 4, 2.0), (2, 3, 0.0), (3, 1, 0.0)]
    ends: list[int | None] = [None, None, None, None]
    ends[2] = generate_text_basic_cache(model, prompt(1, 2), 2)[0, 1].item()  # type: ignore[assignment]

    def chooser(t: int, temperature: float) -> Sampler:
        return Sampler(sampling if temperature else Sampling(temperature=0), t)

    expected = [[int(token) for token in generate_tokens(model, prompt(1, t), new, end, KVCache(model.config),
                                                         choose=chooser(t, temperature))]
                for (t, new, temperature), end in zip(wanted, ends)]
    for strike in every_line(at_least=700):
        batch = ContinuousBatch(model, 2)
        streamed: list[tuple[Request, int]] = []
        with strike:
            requests = [submit(batch, t, new, chooser(t, temperature), end)
                        for (t, new, temperature), end in zip(wanted, ends)]
            while batch.running or batch.waiting:
                streamed += again(batch.step)
        assert all(request.finished for request in requests), strike.where
        assert [request.new_tokens for request in requests] == expected, strike.where
        returned = [[token for each, token in streamed if each is request] for request in requests]
        assert returned == expected, strike.where


def test_a_batch_in_which_one_is_cancelled(model: Qwen3Model) -> None:
    """Whether it runs or waits, the others get what they would get alone."""
    expected = [generate_text_basic_cache(model, prompt(1, t), 3)[0].tolist() for t in (6, 3, 4)]
    for which, at_least in ((0, 15), (2, 15)):
        for strike in every_line(at_least):
            batch = ContinuousBatch(model, 2)
            requests = [batch.submit(prompt(1, t), 3) for t in (6, 3, 4)]
            batch.step()
            with strike:
                again(batch.cancel, requests[which])
            batch.run()
            for number, request in enumerate(requests):
                got = expected[number][:0 if which == 2 else 1] if number == which else expected[number]
                assert request.finished and request.new_tokens == got, strike.where


# ---- PrefixCache --------------------------------------------------------------------------------------------


TEXTS = ((1, 2, 3, 4, 5, 6), (1, 2, 3, 7, 8), (1, 2, 9), (4, 4, 4, 4), (1, 2, 3, 4, 5, 6), (1, 2, 3, 4, 5, 5, 5))


@pytest.mark.parametrize("budget", [None, 13])
def test_a_tree_that_is_split_and_evicted_from(budget: int | None) -> None:
    """Each insertion and each match is done once more if it was struck; one match stays open all the while."""
    undisturbed = tree(budget)
    for strike in every_line(at_least=500):
        prefixes = tree(budget, strike)
        check(prefixes)
        assert not any(node.pins for node in (prefixes.root, *prefixes.nodes())), strike.where
        for ids in TEXTS:
            with prefixes.match(ids) as match, undisturbed.match(ids) as other:
                assert match.length == other.length, strike.where
        check(prefixes)


def tree(budget: int | None, strike: CtrlC | None = None) -> PrefixCache:
    prefixes, caches = PrefixCache(FAKE, max_tokens=budget), {ids: fake_cache(ids) for ids in TEXTS}
    matches = []
    with strike or CtrlC(-1):
        again(prefixes.insert, TEXTS[0], caches[TEXTS[0]])
        first = again(prefixes.match, TEXTS[0])
        for ids in TEXTS[1:]:
            again(prefixes.insert, ids, caches[ids])
            matches.append((ids, again(prefixes.match, ids)))
            again(matches[-1][1].close)
        again(first.close)
    for ids, match in ((TEXTS[0], first), *matches):
        assert same(match.cache.held, fake_held(ids[:match.length]) if match.length else [])
    return prefixes


def test_generations_with_a_tree(model: Qwen3Model) -> None:
    """Struck anywhere, the next one says the same, nothing stays in use, and the tree is in order."""
    prompts = [prompt(1, 5), torch.cat((prompt(1, 5)[:, :3], prompt(1, 2)), dim=1)]
    expected = [generate_text_basic_cache(model, ids, 2) for ids in prompts]

    def answer(ids: torch.Tensor, prefixes: PrefixCache) -> torch.Tensor:
        return torch.cat([*generate_with_prefix(model, ids, 2, None, prefixes)], dim=1)

    for strike in every_line(at_least=400):
        prefixes = PrefixCache(model.config, max_tokens=8)
        with strike:
            answers = [again(answer, ids, prefixes) for ids in prompts]
        assert all(map(torch.equal, answers, expected)), strike.where
        assert not any(node.pins for node in (prefixes.root, *prefixes.nodes())), strike.where
        assert torch.equal(answer(prompts[0], prefixes), expected[0]), strike.where
        check(prefixes, holding=False)


# ---- Conversation -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cached", [False, True])
def test_a_conversation(small_tokenizer: Qwen3Tokenizer, cached: bool) -> None:
    """What was heard stands in the messages; what was not can be said again; and the next question is answered."""
    talker = make(variant(num_hidden_layers=1, vocab_size=small_tokenizer.vocab_size, max_position_embeddings=512))
    answers: dict[str, str] = {}
    for strike in every_line(at_least=150):
        conversation = Conversation(talker, small_tokenizer, max_new_tokens=3,
                                    prefixes=PrefixCache(talker.config) if cached else None)
        heard = ""
        try:
            with strike:
                for piece in conversation.say("Hi"):
                    heard += piece
        except KeyboardInterrupt:
            pass
        said = "".join(message["content"] for message in conversation.messages[1:])
        assert said.startswith(heard) and len(conversation.messages) in (0, 2), strike.where
        if not conversation.messages:
            assert not heard
            conversation.answer("Hi")
        asked = str(conversation.messages)
        answer = conversation.answer("Why?")
        # Greedy, and alike with and without a tree: the same messages have the same answer wherever it was struck.
        assert answers.setdefault(asked, answer) == answer, strike.where
        assert len(conversation.messages) == 4
