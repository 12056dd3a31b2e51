"""Documents packed into blocks of equal length, the form in which a model is trained on them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from course_utils.errors import InputError


def pack(documents: Iterable[list[int]], block_length: int, end_id: int) -> Iterator[np.ndarray]:
    """Fill blocks with documents, each closed by the end-of-text token.

    Every block begins with a new document, as every prompt does; the document that does not fit any more is cut
    at the block's end. A block holds one token more than a model sees at once, for inputs and targets are the
    same tokens, shifted by one.

    Args:
        documents: token ids of each document.
        block_length: tokens that the model sees at once.
        end_id: the end-of-text token.

    Yields:
        Arrays of block_length + 1 token ids, uint16.

    Raises:
        InputError: if an id does not fit into 16 bits, or there is not even one full block.
    """
    block: list[int] = []
    size, full = block_length + 1, False
    for document in documents:
        block += [*document, end_id]
        if len(block) >= size:
            if max(block) >= 2 ** 16:
                raise InputError(f"Token id {max(block)} is above 65535: blocks are stored in 16 bits.")
            yield np.array(block[:size], dtype=np.uint16)
            block, full = [], True
    if not full:
        raise InputError(f"The documents do not fill one block of {size} tokens: give more text or a shorter block.")
