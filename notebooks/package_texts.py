"""The texts of the package that a reader sees, for `course_utils/locale/LANGUAGE.po`, and what no catalog reaches.

What is handed to `gettext` is looked up there. Some texts are kept first and looked up where they are shown: of
exercises and questions what `Exercise`, `Question` and `Option` are made of and every sentence in their modules, which
are remarks on answers, and the sentence that an error is raised with. Those are found by where they stand.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from translation import Message

PROSE = re.compile(r"[^\W\d_]{2,}[,;:]? [^\W\d_]{2,}")
# Texts for those who train the bundled models, what a model is told, and names of what is measured, which stand in a
# file of results, too.
NOT_SHOWN = ("benchmark/engines.py", "benchmark/peers.py", "benchmark/published.py", "benchmark/run.py", "corpus/",
             "distributed/__main__.py", "template_worker.py", "training/__main__.py", "training/evaluate.py",
             "training/model_card.py", "training/recipes.py")
# Markup, styles, patterns, options, code; places in a picture and fonts; prompts and what other programs say.
_NO_TEXT = re.compile(
    r"</?\w+|^\w+\(Tensor |^ style=|[a-z]+:[^ ]+;|\d?p?x? ?(?:solid|double) \{\}|row wrap|\\[sdwb]|^--|^`|_product\("
    r"|Sans|Serif|^Arial|^Microsoft|^Heiti|^WenQuan|^PingFang|^(?:upper|lower|center|outside|offset|axes) |lm_head|XPU"
    r"|^Google Colab$|^Lightning Studio$|^GitHub Codespaces$|^module \{"
    r"|^import sys, |^Once upon a"
    r"|^You are a helpful|^Tell me a story|^What is attention|^Say it again"
    r"|^Thank you!|^course-utils |^To enable trace|^The (?:Chinese|English) word for|^\{\"text\": ")
# Whose arguments are looked up where they are shown, and which of them: all where none is named.
_KEPT: dict[str, tuple[str | int, ...]] = {
    "gettext": (), "noted": (), "Finding": (), "Option": (), "Question": (1,), "Exercise": (1,),
    "add_argument": ("help",)}
_CHAPTERS = "exercises/chapters/"


def messages(package: Path) -> list[Message]:
    """The messages of a package, each once, module by module."""
    found = [message for path in _modules(package) for message in _Texts(path, package).messages()]
    return list(dict.fromkeys(found))


def unreachable(package: Path) -> list[str]:
    """Where a string stands that a reader may see, and that no catalog can translate: one line each."""
    return [fault for path in _modules(package) for fault in _Texts(path, package).unreachable()]


def _modules(package: Path) -> list[Path]:
    return [path for path in sorted(package.rglob("*.py"))
            if not path.relative_to(package).as_posix().startswith(NOT_SHOWN)]


class _Texts:
    """The strings of one module."""

    def __init__(self, path: Path, package: Path) -> None:
        self.name = path.relative_to(package).as_posix()
        self.tree = ast.parse(path.read_text(encoding="utf-8"))
        self.parents = {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    def messages(self) -> Iterator[Message]:
        for node in self._strings():
            if isinstance(node, ast.Constant) and self._is_reached(node):
                text = str(node.value)
                yield Message(text, "format" if self._argument(node)[0] == "gettext" and "{" in text else "text", True)

    def unreachable(self) -> Iterator[str]:
        reached = {message.text for message in self.messages()}
        for node in self._strings():
            words = _words(node)
            if PROSE.search(words) and words not in reached and not self._is_no_text(node):
                yield f"{self.name}, line {node.lineno}: {words[:60]!r}"

    def _strings(self) -> Iterator[ast.Constant | ast.JoinedStr]:
        strings = (node for node in ast.walk(self.tree) if isinstance(node, (ast.Constant, ast.JoinedStr)))
        for node in sorted(strings, key=lambda node: (node.lineno, node.col_offset)):
            above = self.parents.get(node)
            if isinstance(above, (ast.Expr, ast.JoinedStr, ast.FormattedValue)):  # docstrings, and parts of f-strings
                continue
            if isinstance(node, ast.JoinedStr) or isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node

    def _argument(self, node: ast.AST) -> tuple[str, str | int]:
        """The function that a string is handed to, perhaps by an `if`, and as which argument."""
        above = self.parents[node]
        while isinstance(above, ast.IfExp):
            node, above = above, self.parents[above]
        name: str | int = -1
        if isinstance(above, ast.keyword):
            name, above = above.arg or "", self.parents[above]
        if not isinstance(above, ast.Call):
            return "", name
        return ast.unparse(above.func), above.args.index(node) if node in above.args else name

    def _is_reached(self, node: ast.Constant | ast.JoinedStr) -> bool:
        if isinstance(node, ast.JoinedStr):
            return False
        call, argument = self._argument(node)
        kept = _KEPT.get(call.rpartition(".")[2])
        if kept is not None:
            return kept == () or argument in kept
        if not PROSE.search(str(node.value)):
            return False
        if call.endswith("Error") or call == "NotYet":
            return True
        return self.name.startswith(_CHAPTERS) and str(node.value)[0] != "`" and not self._is_answer(node)

    def _is_answer(self, node: ast.AST) -> bool:
        """Whether a string belongs to an answer or to what proves a check, and not to what is said of answers."""
        while (above := self.parents.get(node)) is not None:
            if isinstance(above, ast.Lambda) or isinstance(above, ast.Call) and ast.unparse(above.func) == "Exercise":
                return True
            node = above
        return False

    def _is_no_text(self, node: ast.expr) -> bool:
        """Whether a string is a pattern, a name, a prompt: nothing that the package says."""
        if self.name.startswith(_CHAPTERS) and self._is_answer(node):
            return True
        above = self.parents[node]
        if isinstance(above, ast.Compare) or isinstance(above, ast.Subscript):
            return True
        return bool(_NO_TEXT.search(_words(node)))


def _words(node: ast.Constant | ast.JoinedStr) -> str:
    if isinstance(node, ast.Constant):
        return str(node.value)
    return "".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in node.values)
