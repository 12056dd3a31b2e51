"""One's own text -> blocks to train on: text files, and records of texts and chats.

A text file is one document. Records are JSON (an array, or an object on each line) or CSV with a header, and each is
one document in a shape that is common on the hub:

- `{"text": "..."}`, a text;
- `{"messages": [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]}`, a chat, with `"tools"`
  where there are any;
- `{"conversations": [{"from": "human", "value": "..."}, {"from": "gpt", "value": "..."}]}`, a chat, as ShareGPT has it;
- `{"instruction": "...", "input": "...", "output": "..."}`, a question and its answer, as Alpaca has it.

Of a chat only the assistant's answers count in the loss. A folder stands for all such files in it. Everything is read
and checked before anything is trained; what cannot be used is refused with its file and line.
"""

from __future__ import annotations

import csv
import io
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np

from course_utils.chat import ChatTemplate, Message, check_messages
from course_utils.errors import InputError
from course_utils.json_text import parse_json
from course_utils.language import gettext, noted
from course_utils.number import finite_number
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.training.dataset import IGNORED, Labelled, epochs, label_answers, pack_labelled, split

_JSON, _TABLES = (".json", ".jsonl", ".ndjson"), {".csv": ",", ".tsv": "\t"}
SUFFIXES = (".txt", ".md", *_JSON, *_TABLES)  # what is read of a folder
# Data that somebody may mean to be read; passing over it in silence would train on less than was given.
_OTHER_DATA = (".parquet", ".arrow", ".feather", ".xlsx", ".gz", ".bz2", ".xz", ".zst", ".zip")
_SHAPES = noted('{"text": "..."}, {"messages": [...]}, {"conversations": [...]} as in ShareGPT, or '
                '{"instruction": "...", "output": "..."} as in Alpaca')
_SPEAKERS = {"human": "user", "gpt": "assistant", "chatgpt": "assistant"}  # in ShareGPT; others are called as here
_MOST_HELD_OUT = 64  # blocks: more would take longer to measure and say no more



@dataclass(frozen=True)
class OwnDocument:
    """One document.

    Attributes:
        content: a text, or the messages of a chat.
        place: where it was read, for errors: a file, or a file and a line.
        tools: descriptions of those that the assistant of a chat could call; None for none.
    """

    content: str | list[Message]
    place: str
    tools: list[Mapping[str, Any]] | None = None

    def text(self, template: ChatTemplate) -> str:
        """The document as text; a chat as the template writes it.

        Raises:
            InputError: if the template refuses the chat; says where.
        """
        if isinstance(self.content, str):
            return self.content
        try:
            return template.render(self.content, False, tools=self.tools)
        except InputError as error:
            raise InputError(f"{self.place}: {error}") from error


def read_documents(path: str | Path) -> list[OwnDocument]:
    """Read a text file, a file of records, or a folder of both, in the order of their names.

    Raises:
        InputError: if there is no such file, nothing in it, or something that is not as described above; says where.
    """
    path = data_path(path)
    if not path.exists():
        raise InputError(gettext("There is no file or folder {path!r}: check the path of the data.").format(
            path=str(path)))
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.rglob("*") if file.suffix.lower() in (*SUFFIXES, *_OTHER_DATA)
                       and file.is_file())
        if not files:
            raise InputError(gettext("The folder {path!r} holds no file to train on: its name must end in {suffixes}"
                                     ".").format(path=str(path), suffixes=", ".join(SUFFIXES)))
    elif not path.is_file():
        raise InputError(gettext("{path!r} is a pipe or a device: give a file, which can be read again when an "
                                 "interrupted training goes on.").format(path=str(path)))
    return [document for file in files for document in _read(file)]


def data_path(path: str | Path) -> Path:
    """The path of one's data, with a tilde written out.

    Raises:
        InputError: if there can be no such path: a home of nobody, a circle of links, a name too long.
    """
    try:
        found = Path(path).expanduser()
        found.resolve().exists()
    except (OSError, RuntimeError, ValueError) as error:
        raise InputError(gettext("{path!r} cannot be looked for ({error}): check the path of the data.").format(
            path=str(path), error=error)) from error
    return found


def count_special_tokens(documents: Sequence[OwnDocument], tokenizer: Qwen3Tokenizer) -> int:
    """How often a special token of the tokenizer is written in the texts that are no chats. It is ordinary text there:
    else a stranger's text could end a document or speak as somebody in a chat.
    """
    if not tokenizer.special_tokens:
        return 0
    pattern = re.compile("|".join(map(re.escape, tokenizer.special_tokens)))
    return sum(len(pattern.findall(document.content)) for document in documents if isinstance(document.content, str))


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
            raise InputError(gettext("{place}: there is nothing to learn in this document: give the assistant an "
                                     "answer.").format(place=document.place))
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
    number = finite_number(share)
    if number is None or not 0 <= number < 1:
        raise InputError(gettext("The held-out share is {share!r}: give a number from 0 to below 1.").format(
            share=share))
    share = number
    if share > 0 and len(documents) < 2:
        raise InputError("The text is one short document, so no part of it can be held out: give more text, shorter "
                         "blocks, or a held-out share of 0.")
    held_out = min(len(documents) - 1, max(1, round(share * len(documents)))) if share > 0 else 0
    chosen = set(random.Random(seed).sample(range(len(documents)), held_out))
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


