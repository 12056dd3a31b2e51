"""The code of a cell with other texts, and otherwise the same, token for token."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Collection

from code_texts import TITLE, Text, is_placeholder, pieces, texts, without_magics
from rules import MOST_COLUMNS, columns_of

NARROW = 36  # columns: with fewer left, a text that takes several lines begins on a line of its own
# No line begins with these in Chinese, nor ends with those.
_CLOSING, _OPENING = "，。、；：？！）》」』”’…%", "（《「『“‘"


def with_texts(source: str, translation: Callable[[Text], str | None], labels: Collection[str] = ()) -> str:
    """A cell's code with other texts.

    Args:
        source: the code.
        translation: what a text becomes, without `faults`; None leaves it.
        labels: keys in brackets that are texts, too: see `code_texts.labels`.

    Raises:
        ValueError: if the code would no longer do the same.
    """
    result = source
    for text in reversed(texts(source, labels)):
        if (told := translation(text)) is not None and told != text.message:
            written = _written(source, text, told)
            before = result[:text.start].rstrip(" ") if written[0] == "\n" else result[:text.start]
            result = before + written + result[text.end:]
    if _skeleton(result) != _skeleton(source):
        raise ValueError(f"With these texts the code would be another:\n{result}")
    return result


def _written(source: str, text: Text, told: str) -> str:
    """A translation as code, in lines that begin in the same column; a line break in front puts it below the line."""
    column = text.start - (source.rfind("\n", 0, text.start) + 1)
    indent = "\n" + " " * column
    if text.kind == "comment":
        if source.startswith("# " + TITLE, text.start):
            return f"# {TITLE}{told}"
        if source[text.start - column:text.start].strip():  # behind code
            return f"# {told}"
        lines = [line for part in told.split("\n") for line in _wrapped([part], MOST_COLUMNS - column - 2)]
        return indent.join(f"# {line}".rstrip() for line in lines)
    if text.kind == "docstring":
        lines = told.split("\n")
        return '"""' + "\n".join([lines[0], *(" " * column + line if line else "" for line in lines[1:])]) + (
            indent if len(lines) > 1 and source[:text.end].rstrip('"').endswith(indent) else "") + '"""'
    is_f = text.kind == "f-string"
    parts = list(pieces(told)) if is_f else [told]
    escaped = [piece if is_f and is_placeholder(piece) else
               piece.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t")
               for piece in parts]
    tail = len(source[text.end:].partition("\n")[0])
    whole = ("f" if is_f else "") + f'"{"".join(escaped)}"'
    if column + columns_of(whole) + tail <= MOST_COLUMNS:
        return whole
    bracket = not text.depth
    first, line = "", source[text.start - column:text.start]
    if text.depth and MOST_COLUMNS - column < NARROW and line.strip():
        column = len(line) - len(line.lstrip()) + 4
        first = indent = "\n" + " " * column
    lines = _wrapped(escaped, MOST_COLUMNS - column - (3 if is_f else 2) - bracket - max(1, tail), placeholders=is_f)
    quoted = [("f" if is_f and any(map(is_placeholder, pieces(line))) else "") + f'"{line}"' for line in lines]
    if is_f:  # between strings that are no f-strings a brace would be doubled for nothing
        quoted = [line if line[0] == "f" else line.replace("{{", "{").replace("}}", "}") for line in quoted]
    return "(" + (indent + " ").join(quoted) + ")" if bracket else first + indent.join(quoted)


def _wrapped(parts: list[str], columns: int, placeholders: bool = False) -> list[str]:
    """A text in lines: broken behind spaces and between Chinese characters, never within a placeholder."""
    atoms: list[str] = []
    for piece in parts:
        if placeholders and is_placeholder(piece):
            atoms.append(piece)
            continue
        for atom in re.findall(r"\\.|\{\{|\}\}|[\u2e80-\uffef]|[^\s\u2e80-\uffef\\{}]+|\s+", piece):
            if atoms and (atom.isspace() or atom in _CLOSING or atoms[-1] in _OPENING or atom[0] == "\\"
                          or re.match(r"[^\s\u2e80-\uffef]", atom) and re.search(r"[^\s\u2e80-\uffef]$", atoms[-1])
                          and not (placeholders and is_placeholder(atoms[-1]))):
                atoms[-1] += atom
            else:
                atoms.append(atom)
    lines = [""]
    for atom in atoms:
        if lines[-1] and columns_of((lines[-1] + atom).rstrip()) > columns:
            lines.append("")
        lines[-1] += atom
    return lines


def _skeleton(source: str) -> str:
    """What a piece of code does, whatever its texts say."""
    tree = ast.parse(without_magics(source))

    class Blank(ast.NodeTransformer):
        def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
            return ast.Constant("")

        def visit_Constant(self, node: ast.Constant) -> ast.AST:
            return ast.Constant("") if isinstance(node.value, str) else node

    return ast.dump(Blank().visit(tree))
