"""The tokenizer: text to token ids and back, by byte-level BPE as Qwen3 uses it.

The text is brought into Unicode's composed form (NFC) and cut into words by a pattern; each word, as UTF-8
bytes, is put together from the pieces in the vocabulary (Sennrich et al., https://arxiv.org/abs/1508.07909,
on bytes as in GPT-2). No text is unknown, since every byte is a token; but a token need not be a whole
character, which is why text that arrives token by token goes through a `StreamDecoder`.

The work is done by the `tokenizers` library on the checkpoint's own `tokenizer.json`.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer, decoders, models

from course_utils.chat import ChatTemplate, Message, plain_messages, plain_tools, read_settings, token_string
from course_utils.errors import CourseError, InputError, TokenizerError
from course_utils.language import gettext
from course_utils.number import whole_number

# These mark the model's own thoughts in an answer; a chat template looks for them to take old thoughts out.
THOUGHTS = ("<think>", "</think>")
# Unicode's last private-use plane: characters that mean nothing, to stand for something else for a moment.
_PRIVATE_USE = range(0x100000, 0x10FFFE)


TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja")
"""The files of a model's folder that belong to its tokenizer; all but the first may be missing."""


class Qwen3Tokenizer:
    """Encodes text to token ids and decodes ids to text.

    Args:
        path: a checkpoint folder, or the `tokenizer.json` in it. `tokenizer_config.json`,
            `generation_config.json`, `config.json` and the chat template are read from the same folder; each
            of these may be absent.

    Attributes:
        vocab_size: number of ids that have a text. The model's embedding may have more rows.
        special_tokens: every string that is one id by decree and is not learned from text, such as
            `<|im_end|>` and `<think>`, with its id.
        eos_token, eos_token_id: the end-of-text token. It is the `eos_token` of `tokenizer_config.json`, else
            the first `eos_token_id` of `generation_config.json` or `config.json`, else `<|endoftext|>` if the
            vocabulary has it, else None.
        end_token_ids: all ids that end an answer: `eos_token_id` and those in the two config files.

    Raises:
        TokenizerError: a file is missing, damaged, of another kind of tokenizer, or contradicts another.
    """

    def __init__(self, path: str | Path) -> None:
        path = Path(path)
        file = path if path.suffix == ".json" and not path.is_dir() else path / "tokenizer.json"
        self.folder = file.parent
        self._tokenizer = _load(file)
        # The same vocabulary without the special tokens: here their strings are text like any other.
        self._plain_tokenizer = Tokenizer(self._tokenizer.model)
        self._plain_tokenizer.normalizer = self._tokenizer.normalizer
        self._plain_tokenizer.pre_tokenizer = self._tokenizer.pre_tokenizer

        added = self._tokenizer.get_added_tokens_decoder()
        self.vocab_size: int = self._tokenizer.get_vocab_size()
        self.special_tokens: dict[str, int] = {token.content: i for i, token in sorted(added.items())}
        self._special_bytes = {token_id: text.encode() for text, token_id in self.special_tokens.items()}
        self._skippable = {token_id for token_id, token in added.items() if token.special}
        self.eos_token_id, self.end_token_ids = self._find_end_tokens()

    @property
    def eos_token(self) -> str | None:
        """The text of `eos_token_id`."""
        return None if self.eos_token_id is None else self.decode(self.eos_token_id)

    @property
    def turn_end_token_ids(self) -> frozenset[int]:
        """All ids that end an answer in a chat: `end_token_ids`, and `<|im_end|>`, which a base model's files do not
        name.
        """
        return self.end_token_ids | {i for token, i in self.special_tokens.items() if token == "<|im_end|>"}

    @cached_property
    def chat_template(self) -> ChatTemplate:
        """The chat template beside the tokenizer; raises `TokenizerError` where there is none."""
        return ChatTemplate.from_folder(self.folder)

    def encode(self, text: str, special_tokens: bool = True) -> list[int]:
        """Text to token ids.

        Args:
            text: any text.
            special_tokens: whether `<|im_end|>`, `<think>` and their like in the text are control tokens.
                With False they are spelled out as ordinary text, as they must be in text of a stranger.

        Returns:
            The ids; an empty text has none. Decoded they give the text in Unicode's composed form (NFC).

        Raises:
            InputError: `text` is not a string, or has half a surrogate pair in it.
        """
        if not isinstance(text, str):
            raise InputError(gettext("encode got a {kind}. Give it one string.").format(kind=type(text).__name__))
        tokenizer = self._tokenizer if special_tokens else self._plain_tokenizer
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                gettext("The text has half a surrogate pair, {text!r}, at position {start}, which is not a character. "
                        "Read the text as UTF-8, or take that position out.").format(
                    text=text[error.start], start=error.start)
            ) from error
        ids: list[int] = tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def decode(self, token_ids: int | Iterable[int], skip_special_tokens: bool = False) -> str:
        """Token ids to text.

        Args:
            token_ids: one id, or a list or one-dimensional tensor of them.
            skip_special_tokens: leave out the tokens that the checkpoint marks as special (not `<think>`).

        Returns:
            The text. Bytes that form no character become the replacement character U+FFFD.

        Raises:
            InputError: not a one-dimensional sequence of whole numbers from 0.
            TokenizerError: an id beyond the vocabulary.
        """
        skipped = self._skippable if skip_special_tokens else set()
        ids = _as_ids(token_ids)
        return b"".join(self.token_bytes(i) for i in ids if i not in skipped).decode("utf-8", "replace")

    def token_bytes(self, token_id: int) -> bytes:
        """The bytes that a token stands for: UTF-8, but not always whole characters.

        Raises:
            InputError: not a whole number from 0.
            TokenizerError: an id beyond the vocabulary.
        """
        token_id = _as_id(token_id)
        if token_id in self._special_bytes:
            return self._special_bytes[token_id]
        token = self._tokenizer.id_to_token(token_id) if token_id < 2**32 else None
        if token is None:
            raise TokenizerError(
                gettext("Token id {token_id} has no text: the vocabulary has {vocab_size} tokens, though a model's "
                        "embedding may have more rows. Choose among the ids of the vocabulary, and check that model "
                        "and tokenizer belong together.").format(token_id=token_id, vocab_size=self.vocab_size)
            )
        return bytes(_BYTE_OF_CHARACTER[character] for character in token)

    def token_text(self, token_id: int) -> str:
        r"""A token to look at: what is invisible or no whole character is escaped, as in `\n` and `\xe6`."""
        text = self.token_bytes(token_id).decode("utf-8", "backslashreplace")
        return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)

    def stream(self, skip_special_tokens: bool = False) -> StreamDecoder:
        """A new `StreamDecoder` on this tokenizer."""
        return StreamDecoder(self, skip_special_tokens)

    def encode_chat(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        neutralize: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> list[int]:
        """Messages to token ids, by the checkpoint's chat template.

        Args:
            messages: the turns, oldest first, each `{"role": ..., "content": ...}`; see `check_messages`.
            add_generation_prompt: end with the beginning of an answer.
            enable_thinking: let the model think aloud first.
            neutralize: special tokens written inside a message or a tool become ordinary text, so that nobody can end
                their turn and speak as somebody else. Only `<think>` and `</think>` in an assistant's own
                message stay, for the template looks for them.
            tools: JSON descriptions of functions that the model may call, for templates that know of tools.

        Returns:
            The ids; for messages without such strings the same as `encode(chat_template.render(messages))`.

        Raises:
            InputError: the messages or tools are not as described, or the template refuses them.
            TokenizerError: there is no chat template, or it fails.
        """
        template = self.chat_template
        if not neutralize:
            return self.encode(template.render(messages, add_generation_prompt, enable_thinking, tools))
        plain, described = plain_messages(messages), plain_tools(tools)
        # While the template is at work, a private-use character stands for each special token inside the
        # messages. What is special in the rendered text then comes from the template alone.
        present = set(json.dumps([plain, described], ensure_ascii=False))
        present |= set(template.source) | set(template.with_tools or "")
        free = (chr(code) for code in _PRIVATE_USE if chr(code) not in present)
        stand_ins = dict(zip(self.special_tokens, free, strict=False))
        safe_messages = [_replace_in_message(message, stand_ins) for message in plain]
        text = template.render(safe_messages, add_generation_prompt, enable_thinking, _replace(described, stand_ins))
        originals = str.maketrans({stand_in: token for token, stand_in in stand_ins.items()})
        ids: list[int] = []
        for piece in self._special_pattern.split(text):
            if piece in self.special_tokens:
                ids.append(self.special_tokens[piece])
            else:
                ids.extend(self.encode(piece.translate(originals), special_tokens=False))
        return ids

    @cached_property
    def _special_pattern(self) -> re.Pattern[str]:
        """Matches any special token, the longest first; as a group, so that `split` keeps it."""
        return _any_of(self.special_tokens)

    def _find_end_tokens(self) -> tuple[int | None, frozenset[int]]:
        """`eos_token_id` and `end_token_ids`, from the files beside the tokenizer."""
        named: list[int] = []
        for name in ("generation_config.json", "config.json"):
            entry = read_settings(self.folder / name).get("eos_token_id")
            for token_id in entry if isinstance(entry, list) else [] if entry is None else [entry]:
                try:
                    self.token_bytes(token_id)
                except CourseError as error:
                    raise TokenizerError(
                        gettext("{folder} names the eos_token_id {token_id!r}, which is not in the vocabulary. Take "
                                "all files of the folder from the same model.").format(
                            folder=self.folder / name, token_id=token_id)
                    ) from error
                named.append(token_id)
        eos_token = token_string(read_settings(self.folder / "tokenizer_config.json").get("eos_token"))
        if eos_token is not None:
            eos_token_id = self._tokenizer.token_to_id(eos_token)
            if eos_token_id is None:
                raise TokenizerError(
                    gettext("{folder} names the eos_token {eos_token!r}, which is not in the vocabulary. Take all "
                            "files of the folder from the same model.").format(
                        folder=self.folder / "tokenizer_config.json", eos_token=eos_token)
                )
        else:
            eos_token_id = named[0] if named else self.special_tokens.get("<|endoftext|>")
        return eos_token_id, frozenset(named if eos_token_id is None else [eos_token_id, *named])

    def __repr__(self) -> str:
        return f"Qwen3Tokenizer(vocab_size={self.vocab_size}, eos_token={self.eos_token!r})"


class StreamDecoder:
    """Decodes tokens one at a time and never shows half a character.

    What `push` and finally `finish` return, joined, is what `decode` makes of all the ids at once.

    Args:
        tokenizer: whose ids are pushed.
        skip_special_tokens: as in `decode`.
    """

    def __init__(self, tokenizer: Qwen3Tokenizer, skip_special_tokens: bool = False) -> None:
        self._tokenizer = tokenizer
        self._skipped: set[int] = tokenizer._skippable if skip_special_tokens else set()
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def push(self, token_id: int) -> str:
        """Take one more token; return the characters that are complete now, possibly none."""
        data = self._tokenizer.token_bytes(token_id)
        return "" if token_id in self._skipped else self._decoder.decode(data)

    def finish(self) -> str:
        """Return what is left, an unfinished character as U+FFFD; the decoder is as new after it."""
        rest = self._decoder.decode(b"", final=True)
        self._decoder.reset()
        return rest


def _load(file: Path) -> Tokenizer:
    """Read `tokenizer.json` and make sure that it is a byte-level BPE."""
    if not file.is_file():
        text = (gettext("There is no file {name} in {folder}. Give the folder of a downloaded or bundled model.")
                if file.parent.is_dir() else
                gettext("There is no folder {folder}. Give the folder of a downloaded or bundled model."))
        raise TokenizerError(text.format(name=file.name, folder=file.parent))
    try:
        tokenizer = Tokenizer.from_file(str(file))
    except Exception as error:  # The library raises a bare Exception for every kind of damage.
        raise TokenizerError(
            gettext("{file} is damaged or no tokenizer file ({error}). Delete it and "
                    "fetch it again with its model.").format(file=file, error=error)
        ) from error
    if not isinstance(tokenizer.model, models.BPE) or not isinstance(tokenizer.decoder, decoders.ByteLevel):
        raise TokenizerError(
            gettext("{file} holds a {kind} tokenizer that is not a byte-level BPE like Qwen3's. Use the "
                    "tokenizer of a Qwen3 model.").format(file=file, kind=type(tokenizer.model).__name__)
        )
    # A file may ask for cut or padded texts; ids must stand for the whole text and nothing else.
    tokenizer.no_truncation()
    tokenizer.no_padding()
    return tokenizer


def _as_id(token_id: Any) -> int:
    """One id as an int; whole numbers of NumPy and PyTorch count as well."""
    number = whole_number(token_id)
    if number is None and (isinstance(token_id, (list, tuple)) or getattr(token_id, "ndim", 0) > 0):
        raise InputError(gettext("Expected one id, got a row of {count}. Take one row of ids, as in ids[0].").format(
            count=len(token_id)))
    if number is None:
        raise InputError(gettext("A token id is a whole number, not {token_id!r}. Give ids as integers.").format(
            token_id=token_id))
    if number < 0:
        raise InputError(gettext("A token id is never negative, but this one is {number}. Give ids from 0.").format(
            number=number))
    return number


def _as_ids(token_ids: Any) -> list[int]:
    """One id, or a row of them, as a list of ints."""
    if hasattr(token_ids, "tolist"):
        token_ids = token_ids.tolist()
    if isinstance(token_ids, (str, bytes)):
        raise InputError(gettext("decode got the text {token_ids!r}. It takes token ids; use encode for text.").format(
            token_ids=token_ids))
    if not isinstance(token_ids, Iterable):
        token_ids = [token_ids]
    return [_as_id(token_id) for token_id in token_ids]


def _any_of(strings: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted(strings, key=len, reverse=True)
    # Without any string, match nothing.
    return re.compile(f"({'|'.join(map(re.escape, longest_first))})" if longest_first else "(?!)")


def _replace_in_message(message: Message, stand_ins: dict[str, str]) -> dict[str, Any]:
    """The message with a stand-in for each special token in its texts."""
    own = {token: char for token, char in stand_ins.items() if token not in THOUGHTS}
    kept = own if message["role"] == "assistant" else stand_ins
    return {key: _replace(value, kept if key == "content" else stand_ins) for key, value in message.items()}


def _replace(value: Any, stand_ins: dict[str, str]) -> Any:
    """`value` with every special token in it replaced, also inside lists and dictionaries."""
    if isinstance(value, str):
        return _any_of(stand_ins).sub(lambda match: stand_ins[match[0]], value)
    if isinstance(value, dict):
        return {_replace(key, stand_ins): _replace(item, stand_ins) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_replace(item, stand_ins) for item in value]
    return value


def _bytes_of_characters() -> dict[str, int]:
    """GPT-2's table: how `tokenizer.json` writes each byte as a visible character.

    Printable Latin-1 characters stand for themselves, those from U+0100 on for the other bytes in order.
    """
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(0x100 + n): byte for n, byte in enumerate(hidden)}


_BYTE_OF_CHARACTER = _bytes_of_characters()
