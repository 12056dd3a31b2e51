"""Two tokenizers for the checks: the bundled one, and one without merges, to find out who uses another than given."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from course_utils.loading import load_tokenizer
from course_utils.tokenizer import Qwen3Tokenizer


@cache
def bundled_tokenizer() -> Qwen3Tokenizer:
    """That of the bundled models, read once for all checks."""
    return load_tokenizer("tiny")


@cache
def bytewise_tokenizer() -> Qwen3Tokenizer:
    """A tokenizer of 256 tokens, one for each byte, in an order of its own: the id is not the byte."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet(), reverse=True)  # other ids than in the bundled tokenizer
    tokenizer = Tokenizer(models.BPE(vocab={character: i for i, character in enumerate(alphabet)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    with tempfile.TemporaryDirectory() as folder:
        tokenizer.save(str(Path(folder) / "tokenizer.json"))
        return Qwen3Tokenizer(folder)
