"""A box to chat with a model: the answer appears as it is generated, and can be stopped.

The answer is generated in a thread, so that the kernel goes on listening to the buttons. A thread may set the values of
widgets: the kernel hands what it sends to the one thread that talks to the page. Stop is heard by the kernel as well,
so while another cell runs it waits for that cell.
"""

from __future__ import annotations

import asyncio
import importlib
import threading
import time
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from course_utils.conversation import Conversation
from course_utils.errors import CourseError
from course_utils.language import gettext, noted
from course_utils.plots.figure import GENERATED, INK, PROMPT
from course_utils.prefix_cache import PrefixCache
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets.panel import Panel, View, live_line, text

SYSTEM = "You are a helpful assistant."
SAMPLE = "Hello!"
_SAMPLE_TOKENS = 32
_BETWEEN_DRAWINGS = 0.05  # seconds; a page that is told of each token falls behind a fast model
_AFTER_ENTER = 0.1  # seconds; the page sends the event first, and what was typed right behind it
_SPEAKERS = {noted("system"): (INK, "dotted"), noted("user"): (PROMPT, "solid"),
             noted("assistant"): (GENERATED, "dashed")}
_BUSY = noted("The model is still answering: wait for it, or press Stop.")
_READY = noted("Type a message and press Enter, or Send.")


def chat_box(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> ChatBox:
    """Talk with a model, which answers greedily. Where there are no widgets, a short talk stands in its place.

    Raises:
        TokenizerError: if the model has no chat template.
    """
    sample = Conversation(model, tokenizer, SYSTEM, max_new_tokens=_SAMPLE_TOKENS)
    sample.answer(SAMPLE)
    return ChatBox(Conversation(model, tokenizer, SYSTEM, prefixes=_prefixes(model)), transcript(sample.messages))


def transcript(messages: Sequence[Mapping[str, str]]) -> View:
    """A conversation to read.

    Args:
        messages: each `{"role": ..., "content": ...}`, such as `Conversation.messages`.
    """
    turns = "".join(_turn(message["role"], message["content"]) for message in messages)
    return View(_page(turns), " ".join(f"{gettext(message['role'])}: {message['content']}" for message in messages))


def _page(turns: str) -> str:
    label = gettext("conversation")
    return (f'<div role="log" aria-label="{label}" style="background: white; color: {INK}; padding: 4px">'
            f"{turns}</div>")


def _turn(role: str, content: str) -> str:
    speaker = escape(gettext(role))
    color, line = _SPEAKERS.get(role, (INK, "dotted"))
    return (f'<div style="border-left: 4px {line} {color}; margin: 6px 0; padding: 2px 8px; background: white; '
            f'color: {INK}; line-height: 1.4; white-space: pre-wrap"><b>{speaker}</b>: {escape(content)}</div>')


def _prefixes(model: Qwen3Model) -> PrefixCache:
    """So that a turn does not read again what the turns before it have read: room for one text of any length."""
    return PrefixCache(model.config, max_tokens=model.config.max_position_embeddings)


class ChatBox(Panel):
    """The box that `chat_box` returns.

    Args:
        conversation: what is said goes here.
        view: what stands in its place where there are no widgets.

    Attributes:
        conversation: the one that goes on; another one after Start over, or after the system prompt was changed.
        system, message: the fields.
        send_button, stop_button, restart_button: the buttons.
        log, answer, status: HTML: the turns so far, the answer as it grows, and a line on how things are.
    """

    def __init__(self, conversation: Conversation, view: View) -> None:
        self.conversation = conversation
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        super().__init__(view, self._make)

    def _make(self) -> Any:
        ipywidgets = importlib.import_module("ipywidgets")
        self.system = text(gettext("system prompt"), SYSTEM).widget()
        self.message = text(gettext("message"), "").widget()
        self.message.continuous_update = False  # else what was typed quickly may come after the event of Enter
        self.message.on_msg(self._on_key)
        self.send_button, self.stop_button, self.restart_button = (
            ipywidgets.Button(description=label) for label in (gettext("Send"), gettext("Stop"), gettext("Start over")))
        self.send_button.on_click(lambda _: self.send())
        self.stop_button.on_click(lambda _: self.stop())
        self.restart_button.on_click(lambda _: self.restart())
        self.log, self.answer, self.status = (ipywidgets.HTML() for _ in range(3))
        self.log.value = _page("")
        self._say(gettext(_READY))
        return ipywidgets.VBox([self.system, self.log, self.answer, self.status, self.message,
                                ipywidgets.Box([self.send_button, self.stop_button, self.restart_button])])

    @property
    def answering(self) -> bool:
        """Whether the model is generating."""
        return self._thread is not None and self._thread.is_alive()

    def send(self) -> None:
        """Say what stands in the field; returns at once."""
        if self.answering:
            self._say(gettext(_BUSY))
            return
        said, self.message.value = self.message.value, ""
        self._stop.clear()
        self._thread = threading.Thread(target=self._answer, args=(said,), daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End the answer with the token that is being generated; what was said so far counts."""
        self._stop.set()

    def restart(self) -> None:
        """Forget the conversation."""
        if self.answering:
            self._say(gettext(_BUSY))
            return
        self._begin()
        self._say(gettext(_READY))

    def wait(self) -> None:
        """Wait until the answer has ended."""
        if self._thread is not None:
            self._thread.join()

    def close(self) -> None:
        """Stop, and take the box off every page that shows it."""
        self.stop()
        super().close()

    def _begin(self) -> None:
        """A new conversation, with the system prompt that stands in the field."""
        old = self.conversation
        self.conversation = Conversation(old.model, old.tokenizer, self.system.value or None, prefixes=old.prefixes)
        self.log.value = _page("")

    def _on_key(self, _: Any, content: Mapping[str, Any], buffers: object) -> None:
        if content.get("event") != "submit":
            return
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:  # outside a notebook
            self.send()
        else:
            loop.call_later(_AFTER_ENTER, self.send)

    def _answer(self, said: str) -> None:
        """Generate an answer; this is what the thread does."""
        try:
            if self.system.value != self._system_prompt():
                self._begin()
            self._stream(said)
        except Exception as error:  # in a thread nobody would see it
            self.message.value = said
            name = "" if isinstance(error, CourseError) else f"{type(error).__name__}: "
            self._say(f"{name}{' '.join(str(error).split())}")

    def _system_prompt(self) -> str:
        messages = self.conversation.messages
        return messages[0]["content"] if messages and messages[0]["role"] == "system" else ""

    def _stream(self, said: str) -> None:
        self._say(gettext("The model is answering."))
        question, answer, drawn = _turn("user", said), "", 0.0
        stream = self.conversation.say(said)
        try:
            for piece in stream:
                answer += piece
                if time.monotonic() - drawn > _BETWEEN_DRAWINGS:
                    self.answer.value, drawn = question + _turn("assistant", answer), time.monotonic()
                if self._stop.is_set():
                    break
        finally:
            stream.close()  # from here on what was said counts
            self.answer.value = ""
            self.view = transcript(self.conversation.messages)
            self.log.value = self.view.html
        turn = self.conversation.last_turn
        assert turn is not None  # the stream has ended without an error
        self._say(gettext("{stopped}{prompt_tokens} tokens read, {reused_tokens} of them from the "
                          "cache; {new_tokens} written.").format(
            stopped=gettext("Stopped. ") if self._stop.is_set() else "", prompt_tokens=turn.prompt_tokens,
            reused_tokens=turn.reused_tokens, new_tokens=turn.new_tokens))

    def _say(self, sentence: str) -> None:
        self.status.value = live_line(sentence)
