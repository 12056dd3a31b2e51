"""Several texts on one model at once: padding to one length, and continuous batching.

A decoding step reads every weight once, whether for one text or for many, so texts side by side cost little more
than one. `pad_left` makes a batch of prompts that start and end together. `ContinuousBatch` does not wait for the
slowest: a request joins when there is room and leaves when it is done, between two steps
(Orca, https://www.usenix.org/conference/osdi22/presentation/yu).

The rows of a batch share one cache, in which all texts end at the same place and shorter ones begin later; the
positions that the model counts begin with each text. Left out: prompts computed in pieces or together, and memory
in pages (PagedAttention, https://arxiv.org/abs/2309.06180), with which no text would need padding.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch
import torch.nn.functional as F
from torch import Tensor

from course_utils.errors import InputError
from course_utils.generation import EndTokens, check_prompt, end_tokens, greedy, last_logits
from course_utils.kv_cache import KVCache
from course_utils.qwen3 import Qwen3Model


def pad_left(rows: Sequence[Sequence[int]], pad_token_id: int = 0,
             device: torch.device | str | None = None) -> tuple[Tensor, Tensor]:
    """Make one batch of texts of different lengths, filled up on the left so that all of them end together.

    Args:
        rows: the token ids of each text.
        pad_token_id: any id of the vocabulary; nobody looks at padding.

    Returns:
        token_ids, (b, t), and attention_mask, (b, t), True for what is no padding.

    Raises:
        InputError: if there is no text, or an empty one.
    """
    if not rows or not all(len(row) for row in rows):
        raise InputError("There is no text, or one of them has no tokens: give a list of lists with at least one "
                         "token id each.")
    longest = max(len(row) for row in rows)
    token_ids = torch.tensor([[pad_token_id] * (longest - len(row)) + list(row) for row in rows], device=device)
    return token_ids, ends_together([len(row) for row in rows], device)


def ends_together(lengths: Sequence[int], device: torch.device | str | None = None) -> Tensor:
    """The attention mask, (b, longest), of texts of these lengths that are padded on the left."""
    longest = max(lengths)
    return torch.arange(longest, device=device) >= longest - torch.tensor(lengths, device=device)[:, None]


@dataclass(eq=False)
class Request:
    """One text that a `ContinuousBatch` works on.

    Attributes:
        token_ids: (1, t), the prompt.
        new_tokens: what has been generated so far, without an end token.
        finished: whether nothing more will come.
    """

    token_ids: Tensor
    max_new_tokens: int
    ends: list[int]
    choose: Callable[[Tensor], Tensor]
    new_tokens: list[int] = field(default_factory=list)
    finished: bool = False

    @property
    def length(self) -> int:
        """Number of tokens, prompt included."""
        return self.token_ids.shape[1] + len(self.new_tokens)

    def add(self, token: int) -> None:
        """Take the next token, unless it ends the text."""
        ended = token in self.ends
        if not ended:
            self.new_tokens.append(token)
        self.finished = ended or len(self.new_tokens) == self.max_new_tokens


class ContinuousBatch:
    """Works on many requests at once; each gets exactly the tokens that it would get alone.

    First come, first served. Nothing is lost when a step is interrupted or fails: it can be repeated, after
    `cancel` if one request is to blame. A `Sampler` that had already drawn in that step draws anew.

    Args:
        model: the model, compiled or not.
        max_batch_size: how many requests run side by side at most; the others wait.

    Attributes:
        waiting, running: requests that have not begun, and those that have, oldest first.

    Raises:
        InputError: if max_batch_size is less than 1.
    """

    def __init__(self, model: Qwen3Model, max_batch_size: int = 8) -> None:
        if max_batch_size < 1:
            raise InputError(f"max_batch_size is {max_batch_size}: at least one request must be able to run.")
        self.model, self.max_batch_size = model, max_batch_size
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._cache = KVCache(model.config)  # row i: all tokens of running[i] but the last

    def submit(self, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
               choose: Callable[[Tensor], Tensor] = greedy) -> Request:
        """Hand in a prompt, (1, t), at any time. Other arguments and errors as for `generate_tokens`.

        A `Sampler` belongs to one request: give each its own.
        """
        check_prompt(self.model, token_ids, max_new_tokens)
        if token_ids.shape[0] != 1:
            raise InputError(f"A request is one prompt, and this is a batch of {token_ids.shape[0]}: "
                             "submit them one by one, without padding.")
        request = Request(token_ids, max_new_tokens, end_tokens(eos_token_id), choose, finished=max_new_tokens == 0)
        if not request.finished:
            self.waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """Let a request go, keeping the tokens it has; one that is finished already stays as it is."""
        request.finished = True
        if request in self.waiting:
            self.waiting.remove(request)
        self._let_go()

    def step(self) -> list[tuple[Request, int]]:
        """Take every running request one token further, and let those that wait join where there is room.

        The running ones share one forward pass; each that joins has its prompt computed in a pass of its own.

        Returns:
            The requests that got a token, and the token; an end token is not returned.
        """
        got = self._decode() if self.running else []
        while self.waiting and len(self.running) < self.max_batch_size:
            got += self._admit()
        return got

    def run(self) -> None:
        """Take steps until every request is finished."""
        while self.running or self.waiting:
            self.step()

    def _decode(self) -> list[tuple[Request, int]]:
        held, device = self._cache.length, self.model.device
        lengths = [request.length for request in self.running]
        inputs = torch.tensor([request.new_tokens[-1:] for request in self.running], device=device)
        mask = None if min(lengths) == max(lengths) else ends_together(lengths, device)
        try:
            logits = last_logits(self.model, inputs, self._cache, mask)
            tokens = [_choose(request, row) for request, row in zip(self.running, logits.split(1))]
        except BaseException:
            self._cache.truncate(held)  # as if the step had never begun
            raise
        got = [(request, token) for request, token in zip(self.running, tokens) if token not in request.ends]
        for request, token in zip(self.running, tokens):
            request.add(token)
        self._let_go()
        return got

    def _admit(self) -> list[tuple[Request, int]]:
        request, cache = self.waiting[0], KVCache(self.model.config)
        token = _choose(request, last_logits(self.model, request.token_ids.to(self.model.device), cache))
        self.waiting.popleft()
        request.add(token)
        if not request.finished:
            self._cache = _side_by_side(self.model, self._cache, cache) if self.running else cache
            self.running.append(request)
        return [(request, token)] if request.new_tokens else []

    def _let_go(self) -> None:
        """Drop the rows of finished requests, and then the columns that are padding in every row."""
        rows = [row for row, request in enumerate(self.running) if not request.finished]
        if len(rows) == len(self.running):
            return
        self.running = [self.running[row] for row in rows]
        if not rows:
            self._cache = KVCache(self.model.config)
            return
        unused = self._cache.length - max(request.length - 1 for request in self.running)
        self._cache = KVCache.holding(self.model.config, [
            (keys[rows, :, unused:], values[rows, :, unused:]) for keys, values in self._cache.held])


def _choose(request: Request, logits: Tensor) -> int:
    with torch.inference_mode():
        return int(request.choose(logits))


def _side_by_side(model: Qwen3Model, one: KVCache, other: KVCache) -> KVCache:
    """A cache with the rows of two, the shorter one filled up on the left."""
    longest = max(one.length, other.length)

    def fill_up(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, 0, longest - tensor.shape[2], 0))

    return KVCache.holding(model.config, [
        (torch.cat((fill_up(keys), fill_up(more_keys))), torch.cat((fill_up(values), fill_up(more_values))))
        for (keys, values), (more_keys, more_values) in zip(one.held, other.held)])
