"""The tokenizer: known ids of the real Qwen3, round trips, streams, bad input and bad files."""

from __future__ import annotations

import json
import shutil
import unicodedata
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from published import PUBLISHED_IDS
from tokenizers import Tokenizer, models

from course_utils.errors import InputError, TokenizerError
from course_utils.tokenizer import Qwen3Tokenizer, StreamDecoder

quick = settings(max_examples=150, deadline=None)
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
# Any text, and text in which special tokens and their fragments are frequent.
pieces = st.sampled_from([*SPECIAL, "<|im_", "end|>", " ", "\n", "é", "e\u0301", "猫"])
texts = st.text() | st.lists(pieces).map("".join)


def copy_with(folder: Path, target: Path, **files: Any) -> Path:
    """A copy of a checkpoint folder in which the named JSON files are replaced, or, by None, taken out."""
    shutil.copytree(folder, target)
    for name, content in files.items():
        file = target / f"{name}.json"
        file.unlink(missing_ok=True)
        if content is not None:
            file.write_text(content if isinstance(content, str) else json.dumps(content), encoding="utf-8")
    return target


# --- the real Qwen3 ---


@pytest.mark.parametrize(("text", "ids"), [*PUBLISHED_IDS.items(), ("", [])])
def test_known_ids_of_qwen3(qwen3_tokenizer: Qwen3Tokenizer, text: str, ids: list[int]) -> None:
    assert qwen3_tokenizer.encode(text) == ids
    assert qwen3_tokenizer.decode(ids) == text


def test_known_tokens_of_qwen3(qwen3_tokenizer: Qwen3Tokenizer) -> None:
    ids = qwen3_tokenizer.encode("Explain large language models.")
    tokens = [qwen3_tokenizer.token_text(i) for i in ids]
    assert tokens == ["Ex", "plain", " large", " language", " models", "."]
    assert qwen3_tokenizer.vocab_size == 151_669
    assert qwen3_tokenizer.eos_token_id == 151_643  # Only tokenizer.json is there, so the fallback.


def test_an_id_between_vocabulary_and_embedding_is_an_error(qwen3_tokenizer: Qwen3Tokenizer) -> None:
    with pytest.raises(TokenizerError, match=r"151935 has no text.*151669"):
        qwen3_tokenizer.decode([840, 151_935])


# --- text to ids and back ---


@quick
@given(text=texts)
def test_round_trip(tokenizer: Qwen3Tokenizer, text: str) -> None:
    plain = tokenizer.encode(text, special_tokens=False)
    assert tokenizer.decode(plain) == unicodedata.normalize("NFC", text)
    assert not set(plain) & set(tokenizer.special_tokens.values())


@quick
@given(text=st.text())
def test_round_trip_with_special_tokens_on(tokenizer: Qwen3Tokenizer, text: str) -> None:
    assert tokenizer.decode(tokenizer.encode(text)) == unicodedata.normalize("NFC", text)


@quick
@given(text=texts)
def test_encode_agrees_with_the_library(
    small_tokenizer_folder: Path, small_tokenizer: Qwen3Tokenizer, text: str
) -> None:
    library = Tokenizer.from_file(str(small_tokenizer_folder / "tokenizer.json"))
    assert small_tokenizer.encode(text) == library.encode(text).ids


@pytest.mark.parametrize("special", SPECIAL)
def test_special_tokens_are_one_id_or_ordinary_text(tokenizer: Qwen3Tokenizer, special: str) -> None:
    assert tokenizer.encode(special) == [tokenizer.special_tokens[special]]
    spelled_out = tokenizer.encode(f"a{special}b", special_tokens=False)
    assert len(spelled_out) > 3
    assert tokenizer.decode(spelled_out) == f"a{special}b"


def test_skipping_special_tokens(small_tokenizer: Qwen3Tokenizer) -> None:
    ids = small_tokenizer.encode("<|im_start|>one<think>two<|im_end|>")
    assert small_tokenizer.decode(ids) == "<|im_start|>one<think>two<|im_end|>"
    assert small_tokenizer.decode(ids, skip_special_tokens=True) == "one<think>two"


def test_decode_takes_whatever_holds_ids(small_tokenizer: Qwen3Tokenizer) -> None:
    ids = small_tokenizer.encode("月 moon")
    for same in (ids, tuple(ids), iter(ids), torch.tensor(ids), np.array(ids), list(torch.tensor(ids))):
        assert small_tokenizer.decode(same) == "月 moon"
    assert small_tokenizer.decode([]) == small_tokenizer.decode(torch.tensor([], dtype=torch.long)) == ""
    one = small_tokenizer.encode("a")[0]
    assert small_tokenizer.decode(one) == small_tokenizer.decode(torch.tensor(one)) == "a"


