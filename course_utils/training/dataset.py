"""Documents packed into blocks of equal length, the form in which a model is trained on them.

A block is an array of t + 1 token ids for a model that sees t tokens at once: inputs and targets are the same tokens,
shifted by one. Where some tokens are only to be read, such as the user's part of a chat, a block has a second row:
the labels, which repeat the token ids and are `IGNORED` where the loss shall not count.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeVar

import numpy as np

from course_utils.errors import CheckpointError, InputError
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.tokenizer import Qwen3Tokenizer

IGNORED = -100  # the label that PyTorch's and transformers' losses leave out
Document = TypeVar("Document")
Labelled = tuple[Sequence[int], Sequence[int]]  # token ids, and labels of equal length


def pack(documents: Iterable[Sequence[int]], block_length: int, end_id: int) -> Iterator[np.ndarray]:
    """Fill blocks with documents, each closed by the end-of-text token.

    Every block begins with a new document, as every prompt does. The document that does not fit any more is cut at
    the block's end and its rest is dropped; `split` first where nothing may be lost.

    Args:
        documents: token ids of each document.
        block_length: tokens that the model sees at once.
        end_id: the end-of-text token.

    Yields:
        Arrays of block_length + 1 token ids, int64.

    Raises:
        InputError: if there is not even one full block.
    """
    return (block[0] for block in pack_labelled(((ids, ids) for ids in documents), block_length, end_id))


def pack_labelled(documents: Iterable[Labelled], block_length: int, end_id: int) -> Iterator[np.ndarray]:
    """The same for documents of which only some tokens count.

    Args:
        documents: pairs (token ids, labels) of equal length; a label is the token's id, or `IGNORED`. The end-of-text
            token that is put behind counts unless the document's last token does not.
        block_length, end_id: as for `pack`.

    Yields:
        Arrays (2, block_length + 1), int64: token ids and labels.

    Raises:
        InputError: as `pack`, or if a document has not as many labels as tokens.
    """
    block_length = require_whole_number("block_length", block_length, 1)
    block: list[int] = []
    labels: list[int] = []
    size, full = block_length + 1, False
    for document, its_labels in documents:
        if len(document) != len(its_labels):
            raise InputError(gettext("A document of {count} tokens has {labels} labels: give one for each.").format(
                count=len(document), labels=len(its_labels)))
        read_only = len(its_labels) > 0 and its_labels[-1] == IGNORED
        block += [*document, end_id]
        labels += [*its_labels, IGNORED if read_only else end_id]
        if len(block) >= size:
            yield np.array([block[:size], labels[:size]], dtype=np.int64)
            block, labels, full = [], [], True
    if not full:
        raise InputError(gettext("The documents do not fill one block of {size} tokens: give "
                                 "more text or a shorter block.").format(size=size))


def split(document: Sequence[int], block_length: int) -> Iterator[Sequence[int]]:
    """Cut a document into pieces of one block each, so that `pack` drops nothing of a book.

    A full piece has block_length + 1 tokens, which leaves no room for an end where the text has none, and its last
    token is the first of the next piece: each token but the very first is predicted once.
    """
    return (document[start:start + block_length + 1] for start in range(0, max(1, len(document) - 1), block_length))


def epochs(documents: Sequence[Document], seed: int) -> Iterator[Document]:
    """The same documents again and again without end, each time in another order drawn from the seed.

    Raises:
        InputError: if there are none.
    """
    if not documents:
        raise InputError("There are no documents to train on: give at least one.")
    rng = random.Random(seed)
    while True:
        yield from rng.sample(documents, len(documents))


def label_answers(token_ids: Sequence[int], tokenizer: Qwen3Tokenizer) -> list[int]:
    """Labels for a chat of which only the assistant's answers count, each with the token that ends it.

    An empty thought before an answer is only read, for in generation it is a part of the prompt.

    Args:
        token_ids: `tokenizer.encode_chat(messages, add_generation_prompt=False)`.
        tokenizer: the one of the model.

    Returns:
        Labels for `pack_labelled`, as many as token ids.
    """
    begin, no_thought = tokenizer.encode("<|im_start|>assistant"), tokenizer.encode("<think>\n\n</think>\n\n")
    end, ids = tokenizer.special_tokens["<|im_end|>"], list(token_ids)
    labels = [IGNORED] * len(ids)
    for start in range(len(ids)):
        if ids[start:start + len(begin)] == begin:
            first = start + len(begin) + 1  # behind the line break
            if ids[first:first + len(no_thought)] == no_thought:
                first += len(no_thought)
            last = ids.index(end, first)
            labels[first:last + 1] = ids[first:last + 1]
    return labels


class Supply:
    """Blocks of one length, handed out in order; it knows how many were taken, and which.

    Args:
        blocks: where they come from. A run that goes on later needs the same blocks in the same order.
        block_length: that they must have.

    Attributes:
        taken: number of blocks handed out.
        checksum: CRC-32 over all of these.
    """

    def __init__(self, blocks: Iterable[np.ndarray], block_length: int) -> None:
        self._blocks = iter(blocks)
        self.block_length = block_length
        self.taken = self.checksum = 0

    def take(self, number: int) -> np.ndarray:
        """The next blocks side by side: (number, t + 1), or (number, 2, t + 1) with labels.

        Raises:
            InputError: if there are no more, or one has another shape.
        """
        return np.stack([self._next() for _ in range(number)])

    def skip(self, taken: int, checksum: int) -> None:
        """Pass over the blocks that an earlier run has taken. They are made once more to do so, which takes as long
        as making them took, and shows whether they are still the same.

        Raises:
            CheckpointError: if they are others.
        """
        try:
            while self.taken < taken:
                self._next()
        except InputError as error:
            raise CheckpointError(gettext("The run to be resumed took {taken} blocks of {block_length} tokens, and now "
                                          "there are {there}: give the text that it began with.").format(
                taken=taken, block_length=self.block_length, there=self.taken)) from error
        if self.checksum != checksum:
            raise CheckpointError(gettext("The blocks of {block_length} tokens are not those that the run to be "
                                          "resumed was trained on: give the same text, tokenizer and seed, or begin "
                                          "anew in another folder.").format(block_length=self.block_length))

    def _next(self) -> np.ndarray:
        block = next(self._blocks, None)
        if block is None:
            raise InputError(gettext("The blocks of {block_length} tokens end after {taken}, before the training does: "
                                     "plan fewer steps, or repeat the documents (`epochs`).").format(
                block_length=self.block_length, taken=self.taken))
        size = self.block_length + 1
        if block.shape not in ((size,), (2, size)):
            raise InputError(gettext("A block has shape {shape}: for {block_length} tokens it must be ({size},), or "
                                     "(2, {size}) with labels.").format(
                shape=block.shape, block_length=self.block_length, size=size))
        self.taken += 1
        self.checksum = zlib.crc32(np.ascontiguousarray(block, dtype=np.int64).tobytes(), self.checksum)
        return block
