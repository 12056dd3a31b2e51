"""A conversation: messages, a model that answers them, and what each turn cost.

The model keeps nothing between two turns. Each time the chat template writes all messages anew, as one text, and the
model goes on from its end. With a `PrefixCache` it need not also read all of it anew: what an earlier turn, or another
conversation with the same system prompt, has computed is reused as far as the text is the same. That is up to the
beginning of the newest answer, not to its end: the template writes an older answer without the block of thoughts that
stood before it when it was generated.
"""

from __future__ import annotations

import inspect
from collections.abc import Generator, Iterator
from dataclasses import dataclass, replace
from weakref import WeakSet

import torch

from course_utils.chat import check_messages
from course_utils.errors import ContextLengthError, InputError
from course_utils.generation import generate_tokens
from course_utils.kv_cache import KVCache
from course_utils.language import gettext
from course_utils.number import require_whole_number
from course_utils.prefix_cache import PrefixCache, generate_with_prefix
from course_utils.qwen3 import Qwen3Model
from course_utils.sampling import GREEDY, Sampler, Sampling, random_generator
from course_utils.tokenizer import THOUGHTS, Qwen3Tokenizer


@dataclass(frozen=True)
class Turn:
    """What one turn cost, in tokens.

    Attributes:
        prompt_tokens: length of the whole conversation as the model was given it.
        reused_tokens: how many of these were not computed but found in the prefix cache.
        new_tokens: length of the answer, its end token not counted.
    """

    prompt_tokens: int
    reused_tokens: int
    new_tokens: int