@pytest.mark.parametrize(
    "ids",
    [
        [-1],
        [True],
        [1.0],
        ["1"],
        "text",
        None,
        [[1, 2]],
        torch.tensor([[1, 2]]),
        torch.tensor([1.0]),
        torch.tensor([True]),
        torch.tensor([[[1]]]),
    ],
    ids=repr,
)
def test_what_is_no_row_of_ids_is_refused(small_tokenizer: Qwen3Tokenizer, ids: Any) -> None:
    with pytest.raises(InputError):
        small_tokenizer.decode(ids)


@pytest.mark.parametrize("beyond", [0, 2**32, 2**70])
def test_ids_beyond_the_vocabulary_are_refused(small_tokenizer: Qwen3Tokenizer, beyond: int) -> None:
    for method in (small_tokenizer.decode, small_tokenizer.token_bytes, small_tokenizer.stream().push):
        with pytest.raises(TokenizerError, match="has no text"):
            method(small_tokenizer.vocab_size + beyond)


@pytest.mark.parametrize("text", [None, b"bytes", ["a list"], "half a pair \ud83d"], ids=ascii)
def test_what_is_no_text_is_refused(small_tokenizer: Qwen3Tokenizer, text: Any) -> None:
    for special_tokens in (True, False):
        with pytest.raises(InputError):
            small_tokenizer.encode(text, special_tokens=special_tokens)


# --- single tokens and streams ---


def test_every_byte_has_its_token(tokenizer: Qwen3Tokenizer) -> None:
    assert {tokenizer.token_bytes(i) for i in range(300)} >= {bytes([byte]) for byte in range(256)}


def test_token_text_shows_what_cannot_be_seen(small_tokenizer: Qwen3Tokenizer) -> None:
    def shown(text: str) -> list[str]:
        return [small_tokenizer.token_text(i) for i in small_tokenizer.encode(text)]

    assert shown("\n") == ["\\n"]
    assert shown("🪿") == ["\\xf0", "\\x9f", "\\xaa", "\\xbf"]
    assert shown(" the") == [" the"]
    assert shown("<|im_end|>") == ["<|im_end|>"]


@quick
@given(data=st.data(), skip=st.booleans())
def test_a_stream_shows_the_same_as_decode(
    tokenizer: Qwen3Tokenizer, data: st.DataObject, skip: bool
) -> None:
    special = st.sampled_from(sorted(tokenizer.special_tokens.values()))
    # The first 256 ids are the single bytes, in both tokenizers: most sequences of them are no valid UTF-8.
    ids = data.draw(st.lists(st.integers(0, 255) | special | st.integers(0, tokenizer.vocab_size - 1)))
    stream = tokenizer.stream(skip_special_tokens=skip)
    streamed = "".join(map(stream.push, ids)) + stream.finish()
    assert streamed == tokenizer.decode(ids, skip_special_tokens=skip)
    assert streamed == tokenizer._tokenizer.decode(ids, skip_special_tokens=skip)


@quick
@given(text=st.text(min_size=1))
def test_a_stream_of_good_text_never_shows_a_broken_character(tokenizer: Qwen3Tokenizer, text: str) -> None:
    text = unicodedata.normalize("NFC", text)
    stream = StreamDecoder(tokenizer)
    shown = ""
    for token_id in tokenizer.encode(text):
        shown += stream.push(token_id)
        assert text.startswith(shown)
    assert shown == text
    assert stream.finish() == ""


def test_an_unfinished_character_comes_out_at_the_end(small_tokenizer: Qwen3Tokenizer) -> None:
    stream = small_tokenizer.stream()
    ids = small_tokenizer.encode("🪿")
    assert "".join(map(stream.push, ids[:-1])) == ""
    assert stream.finish() == "\ufffd"
    assert "".join(map(stream.push, ids)) == "🪿"  # finish() has cleared it


# --- the files ---


def test_folder_and_file_are_the_same(small_tokenizer_folder: Path, small_tokenizer: Qwen3Tokenizer) -> None:
    by_file = Qwen3Tokenizer(str(small_tokenizer_folder / "tokenizer.json"))
    assert by_file.special_tokens == small_tokenizer.special_tokens
    assert by_file.eos_token_id == small_tokenizer.eos_token_id
    assert repr(by_file) == f"Qwen3Tokenizer(vocab_size={by_file.vocab_size}, eos_token='<|im_end|>')"


