"""The program that renders chat templates, in a process of its own. `chat.py` starts it and asks it.

A template is code from whoever made the checkpoint. Jinja's sandbox keeps it away from files and from Python's insides,
but cannot stop it: loops in loops, a power of a power or a text padded to a width of billions take all time and memory,
often inside one operation that nothing in the same process can interrupt. A process can be ended, and its memory
limited.

It reads a question on each line of stdin and writes the answer on a line of stdout, both JSON. It imports nothing of
this package, so that it starts in a moment. Without a question it waits; when stdin is closed it ends.
"""

from __future__ import annotations

import faulthandler
import json
import os
import signal
import sys
from datetime import datetime
from typing import Any

from jinja2 import Template, TemplateError, TemplateSyntaxError
from jinja2.exceptions import SecurityError
from jinja2.ext import loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment

_MEMORY = 2**30  # bytes of address space; Python and Jinja take a tenth
_KEPT = 8  # templates that stay compiled
_TOLD = 1000  # characters of an error


class RefusedByTemplate(TemplateError):
    """The template itself called `raise_exception`: it does not accept these messages."""


class TooLong(Exception):
    """What the template writes is longer than was allowed."""


def environment() -> ImmutableSandboxedEnvironment:
    """Jinja as `apply_chat_template` in transformers sets it up."""
    made = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=[loopcontrols])
    made.filters["tojson"] = _to_json
    made.globals["raise_exception"] = _refuse
    made.globals["strftime_now"] = _strftime_now
    return made


def answer(question: dict[str, Any], compiled: dict[str, Template]) -> dict[str, Any]:
    """Compile a template, and render it if there are variables.

    Args:
        question: "source" of the template; "variables", or None to see only whether it compiles; "longest" text in
            characters.
        compiled: templates by their source, which is added to.

    Returns:
        {"text": ...}, or {"kind": ..., "error": ...} with kind "syntax", "refused", "forbidden", "long" or "failed".
    """
    try:
        source = question["source"]
        if source not in compiled:
            if len(compiled) >= _KEPT:
                compiled.clear()
            compiled[source] = environment().from_string(source)
        pieces, length = [], 0
        for piece in [] if question["variables"] is None else compiled[source].generate(question["variables"]):
            pieces.append(piece)
            length += len(piece)
            if length > question["longest"]:
                raise TooLong(length)
        return {"text": "".join(pieces)}
    except TemplateSyntaxError as error:
        return {"kind": "syntax", "error": f"in line {error.lineno}: {error.message}"}
    except RefusedByTemplate as error:
        return {"kind": "refused", "error": str(error)[:_TOLD]}
    except SecurityError as error:
        return {"kind": "forbidden", "error": str(error)[:_TOLD]}
    except TooLong:
        return {"kind": "long", "error": ""}
    except Exception as error:  # a template is a program: it can fail in any way that an expression can
        return {"kind": "failed", "error": f"{type(error).__name__}: {str(error)[:_TOLD]}".rstrip(": ")}


def main() -> None:
    """Answer until stdin is closed."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches every process; the other end decides what it means
    _limit_memory()
    nowhere = open(os.devnull, "w")
    compiled: dict[str, Template] = {}
    for line in sys.stdin.buffer:
        question = json.loads(line)
        # Ends this process after so many seconds, from a thread in C that needs no turn of Python's.
        faulthandler.dump_traceback_later(question["seconds"], exit=True, file=nowhere)
        said = json.dumps(answer(question, compiled)).encode()
        faulthandler.cancel_dump_traceback_later()
        sys.stdout.buffer.write(said + b"\n")
        sys.stdout.buffer.flush()


def _limit_memory() -> None:
    """Where the system can: Linux does. Elsewhere the limits of time and length have to do."""
    try:
        import resource  # there is none on Windows

        resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
    except (ImportError, OSError, ValueError):
        pass


def _to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None,
             separators: tuple[str, str] | None = None, sort_keys: bool = False) -> str:
    """The `tojson` filter; Jinja's own escapes letters beyond ASCII and HTML, which the model would see."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def _refuse(message: str) -> None:
    raise RefusedByTemplate(str(message))


def _strftime_now(pattern: str) -> str:
    return datetime.now().strftime(pattern)


if __name__ == "__main__":
    main()
