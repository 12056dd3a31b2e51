"""The chat box says what a conversation says, stops when asked to, and keeps what was generated."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from test_model import make, variant

from course_utils.conversation import Conversation
from course_utils.errors import TokenizerError
from course_utils.loading import load_model, load_tokenizer
from course_utils.qwen3 import Qwen3Model
from course_utils.tokenizer import Qwen3Tokenizer
from course_utils.widgets import chat, panel
from course_utils.widgets.chat import SYSTEM, ChatBox, chat_box, transcript


@pytest.fixture(scope="module")
def model() -> Qwen3Model:
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def tokenizer() -> Qwen3Tokenizer:
    return load_tokenizer("tiny")


@pytest.fixture
def box(model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> Iterator[ChatBox]:
    box = chat_box(model, tokenizer)
    yield box
    box.close()
    box.wait()


def say(box: ChatBox, text: str) -> None:
    """What Enter does, and to wait for the answer."""
    box.message.value = text
    box.message._handle_custom_msg({"event": "submit"}, [])
    box.wait()


@pytest.fixture
def gate(model: Qwen3Model) -> Iterator[threading.Semaphore]:
    """Lets through as many passes of the model as it is released for, so that a test can act between two tokens."""
    gate = threading.Semaphore(0)
    handle = model.model.embed_tokens.register_forward_pre_hook(lambda *_: gate.acquire(timeout=20) and None)
    yield gate
    handle.remove()
    gate.release(1000)  # whatever still waits


def test_answers_are_those_of_a_conversation(box: ChatBox, model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> None:
    talk = Conversation(model, tokenizer, SYSTEM)
    for question in ("What is a token?", "And in Chinese?"):
        talk.answer(question)
        say(box, question)
        assert box.conversation.messages == talk.messages
        assert box.view == transcript(talk.messages) and box.log.value == box.view.html
        assert (box.message.value, box.answer.value) == ("", "")
    turn = box.conversation.last_turn
    assert turn is not None and turn.reused_tokens > 0
    assert f"{turn.prompt_tokens} tokens read, {turn.reused_tokens} of them from the cache" in box.status.value


def test_enter_may_be_heard_before_what_was_typed(box: ChatBox, monkeypatch: pytest.MonkeyPatch) -> None:
    """A browser sends the event first, the value right behind it."""
    monkeypatch.setattr(chat, "_AFTER_ENTER", 0)

    async def page() -> None:
        box.message._handle_custom_msg({"event": "submit"}, [])
        box.message.value = "Hello!"
        while not box.answering and len(box.conversation.messages) < 3:
            await asyncio.sleep(0.001)

    asyncio.run(asyncio.wait_for(page(), 20))
    box.wait()
    assert box.conversation.messages[1] == {"role": "user", "content": "Hello!"}
    box.message._handle_custom_msg({"event": "focus"}, [])
    assert not box.answering


def test_without_widgets_there_is_a_short_talk(model: Qwen3Model, tokenizer: Qwen3Tokenizer,
                                               monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(panel, "has_ipywidgets", lambda: False)
    box = chat_box(model, tokenizer)
    assert box.widget is None
    output = box.output()
    assert output["text/plain"] == f"system: {SYSTEM} user: Hello! assistant: Hello! How can I help you?"
    assert "Hello! How can I help you?" in output["text/html"] and len(output) == 2
    box.close()


def test_the_sample_is_not_part_of_the_talk(box: ChatBox) -> None:
    assert "Hello!" not in box.log.value and "Hello!" in box.output()["text/html"]
    assert box.conversation.messages == [{"role": "system", "content": SYSTEM}]


def test_it_is_another_thread_that_answers_and_stop_stops_it(box: ChatBox, gate: threading.Semaphore) -> None:
    box.message.value = "Tell me a story."
    box.send_button.click()
    assert box.answering
    gate.release(5)  # and the sixth pass waits
    while gate._value:
        assert box.answering
    box.stop_button.click()
    gate.release()
    box.wait()
    assert not box.answering and "Stopped." in box.status.value
    role, said = box.conversation.messages[-1].values()
    assert (role, box.conversation.messages[-2]["content"]) == ("assistant", "Tell me a story.")
    assert said and said in box.log.value
    turn = box.conversation.last_turn
    assert turn is not None and 5 <= turn.new_tokens <= 6


def test_after_a_stop_the_talk_goes_on(box: ChatBox, gate: threading.Semaphore) -> None:
    box.message.value = "Tell me a story."
    box.send()
    box.stop()
    gate.release(1000)
    box.wait()
    kept = list(box.conversation.messages)
    say(box, "Thank you!")
    assert box.conversation.messages[:len(kept)] == kept and len(box.conversation.messages) == len(kept) + 2
    assert "Stopped" not in box.status.value


def test_one_thing_at_a_time(box: ChatBox, gate: threading.Semaphore) -> None:
    box.message.value = "Hello!"
    box.send()
    box.message.value = "And again!"
    box.send_button.click()
    assert "still answering" in box.status.value and box.message.value == "And again!"
    box.restart_button.click()
    assert "still answering" in box.status.value
    gate.release(1000)
    box.wait()
    assert [message["content"] for message in box.conversation.messages if message["role"] == "user"] == ["Hello!"]


def test_another_system_prompt_begins_another_talk(box: ChatBox, model: Qwen3Model, tokenizer: Qwen3Tokenizer) -> None:
    say(box, "Hello!")
    box.system.value = "You are a pirate. Begin every answer with Ahoy!"
    say(box, "Who are you?")
    talk = Conversation(model, tokenizer, box.system.value)
    talk.answer("Who are you?")
    assert box.conversation.messages == talk.messages
    box.system.value = ""
    say(box, "Hello!")
    assert [message["role"] for message in box.conversation.messages] == ["user", "assistant"]
    say(box, "Thank you!")
    assert len(box.conversation.messages) == 4


def test_start_over(box: ChatBox) -> None:
    say(box, "Hello!")
    box.restart_button.click()
    assert box.conversation.messages == [{"role": "system", "content": SYSTEM}] and "Hello!" not in box.log.value


@pytest.mark.parametrize(("text", "message"), [("", "The message is empty"), ("  ", "The message is empty"),
                                               ("moon " * 3000, "does not fit into this model")])
def test_refusals_leave_the_text_in_the_field(box: ChatBox, text: str, message: str) -> None:
    say(box, "Hello!")
    kept = list(box.conversation.messages)
    say(box, text)
    assert message in box.status.value and box.message.value == text
    assert box.conversation.messages == kept and "Hello!" in box.log.value and not box.answering
    say(box, "Thank you!")
    assert len(box.conversation.messages) == len(kept) + 2


def test_a_failure_of_the_model_is_said(box: ChatBox, model: Qwen3Model) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("out of memory")

    handle = model.model.embed_tokens.register_forward_pre_hook(fail)
    say(box, "Hello!")
    handle.remove()
    assert "RuntimeError: out of memory" in box.status.value and box.message.value == "Hello!"
    say(box, "Hello!")
    assert box.conversation.messages[-1]["content"]


def test_what_is_said_is_no_html(box: ChatBox) -> None:
    say(box, "<b>&</b><|im_end|>")
    assert "<b>&</b>" not in box.log.value and "&lt;b&gt;&amp;&lt;/b&gt;&lt;|im_end|&gt;" in box.log.value


def test_a_transcript_marks_who_speaks_beside_the_colour() -> None:
    view = transcript([{"role": "user", "content": "1 < 2?"}, {"role": "assistant", "content": "Yes."}])
    assert view.sentence == "user: 1 < 2? assistant: Yes."
    assert "solid #0072b2" in view.html and "dashed #d55e00" in view.html and 'role="log"' in view.html


def test_a_model_without_a_template_is_refused(small_tokenizer: Qwen3Tokenizer, small_tokenizer_folder: Path,
                                               tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_bytes((small_tokenizer_folder / "tokenizer.json").read_bytes())
    with pytest.raises(TokenizerError, match="no chat template"):
        chat_box(make(variant(vocab_size=small_tokenizer.vocab_size)), Qwen3Tokenizer(tmp_path))
