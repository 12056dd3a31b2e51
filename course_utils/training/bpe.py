"""Train a byte-level BPE tokenizer of the Qwen kind on our own text, with the `tokenizers` library.

Same pre-tokenization pattern, same special tokens, same byte alphabet as Qwen3's, only a smaller vocabulary. The
same text gives the same file, whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Iterable

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

END_OF_TEXT, IM_START, IM_END = "<|endoftext|>", "<|im_start|>", "<|im_end|>"

# Qwen3's list, in its order. What is marked False is kept by `decode` even when special tokens are skipped.
SPECIAL_TOKENS: dict[str, bool] = {
    END_OF_TEXT: True, IM_START: True, IM_END: True,
    **{f"<|{name}|>": True for name in (
        "object_ref_start", "object_ref_end", "box_start", "box_end", "quad_start", "quad_end", "vision_start",
        "vision_end", "vision_pad", "image_pad", "video_pad")},
    "<tool_call>": False, "</tool_call>": False,
    **{f"<|{name}|>": False for name in ("fim_prefix", "fim_middle", "fim_suffix", "fim_pad", "repo_name", "file_sep")},
    "<tool_response>": False, "</tool_response>": False, "<think>": False, "</think>": False,
}

# Text is first cut into words, single digits, runs of punctuation and white space; merges never cross a cut.
PATTERN = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
           r"|\s*[\r\n]+|\s+(?!\S)|\s+")


def train_bpe(texts: Iterable[str], vocab_size: int) -> Tokenizer:
    """Learn the merges.

    Args:
        texts: the text to learn from.
        vocab_size: number of ordinary tokens, the 256 bytes included; the special tokens come behind them.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([
        pre_tokenizers.Split(Regex(PATTERN), "isolated"),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)])
    tokenizer.decoder = decoders.ByteLevel()
    # Chinese has no spaces, so whole clauses could become tokens: six characters of three bytes are enough.
    trainer = trainers.BpeTrainer(vocab_size=vocab_size, show_progress=False, max_token_length=18,
                                  initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()))
    tokenizer.train_from_iterator(texts, trainer)
    tokenizer.add_tokens([AddedToken(text, special=special, normalized=False)
                          for text, special in SPECIAL_TOKENS.items()])
    return tokenizer