def evaluation_blocks(documents: Sequence[Labelled], block_length: int, end_id: int) -> np.ndarray:
    """About as many blocks as the documents fill, (n, 2, block_length + 1), at least one and at most 64.

    The last block is filled up with documents that come a second time.
    """
    tokens = sum(len(ids) + 1 for ids, _ in documents)
    number = min(_MOST_HELD_OUT, max(1, tokens // (block_length + 1)))
    return np.stack(list(islice(endless_blocks(documents, block_length, end_id, seed=0), number)))


def _encode(document: OwnDocument, tokenizer: Qwen3Tokenizer) -> tuple[list[int], list[int]]:
    if isinstance(document.content, str):
        ids = tokenizer.encode(document.content, special_tokens=False)
        return ids, ids
    try:
        ids = tokenizer.encode_chat(document.content, add_generation_prompt=False, tools=document.tools)
    except InputError as error:
        raise InputError(f"{document.place}: {error}") from error
    return ids, label_answers(ids, tokenizer)


def _read(file: Path) -> list[OwnDocument]:
    suffix = file.suffix.lower()
    if suffix in _OTHER_DATA:
        raise InputError(gettext("{file!r} is of a kind that is not read here: convert or unpack it to one that ends "
                                 "in {suffixes}, or take it away.").format(
            file=str(file), suffixes=", ".join(SUFFIXES)))
    text = _content(file)
    if not text.strip():
        raise InputError(gettext("{file!r} is empty: give a file with text or records, or take it away.").format(
            file=str(file)))
    if suffix in (*_JSON, *_TABLES):
        entries = _json_entries(text, file) if suffix in _JSON else _table_entries(text, file, _TABLES[suffix])
        documents = [_document(entry, place) for entry, place in entries]
        if not documents:
            raise InputError(gettext("{file!r} is empty of records: give a file with some, or take it away.").format(
                file=str(file)))
        return documents
    kind = _kind_of_records(text)
    if kind is not None:
        raise InputError(gettext("{file!r} holds records in {kind} and is not named so: let its name end in {found}, "
                                 "so that it is read as such.").format(
            file=str(file), kind=kind, found=" or ".join(_JSON[:2] if kind == "JSON" else _TABLES)))
    return [OwnDocument(text, str(file))]


def _json_entries(text: str, file: Path) -> Iterator[tuple[Any, str]]:
    """What a JSON file holds, and where: the elements of an array, a single value, or a value on each line."""
    lines = [(number, line) for number, line in enumerate(text.split("\n"), start=1) if line.strip()]
    if len(lines) > 1 and _is_json(lines[0][1]):
        for number, line in lines:
            yield _parsed(line, f"{file}, line {number}"), f"{file}, line {number}"
        return
    whole, place = _parsed(text, str(file)), f"{file}, line {lines[0][0]}"
    if not isinstance(whole, list):
        yield whole, place
    for number, entry in enumerate(whole if isinstance(whole, list) else [], start=1):
        yield entry, f"{file}, record {number}"


def _parsed(text: str, place: str) -> Any:
    try:
        return parse_json(text)
    except ValueError as error:
        raise InputError(gettext("{place}: this is no JSON ({error}): write an array of objects, "
                                 "or one object on each line.").format(place=place, error=error)) from error


def _is_json(line: str) -> bool:
    try:
        parse_json(line)
    except ValueError:
        return False
    return True


def _table_entries(text: str, file: Path, delimiter: str) -> Iterator[tuple[dict[str, str], str]]:
    """The rows of a table under a header, and where."""
    rows = _rows(text, file, delimiter)
    _, header = rows[0]
    for line, row in rows[1:]:
        place = f"{file}, line {line}"
        if len(row) != len(header):
            raise InputError(gettext("{place}: this row has {count} cells and the header {columns}: put a text with "
                                     "{delimiter!r} or line feeds in it between double quotes.").format(
                place=place, count=len(row), columns=len(header), delimiter=delimiter))
        yield dict(zip(header, row)), place


def _rows(text: str, file: Path, delimiter: str) -> list[tuple[int, list[str]]]:
    """The rows of a table that are not empty, each with the number of its last line."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    # The limit's own value is 131,072 characters, less than a story. It is everybody's, so it is changed for no longer
    # than it takes to read the table.
    limit = csv.field_size_limit(max(len(text), 1))
    try:
        return [(rows.line_num, row) for row in rows if row]
    except csv.Error as error:
        raise InputError(gettext("{file}, line {line_num}: this is no table ({error}): double a double quote that "
                                 "stands inside a text, and put the text between double quotes.").format(
            file=file, line_num=rows.line_num, error=error)) from error
    finally:
        csv.field_size_limit(limit)


def _kind_of_records(text: str) -> str | None:
    """Whether a text is records after all: "JSON", "CSV" or None."""
    first = text.lstrip().partition("\n")[0]
    if first.startswith(("{", "[")):
        for part in (first, text):
            if _is_json(part) and isinstance(value := parse_json(part), (dict, list)) and value:
                return "JSON" if isinstance(value, dict) or isinstance(value[0], dict) else None
    columns = {column.strip(' "') for column in re.split("[,\t]", first)}
    return "CSV" if {"instruction", "output"} <= columns else None


def _content(file: Path) -> str:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise InputError(gettext("{file!r} cannot be read ({error}): check the path of the data.").format(
            file=str(file), error=error)) from error
    try:
        return data.decode("utf-8-sig").replace("\r\n", "\n")
    except UnicodeDecodeError as error:
        line = data[:error.start].count(b"\n") + 1
        raise InputError(gettext("{file}, line {line}: this is no text in UTF-8 ({reason}): save the file as UTF-8, or "
                                 "take it away if it is no text at all.").format(
            file=file, line=line, reason=error.reason)) from error


def _document(entry: Any, place: str) -> OwnDocument:
    """What a record holds."""
    if not isinstance(entry, dict):
        raise InputError(gettext("{place}: this is no object: write each record as either {shapes}.").format(
            place=place, shapes=gettext(_SHAPES)))
    try:
        json.dumps(entry, ensure_ascii=False).encode("utf-8")
    except UnicodeEncodeError as error:
        raise InputError(gettext("{place}: this holds half of a character (a lone surrogate), "
                                 "which no text has: correct it.").format(place=place)) from error
    shapes = [key for key in ("text", "messages", "conversations", "instruction") if key in entry]
    if shapes == ["text", "instruction"]:
        shapes = ["instruction"]  # Alpaca's own data has the question and its answer once more, as one text
    if len(shapes) != 1:
        fields = ", ".join(repr(str(key)[:40]) for key in list(entry)[:12])
        raise InputError(gettext("{place}: the record has {found}: give it those of one shape, "
                                 "which is either {shapes}.").format(
            place=place, shapes=gettext(_SHAPES),
            found=gettext("the fields {fields}").format(fields=fields) if fields else gettext("no fields")))
    if shapes == ["text"]:
        return OwnDocument(_text(entry, "text", place), place)
    if shapes == ["instruction"]:
        messages = _alpaca(entry, place)
    else:
        messages = _messages(entry[shapes[0]], place)
    if "system" in entry and isinstance(entry["system"], str) and entry["system"].strip():
        messages = [{"role": "system", "content": entry["system"]}, *messages]
    return OwnDocument(messages, place, _tools(entry.get("tools"), place))


def _text(entry: Mapping[str, Any], key: str, place: str) -> str:
    text = entry.get(key)
    if not isinstance(text, str) or not text.strip():
        raise InputError(gettext("{place}: \"{key}\" is {text}: write a text that is not empty.").format(
            place=place, key=key, text=repr(text)[:80]))
    return text


def _alpaca(entry: Mapping[str, Any], place: str) -> list[Message]:
    asked, answer = _text(entry, "instruction", place), _text(entry, "output", place)
    if str(entry.get("input") or "").strip():
        asked += "\n\n" + _text(entry, "input", place)
    return [{"role": "user", "content": asked}, {"role": "assistant", "content": answer}]


def _messages(messages: Any, place: str) -> list[Message]:
    if isinstance(messages, list):
        messages = [_turn(message) for message in messages]
    try:
        check_messages(messages)
    except InputError as error:
        raise InputError(f"{place}: {error}") from error
    if not any(message["role"] == "assistant" and ((message.get("content") or "").strip() or message.get("tool_calls"))
               for message in messages):
        raise InputError(gettext("{place}: no message is from the assistant, so there is nothing "
                                 "to learn: add the answer.").format(place=place))
    return list(messages)


def _turn(message: Any) -> Any:
    """A message of ShareGPT, `{"from": ..., "value": ...}`, as others write it; any other as it is."""
    if not isinstance(message, dict) or not {"from", "value"} <= message.keys():
        return message
    return {"role": _SPEAKERS.get(str(message["from"]), message["from"]), "content": message["value"]}


def _tools(tools: Any, place: str) -> list[Mapping[str, Any]] | None:
    """Descriptions of tools, which data sets often keep as JSON in a text."""
    if isinstance(tools, str) and tools.strip():
        tools = _parsed(tools, f'{place}, "tools"')
    if not tools:
        return None
    if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
        raise InputError(gettext("{place}: \"tools\" is {tools}: write a list of JSON "
                                 "descriptions, or leave it out.").format(place=place, tools=repr(tools)[:80]))
    return tools
