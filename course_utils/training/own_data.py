"""One's own text -> blocks to train on: text files, or JSON lines of texts and chats.

A text file is one document. In a `.jsonl` file each line is one: `{"text": "..."}`, or
`{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}`, of which only the
assistant's answers count in the loss. A folder stands for all such files in it. Everything is read and checked before
anything is trained; what cannot be used is refused with its file and line.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Union

import numpy as np

from course_utils.chat import ChatTemplate, Message, check_messages
from course_utils.errors import InputError
from course_utils.json_text import parse_json
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.dataset import IGNORED, epochs, label_answers, pack_labelled, split

SUFFIXES = (".txt", ".md", ".jsonl")  # what is read of a folder
_MOST_HELD_OUT = 64  # blocks: more would take longer to measure and say no more

Labelled = tuple[Sequence[int], Sequence[int]]  # token ids, and labels of equal length


@dataclass(frozen=True)
class OwnDocument:
    """One document.

    Attributes:
        content: a text, or the messages of a chat.
        place: where it was read, for errors: a file, or a file and a line.
    """

    content: Union[str, list[Message]]
    place: str

    def text(self, template: ChatTemplate) -> str:
        """The document as text; a chat as the template writes it."""
        return self.content if isinstance(self.content, str) else template.render(self.content, False)


def read_documents(path: str | Path) -> list[OwnDocument]:
    """Read a text file, a file of JSON lines, or a folder of both, in the order of their names.

    Raises:
        InputError: if there is no such file, nothing in it, or something that is not as described; says where.
    """
    path = Path(path).expanduser()
    if not path.exists():
        raise InputError(f"There is no file or folder {str(path)!r}: check the path of the data.")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
        if not files:
            raise InputError(f"The folder {str(path)!r} holds no file to train on: its name must end in "
                             f"{', '.join(SUFFIXES)}.")
    documents: list[OwnDocument] = []
    for file in files:
        documents += _read_json_lines(file) if file.suffix.lower() == ".jsonl" else _read_text(file)
    return documents


def encode_documents(documents: Sequence[OwnDocument], tokenizer: Qwen3Tokenizer,
                     block_length: int) -> list[Labelled]:
    """Documents as token ids and labels, those longer than a block cut into pieces.

    A piece in which no token counts, such as a long question, is left out: nothing could be learned from it.

    Raises:
        InputError: if the chat template refuses a chat, or no answer is left to be learned; says where.
        TokenizerError: if there are chats, and the tokenizer has no chat template.
    """
    pieces: list[Labelled] = []
    for document in documents:
        ids, labels = _encode(document, tokenizer)
        cut = list(zip(split(ids, block_length), split(labels, block_length)))
        counting = [(piece, its) for piece, its in cut if any(label != IGNORED for label in its[1:] or its)]
        if not counting:
            raise InputError(f"{document.place}: there is nothing to learn in this document: give the assistant an "
                             "answer.")
        pieces += counting
    return pieces


def hold_out(documents: Sequence[Labelled], share: float, seed: int) -> tuple[list[Labelled], list[Labelled]]:
    """Divide documents at random into those to train on and those to measure on.

    Args:
        documents: at least two, unless the share is 0.
        share: of the second, 0 to below 1; unless it is 0 there is at least one of each.
        seed: the same seed divides them in the same way.

    Raises:
        InputError: if the share is out of its range, or one document is to be divided.
    """
    if not 0 <= share < 1:
        raise InputError(f"The held-out share is {share!r}: give a number from 0 to below 1.")
    if share > 0 and len(documents) < 2:
        raise InputError("The text is one short document, so no part of it can be held out: give more text, shorter "
                         "blocks, or a held-out share of 0.")
    number = min(len(documents) - 1, max(1, round(share * len(documents)))) if share > 0 else 0
    chosen = set(random.Random(seed).sample(range(len(documents)), number))
    return ([document for index, document in enumerate(documents) if index not in chosen],
            [document for index, document in enumerate(documents) if index in chosen])


def endless_blocks(documents: Sequence[Labelled], block_length: int, end_id: int, seed: int) -> Iterator[np.ndarray]:
    """Blocks without end for `train`: the documents again and again, each time in another order.

    Yields:
        Arrays (2, block_length + 1): token ids and labels.

    Raises:
        InputError: if there are no documents.
    """
    return pack_labelled(epochs(documents, seed), block_length, end_id)


def held_out_blocks(documents: Sequence[Labelled], block_length: int, end_id: int) -> np.ndarray:
    """About as many blocks as the documents fill, (n, 2, block_length + 1), at least one and at most 64.

    The last block is filled up with documents that come a second time.
    """
    tokens = sum(len(ids) + 1 for ids, _ in documents)
    number = min(_MOST_HELD_OUT, max(1, tokens // (block_length + 1)))
    return np.stack(list(islice(endless_blocks(documents, block_length, end_id, seed=0), number)))


def _encode(document: OwnDocument, tokenizer: Qwen3Tokenizer) -> tuple[list[int], list[int]]:
    if isinstance(document.content, str):
        ids = tokenizer.encode(document.content)
        return ids, ids
    try:
        ids = tokenizer.encode_chat(document.content, add_generation_prompt=False)
    except InputError as error:
        raise InputError(f"{document.place}: {error}") from error
    return ids, label_answers(ids, tokenizer)


def _read_text(file: Path) -> list[OwnDocument]:
    text = _content(file)
    if not text.strip():
        raise InputError(f"{str(file)!r} is empty: give a file with text, or take it away.")
    return [OwnDocument(text, str(file))]


def _read_json_lines(file: Path) -> list[OwnDocument]:
    documents = []
    for number, line in enumerate(_content(file).split("\n"), start=1):
        if line.strip():
            place = f"{file}, line {number}"
            documents.append(OwnDocument(_document(line, place), place))
    if not documents:
        raise InputError(f"{str(file)!r} is empty: give a file with a JSON object on each line, or take it away.")
    return documents


def _content(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(f"{str(file)!r} cannot be read ({error}): check the path of the data.") from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise InputError(f"{file}, line {line}: this is no text in UTF-8 ({error.reason}): save the file as UTF-8, or "
                         "take it away if it is no text at all.") from error


def _document(line: str, place: str) -> str | list[Message]:
    """The content of a JSON line."""
    try:
        entry = parse_json(line)
    except ValueError as error:
        raise InputError(f"{place}: this is no JSON ({error}): write one object on each line.") from error
    if not isinstance(entry, dict) or ("text" in entry) == ("messages" in entry):
        raise InputError(f'{place}: write an object with either "text" or "messages" in it, such as '
                         '{"text": "..."}.')
    try:
        json.dumps(entry, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(f"{place}: this holds half of a character (a lone surrogate), which no text has: correct "
                         "it.") from error
    return _text(entry["text"], place) if "text" in entry else _messages(entry["messages"], place)


def _text(text: Any, place: str) -> str:
    if not isinstance(text, str) or not text.strip():
        raise InputError(f'{place}: "text" is {text!r}: write a text that is not empty.')
    return text


def _messages(messages: Any, place: str) -> list[Message]:
    try:
        check_messages(messages)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if not any(message["role"] == "assistant" and message["content"].strip() for message in messages):
        raise InputError(f"{place}: no message is from the assistant, so there is nothing to learn: add the answer.")
    return list(messages)
