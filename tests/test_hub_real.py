"""The real Qwen3-0.6B, as published: run with `pytest -m hub` where the hub, or a copy of it, is at hand.

On a CPU in bfloat16, where the published values were found.
"""

from __future__ import annotations

import pytest
import torch
from published import PUBLISHED_IDS

from course_utils.generation import generate_text_basic_cache
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer

pytestmark = pytest.mark.hub

ENGLISH, CHINESE = "Explain large language models.", "明月几时有，把酒问"
Pair = tuple[Qwen3Model, Qwen3Tokenizer]


@pytest.fixture(scope="module")
def base() -> Pair:
    return load_model("qwen3-0.6b-base", device="cpu"), load_tokenizer("qwen3-0.6b-base")


@pytest.fixture(scope="module")
def chat() -> Pair:
    return load_model("qwen3-0.6b", device="cpu"), load_tokenizer("qwen3-0.6b")


def generate(pair: Pair, prompt: str, max_new_tokens: int, eos_token_id: int | None = None) -> list[int]:
    model, tokenizer = pair
    token_ids = torch.tensor([tokenizer.encode(prompt)])
    return generate_text_basic_cache(model, token_ids, max_new_tokens, eos_token_id)[0].tolist()


def test_shape(base: Pair, chat: Pair) -> None:
    for (model, _), context in ((base, 32_768), (chat, 40_960)):
        config = model.config
        assert (config.vocab_size, config.hidden_size, config.num_hidden_layers) == (151_936, 1024, 28)
        assert (config.num_attention_heads, config.num_key_value_heads, config.head_dim) == (16, 8, 128)
        assert (config.intermediate_size, config.rms_norm_eps, config.rope_theta) == (3072, 1e-6, 1_000_000)
        assert config.tie_word_embeddings and config.max_position_embeddings == context
        assert model.dtype == torch.bfloat16
        count = sum(parameter.numel() for parameter in model.parameters())
        assert count == 596_049_920 and count + model.lm_head.weight.numel() == 751_632_384


def test_token_ids(base: Pair, chat: Pair) -> None:
    for _, tokenizer in (base, chat):
        assert {text: tokenizer.encode(text) for text in PUBLISHED_IDS} == PUBLISHED_IDS
        assert [tokenizer.decode([i]) for i in tokenizer.encode(ENGLISH)] == [
            "Ex", "plain", " large", " language", " models", "."]
    assert base[1].eos_token_id == 151643 and chat[1].eos_token_id == 151645


def test_logits_of_the_base_model(base: Pair) -> None:
    model, tokenizer = base
    with torch.inference_mode():
        last = model(torch.tensor([tokenizer.encode(ENGLISH)]))[0, -1].float()
    # bfloat16 has eight bits: another order of summation may change the last of them.
    torch.testing.assert_close(last[:3], torch.tensor([7.3750, 2.0312, 8.0000]), atol=0.07, rtol=0)
    torch.testing.assert_close(last[-3:], torch.full((3,), -2.5469), atol=0.07, rtol=0)
    assert int(last.argmax()) == 20286 and tokenizer.decode([20286]) == " Large"


def test_base_model_answers_with_one_sentence_and_stops(base: Pair) -> None:
    new_ids = generate(base, "Explain large language models in a single sentence.", 100)
    end = new_ids.index(151643)
    text = base[1].decode(new_ids[:end])
    assert text.startswith(" Large language models are artificial intelligence systems that can understand, "
                           "generate, and process human language")
    assert text.count(".") == 1 and text.endswith(".")


def test_chat_model_continues_the_poem(chat: Pair) -> None:
    assert chat[1].decode(generate(chat, CHINESE, 10)) == "青天。对酒当歌，人生几"


@pytest.mark.parametrize("first, second, published", [("猫", "狗", 0.4233), ("猫", "热", 0.0591),
                                                      ("狗", "热", 0.0231)])
def test_embeddings_of_words(chat: Pair, first: str, second: str, published: float) -> None:
    model, tokenizer = chat
    vectors = [model.model.embed_tokens.weight[token_id].float() for word in (first, second)
               for token_id in tokenizer.encode(word)]
    assert len(vectors) == 2
    assert float(torch.cosine_similarity(vectors[0], vectors[1], dim=0)) == pytest.approx(published, abs=2e-3)


def test_lora_trains_a_five_hundredth(chat: Pair) -> None:
    lora_rank = 8
    trainable = sum(lora_rank * sum(weight.shape) for name, weight in chat[0].named_parameters()
                    if name.endswith(("q_proj.weight", "v_proj.weight")))
    everything = trainable + sum(parameter.numel() for parameter in chat[0].parameters())
    assert (trainable, everything) == (1_146_880, 597_196_800)
    assert f"{trainable / everything:.4%}" == "0.1920%"
