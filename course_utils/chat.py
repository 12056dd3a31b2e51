"""Chat templates: a list of messages becomes the one text that a chat model continues.

A checkpoint brings its own template, a small Jinja program that writes the turns of a conversation between
control tokens. It is code from whoever made the checkpoint, so it runs in Jinja's sandbox, in a process of its own
(`template_worker.py`), sees nothing but the messages, and has limits of time, of memory and of length. The set-up is
that of `apply_chat_template` in Hugging Face transformers
(https://huggingface.co/docs/transformers/chat_templating), so templates render here as they do there.

Left out: messages with pictures or sound, and turning Python functions into tool descriptions.
"""

from __future__ import annotations

import atexit
import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from course_utils.errors import InputError, TokenizerError
from course_utils.json_text import parse_json
from course_utils.language import gettext

ROLES = ("system", "user", "assistant", "tool")
SECONDS = 10  # in which a template has to be done; one that means well takes milliseconds
_LONGEST = 10_000_000  # characters of a rendered chat; more than any model's context holds
_REASONING = ("reasoning_content", "thinking", "reasoning")  # what the thoughts of a message have been called

Message = Mapping[str, Any]


class ChatTemplate:
    """A Jinja chat template, ready to render conversations.

    Args:
        source: the text of the template.
        variables: what the template may use beside the messages, such as `bos_token` and `eos_token`.
        with_tools: another template, for conversations with tools; None uses the same.

    Raises:
        TokenizerError: the text is not a valid Jinja template.
    """

    def __init__(self, source: str, variables: Mapping[str, str] | None = None, with_tools: str | None = None) -> None:
        self.source = source
        self.with_tools = with_tools
        self.variables = dict(variables or {})
        for text in (source, with_tools):
            if text is not None:
                self._ask(text, None)

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTemplate:
        """The template of a checkpoint folder.

        It is `chat_template.jinja`, or, in older checkpoints, the entry `chat_template` of
        `tokenizer_config.json`: a string, or a list of named templates of which "default" is taken, and "tool_use"
        for conversations with tools.

        Raises:
            TokenizerError: the folder has no template, or one that cannot be read.
        """
        folder = Path(folder)
        settings = read_settings(folder / "tokenizer_config.json")
        source: Any
        with_tools = None
        if (folder / "chat_template.jinja").is_file():
            try:
                source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise TokenizerError(
                    gettext("{folder} cannot be read ({error}). Fetch the file again.").format(
                        folder=folder / "chat_template.jinja", error=error)
                ) from error
        else:
            source = settings.get("chat_template")
        if isinstance(source, list):
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            if "default" not in named:
                raise TokenizerError(
                    gettext("tokenizer_config.json in {folder} has the chat templates {named}, none of them 'default'. "
                            "Build ChatTemplate(source) from the one you want.").format(
                        folder=folder, named=sorted(map(str, named)))
                )
            source, with_tools = named["default"], named.get("tool_use")
        if not isinstance(source, str):
            raise TokenizerError(
                gettext("There is no chat template in {folder}, neither chat_template.jinja nor an entry in "
                        "tokenizer_config.json. Give the model plain text, or choose a chat model.").format(
                    folder=folder)
            )
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {name: token_string(settings.get(name)) for name in names}
        variables = {name: token for name, token in tokens.items() if token is not None}
        return cls(source, variables, with_tools if isinstance(with_tools, str) else None)

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Write a conversation as the one text that the model is given.

        Args:
            messages: the turns, oldest first, as `check_messages` describes them.
            add_generation_prompt: end with the beginning of an answer, for the model to go on from.
            enable_thinking: let the model think aloud first; False hands it an empty block of thoughts.
            tools: JSON descriptions of functions that the model may call, for templates that know of tools.

        Returns:
            The text, with the template's control tokens written out.

        Raises:
            InputError: the messages or tools are not as described, or the template refuses them.
            TokenizerError: the template fails, tries what the sandbox forbids, or takes too long or too much.
        """
        plain = plain_messages(messages)
        variables = {**self.variables, "messages": plain, "tools": plain_tools(tools),
                     "add_generation_prompt": add_generation_prompt, "enable_thinking": enable_thinking}
        source = self.source if tools is None or self.with_tools is None else self.with_tools
        try:
            return self._ask(source, variables)
        except _TemplateFailure as error:
            empty = next((number for number, message in enumerate(plain) if "content" not in message), None)
            if empty is not None:
                raise InputError(gettext("The chat template needs a content in every message, and message {empty} has "
                                         "none beside its tool calls: give it the content \"\".").format(
                    empty=empty)) from error
            raise

    def _ask(self, source: str, variables: Mapping[str, Any] | None) -> str:
        """Let the template be compiled and, with variables, rendered."""
        answer = _PROCESS.ask({"source": source, "variables": variables, "seconds": SECONDS, "longest": _LONGEST})
        if answer is None:
            raise TokenizerError(gettext("The chat template has taken more than {seconds} seconds or more memory than "
                                         "a template may have: do not use a model folder with such a template.").format(
                seconds=SECONDS))
        if "text" in answer:
            return str(answer["text"])
        kind, error = answer["kind"], answer["error"]
        if kind == "syntax":
            raise TokenizerError(gettext("The chat template has an error {error}. Correct it, or take the template "
                                         "that came with the model.").format(error=error))
        if kind == "refused":
            raise InputError(gettext("The chat template refuses these messages: {error}. Change them "
                                     "accordingly.").format(error=error))
        if kind == "forbidden":
            raise TokenizerError(gettext("The chat template tries what a template must not do: {error}. Do not use a "
                                         "model folder with such a template.").format(error=error))
        if kind == "long":
            raise TokenizerError(gettext("The chat template writes more than {longest} characters for these messages: "
                                         "shorten them, or do not use a model folder with such a template.").format(
                longest=_LONGEST))
        raise _TemplateFailure(gettext("The chat template fails on these messages ({error}). Check that they are what "
                                       "this model's template expects, or use another template.").format(error=error))


class _TemplateFailure(TokenizerError):
    """A template came upon something that it cannot compute with."""


class _TemplateProcess:
    """The process in which templates are rendered: started when it is first asked, and anew after it was ended."""

    def __init__(self) -> None:
        self.forget()

    def forget(self) -> None:
        """After a fork: the process is the parent's."""
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any] | None:
        """Its answer; None if it ended over the question.

        Raises:
            TokenizerError: it cannot be started.
        """
        line = json.dumps(question).encode() + b"\n"
        with self._lock:
            process = self._running()
            assert process.stdin is not None and process.stdout is not None
            said = b""
            try:
                process.stdin.write(line)
                process.stdin.flush()
                said = process.stdout.readline()
            except OSError:
                pass  # it has ended
            finally:  # after Ctrl-C, too, for its answer must not be taken for that to the next question
                if not said.endswith(b"\n"):
                    self._end()
        return dict(json.loads(said)) if said.endswith(b"\n") else None

    def close(self) -> None:
        """End the process."""
        with self._lock:
            self._end()

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is not None and self._process.poll() is not None:
            self._end()
        if self._process is None:
            program = Path(__file__).with_name("template_worker.py")
            try:
                # The folder of the program, this package's, must not stand before Python's own modules.
                self._process = subprocess.Popen(
                    [sys.executable, str(program)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                    stderr=subprocess.DEVNULL, env={**os.environ, "PYTHONSAFEPATH": "1"},
                    creationflags=getattr(subprocess, "CREATE_NO_WINDOW", 0))
            except OSError as error:
                raise TokenizerError(gettext("The process that renders chat templates cannot be started ({error}): end "
                                             "other programs, or start Python again.").format(error=error)) from error
        return self._process

    def _end(self) -> None:
        process, self._process = self._process, None
        if process is not None:
            process.kill()
            process.communicate()


_PROCESS = _TemplateProcess()
atexit.register(_PROCESS.close)
if hasattr(os, "register_at_fork"):  # there is no fork on Windows
    os.register_at_fork(after_in_child=_PROCESS.forget)


def check_messages(messages: Sequence[Message]) -> None:
    """Make sure that `messages` is a list, not empty, of messages as the hub's chat models take them.

    Each has a role from `ROLES` and a content, a text; an assistant's message with `tool_calls`, a list of objects, may
    do without a content, or have None there.

    Raises:
        InputError: it is not; says which message is wrong.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            gettext("messages is a {kind}, not a list. Write [{{\"role\": \"user\", \"content\": \"...\"}}], also for "
                    "a single message.").format(kind=type(messages).__name__)
        )
    if not messages:
        raise InputError('There are no messages. Give at least one: {"role": "user", "content": "..."}.')
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InputError(gettext("Message {number} is {message!r}. Write it as {{\"role\": ..., \"content\": "
                                     "...}}.").format(number=number, message=message))
        calls = message.get("tool_calls")
        if calls is not None and not _objects(calls):
            raise InputError(gettext("The tool_calls of message {number} are {calls!r}. Make them a list of objects, "
                                     "such as [{{\"function\": {{\"name\": ..., \"arguments\": {{...}}}}}}].").format(
                number=number, calls=calls))
        may_be_empty = message.get("role") == "assistant" and bool(calls)
        for key in ("role", "content"):
            if key not in message and not (key == "content" and may_be_empty):
                raise InputError(
                    gettext("Message {number} has no {key!r}, only {message}. Give each "
                            "message a role and a content.").format(number=number, key=key, message=list(message))
                )
        if message["role"] not in ROLES:
            raise InputError(
                gettext("Message {number} has the unknown role {message!r}. Use one of {roles}.").format(
                    number=number, message=message["role"], roles=", ".join(ROLES))
            )
        content = message.get("content")
        if not isinstance(content, str) and not (content is None and may_be_empty):
            raise InputError(
                gettext("The content of message {number} is a {kind}. Make it a string.").format(
                    number=number, kind=type(content).__name__)
            )


def plain_messages(messages: Sequence[Message]) -> list[dict[str, Any]]:
    """Messages as a template sees them, and as transformers hands them to it: of plain JSON types, without the keys
    whose value is None, and with thoughts under the name `reasoning_content` whatever they were called.

    Raises:
        InputError: as `check_messages`, or if they hold themselves.
    """
    check_messages(messages)
    plain = []
    for message in _plain(list(messages)):
        given = {key: value for key, value in message.items() if value is not None}
        thoughts = next((given[key] for key in _REASONING if key in given), None)
        if thoughts is not None:
            given = {"thinking": thoughts, **given, "reasoning_content": thoughts}
        plain.append(given)
    return plain


def plain_tools(tools: Sequence[Mapping[str, Any]] | None) -> list[dict[str, Any]] | None:
    """Descriptions of tools as a template sees them: of plain JSON types.

    Raises:
        InputError: if they are no list of objects.
    """
    if tools is not None and not _objects(tools):
        raise InputError(gettext("tools is {tools!r}. Make it a list of JSON descriptions, such as "
                                 "[{{\"type\": \"function\", \"function\": {{\"name\": "
                                 "..., \"parameters\": {{...}}}}}}].").format(tools=tools))
    return None if tools is None else list(_plain(list(tools)))


def _objects(value: Any) -> bool:
    return isinstance(value, (list, tuple)) and all(isinstance(entry, Mapping) for entry in value)


def _plain(value: Any) -> Any:
    """Rebuilt of JSON's types; of anything else only its kind is told, as transformers does."""
    def rebuilt(value: Any) -> Any:
        if value is None or isinstance(value, (str, int, float)):
            return value
        if isinstance(value, Mapping):
            return {str(key): rebuilt(item) for key, item in value.items()}
        if isinstance(value, (list, tuple)):
            return [rebuilt(item) for item in value]
        return f"<{type(value).__name__}>"

    try:
        return rebuilt(value)
    except RecursionError as error:
        raise InputError("The messages or tools are nested too deeply, or hold themselves. Give plain JSON.") from error


def read_settings(path: Path) -> dict[str, Any]:
    """The JSON object in a settings file of a checkpoint; empty if the file is absent.

    Raises:
        TokenizerError: the file is there but holds no JSON object.
    """
    if not path.is_file():
        return {}
    try:
        settings = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TokenizerError(gettext("{path} cannot be read as JSON ({error}). Fetch the file again.").format(
            path=path, error=error)) from error
    if not isinstance(settings, dict):
        raise TokenizerError(gettext("{path} holds a {kind}, no object. Fetch the file again.").format(
            path=path, kind=type(settings).__name__))
    return settings


def token_string(entry: Any) -> str | None:
    """The text of a token in `tokenizer_config.json`, where it is a string or an object with a "content"."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None