class Conversation:
    """Talk with a model.

    Args:
        model, tokenizer: of a chat model.
        system: the system prompt, which says how to answer; None for none.
        sampling: how the tokens are chosen.
        seed: of the random generator, or one of your own; the same seed and the same questions give the same answers.
        prefixes: a cache of what was computed before, which any number of conversations may share; None reads the whole
            conversation anew in each turn.
        max_new_tokens: at which length an answer is cut off.
        enable_thinking: let the model think aloud first. Its thoughts are part of the answer that it streams.

    Attributes:
        messages: the turns so far, oldest first, each `{"role": ..., "content": ...}`; yours to shorten.
        last_turn: what the last answer cost, as far as it has come; None before the first.

    Raises:
        InputError: if the system prompt is no text, or max_new_tokens or the seed out of range.
    """

    def __init__(self, model: Qwen3Model, tokenizer: Qwen3Tokenizer, system: str | None = None,
                 sampling: Sampling = GREEDY, seed: int | torch.Generator = 0, prefixes: PrefixCache | None = None,
                 max_new_tokens: int = 256, enable_thinking: bool = False) -> None:
        max_new_tokens = require_whole_number("max_new_tokens", max_new_tokens, 1)
        self.model, self.tokenizer, self.prefixes = model, tokenizer, prefixes
        self.sampling, self.max_new_tokens, self.enable_thinking = sampling, max_new_tokens, enable_thinking
        self.generator = random_generator(seed)
        self.messages: list[dict[str, str]] = []
        self.last_turn: Turn | None = None
        self._streams: WeakSet[Generator[str, None, None]] = WeakSet()  # the answers that someone still holds
        if system is not None:
            self.messages.append({"role": "system", "content": system})
            check_messages(self.messages)

    def say(self, text: str) -> Generator[str, None, None]:
        """Say something and stream the answer. Nothing happens until its first piece is asked for.

        Question and answer are added to `messages` with the first piece, and the answer grows there as it is handed
        out. So one that is stopped early, by closing the stream or by an error, counts as far as it came; of a turn
        that fails before anything was handed out nothing is kept, and it can be tried again.

        Args:
            text: what the user says. Control tokens in it are ordinary text.

        Yields:
            Pieces of the answer, whole characters, as soon as they are there. Joined they are the message.

        Raises:
            InputError: if the text is empty or no string, or if another answer of this conversation is still going on.
            ContextLengthError: if the conversation has become too long for the model.
            TokenizerError: if the model has no chat template.
        """
        stream = self._say(text)
        self._streams.add(stream)
        return stream

    def _say(self, text: str) -> Generator[str, None, None]:
        # Asked of the streams: a note of one's own, taken back at the end, would stay where Ctrl-C strikes before that.
        states = [inspect.getgeneratorstate(stream) for stream in self._streams]
        if inspect.GEN_SUSPENDED in states or states.count(inspect.GEN_RUNNING) > 1:  # this one runs, too
            raise InputError("The answer before this one is not finished: read it to its end, or close() its stream.")
        if isinstance(text, str) and not text.strip():
            raise InputError("The message is empty: say something.")
        messages = [*self.messages, {"role": "user", "content": text}]
        prompt_ids = self.tokenizer.encode_chat(self._with_ended_thoughts(messages),
                                                enable_thinking=self.enable_thinking)
        self._check_length(len(prompt_ids))
        said, decoder = "", self.tokenizer.stream()
        for token_id in self._generate(prompt_ids):
            if piece := decoder.push(token_id):
                said += piece
                self.messages = [*messages, {"role": "assistant", "content": said}]
                yield piece
        rest = decoder.finish()
        self.messages = [*messages, {"role": "assistant", "content": said + rest}]
        if rest:
            yield rest

    def answer(self, text: str) -> str:
        """Say something and return the whole answer. Errors as for `say`."""
        return "".join(self.say(text))

    def _generate(self, prompt_ids: list[int]) -> Iterator[int]:
        """Generate the tokens of the answer, and count in `last_turn`."""
        token_ids = torch.tensor([prompt_ids], device=self.model.device)
        choose = Sampler(self.sampling, self.generator, token_ids, vocab_size=self.tokenizer.vocab_size)
        ends, longest = self.tokenizer.turn_end_token_ids, self.max_new_tokens
        if self.prefixes is None:
            tokens = generate_tokens(self.model, token_ids, longest, ends, KVCache(self.model.config), choose=choose)
        else:
            tokens = generate_with_prefix(self.model, token_ids, longest, ends, self.prefixes, choose)
        before = self._reused()
        token = next(tokens, None)  # it is now that the prompt is looked up
        turn = self.last_turn = Turn(len(prompt_ids), self._reused() - before, 0)
        while token is not None:
            turn = self.last_turn = replace(turn, new_tokens=turn.new_tokens + 1)
            yield int(token)
            token = next(tokens, None)

    def _with_ended_thoughts(self, messages: list[dict[str, str]]) -> list[dict[str, str]]:
        """Messages in which a thought that was cut off has an end. Templates take old thoughts out of what the model
        is given, but know them only by their end.
        """
        check_messages(messages)
        begin, end = THOUGHTS
        opened = self.tokenizer.chat_template.render([{"role": "user", "content": "?"}],
                                                     enable_thinking=self.enable_thinking)
        by_template = opened.rfind(begin) > opened.rfind(end)  # some begin the thought themselves

        def ended(message: dict[str, str]) -> dict[str, str]:
            text = message["content"]
            cut_off = text.rfind(begin) > text.rfind(end) or by_template and end not in text
            return {**message, "content": f"{text}\n{end}\n\n"} if cut_off else message

        return [ended(message) if message["role"] == "assistant" else message for message in messages]

    def _reused(self) -> int:
        return self.prefixes.stats.tokens_reused if self.prefixes is not None else 0

    def _check_length(self, prompt_tokens: int) -> None:
        context = self.model.config.max_position_embeddings
        if prompt_tokens + self.max_new_tokens - 1 > context:  # the last token is never fed back
            raise ContextLengthError(
                gettext("The conversation has {prompt_tokens} tokens by now, and with an answer of up to "
                        "{max_new_tokens} it does not fit into this model's {context}. Take old turns out of its "
                        "`messages`, lower its max_new_tokens, or start a new conversation.").format(
                    prompt_tokens=prompt_tokens, max_new_tokens=self.max_new_tokens, context=context))
