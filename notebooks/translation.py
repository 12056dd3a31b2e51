"""A notebook in another language: its messages, and the notebook that their translations make.

A message is a Markdown cell, or a text in a code cell that a reader sees (code_texts.py says which). Badges and
solutions are no part of it: they are filled in. What is not translated, or was translated from another English text,
stands in English, with a line that says so.
"""

from __future__ import annotations

import copy
import posixpath
import re
import string
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import code_texts
from code_writing import with_texts
from nbformat import NotebookNode

# Texts of this script and of build.py; a catalog has them like those of the notebooks.
SOLUTION = "Solution"
BEHIND = "This part is not yet translated from the present English text:"
BADGES = ("Open in Colab", "Open in Lightning Studio", "Open in Codespaces", "Open in Binder")
OWN = (SOLUTION, BEHIND, *BADGES, "How a large language model writes text", "Chapters", "Show the set-up",
       "Hide the set-up")

_BADGES = re.compile(r"^\[Open in Colab\]\(.*\n*", re.MULTILINE)
_SOLUTION = re.compile(r"^<!-- solution ([\w.]+) -->\n<details>.*?^<!-- end of solution -->$", re.MULTILINE | re.DOTALL)
_MARKER = re.compile(r"^<!-- solution ([\w.]+) -->$", re.MULTILINE)
_RELATIVE = re.compile(r"(\]\(|\bsrc=\")(?!\w+:|[#/])([^)\"#\s]+)")
_LANGUAGE_SETTING = 'import os\n\nos.environ["COURSE_LANGUAGE"] = "{language}"\n'
# Where Chinese meets Chinese, a line's end would be shown as a gap.
_WIDE = r"[\u2e80-\ua4cf\uac00-\ud7af\uf900-\ufaff\ufe30-\uffef“”‘’…—]"
_SOFT_BREAK = re.compile(rf"(?<={_WIDE})\n(?={_WIDE})|(?<={_WIDE})\n(?=[`*$\w](?<![-*+] ))(?!\d+\. |[-*+] )")
_PARTS = {  # what a translation must have as often as the English text
    "heading": re.compile(r"^(#+) ", re.MULTILINE),
    "link": re.compile(r"\]\(([^)\s]+)\)"),
    "tag": re.compile(r"</?\w+|<!-- .*? -->"),
    "formula": re.compile(r"\$\$.+?\$\$|\$[^$\n]+\$", re.DOTALL),
    "row of a table": re.compile(r"^\|(?=.*\|$)", re.MULTILINE),
}
_CODE = re.compile(r"```.*?```|`([^`\n]+(?:\n[^`\n]+)?)`", re.DOTALL)
# Half-width punctuation right after a Chinese character.
_NARROW = re.compile(r"[\u3400-\u9fff][,;:!?](?!\d)|[\u3400-\u9fff]\.(?=\s|$)|[\u3400-\u9fff]\(|\)[\u3400-\u9fff]")
# Emphasis that Markdown does not see: punctuation inside, and right outside a character that is none.
_EMPHASIS = re.compile(r"(?<!\*)(\*{1,2})(?![\s*])([^*\n]*[^*\s])\1(?!\*)")
_PUNCTUATION = "，。、；：？！（）《》「」“”‘’…—,.;:?!()\"'"


@dataclass(frozen=True)
class Message:
    """What is to be translated.

    Attributes:
        text: in English.
        kind: "Markdown", that of a `code_texts.Text`, or of the package's texts "format" for `str.format`, else "text".
        needed: whether a reader is sure to see it; others may stay as they are.
    """

    text: str
    kind: str
    needed: bool


def blocks(text: str) -> list[str]:
    """A Markdown text cut at its empty lines, but for those in a fence of code."""
    found: list[str] = []
    for part in text.strip().split("\n\n"):
        if found and found[-1].count("```") % 2:
            found[-1] += f"\n\n{part}"
        else:
            found.append(part)
    return found


def messages_of_text(text: str) -> Iterator[Message]:
    """The messages of a Markdown text, such as README.md: its blocks, but for code and what has no words."""
    return (Message(block, "Markdown", True) for block in blocks(text) if _has_words(block))


def translated_text(text: str, told: Callable[[str], str | None], moved: Callable[[str], str]) -> str:
    """A Markdown text in another language, block by block; `moved` says where a relative link leads from there."""
    result = []
    for block in blocks(text):
        found = told(block) if _has_words(block) else block
        result += [f"*{told(BEHIND) or BEHIND}*", block] if found is None else [_SOFT_BREAK.sub("", found)]
    return _RELATIVE.sub(lambda link: link[1] + moved(link[2]), "\n\n".join(result)) + "\n"


def _has_words(block: str) -> bool:
    return not block.startswith(("```", "<!--")) and bool(re.search(r"[^\W\d_]{2}", block))


def messages(notebook: NotebookNode) -> Iterator[Message]:
    """The messages of a notebook as it is committed, in their order, each as often as it stands there."""
    for cell in notebook.cells:
        if cell.cell_type == "code":
            for text in code_texts.texts(cell.source):
                yield Message(text.message, text.kind, text.needed)
        elif cell.cell_type == "markdown":
            text = _without_fillings(cell.source)
            if _is_message(text):
                yield Message(text, "Markdown", True)


