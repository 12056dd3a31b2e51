"""Chat templates: a list of messages becomes the one text that a chat model continues.

A checkpoint brings its own template, a small Jinja program that writes the turns of a conversation between
control tokens. It is code from whoever made the checkpoint, so it runs in Jinja's sandbox and sees nothing
but the messages. The set-up is that of `apply_chat_template` in Hugging Face transformers
(https://huggingface.co/docs/transformers/chat_templating), so templates render here as they do there.

Left out: messages with pictures or sound, and turning Python functions into tool descriptions.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from jinja2 import TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

from course_utils.errors import InputError, TokenizerError
from course_utils.json_text import parse_json

ROLES = ("system", "user", "assistant", "tool")

Message = Mapping[str, Any]


class _RefusedByTemplate(TemplateError):
    """The template itself called `raise_exception`: it does not accept these messages."""


class ChatTemplate:
    """A Jinja chat template, ready to render conversations.

    Args:
        source: the text of the template.
        variables: what the template may use beside the messages, such as `bos_token` and `eos_token`.

    Raises:
        TokenizerError: the text is not a valid Jinja template.
    """

    def __init__(self, source: str, variables: Mapping[str, str] | None = None) -> None:
        self.source = source
        self.variables = dict(variables or {})
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols]
        )
        environment.filters["tojson"] = _to_json
        environment.globals["raise_exception"] = _refuse
        environment.globals["strftime_now"] = _strftime_now
        try:
            self._template = environment.from_string(source)
        except TemplateSyntaxError as error:
            raise TokenizerError(
                f"The chat template has an error in line {error.lineno}: {error.message}. "
                "Correct it, or take the template that came with the model."
            ) from error

    @classmethod
    def from_folder(cls, folder: str | Path) -> ChatTemplate:
        """The template of a checkpoint folder.

        It is `chat_template.jinja`, or, in older checkpoints, the entry `chat_template` of
        `tokenizer_config.json`: a string, or a list of named templates of which "default" is taken.

        Raises:
            TokenizerError: the folder has no template, or one that cannot be read.
        """
        folder = Path(folder)
        settings = read_settings(folder / "tokenizer_config.json")
        source: Any
        if (folder / "chat_template.jinja").is_file():
            try:
                source = (folder / "chat_template.jinja").read_text(encoding="utf-8")
            except (OSError, UnicodeDecodeError) as error:
                raise TokenizerError(
                    f"{folder / 'chat_template.jinja'} cannot be read ({error}). Fetch the file again."
                ) from error
        else:
            source = settings.get("chat_template")
        if isinstance(source, list):
            named = {entry.get("name"): entry.get("template") for entry in source if isinstance(entry, dict)}
            if "default" not in named:
                raise TokenizerError(
                    f"tokenizer_config.json in {folder} has the chat templates {sorted(map(str, named))}, "
                    "none of them 'default'. Build ChatTemplate(source) from the one you want."
                )
            source = named["default"]
        if not isinstance(source, str):
            raise TokenizerError(
                f"There is no chat template in {folder}, neither chat_template.jinja nor an entry in "
                "tokenizer_config.json. Give the model plain text, or choose a chat model."
            )
        names = ("bos_token", "eos_token", "pad_token", "unk_token")
        tokens = {name: token_string(settings.get(name)) for name in names}
        return cls(source, {name: token for name, token in tokens.items() if token is not None})

    def render(
        self,
        messages: Sequence[Message],
        add_generation_prompt: bool = True,
        enable_thinking: bool = False,
        tools: Sequence[Mapping[str, Any]] | None = None,
    ) -> str:
        """Write a conversation as the one text that the model is given.

        Args:
            messages: the turns, oldest first, each `{"role": ..., "content": ...}`, with a role from `ROLES`.
            add_generation_prompt: end with the beginning of an answer, for the model to go on from.
            enable_thinking: let the model think aloud first; False hands it an empty block of thoughts.
            tools: JSON descriptions of functions that the model may call, for templates that know of tools.

        Returns:
            The text, with the template's control tokens written out.

        Raises:
            InputError: the messages are not as described, or the template refuses them.
            TokenizerError: the template fails or tries what the sandbox forbids.
        """
        check_messages(messages)
        try:
            return self._template.render(
                **self.variables,
                messages=[dict(message) for message in messages],
                tools=None if tools is None else list(tools),
                add_generation_prompt=add_generation_prompt,
                enable_thinking=enable_thinking,
            )
        except _RefusedByTemplate as error:
            raise InputError(
                f"The chat template refuses these messages: {error}. Change them accordingly."
            ) from error
        except SecurityError as error:
            raise TokenizerError(
                f"The chat template tries what a template must not do: {error}. Do not use a model folder "
                "with such a template."
            ) from error
        except Exception as error:  # A template is a program: it can fail in any way that an expression can.
            raise TokenizerError(
                f"The chat template fails on these messages ({type(error).__name__}: {error}). "
                "Check that they are what this model's template expects, or use another template."
            ) from error


def check_messages(messages: Sequence[Message]) -> None:
    """Make sure that `messages` is a list, not empty, of `{"role": ..., "content": text}`.

    Raises:
        InputError: it is not; says which message is wrong.
    """
    if isinstance(messages, (str, Mapping)) or not isinstance(messages, Sequence):
        raise InputError(
            f"messages is a {type(messages).__name__}, not a list. "
            'Write [{"role": "user", "content": "..."}], also for a single message.'
        )
    if not messages:
        raise InputError('There are no messages. Give at least one: {"role": "user", "content": "..."}.')
    for number, message in enumerate(messages):
        if not isinstance(message, Mapping):
            raise InputError(f'Message {number} is {message!r}. Write it as {{"role": ..., "content": ...}}.')
        for key in ("role", "content"):
            if key not in message:
                raise InputError(
                    f"Message {number} has no {key!r}, only {list(message)}. "
                    "Give each message a role and a content."
                )
        if message["role"] not in ROLES:
            raise InputError(
                f"Message {number} has the unknown role {message['role']!r}. Use one of {', '.join(ROLES)}."
            )
        if not isinstance(message["content"], str):
            raise InputError(
                f"The content of message {number} is a {type(message['content']).__name__}. Make it a string."
            )


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
        raise TokenizerError(f"{path} cannot be read as JSON ({error}). Fetch the file again.") from error
    if not isinstance(settings, dict):
        raise TokenizerError(f"{path} holds a {type(settings).__name__}, no object. Fetch the file again.")
    return settings


def token_string(entry: Any) -> str | None:
    """The text of a token in `tokenizer_config.json`, where it is a string or an object with a "content"."""
    if isinstance(entry, dict):
        entry = entry.get("content")
    return entry if isinstance(entry, str) else None


def _to_json(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    """The `tojson` filter; Jinja's own escapes letters beyond ASCII and HTML, which the model would see."""
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> None:
    raise _RefusedByTemplate(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)
