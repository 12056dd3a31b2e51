"""Several texts on one model at once: padding to one length, and continuous batching.

A decoding step reads every weight once, whether for one text or for many, so texts side by side cost far less than
one after another. `pad_left` makes a batch of prompts that start and end together. `ContinuousBatch` does not wait
for the slowest: a request joins when there is room and leaves when it is done, between two steps
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
from course_utils.generation import (
    EndTokens,
    check_choice,
    check_model,
    check_prompt,
    end_tokens,
    greedy,
    is_token_id,
    last_logits,
)
from course_utils.kv_cache import KVCache
from course_utils.language import gettext
from course_utils.number import require_whole_number
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
        InputError: if there is no text, or an empty one, or one that is not made of token ids, or if the padding is
            none.
    """
    if len(rows) == 0 or not all(len(row) for row in rows):
        raise InputError("There is no text, or one of them has no tokens: give a list of lists with at least one "
                         "token id each.")
    if not all(is_token_id(token) for row in (*rows, [pad_token_id]) for token in row):
        raise InputError("A token id is a whole number from 0 on, and one of these is not: give a list of lists of "
                         "ids, such as [tokenizer.encode(text) for text in texts].")
    longest = max(len(row) for row in rows)
    filled = [[pad_token_id] * (longest - len(row)) + list(row) for row in rows]
    token_ids = torch.tensor([[int(token) for token in row] for row in filled], device=device)
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
    _chosen: Tensor | None = field(default=None, init=False, repr=False)

    @property
    def length(self) -> int:
        """Number of tokens, prompt included."""
        return self.token_ids.shape[1] + len(self.new_tokens)

    def next_token(self, logits: Tensor) -> int:
        """Choose a token from logits, (1, vocab_size); until it is added, it remains the one that is chosen.

        So a step that is repeated draws nothing twice, and the text stays the one that the seed stands for.
        """
        if self._chosen is None:
            with torch.inference_mode():
                self._chosen = self.choose(logits)
        return int(self._chosen)

    def add(self, token: int, place: int) -> None:
        """Take a token as the one at this place of `new_tokens`, unless it ends the text; twice is as good as once."""
        self._chosen = None
        ended = token in self.ends
        self.new_tokens[place:] = [] if ended else [token]
        self.finished = ended or len(self.new_tokens) == self.max_new_tokens