def translated(notebook: NotebookNode, language: str, told: Callable[[str], str | None], badges: str) -> NotebookNode:
    """A notebook in another language, without outputs.

    Args:
        notebook: the English one, as it is committed.
        language: its short name, such as "zh".
        told: the translation of a message, None if there is none from the present English text.
        badges: the line of links under its first heading.

    Raises:
        ValueError: if a translation breaks the code.
    """
    result = copy.deepcopy(notebook)
    labels = {label for cell in result.cells if cell.cell_type == "code" for label in code_texts.labels(cell.source)}
    for cell in result.cells:
        if cell.cell_type == "markdown":
            cell.source = _markdown(cell.source, told, badges)
        elif cell.cell_type == "code":
            cell.source = _code(cell.source, language, told, labels)
            cell.outputs, cell.execution_count = [], None
    return result


def faults(message: Message, translation: str, flags: set[str]) -> Iterator[str]:
    """What is wrong with a translation, whatever it says: one sentence each.

    A translation with the flag `adapted` may have other code and other links than the English text, as where an example
    had to be replaced.
    """
    if message.kind == "format":
        asked_fields, given_fields = _fields(message.text), _fields(translation)
        for field in sorted(asked_fields ^ given_fields):
            yield f"the placeholder {field} stands in one of both texts only."
        return
    if message.kind != "Markdown":
        text = code_texts.Text(message.text, message.kind, message.needed, 0, 0)
        yield from code_texts.faults(text, translation)
        return
    if "adapted" not in flags:
        for name, pattern in _PARTS.items():
            asked, given = Counter(pattern.findall(message.text)), Counter(pattern.findall(translation))
            for part in asked - given:
                yield f"the {name} {part} is missing."
            for part in given - asked:
                yield f"the {name} {part} is not in the English text."
        asked_code, given_code = (_code_spans(text) for text in (message.text, translation))
        for span in sorted(asked_code ^ given_code):
            yield f"`{span}` stands in one of both texts only (the flag `adapted` allows that)."
    prose = _CODE.sub("code", translation)
    for found in _NARROW.finditer(re.sub(r"\]\([^)]*\)|\$[^$]+\$", "]", prose)):
        yield f"{found.group()!r}: Chinese text has Chinese punctuation (，。；：？！（）)."
    for found in _EMPHASIS.finditer(prose):
        before, after = prose[:found.start()][-1:], prose[found.end():][:1]
        if found[2][-1] in _PUNCTUATION and after.isalnum() or found[2][0] in _PUNCTUATION and before.isalnum():
            yield f"{found.group()!r}: Markdown does not see this emphasis; put the punctuation outside."


def _fields(text: str) -> set[str]:
    """The placeholders of a text for `str.format`."""
    try:
        return {f"{{{name}{'!' + how if how else ''}{':' + spec if spec else ''}}}"
                for _, name, spec, how in string.Formatter().parse(text) if name is not None}
    except ValueError as error:
        return {f"({error})"}


def _code_spans(text: str) -> set[str]:
    return {" ".join(span.split()) for span in _CODE.findall(text) if span}


def _without_fillings(source: str) -> str:
    return _SOLUTION.sub(r"<!-- solution \1 -->", _BADGES.sub("", source)).strip()


def _is_message(text: str) -> bool:
    """Whether a Markdown cell says something beside a solution."""
    return bool(re.search(r"[^\W\d_]{2}", _MARKER.sub("", text)))


def _markdown(source: str, told: Callable[[str], str | None], badges: str) -> str:
    message = _without_fillings(source)
    found = told(message) if _is_message(message) else message
    if found is None:
        behind = f"*{told(BEHIND) or BEHIND}*"
        heading, rest = re.match(r"((?:#+ .*\n+)?)(.*)", message, re.DOTALL).groups()  # type: ignore[union-attr]
        found = f"{heading}{behind}\n\n{rest}"
    found = _SOFT_BREAK.sub("", found)
    found = _RELATIVE.sub(lambda link: link[1] + _from_folder_below(link[2]), found)
    solutions = {match[1]: match[0] for match in _SOLUTION.finditer(source)}
    summary = f"<summary>{told(SOLUTION) or SOLUTION}</summary>"
    found = _MARKER.sub(lambda marker: solutions[marker[1]].replace(f"<summary>{SOLUTION}</summary>", summary), found)
    if _BADGES.search(source):
        heading, _, rest = found.partition("\n")
        found = f"{heading}\n\n{badges}\n\n{rest.lstrip()}"
    return found.rstrip()


def _code(source: str, language: str, told: Callable[[str], str | None], labels: set[str]) -> str:
    behind = False

    def translation(text: code_texts.Text) -> str | None:
        nonlocal behind
        found = told(text.message)
        behind |= found is None and text.needed
        return found

    source = with_texts(source, translation, labels)
    if source.startswith("# @title "):
        title, _, rest = source.partition("\n")
        return f"{title}\n{_LANGUAGE_SETTING.format(language=language)}\n{rest}"
    if behind and not source.startswith("%%"):
        return f"# {told(BEHIND) or BEHIND}\n{source}"
    return source


def _from_folder_below(path: str) -> str:
    """A link of a notebook, for one in a folder of its language: chapters stand beside it, all else one folder up."""
    return path if path.endswith(".ipynb") and "/" not in path else posixpath.normpath(f"../{path}")