def test_end_tokens_come_from_the_files(small_tokenizer_folder: Path, tmp_path: Path) -> None:
    text_end, turn_end = "<|endoftext|>", "<|im_end|>"
    ids = Qwen3Tokenizer(small_tokenizer_folder).special_tokens
    none = {"tokenizer_config": None, "generation_config": None}
    cases: list[tuple[dict[str, Any], str, set[str]]] = [
        ({}, turn_end, {turn_end, text_end}),
        (none, text_end, {text_end}),
        (none | {"config": {"eos_token_id": ids[turn_end]}}, turn_end, {turn_end}),
        ({"tokenizer_config": {"eos_token": {"content": text_end}}}, text_end, {text_end, turn_end}),
        ({"tokenizer_config": {"eos_token": None}}, turn_end, {turn_end, text_end}),
        (
            {"tokenizer_config": None, "generation_config": {"eos_token_id": ids[text_end]},
             "config": {"eos_token_id": ids[turn_end]}},
            text_end, {turn_end, text_end},
        ),
    ]  # fmt: skip
    for number, (files, eos_token, end_tokens) in enumerate(cases):
        tokenizer = Qwen3Tokenizer(copy_with(small_tokenizer_folder, tmp_path / str(number), **files))
        assert tokenizer.eos_token == eos_token, files
        assert tokenizer.eos_token_id == ids[eos_token]
        assert tokenizer.end_token_ids == {ids[token] for token in end_tokens}
        assert tokenizer.turn_end_token_ids == {ids[token] for token in end_tokens | {turn_end}}


def test_without_any_end_token_there_is_none(tmp_path: Path, small_tokenizer_folder: Path) -> None:
    content = json.loads((small_tokenizer_folder / "tokenizer.json").read_text(encoding="utf-8"))
    content["added_tokens"] = []
    (tmp_path / "tokenizer.json").write_text(json.dumps(content), encoding="utf-8")
    tokenizer = Qwen3Tokenizer(tmp_path)
    assert (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.end_token_ids) == (None, None, frozenset())
    assert tokenizer.decode(tokenizer.encode("<|im_end|>")) == "<|im_end|>"


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"tokenizer": None}, "no file tokenizer.json"),
        ({"tokenizer": ""}, "damaged"),
        ({"tokenizer": "<html>not found</html>"}, "damaged"),
        ({"tokenizer": "version https://git-lfs.github.com/spec/v1"}, "damaged"),
        ({"tokenizer": {}}, "damaged"),
        ({"tokenizer": json.loads(Tokenizer(models.Unigram()).to_str())}, "Unigram"),
        ({"tokenizer": json.loads(Tokenizer(models.BPE()).to_str())}, "byte-level"),
        ({"tokenizer_config": "{"}, "cannot be read as JSON"),
        ({"tokenizer_config": []}, "no object"),
        ({"tokenizer_config": {"eos_token": "</s>"}}, "'</s>'"),
        ({"generation_config": {"eos_token_id": 151_645}}, "151645"),
        ({"generation_config": {"eos_token_id": [-1]}}, "-1"),
        ({"config": {"eos_token_id": "<|im_end|>"}}, "eos_token_id '<"),
    ],
)
def test_bad_files_are_named(
    small_tokenizer_folder: Path, tmp_path: Path, files: dict[str, Any], message: str
) -> None:
    folder = copy_with(small_tokenizer_folder, tmp_path / "model", **files)
    with pytest.raises(TokenizerError, match=message) as caught:
        Qwen3Tokenizer(folder)
    assert str(folder) in str(caught.value)


def test_a_missing_folder_or_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TokenizerError, match=r"no folder.*nowhere"):
        Qwen3Tokenizer(tmp_path / "nowhere")
    with pytest.raises(TokenizerError, match=r"no file tokens\.json"):
        Qwen3Tokenizer(tmp_path / "tokens.json")


def test_texts_are_never_cut_or_padded(small_tokenizer_folder: Path, tmp_path: Path) -> None:
    library = Tokenizer.from_file(str(small_tokenizer_folder / "tokenizer.json"))
    library.enable_truncation(4)
    library.enable_padding(length=50)
    library.save(str(tmp_path / "tokenizer.json"))
    tokenizer = Qwen3Tokenizer(tmp_path)
    assert tokenizer.decode(tokenizer.encode("0123456789")) == "0123456789"