class ContinuousBatch:
    """Works on many requests at once; each gets exactly the tokens that it would get alone, in float32.

    In bfloat16 either of two tokens that are level to three digits may be chosen, and from there on the text differs. A
    quantized model rounds a little more, with the same consequence, and in int8 most of all when more than eight
    requests run (`generation` says more about both).

    First come, first served. Nothing is lost when a step is interrupted or fails, wherever it was: the next one goes
    on from there, after `cancel` if one request is to blame. (A `Sampler` that is interrupted while it draws may draw
    something else the next time.) A `submit` that is interrupted has put its request at the end of `waiting` or done
    nothing.

    Args:
        model: the model, compiled or not.
        max_batch_size: how many requests run side by side at most; the others wait.

    Attributes:
        waiting, running: requests that have not begun, and those that have, oldest first.

    Raises:
        InputError: if the model is none, or max_batch_size no whole number from 1 on.
    """

    def __init__(self, model: Qwen3Model, max_batch_size: int = 8) -> None:
        check_model(model)
        self.model, self.max_batch_size = model, require_whole_number("max_batch_size", max_batch_size, 1)
        self.waiting: deque[Request] = deque()
        self.running: list[Request] = []
        self._cache = KVCache(model.config)  # row i: all tokens of running[i] but the last
        self._length = 0  # how many of its columns count
        self._chosen: list[tuple[Request, int, int]] = []  # tokens on their way to their requests, and to which place
        self._got: list[list[tuple[Request, int]]] = []  # what the next `step` returns, if anything

    def submit(self, token_ids: Tensor, max_new_tokens: int, eos_token_id: EndTokens = None,
               choose: Callable[[Tensor], Tensor] = greedy) -> Request:
        """Hand in a prompt, (1, t), at any time. Other arguments and errors as for `generate_tokens`.

        A `Sampler` belongs to one request: give each its own.
        """
        max_new_tokens = check_prompt(self.model, token_ids, max_new_tokens)
        check_choice(choose)
        if token_ids.shape[0] != 1:
            raise InputError(gettext("A request is one prompt, and this is a batch of {shape}: submit them one by one, "
                                     "without padding.").format(shape=token_ids.shape[0]))
        request = Request(token_ids, max_new_tokens, end_tokens(eos_token_id), choose, finished=max_new_tokens == 0)
        if not request.finished:
            self.waiting.append(request)
        return request

    def cancel(self, request: Request) -> None:
        """Let a request go, keeping the tokens it has; one that is finished already stays as it is."""
        self._settle()
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
        self._settle()
        if self.running:
            self._decode()
        while self.waiting and len(self.running) < self.max_batch_size:
            self._admit()
        return self._got.pop() if self._got else []  # taken and returned in one line, see `_count`

    def run(self) -> None:
        """Take steps until every request is finished."""
        while self.running or self.waiting:
            self.step()

    def _decode(self) -> None:
        lengths, device = [request.length for request in self.running], self.model.device
        inputs = torch.tensor([request.new_tokens[-1:] for request in self.running], device=device)
        mask = None if min(lengths) == max(lengths) else ends_together(lengths, device)
        logits = last_logits(self.model, inputs, self._cache, mask)
        tokens = [request.next_token(row) for request, row in zip(self.running, logits.split(1))]
        self._count(list(zip(self.running, tokens)), self.running, self._cache)

    def _admit(self) -> None:
        request, cache = self.waiting[0], KVCache(self.model.config)
        token = request.next_token(last_logits(self.model, request.token_ids.to(self.model.device), cache))
        joined = _side_by_side(self.model, self._cache, cache) if self.running else cache
        self._count([(request, token)], [*self.running, request], joined)

    def _count(self, tokens: list[tuple[Request, int]], running: list[Request], cache: KVCache) -> None:
        """Let a pass count: who got which token from it, and who runs now, with which cache."""
        got = [*(self._got[0] if self._got else []), *(pair for pair in tokens if pair[1] not in pair[0].ends)]
        chosen = [(request, token, len(request.new_tokens)) for request, token in tokens]
        # Ctrl-C falls between two lines, not between the stores of one. Until this one the pass has not happened, and
        # is repeated; after it, nothing is computed anew, and `_settle` does what is left to do.
        self.running, self._cache, self._length, self._chosen, self._got = running, cache, cache.length, chosen, [got]
        self._settle()

    def _settle(self) -> None:
        """Finish a pass that counts and undo one that does not; an interrupted step may have left either behind."""
        self._cache.truncate(self._length)
        for request, token, place in self._chosen:
            request.add(token, place)
        self._chosen = []
        while self.waiting and (self.waiting[0].finished or self.waiting[0] in self.running):
            self.waiting.popleft()
        self._let_go()

    def _let_go(self) -> None:
        """Drop the rows of finished requests, and then the columns that are padding in every row."""
        rows = [row for row, request in enumerate(self.running) if not request.finished]
        if len(rows) == len(self.running):
            return
        running, cache = [self.running[row] for row in rows], KVCache(self.model.config)
        if rows:
            unused = self._cache.length - max(request.length - 1 for request in running)
            cache = KVCache.holding(self.model.config, [
                (keys[rows, :, unused:], values[rows, :, unused:]) for keys, values in self._cache.held])
        self.running, self._cache, self._length = running, cache, cache.length


def _side_by_side(model: Qwen3Model, one: KVCache, other: KVCache) -> KVCache:
    """A cache with the rows of two, the shorter one filled up on the left."""
    longest = max(one.length, other.length)

    def fill_up(tensor: Tensor) -> Tensor:
        return F.pad(tensor, (0, 0, longest - tensor.shape[2], 0))

    return KVCache.holding(model.config, [
        (torch.cat((fill_up(keys), fill_up(more_keys))), torch.cat((fill_up(values), fill_up(more_values))))
        for (keys, values), (more_keys, more_values) in zip(one.held, other.held)])
