"""Speculative decoding: a cheap guess of the next tokens, checked by the model in one pass.

A pass over five tokens reads each weight once, as one over a single token does, so where reading is what takes the
time it costs far less than five passes. So a *draft* proposes some tokens, the model computes its logits for all of
them at once, and those that it would have written are kept, with one token of its own behind them. The text is exactly
as good as without: greedy output is the same, and sampled output has the same distribution.

The same, that is, within the limits that `generation` tells of: float32 gives the same text; in bfloat16 either of two
tokens that are level to three digits may be chosen; and a quantized model rounds a little more, in int8 most of all
where a pass is over more than eight tokens, that is with a `num_drafted` of 8 or more.

Sources: https://arxiv.org/abs/2211.17192 and https://arxiv.org/abs/2302.01318. Left out: trees of drafts, and batches.

Shapes in comments: s tokens of text so far, n drafted tokens, v the vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.errors import InputError
from course_utils.generation import (
    EndTokens,
    check_model,
    check_prompt,
    end_tokens,
    generate_tokens,
    inference,
    last_logits,
)
from course_utils.kv_cache import Cache, KVCache
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import GREEDY, Sampler, Sampling, draw, occurring, random_generator


class Draft(Protocol):
    """Whatever can guess how a text goes on."""

    def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """Guess at most `count` next tokens of a text, (1, s); return them, (1, n), possibly none.

        A draft with logits passes those of every token, (1, v), to `choose`, which draws it, (1, 1). One without
        leaves `choose` alone: it counts as certain of its tokens.
        """
        ...


class ModelDraft:
    """Guesses with a smaller model of the same vocabulary.

    Args:
        model: the smaller model. Its cache is kept from round to round, as far as the text has stayed the same.

    Raises:
        InputError: if the model is none.
    """

    def __init__(self, model: Qwen3Model) -> None:
        check_model(model)
        self.model = model
        self._cache = KVCache(model.config)
        self._text = torch.zeros(1, 0, dtype=torch.long)  # the cache holds a beginning of it

    def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """See `Draft`. A text that is too long for the smaller model gets no proposal."""
        count = min(count, self.model.config.max_position_embeddings - text.shape[1] + 1)
        if count < 1:
            return text[:, :0]
        # At least the newest token has to be computed, for its logits.
        # And an interrupted round has left tokens in the cache that nobody wrote down.
        known = min(self._cache.length, self._text.shape[1], text.shape[1] - 1)
        same = self._text[:, :known].to(text.device) == text[:, :known]
        known = int(same.cumprod(dim=1).sum())
        self._cache.truncate(known)
        self._text = text
        tokens = generate_tokens(self.model, text[:, known:], count, cache=self._cache, choose=choose)
        proposal = torch.cat(list(tokens), dim=1)
        self._text = torch.cat((text, proposal), dim=1)
        return proposal


class PromptLookup:
    """Guesses that what the text has just said goes on as it did before: no model, nothing to compute.

    Args:
        longest: how many of the last tokens are looked for in the text before; fewer if these are not found. The
            latest place counts.

    Raises:
        InputError: if `longest` is less than 1.
    """

    def __init__(self, longest: int = 3) -> None:
        self.longest = require_whole_number("longest", longest, 1)

    def propose(self, text: Tensor, count: int, choose: Callable[[Tensor], Tensor]) -> Tensor:
        """See `Draft`."""
        for length in range(min(self.longest, text.shape[1] - 1), 0, -1):
            stretches = text[0, :-1].unfold(0, length, 1)  # all but the one that ends the text
            found = (stretches == text[0, -length:]).all(dim=1).nonzero()
            if len(found):
                after = int(found[-1]) + length
                return text[:, after:after + count]
        return text[:, :0]


@dataclass(frozen=True)
class Round:
    """One pass of the model: what was drafted, how much of it was accepted, and what the text gained.

    Where the text ended, what was accepted behind its end does not count.
    """

    drafted: list[int]
    accepted: int
    new_tokens: list[int]


@dataclass
class Speculation:
    """What happened in a speculative generation; `generate_speculative` fills it in.

    Attributes:
        rounds: the passes that checked a draft, the one over the prompt not among them.
    """

    rounds: list[Round] = field(default_factory=list)

    @property
    def drafted(self) -> int:
        """Number of tokens that were proposed."""
        return sum(len(each.drafted) for each in self.rounds)

    @property
    def accepted(self) -> int:
        """Number of proposed tokens that were kept."""
        return sum(each.accepted for each in self.rounds)

    @property
    def acceptance_rate(self) -> float:
        """Share of the proposed tokens that were kept, 0 to 1."""
        return self.accepted / self.drafted if self.drafted else 0.0

    @property
    def tokens_per_pass(self) -> float:
        """New tokens per pass of the model; without a draft it is 1."""
        return sum(len(each.new_tokens) for each in self.rounds) / len(self.rounds) if self.rounds else 0.0


def accept(drafted: Tensor, draft_probabilities: Tensor, probabilities: Tensor,
           generator: torch.Generator) -> tuple[int, Tensor]:
    """Keep drafted tokens so that the text is distributed as if the model had drawn every token itself.

    Token x, drafted with probability q(x), is kept with probability min(1, p(x) / q(x)). The first one that is not
    kept is replaced by a draw from what p has more than q, max(0, p - q), scaled to 1; the rest is dropped. If all
    are kept, one more token comes from p. (Why: x is drafted and kept with probability min(p(x), q(x)), and what is
    missing to p(x) is just what the replacement adds.)

    Args:
        drafted: (n,), token ids.
        draft_probabilities: (n, v), q: with which probabilities the draft has drawn.
        probabilities: (n + 1, v), p: with which probabilities the model would draw, at each of these places and
            behind the last.
        generator: random generator.

    Returns:
        How many drafted tokens are kept, and the token behind them, (1,).
    """
    n = len(drafted)
    p, q = (rows[torch.arange(n), drafted] for rows in (probabilities, draft_probabilities))
    darts = torch.rand(n, generator=generator, device=generator.device).to(p.device)
    kept = int((darts * q < p).long().cumprod(dim=0).sum())
    left = probabilities[kept]
    if kept < n:
        missing = (left - draft_probabilities[kept]).clamp(min=0)
        # Where p and q are the same but for rounding, a token is rejected about never, and then nothing is missing.
        left = missing if bool(missing.any()) else left
    return kept, draw(left[None], generator)[0]


def generate_speculative(model: Qwen3Model, token_ids: Tensor, max_new_tokens: int, draft: Draft,
                         eos_token_id: EndTokens = None, num_drafted: int = 4, sampling: Sampling = GREEDY,
                         seed: int | torch.Generator = 0, cache: Cache | None = None,
                         speculation: Speculation | None = None,
                         vocab_size: int | None = None) -> Iterator[Tensor]:
    """Generate as `generate_tokens` does, in fewer passes of the model: several tokens a pass, if the draft is good.

    The tokens are the same within the limits that stand at the top of this module.

    Args:
        model: the model, compiled or not.
        token_ids: (1, t), the prompt.
        max_new_tokens: how many tokens at most.
        draft: what proposes tokens: a `ModelDraft`, a `PromptLookup`, or your own.
        eos_token_id: the token, or tokens, at which the text ends.
        num_drafted: how many tokens are drafted for a pass, at most.
        sampling: how the model's tokens are chosen, and the draft's too.
        seed: a number, or a random generator of one's own to go on with.
        cache: an empty cache for the model; None is a growing one. It is left as `generate_tokens` leaves it; where the
            caller stops early, once the stream is closed, as a `for` loop that is left does with a stream of its own.
        speculation: filled in as the rounds pass.
        vocab_size: only ids below it are drawn, as for `Sampler`; a token drafted beyond it is never accepted.

    Yields:
        Each new token, (1, 1); those of one round all at once, then a pass later the next.

    Raises:
        InputError: if the prompt is not one text, the cache not empty, the draft none or of another vocabulary,
            num_drafted less than 1, or the sampling, the seed or the speculation none; and as `generate_tokens`. Later
            on, if a draft proposes something else, or more than it was asked for.
        ContextLengthError: as `generate_tokens`.
    """
    max_new_tokens = check_prompt(model, token_ids, max_new_tokens, cache)
    if token_ids.shape[0] != 1:
        raise InputError(gettext("Speculation works on one prompt, and this is a batch of {shape}: its rows would "
                                 "accept different numbers of tokens. Generate them one by one.").format(
            shape=token_ids.shape[0]))
    num_drafted = require_whole_number("num_drafted", num_drafted, 1)
    if not callable(getattr(draft, "propose", None)):
        raise InputError(gettext("The draft is a {kind}: give a ModelDraft(model), a PromptLookup(), or an object of "
                                 "your own with a method `propose`.").format(kind=type(draft).__name__))
    if not isinstance(sampling, Sampling):
        raise InputError(gettext("The settings are {sampling!r}: give a Sampling, such as "
                                 "Sampling(temperature=0.8).").format(sampling=sampling))
    if not isinstance(speculation, (Speculation, type(None))):
        raise InputError(gettext("speculation is a {kind}: give a Speculation() to fill in, or None.").format(
            kind=type(speculation).__name__))
    if cache is not None and cache.length:
        raise InputError(gettext("The cache holds {length} tokens that the draft would not know: give an empty one, or "
                                 "call truncate(0), and pass the whole text as the prompt.").format(
            length=cache.length))
    if isinstance(draft, ModelDraft) and draft.model.config.vocab_size != model.config.vocab_size:
        raise InputError(gettext("The draft has a vocabulary of {vocab_size} tokens and the model one of {model_size}"
                                 ": both must have been trained with the same tokenizer.").format(
            vocab_size=draft.model.config.vocab_size, model_size=model.config.vocab_size))
    return _rounds(model, token_ids, max_new_tokens, draft, end_tokens(eos_token_id), num_drafted, sampling,
                   random_generator(seed), KVCache(model.config) if cache is None else cache,
                   speculation or Speculation(), vocab_size)


def _rounds(model: Qwen3Model, text: Tensor, max_new_tokens: int, draft: Draft, ends: list[int], num_drafted: int,
            sampling: Sampling, generator: torch.Generator, cache: Cache, speculation: Speculation,
            vocab_size: int | None) -> Iterator[Tensor]:
    if max_new_tokens == 0:
        return
    shown, longest = text.shape[1], text.shape[1] + max_new_tokens
    try:
        new = Sampler(sampling, generator, text, vocab_size=vocab_size)(last_logits(model, text, cache))
        while True:
            stop = _first_end(new, ends)
            text = torch.cat((text, new[:, :stop]), dim=1)
            # Of a text that goes on, the newest token is not in the cache; of one that ends, all are.
            held = text.shape[1] - (stop is None)
            cache.truncate(held)
            for token in new[:, :stop, None].unbind(dim=1):
                shown += 1
                yield token
            if stop is not None or text.shape[1] == longest:
                return
            new = _round(model, text, min(num_drafted, longest - text.shape[1] - 1), draft, ends, sampling, generator,
                         cache, speculation, vocab_size)
    except BaseException as error:
        # Nothing stays of what nobody has seen, unless the caller stopped early and has gone on with the cache since.
        if not isinstance(error, GeneratorExit) or cache.length == held:
            cache.truncate(min(cache.length, shown - 1))
        raise


def _first_end(tokens: Tensor, ends: list[int]) -> int | None:
    """The place of the first end token among tokens, (1, n)."""
    return next((place for place, token in enumerate(tokens[0].tolist()) if token in ends), None)


def _round(model: Qwen3Model, text: Tensor, count: int, draft: Draft, ends: list[int], sampling: Sampling,
           generator: torch.Generator, cache: Cache, speculation: Speculation, vocab_size: int | None) -> Tensor:
    """Draft, verify, accept: the tokens that the text gains, (1, 1 to count + 1)."""
    sampler, draft_probabilities = Sampler(sampling, generator, text, vocab_size=vocab_size), []

    def choose(logits: Tensor) -> Tensor:
        draft_probabilities.append(sampler.probabilities(logits))
        return sampler.take(draw(draft_probabilities[-1], generator))

    drafted = draft.propose(text, count, choose) if count else text[:, :0]
    if not isinstance(drafted, Tensor) or drafted.dim() != 2 or len(drafted) != 1:
        what = tuple(drafted.shape) if isinstance(drafted, Tensor) else type(drafted).__name__
        raise InputError(gettext("The draft proposed {what}: let `propose` return token ids of shape (1, n).").format(
            what=what))
    if drafted.shape[1] > count:
        raise InputError(gettext("The draft proposed {shape} tokens where {count} were asked for: let `propose` return "
                                 "at most `count`.").format(shape=drafted.shape[1], count=count))
    with inference(model):
        logits = model(torch.cat((text[:, -1:], drafted), dim=1), cache=cache)[0]  # (n + 1, v)
        judge = Sampler(sampling, generator, vocab_size=vocab_size)
        judge.seen = _seen(sampling, text, drafted, logits.shape[-1])
        p = judge.probabilities(logits)
        q = torch.cat(draft_probabilities) if draft_probabilities else F.one_hot(drafted[0], logits.shape[-1]).float()
        kept, behind = accept(drafted[0], q, p, generator)
        new = torch.cat((drafted[:, :kept], behind[None]), dim=1)
    gained = new[0, :_first_end(new, ends)].tolist()
    speculation.rounds.append(Round(drafted[0].tolist(), min(kept, len(gained)), gained))
    return new


def _seen(sampling: Sampling, text: Tensor, drafted: Tensor, vocab_size: int) -> Tensor | None:
    """For a repetition penalty, the tokens that the text holds before each place: (n + 1, v)."""
    if sampling.repetition_penalty == 1:
        return None
    texts = [torch.cat((text, drafted[:, :count]), dim=1) for count in range(drafted.shape[1] + 1)]
    return torch.cat([occurring(each, vocab_size) for each in texts])
